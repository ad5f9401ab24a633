//! Owns a replica's disk: what is durable, what is written and not yet synced, and what a crash leaves.
//!
//! Like the daemon's log writer, it takes everything that is queued as one record with one sync; a snapshot from
//! another replica goes alone, its file before the log that it replaces is gone. A record that asks for no sync is
//! answered before it is durable. After a crash some records of those that were not durable are there, chosen by
//! chance, and the next may be torn. What a start makes of that is in `image`.
//!
//! Invariant: after the first failure nothing is answered, and nothing is tried again (design.md §8).

mod image;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use holdfast_replica::raftpb::Entry;
use holdfast_replica::{Boot, Persist, StateAt};

use crate::rng::Rng;
use image::{Found, Image, find};

/// A disk.
#[derive(Debug)]
pub struct Disk {
    durable: Image,
    /// Records that were written and answered without a sync, in order.
    unsynced: VecDeque<Vec<Persist>>,
    /// The record that is being written.
    in_flight: Vec<Persist>,
    /// What waits for it.
    queued: VecDeque<Persist>,
    /// A snapshot file that is being written.
    snapshot: Option<Box<StateAt>>,
    /// What it does from now on to whatever needs it.
    failure: Option<Failure>,
}

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// A sync fails. What was to be synced may be there or not.
    Sync,
    /// There is no room: what is written is there in part.
    Full,
}

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Records are there up to some point, where one may be torn.
    InOrder,
    /// The host went down with what its cache held, and a record may be there that was written after a torn one.
    /// That is not told from damage.
    AnyOrder,
}

/// What a crash took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost {
    /// How many writes that were not durable.
    pub writes: usize,
    /// A snapshot file that was being written, or had just come to be in its place.
    pub snapshot: bool,
    /// What is left cannot be told from damage, and a start will be refused.
    pub ambiguous: bool,
}

/// What a disk can lose although it was durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The newest snapshot file.
    Snapshot,
    /// A record of the log that others follow.
    Log,
}

impl Disk {
    /// The disk of a founding replica: the genesis is what it falls back on.
    #[must_use]
    pub fn founded(genesis: StateAt) -> Self {
        Self::with(Image::founded(genesis))
    }

    /// The disk of a replica that has yet to join.
    #[must_use]
    pub fn empty() -> Self {
        Self::with(Image::default())
    }

    fn with(durable: Image) -> Self {
        let (unsynced, in_flight, queued) = Default::default();
        Self { durable, unsynced, in_flight, queued, snapshot: None, failure: None }
    }

    /// From now on it fails like this, or no longer.
    pub fn set_failure(&mut self, failure: Option<Failure>) {
        self.failure = failure;
    }

    /// Takes in a write.
    pub fn write(&mut self, persist: Persist) {
        self.queued.push_back(persist);
    }

    /// Begins to write what is queued. Returns whether there is something, and whether it takes a sync; `None`
    /// too while an earlier record is being written.
    pub fn begin(&mut self) -> Option<bool> {
        if !self.in_flight.is_empty() || self.queued.is_empty() {
            return None;
        }
        let alone = self.queued.iter().position(|persist| persist.snapshot.is_some());
        let taken = alone.map_or(self.queued.len(), |place| place.max(1));
        self.in_flight = self.queued.drain(..taken).collect();
        Some(is_synced(&self.in_flight))
    }

    /// What is being written is done. Returns the number to answer with.
    ///
    /// # Errors
    ///
    /// The disk's failure: the process must end.
    pub fn finish(&mut self) -> Result<u64, Failure> {
        let number = self.in_flight.last().expect("nothing is being written").number;
        let synced = is_synced(&self.in_flight);
        if let Some(failure) = self.failure.filter(|failure| synced || *failure == Failure::Full) {
            return Err(failure);
        }
        self.unsynced.push_back(std::mem::take(&mut self.in_flight));
        if synced {
            for persist in self.unsynced.drain(..).flatten() {
                self.durable.take(persist);
            }
        }
        Ok(number)
    }

