//! Requests of a session: each takes effect once (I6), and what came of it is kept until the client has it.
//!
//! Locks and opens have files of their own. Invariant: of a number that was admitted, the outcome is recorded in the same
//! command.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    AclNames, AclSet, Close, Closed, Delete, Deleted, EventKind, GenerationKind, LockMode, Outcome, Refusal,
    SetAcl, SetContents, Written, outcome,
};
use holdfast_proto::log::v1::SessionRequest;
use holdfast_types::{HandleId, Mode, Principal, RequestNumber, SessionId, planted};

use crate::acl::{self, Permission};
use crate::exactly_once::{OUTCOMES_BYTES_LAST, OUTCOMES_BYTES_MAX, Recorded};
use crate::lock::Holder;
use crate::locking::lock_conflict;
use crate::node::Kind;
use crate::tree::NodeKey;
use crate::{Effect, State, refusal, usage};

impl State {
    /// Decides a request, or finds what was decided.
    pub(crate) fn apply_request(&mut self, tag: u64, command: &SessionRequest, effects: &mut Vec<Effect>) {
        let session = SessionId(command.session);
        let request = command.request.as_ref();
        let number = RequestNumber(request.map_or(0, |request| request.number));
        let ranges_max = self.settings.requests_in_flight_max;
        let known = match self.sessions.get_mut(session) {
            None => Some(self.refused(refusal::unknown_session(session))),
            Some(entry) => {
                let acknowledged = command.acknowledged.as_ref();
                match acknowledged.map_or(Ok(()), |news| entry.window.acknowledge(news, ranges_max)) {
                    Err(refusal) => Some(self.refused(refusal)),
                    Ok(()) => self.known_outcome(
                        session,
                        number,
                        request.and_then(|request| request.operation.as_ref()),
                    ),
                }
            }
        };
        let before = effects.len();
        let outcome = known.unwrap_or_else(|| {
            let operation = request.and_then(|request| request.operation.as_ref());
            let result = self.decide(session, number, operation, effects);
            let refused = |refusal| outcome::Result::Refusal(self.to_record(refusal));
            let outcome = self.outcome(result.unwrap_or_else(refused));
            let session = self.sessions.get_mut(session).expect("a request does not end its session");
            session.window.record(number, outcome.clone());
            outcome
        });
        let orphaned = effects[before..].iter().find_map(|effect| match effect {
            Effect::Orphaned { path, instance } => Some((path.clone(), *instance)),
            _ => None,
        });
        effects.push(Effect::Replied { session, number, outcome, orphaned, tag });
    }

    /// What a request is answered that is not to be decided now: because it was, or because it cannot be recorded.
    fn known_outcome(
        &self,
        session: SessionId,
        number: RequestNumber,
        operation: Option<&Operation>,
    ) -> Option<Outcome> {
        let window = &self.sessions.get(session)?.window;
        if number.0 == 0 {
            return Some(self.refused(refusal::protocol("a request has the number 0: numbers begin with 1")));
        }
        match window.recorded(number) {
            Recorded::Outcome(Outcome { result: Some(outcome::Result::Written(_)), .. })
                if planted!(RetryDecidedAgain) => {}
            Recorded::Outcome(outcome) => return Some(outcome.clone()),
            Recorded::Acknowledged => return Some(self.refused(refusal::acknowledged(number))),
            Recorded::New => {}
        }
        let (kept, max) = (window.len() as u64, u64::from(self.settings.requests_in_flight_max));
        if kept >= max {
            let what = "requests whose outcomes are not acknowledged";
            return Some(self.refused(refusal::limit(what, kept + 1, "requests_in_flight_max", max)));
        }
        let bytes_max = match operation {
            Some(Operation::Release(_) | Operation::Close(_) | Operation::Cancel(_)) => OUTCOMES_BYTES_LAST,
            Some(_) | None => OUTCOMES_BYTES_MAX,
        };
        (self.version >= 2 && window.bytes() >= bytes_max)
            .then(|| self.refused(refusal::outcomes_full(window.bytes(), bytes_max)))
    }

    /// An outcome as of now. Refusals are recorded, and those of version 1 have no facts.
    pub(crate) fn outcome(&self, mut result: outcome::Result) -> Outcome {
        if let outcome::Result::Refusal(refusal) = &mut result
            && self.version < 2
        {
            refusal.facts = None;
        }
        Outcome { revision: self.revision.0, result: Some(result) }
    }

