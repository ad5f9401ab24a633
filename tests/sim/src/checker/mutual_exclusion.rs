//! I1: no two handles hold a node's lock in conflicting modes, generations only rise, and every change from free
//! to held takes a new one.
//!
//! It keeps locks of its own, from the outcomes and effects of the canonical log alone, so a mistake in the
//! state's bookkeeping does not hide itself. What it keeps is compared with what the state says of the node.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{Granted, LockMode, LockStat, outcome};
use holdfast_types::{HandleId, RequestNumber, SessionId};

use super::{Decided, Fact};
use crate::verdict::{Invariant, Violation};

/// A node: its path and instance.
type NodeName = (String, u64);
/// A handle of a session.
type Owner = (SessionId, HandleId);

/// The checker.
#[derive(Debug, Default)]
pub struct MutualExclusion {
    /// What each open handle was opened on.
    handles: BTreeMap<Owner, NodeName>,
    /// Who holds what, how, and by which Acquire.
    holders: BTreeMap<NodeName, BTreeMap<Owner, (LockMode, RequestNumber)>>,
    /// The last generation of each node.
    generations: BTreeMap<NodeName, u64>,
    /// How each handle's last Acquire wanted the lock, and its number.
    wishes: BTreeMap<Owner, (LockMode, RequestNumber)>,
    /// Nodes whose lock changed since they were last compared.
    touched: BTreeSet<NodeName>,
}

impl MutualExclusion {
    /// Takes in what happened.
    ///
    /// # Errors
    ///
    /// A broken I1.
    pub fn see(&mut self, fact: &Fact<'_>) -> Result<(), Violation> {
        match fact {
            Fact::Decided(decided) => self.see_decided(decided),
            Fact::LockGranted { session, handle, number, granted } => {
                self.grant((*session, *handle), *number, granted)
            }
            Fact::SessionEnded { session, .. } => {
                self.end(*session);
                Ok(())
            }
            Fact::DelayStarted { .. } | Fact::DelayEnded { .. } | Fact::SessionOpened { .. } => Ok(()),
        }
    }

    /// Compares every lock that changed with what the state says of it: `stat` gives the instance and the lock of
    /// the node of a path, if there is one.
    ///
    /// # Errors
    ///
    /// If they differ.
    pub fn compare(&mut self, stat: impl Fn(&str) -> Option<(u64, LockStat)>) -> Result<(), Violation> {
        for node in std::mem::take(&mut self.touched) {
            let holders = self.holders.get(&node);
            let count = holders.map_or(0, |holders| holders.len() as u64);
            let mode = holders.and_then(|holders| holders.values().next()).map(|(mode, _)| *mode);
            let said = stat(&node.0).filter(|(instance, _)| *instance == node.1);
            let (said_count, said_mode) = said.map_or((0, None), |(_, lock)| {
                (lock.holder_count, Some(lock.mode()).filter(|mode| *mode != LockMode::Unspecified))
            });
            if (count, mode) != (said_count, said_mode) {
                return Err(broken(format!(
                    "by the log {count} hold the lock of {} ({mode:?}), and the state says {said_count} ({said_mode:?})",
                    node.0
                )));
            }
        }
        Ok(())
    }

    /// The locks that a session holds: by which handle, and of which path.
    pub fn held_by(&self, session: SessionId) -> impl Iterator<Item = (HandleId, &str)> {
        let all = (session, HandleId(0))..=(session, HandleId(u64::MAX));
        let held = |(owner, node): &(&Owner, &NodeName)| {
            self.holders.get(*node).is_some_and(|holders| holders.contains_key(*owner))
        };
        self.handles.range(all).filter(held).map(|(owner, node)| (owner.1, node.0.as_str()))
    }

