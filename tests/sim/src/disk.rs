//! Owns a replica's disk: what is durable, what is written and not yet synced, and what a crash leaves.
//!
//! Like the daemon's log writer, it takes everything that is queued as one batch with one sync. A write that
//! asks for no sync is answered before it is durable. After a crash some prefix of what was not durable is
//! there, chosen by chance, and nothing behind it: the log's records are checksummed, one after the other.

use std::collections::VecDeque;

use holdfast_replica::raftpb::{Entry, HardState};
use holdfast_replica::{Boot, Persist, StateAt};

use crate::rng::Rng;

/// A disk.
#[derive(Debug)]
pub struct Disk {
    durable: Image,
    /// Written and not durable, in order. The first `answered` have been answered all the same.
    unsynced: VecDeque<Persist>,
    /// How many of `unsynced` have been answered: they asked for no sync.
    answered: usize,
    /// How many of `unsynced`, behind those, are being written at the moment.
    in_flight: usize,
    /// A snapshot file that is being written.
    snapshot: Option<Box<StateAt>>,
}

/// What a restart would find.
#[derive(Debug, Default)]
struct Image {
    hard_state: HardState,
    snapshot: Option<Box<StateAt>>,
    /// Without a gap.
    entries: VecDeque<Entry>,
}

/// What a crash took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// How many writes that were not durable.
    pub writes: usize,
    /// A snapshot file that was being written.
    pub snapshot: bool,
}

impl Disk {
    /// The disk of a founding replica: the genesis is its snapshot.
    #[must_use]
    pub fn new(genesis: StateAt) -> Self {
        let hard_state = HardState { term: genesis.term.0, commit: genesis.index, ..HardState::default() };
        let durable = Image { hard_state, snapshot: Some(Box::new(genesis)), entries: VecDeque::new() };
        Self { durable, unsynced: VecDeque::new(), answered: 0, in_flight: 0, snapshot: None }
    }

    /// Takes in a write.
    pub fn write(&mut self, persist: Persist) {
        self.unsynced.push_back(persist);
    }

    /// Begins to write what is queued. Returns whether there is something, and whether it takes a sync; `None`
    /// too while an earlier batch is being written.
    pub fn begin(&mut self) -> Option<bool> {
        if self.in_flight > 0 || self.unsynced.len() == self.answered {
            return None;
        }
        self.in_flight = self.unsynced.len() - self.answered;
        Some(self.unsynced.iter().skip(self.answered).any(|persist| persist.sync))
    }

    /// What is being written is done. Returns the number to answer with.
    pub fn finish(&mut self) -> u64 {
        assert!(self.in_flight > 0, "nothing is being written");
        let written = self.answered + self.in_flight;
        self.in_flight = 0;
        let number = self.unsynced[written - 1].number;
        let synced = self.unsynced.iter().take(written).skip(self.answered).any(|persist| persist.sync);
        if synced {
            for persist in self.unsynced.drain(..written) {
                self.durable.take(persist);
            }
            self.answered = 0;
        } else {
            self.answered = written;
        }
        number
    }

    /// Begins to write a snapshot file. A newer one takes the place of one that is being written.
    pub fn write_snapshot(&mut self, state: Box<StateAt>) {
        self.snapshot = Some(state);
    }

    /// The snapshot file is complete and in its place. Returns its index, if it still is the one at `index`.
    pub fn finish_snapshot(&mut self, index: u64) -> Option<u64> {
        let state = self.snapshot.take_if(|state| state.index == index)?;
        self.durable.take_snapshot(state);
        Some(index)
    }

    /// The power fails, or the process is killed: of what was not durable, a prefix of chance remains.
    pub fn crash(&mut self, rng: &mut Rng) -> Lost {
        let kept = rng.index(self.unsynced.len() + 1);
        let lost = Lost { writes: self.unsynced.len() - kept, snapshot: self.snapshot.is_some() };
        for persist in self.unsynced.drain(..kept) {
            self.durable.take(persist);
        }
        self.unsynced.clear();
        self.answered = 0;
        self.in_flight = 0;
        self.snapshot = None;
        lost
    }

    /// What a restart finds.
    #[must_use]
    pub fn boot(&self) -> Boot {
        Boot {
            hard_state: self.durable.hard_state.clone(),
            state: self.durable.snapshot.as_deref().cloned(),
            entries: self.durable.entries.iter().cloned().collect(),
        }
    }

    /// The log's entry at `index` as the replica wrote it last, durable or not.
    #[must_use]
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        for persist in self.unsynced.iter().rev() {
            if let Some(found) = find(persist.entries.iter(), index) {
                return found;
            }
            if persist.snapshot.is_some() {
                return None;
            }
        }
        find(self.durable.entries.iter(), index).flatten()
    }
}

