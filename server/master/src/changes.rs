//! From a change that is asked for to a command that is proposed (design.md §6).
//!
//! Nothing is proposed while an older copy can still be read from a cache. So a change is planned first: the nodes that
//! it touches are barred, whoever may cache them is told to stop, and the change is held until all have answered, by an
//! acknowledgement, by attaching anew, or by their end. Held changes do not wait for each other, but for what `held`
//! says of one session's. A change that nobody's cache is concerned by is proposed at once, and costs no more than the
//! question whether anybody caches anything. Nothing here reads or writes the log: `Output::Propose` does.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use holdfast_proto::client::v1::{Invalidation, Refusal, RefusalCode};
use holdfast_proto::log::v1::command::Kind;
use holdfast_state::{Opens, State, Touched, TouchedNodes};
use holdfast_types::{NodePath, Revision, SessionId, planted};
use prost::Message as _;

use crate::caches::Copies;
use crate::held::{Change, Held, HeldId};
use crate::interface::Output;
use crate::sessions::End;
use crate::unary::CallId;
use crate::work::Party;
use crate::{Master, refusal};

/// What planning a change finds.
enum Plan {
    /// What it touches: barred by now, and to be answered for by so many.
    Touches(TouchedNodes, usize),
    /// It names a handle whose opening is under way.
    AwaitsOpening,
    /// It will be refused.
    Nothing,
}

impl Master {
    /// Takes up a change: it is proposed as soon as it may be.
    pub(crate) fn plan(&mut self, state: &State, change: Change) {
        let is_behind = change.session().is_some_and(|session| self.held.has_any_of(session));
        if !is_behind && !change.can_touch() {
            self.propose_change(state, change, None);
            return;
        }
        if !is_behind && state.sessions_that_cache().next().is_none() {
            let can_void_opens = change.can_void_opens();
            let tag = self.propose_change(state, change, None);
            self.bars.proposed_unbarred(tag, can_void_opens);
            return;
        }
        let id = self.held.next_id();
        let waits = self.held.join(id, &change);
        let held = Held { change, touched: None, waits };
        let ready = if waits > 0 { self.hold(id, held) } else { self.advance(state, id, held) };
        self.release(state, ready);
    }

    /// Each of these changes has one thing less to wait for.
    pub(crate) fn release(&mut self, state: &State, ids: Vec<HeldId>) {
        // In the order in which they came, as far as they go on together.
        let mut ids: BinaryHeap<Reverse<HeldId>> = ids.into_iter().map(Reverse).collect();
        while let Some(Reverse(id)) = ids.pop() {
            if let Some(held) = self.held.happened(id) {
                ids.extend(self.advance(state, id, held).into_iter().map(Reverse));
            }
        }
    }

    /// Drops what is held for a session that is over. Nothing was promised of it.
    pub(crate) fn drop_held(&mut self, session: SessionId) {
        for held in self.held.drop_of(session) {
            if let Some(touched) = held.touched {
                self.bars.lower(&touched);
            }
        }
    }

    /// A change waits for nothing that is known yet: it is planned if it was not, and held or proposed. Gives the changes
    /// that wait for one thing less then.
    fn advance(&mut self, state: &State, id: HeldId, mut held: Held) -> Vec<HeldId> {
        if held.touched.is_none() && held.change.can_touch() {
            held.waits = match self.touch(state, id, &held.change) {
                Plan::Touches(touched, answers) => {
                    held.touched = Some(touched);
                    answers
                }
                Plan::AwaitsOpening => 1,
                Plan::Nothing => 0,
            };
            if held.waits > 0 {
                return self.hold(id, held);
            }
        }
        let session = held.change.session();
        self.propose_change(state, held.change, held.touched);
        self.held.leave(session, id)
    }

    /// Holds a change, if there is room. Gives the changes that wait for one thing less then.
    fn hold(&mut self, id: HeldId, held: Held) -> Vec<HeldId> {
        if let Err(no_room) = self.held.check_room(&held.change) {
            return self.refuse_held(id, held, no_room.refusal());
        }
        self.held.insert(self.now, id, held);
        Vec::new()
    }

    /// Refuses the calls that have been held for too long.
    pub(crate) fn refuse_overdue_calls(&mut self, state: &State) {
        while let Some((id, held)) = self.held.take_overdue(self.now) {
            let message = "clients have not dropped what they cache for so long that the call is not held any longer: \
                           nothing was changed; try again";
            let ready = self.refuse_held(id, held, refusal(RefusalCode::Overloaded, message));
            self.release(state, ready);
        }
    }

    /// A call's caller waits no longer. If the call waits for its turn, or is held, nothing has come of it and nothing will.
    pub(crate) fn withdraw(&mut self, state: &State, call: CallId) {
        if self.unqueue_call(call) {
            let message =
                "the call has waited for its turn for as long as the caller waits: nothing was done";
            return self.answer(call, Err(refusal(RefusalCode::Overloaded, message)));
        }
        if let Some((id, held)) = self.held.take_call(call) {
            let message = "clients have not dropped what they cache for as long as the caller waits: nothing was changed";
            let ready = self.refuse_held(id, held, refusal(RefusalCode::Overloaded, message));
            self.release(state, ready);
        }
    }

    /// A call is not held, or not any longer. Gives the changes that waited for it. What clients are asked to drop for it,
    /// they drop for nothing.
    fn refuse_held(&mut self, id: HeldId, held: Held, refusal: Refusal) -> Vec<HeldId> {
        if let Some(touched) = &held.touched {
            self.bars.lower(touched);
        }
        if let Some((call, _)) = held.change.call {
            self.answer(call, Err(refusal));
        }
        self.held.leave(held.change.session(), id)
    }

