//! Changes that are not proposed yet, because something must happen first (design.md §6).
//!
//! A change is held while copies that it makes stale may be cached; while it names a handle whose opening is not applied;
//! and, if it gives something back, while an earlier change of its session is held: a delayed write must not land after
//! its lock was passed on. This file counts what each waits for; what that is, `changes` knows. Invariant: a held change
//! waits for something, and whatever it waits for lists it.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::log::v1::{Command, SessionRequest, command::Kind};
use holdfast_state::TouchedNodes;
use holdfast_types::{SessionId, planted};
use prost::Message as _;

use crate::interface::CallId;

/// So many bytes of changes are held for sessions and callers. What would have to be held beyond that is refused; what
/// need not be held is not concerned.
const BYTES_MAX: usize = 256 << 20;

/// A held change; in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeldId(pub(crate) u64);

/// A command that is about to be proposed.
#[derive(Debug)]
pub(crate) struct Change {
    /// The command, still without its tag.
    pub(crate) command: Command,
    /// Whom to answer, if it is a unary call.
    pub(crate) call: Option<CallId>,
}

impl Change {
    /// A decision of the master's own.
    pub(crate) fn of_master(kind: Kind) -> Self {
        Self { command: Command { kind: Some(kind), ..Command::default() }, call: None }
    }

    /// About how large it is.
    fn bytes(&self) -> usize {
        size_of::<Self>() + self.command.encoded_len()
    }

    /// Whether whoever asks for it can ask again: it gives nothing back, and is no decision of the master's own.
    pub(crate) fn can_be_refused(&self) -> bool {
        self.call.is_some() || self.number() > 0 && !self.gives_back()
    }

    /// The session that asks for it, if one does.
    pub(crate) fn session(&self) -> Option<SessionId> {
        match self.command.kind.as_ref()? {
            Kind::Request(request) => Some(SessionId(request.session)),
            Kind::EndSession(end) => Some(SessionId(end.session)),
            _ => None,
        }
    }

    /// Whether it can make anybody's cached copy stale. Lock operations cannot.
    pub(crate) fn can_touch(&self) -> bool {
        match &self.command.kind {
            Some(Kind::Request(SessionRequest { request: Some(request), .. })) => match &request.operation {
                Some(Operation::Open(open)) => open.creation != 0,
                Some(Operation::SetContents(_) | Operation::Delete(_) | Operation::SetAcl(_)) => true,
                _ => false,
            },
            Some(Kind::SetContents(_) | Kind::Delete(_) | Kind::SetAcl(_) | Kind::ReapNode(_)) => true,
            Some(Kind::ChangeSettings(settings)) => !settings.bootstrap_principal.is_empty(),
            _ => false,
        }
    }

    /// Whether a change that can touch something can also void opens. What does not tell is taken to.
    pub(crate) fn can_void_opens(&self) -> bool {
        // Of writes and creations only those of access control lists can.
        let is_of_list = |path: &str| path.contains("acl");
        match (&self.command.kind, self.operation()) {
            (_, Some(Operation::Open(open))) => open.directory != 0 || is_of_list(&open.path),
            (Some(Kind::SetContents(write)), _) => is_of_list(&write.path),
            _ => true,
        }
    }

    /// Whether it waits for all of its session's earlier changes: what the session had is somebody else's after it.
    fn gives_back(&self) -> bool {
        matches!(self.operation(), Some(Operation::Release(_) | Operation::Close(_) | Operation::Cancel(_)))
            || matches!(self.command.kind, Some(Kind::EndSession(_)))
    }

    /// The handle that a session's request names; 0 if none.
    pub(crate) fn handle(&self) -> u64 {
        match self.operation() {
            Some(Operation::Open(open)) => open.directory,
            Some(Operation::Close(close)) => close.handle,
            Some(Operation::SetContents(write)) => write.handle,
            Some(Operation::Delete(delete)) => delete.handle,
            Some(Operation::Acquire(acquire)) => acquire.handle,
            Some(Operation::Release(release)) => release.handle,
            Some(Operation::Cancel(cancel)) => cancel.handle,
            Some(Operation::SetAcl(change)) => change.handle,
            Some(Operation::SetSequencer(set)) => set.handle,
            _ => 0,
        }
    }