    pub(crate) fn refused(&self, refusal: Refusal) -> Outcome {
        self.outcome(outcome::Result::Refusal(self.to_record(refusal)))
    }

    fn decide(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        operation: Option<&Operation>,
        effects: &mut Vec<Effect>,
    ) -> Result<outcome::Result, Refusal> {
        match operation {
            Some(Operation::Acquire(acquire)) => self.acquire(session, number, *acquire, effects),
            Some(Operation::Release(release)) => self.release(session, *release, effects),
            Some(Operation::Cancel(cancel)) => self.cancel(session, number, *cancel, effects),
            Some(Operation::Open(open)) => self.open(session, number, open, effects),
            Some(Operation::Close(Close { handle })) => {
                self.close_handle(Holder { session, handle: HandleId(*handle) }, effects);
                Ok(outcome::Result::Closed(Closed {}))
            }
            Some(Operation::SetContents(write)) => self.set_contents(session, write, effects),
            Some(Operation::Delete(Delete { handle })) => self.delete(session, HandleId(*handle), effects),
            Some(Operation::SetAcl(set)) => self.set_acl(session, set, effects),
            Some(Operation::SetSequencer(set)) => self.set_sequencer(session, set),
            Some(
                Operation::GetContents(_)
                | Operation::GetStat(_)
                | Operation::ReadDir(_)
                | Operation::GetSequencer(_)
                | Operation::CheckSequencer(_),
            ) => Err(refusal::protocol(format!("request {number} only reads: reads are not replicated"))),
            None => Err(refusal::protocol(format!("request {number} has no operation that this cell knows"))),
        }
    }

    fn set_contents(
        &mut self,
        session: SessionId,
        write: &SetContents,
        effects: &mut Vec<Effect>,
    ) -> Result<outcome::Result, Refusal> {
        let holder = Holder { session, handle: HandleId(write.handle) };
        let key = self.usable_handle(holder, Permission::Write)?.key.clone();
        let principal = self.principal_of(session);
        self.check_list_lock_out(&principal, key.path(), &write.contents, false)?;
        let (contents, wanted) = (&write.contents, write.if_generation);
        self.write(&principal, &key, contents, wanted, effects).map(outcome::Result::Written)
    }

    fn delete(
        &mut self,
        session: SessionId,
        handle: HandleId,
        effects: &mut Vec<Effect>,
    ) -> Result<outcome::Result, Refusal> {
        let holder = Holder { session, handle };
        let key = self.usable_handle(holder, Permission::Write)?.key.clone();
        self.check_list_lock_out(&self.principal_of(session), key.path(), &[], false)?;
        self.check_deletion(&key, effects)?;
        self.remove_node(&key, effects);
        Ok(outcome::Result::Deleted(Deleted {}))
    }

    fn set_acl(
        &mut self,
        session: SessionId,
        set: &SetAcl,
        effects: &mut Vec<Effect>,
    ) -> Result<outcome::Result, Refusal> {
        let holder = Holder { session, handle: HandleId(set.handle) };
        let key = self.usable_handle(holder, Permission::ChangeAcl)?.key.clone();
        let names = set.acl.clone().unwrap_or_default();
        let principal = self.principal_of(session);
        self.check_names_lock_out(&principal, key.path(), &names, false)?;
        self.change_acl(&principal, &key, &names, set.if_generation, effects).map(outcome::Result::AclSet)
    }

    /// Who asks by a session that is there.
    pub(crate) fn principal_of(&self, session: SessionId) -> Principal {
        self.sessions.get(session).expect("the request's session is there").principal().clone()
    }

