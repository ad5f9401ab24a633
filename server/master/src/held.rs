//! Changes that are not proposed yet, because something must happen first (design.md §6).
//!
//! The master holds a change while clients may cache copies that the change makes stale; while the opening of the handle
//! that the change names is not applied; and, if the change gives something back, while an earlier change of its session
//! is held: a delayed write must not land after its lock was passed on. What a change waits for, `changes` knows; this
//! file counts it, and keeps the order within a session. Changes that give back stand in one line a session, and only the
//! first of them is looked at; all others wait for their handle alone, so that an Acquire never stands behind a held
//! write (I10). Invariant: a held change waits for something, and whatever it waits for lists it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::log::v1::{Command, SessionRequest, command::Kind};
use holdfast_state::TouchedNodes;
use holdfast_types::{SessionId, Time, planted};

use crate::held_calls::{HeldCalls, NoRoom};
use crate::unary::{CallId, Caller};

/// A held change; in the order in which they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HeldId(pub(crate) u64);

/// A command that is about to be proposed.
#[derive(Debug)]
pub(crate) struct Change {
    /// The command, still without its tag.
    pub(crate) command: Command,
    /// Whom to answer, if it is a unary call.
    pub(crate) call: Option<(CallId, Caller)>,
    /// Whether it is a call that administers the cell, of somebody who may.
    pub(crate) administers: bool,
}

impl Change {
    /// A decision of the master's own.
    pub(crate) fn of_master(kind: Kind) -> Self {
        Self { command: Command { kind: Some(kind), ..Command::default() }, call: None, administers: false }
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

    /// The handle that later changes of the session may name only after this one; 0 if there is none: it opens that
    /// handle, or gives it back.
    fn blocks(&self) -> u64 {
        if self.gives_back() { self.handle() } else { self.opens() }
    }
}

/// A change that is held.
#[derive(Debug)]
pub(crate) struct Held {
    /// The change itself.
    pub(crate) change: Change,
    /// What it touches and has barred; `None` until that is known.
    pub(crate) touched: Option<TouchedNodes>,
    /// For so many things it waits.
    pub(crate) waits: usize,
}

/// The held changes of one session, in their order.
#[derive(Debug, Default)]
struct Line {
    /// All of them, each with the handle that it blocks, or 0. Each stays until it is proposed or refused.
    all: BTreeMap<HeldId, u64>,
    /// Those that give back and wait for everything before them, in their order.
    giving_back: VecDeque<HeldId>,
    /// The handles that any of them blocks.
    handles: BTreeMap<u64, Blocked>,
}

/// A handle that held changes open or give back.
#[derive(Debug, Default)]
struct Blocked {
    /// These changes.
    by: BTreeSet<HeldId>,
    /// The changes that name the handle and came after one of these.
    waiting: BTreeSet<HeldId>,
}

impl Line {
    /// Puts a change at the end. Gives for how many things in this line it waits: one, or none.
    fn join(&mut self, id: HeldId, change: &Change) -> usize {
        let waits = if change.gives_back() && !planted!(ReleaseOvertakes) {
            let waits = !self.all.is_empty();
            if waits {
                self.giving_back.push_back(id);
            }
            waits
        } else {
            let blocked = self.handles.get_mut(&change.handle());
            blocked.is_some_and(|blocked| blocked.waiting.insert(id))
        };
        let blocks = change.blocks();
        self.all.insert(id, blocks);
        if blocks != 0 {
            self.handles.entry(blocks).or_default().by.insert(id);
        }
        usize::from(waits)
    }

