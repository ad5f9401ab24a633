//! Requests of a session: each takes effect once (I6), and what came of it is kept until the client has it.
//!
//! Locks have a file of their own. Invariant: of a number that was admitted, the outcome is recorded in the same
//! command.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    Close, Closed, Creation, Delete, Deleted, NodeKind, Open, Opened, Outcome, Refusal, Request, SetContents,
    Written, outcome,
};
use holdfast_proto::log::v1::SessionRequest;
use holdfast_types::{HandleId, Mode, NodePath, RequestNumber, SessionId};

use crate::exactly_once::Recorded;
use crate::lock::Holder;
use crate::locking::Departure;
use crate::node::{Kind, Node};
use crate::session::Handle;
use crate::tree::NodeKey;
use crate::{Effect, State, refusal};

/// The longest lock-delay (P§2.4: up to a minute).
pub(crate) const LOCK_DELAY_MS_MAX: u32 = 60_000;

impl State {
    /// Decides a request, or finds what was decided.
    pub(crate) fn apply_request(&mut self, tag: u64, command: SessionRequest, effects: &mut Vec<Effect>) {
        let session = SessionId(command.session);
        let acknowledged = command.acknowledged.unwrap_or_default();
        let Request { number, operation } = command.request.unwrap_or_default();
        let number = RequestNumber(number);
        let ranges_max = self.settings.requests_in_flight_max;
        let known = match self.sessions.get_mut(session) {
            None => Some(self.refused(refusal::unknown_session(session))),
            Some(entry) => match entry.window.acknowledge(&acknowledged, ranges_max) {
                Err(refusal) => Some(self.refused(refusal)),
                Ok(()) => self.known_outcome(session, number),
            },
        };
        let outcome = known.unwrap_or_else(|| {
            let result = self.decide(session, number, operation, effects);
            let outcome = self.outcome(result.unwrap_or_else(outcome::Result::Refusal));
            let session = self.sessions.get_mut(session).expect("a request does not end its session");
            session.window.record(number, outcome.clone());
            outcome
        });
        effects.push(Effect::Replied { session, number, outcome, tag });
    }

    /// What a request is answered that is not to be decided now: because it was, or because it cannot be recorded.
    fn known_outcome(&self, session: SessionId, number: RequestNumber) -> Option<Outcome> {
        let window = &self.sessions.get(session)?.window;
        if number.0 == 0 {
            return Some(self.refused(refusal::protocol("a request has the number 0: numbers begin with 1")));
        }
        match window.recorded(number) {
            Recorded::Outcome(outcome) => return Some(outcome.clone()),
            Recorded::Acknowledged => return Some(self.refused(refusal::acknowledged(number))),
            Recorded::New => {}
        }
        let (kept, max) = (window.len() as u64, u64::from(self.settings.requests_in_flight_max));
        (kept >= max).then(|| {
            let what = "requests whose outcomes are not acknowledged";
            self.refused(refusal::limit(what, kept + 1, "requests_in_flight_max", max))
        })
    }

    /// An outcome as of now.
    pub(crate) fn outcome(&self, result: outcome::Result) -> Outcome {
        Outcome { revision: self.revision.0, result: Some(result) }
    }

    pub(crate) fn refused(&self, refusal: Refusal) -> Outcome {
        self.outcome(outcome::Result::Refusal(refusal))
    }

    fn decide(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        operation: Option<Operation>,
        effects: &mut Vec<Effect>,
    ) -> Result<outcome::Result, Refusal> {
        match operation {
            Some(Operation::Acquire(acquire)) => self.acquire(session, number, acquire),
            Some(Operation::Release(release)) => self.release(session, release, effects),
            Some(Operation::Cancel(cancel)) => self.cancel(session, number, cancel, effects),
            Some(Operation::Open(open)) => self.open(session, number, &open),
            Some(Operation::Close(Close { handle })) => {
                self.close_handle(Holder { session, handle: HandleId(handle) }, effects);
                Ok(outcome::Result::Closed(Closed {}))
            }
            Some(Operation::SetContents(write)) => self.set_contents(session, &write),
            Some(Operation::Delete(Delete { handle })) => self.delete(session, HandleId(handle), effects),
            Some(Operation::GetContents(_) | Operation::GetStat(_) | Operation::ReadDir(_)) => {
                Err(refusal::protocol(format!("request {number} only reads: reads are not replicated")))
            }
            None => Err(refusal::protocol(format!("request {number} has no operation that this cell knows"))),
        }
    }

