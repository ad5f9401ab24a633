//! The log as raft-rs sees it: its [`raft::Storage`], answered from memory (design.md §8).
//!
//! Holds a window of the log: everything that a follower might still be sent, and at least everything after the
//! last durable snapshot. The disk has the same entries; this is never read from there but at the start.
//! Invariant: the entries join the point before them, without a gap, and the applied point is within them or at
//! that point.

use std::collections::VecDeque;

use raft::{GetEntriesContext, RaftState, StorageError};

use crate::interface::{Boot, Fault, StateAt};
use crate::raftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};

/// Where in the log something stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) index: u64,
    pub(crate) term: u64,
}

/// The window.
#[derive(Debug)]
pub(crate) struct Log {
    /// The entry before the first one here.
    before: Position,
    entries: VecDeque<Entry>,
    hard_state: HardState,
    /// What the state has applied: a snapshot made now would stand here.
    applied: Position,
    /// The membership there.
    conf_state: ConfState,
}

impl Log {
    /// From what the disk has. The commit index is raised to the snapshot's, and entries that do not join it are
    /// discarded.
    pub(crate) fn new(boot: &mut Boot) -> Result<Self, Fault> {
        check_counts(boot)?;
        let mut log = Self {
            before: Position::default(),
            entries: VecDeque::new(),
            hard_state: boot.hard_state.clone(),
            applied: Position::default(),
            conf_state: ConfState::default(),
        };
        if let Some(at) = &boot.state {
            check_place(at).map_err(|what| Fault::new(format!("the snapshot cannot be: {what}")))?;
            log.applied = Position { index: at.index, term: at.term.0 };
            log.conf_state = conf_state(&at.voters, &at.learners);
            log.hard_state.commit = log.hard_state.commit.max(at.index);
            log.hard_state.term = log.hard_state.term.max(at.term.0);
        }
        let entries = std::mem::take(&mut boot.entries);
        if let Some(gap) = entries.windows(2).find(|pair| pair[0].index + 1 != pair[1].index) {
            let (before, after) = (gap[0].index, gap[1].index);
            return Err(Fault::new(format!("the log has a gap: entry {after} follows entry {before}")));
        }
        log.join(entries)?;
        Ok(log)
    }

    /// Puts recovered entries behind the snapshot, as far as they join it.
    fn join(&mut self, entries: Vec<Entry>) -> Result<(), Fault> {
        let applied = self.applied;
        self.before = applied;
        let joins = match entries.first() {
            None => false,
            Some(first) if first.index == applied.index + 1 => true,
            Some(first) if first.index > applied.index + 1 => {
                let message = format!(
                    "the log begins at entry {} and the snapshot ends at {}: entries are missing",
                    first.index, applied.index
                );
                return Err(Fault::new(message));
            }
            // A tail behind the snapshot: it joins if the snapshot's own entry is in it.
            Some(_) => entries.iter().any(|e| e.index == applied.index && e.term == applied.term),
        };
        if joins {
            let first = &entries[0];
            if first.index <= applied.index {
                // What was before the first entry is not known here. Its index does, for raft asks for the term
                // of what it holds, and of the entry before only when a follower needs that one.
                self.before = Position { index: first.index, term: first.term };
                self.entries = entries.into_iter().skip(1).collect();
            } else {
                self.entries = entries.into();
            }
        }
        let last = self.last().index;
        if last < self.hard_state.commit {
            let message = format!(
                "the log ends at entry {last}, and entries up to {} were committed: data is lost",
                self.hard_state.commit
            );
            return Err(Fault::new(message));
        }
        Ok(())
    }

    /// Appends; entries at or beyond the first one's index are overwritten.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index > self.before.index, "an entry at {} is compacted already", first.index);
        assert!(first.index <= self.last().index + 1, "an entry at {} would leave a gap", first.index);
        let keep = first.index - self.before.index - 1;
        self.entries.truncate(usize::try_from(keep).expect("a log fits into memory"));
        self.entries.extend(entries.iter().cloned());
    }

    pub(crate) fn set_hard_state(&mut self, hard_state: HardState) {
        self.hard_state = hard_state;
    }

    /// The state has applied up to here.
    pub(crate) fn set_applied(&mut self, applied: Position) {
        self.applied = applied;
    }

    pub(crate) fn applied(&self) -> Position {
        self.applied
    }

    pub(crate) fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    pub(crate) fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// A snapshot replaces everything.
    pub(crate) fn reset(&mut self, at: Position, conf_state: ConfState) {
        self.before = at;
        self.entries.clear();
        self.applied = at;
        self.conf_state = conf_state;
        self.hard_state.commit = self.hard_state.commit.max(at.index);
    }

    /// Drops what lies more than `tail_bytes` behind `through`, which a durable snapshot covers. Gives the first
    /// index that is kept, if anything was dropped.
    pub(crate) fn compact(&mut self, through: u64, tail_bytes: u64) -> Option<u64> {
        let covered = usize::try_from(through.saturating_sub(self.before.index)).ok()?;
        let covered = covered.min(self.entries.len());
        let mut tail = 0;
        let mut drop = covered;
        while drop > 0 {
            tail += entry_bytes(&self.entries[drop - 1]);
            if tail > tail_bytes {
                break;
            }
            drop -= 1;
        }
        let last = self.entries.drain(..drop).last()?;
        self.before = Position { index: last.index, term: last.term };
        Some(last.index + 1)
    }

    fn last(&self) -> Position {
        self.entries.back().map_or(self.before, |e| Position { index: e.index, term: e.term })
    }

    fn get(&self, index: u64) -> Option<&Entry> {
        let offset = index.checked_sub(self.before.index + 1)?;
        self.entries.get(usize::try_from(offset).ok()?)
    }
}

