//! KeepAlives: when a lease is extended, and by how much (design.md §4).
//!
//! A KeepAlive waits for a leadership round, in `rounds`; this is what happens then. Invariant: a lease is not extended
//! while a notice is unacknowledged that was sent before the last extension. Otherwise a client whose KeepAlives get
//! through, and nothing else, would hold up writers for ever.

use holdfast_proto::client::v1::{EndReason, LeaseGranted, RefusalCode};
use holdfast_state::State;
use holdfast_types::{ConnectionId, Duration, SessionId, planted};
use prost::Message;

use crate::sessions::End;
use crate::{Master, load, refusal};

impl Master {
    /// A quorum has confirmed this master since the KeepAlive came: the lease is extended, unless there is a reason not
    /// to.
    pub(crate) fn answer_keep_alive(
        &mut self,
        state: &State,
        session: SessionId,
        connection: ConnectionId,
        number: u64,
    ) {
        let Some(entry) = self.sessions.get(session) else { return };
        entry.keep_alives = entry.keep_alives.saturating_sub(1);
        // Only the newest attachment is granted anything, and nothing once the end is proposed.
        let is_over = entry.end == End::Proposed && !planted!(LeaseAfterEnd);
        if entry.connection != Some(connection) || is_over {
            return;
        }
        let (end, is_overdue) = (entry.end, entry.notices.is_overdue() && !planted!(NeverAcknowledged));
        if planted!(LeaseAfterEnd) && end == End::Proposed {
            return self.extend_lease(state, session, connection, number);
        }
        if end == End::Open && self.is_idle(state, session) {
            self.sessions.entry(session).end = End::Asked(EndReason::Idle);
        } else if end == End::Open && !is_overdue {
            return self.extend_lease(state, session, connection, number);
        }
        self.refuse_lease(session, connection, number);
    }

    fn extend_lease(&mut self, state: &State, session: SessionId, connection: ConnectionId, number: u64) {
        let Some(own_ms) = state.session(session).map(holdfast_state::Session::lease_ms) else { return };
        let (attached, lease_ms_max) = (self.sessions.attached(), state.settings().lease_ms_max);
        let lease_ms = load::lease_ms(own_ms, attached, self.config.keep_alives_per_s, lease_ms_max);
        let extended = self.leases.extend(self.now, session, Duration::from_millis(u64::from(lease_ms)));
        if extended || planted!(LeaseAfterEnd) {
            self.sessions.entry(session).notices.lease_granted();
            let lease = LeaseGranted { number, lease_ms };
            self.connections.say(connection, 16, &mut self.outputs, |frame| frame.lease = Some(lease));
        }
    }

    /// Answers without extending, and says what stands in the way.
    fn refuse_lease(&mut self, session: SessionId, connection: ConnectionId, number: u64) {
        if self.connections.is_overfull(connection) {
            let message = "more was repeated at once than can wait for the client: send fewer KeepAlives";
            return self.refuse_stream(connection, refusal(RefusalCode::Overloaded, message));
        }
        let notices = self.sessions.entry(session).notices.repeat();
        let bytes = 16 + notices.iter().map(Message::encoded_len).sum::<usize>();
        self.connections.say(connection, bytes, &mut self.outputs, |frame| {
            // One that was granted just now, to an earlier KeepAlive of the same round, is not taken back.
            frame.lease.get_or_insert(LeaseGranted { number, lease_ms: 0 });
            frame.notices = notices;
        });
        self.say_ending(session);
    }
}
