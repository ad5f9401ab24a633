//! Owns the canonical log: each entry as the first replica that applied it had it, and the state that it makes.
//!
//! Every replica that applies an index must have applied that same entry (or committed entries were lost, I7).
//! The checkers read the cell's history from here, command by command, with the true time at which the first
//! replica applied it; they need not look into replicas at all.

use std::collections::VecDeque;

use bytes::Bytes;
use holdfast_proto::log::v1::{Batch, Command, Member};
use holdfast_replica::raft_bytes;
use holdfast_replica::raftpb::{ConfChange, ConfChangeType, Entry, EntryType};
use holdfast_state::{Effect, State};
use holdfast_types::{ReplicaId, Revision};
use prost::Message as _;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::verdict::{Invariant, Violation};

/// How many of the last states are kept to compare others with.
const STATES_MAX: usize = 1_024;

/// A command that counted, and what it did.
pub struct Step<'s> {
    /// The command.
    pub command: &'s Command,
    /// Its effects.
    pub effects: &'s [Effect],
    /// The revision before it.
    pub before: Revision,
    /// The state after it.
    pub state: &'s State,
}

/// The canonical log.
#[derive(Debug)]
pub struct Canon {
    /// The index of the genesis.
    first_index: u64,
    /// A digest of each entry behind it.
    digests: Vec<u64>,
    state: State,
    /// The entry that changed the membership last.
    last_change: u64,
    /// The states after the last entries, with their hashes once somebody asked.
    states: VecDeque<(State, Option<u64>)>,
}

impl Canon {
    /// The log of a cell that begins with `genesis` at `first_index`.
    #[must_use]
    pub fn new(first_index: u64, genesis: State) -> Self {
        let states = VecDeque::from([(genesis.clone(), None)]);
        Self { first_index, digests: Vec::new(), state: genesis, last_change: 0, states }
    }

    /// The last index that any replica applied.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.first_index + self.digests.len() as u64
    }

    /// The entry that changed the membership last.
    #[must_use]
    pub fn last_change(&self) -> u64 {
        self.last_change
    }

    /// The state there.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// Checks that an entry that some replica applied is the one that the first had.
    ///
    /// # Errors
    ///
    /// If it is another.
    pub fn check(&self, entry: &Entry) -> Result<(), Violation> {
        let known = self.digests[(entry.index - self.first_index - 1) as usize];
        if known == digest(entry) {
            return Ok(());
        }
        let what = format!("two replicas applied different entries at index {}", entry.index);
        Err(Violation::new(Invariant::Durability, what))
    }

    /// Takes in the next entry and shows each of its commands to `see`.
    ///
    /// # Errors
    ///
    /// What `see` finds wrong, or an entry that cannot be applied.
    pub fn extend(
        &mut self,
        entry: &Entry,
        mut see: impl FnMut(Step<'_>) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        assert_eq!(entry.index, self.index() + 1, "the canonical log has no gap");
        if entry.entry_type == EntryType::EntryConfChange {
            self.change_members(entry)?;
            self.last_change = entry.index;
        }
        for command in commands(entry)? {
            let before = self.state.revision();
            let mut effects = Vec::new();
            let applied = self.state.apply(command.clone(), &mut effects);
            applied.map_err(|fault| Violation::new(Invariant::Survival, fault.to_string()))?;
            see(Step { command: &command, effects: &effects, before, state: &self.state })?;
        }
        self.digests.push(digest(entry));
        self.states.push_back((self.state.clone(), None));
        if self.states.len() > STATES_MAX {
            self.states.pop_front();
        }
        Ok(())
    }

    fn change_members(&mut self, entry: &Entry) -> Result<(), Violation> {
        let broken = |error: String| {
            let what = format!("entry {} changes the membership and cannot be read: {error}", entry.index);
            Violation::new(Invariant::Survival, what)
        };
        let change: ConfChange = raft_bytes::parse(&entry.data).map_err(|error| broken(error.to_string()))?;
        let member = Member::decode(&change.context[..]).map_err(|error| broken(error.to_string()))?;
        match change.get_change_type() {
            ConfChangeType::RemoveNode => self.state.remove_member(ReplicaId(change.node_id)),
            ConfChangeType::AddNode | ConfChangeType::AddLearnerNode => self.state.put_member(member),
        }
        Ok(())
    }

    /// The hash of the state at `index`, if it is still kept.
    pub fn hash_at(&mut self, index: u64) -> Option<u64> {
        let back = self.index().checked_sub(index)? as usize;
        let place = self.states.len().checked_sub(back + 1)?;
        let (state, hash) = &mut self.states[place];
        Some(*hash.get_or_insert_with(|| state.hash()))
    }

    /// The revision at `index`, if its state is still kept.
    #[must_use]
    pub fn revision_at(&self, index: u64) -> Option<Revision> {
        let back = self.index().checked_sub(index)? as usize;
        let place = self.states.len().checked_sub(back + 1)?;
        Some(self.states[place].0.revision())
    }
}

