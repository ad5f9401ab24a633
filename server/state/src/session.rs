//! Sessions and their handles (P§2.3, 2.8): what the cell remembers of a client.
//!
//! No leases here: how long a session lives is the master's soft state. Invariant: a handle's claim and its
//! node's lock say the same; a session's principal never changes.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::client::v1::{Refusal, Uses};
use holdfast_types::{HandleId, NodePath, Principal, RequestNumber, Revision, SessionId, planted};
use imbl::{OrdMap, OrdSet};

use crate::acl::Permission;
use crate::events::EventSet;
use crate::exactly_once::{Recorded, Window};
use crate::lock::Holder;
use crate::refusal;
use crate::sequencer::CellSequencer;
use crate::tree::{NodeKey, Tree};

/// A session.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    secret: Bytes,
    lease_ms: u32,
    client: Arc<str>,
    principal: Principal,
    /// By the number of the request that opened it.
    handles: OrdMap<HandleId, Arc<Handle>>,
    /// How many of the handles are caching.
    caching: usize,
    pub(crate) window: Window,
}

impl Session {
    /// A session without handles. Copies the secret, so that it does not keep a raft entry alive.
    pub(crate) fn new(
        secret: &[u8],
        lease_ms: u32,
        client: &str,
        principal: Principal,
        window: Window,
    ) -> Self {
        Self {
            secret: Bytes::copy_from_slice(secret),
            lease_ms,
            client: Arc::from(client),
            principal,
            handles: OrdMap::new(),
            caching: 0,
            window,
        }
    }

    /// The client's secret. Whoever attaches must know it; it names the session's opening too.
    #[must_use]
    pub fn secret(&self) -> &Bytes {
        &self.secret
    }

    /// The length of its lease.
    #[must_use]
    pub fn lease_ms(&self) -> u32 {
        self.lease_ms
    }

    /// What the client calls itself.
    #[must_use]
    pub fn client(&self) -> &str {
        &self.client
    }

    /// Who it is, for the access control lists. Fixed at its opening.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Whether its client may cache anything: whether it has a caching handle.
    #[must_use]
    pub fn caches(&self) -> bool {
        self.caching > 0
    }

    /// How many handles are open.
    #[must_use]
    pub fn handle_count(&self) -> usize {
        self.handles.len()
    }

    /// Whether a handle is open.
    #[must_use]
    pub fn has_handle(&self, handle: HandleId) -> bool {
        self.handles.contains_key(&handle)
    }

    /// The path that a handle was opened on; the node may have gone since.
    #[must_use]
    pub fn handle_path(&self, handle: HandleId) -> Option<&NodePath> {
        self.handles.get(&handle).map(|handle| handle.key.path())
    }

    /// What is known of a request.
    #[must_use]
    pub fn recorded(&self, number: RequestNumber) -> Recorded<'_> {
        self.window.recorded(number)
    }

    pub(crate) fn handle(&self, handle: HandleId) -> Option<&Handle> {
        self.handles.get(&handle).map(|handle| &**handle)
    }

    pub(crate) fn handle_mut(&mut self, handle: HandleId) -> Option<&mut Handle> {
        self.handles.get_mut(&handle).map(Arc::make_mut)
    }

    pub(crate) fn handles(&self) -> impl Iterator<Item = (HandleId, &Handle)> {
        self.handles.iter().map(|(id, handle)| (*id, &**handle))
    }

    pub(crate) fn last_handle(&self) -> Option<HandleId> {
        self.handles.get_max().map(|(id, _)| *id)
    }

    /// Whether [`Session::caches`] goes by the right count.
    pub(crate) fn caching_is_right(&self) -> bool {
        self.caching == self.handles.values().filter(|handle| handle.caching).count()
    }
}

/// An open handle: bound to an instance of a node, not to a name.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Handle {
    pub(crate) key: NodeKey,
    /// If the node has another instance, or is not there, the handle's own was deleted.
    pub(crate) instance: Revision,
    /// Begins when the handle's lock is lost, not when it is released.
    pub(crate) lock_delay_ms: u32,
    /// Its lock, or its place in the queue for it.
    pub(crate) claim: Option<Claim>,
    /// What it may be used for; never nothing.
    pub(crate) uses: Uses,
    /// What its client is told of. If not nothing: the node lists the handle among its watchers.
    pub(crate) events: EventSet,
    /// Whether the client may cache through it. If so: the node lists the handle among its cachers.
    pub(crate) caching: bool,
    /// The sequencer that calls on it depend on.
    pub(crate) sequencer: Option<Arc<CellSequencer>>,
}

