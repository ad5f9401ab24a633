//! What applied commands mean for the master: its effects become replies, events, leases and timers.
//!
//! Effects come in the order in which they came about, when the whole batch is applied: the state may be ahead of the
//! effect that is being acted on, and never behind it. Nothing here decides anything.

use holdfast_proto::client::v1 as client;
use holdfast_state::{Effect, EventSet, State};
use holdfast_types::SessionId;
use prost::Message as _;

use crate::Master;
use crate::untold::COST_NOTED;
use crate::work::Party;

impl Master {
    pub(crate) fn handle_applied(&mut self, state: &State, effect: Effect) {
        match effect {
            Effect::Replied { session, number, outcome, orphaned, tag } => {
                self.bars.applied(tag);
                self.charge_for_telling(tag, || Party::Session(session));
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
            Effect::SessionEnded { session, reason, .. } => self.handle_ended(state, session, reason),
            Effect::SessionKept { session } => self.handle_kept(state, session),
            Effect::LockGranted { session, grant } => self.handle_lock_granted(session, grant),
            Effect::Notify { tag, news } => {
                let handles = news.listeners.len(EventSet::of_all(&news.event.kinds)) as u64;
                let before = if self.telling.0 == tag { self.telling.1 } else { 0 };
                self.telling = (tag, before + COST_NOTED * handles);
                self.untold.push(*news);
            }
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

    /// Whoever asked for a change that many have to be told of pays for that: its next requests are worked off when others
    /// have had as much. How many they are is known when the change is applied.
    pub(crate) fn charge_for_telling(&mut self, tag: u64, party: impl FnOnce() -> Party) {
        if let (of, cost @ 1..) = std::mem::take(&mut self.telling)
            && of == tag
        {
            self.queue.charge_later(&party(), cost);
        }
    }

    /// Something happened to a node that the session watches. Nothing is kept for a session without a stream: what it
    /// has seen is compared when it comes back.
    pub(crate) fn push_event(&mut self, session: SessionId, event: client::HandleEvent) {
        let Some(entry) = self.sessions.get(session) else { return };
        if entry.connection.is_some() {
            entry.notices.push_event(event.handle, &event);
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