/// What a run of entries says of `index`: nothing if it is before them, and for certain that there is no such
/// entry if it is behind them, because appending cuts off what was there.
fn find<'e>(mut entries: impl ExactSizeIterator<Item = &'e Entry>, index: u64) -> Option<Option<&'e Entry>> {
    let first = entries.next()?;
    let offset = index.checked_sub(first.index)?;
    Some(if offset == 0 { Some(first) } else { entries.nth(offset as usize - 1) })
}

impl Image {
    fn take(&mut self, persist: Persist) {
        if let Some(state) = persist.snapshot {
            self.entries.clear();
            self.take_snapshot(state);
        }
        if let Some(hard_state) = persist.hard_state {
            self.hard_state = hard_state;
        }
        if let Some(first) = persist.entries.first() {
            while self.entries.back().is_some_and(|last| last.index >= first.index) {
                self.entries.pop_back();
            }
            let joined = self.entries.back().is_none_or(|last| last.index + 1 == first.index);
            assert!(joined, "entry {} would leave a gap in the log", first.index);
            self.entries.extend(persist.entries);
        }
        if let Some(compact_to) = persist.compact_to {
            while self.entries.front().is_some_and(|first| first.index < compact_to) {
                self.entries.pop_front();
            }
        }
    }

    /// Snapshots only go forward.
    fn take_snapshot(&mut self, state: Box<StateAt>) {
        if self.snapshot.as_ref().is_none_or(|present| present.index < state.index) {
            self.snapshot = Some(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn persist(number: u64, sync: bool, indexes: std::ops::RangeInclusive<u64>, term: u64) -> Persist {
        let entry = |index| Entry { index, term, ..Entry::default() };
        let entries = indexes.map(entry).collect();
        Persist { number, snapshot: None, hard_state: None, entries, sync, compact_to: None }
    }

    fn disk() -> Disk {
        Disk {
            durable: Image::default(),
            unsynced: VecDeque::new(),
            answered: 0,
            in_flight: 0,
            snapshot: None,
        }
    }

    fn indexes(disk: &Disk) -> Vec<(u64, u64)> {
        disk.boot().entries.iter().map(|entry| (entry.index, entry.term)).collect()
    }

    #[test]
    fn what_was_synced_survives_every_crash_and_the_rest_as_a_prefix() {
        let mut lengths = [0; 3];
        for seed in 0..100 {
            let mut disk = disk();
            disk.write(persist(1, true, 1..=1, 1));
            assert_eq!(disk.begin(), Some(true));
            disk.write(persist(2, true, 2..=2, 1));
            assert_eq!(disk.begin(), None, "one batch at a time");
            assert_eq!(disk.finish(), 1);
            disk.write(persist(3, true, 3..=3, 1));
            disk.crash(&mut Rng::new(seed));
            let left = indexes(&disk);
            assert_eq!(left, [(1, 1), (2, 1), (3, 1)][..left.len()]);
            lengths[left.len() - 1] += 1;
        }
        assert!(lengths.iter().all(|&times| times > 0), "{lengths:?}");
    }

    #[test]
    fn a_write_without_sync_is_answered_and_may_still_be_lost() {
        let lost = (0..100).any(|seed| {
            let mut disk = disk();
            disk.write(persist(1, false, 1..=1, 1));
            assert_eq!(disk.begin(), Some(false));
            assert_eq!(disk.finish(), 1);
            disk.crash(&mut Rng::new(seed));
            indexes(&disk).is_empty()
        });
        assert!(lost);
    }

    #[test]
    fn a_later_sync_makes_the_earlier_writes_durable() {
        let mut disk = disk();
        disk.write(persist(1, false, 1..=1, 1));
        disk.begin();
        disk.finish();
        disk.write(persist(2, true, 2..=2, 1));
        disk.begin();
        assert_eq!(disk.finish(), 2);
        disk.crash(&mut Rng::new(1));
        assert_eq!(indexes(&disk), [(1, 1), (2, 1)]);
    }

    #[test]
    fn appending_cuts_off_what_was_there() {
        let mut disk = disk();
        disk.write(persist(1, true, 1..=5, 1));
        disk.begin();
        disk.finish();
        disk.write(persist(2, true, 3..=3, 2));
        assert_eq!(disk.entry(2).map(|entry| entry.term), Some(1));
        assert_eq!(disk.entry(3).map(|entry| entry.term), Some(2));
        assert!(disk.entry(4).is_none());
        disk.begin();
        disk.finish();
        assert_eq!(indexes(&disk), [(1, 1), (2, 1), (3, 2)]);
    }
}