    /// A change is proposed, or refused. Gives those that waited for it, and for nothing else in this line.
    fn leave(&mut self, id: HeldId) -> Vec<HeldId> {
        let mut ready = Vec::new();
        let Some(blocks) = self.all.remove(&id) else { return ready };
        if let Some(blocked) = self.handles.get_mut(&blocks) {
            blocked.by.remove(&id);
            let first = blocked.by.first().copied();
            while let Some(next) =
                blocked.waiting.first().copied().filter(|id| first.is_none_or(|by| *id < by))
            {
                blocked.waiting.remove(&next);
                ready.push(next);
            }
            if first.is_none() {
                self.handles.remove(&blocks);
            }
        }
        if let Some(next) = self.giving_back.front()
            && self.all.first_key_value().is_some_and(|(first, _)| first == next)
        {
            ready.extend(self.giving_back.pop_front());
        }
        ready
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct HeldChanges {
    /// The last id given.
    last: u64,
    /// Those that wait.
    held: BTreeMap<HeldId, Held>,
    /// Those of unary calls.
    calls: HeldCalls,
    /// The same, by call.
    by_call: BTreeMap<CallId, HeldId>,
    /// Those of sessions, in their order.
    lines: BTreeMap<SessionId, Line>,
    /// How many changes were looked at so far.
    #[cfg(test)]
    steps: usize,
}

impl HeldChanges {
    /// An id for a change that may have to be held.
    pub(crate) fn next_id(&mut self) -> HeldId {
        self.last += 1;
        HeldId(self.last)
    }

    /// Whether the session has any.
    pub(crate) fn has_any_of(&self, session: SessionId) -> bool {
        !self.lines.is_empty() && self.lines.contains_key(&session)
    }

    /// Puts a change behind the earlier ones of its session. Gives for how many things among these it waits.
    pub(crate) fn join(&mut self, id: HeldId, change: &Change) -> usize {
        #[cfg(test)]
        {
            self.steps += 1;
        }
        let line = change.session().map(|session| self.lines.entry(session).or_default());
        line.map_or(0, |line| line.join(id, change))
    }

    /// A change of the session that had joined is proposed, or refused. Gives those that wait for one thing less now.
    pub(crate) fn leave(&mut self, session: Option<SessionId>, id: HeldId) -> Vec<HeldId> {
        let Some(session) = session else { return Vec::new() };
        let Some(line) = self.lines.get_mut(&session) else { return Vec::new() };
        let ready = line.leave(id);
        if line.all.is_empty() {
            self.lines.remove(&session);
        }
        #[cfg(test)]
        {
            self.steps += 1 + ready.len();
        }
        ready
    }

    /// Holds a change that has joined.
    pub(crate) fn insert(&mut self, now: Time, id: HeldId, held: Held) {
        if let Some((call, _)) = &held.change.call {
            self.calls.add(now, id, &held.change.command.principal, held.change.administers);
            self.by_call.insert(*call, id);
        }
        self.held.insert(id, held);
    }

    /// One of the things that a change waits for has happened. Gives the change if it was the last; it keeps its place
    /// until it leaves. Nothing if the change was dropped meanwhile.
    pub(crate) fn happened(&mut self, id: HeldId) -> Option<Held> {
        #[cfg(test)]
        {
            self.steps += 1;
        }
        let held = self.held.get_mut(&id)?;
        held.waits -= 1;
        if held.waits > 0 { None } else { self.take(id) }
    }

    /// Takes a change out, whatever it waits for; it keeps its place until it leaves.
    fn take(&mut self, id: HeldId) -> Option<Held> {
        let held = self.held.remove(&id)?;
        if let Some((call, _)) = &held.change.call {
            self.calls.remove(&held.change.command.principal, held.change.administers);
            self.by_call.remove(call);
        }
        Some(held)
    }

    /// Takes out a call, if it is held.
    pub(crate) fn take_call(&mut self, call: CallId) -> Option<(HeldId, Held)> {
        let id = *self.by_call.get(&call)?;
        self.take(id).map(|held| (id, held))
    }

    /// Takes out a call that has been held for too long.
    pub(crate) fn take_overdue(&mut self, now: Time) -> Option<(HeldId, Held)> {
        loop {
            let id = self.calls.pop_due(now)?;
            if let Some(held) = self.take(id) {
                return Some((id, held));
            }
        }
    }

    /// When the next call has been held for too long.
    pub(crate) fn next_overdue(&self) -> Option<Time> {
        self.calls.next_due()
    }

    /// Drops what is held for a session.
    pub(crate) fn drop_of(&mut self, session: SessionId) -> Vec<Held> {
        let line = self.lines.remove(&session).unwrap_or_default();
        line.all.into_keys().filter_map(|id| self.take(id)).collect()
    }

    /// Why a change cannot be held, if it cannot.
    pub(crate) fn check_room(&self, change: &Change) -> Result<(), NoRoom> {
        // The bytes of all are in the ledger, and a session's requests are counted there.
        if change.call.is_none() {
            return Ok(());
        }
        self.calls.check_room(&change.command.principal, change.administers)
    }

    /// The calls that are held.
    pub(crate) fn into_calls(self) -> impl Iterator<Item = CallId> {
        self.held.into_values().filter_map(|held| held.change.call.map(|(call, _)| call))
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

    fn close(number: u64, handle: u64) -> Change {
        request(number, Operation::Close(client::Close { handle }))
    }

    /// Holds a change that waits for one thing beside what its session has held.
    fn hold(held: &mut HeldChanges, change: Change) -> HeldId {
        let id = held.next_id();
        let waits = held.join(id, &change) + 1;
        held.insert(Time::ZERO, id, Held { change, touched: None, waits });
        id
    }

    /// Whether a change waits for one that is held before it.
    fn follows(later: &Change, earlier: Change) -> bool {
        let mut held = HeldChanges::default();
        hold(&mut held, earlier);
        let id = held.next_id();
        held.join(id, later) > 0
    }

    /// Has a change proposed, and all that can be proposed after it.
    fn propose(held: &mut HeldChanges, id: HeldId) -> Vec<HeldId> {
        let (mut ready, mut proposed) = (VecDeque::from([id]), Vec::new());
        while let Some(id) = ready.pop_front() {
            if let Some(Held { change, .. }) = held.happened(id) {
                ready.extend(held.leave(change.session(), id));
                proposed.push(id);
            }
        }
        proposed
    }

    #[test]
    fn a_release_follows_every_earlier_change_and_an_acquire_only_what_concerns_its_handle() {
        assert!(follows(&release(1), write(2)));
        assert!(!follows(&acquire(1), write(1)), "locks do not wait for writes");
        assert!(follows(&acquire(1), open(1)) && !follows(&acquire(2), open(1)));
        assert!(follows(&acquire(1), release(1)) && !follows(&acquire(2), release(1)));
        assert!(follows(&write(1), open(1)) && !follows(&write(1), write(1)));
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
        let last = held.next_id();
        let change = release(1);
        let waits = held.join(last, &change);
        held.insert(Time::ZERO, last, Held { change, touched: None, waits });
        assert_eq!(propose(&mut held, first), [first], "the second write is held");
        assert_eq!(propose(&mut held, second), [second, last]);
        assert!(!held.has_any_of(SessionId(7)));
        assert!(held.happened(last).is_none(), "it is gone");
    }

    #[test]
    fn a_change_keeps_its_place_while_it_is_planned() {
        let mut held = HeldChanges::default();
        let first = hold(&mut held, write(1));
        assert!(held.happened(first).is_some());
        let change = release(1);
        let last = held.next_id();
        assert_eq!(held.join(last, &change), 1, "the write is not proposed yet");
        assert_eq!(held.leave(Some(SessionId(7)), first), [last]);
    }

    #[test]
    fn thousands_of_closes_behind_one_held_write_take_a_few_steps_each() {
        const CLOSES: usize = 4_000;
        let mut held = HeldChanges::default();
        let first = hold(&mut held, write(1));
        for number in 0..CLOSES as u64 {
            // Half of them close the same handle again and again.
            let change = close(100 + number, 2 + number % 2 * number);
            let id = held.next_id();
            let waits = held.join(id, &change);
            held.insert(Time::ZERO, id, Held { change, touched: None, waits });
        }
        let proposed = propose(&mut held, first);
        assert_eq!(proposed.len(), 1 + CLOSES);
        assert!(proposed.is_sorted(), "in their order");
        assert!(held.steps <= 5 * (1 + CLOSES), "{} steps", held.steps);
        assert!(held.lines.is_empty() && held.held.is_empty());
    }

    /// By pseudo-random sequences of changes: none that gives back is proposed before an earlier one of its session, none
    /// that names a handle before what opens it or gives it back, and nothing is left over.
    #[test]
    fn what_gives_back_is_never_proposed_before_an_earlier_change_of_its_session() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut chance = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % below
        };
        for _ in 0..300 {
            let mut held = HeldChanges::default();
            let mut changes = BTreeMap::new();
            for number in 1..=40 {
                let handle = 1 + chance(6);
                let change = match chance(5) {
                    0 => open(number),
                    1 => write(handle),
                    2 => acquire(handle),
                    3 => release(handle),
                    _ => close(number, handle),
                };
                let (gives_back, names, blocks) = (change.gives_back(), change.handle(), change.blocks());
                let id = hold(&mut held, change);
                changes.insert(id, (gives_back, names, blocks));
            }
            let mut left: Vec<HeldId> = changes.keys().copied().collect();
            let mut waiting = changes.clone();
            while !left.is_empty() {
                let next = left.swap_remove(usize::try_from(chance(left.len() as u64)).unwrap());
                for id in propose(&mut held, next) {
                    let (gives_back, names, _) = waiting.remove(&id).expect("each is proposed once");
                    let mut earlier = waiting.range(..id);
                    assert!(!gives_back || earlier.next().is_none(), "{id:?} overtakes");
                    let mut earlier = waiting.range(..id);
                    assert!(
                        !earlier.any(|(_, (.., blocks))| names != 0 && *blocks == names),
                        "{id:?} overtakes"
                    );
                }
            }
            assert!(waiting.is_empty() && held.lines.is_empty() && held.held.is_empty());
        }
    }

    #[test]
    fn what_is_held_for_a_session_is_dropped_with_it() {
        let mut held = HeldChanges::default();
        let id = hold(&mut held, write(1));
        let call = Change {
            call: Some((CallId(3), Caller::Named(holdfast_types::Principal::anonymous()))),
            ..Change::of_master(Kind::Delete(client::DeleteRequest::default()))
        };
        hold(&mut held, call);
        assert_eq!(held.drop_of(SessionId(7)).len(), 1);
        assert!(held.happened(id).is_none());
        assert_eq!(held.into_calls().collect::<Vec<_>>(), [CallId(3)]);
    }
}
