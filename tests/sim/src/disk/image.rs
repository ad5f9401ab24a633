//! What is on a disk, and what a start makes of it: the daemon's `storage::inspect` and `storage::recovery`, record by
//! record instead of byte by byte. What fits together is decided by the real [`holdfast_replica::recovery`].

use std::collections::VecDeque;

use holdfast_replica::raftpb::{Entry, HardState};
use holdfast_replica::recovery::{Place, fit};
use holdfast_replica::{Boot, Persist, StateAt};

use crate::rng::Rng;

/// The newest two are kept: the one that counts, and the one before it.
const SNAPSHOTS_KEPT: usize = 2;

/// A record that a crash left.
#[derive(Debug)]
pub(super) enum Found {
    /// Its checksums hold.
    Intact(Vec<Persist>),
    /// They do not.
    Broken,
}

/// What a start would find.
#[derive(Debug, Default)]
pub(super) struct Image {
    hard_state: HardState,
    /// Without a gap.
    pub(super) entries: VecDeque<Entry>,
    /// A record of the durable log is not intact.
    log_damaged: bool,
    /// Records behind the durable log that a crash left.
    pub(super) found: Vec<Found>,
    /// The newest first.
    pub(super) snapshots: Vec<StateAt>,
    /// The newest of them is not intact.
    snapshot_damaged: bool,
    /// What a founding replica begins with; a start makes it from the identity file.
    genesis: Option<StateAt>,
    /// How many torn records were cut off.
    pub(super) torn: u64,
    /// How many damaged snapshots were passed over.
    pub(super) passed_over: u64,
}

impl Image {
    pub(super) fn founded(genesis: StateAt) -> Self {
        Self { genesis: Some(genesis), ..Self::default() }
    }

    /// A record became durable.
    pub(super) fn take(&mut self, persist: Persist) {
        if let Some(state) = persist.snapshot {
            self.entries.clear();
            self.log_damaged = false;
            self.snapshots.push(*state);
            self.sort_snapshots();
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
        // Never beyond the newest snapshot that has its name.
        let newest = self.snapshots.first().map_or(0, |newest| newest.index);
        if let Some(compact_to) = persist.compact_to.map(|index| index.min(newest + 1)) {
            while self.entries.front().is_some_and(|first| first.index < compact_to) {
                self.entries.pop_front();
            }
        }
    }

    /// A crash came in the middle of a record. A snapshot's file may have been complete by then, and the log that it
    /// was to replace is still there.
    pub(super) fn tear(&mut self, record: Vec<Persist>, rng: &mut Rng) {
        self.found.push(Found::Broken);
        let files = record.into_iter().filter_map(|persist| persist.snapshot);
        self.snapshots.extend(files.filter(|_| rng.per_mille(500)).map(|state| *state));
        self.sort_snapshots();
    }

    /// What a start knows to be committed.
    pub(super) fn commit(&self) -> u64 {
        self.snapshots.first().map_or(0, |newest| newest.index).max(self.hard_state.commit)
    }

    /// Removes all but the newest.
    pub(super) fn sort_snapshots(&mut self) {
        self.snapshots.sort_by_key(|state| std::cmp::Reverse((state.index, state.term)));
        self.snapshots.dedup_by_key(|state| state.index);
        self.snapshots.truncate(SNAPSHOTS_KEPT);
    }

    pub(super) fn damage_snapshot(&mut self) -> bool {
        self.snapshot_damaged = !self.snapshots.is_empty();
        self.snapshot_damaged
    }

    /// Only what others follow: the last record could have been torn, and nobody can tell.
    pub(super) fn damage_log(&mut self) -> bool {
        self.log_damaged = self.entries.len() > 1;
        self.log_damaged
    }

    /// Cuts a torn tail off, and fits what is left together.
    pub(super) fn recover(&mut self) -> Result<Boot, String> {
        self.cut_torn_tail()?;
        let damaged = if self.snapshot_damaged { self.snapshots.first() } else { None };
        let damaged_index = damaged.map(|state| state.index);
        let intact = self.snapshots.get(usize::from(self.snapshot_damaged)).cloned();
        let state = intact.or_else(|| self.genesis.clone());
        let entries = self.entries.iter().cloned().collect();
        let fit = fit(state.as_ref().map(Place::of), damaged_index, self.hard_state.clone(), entries)?;
        if self.snapshot_damaged {
            self.snapshots.remove(0);
            self.passed_over += 1;
        }
        self.snapshot_damaged = false;
        if fit.discarded > 0 {
            self.entries.clear();
            self.hard_state = fit.hard_state.clone();
        }
        Ok(Boot { hard_state: fit.hard_state, state, entries: fit.entries })
    }

    /// Whether what is at the log's end could be damage as well as a torn write. What is damaged in the durable log is
    /// followed by more of it.
    pub(super) fn is_ambiguous(&self) -> bool {
        let intact: Vec<bool> = self.found.iter().map(|found| matches!(found, Found::Intact(_))).collect();
        self.log_damaged || intact_records(&intact).is_none()
    }

    fn cut_torn_tail(&mut self) -> Result<(), String> {
        if self.is_ambiguous() {
            let what = "a record of the log is not intact, and an intact one follows: this is no torn write";
            return Err(what.to_owned());
        }
        for found in std::mem::take(&mut self.found) {
            match found {
                Found::Intact(record) => record.into_iter().for_each(|persist| self.take(persist)),
                Found::Broken => self.torn += 1,
            }
        }
        Ok(())
    }
}

/// How many records are kept of which these are intact: all up to the first that is not, if no other follows
/// it. `None` if one does.
pub(super) fn intact_records(intact: &[bool]) -> Option<usize> {
    let kept = intact.iter().take_while(|intact| **intact).count();
    intact[kept..].iter().all(|intact| !intact).then_some(kept)
}

/// What a run of entries says of `index`: nothing if it is before them, and for certain that there is no such
/// entry if it is behind them, because appending cuts off what was there.
pub(super) fn find<'e>(
    mut entries: impl ExactSizeIterator<Item = &'e Entry>,
    index: u64,
) -> Option<Option<&'e Entry>> {
    let first = entries.next()?;
    let offset = index.checked_sub(first.index)?;
    Some(if offset == 0 { Some(first) } else { entries.nth(offset as usize - 1) })
}