impl raft::Storage for Log {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        if low <= self.before.index {
            return Err(StorageError::Compacted.into());
        }
        assert!(high <= self.last().index + 1, "entries up to {high} asked for");
        let max_size = max_size.into().unwrap_or(u64::MAX);
        let mut size = 0;
        let mut entries = Vec::new();
        for index in low..high {
            let entry = self.get(index).ok_or(StorageError::Unavailable)?;
            size += entry_bytes(entry);
            if size > max_size && !entries.is_empty() {
                break;
            }
            entries.push(entry.clone());
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index == self.before.index {
            return Ok(self.before.term);
        }
        if index < self.before.index {
            return Err(StorageError::Compacted.into());
        }
        self.get(index).map(|entry| entry.term).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.before.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().index)
    }

    /// A snapshot of what is applied now. It carries no data: the state itself is cloned when the message goes
    /// out, which is before anything more is applied.
    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        if self.applied.index < request_index {
            return Err(StorageError::SnapshotTemporarilyUnavailable.into());
        }
        let Position { index, term } = self.applied;
        let mut metadata = SnapshotMetadata { index, term, ..SnapshotMetadata::default() };
        metadata.set_conf_state(self.conf_state.clone());
        let mut snapshot = Snapshot::default();
        snapshot.set_metadata(metadata);
        Ok(snapshot)
    }
}

/// So far from the end of all numbers that no cell ever counts on to it.
pub(crate) const COUNT_MAX: u64 = u64::MAX / 2;

/// Whether a disk's log counts no further than one can: raft-rs goes on from its numbers without a look at their end.
fn check_counts(boot: &Boot) -> Result<(), Fault> {
    let HardState { term, commit, .. } = boot.hard_state;
    let places = boot.entries.iter().map(|entry| (entry.index, entry.term));
    match places.chain([(commit, term)]).find(|(index, term)| *index > COUNT_MAX || *term > COUNT_MAX) {
        Some((index, term)) => Err(Fault::new(format!(
            "the data are damaged: no log is so long that it stands at entry {index} of term {term}; remove this \
                 replica from its cell, and add one with an empty data directory under a new id"
        ))),
        None => Ok(()),
    }
}

/// Whether a state can stand where it says that it does, with such a membership; or why not. raft-rs panics on a
/// membership that contradicts itself.
pub(crate) fn check_place(at: &StateAt) -> Result<(), String> {
    if at.index > COUNT_MAX || at.term.0 > COUNT_MAX {
        return Err(format!("no log is so long that it stands at entry {} of term {}", at.index, at.term.0));
    }
    check_membership(&at.voters, &at.learners)
}

/// Whether these can be a cell's replicas, each once; or why not.
pub(crate) fn check_membership(voters: &[u64], learners: &[u64]) -> Result<(), String> {
    let mut ids: Vec<u64> = voters.iter().chain(learners).copied().collect();
    ids.sort_unstable();
    if voters.is_empty() || ids.first() == Some(&0) || ids.windows(2).any(|two| two[0] == two[1]) {
        return Err(format!("{voters:?} cannot vote in a cell in which {learners:?} learn"));
    }
    Ok(())
}

/// A membership in raft's form.
pub(crate) fn conf_state(voters: &[u64], learners: &[u64]) -> ConfState {
    let mut conf_state = ConfState::default();
    conf_state.set_voters(voters.to_vec());
    conf_state.set_learners(learners.to_vec());
    conf_state
}