    fn see_decided(&mut self, decided: &Decided<'_>) -> Result<(), Violation> {
        let owner = |handle| (decided.session, HandleId(handle));
        match (decided.operation, decided.result) {
            (Operation::Open(open), outcome::Result::Opened(opened)) => {
                let instance = opened.stat.as_ref().map_or(0, |stat| stat.instance);
                self.handles.insert(owner(decided.number.0), (open.path.clone(), instance));
            }
            (Operation::Acquire(acquire), result) => {
                let owner = owner(acquire.handle);
                match result {
                    outcome::Result::Granted(granted) => {
                        self.wishes.insert(owner, (acquire.mode(), decided.number));
                        self.grant(owner, decided.number, granted)?;
                    }
                    outcome::Result::Queued(_) => {
                        self.wishes.insert(owner, (acquire.mode(), decided.number));
                    }
                    _ => {}
                }
            }
            (Operation::Release(release), outcome::Result::Released(_)) => self.leave(owner(release.handle)),
            (Operation::Close(close), outcome::Result::Closed(_)) => self.close(owner(close.handle)),
            (Operation::Cancel(cancel), outcome::Result::Cancelled(_)) => {
                if cancel.handle == 0 {
                    self.close(owner(cancel.number));
                } else if self.wish(owner(cancel.handle)) == Some(RequestNumber(cancel.number)) {
                    self.leave(owner(cancel.handle));
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn wish(&self, owner: Owner) -> Option<RequestNumber> {
        self.wishes.get(&owner).map(|(_, number)| *number)
    }

    fn grant(&mut self, owner: Owner, number: RequestNumber, granted: &Granted) -> Result<(), Violation> {
        let who = format!("{} {}", owner.0, owner.1);
        let Some(node) = self.handles.get(&owner).cloned() else {
            return Err(broken(format!("{who} was granted a lock, and has no such handle open")));
        };
        let mode = granted.mode();
        if self.wishes.get(&owner) != Some(&(mode, number)) {
            return Err(broken(format!(
                "{who} was granted {} as {mode:?} by {number}, and had not asked so",
                node.0
            )));
        }
        let holders = self.holders.entry(node.clone()).or_default();
        let conflict = |other: LockMode| mode == LockMode::Exclusive || other == LockMode::Exclusive;
        if let Some((other, _)) = holders.iter().find(|(_, (other, _))| conflict(*other)) {
            return Err(broken(format!(
                "{who} was granted {} while {} {} holds it",
                node.0, other.0, other.1
            )));
        }
        let last = self.generations.get(&node).copied().unwrap_or(0);
        let generation = granted.lock_generation;
        let rises = if holders.is_empty() { generation > last } else { generation == last };
        if !rises || granted.instance != node.1 {
            return Err(broken(format!(
                "{who} was granted {} at generation {generation} of instance {}, after generation {last} of {} with {} holders",
                node.0,
                granted.instance,
                node.1,
                holders.len()
            )));
        }
        holders.insert(owner, (mode, number));
        self.generations.insert(node.clone(), generation);
        self.touched.insert(node);
        Ok(())
    }

    /// The handle no longer holds its lock, nor waits for it.
    fn leave(&mut self, owner: Owner) {
        self.wishes.remove(&owner);
        let Some(node) = self.handles.get(&owner) else { return };
        if let Some(holders) = self.holders.get_mut(node) {
            holders.remove(&owner);
        }
        self.touched.insert(node.clone());
    }

    fn close(&mut self, owner: Owner) {
        self.leave(owner);
        self.handles.remove(&owner);
    }

    fn end(&mut self, session: SessionId) {
        let all = (session, HandleId(0))..=(session, HandleId(u64::MAX));
        let owners: Vec<Owner> = self.handles.range(all).map(|(owner, _)| *owner).collect();
        for owner in owners {
            self.close(owner);
        }
    }
}

fn broken(what: String) -> Violation {
    Violation::new(Invariant::MutualExclusion, what)
}

#[cfg(test)]
mod tests {
    use super::super::history::*;
    use super::*;

    /// Two sessions have a handle each on one node.
    fn opened() -> MutualExclusion {
        let mut checker = MutualExclusion::default();
        for session in [1, 2] {
            checker.see(&decided(session, 1, &open("/lock"), &opened_at(7)).fact()).unwrap();
        }
        checker
    }

    fn acquire_by(
        checker: &mut MutualExclusion,
        session: u64,
        mode: LockMode,
        generation: u64,
    ) -> Result<(), Violation> {
        checker.see(&decided(session, 2, &acquire(1, mode), &granted(mode, generation, 7)).fact())
    }

    #[test]
    fn a_handoff_at_a_greater_generation_is_fine() {
        let mut checker = opened();
        acquire_by(&mut checker, 1, LockMode::Exclusive, 10).unwrap();
        checker.see(&decided(1, 3, &release(1), &released()).fact()).unwrap();
        acquire_by(&mut checker, 2, LockMode::Exclusive, 12).unwrap();
    }

    #[test]
    fn shared_holders_share_a_generation() {
        let mut checker = opened();
        acquire_by(&mut checker, 1, LockMode::Shared, 10).unwrap();
        acquire_by(&mut checker, 2, LockMode::Shared, 10).unwrap();
        let mut checker = opened();
        acquire_by(&mut checker, 1, LockMode::Shared, 10).unwrap();
        let violation = acquire_by(&mut checker, 2, LockMode::Shared, 11).unwrap_err();
        assert!(violation.what.contains("generation 11"), "{violation}");
    }

    #[test]
    fn two_conflicting_holders_are_found() {
        for (first, second) in [
            (LockMode::Exclusive, LockMode::Exclusive),
            (LockMode::Exclusive, LockMode::Shared),
            (LockMode::Shared, LockMode::Exclusive),
        ] {
            let mut checker = opened();
            acquire_by(&mut checker, 1, first, 10).unwrap();
            let violation = acquire_by(&mut checker, 2, second, 12).unwrap_err();
            assert_eq!(violation.invariant, Invariant::MutualExclusion);
            assert!(violation.what.contains("while"), "{violation}");
        }
    }

    #[test]
    fn a_generation_that_is_used_again_is_found() {
        let mut checker = opened();
        acquire_by(&mut checker, 1, LockMode::Exclusive, 10).unwrap();
        checker.see(&Fact::SessionEnded { session: SessionId(1), expired: true }).unwrap();
        assert!(acquire_by(&mut checker, 2, LockMode::Exclusive, 10).is_err());
    }

    #[test]
    fn a_grant_that_nobody_asked_for_is_found() {
        let mut checker = opened();
        let granted = Granted { mode: LockMode::Exclusive.into(), lock_generation: 9, instance: 7 };
        let (session, handle, number) = (SessionId(1), HandleId(1), RequestNumber(2));
        assert!(checker.see(&Fact::LockGranted { session, handle, number, granted: &granted }).is_err());
    }

    #[test]
    fn a_state_that_says_otherwise_is_found() {
        let mut checker = opened();
        acquire_by(&mut checker, 1, LockMode::Exclusive, 10).unwrap();
        let held = LockStat { mode: LockMode::Exclusive.into(), holder_count: 1, ..LockStat::default() };
        assert!(checker.compare(|_| Some((7, held.clone()))).is_ok());
        checker.see(&decided(1, 3, &release(1), &released()).fact()).unwrap();
        assert!(checker.compare(|_| Some((7, held.clone()))).is_err());
    }
}
