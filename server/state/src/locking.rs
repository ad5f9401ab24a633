//! Locks in the cell: asking for one, giving it up, losing it, and what follows for others (P§2.4).
//!
//! `lock` knows one lock; this brings it together with handles, sessions and effects. Invariant: whatever takes a
//! holder, a waiter or a delay away runs [`State::settle`] on the node in the same command.

use holdfast_proto::client::v1::{
    Acquire, Cancel, Cancelled, EventKind, Granted, LockConflict, LockGrant, LockMode, Queued, Refusal,
    Release, Released, outcome,
};
use holdfast_types::{HandleId, Mode, RequestNumber, Revision, SessionId, planted};

use crate::acl::Permission;
use crate::exactly_once::Recorded;
use crate::lock::{Acquired, Delay, Holder, Lock, Waiter};
use crate::node::Node;
use crate::session::{Claim, Handle};
use crate::tree::NodeKey;
use crate::{Effect, LockDelay, State, refusal};

/// How a handle lets go of its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Departure {
    /// On purpose: the next one may have the lock at once.
    Released,
    /// Its client may not know that it is gone: the handle's lock-delay begins.
    Lost,
}

impl State {
    /// Asks for the lock of a handle's node.
    pub(crate) fn acquire(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        acquire: Acquire,
        effects: &mut Vec<Effect>,
    ) -> Result<outcome::Result, Refusal> {
        let holder = Holder { session, handle: HandleId(acquire.handle) };
        let mode = wished_mode(acquire.mode)?;
        let handle =
            self.sessions.handle_mut(holder).ok_or_else(|| refusal::unknown_handle(holder.handle))?;
        handle.check_sequencer(holder.handle, &self.tree)?;
        let Some(node) = self.tree.live_mut(&handle.key, handle.instance) else {
            return Err(refusal::node_gone(holder.handle, handle.key.path()));
        };
        handle.check_use(holder.handle, Permission::Write)?;
        if let Some(claim) = handle.claim {
            return Err(refusal::already_locked(holder.handle, claim.acquire, claim.ticket.is_some()));
        }
        let (revision, watched) = (self.revision.next(), !node.watchers.is_empty());
        let acquired = node.lock.acquire(Waiter { holder, mode }, acquire.try_only, revision);
        let result = match acquired {
            Acquired::Granted => Ok((outcome::Result::Granted(granted(node, mode)), None)),
            Acquired::Queued { ahead } => Ok((outcome::Result::Queued(Queued { ahead }), Some(revision))),
            Acquired::Conflict => {
                let (why, conflict) = (node.lock.obstacle(mode), lock_conflict(&node.lock, wire_mode(mode)));
                Err(refusal::lock_conflict(handle.key.path(), mode, why, conflict))
            }
        };
        if let Ok((_, ticket)) = result {
            handle.claim = Some(Claim { acquire: number, ticket });
            self.revision = revision;
        }
        if watched {
            let key = handle.key.clone();
            self.tell_of_wish(&key, mode, revision, effects);
        }
        result.map(|(result, _)| result)
    }

    /// Tells those who watch a node that somebody asked for its lock in this mode, with `revision`: that it was free
    /// and is held from then on, or that those who hold it are in the way.
    fn tell_of_wish(&self, key: &NodeKey, mode: Mode, revision: Revision, effects: &mut Vec<Effect>) {
        let node = self.tree.get(key.path()).expect("the caller found the node");
        if node.lock.generation() == revision {
            self.tell(key.path(), node, EventKind::LockAcquired, None, effects);
        } else if node.lock.mode().is_some_and(|held| held.conflicts_with(mode)) {
            self.tell_holders(key.path(), node, node.lock.holder_set(), effects);
        }
    }