    /// The handle that it opens; 0 if none.
    fn opens(&self) -> u64 {
        if matches!(self.operation(), Some(Operation::Open(_))) { self.number() } else { 0 }
    }

    /// The number of the request; 0 if it is none.
    pub(crate) fn number(&self) -> u64 {
        match &self.command.kind {
            Some(Kind::Request(SessionRequest { request: Some(request), .. })) => request.number,
            _ => 0,
        }
    }

    fn operation(&self) -> Option<&Operation> {
        match self.command.kind.as_ref()? {
            Kind::Request(request) => request.request.as_ref()?.operation.as_ref(),
            _ => None,
        }
    }

    /// Whether it must be proposed after `earlier`, of the same session.
    fn follows(&self, earlier: &Self) -> bool {
        let handle = self.handle();
        let needs = handle != 0 && (earlier.opens() == handle || earlier.gives_back_handle(handle));
        needs || self.gives_back() && !planted!(ReleaseOvertakes)
    }

    fn gives_back_handle(&self, handle: u64) -> bool {
        self.gives_back() && self.handle() == handle
    }
}

/// A change that is held.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) change: Change,
    /// What it touches and has barred; `None` until that is known.
    pub(crate) touched: Option<TouchedNodes>,
    /// For so many things it waits.
    pub(crate) waits: usize,
    /// Later changes of its session that wait for it to be proposed.
    pub(crate) followers: Vec<HeldId>,
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct HeldChanges {
    /// The last id given.
    last: u64,
    held: BTreeMap<HeldId, Held>,
    /// How large they are in all.
    bytes: usize,
    /// Those of sessions.
    by_session: BTreeMap<SessionId, BTreeSet<HeldId>>,
}

impl HeldChanges {
    /// An id for a change that may have to be held.
    pub(crate) fn next_id(&mut self) -> HeldId {
        self.last += 1;
        HeldId(self.last)
    }

    /// Whether the session has any.
    pub(crate) fn has_any_of(&self, session: SessionId) -> bool {
        !self.by_session.is_empty() && self.by_session.contains_key(&session)
    }

    /// Makes `id` a follower of each held change of its session that must be proposed first; gives how many.
    pub(crate) fn follow(&mut self, id: HeldId, change: &Change) -> usize {
        let Some(session) = change.session() else { return 0 };
        let mut count = 0;
        for earlier in self.by_session.get(&session).into_iter().flatten() {
            let earlier = self.held.get_mut(earlier).expect("what is listed is held");
            if change.follows(&earlier.change) {
                earlier.followers.push(id);
                count += 1;
            }
        }
        count
    }

    /// Holds a change.
    pub(crate) fn insert(&mut self, id: HeldId, held: Held) {
        if let Some(session) = held.change.session() {
            self.by_session.entry(session).or_default().insert(id);
        }
        self.bytes += held.change.bytes();
        self.held.insert(id, held);
    }

    /// One of the things that a change waits for has happened. Gives the change if it was the last. Nothing if the
    /// change was dropped meanwhile.
    pub(crate) fn happened(&mut self, id: HeldId) -> Option<Held> {
        let held = self.held.get_mut(&id)?;
        held.waits -= 1;
        if held.waits > 0 {
            return None;
        }
        let held = self.held.remove(&id)?;
        self.bytes -= held.change.bytes();
        if let Some(session) = held.change.session() {
            self.unlist(session, id);
        }
        Some(held)
    }

    /// Drops what is held for a session.
    pub(crate) fn drop_of(&mut self, session: SessionId) -> Vec<Held> {
        let ids = self.by_session.remove(&session).into_iter().flatten();
        let dropped: Vec<Held> = ids.filter_map(|id| self.held.remove(&id)).collect();
        self.bytes -= dropped.iter().map(|held| held.change.bytes()).sum::<usize>();
        dropped
    }

