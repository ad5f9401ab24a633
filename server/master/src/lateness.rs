//! Clients that drop what they cache too late, and those whose leases are too long for it (ADR 0014).
//!
//! A change waits for the clients that cache what it touches, so a client must answer soon, or be one whose lease is soon
//! over. The master therefore lets a session cache only if its lease is short enough, and one whose client has answered
//! late not for a while: that client is made to attach anew, which empties its cache, and is told of nothing that it may
//! keep. Soft state: a new master begins without. Invariant (I5): what is forgiven or refused here only decides what
//! clients are told from now on; a copy that one may have is waited for as ever.

use holdfast_proto::client::v1::RefusalCode;
use holdfast_state::{State, settings};
use holdfast_types::{Duration, SessionId};

use crate::caches::Answered;
use crate::sessions::Late;
use crate::{Master, refusal};

/// A client that has answered late is told of nothing that it may cache for so long.
const UNCACHED_AFTER_LATE: Duration = Duration::from_secs(60);

/// After how long a notice that is not acknowledged is overdue.
pub(crate) fn overdue_after(state: &State) -> Duration {
    Duration::from_millis(u64::from(settings::notice_overdue_ms(state.settings())))
}

impl Master {
    /// A session has dropped what it was asked to drop: what waited for that goes on. Tells whether it was late.
    pub(crate) fn handle_answered(&mut self, state: &State, session: SessionId, answered: Answered) -> bool {
        let overdue_after = overdue_after(state);
        let is_late = answered.asked_at.is_some_and(|at| self.awake.since(at) >= overdue_after);
        if is_late {
            let until = self.awake + UNCACHED_AFTER_LATE;
            self.sessions.entry(session).late = Some(Late { until, emptied: false });
        }
        self.release(state, answered.waited);
        is_late
    }

    /// Whatever else the client of a late session caches could be held on to as long: it has to empty its cache.
    pub(crate) fn ask_to_attach_anew(&mut self, session: SessionId) {
        if let Some(connection) = self.sessions.connection(session) {
            let message = "the client was told to drop what it caches, and was late to do so: attach anew";
            self.refuse_stream(connection, refusal(RefusalCode::Overloaded, message));
        }
    }

    /// Whether the session may be told that it may keep anything.
    pub(crate) fn may_cache(&mut self, state: &State, session: SessionId) -> bool {
        let bound_ms = settings::caching_lease_ms_max(state.settings());
        let is_short = state.session(session).is_some_and(|session| session.lease_ms() <= bound_ms);
        let bound = Duration::from_millis(u64::from(bound_ms));
        if !is_short || self.leases.is_granted_beyond(self.now, session, bound) {
            return false;
        }
        let awake = self.awake;
        let Some(entry) = self.sessions.get(session) else { return true };
        entry.late.take_if(|late| late.until <= awake);
        entry.late.is_none()
    }

    /// Whether the session has no open that proves anything: it has emptied its cache, and with each open since it was
    /// told that this one proves nothing.
    pub(crate) fn proves_no_opens(&mut self, session: SessionId) -> bool {
        self.sessions.get(session).and_then(|entry| entry.late).is_some_and(|late| late.emptied)
    }
}
