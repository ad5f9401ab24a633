//! What the session has open, and under which ids the application knows it (P§2.7: open handles are cached).
//!
//! A handle of the cell can have several *users*: application handles, each under an id of its own, so that closing
//! one never closes another. It can also have none: then it is *idle*, kept for the next `Open` of its node. Owns
//! the table and the order in which idle handles grow old; what is cached of a node is the cache's (`cache`). The
//! invariant: a handle is idle if and only if it has no user.

use crate::slot::Slot;
use holdfast_proto::client::v1 as wire;
use holdfast_types::{Duration, HandleId, NodePath, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug, Default)]
pub(crate) struct Handles {
    /// By the cell's id.
    open: BTreeMap<HandleId, OpenHandle>,
    /// The caching ones among them, by node.
    by_path: BTreeSet<(NodePath, HandleId)>,
    /// Which handle each user means whose id is not the cell's for it: all but the first of a shared handle, and those
    /// that were given one of their own later.
    users: BTreeMap<HandleId, HandleId>,
    /// Those of the caching ones that an `Open` could have: idle ones, and such as may be shared.
    on_offer: BTreeSet<(NodePath, HandleId)>,
    /// Since when each idle handle has been that.
    idle: BTreeSet<(Time, HandleId)>,
    /// The same, by handle.
    idle_since: BTreeMap<HandleId, Time>,
}

#[derive(Debug)]
pub(crate) struct OpenHandle {
    /// The node's path; `None` if the directory that it was opened in is not known any more.
    pub(crate) path: Option<NodePath>,
    /// What was last heard of the node, without its lock.
    pub(crate) stat: wire::Stat,
    /// What a later `Open` must ask for to get this handle; `None`: no other ever gets it.
    pub(crate) shape: Option<Shape>,
    /// The cell knows that this session may be caching the node.
    pub(crate) caching: bool,
    /// Where what is cached is read. `None` if nothing may be.
    pub(crate) slot: Option<Arc<Slot>>,
    /// Nothing has happened that could make the cell refuse the same `Open` now.
    pub(crate) proven: bool,
    /// Calls on it may depend on a sequencer, which only the cell can judge: none is answered here.
    pub(crate) depends: bool,
    /// The application's ids for it.
    pub(crate) users: BTreeSet<HandleId>,
    pub(crate) claim: Claim,
}

impl OpenHandle {
    /// What opens the same node for the same uses. `None` if the node is not one that others may get.
    pub(crate) fn open_again(&self) -> Option<wire::Open> {
        let Shape { read, write, change_acl, lock_delay_ms } = self.shape?;
        let path = self.path.as_ref()?.as_str().to_owned();
        let uses = Some(wire::Uses { read, write, change_acl });
        Some(wire::Open { path, uses, lock_delay_ms, caching: self.caching, ..wire::Open::default() })
    }
}

/// What two `Open`s must have in common to be answered with one handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shape {
    read: bool,
    write: bool,
    change_acl: bool,
    lock_delay_ms: u32,
}

impl Shape {
    /// `None` if this `Open` can never be answered with a handle that is open already: it wants events of its own, or
    /// what it may have to create depends on more than its path.
    pub(crate) fn of(open: &wire::Open) -> Option<Self> {
        let names_acl = open.acl.as_ref().is_some_and(|acl| *acl != wire::AclNames::default());
        let fresh = open.creation() == wire::Creation::Must || open.ephemeral || names_acl;
        if !open.caching || fresh || !open.events.is_empty() {
            return None;
        }
        let (read, write, change_acl) = uses_of(open);
        Some(Self { read, write, change_acl, lock_delay_ms: open.lock_delay_ms })
    }

    /// P§2.7: handles that can take the lock are reused, but not shared at the same time.
    fn is_shareable(self) -> bool {
        !self.write && !self.change_acl
    }
}

/// What an `Open` asks to be used for: reading, writing, changing the ACL names.
pub(crate) fn uses_of(open: &wire::Open) -> (bool, bool, bool) {
    match open.uses {
        Some(wire::Uses { read, write, change_acl }) if read || write || change_acl => {
            (read, write, change_acl)
        }
        _ => (true, true, false),
    }
}

/// Whether a handle may hold its lock or wait for it. Errs on the side of yes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claim {
    /// Acquires, Releases and Cancels that are not decided.
    undecided: u32,
    /// The last of them that was called for was an Acquire, or was not granted as it should be.
    claims: bool,
}

impl Claim {
    pub(crate) fn acquire_called(&mut self) {
        self.undecided += 1;
        self.claims = true;
    }

    pub(crate) fn release_called(&mut self) {
        self.undecided += 1;
        self.claims = false;
    }