    /// Bars what the change touches, and has every copy of it dropped.
    fn touch(&mut self, state: &State, id: HeldId, change: &Change) -> Plan {
        let Some(kind) = &change.command.kind else { return Plan::Nothing };
        let bars = &self.bars;
        match state.touched(kind, &|path| bars.is_barred(path)) {
            Touched::Nodes(touched) => {
                self.bars.raise(&touched);
                let answers = self.void_copies(state, id, &touched);
                let answers = if planted!(CommitBeforeInvalidation) { 0 } else { answers };
                Plan::Touches(touched, answers)
            }
            // A change that names itself as its handle would wait for itself.
            Touched::Unknown(handle) if change.number() == handle.0 => Plan::Nothing,
            Touched::Unknown(handle) => {
                let entry = change.session().and_then(|session| self.sessions.get(session));
                match entry.filter(|entry| entry.in_flight.contains_key(&handle.0)) {
                    Some(entry) => {
                        entry.awaiting_open.entry(handle.0).or_default().push(id);
                        Plan::AwaitsOpening
                    }
                    None => Plan::Nothing,
                }
            }
        }
    }

    /// Asks everybody who may cache what a change makes stale to drop it. Gives how many have to answer.
    fn void_copies(&mut self, state: &State, id: HeldId, touched: &TouchedNodes) -> usize {
        let mut asked: Vec<(SessionId, Copies)> = Vec::new();
        match &touched.opens {
            Opens::None => {}
            Opens::Node(path) => {
                asked.extend(
                    state.caching_sessions(path).map(|session| (session, Copies::Opens(path.clone()))),
                );
            }
            Opens::List(list) => asked.extend(
                state.sessions_resting_on(list).into_iter().map(|session| (session, Copies::AllOpens)),
            ),
            Opens::All => {
                asked.extend(state.sessions_that_cache().map(|session| (session, Copies::AllOpens)))
            }
        }
        asked.sort_unstable();
        asked.dedup();
        // Of all that this one was told to have opened it was told that it proves nothing, too.
        asked.retain(|(session, _)| !self.proves_no_opens(*session));
        let opens = asked.len();
        for path in &touched.nodes {
            let caches = &self.caches;
            let unreturned = caches.has_unreturned().then(|| state.caching_sessions(path));
            let unreturned = unreturned.into_iter().flatten().filter(|id| caches.is_unreturned(*id));
            for session in caches.keepers(path).chain(unreturned) {
                // Who drops the opens of a node drops its data with them.
                let covered = (session, Copies::Opens(path.clone()));
                if asked[..opens].binary_search(&covered).is_err() {
                    asked.push((session, Copies::Data(path.clone())));
                }
            }
        }
        asked[opens..].sort_unstable();
        asked.dedup();
        asked.into_iter().filter(|(session, copies)| self.ask(*session, copies, id)).count()
    }

    /// Asks one session to drop something. False if there is nothing to wait for.
    fn ask(&mut self, session: SessionId, copies: &Copies, id: HeldId) -> bool {
        // Its lease was over, or it had agreed, when its end was proposed.
        if self.sessions.get(session).is_some_and(|entry| entry.end == End::Proposed) {
            return false;
        }
        if !self.caches.join(session, copies, id) {
            let notice = self.send_invalidation(session, copies);
            self.caches.ask(self.awake, session, copies.clone(), notice, id);
        }
        true
    }

    /// Sends an invalidation, if the session has a stream; gives its notice's number.
    fn send_invalidation(&mut self, session: SessionId, copies: &Copies) -> Option<u64> {
        let entry = self.sessions.get(session)?;
        let (path, opens) = match copies {
            Copies::Data(path) => (path.as_str().to_owned(), false),
            Copies::Opens(path) => (path.as_str().to_owned(), true),
            Copies::AllOpens => (String::new(), true),
        };
        let (bytes, notices, mut number) = (path.len() + 8, &mut entry.notices, None);
        let awake = self.awake;
        self.connections.say(entry.connection?, bytes, &mut self.outputs, |frame| {
            number = Some(notices.invalidate(awake, frame, Invalidation { path, opens }));
        });
        number
    }

    /// Has a planned change ordered; gives its tag.
    fn propose_change(&mut self, state: &State, change: Change, touched: Option<TouchedNodes>) -> u64 {
        let session = change.session();
        let Change { mut command, call, .. } = change;
        match &mut command.kind {
            Some(Kind::EndSession(end)) => {
                self.end_session(state, SessionId(end.session), end.reason());
                return self.last_tag;
            }
            Some(Kind::Request(request)) => {
                let entry = self.sessions.get(SessionId(request.session));
                request.acknowledged = entry.and_then(|entry| entry.acknowledged.take_untold());
            }
            _ => {}
        }
        self.last_tag += 1;
        command.tag = self.last_tag;
        let caller = call.as_ref().map(|(_, caller)| Party::Caller(caller.clone()));
        if let Some(party) = session.map(Party::Session).or(caller) {
            self.fill_room(&party, command.encoded_len() as u64);
        }
        if let Some((call, caller)) = call {
            self.calls.proposed(command.tag, call, caller);
        }
        if let Some(touched) = touched {
            self.bars.proposed(command.tag, touched);
        }
        if let Some(Kind::ReapNode(reap)) = &command.kind
            && let Ok(path) = NodePath::from_canonical(&reap.path)
        {
            self.unreaped.proposed(command.tag, (path, Revision(reap.instance)));
        }
        self.outputs.push_back(Output::Propose(command));
        self.last_tag
    }
}
