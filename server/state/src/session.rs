//! Sessions and their handles (P§2.3, 2.8): what the cell remembers of a client.
//!
//! No leases here: how long a session lives is the master's soft state. Invariant: a handle's claim and its
//! node's lock say the same.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_types::{HandleId, NodePath, RequestNumber, Revision, SessionId};
use imbl::OrdMap;

use crate::exactly_once::{Recorded, Window};
use crate::lock::Holder;
use crate::tree::NodeKey;

/// A session.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    secret: Bytes,
    lease_ms: u32,
    client: Arc<str>,
    /// By the number of the request that opened it.
    handles: OrdMap<HandleId, Arc<Handle>>,
    pub(crate) window: Window,
}

impl Session {
    /// A session without handles. Copies the secret, so that it does not keep a raft entry alive.
    pub(crate) fn new(secret: &[u8], lease_ms: u32, client: &str, window: Window) -> Self {
        Self {
            secret: Bytes::copy_from_slice(secret),
            lease_ms,
            client: Arc::from(client),
            handles: OrdMap::new(),
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

    /// Adds a handle. False if there is one of that id, which then stays.
    pub(crate) fn insert_handle(&mut self, id: HandleId, handle: Handle) -> bool {
        let vacant = !self.has_handle(id);
        if vacant {
            self.handles.insert(id, Arc::new(handle));
        }
        vacant
    }

    pub(crate) fn last_handle(&self) -> Option<HandleId> {
        self.handles.get_max().map(|(id, _)| *id)
    }

    pub(crate) fn remove_handle(&mut self, handle: HandleId) -> Option<Arc<Handle>> {
        self.handles.remove(&handle)
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

    pub(crate) fn iter_after(&self, after: Option<SessionId>) -> impl Iterator<Item = (SessionId, &Session)> {
        let start = SessionId(after.map_or(0, |id| id.0 + 1));
        self.by_id.range(start..).map(|(id, session)| (*id, &**session))
    }

    pub(crate) fn handle(&self, holder: Holder) -> Option<&Handle> {
        self.get(holder.session)?.handle(holder.handle)
    }

    pub(crate) fn handle_mut(&mut self, holder: Holder) -> Option<&mut Handle> {
        self.get_mut(holder.session)?.handle_mut(holder.handle)
    }

    /// Adds a session under an id and a secret that no other has.
    pub(crate) fn insert(&mut self, id: SessionId, session: Session) {
        let same_secret = self.by_secret.insert(session.secret.clone(), id);
        let same_id = self.by_id.insert(id, Arc::new(session));
        assert!(same_secret.is_none() && same_id.is_none(), "session {id} is new");
    }

    pub(crate) fn remove(&mut self, id: SessionId) -> Option<Arc<Session>> {
        let session = self.by_id.remove(&id)?;
        self.by_secret.remove(&*session.secret);
        Some(session)
    }
}