    pub(crate) fn decided(&mut self, given_back: bool) {
        self.undecided = self.undecided.saturating_sub(1);
        // An Acquire that was refused leaves the claim standing: the handle may hold the lock by an earlier one.
        self.claims |= self.undecided == 0 && !given_back;
    }

    fn is_free(self) -> bool {
        self.undecided == 0 && !self.claims
    }
}

/// Whom an id means.
pub(crate) enum Named {
    /// A handle of the cell, under this id there. Also ids that are not known here: the cell knows.
    Cell(HandleId),
    /// Nothing: the application has closed it.
    Closed,
}

/// What becomes of a handle whose user has gone.
pub(crate) enum Closing {
    /// Others use it, or it is kept for the next.
    Kept,
    /// It is to be closed at the cell.
    Close(HandleId),
}

/// Ids and numbers that only the session knows have this bit, which no count of requests ever reaches.
pub(crate) const LOCAL: u64 = 1 << 63;

impl Handles {
    /// A handle was opened at the cell. Its first user knows it by the cell's id.
    pub(crate) fn opened(&mut self, id: HandleId, mut handle: OpenHandle) {
        if handle.caching
            && let Some(path) = &handle.path
        {
            self.by_path.insert((path.clone(), id));
            if handle.shape.is_some_and(Shape::is_shareable) {
                self.on_offer.insert((path.clone(), id));
            }
        }
        handle.users.insert(id);
        self.open.insert(id, handle);
    }

    pub(crate) fn get(&self, id: HandleId) -> Option<&OpenHandle> {
        self.open.get(&id)
    }

    pub(crate) fn get_mut(&mut self, id: HandleId) -> Option<&mut OpenHandle> {
        self.open.get_mut(&id)
    }

    /// Whom the application means.
    pub(crate) fn named(&self, user: HandleId) -> Named {
        if let Some(id) = self.users.get(&user) {
            return Named::Cell(*id);
        }
        if user.0 & LOCAL != 0 {
            return Named::Closed;
        }
        let closed = self.open.get(&user).is_some_and(|handle| !handle.users.contains(&user));
        if closed { Named::Closed } else { Named::Cell(user) }
    }

    /// A handle that an `Open` of this shape can have without asking, if there is one.
    pub(crate) fn reusable(&self, path: &NodePath, shape: Shape, kind: wire::NodeKind) -> Option<HandleId> {
        let fits = |handle: &OpenHandle| {
            handle.proven
                && handle.shape == Some(shape)
                && (kind == wire::NodeKind::Unspecified || kind == handle.stat.kind())
                && (handle.users.is_empty() || shape.is_shareable())
        };
        at(&self.on_offer, path).find(|id| self.open.get(id).is_some_and(fits))
    }

    /// A handle has another user from now on.
    pub(crate) fn reuse(&mut self, id: HandleId, user: HandleId) -> Option<&OpenHandle> {
        self.no_longer_idle(id);
        let handle = self.open.get_mut(&id)?;
        self.users.insert(user, id);
        handle.users.insert(user);
        Some(handle)
    }

    /// A user of a shared handle has one of its own from now on. Returns the shared one if nobody uses it any more.
    pub(crate) fn separate(&mut self, user: HandleId, shared: HandleId, own: HandleId) -> Option<HandleId> {
        let handle = self.open.get_mut(&own)?;
        handle.users = [user].into();
        self.users.insert(user, own);
        let handle = self.open.get_mut(&shared)?;
        handle.users.remove(&user);
        handle.users.is_empty().then_some(shared)
    }

    /// A user closes its handle. It is kept for the next if `may_keep` says so and its own state allows it.
    pub(crate) fn close(&mut self, user: HandleId, now: Time, may_keep: bool) -> Closing {
        let id = match self.named(user) {
            Named::Closed => return Closing::Kept,
            Named::Cell(id) => id,
        };
        self.users.remove(&user);
        let Some(handle) = self.open.get_mut(&id) else { return Closing::Close(id) };
        handle.users.remove(&user);
        if !handle.users.is_empty() {
            return Closing::Kept;
        }
        if may_keep && handle.shape.is_some() && handle.proven && handle.claim.is_free() {
            if let Some(path) = handle.path.clone().filter(|_| handle.caching) {
                self.on_offer.insert((path, id));
            }
            self.idle.insert((now, id));
            self.idle_since.insert(id, now);
            return Closing::Kept;
        }
        Closing::Close(id)
    }

