//! Looks at what replicas have applied: each entry is told to the canonical log, or held against it, and so are their
//! states.

use holdfast_replica::Replica;
use holdfast_replica::raftpb::{Entry, EntryType};
use holdfast_state::State;

use crate::checker::{determinism, onlooker};
use crate::coverage::Situation;
use crate::trace::Kind;
use crate::verdict::{Invariant, Violation};
use crate::world::World;

/// One look in so many compares a replica's state by hash, which reads all of it.
const COMPARE_ONE_IN: u64 = 500;

impl World {
    /// Takes in what a replica has applied.
    pub(super) fn observe(&mut self, index: usize, replica: &Replica) -> Result<(), Violation> {
        if replica.is_master() != self.servers[index].was_master {
            self.observe_office(index, replica)?;
        }
        let (applied, reached) = (self.servers[index].applied, replica.applied_index());
        self.observe_entries(index, replica)?;
        if reached > self.canon.index() {
            let what = format!("replica {} applied {reached}, which nobody had written", index + 1);
            return Err(Violation::new(Invariant::Durability, what));
        }
        let revision = replica.state().revision();
        if self.canon.revision_at(reached).is_some_and(|canonical| canonical != revision) {
            let what = format!("at index {reached} replica {} is at {revision}", index + 1);
            return Err(Violation::new(Invariant::Determinism, what));
        }
        if reached > applied && self.servers[index].rng.below(COMPARE_ONE_IN) == 0 {
            self.compare(index, reached, replica.state().hash())?;
        }
        Ok(())
    }

    /// A replica has become master, or is it no longer.
    fn observe_office(&mut self, index: usize, replica: &Replica) -> Result<(), Violation> {
        let others = self.servers.iter().filter(|server| server.was_master).count();
        self.servers[index].was_master = replica.is_master();
        self.stats.masters += u64::from(replica.is_master());
        self.stats.overlaps += u64::from(replica.is_master() && others > 0);
        if replica.is_master() {
            self.check_office()?;
            self.sight_office(replica.term().0);
            // One that was stopped while it won may find that out when others have long been in office. It has
            // what was acknowledged before its term, and can tell nobody anything.
            if replica.term() > self.newest_office {
                self.newest_office = replica.term();
                self.check_durable(replica.state())?;
            }
        }
        let verb = if replica.is_master() { "takes office" } else { "leaves office" };
        self.trace.say(self.now, || format!("replica {} {verb}, {}", index + 1, replica.term()));
        Ok(())
    }

    /// Each entry that a replica has applied since one last looked is the canonical log's, or its next.
    fn observe_entries(&mut self, index: usize, replica: &Replica) -> Result<(), Violation> {
        let (applied, reached) = (self.servers[index].applied, replica.applied_index());
        for entry_index in applied + 1..=reached {
            // Behind a snapshot there are no entries.
            let Some(entry) = self.servers[index].disk.entry(entry_index).cloned() else { continue };
            if entry_index <= self.canon.index() {
                self.canon.check(&entry)?;
            } else if entry_index == self.canon.index() + 1 {
                if entry.term < replica.term().0 && !entry.data.is_empty() {
                    self.sights.reach(Situation::CommittedBySuccessor);
                }
                self.extend_canon(&entry)?;
            }
        }
        self.servers[index].applied = reached;
        Ok(())
    }

    fn extend_canon(&mut self, entry: &Entry) -> Result<(), Violation> {
        self.trace.event(self.now, Kind::Applied, 0, entry.index, &entry.data);
        let Self { canon, checkers, sights, stats, now, .. } = self;
        let mut ended = Vec::new();
        stats.entries += 1;
        let version = canon.state().version();
        let of_members = entry.entry_type == EntryType::EntryConfChange;
        canon.extend(entry, |step| {
            stats.commands += 1;
            ended.extend(checkers.see(&step, *now, stats)?);
            sights.see(&step, entry.term);
            Ok(())
        })?;
        for session in ended {
            self.session_ended(session)?;
        }
        self.check_version(version)?;
        self.sight_ends();
        if of_members {
            self.sight_members();
        }
        Ok(())
    }

    /// A state that is in office, or is the last one, has all that clients were told of.
    pub(crate) fn check_durable(&self, state: &State) -> Result<(), Violation> {
        const MAY_VANISH: [&str; 5] = ["/tree/", "/registry/", "/named/", "/queue/", "/contested/"];
        self.checkers.durability.check(
            |path| state.read_stat(&onlooker(), path).ok(),
            |path| MAY_VANISH.iter().any(|directory| path.starts_with(directory)),
        )
    }

    /// Compares the whole state of a replica that has caught up.
    pub(crate) fn compare_state(&mut self, index: usize) -> Result<(), Violation> {
        let Some(replica) = &self.servers[index].replica else { return Ok(()) };
        // Whoever was removed while it was down may not have heard of it, nor of anything since.
        if self.members().contains(&index) {
            self.check_durable(replica.state())?;
        }
        let (reached, hash) = (replica.applied_index(), replica.state().hash());
        self.compare(index, reached, hash)
    }

    fn compare(&mut self, index: usize, reached: u64, hash: u64) -> Result<(), Violation> {
        let Some(canonical) = self.canon.hash_at(reached) else { return Ok(()) };
        self.stats.compared += 1;
        determinism::compare(index, reached, canonical, hash)
    }
}