/// About what an entry takes, in memory and on disk.
pub(crate) fn entry_bytes(entry: &Entry) -> u64 {
    /// Index, term, type and framing.
    const OVERHEAD_BYTES: usize = 24;
    (entry.data.len() + entry.context.len() + OVERHEAD_BYTES) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_state::{Genesis, State};
    use holdfast_types::Term;
    use raft::Storage;

    fn entry(index: u64, term: u64) -> Entry {
        let mut entry = Entry::default();
        (entry.index, entry.term) = (index, term);
        entry.data = vec![0; 76].into();
        entry
    }

    fn boot(snapshot: (u64, u64), entries: &[(u64, u64)], commit: u64) -> Boot {
        let state = State::genesis(Genesis {
            cell: "dev".into(),
            cell_id: 1,
            members: Vec::new(),
            settings: holdfast_state::settings::defaults(),
        });
        let (voters, learners) = (vec![1, 2, 3], vec![]);
        let hard_state = HardState { commit, ..HardState::default() };
        Boot {
            hard_state,
            state: Some(StateAt { index: snapshot.0, term: Term(snapshot.1), voters, learners, state }),
            entries: entries.iter().map(|(index, term)| entry(*index, *term)).collect(),
        }
    }

    fn log(snapshot: (u64, u64), entries: &[(u64, u64)], commit: u64) -> Result<Log, Fault> {
        Log::new(&mut boot(snapshot, entries, commit))
    }

    #[test]
    fn a_log_that_joins_its_snapshot_is_taken_whole() {
        let log = log((3, 1), &[(4, 1), (5, 2)], 4).unwrap();
        assert_eq!((log.first_index().unwrap(), log.last_index().unwrap()), (4, 5));
        assert_eq!(log.term(3).unwrap(), 1);
        assert_eq!(log.term(5).unwrap(), 2);
    }

    #[test]
    fn a_tail_behind_the_snapshot_is_kept() {
        let log = log((3, 1), &[(1, 1), (2, 1), (3, 1), (4, 2)], 3).unwrap();
        assert_eq!((log.first_index().unwrap(), log.last_index().unwrap()), (2, 4));
        assert_eq!(log.term(1).unwrap(), 1);
    }

    #[test]
    fn log_that_does_not_join_the_snapshot_is_discarded_and_the_commit_index_raised() {
        for entries in [&[(1, 1), (2, 1)][..], &[(2, 1), (3, 1), (4, 1)][..]] {
            let log = log((3, 2), entries, 1).unwrap();
            assert_eq!((log.first_index().unwrap(), log.last_index().unwrap()), (4, 3));
            assert_eq!(log.initial_state().unwrap().hard_state.commit, 3);
        }
    }

    #[test]
    fn a_snapshot_that_cannot_be_is_a_fault() {
        let with = |voters: &[u64], learners: &[u64], index| {
            let mut boot = boot((index, 1), &[], 0);
            let at = boot.state.as_mut().unwrap();
            (at.voters, at.learners) = (voters.to_vec(), learners.to_vec());
            Log::new(&mut boot).map(|_| ())
        };
        assert!(with(&[1, 2], &[3], 3).is_ok());
        for (voters, learners, index) in [
            (&[][..], &[3][..], 3),
            (&[0, 1][..], &[][..], 3),
            (&[1, 1][..], &[][..], 3),
            (&[1, 2][..], &[2][..], 3),
            (&[1][..], &[][..], u64::MAX),
        ] {
            assert!(with(voters, learners, index).is_err(), "{voters:?} {learners:?} at {index}");
        }
    }

    #[test]
    fn a_log_that_counts_too_far_is_a_fault() {
        for (entry, commit, term) in [((4, 1), 3, u64::MAX), ((4, u64::MAX), 3, 1), ((u64::MAX, 1), 3, 1)] {
            let mut boot = boot((3, 1), &[entry], commit);
            boot.hard_state.term = term;
            let fault = Log::new(&mut boot).unwrap_err().to_string();
            assert!(fault.contains("no log is so long"), "{fault}");
        }
    }

    #[test]
    fn missing_entries_are_a_fault() {
        for (entries, commit) in [(&[(5, 1)][..], 3), (&[(4, 1), (6, 1)][..], 3), (&[(4, 1)][..], 9)] {
            assert!(log((3, 1), entries, commit).is_err(), "{entries:?}");
        }
    }

    #[test]
    fn compaction_keeps_a_tail_of_the_size_asked_for() {
        let entries: Vec<_> = (4..=13).map(|index| (index, 1)).collect();
        let mut log = log((3, 1), &entries, 3).unwrap();
        assert_eq!(log.compact(10, 250), Some(9), "entries of 100 bytes: two fit");
        assert_eq!(log.first_index().unwrap(), 9);
        assert_eq!(log.term(8).unwrap(), 1);
        assert_eq!(log.compact(10, 250), None);
        assert!(log.entries(8, 9, None, GetEntriesContext::empty(false)).is_err());
        assert_eq!(log.entries(9, 14, Some(250), GetEntriesContext::empty(false)).unwrap().len(), 2);
    }

    #[test]
    fn an_append_overwrites_what_it_conflicts_with() {
        let mut log = log((3, 1), &[(4, 1), (5, 1), (6, 1)], 3).unwrap();
        log.append(&[entry(5, 2)]);
        assert_eq!(log.last_index().unwrap(), 5);
        assert_eq!(log.term(5).unwrap(), 2);
    }
}
