//! What applied commands mean for the master: its effects become replies, events, leases and timers.

use holdfast_proto::client::v1 as client;
use holdfast_state::{Effect, State};
use holdfast_types::SessionId;

use crate::Master;

impl Master {
    pub(crate) fn handle_applied(&mut self, state: &State, effect: Effect) {
        match effect {
            Effect::Replied { session, number, outcome, .. } => self.handle_replied(session, number, outcome),
            Effect::Decided { tag, outcome } => self.handle_decided(state, tag, outcome),
            Effect::SessionOpened { tag, session, repeated } => {
                self.handle_opened(state, tag, session, repeated);
            }
            Effect::OpenRefused { tag, refusal } => self.handle_open_refused(tag, refusal),
            Effect::SessionEnded { session, reason } => self.handle_ended(session, reason),
            Effect::LockGranted { session, grant } => self.handle_lock_granted(session, grant),
            Effect::DelayStarted(delay) => self.delays.start(self.now, delay),
            // The timer proposed it, or will propose once more and be void.
            Effect::DelayEnded { .. } => {}
            Effect::SessionKept { .. } | Effect::Notify { .. } | Effect::Reaped { .. } => {}
            Effect::Orphaned { path, instance } => self.reap(&path, instance),
        }
    }

    fn handle_ended(&mut self, session: SessionId, reason: client::EndReason) {
        self.leases.remove(session);
        let Some(entry) = self.sessions.remove(session) else { return };
        let Some(connection) = entry.connection else { return };
        let ended = client::SessionEnded { reason: reason.into() };
        self.connections.end(connection, &mut self.outputs, |frame| frame.ended = Some(ended));
    }

    fn handle_lock_granted(&mut self, session: SessionId, grant: client::LockGrant) {
        let Some(connection) = self.sessions.connection(session) else { return };
        let event = client::Event { event: Some(client::event::Event::LockGranted(grant)) };
        self.connections.say(connection, 64, &mut self.outputs, |frame| frame.events.push(event));
    }
}
