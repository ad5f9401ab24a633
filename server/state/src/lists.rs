//! Lists for operators: sessions and open handles, in pages.
//!
//! They change nothing and decide nothing; who may see them is asked before ([`State::may_administer`]).

use holdfast_proto::client::v1::{
    HandleInfo, ListHandlesRequest, ListHandlesResponse, LockMode, Refusal, SessionInfo,
};
use holdfast_types::{HandleId, NodePath, SessionId};

use crate::State;
use crate::locking::wire_mode;
use crate::session::{Handle, Session};

/// The most handles of a page.
const PAGE_HANDLES_MAX: usize = 1000;

impl State {
    /// What the state knows of a session, for people; `None` if there is no such session. How long its lease lasts and
    /// whether it is attached is the master's to add.
    #[must_use]
    pub fn session_info(&self, id: SessionId) -> Option<SessionInfo> {
        let session = self.sessions.get(id)?;
        let (mut locks_held, mut locks_waited_for) = (0, 0);
        for claim in session.handles().filter_map(|(_, handle)| handle.claim) {
            match claim.ticket {
                None => locks_held += 1,
                Some(_) => locks_waited_for += 1,
            }
        }
        Some(SessionInfo {
            session: id.0,
            client: session.client().to_owned(),
            principal: session.principal().as_str().to_owned(),
            lease_ms: session.lease_ms(),
            handles: session.handle_count() as u64,
            locks_held,
            locks_waited_for,
            ..SessionInfo::default()
        })
    }

    /// A page of the open handles, by session and id.
    ///
    /// # Errors
    ///
    /// A bad path. A session or a node that does not exist has no handles.
    pub fn list_handles(&self, request: &ListHandlesRequest) -> Result<ListHandlesResponse, Refusal> {
        let path = match request.path.as_str() {
            "" => None,
            text => Some(self.parse_path(text)?),
        };
        let handles_max = match request.limit {
            0 => PAGE_HANDLES_MAX,
            limit => PAGE_HANDLES_MAX.min(limit as usize),
        };
        let mut found = self.handles_after(request, path.as_ref()).peekable();
        let handles = found.by_ref().take(handles_max).collect();
        Ok(ListHandlesResponse { handles, more: found.peek().is_some(), revision: self.revision.0 })
    }

    /// The handles that a list asks for, from after the last of the page before.
    fn handles_after<'s>(
        &'s self,
        request: &ListHandlesRequest,
        path: Option<&'s NodePath>,
    ) -> impl Iterator<Item = HandleInfo> + 's {
        let after = (SessionId(request.after_session), HandleId(request.after_handle));
        let only = request.session;
        let first = SessionId(only.max(after.0.0));
        let sessions = self.sessions.iter_from(first).take_while(move |(id, _)| only == 0 || id.0 == only);
        sessions.flat_map(move |(id, session)| {
            let handles = session.handles().filter(move |(handle, _)| (id, *handle) > after);
            let handles =
                handles.filter(move |(_, handle)| path.is_none_or(|path| handle.key.path() == path));
            handles.map(move |(handle_id, handle)| self.handle_info(id, session, handle_id, handle))
        })
    }

    fn handle_info(
        &self,
        session_id: SessionId,
        session: &Session,
        id: HandleId,
        handle: &Handle,
    ) -> HandleInfo {
        let node = self.tree.live(&handle.key, handle.instance);
        let (mut holds, mut waits) = (LockMode::Unspecified, LockMode::Unspecified);
        if let (Some(node), Some(claim)) = (node, handle.claim) {
            match claim.ticket {
                None => holds = node.lock.mode().map_or(LockMode::Unspecified, wire_mode),
                Some(ticket) => {
                    waits = node
                        .lock
                        .waiter(ticket)
                        .map_or(LockMode::Unspecified, |waiter| wire_mode(waiter.mode));
                }
            }
        }
        HandleInfo {
            session: session_id.0,
            handle: id.0,
            client: session.client().to_owned(),
            path: handle.key.path().as_str().to_owned(),
            instance: handle.instance.0,
            gone: node.is_none(),
            uses: Some(handle.uses),
            events: handle.events.kinds().map(i32::from).collect(),
            caching: handle.caching,
            lock_delay_ms: handle.lock_delay_ms,
            holds: holds.into(),
            waits: waits.into(),
            sequencer: handle
                .sequencer
                .as_ref()
                .map_or_else(String::new, |sequencer| sequencer.text.to_string()),
        }
    }
}