    /// Gives a handle's lock back, or its place in the queue.
    pub(crate) fn release(
        &mut self,
        session: SessionId,
        release: Release,
        effects: &mut Vec<Effect>,
    ) -> Result<outcome::Result, Refusal> {
        let holder = Holder { session, handle: HandleId(release.handle) };
        let handle = self.sessions.handle(holder).ok_or_else(|| refusal::unknown_handle(holder.handle))?;
        if self.tree.live(&handle.key, handle.instance).is_none() {
            return Err(refusal::node_gone(holder.handle, handle.key.path()));
        }
        if handle.claim.is_none() {
            return Err(refusal::not_locked(holder.handle));
        }
        self.give_up_claim(holder, effects);
        Ok(outcome::Result::Released(Released {}))
    }

    /// Withdraws an earlier request. One that was not seen never takes effect: its number is given the outcome
    /// that a retry will find.
    pub(crate) fn cancel(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        cancel: Cancel,
        effects: &mut Vec<Effect>,
    ) -> Result<outcome::Result, Refusal> {
        let (withdrawn, handle) = (RequestNumber(cancel.number), HandleId(cancel.handle));
        if withdrawn.0 == 0 || withdrawn == number {
            return Err(refusal::invalid(format!(
                "request {number} cannot withdraw {withdrawn}: name another one"
            )));
        }
        let tombstone = self.refused(refusal::cancelled(withdrawn, number));
        let window = &mut self.sessions.get_mut(session).expect("the request's session is there").window;
        if window.recorded(withdrawn) == Recorded::New {
            window.record(withdrawn, tombstone);
        } else if handle.0 == 0 {
            self.close_handle(Holder { session, handle: HandleId(withdrawn.0) }, effects);
        } else {
            let holder = Holder { session, handle };
            let claim = self.sessions.handle(holder).and_then(|handle| handle.claim);
            let keeps = planted!(CancelKeepsGrant) && claim.is_some_and(|claim| claim.ticket.is_none());
            if claim.is_some_and(|claim| claim.acquire == withdrawn) && !keeps {
                self.give_up_claim(holder, effects);
            }
        }
        Ok(outcome::Result::Cancelled(Cancelled {}))
    }

    /// Takes a handle's claim away from it, on purpose. The handle has one, and stays open.
    fn give_up_claim(&mut self, holder: Holder, effects: &mut Vec<Effect>) {
        let handle = self.sessions.handle_mut(holder).expect("the handle is open");
        let claim = handle.claim.take().expect("the handle has a claim");
        let key = handle.key.clone();
        let node = self.tree.get_mut(&key).expect("a node with a claim on its lock is not deleted");
        match claim.ticket {
            Some(ticket) => node.lock.remove_waiter(ticket),
            None => node.lock.remove_holder(holder),
        }
        self.advance();
        self.settle(&key, effects);
    }

    /// Takes a handle that is being closed off its node, lock and all, for the present revision. False if the
    /// node is gone. The caller settles the node.
    pub(crate) fn leave_node(&mut self, holder: Holder, handle: &Handle, departure: Departure) -> bool {
        let revision = self.revision;
        let Some(node) = self.tree.live_mut(&handle.key, handle.instance) else {
            assert!(handle.claim.is_none(), "a node with a claim on its lock is not deleted");
            return false;
        };
        node.open_handles -= 1;
        if !handle.events.is_empty() {
            node.watchers.remove(holder, handle.events);
        }
        if handle.caching {
            node.cachers.remove(&holder);
        }
        match handle.claim {
            None => {}
            Some(Claim { ticket: Some(_), .. }) if planted!(GrantToEnded) && departure == Departure::Lost => {
            }
            Some(Claim { ticket: Some(ticket), .. }) => node.lock.remove_waiter(ticket),
            Some(Claim { ticket: None, .. }) => {
                let mode = node.lock.mode().expect("the handle holds the lock");
                node.lock.remove_holder(holder);
                let is_lost = departure == Departure::Lost && !planted!(NoDelayOnExpiry);
                if is_lost && handle.lock_delay_ms > 0 {
                    node.lock.begin_delay(revision, Delay { mode, delay_ms: handle.lock_delay_ms });
                }
            }
        }
        true
    }

