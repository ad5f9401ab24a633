//! How sessions end (design.md §4): by their lease, by their client, because they are idle, because an operator says so.
//!
//! The last two are not the client's wish: the master stops renewing the lease, says so, and waits until the client
//! agrees or the lease has run out. Invariant: from the moment at which a session's end is proposed it is granted nothing,
//! and it counts as caching nothing; before that its lease was over, or its client had agreed.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::{self as client, EndReason, RefusalCode};
use holdfast_proto::log::v1::{EndSession, command::Kind};
use holdfast_state::State;
use holdfast_types::{Duration, SessionId};

use crate::held::Change;
use crate::sessions::End;
use crate::unary::{CallAnswer, CallId};
use crate::work::Party;
use crate::{Master, lateness, limited, refusal};

/// A session without a handle that has asked for nothing for so long is idle, unless its client keeps it.
pub(crate) const IDLE_AFTER: Duration = Duration::from_secs(60);

/// So many calls wait for the ends of sessions.
const KILLS_MAX: usize = 1_024;

/// Calls that wait for the end of a session.
#[derive(Debug, Default)]
pub(crate) struct Kills {
    /// The calls, by session.
    calls: BTreeMap<SessionId, Vec<CallId>>,
    /// How many they are.
    count: usize,
}

impl Kills {
    /// Everybody who waits, by session.
    pub(crate) fn into_calls(self) -> impl Iterator<Item = (SessionId, CallId)> {
        self.calls.into_iter().flat_map(|(id, calls)| calls.into_iter().map(move |call| (id, call)))
    }
}

impl Master {
    /// The client wants the session to end, or agrees that it does. What it cached it has dropped. The master takes up one
    /// close of a session: a client may send very many behind a write of its own that is held.
    pub(crate) fn handle_close(&mut self, state: &State, session: SessionId) {
        let entry = self.sessions.entry(session);
        if std::mem::replace(&mut entry.closing, true) {
            return;
        }
        let reason = match entry.end {
            End::Asked(reason) => reason,
            End::Open | End::Proposed => EndReason::Closed,
        };
        let waited = self.caches.emptied(session).waited;
        self.release(state, waited);
        let end = EndSession { session: session.0, reason: reason.into() };
        self.plan(state, Change::of_master(Kind::EndSession(end)));
    }

    pub(crate) fn handle_lease_end(&mut self, state: &State, session: SessionId) {
        /// How long to wait for the round that a KeepAlive is waiting for.
        const HEARD_WAIT: Duration = Duration::from_millis(50);
        let (awake, overdue_after) = (self.awake, lateness::overdue_after(state));
        let entry = self.sessions.entry(session);
        // One that would not be granted holds nothing back, or a client could put off its end for ever.
        let may_be_extended = entry.end == End::Open && !entry.notices.is_overdue(awake, overdue_after);
        if entry.keep_alives > 0 && may_be_extended {
            self.leases.put_off(session, self.now + HEARD_WAIT);
            return;
        }
        let reason = match entry.end {
            End::Asked(reason) => reason,
            End::Open | End::Proposed => EndReason::Expired,
        };
        self.end_session(state, session, reason);
    }

    /// Proposes a session's end. From here on it is granted nothing (design.md §4).
    pub(crate) fn end_session(&mut self, state: &State, session: SessionId, reason: EndReason) {
        let entry = self.sessions.entry(session);
        if std::mem::replace(&mut entry.end, End::Proposed) == End::Proposed {
            return;
        }
        self.leases.remove(session);
        self.drop_held(session);
        self.propose(Kind::EndSession(EndSession { session: session.0, reason: reason.into() }));
        // After it, so that what waited for the session comes behind its end in the log.
        let waited = self.caches.emptied(session).waited;
        self.release(state, waited);
    }

    /// A session is over.
    pub(crate) fn handle_ended(&mut self, state: &State, session: SessionId, reason: EndReason) {
        self.leases.remove(session);
        self.drop_held(session);
        let waited = self.caches.emptied(session).waited;
        self.release(state, waited);
        for call in self.kills.calls.remove(&session).into_iter().flatten() {
            self.kills.count -= 1;
            self.answer(call, Ok(CallAnswer::KillSession(client::KillSessionResponse {})));
        }
        self.queue.drop_party(&Party::Session(session));
        let Some(entry) = self.sessions.remove(session) else { return };
        let Some(connection) = entry.connection else { return };
        let ended = client::SessionEnded { reason: reason.into() };
        self.connections.end(connection, &mut self.outputs, |frame| frame.ended = Some(ended));
    }

    /// A session was to end because it was idle, and was not any more: it goes on.
    pub(crate) fn handle_kept(&mut self, state: &State, session: SessionId) {
        let Some(lease_ms) = state.session(session).map(holdfast_state::Session::lease_ms) else { return };
        let entry = self.sessions.entry(session);
        (entry.end, entry.closing) = (End::Open, false);
        entry.requested = Some(self.now);
        self.leases.begin(self.now, session, Duration::from_millis(u64::from(lease_ms)));
    }

    /// An operator wants a session to end, or a test wants it to expire. A round has confirmed that this is the master.
    pub(crate) fn ask_to_end(&mut self, state: &State, call: CallId, session: SessionId, reason: EndReason) {
        if state.session(session).is_none() {
            let message = format!("there is no session {}: it has ended, or never was", session.0);
            return self.answer(call, Err(refusal(RefusalCode::UnknownSession, message)));
        }
        let entry = self.sessions.entry(session);
        if entry.end != End::Proposed {
            entry.end = End::Asked(reason);
            self.say_ending(session);
        }
        if self.kills.count >= KILLS_MAX {
            let message =
                format!("session {} is to end, and too many calls wait for ends: ask again", session.0);
            let (code, limit) = (RefusalCode::Overloaded, "kills_max");
            return self.answer(call, Err(limited(code, limit, KILLS_MAX, KILLS_MAX + 1, message)));
        }
        self.kills.count += 1;
        self.kills.calls.entry(session).or_default().push(call);
    }

    /// Whether the session has nothing open, waits for nothing, and has not asked for anything for a while; and its client
    /// has not said that it keeps it.
    pub(crate) fn is_idle(&mut self, state: &State, session: SessionId) -> bool {
        let handles = state.session(session).map_or(0, holdfast_state::Session::handle_count);
        let now = self.now;
        handles == 0
            && self.sessions.get(session).is_some_and(|entry| {
                let quiet = entry.requested.is_some_and(|at| now.since(at) >= IDLE_AFTER);
                quiet && entry.under_way() == 0 && !entry.keep_when_idle
            })
    }

    /// Says that the cell wants the session to end, if it does and there is somebody to say it to.
    pub(crate) fn say_ending(&mut self, session: SessionId) {
        let Some(entry) = self.sessions.get(session) else { return };
        if let (End::Asked(reason), Some(connection)) = (entry.end, entry.connection) {
            let ending = client::SessionEnding { reason: reason.into() };
            self.connections.say(connection, 8, &mut self.outputs, |frame| frame.ending = Some(ending));
        }
    }
}