    /// The handle is closed at the cell, or about to be.
    pub(crate) fn remove(&mut self, id: HandleId) -> Option<OpenHandle> {
        self.no_longer_idle(id);
        let handle = self.open.remove(&id)?;
        if let Some(path) = &handle.path {
            self.by_path.remove(&(path.clone(), id));
            self.on_offer.remove(&(path.clone(), id));
        }
        for user in &handle.users {
            self.users.remove(user);
        }
        Some(handle)
    }

    /// A handle has a user again, or is closed.
    fn no_longer_idle(&mut self, id: HandleId) {
        let Some(since) = self.idle_since.remove(&id) else { return };
        self.idle.remove(&(since, id));
        let Some(handle) = self.open.get(&id) else { return };
        if let Some(path) = &handle.path
            && !handle.shape.is_some_and(Shape::is_shareable)
        {
            self.on_offer.remove(&(path.clone(), id));
        }
    }

    /// The caching handles on this node, the oldest first.
    pub(crate) fn caching_at(&self, path: &NodePath) -> impl Iterator<Item = HandleId> {
        at(&self.by_path, path)
    }

    /// An open handle is no proof any more that this node could be opened; of none, if no path is given. Returns the
    /// idle ones, which are of no use then.
    pub(crate) fn disprove(&mut self, path: Option<&NodePath>) -> Vec<HandleId> {
        let ids: Vec<HandleId> = match path {
            Some(path) => self.caching_at(path).collect(),
            None => self.by_path.iter().map(|(_, id)| *id).collect(),
        };
        for id in &ids {
            if let Some(handle) = self.open.get_mut(id) {
                handle.proven = false;
            }
        }
        let is_idle = |id: &HandleId| self.open.get(id).is_some_and(|handle| handle.users.is_empty());
        ids.into_iter().filter(is_idle).collect()
    }

    /// An idle handle that is not to be kept: because there are more than `idle_max`, or because it has been idle for
    /// `idle_time`.
    pub(crate) fn not_to_be_kept(&self, now: Time, idle_max: usize, idle_time: Duration) -> Option<HandleId> {
        let (since, oldest) = *self.idle.first()?;
        (self.idle.len() > idle_max || now >= since + idle_time).then_some(oldest)
    }

    /// Since when the oldest of the idle handles has been that.
    pub(crate) fn idle_since(&self) -> Option<Time> {
        self.idle.first().map(|(since, _)| *since)
    }

    /// The oldest of the idle handles.
    pub(crate) fn first_idle(&self) -> Option<HandleId> {
        self.idle.first().map(|(_, id)| *id)
    }

    /// Whether the application has anything open.
    pub(crate) fn in_use(&self) -> bool {
        self.open.len() > self.idle.len()
    }
}

/// Those of the node, the oldest first.
fn at(by_path: &BTreeSet<(NodePath, HandleId)>, path: &NodePath) -> impl Iterator<Item = HandleId> {
    let (first, last) = ((path.clone(), HandleId(0)), (path.clone(), HandleId(u64::MAX)));
    by_path.range(first..=last).map(|(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer(path: &NodePath) -> OpenHandle {
        let open = wire::Open { path: path.as_str().to_owned(), caching: true, ..wire::Open::default() };
        OpenHandle {
            path: Some(path.clone()),
            stat: wire::Stat::default(),
            shape: Shape::of(&open),
            caching: true,
            slot: None,
            proven: true,
            depends: false,
            users: BTreeSet::new(),
            claim: Claim::default(),
        }
    }

    #[test]
    fn an_open_is_offered_idle_handles_alone_where_handles_are_not_shared() {
        let path = NodePath::from_canonical("/a").expect("a path");
        let mut handles = Handles::default();
        for id in 1..=10_000 {
            handles.opened(HandleId(id), writer(&path));
        }
        assert_eq!(at(&handles.on_offer, &path).count(), 0, "no search walks over handles that are in use");
        for id in 5..=10_000 {
            let at = Time::from_millis(id);
            assert!(matches!(handles.close(HandleId(id), at, true), Closing::Kept));
        }
        let shape = writer(&path).shape.expect("it has one");
        for user in 0..9_000 {
            let id = handles.reusable(&path, shape, wire::NodeKind::Unspecified).expect("one is idle");
            assert_eq!(id, HandleId(5 + user), "the oldest");
            handles.reuse(id, HandleId(LOCAL | user));
        }
        assert_eq!(handles.idle_since(), Some(Time::from_millis(9_005)));
        assert!(handles.remove(HandleId(9_005)).is_some());
        assert_eq!((handles.first_idle(), handles.idle.len()), (Some(HandleId(9_006)), 995));
        assert_eq!((handles.idle_since.len(), at(&handles.on_offer, &path).count()), (995, 995));
    }
}
