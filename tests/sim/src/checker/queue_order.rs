//! I10, for those who wait for a lock: whoever comes while others wait goes behind them, and the lock goes to the one
//! who has waited longest. So a writer is not kept waiting for ever by readers who come later.
//!
//! It keeps queues of its own, from the outcomes and effects of the canonical log alone.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::outcome;
use holdfast_proto::client::v1::request::Operation;
use holdfast_types::{HandleId, RequestNumber, SessionId};

use super::{Decided, Fact};
use crate::verdict::{Invariant, Violation};

/// A handle of a session.
type Owner = (SessionId, HandleId);
/// A node, by its instance: no two have the same.
type Instance = u64;

/// The checker.
#[derive(Debug, Default)]
pub struct QueueOrder {
    /// What each open handle was opened on.
    handles: BTreeMap<Owner, Instance>,
    /// Who waits for each node's lock and by which Acquire, in the order of their coming.
    queues: BTreeMap<Instance, Vec<(Owner, RequestNumber)>>,
}

impl QueueOrder {
    /// Takes in what happened.
    ///
    /// # Errors
    ///
    /// A grant past somebody who waits.
    pub fn see(&mut self, fact: &Fact<'_>) -> Result<(), Violation> {
        match fact {
            Fact::Decided(decided) => self.see_decided(decided),
            Fact::LockGranted { session, handle, number, .. } => {
                let owner = (*session, *handle);
                let Some(queue) = self.queue_of(owner) else { return Ok(()) };
                match queue.first().copied() {
                    Some(first) if first != (owner, *number) => {
                        let who = format!("{session} {handle} was granted its lock out of the queue");
                        Err(overtaken(&who, first))
                    }
                    _ => {
                        self.leave(owner, Some(*number));
                        Ok(())
                    }
                }
            }
            Fact::SessionEnded { session, .. } => {
                let all = (*session, HandleId(0))..=(*session, HandleId(u64::MAX));
                let owners: Vec<Owner> = self.handles.range(all).map(|(owner, _)| *owner).collect();
                owners.into_iter().for_each(|owner| self.close(owner));
                Ok(())
            }
            Fact::SessionOpened { .. } | Fact::DelayStarted { .. } | Fact::DelayEnded { .. } => Ok(()),
        }
    }

    /// Whether any handle is open on this instance of a node.
    #[must_use]
    pub fn is_open(&self, instance: u64) -> bool {
        self.handles.values().any(|open| *open == instance)
    }

    fn see_decided(&mut self, decided: &Decided<'_>) -> Result<(), Violation> {
        let owner = |handle| (decided.session, HandleId(handle));
        match (decided.operation, decided.result) {
            (Operation::Open(_), outcome::Result::Opened(opened)) => {
                let instance = opened.stat.as_ref().map_or(0, |stat| stat.instance);
                self.handles.insert(owner(decided.number.0), instance);
            }
            (Operation::Acquire(acquire), outcome::Result::Granted(_)) => {
                let owner = owner(acquire.handle);
                if let Some(first) = self.queue_of(owner).and_then(|queue| queue.first().copied()) {
                    let who = format!("{} {} was granted its lock at once", owner.0, owner.1);
                    return Err(overtaken(&who, first));
                }
            }
            (Operation::Acquire(acquire), outcome::Result::Queued(_)) => {
                let owner = owner(acquire.handle);
                if let Some(queue) = self.queue_of(owner) {
                    queue.push((owner, decided.number));
                }
            }
            (Operation::Release(release), outcome::Result::Released(_)) => {
                self.leave(owner(release.handle), None);
            }
            (Operation::Close(close), outcome::Result::Closed(_)) => self.close(owner(close.handle)),
            (Operation::Cancel(cancel), outcome::Result::Cancelled(_)) if cancel.handle == 0 => {
                self.close(owner(cancel.number));
            }
            (Operation::Cancel(cancel), outcome::Result::Cancelled(_)) => {
                self.leave(owner(cancel.handle), Some(RequestNumber(cancel.number)));
            }
            _ => {}
        }
        Ok(())
    }

    fn queue_of(&mut self, owner: Owner) -> Option<&mut Vec<(Owner, RequestNumber)>> {
        let instance = self.handles.get(&owner)?;
        Some(self.queues.entry(*instance).or_default())
    }

    /// The handle waits no longer, if it did; by this Acquire, if one is named.
    fn leave(&mut self, owner: Owner, number: Option<RequestNumber>) {
        if let Some(queue) = self.queue_of(owner) {
            queue.retain(|(waits, by)| *waits != owner || number.is_some_and(|number| number != *by));
        }
    }

    fn close(&mut self, owner: Owner) {
        self.leave(owner, None);
        self.handles.remove(&owner);
    }
}

fn overtaken(who: &str, (first, number): (Owner, RequestNumber)) -> Violation {
    let what = format!("{who} while {} {} waited for it since {number}", first.0, first.1);
    Violation::new(Invariant::Progress, what)
}

#[cfg(test)]
mod tests {
    use holdfast_proto::client::v1::{Granted, LockMode, Queued};

    use super::super::history::*;
    use super::*;

    const GRANTED: Granted = Granted { mode: 1, lock_generation: 9, instance: 7 };

    fn queued() -> outcome::Result {
        outcome::Result::Queued(Queued { ahead: 0 })
    }

    /// Sessions 1 to 3 have a handle 1 on one node, and session 1 waits for its lock.
    fn with_a_waiter() -> QueueOrder {
        let mut order = QueueOrder::default();
        for session in 1..=3 {
            order.see(&decided(session, 1, &open("/a"), &opened_at(7)).fact()).unwrap();
        }
        order.see(&decided(1, 2, &acquire(1, LockMode::Exclusive), &queued()).fact()).unwrap();
        order
    }

    fn grant(order: &mut QueueOrder, session: u64, number: u64) -> Result<(), Violation> {
        let (session, number) = (SessionId(session), RequestNumber(number));
        order.see(&Fact::LockGranted { session, handle: HandleId(1), number, granted: &GRANTED })
    }

    #[test]
    fn a_reader_who_overtakes_a_waiting_writer_is_found() {
        let mut order = with_a_waiter();
        let shared = granted(LockMode::Shared, 5, 7);
        let overtaken = order.see(&decided(2, 2, &acquire(1, LockMode::Shared), &shared).fact());
        assert_eq!(overtaken.unwrap_err().invariant, Invariant::Progress);
    }

    #[test]
    fn a_grant_to_the_second_in_the_queue_is_found() {
        let mut order = with_a_waiter();
        order.see(&decided(2, 2, &acquire(1, LockMode::Exclusive), &queued()).fact()).unwrap();
        assert!(grant(&mut order, 2, 2).is_err());
        grant(&mut order, 1, 2).unwrap();
        grant(&mut order, 2, 2).unwrap();
    }

    #[test]
    fn whoever_has_left_the_queue_is_in_nobodys_way() {
        let mut order = with_a_waiter();
        order.see(&decided(2, 2, &acquire(1, LockMode::Exclusive), &queued()).fact()).unwrap();
        order.see(&Fact::SessionEnded { session: SessionId(1), expired: true }).unwrap();
        order.see(&decided(2, 3, &release(1), &released()).fact()).unwrap();
        let at_once = granted(LockMode::Exclusive, 8, 7);
        order.see(&decided(3, 2, &acquire(1, LockMode::Exclusive), &at_once).fact()).unwrap();
        assert!(order.is_open(7) && !order.is_open(8));
    }
}