    /// Draws the consequences for others, after something was taken off a node at the present revision: tells of
    /// a delay that began, grants the lock to whoever can have it now, and notices an orphan.
    pub(crate) fn settle(&mut self, key: &NodeKey, effects: &mut Vec<Effect>) {
        let revision = self.revision;
        let Some(node) = self.tree.get_mut(key) else { return };
        if let Some(delay) = node.lock.delay(revision) {
            let path = key.path().clone();
            effects.push(Effect::DelayStarted(LockDelay { path, loss: revision, delay_ms: delay.delay_ms }));
        }
        let (watched, mut news) = (!node.watchers.is_empty(), Vec::new());
        while let Some(Waiter { holder, mode }) = node.lock.grant_next(revision) {
            if planted!(GrantToEnded) && self.sessions.handle(holder).is_none() {
                continue;
            }
            let handle = self.sessions.handle_mut(holder).expect("a waiter's handle is open");
            let claim = handle.claim.as_mut().expect("a waiter's handle has a claim");
            claim.ticket = None;
            let grant = LockGrant {
                handle: holder.handle.0,
                number: claim.acquire.0,
                granted: Some(granted(node, mode)),
            };
            effects.push(Effect::LockGranted { session: holder.session, grant });
            if watched {
                news.push(holder);
            }
        }
        if !news.is_empty() {
            self.tell_of_grants(key, &news, effects);
        }
        if let Some(instance) = self.tree.reindex(key) {
            effects.push(Effect::Orphaned { path: key.path().clone(), instance });
        }
    }

    /// Tells those who watch a node that the lock was granted at the present revision: that it was free and is held
    /// now, and the new holders, that others want it already.
    fn tell_of_grants(&self, key: &NodeKey, granted: &[Holder], effects: &mut Vec<Effect>) {
        let node = self.tree.get(key.path()).expect("the caller found the node");
        if node.lock.generation() == self.revision {
            self.tell(key.path(), node, EventKind::LockAcquired, None, effects);
        }
        let wanted = granted.iter().copied().filter(|holder| node.lock.is_wanted_from(*holder)).collect();
        self.tell_holders(key.path(), node, wanted, effects);
    }

    /// Every lock that a session holds, for its re-attachment.
    #[must_use]
    pub fn locks_of(&self, session: SessionId) -> Vec<LockGrant> {
        let handles = self.sessions.get(session).into_iter().flat_map(|session| session.handles());
        let held = handles.filter_map(|(id, handle)| {
            let claim = handle.claim.filter(|claim| claim.ticket.is_none())?;
            let node = self.tree.live(&handle.key, handle.instance).expect("a locked node is not deleted");
            let mode = node.lock.mode().expect("a claim without a ticket holds");
            Some(LockGrant { handle: id.0, number: claim.acquire.0, granted: Some(granted(node, mode)) })
        });
        held.collect()
    }
}

/// The grant of a node's lock as it is held now.
fn granted(node: &Node, mode: Mode) -> Granted {
    Granted {
        mode: wire_mode(mode).into(),
        lock_generation: node.lock.generation().0,
        instance: node.instance.0,
    }
}

/// What a lock is like that somebody could not have, or whose node could not be deleted: then `wanted` is unspecified.
pub(crate) fn lock_conflict(lock: &Lock, wanted: LockMode) -> LockConflict {
    LockConflict {
        wanted: wanted.into(),
        held: lock.mode().map_or(LockMode::Unspecified, wire_mode).into(),
        holders: lock.holder_count(),
        waiting: lock.waiter_count(),
        delayed: lock.delay_count(),
    }
}

pub(crate) fn wire_mode(mode: Mode) -> LockMode {
    match mode {
        Mode::Exclusive => LockMode::Exclusive,
        Mode::Shared => LockMode::Shared,
    }
}

fn wished_mode(mode: i32) -> Result<Mode, Refusal> {
    match LockMode::try_from(mode) {
        Ok(LockMode::Exclusive) => Ok(Mode::Exclusive),
        Ok(LockMode::Shared) => Ok(Mode::Shared),
        _ => Err(refusal::invalid(format!("lock mode {mode} is neither exclusive (1) nor shared (2)"))),
    }
}