    /// Opens a handle, and creates the node if it may.
    fn open(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        open: &Open,
    ) -> Result<outcome::Result, Refusal> {
        let (creation, kind) = check_open(open)?;
        let path = self.parse_path(&open.path)?;
        let handles = self.sessions.get(session).map_or(0, |session| session.handle_count()) as u64;
        let handles_max = self.settings.handles_per_session_max;
        if handles >= handles_max {
            return Err(refusal::limit("open handles", handles + 1, "handles_per_session_max", handles_max));
        }
        let existing = self.tree.get(&path).map(|node| node.kind);
        match (existing, creation, kind) {
            (Some(_), Creation::Must, _) => return Err(refusal::already_exists(&path)),
            (Some(is), _, Some(kind)) if is != kind => {
                return Err(refusal::wrong_kind(&path, is.name(), kind.name()));
            }
            (None, Creation::Unspecified, _) => return Err(self.missing(&path)),
            (None, ..) => self.check_creation(&path, open.contents.len())?,
            (Some(_), ..) => {}
        }
        let revision = self.advance();
        let key = NodeKey::new(path);
        if existing.is_none() {
            let node = match kind {
                Some(Kind::Directory) => Node::directory(revision, open.ephemeral),
                _ => Node::file(revision, open.ephemeral, &open.contents),
            };
            self.tree.insert(key.clone(), node);
        }
        let node = self.tree.get_mut(&key).expect("the node exists by now");
        node.open_handles += 1;
        let instance = node.instance;
        // It has a handle again: no orphan any more, if it was one.
        self.tree.reindex(&key);
        let stat = self.tree.get(key.path()).map(|node| self.stat(node));
        let handle = Handle { key, instance, lock_delay_ms: open.lock_delay_ms, claim: None };
        let session = self.sessions.get_mut(session).expect("the request's session is there");
        assert!(session.insert_handle(HandleId(number.0), handle), "a request opens one handle");
        Ok(outcome::Result::Opened(Opened { created: existing.is_none(), stat }))
    }

    /// Closes a handle, if it is open: what it held is released.
    pub(crate) fn close_handle(&mut self, holder: Holder, effects: &mut Vec<Effect>) {
        let session = self.sessions.get_mut(holder.session).expect("the request's session is there");
        let Some(handle) = session.remove_handle(holder.handle) else { return };
        self.advance();
        if self.leave_node(holder, &handle, Departure::Released) {
            self.settle(&handle.key, effects);
        }
    }

    fn set_contents(&mut self, session: SessionId, write: &SetContents) -> Result<outcome::Result, Refusal> {
        let handle = self.live_handle(session, HandleId(write.handle))?;
        let key = handle.key.clone();
        self.write(&key, &write.contents, write.if_generation).map(outcome::Result::Written)
    }

    fn delete(
        &mut self,
        session: SessionId,
        handle: HandleId,
        effects: &mut Vec<Effect>,
    ) -> Result<outcome::Result, Refusal> {
        let key = self.live_handle(session, handle)?.key.clone();
        self.check_deletion(&key)?;
        self.remove_node(&key, effects);
        Ok(outcome::Result::Deleted(Deleted {}))
    }

    /// A handle whose node is still there.
    pub(crate) fn live_handle(&self, session: SessionId, id: HandleId) -> Result<&Handle, Refusal> {
        let holder = Holder { session, handle: id };
        let handle = self.sessions.handle(holder).ok_or_else(|| refusal::unknown_handle(id))?;
        match self.tree.live(&handle.key, handle.instance) {
            Some(_) => Ok(handle),
            None => Err(refusal::node_gone(id, handle.key.path())),
        }
    }

