//! KeepAlives: when a lease is extended, and by how much (design.md §4).
//!
//! A KeepAlive waits for a leadership round, in `rounds`; this is what happens then. Invariants: a lease is not extended
//! while a notice is unacknowledged that was sent before the last extension, or a while ago (`lateness`). Otherwise a client whose KeepAlives get
//! through, and nothing else, would hold up writers for ever. And a KeepAlive, which may come by its stream and past it,
//! extends a lease once: whatever comes later of it changes nothing.

use holdfast_proto::client::v1::{EndReason, LeaseGranted, RefusalCode};
use holdfast_state::{State, settings};
use holdfast_types::{ConnectionId, Duration, SessionId, planted};
use prost::Message;

use crate::sessions::End;
use crate::{Master, lateness, load, refusal};

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
        if self.answer_late(session, connection, number) {
            return;
        }
        let (awake, overdue_after) = (self.awake, lateness::overdue_after(state));
        let entry = self.sessions.entry(session);
        let is_overdue = entry.notices.is_overdue(awake, overdue_after) && !planted!(NeverAcknowledged);
        let end = entry.end;
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

    /// Answers a KeepAlive that has been granted on this stream, or is older than one that was: that it extends nothing.
    /// A notice that was sent since is no more overdue for it. Tells whether it is such a one. Its client has had the
    /// grant before this, or in the same frame; and one whose numbers do not rise believes in nothing that it has not.
    pub(crate) fn answer_late(&mut self, session: SessionId, connection: ConnectionId, number: u64) -> bool {
        let entry = self.sessions.get(session).filter(|entry| entry.end != End::Proposed);
        let granted = entry.and_then(|entry| entry.keep_alive.granted);
        if granted.is_none_or(|granted| granted < number) {
            return false;
        }
        let late = LeaseGranted { number, lease_ms: 0 };
        self.connections.say(connection, 16, &mut self.outputs, |frame| {
            frame.lease.get_or_insert(late);
        });
        true
    }

    fn extend_lease(&mut self, state: &State, session: SessionId, connection: ConnectionId, number: u64) {
        let Some(replicated) = state.session(session) else { return };
        let (own_ms, caches) = (replicated.lease_ms(), replicated.caches());
        let (attached, lease_ms_max) = (self.sessions.attached(), state.settings().lease_ms_max);
        // A client that caches holds up writers for as long as its lease.
        let bound_ms = if caches { settings::caching_lease_ms_max(state.settings()) } else { u32::MAX };
        let lease_ms_max = lease_ms_max.min(bound_ms);
        let lease_ms = load::lease_ms(own_ms, attached, self.config.keep_alives_per_s, lease_ms_max);
        let extended = self.leases.extend(self.now, session, Duration::from_millis(u64::from(lease_ms)));
        if extended || planted!(LeaseAfterEnd) {
            let lease = LeaseGranted { number, lease_ms };
            let entry = self.sessions.entry(session);
            entry.notices.lease_granted();
            entry.keep_alive.granted = Some(number);
            self.connections.say(connection, 16, &mut self.outputs, |frame| frame.lease = Some(lease));
        }
    }

    /// Answers without extending, and says what stands in the way.
    fn refuse_lease(&mut self, session: SessionId, connection: ConnectionId, number: u64) {
        if self.connections.is_overfull(connection) {
            let message = "more was repeated at once than can wait for the client: send fewer KeepAlives";
            return self.refuse_stream(connection, refusal(RefusalCode::Overloaded, message));
        }
        let entry = self.sessions.entry(session);
        // Once for each KeepAlive: one that comes past a stream that is stuck comes again and again, and all that would
        // be added to what the stream is stuck with.
        let is_new = entry.keep_alive.refused.replace(number) != Some(number);
        let notices = if is_new { entry.notices.repeat() } else { Vec::new() };
        let bytes = 16 + notices.iter().map(Message::encoded_len).sum::<usize>();
        self.connections.say(connection, bytes, &mut self.outputs, |frame| {
            // One that was granted just now, to an earlier KeepAlive of the same round, is not taken back.
            frame.lease.get_or_insert(LeaseGranted { number, lease_ms: 0 });
            if is_new {
                frame.notices = notices;
            }
        });
        self.say_ending(session);
    }
}