    /// Whether there is no room for another of a session or a caller.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes >= BYTES_MAX
    }

    /// The calls that are held.
    pub(crate) fn into_calls(self) -> impl Iterator<Item = CallId> {
        self.held.into_values().filter_map(|held| held.change.call)
    }

    fn unlist(&mut self, session: SessionId, id: HeldId) {
        if let Some(ids) = self.by_session.get_mut(&session) {
            ids.remove(&id);
            if ids.is_empty() {
                self.by_session.remove(&session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::client::v1 as client;

    use super::*;

    fn request(number: u64, operation: Operation) -> Change {
        let request = Some(client::Request { number, operation: Some(operation) });
        Change::of_master(Kind::Request(SessionRequest { session: 7, request, acknowledged: None }))
    }

    fn open(number: u64) -> Change {
        request(number, Operation::Open(Box::default()))
    }

    fn write(handle: u64) -> Change {
        request(90, Operation::SetContents(client::SetContents { handle, ..client::SetContents::default() }))
    }

    fn acquire(handle: u64) -> Change {
        request(91, Operation::Acquire(client::Acquire { handle, ..client::Acquire::default() }))
    }

    fn release(handle: u64) -> Change {
        request(92, Operation::Release(client::Release { handle }))
    }

    fn hold(held: &mut HeldChanges, change: Change) -> HeldId {
        let id = held.next_id();
        let waits = held.follow(id, &change) + 1;
        held.insert(id, Held { change, touched: None, waits, followers: Vec::new() });
        id
    }

    #[test]
    fn a_release_follows_every_earlier_change_and_an_acquire_only_what_concerns_its_handle() {
        assert!(release(1).follows(&write(2)));
        assert!(!acquire(1).follows(&write(1)), "locks do not wait for writes");
        assert!(acquire(1).follows(&open(1)) && !acquire(2).follows(&open(1)));
        assert!(acquire(1).follows(&release(1)) && !acquire(2).follows(&release(1)));
        assert!(write(1).follows(&open(1)) && !write(1).follows(&write(1)));
    }

    #[test]
    fn what_does_not_tell_whether_it_voids_opens_is_taken_to() {
        let by_path = |path: &str| {
            let open = client::Open { path: path.to_owned(), ..client::Open::default() };
            request(1, Operation::Open(Box::new(open))).can_void_opens()
        };
        assert!(by_path("/ls/dev/acl/ops") && !by_path("/a"));
        assert!(write(1).can_void_opens(), "its handle may be on anything");
    }

    #[test]
    fn a_change_comes_out_when_the_last_thing_that_it_waits_for_has_happened() {
        let mut held = HeldChanges::default();
        let (first, second) = (hold(&mut held, write(1)), hold(&mut held, write(2)));
        let last = hold(&mut held, release(1));
        let first = held.happened(first).expect("it waited for one thing");
        assert_eq!(first.followers, [last]);
        assert!(held.happened(last).is_none());
        assert!(held.happened(last).is_none(), "the second write is held");
        let second = held.happened(second).unwrap();
        assert_eq!(second.followers, [last]);
        assert!(held.happened(last).is_some());
        assert!(!held.has_any_of(SessionId(7)));
        assert!(held.happened(last).is_none(), "it is gone");
    }

    #[test]
    fn what_is_held_for_a_session_is_dropped_with_it() {
        let mut held = HeldChanges::default();
        let id = hold(&mut held, write(1));
        let call = Change {
            call: Some(CallId(3)),
            ..Change::of_master(Kind::Delete(client::DeleteRequest::default()))
        };
        hold(&mut held, call);
        assert_eq!(held.drop_of(SessionId(7)).len(), 1);
        assert!(held.happened(id).is_none());
        assert_eq!(held.into_calls().collect::<Vec<_>>(), [CallId(3)]);
    }
}