    /// Writes a file that exists.
    pub(crate) fn write(
        &mut self,
        principal: &Principal,
        key: &NodeKey,
        contents: &[u8],
        if_generation: Option<u64>,
        effects: &mut Vec<Effect>,
    ) -> Result<Written, Refusal> {
        self.check_size(contents.len())?;
        self.check_list(key.path(), contents)?;
        self.check_list_characters(key.path(), contents)?;
        let revision = self.revision.next();
        let node = self.tree.get(key.path()).expect("the caller found the node");
        if node.kind != Kind::File {
            return Err(refusal::wrong_kind(key.path(), node.kind.name(), Kind::File.name()));
        }
        let is = node.content_generation;
        if let Some(wanted) = if_generation.filter(|wanted| *wanted != is.0) {
            return Err(refusal::generation_mismatch(key.path(), GenerationKind::Content, wanted, is));
        }
        let before = usage::node_bytes(key, node);
        let after = before - node.contents.len() as u64 + contents.len() as u64;
        self.check_room_for_bytes(principal, before, after)?;
        let node = self.tree.get_mut(key).expect("the node was just found");
        node.write(revision, contents);
        node.list = acl::parsed(key.path(), contents);
        self.usage.resize_node(node.owner.as_ref(), before, after);
        let watched = !node.watchers.is_empty();
        let parent_watched = self.tree.touch_parent(key, revision);
        self.revision = revision;
        if watched {
            let node = self.tree.entry(&key.place()).expect("the caller found the node").1;
            self.tell(key.path(), node, EventKind::ContentsModified, None, effects);
        }
        if parent_watched {
            self.tell_parent(key, EventKind::ChildModified, effects);
        }
        Ok(Written { content_generation: revision.0, created: false })
    }

    /// Changes the access control names of a node that exists.
    pub(crate) fn change_acl(
        &mut self,
        principal: &Principal,
        key: &NodeKey,
        names: &AclNames,
        if_generation: Option<u64>,
        effects: &mut Vec<Effect>,
    ) -> Result<AclSet, Refusal> {
        self.check_acl_names(names)?;
        let revision = self.revision.next();
        let node = self.tree.get(key.path()).expect("the caller found the node");
        let is = node.acl_generation;
        if let Some(wanted) = if_generation.filter(|wanted| *wanted != is.0) {
            return Err(refusal::generation_mismatch(key.path(), GenerationKind::Acl, wanted, is));
        }
        let changed = acl::changed(&node.acl, names);
        let before = usage::node_bytes(key, node);
        let after = before - usage::acl_bytes(&node.acl) + usage::acl_bytes(&changed);
        self.check_room_for_bytes(principal, before, after)?;
        let node = self.tree.get_mut(key).expect("the node was just found");
        node.acl = changed;
        self.usage.resize_node(node.owner.as_ref(), before, after);
        node.acl_generation = revision;
        self.revision = revision;
        let node = self.tree.get(key.path()).expect("the caller found the node");
        self.tell(key.path(), node, EventKind::AclChanged, None, effects);
        Ok(AclSet { acl_generation: revision.0 })
    }

    /// Whether a node may be deleted. A held or delayed lock keeps it, or a node made anew under the same name
    /// could be locked by somebody else at once (I1, I4). A holder that only keeps it in case is told that somebody
    /// wants it out of the way.
    pub(crate) fn check_deletion(&self, key: &NodeKey, effects: &mut Vec<Effect>) -> Result<(), Refusal> {
        let path = key.path();
        let node = self.tree.get(path).expect("the caller found the node");
        if path.is_root() {
            return Err(refusal::is_root());
        }
        if path.as_str() == acl::DIRECTORY {
            return Err(refusal::is_directory_of_lists());
        }
        if node.children > 0 {
            return Err(refusal::not_empty(path, node.children));
        }
        if !node.lock.is_at_rest() {
            self.tell_holders(path, node, node.lock.holder_set(), effects);
            let conflict = lock_conflict(&node.lock, LockMode::Unspecified);
            return Err(refusal::locked(path, node.lock.obstacle(Mode::Exclusive), conflict));
        }
        Ok(())
    }

    /// Removes a node that may go. Its directory may become an orphan by it.
    pub(crate) fn remove_node(&mut self, key: &NodeKey, effects: &mut Vec<Effect>) {
        let revision = self.advance();
        let removed = self.tree.remove(key, revision);
        self.usage.remove_node(key, &removed.node);
        self.tell(key.path(), &removed.node, EventKind::HandleInvalid, None, effects);
        if removed.parent_watched {
            self.tell_parent(key, EventKind::ChildRemoved, effects);
        }
        if let Some((path, instance)) = removed.orphan {
            effects.push(Effect::Orphaned { path, instance });
        }
    }

    /// Whether a file may have so many bytes.
    pub(crate) fn check_size(&self, bytes: usize) -> Result<(), Refusal> {
        let max = self.settings.contents_bytes_max;
        if bytes as u64 > max {
            return Err(refusal::limit("bytes of contents", bytes as u64, "contents_bytes_max", max));
        }
        Ok(())
    }
}