impl Handle {
    /// Refuses a call for which the handle was not opened.
    pub(crate) fn check_use(&self, id: HandleId, permission: Permission) -> Result<(), Refusal> {
        let (opened, needed) = match permission {
            Permission::Read => (self.uses.read, "read"),
            Permission::Write => (self.uses.write, "write and lock"),
            Permission::ChangeAcl => (self.uses.change_acl, "change access control names"),
        };
        if opened { Ok(()) } else { Err(refusal::wrong_use(id, needed)) }
    }

    /// Refuses a call if the handle depends on a sequencer that is not valid any more.
    pub(crate) fn check_sequencer(&self, id: HandleId, tree: &Tree) -> Result<(), Refusal> {
        let Some(sequencer) = &self.sequencer else { return Ok(()) };
        sequencer.validity(tree).map_err(|why| refusal::sequencer_invalid(id, &why))
    }
}

/// A handle's stake in the lock of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Claim {
    /// The Acquire that it came by.
    pub(crate) acquire: RequestNumber,
    /// If it waits: its place. If it holds the lock: `None`.
    pub(crate) ticket: Option<Revision>,
}

/// All sessions.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sessions {
    by_id: OrdMap<SessionId, Arc<Session>>,
    /// So that a repeated opening finds the first one's session.
    by_secret: OrdMap<Bytes, SessionId>,
    /// Exactly the sessions that have a caching handle.
    caching: OrdSet<SessionId>,
}

impl Sessions {
    pub(crate) fn len(&self) -> usize {
        self.by_id.len()
    }

    pub(crate) fn get(&self, id: SessionId) -> Option<&Session> {
        self.by_id.get(&id).map(|session| &**session)
    }

    pub(crate) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.by_id.get_mut(&id).map(Arc::make_mut)
    }

    pub(crate) fn by_secret(&self, secret: &[u8]) -> Option<SessionId> {
        self.by_secret.get(secret).copied()
    }

    /// The sessions from this id on.
    pub(crate) fn iter_from(&self, first: SessionId) -> impl Iterator<Item = (SessionId, &Session)> {
        self.by_id.range(first..).map(|(id, session)| (*id, &**session))
    }

    pub(crate) fn iter_after(&self, after: Option<SessionId>) -> impl Iterator<Item = (SessionId, &Session)> {
        let after = after.map_or(Bound::Unbounded, Bound::Excluded);
        self.by_id.range((after, Bound::Unbounded)).map(|(id, session)| (*id, &**session))
    }

    /// The sessions that have a caching handle.
    pub(crate) fn caching(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.caching.iter().copied()
    }

    pub(crate) fn handle(&self, holder: Holder) -> Option<&Handle> {
        self.get(holder.session)?.handle(holder.handle)
    }

    pub(crate) fn handle_mut(&mut self, holder: Holder) -> Option<&mut Handle> {
        self.get_mut(holder.session)?.handle_mut(holder.handle)
    }

    /// Adds a handle to a session that is there. False if it has one of that id, which then stays.
    pub(crate) fn insert_handle(&mut self, holder: Holder, handle: Handle) -> bool {
        let session = self.get_mut(holder.session).expect("the handle's session is there");
        if session.has_handle(holder.handle) {
            return false;
        }
        let caching = handle.caching;
        session.handles.insert(holder.handle, Arc::new(handle));
        if caching {
            session.caching += 1;
            self.caching.insert(holder.session);
        }
        true
    }

    /// Takes a handle out of its session.
    pub(crate) fn remove_handle(&mut self, holder: Holder) -> Option<Arc<Handle>> {
        let session = self.get_mut(holder.session)?;
        let handle = session.handles.remove(&holder.handle)?;
        if handle.caching {
            session.caching -= 1;
            if session.caching == 0 {
                self.caching.remove(&holder.session);
            }
        }
        Some(handle)
    }

    /// Adds a session under an id and a secret that no other has.
    pub(crate) fn insert(&mut self, id: SessionId, session: Session) {
        let same_secret = self.by_secret.insert(session.secret.clone(), id);
        let same_id = self.by_id.insert(id, Arc::new(session));
        let is_new = same_secret.is_none() || planted!(OpenedTwice);
        assert!(is_new && same_id.is_none(), "session {id} is new");
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Arc<Session>> {
        let session = self.by_id.remove(&id)?;
        self.by_secret.remove(&*session.secret);
        if session.caches() {
            self.caching.remove(&id);
        }
        Some(session)
    }
}
