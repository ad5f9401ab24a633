//! What applied commands mean for the master: its effects become replies, events, leases and timers.
//!
//! Effects come in the order in which they came about, when the whole batch is applied: the state may be ahead of the
//! effect that is being acted on, and never behind it. Nothing here decides anything.

use holdfast_proto::client::v1 as client;
use holdfast_state::{Effect, State};
use holdfast_types::SessionId;
use prost::Message as _;

use crate::Master;

impl Master {
    pub(crate) fn handle_applied(&mut self, state: &State, effect: Effect) {
        match effect {
            Effect::Replied { session, number, outcome, orphaned, tag } => {
                self.bars.applied(tag);
                self.handle_replied(state, session, number, outcome, orphaned);
            }
            Effect::Decided { tag, outcome } => {
                self.bars.applied(tag);
                self.handle_decided(state, tag, outcome);
            }
            Effect::Reaped { tag } => {
                self.bars.applied(tag);
                self.handle_reaped(tag);
            }
            Effect::SessionOpened { tag, session, repeated } => {
                self.handle_opened(state, tag, session, repeated);
            }
            Effect::OpenRefused { tag, refusal } => self.handle_open_refused(tag, refusal),
            Effect::SessionEnded { session, reason } => self.handle_ended(state, session, reason),
            Effect::SessionKept { session } => self.handle_kept(state, session),
            Effect::LockGranted { session, grant } => self.handle_lock_granted(session, grant),
            Effect::Notify { session, handles, event } => self.untold.push(session, handles, event),
            Effect::DelayStarted(delay) => self.delays.start(self.now, delay),
            // The timer proposed it, or will propose once more and be void.
            Effect::DelayEnded { .. } => {}
            Effect::Orphaned { path, instance } => self.reap(state, &path, instance),
        }
    }

    fn handle_lock_granted(&mut self, session: SessionId, grant: client::LockGrant) {
        let Some(connection) = self.sessions.connection(session) else { return };
        let event = client::Event { event: Some(client::event::Event::LockGranted(grant)) };
        self.connections.say(connection, 64, &mut self.outputs, |frame| frame.events.push(event));
    }

    /// Something happened to a node that the session watches. Nothing is kept for a session without a stream: what it
    /// has seen is compared when it comes back.
    pub(crate) fn push_event(&mut self, session: SessionId, event: client::HandleEvent) {
        let Some(entry) = self.sessions.get(session) else { return };
        if entry.connection.is_some() {
            entry.notices.push_event(event);
            if entry.notices.has_events_to_send() {
                self.eventful.insert(session);
            }
        }
    }

    /// Sends the events of a session that have come together.
    pub(crate) fn send_events(&mut self, session: SessionId) {
        let Some(entry) = self.sessions.get(session) else { return };
        let Some(connection) = entry.connection else { return };
        let Some(notice) = entry.notices.take_events(self.awake) else { return };
        let bytes = notice.encoded_len();
        self.connections.say(connection, bytes, &mut self.outputs, |frame| frame.notices.push(notice));
    }
}