    /// Begins to write a snapshot file. A newer one takes the place of one that is being written.
    pub fn write_snapshot(&mut self, state: Box<StateAt>) {
        self.snapshot = Some(state);
    }

    /// The snapshot file is complete and in its place. Returns its index, if it still is the one at `index`.
    ///
    /// # Errors
    ///
    /// The disk's failure: the process must end; but if there is no room, the file is removed, and it may go on.
    pub fn finish_snapshot(&mut self, index: u64) -> Result<Option<u64>, Failure> {
        if self.snapshot.as_ref().is_none_or(|state| state.index != index) {
            return Ok(None);
        }
        if self.failure == Some(Failure::Full) {
            self.snapshot = None;
        }
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.durable.snapshots.extend(self.snapshot.take().map(|state| *state));
        self.durable.sort_snapshots();
        Ok(Some(index))
    }

    /// The process ends, or its whole host: of what was not durable, chance says what remains.
    pub fn crash(&mut self, rng: &mut Rng, crash: Crash) -> Lost {
        let queued = self.queued.drain(..).count();
        let mut written: VecDeque<Vec<Persist>> = self.unsynced.drain(..).collect();
        let whole =
            written.len() + usize::from(!self.in_flight.is_empty() && self.failure != Some(Failure::Full));
        if !self.in_flight.is_empty() {
            written.push_back(std::mem::take(&mut self.in_flight));
        }
        let kept = rng.index(whole + 1);
        let torn = kept < written.len() && rng.per_mille(500);
        let mut rest = written.split_off(kept);
        let writes = queued + rest.iter().map(Vec::len).sum::<usize>();
        let snapshot = self.snapshot.is_some();
        self.durable.found = written.into_iter().map(Found::Intact).collect();
        if let Some(first) = rest.pop_front().filter(|_| torn) {
            self.durable.tear(first, rng);
            let follows = crash == Crash::AnyOrder && rng.per_mille(500);
            self.durable.found.extend(rest.pop_front().filter(|_| follows).map(Found::Intact));
        }
        let ambiguous = self.durable.is_ambiguous();
        // Whole under its name, and nobody had been told.
        let in_place = rng.per_mille(300) && self.failure.is_none();
        self.durable.snapshots.extend(self.snapshot.take().filter(|_| in_place).map(|state| *state));
        self.durable.sort_snapshots();
        Lost { writes, snapshot, ambiguous }
    }

    /// Something durable is damaged. The process must be down. Returns whether there was such a thing.
    pub fn damage(&mut self, damage: Damage) -> bool {
        match damage {
            Damage::Snapshot => self.durable.damage_snapshot(),
            Damage::Log => self.durable.damage_log(),
        }
    }

    /// What a start finds, after it has cut and discarded what it may.
    ///
    /// # Errors
    ///
    /// Why the replica must not start.
    pub fn boot(&mut self) -> Result<Boot, String> {
        self.durable.recover()
    }

    /// Whatever happens, a start knows that everything up to here is committed.
    #[must_use]
    pub fn durable_commit(&self) -> u64 {
        self.durable.commit()
    }

    /// How many torn records starts have cut off.
    #[must_use]
    pub fn torn(&self) -> u64 {
        self.durable.torn
    }

    /// How many damaged snapshots starts have passed over.
    #[must_use]
    pub fn passed_over(&self) -> u64 {
        self.durable.passed_over
    }

    /// The log's entry at `index` as the replica wrote it last, durable or not.
    #[must_use]
    pub fn entry(&self, index: u64) -> Option<&Entry> {
        let records = self.unsynced.iter().flatten();
        for persist in records.chain(&self.in_flight).chain(&self.queued).rev() {
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

fn is_synced(record: &[Persist]) -> bool {
    record.iter().any(|persist| persist.sync || persist.snapshot.is_some())
}