    /// Writes a file that exists.
    pub(crate) fn write(
        &mut self,
        key: &NodeKey,
        contents: &[u8],
        if_generation: Option<u64>,
    ) -> Result<Written, Refusal> {
        self.check_size(contents.len())?;
        let revision = self.revision.next();
        let node = self.tree.get_mut(key).expect("the caller found the node");
        if node.kind != Kind::File {
            return Err(refusal::wrong_kind(key.path(), node.kind.name(), Kind::File.name()));
        }
        let is = node.content_generation;
        if let Some(wanted) = if_generation.filter(|wanted| *wanted != is.0) {
            return Err(refusal::generation_mismatch(key.path(), "content generation", wanted, is));
        }
        node.write(revision, contents);
        self.tree.touch_parent(key, revision);
        self.revision = revision;
        Ok(Written { content_generation: revision.0, created: false })
    }

    /// Whether a node may be created where there is none.
    pub(crate) fn check_creation(&self, path: &NodePath, contents_bytes: usize) -> Result<(), Refusal> {
        self.check_parent(path)?;
        self.check_size(contents_bytes)?;
        let (count, max) = (self.tree.len() as u64, self.settings.nodes_max);
        if count >= max {
            return Err(refusal::limit("nodes", count + 1, "nodes_max", max));
        }
        Ok(())
    }

    /// Whether a node may be deleted. A held or delayed lock keeps it, or a node made anew under the same name
    /// could be locked by somebody else at once (I1, I4).
    pub(crate) fn check_deletion(&self, key: &NodeKey) -> Result<(), Refusal> {
        let path = key.path();
        let node = self.tree.get(path).expect("the caller found the node");
        if path.is_root() {
            return Err(refusal::is_root());
        }
        if node.children > 0 {
            return Err(refusal::not_empty(path, node.children));
        }
        if !node.lock.is_at_rest() {
            return Err(refusal::locked(path, node.lock.obstacle(Mode::Exclusive)));
        }
        Ok(())
    }

    /// Removes a node that may go. Its directory may become an orphan by it.
    pub(crate) fn remove_node(&mut self, key: &NodeKey, effects: &mut Vec<Effect>) {
        let revision = self.advance();
        if let Some((path, instance)) = self.tree.remove(key, revision) {
            effects.push(Effect::Orphaned { path, instance });
        }
    }

    /// Why there is no such node: no directory that it could be in, or just no node.
    pub(crate) fn missing(&self, path: &NodePath) -> Refusal {
        self.check_parent(path).err().unwrap_or_else(|| refusal::not_found(path))
    }

    fn check_parent(&self, path: &NodePath) -> Result<(), Refusal> {
        let Some(parent) = path.parent() else { return Ok(()) };
        match self.tree.get(&parent).map(|node| node.kind) {
            Some(Kind::Directory) => Ok(()),
            Some(Kind::File) => Err(refusal::no_parent(path, &parent, true)),
            None => Err(refusal::no_parent(path, &parent, false)),
        }
    }

    fn check_size(&self, bytes: usize) -> Result<(), Refusal> {
        let max = self.settings.contents_bytes_max;
        if bytes as u64 > max {
            return Err(refusal::limit("bytes of contents", bytes as u64, "contents_bytes_max", max));
        }
        Ok(())
    }
}

/// Checks what needs no look at the state.
fn check_open(open: &Open) -> Result<(Creation, Option<Kind>), Refusal> {
    let creation = Creation::try_from(open.creation)
        .map_err(|_| refusal::invalid(format!("creation {} is not one of 0, 1 and 2", open.creation)))?;
    let kind = wished_kind(open.kind)?;
    let delay_ms = open.lock_delay_ms;
    if delay_ms > LOCK_DELAY_MS_MAX {
        return Err(refusal::invalid(format!(
            "a lock-delay has 0 to {LOCK_DELAY_MS_MAX} ms, not {delay_ms}"
        )));
    }
    if kind == Some(Kind::Directory) && !open.contents.is_empty() {
        return Err(refusal::invalid("a directory has no contents: create a file, or leave them out"));
    }
    Ok((creation, kind))
}

/// What kind of node a client asks for, if it says so.
pub(crate) fn wished_kind(kind: i32) -> Result<Option<Kind>, Refusal> {
    match NodeKind::try_from(kind) {
        Ok(NodeKind::Unspecified) => Ok(None),
        Ok(NodeKind::File) => Ok(Some(Kind::File)),
        Ok(NodeKind::Directory) => Ok(Some(Kind::Directory)),
        Err(_) => Err(refusal::invalid(format!("node kind {kind} is not one of 0, 1 and 2"))),
    }
}