/// The commands of an entry: none if its batch is void, or if it changes the membership.
fn commands(entry: &Entry) -> Result<Vec<Command>, Violation> {
    if entry.entry_type != EntryType::EntryNormal || entry.data.is_empty() {
        return Ok(Vec::new());
    }
    let batch = Batch::decode(Bytes::clone(&entry.data)).map_err(|error| {
        let what = format!("entry {} is no batch: {error}", entry.index);
        Violation::new(Invariant::Survival, what)
    })?;
    if batch.term != entry.term {
        return Ok(Vec::new());
    }
    Ok(batch.commands)
}

fn digest(entry: &Entry) -> u64 {
    xxh3_64_with_seed(&entry.data, entry.term)
}

#[cfg(test)]
mod tests {
    use holdfast_proto::log::v1::{OpenSession, command::Kind};
    use holdfast_state::{Genesis, settings};

    use protobuf::Message as _;

    use super::*;

    fn canon() -> Canon {
        let (cell, settings) = ("sim".to_owned(), settings::defaults());
        Canon::new(1, State::genesis(Genesis { cell, cell_id: 7, members: Vec::new(), settings }))
    }

    /// An entry of a term, with an opening that a master of another term may have proposed.
    fn entry(index: u64, term: u64, proposed_in: u64, secret: u8) -> Entry {
        let open = OpenSession { secret: vec![secret; 32].into(), lease_ms: 1_000, ..OpenSession::default() };
        let command = Command { tag: 1, kind: Some(Kind::OpenSession(open)), ..Command::default() };
        let batch = Batch { term: proposed_in, commands: vec![command] };
        Entry { index, term, data: batch.encode_to_vec().into(), ..Entry::default() }
    }

    #[test]
    fn an_entry_that_came_to_be_another_is_found() {
        let mut canon = canon();
        canon.extend(&entry(2, 3, 3, b'a'), |_| Ok(())).unwrap();
        assert!(canon.check(&entry(2, 3, 3, b'a')).is_ok());
        assert_eq!(canon.check(&entry(2, 3, 3, b'b')).unwrap_err().invariant, Invariant::Durability);
        assert_eq!(canon.check(&entry(2, 4, 3, b'a')).unwrap_err().invariant, Invariant::Durability);
    }

    #[test]
    fn a_batch_of_another_term_is_void() {
        let mut canon = canon();
        let mut seen = 0;
        for entry in [entry(2, 3, 2, b'a'), entry(3, 3, 3, b'b')] {
            let see = |_: Step<'_>| {
                seen += 1;
                Ok(())
            };
            canon.extend(&entry, see).unwrap();
        }
        assert_eq!((seen, canon.index(), canon.state().session_count()), (1, 3, 1));
    }

    #[test]
    fn states_are_found_by_their_index() {
        let mut canon = canon();
        let before = canon.hash_at(1).unwrap();
        canon.extend(&entry(2, 3, 3, b'a'), |_| Ok(())).unwrap();
        assert_eq!(canon.hash_at(1), Some(before));
        assert_eq!(canon.hash_at(2), Some(canon.state().hash()));
        assert_ne!(canon.hash_at(2), Some(before));
        assert_eq!(canon.hash_at(3), None);
        assert_eq!(canon.revision_at(2), Some(canon.state().revision()));
    }

    #[test]
    fn a_change_of_the_membership_changes_the_state_and_shows_no_command() {
        let member = Member { id: 4, learner: true, ..Member::default() };
        let mut change = ConfChange { node_id: 4, ..ConfChange::default() };
        let mut apply = |canon: &mut Canon, index, change_type| {
            change.set_change_type(change_type);
            change.context = member.encode_to_vec().into();
            let data = change.write_to_bytes().unwrap().into();
            let mut entry = Entry { index, term: 1, data, ..Entry::default() };
            entry.set_entry_type(EntryType::EntryConfChange);
            canon.extend(&entry, |_| panic!("no command")).unwrap();
        };
        let mut canon = canon();
        apply(&mut canon, 2, ConfChangeType::AddLearnerNode);
        assert!(canon.state().member(ReplicaId(4)).is_some_and(|member| member.learner));
        apply(&mut canon, 3, ConfChangeType::RemoveNode);
        assert!(canon.state().is_removed(ReplicaId(4)));
    }
}
