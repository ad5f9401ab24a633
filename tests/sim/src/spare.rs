//! KeepAlives past their session's stream, as the client library and the daemon do it: one that has had no answer for a
//! while goes once more by a call of its own, which may be lost, doubled and late, and overtake the stream.
//!
//! What waits for an answer is kept with the stream, at both of its ends. Nothing of it outlives the stream.

use holdfast_proto::client::v1::{ClientFrame, KeepAlive, LeaseGranted, ServerFrame};
use holdfast_replica::{Asked, Input as ReplicaInput, PastStream};
use holdfast_session::{Input as SessionInput, StreamId};
use holdfast_types::ConnectionId;

use crate::client::principal;
use crate::coverage::Situation;
use crate::event::Event;
use crate::network::{Fate, Process};
use crate::world::World;

/// A KeepAlive without an answer is sent again past its stream after so long. So does the library.
const PATIENCE_NANOS: u64 = 500_000_000;
/// The first time it is after one of these, so that there are more of them: any moment is allowed. Or never, as where
/// there is no spare connection.
const FIRST_PATIENCE_NANOS: [Option<u64>; 4] =
    [Some(2_000_000), Some(50_000_000), Some(PATIENCE_NANOS), None];

/// What is known of a stream's KeepAlives.
#[derive(Debug, Default)]
pub struct Spare {
    /// By the client: the one that has no answer.
    unanswered: Option<u64>,
    /// By the client: the last notice that it has acted on.
    notices_through: u64,
    /// By the replica: the daemon's own.
    past: PastStream,
}

/// Where a KeepAlive past its stream is.
#[derive(Clone, Copy, Debug)]
pub enum Leg {
    /// The client has waited long enough.
    Due(u64),
    /// It arrives at the replica, with the last notice that the client has acted on.
    Arrives(u64, u64),
    /// Its answer arrives at the client.
    Answered(LeaseGranted),
}

impl World {
    /// A client sends a frame by its stream.
    pub(crate) fn spare_sent(&mut self, client: usize, name: StreamId, frame: &ClientFrame) {
        let Some(connection) = self.streams.find(self.client_life(client), name) else { return };
        let Some(stream) = self.streams.get_mut(connection) else { return };
        stream.spare.notices_through = stream.spare.notices_through.max(frame.notices_through);
        let Some(KeepAlive { number }) = frame.keep_alive else { return };
        stream.spare.unanswered = Some(number);
        let drawn = self.clients[client].rng.index(FIRST_PATIENCE_NANOS.len());
        if let Some(patience) = FIRST_PATIENCE_NANOS[drawn] {
            self.queue.push(self.now.after_nanos(patience), Event::Spare(connection, Leg::Due(number)));
        }
    }

    /// A frame reaches a client by its stream.
    pub(crate) fn spare_heard(&mut self, connection: ConnectionId, frame: &ServerFrame) {
        let Some(stream) = self.streams.get_mut(connection) else { return };
        if frame.lease.as_ref().is_some_and(|lease| stream.spare.unanswered == Some(lease.number)) {
            stream.spare.unanswered = None;
        }
    }

    /// A replica sends a frame by a stream: its answer to a KeepAlive goes to whoever waits for it elsewhere too.
    pub(crate) fn spare_granted(&mut self, connection: ConnectionId, frame: &ServerFrame) {
        let Some(stream) = self.streams.get_mut(connection) else { return };
        if let Some(lease) = frame.lease.and_then(|lease| stream.spare.past.answered(lease)) {
            self.answer_spare(connection, lease);
        }
    }

    pub(crate) fn spare(&mut self, connection: ConnectionId, leg: Leg) {
        match leg {
            Leg::Due(number) => self.send_spare(connection, number),
            Leg::Arrives(number, notices_through) => self.spare_arrives(connection, number, notices_through),
            Leg::Answered(lease) => self.spare_answered(connection, lease),
        }
    }

    fn send_spare(&mut self, connection: ConnectionId, number: u64) {
        let Some(stream) = self.streams.get(connection) else { return };
        let (client, replica, through) = (stream.client, stream.replica, stream.spare.notices_through);
        if stream.spare.unanswered == Some(number) && client == self.client_life(client.index) {
            let (from, to) = (Process::Client(client.index), Process::Replica(replica.index));
            self.post(from, to, connection, Leg::Arrives(number, through));
            // Again, if that is lost or the lease not extended.
            let again = self.now.after_nanos(PATIENCE_NANOS);
            self.queue.push(again, Event::Spare(connection, Leg::Due(number)));
        }
    }

    fn spare_arrives(&mut self, connection: ConnectionId, number: u64, notices_through: u64) {
        let Some(stream) = self.streams.get(connection) else { return };
        let (at, client) = (stream.replica, stream.client.index);
        if !self.lives(at) {
            return;
        }
        let Some(stream) = self.streams.get_mut(connection) else { return };
        match stream.spare.past.ask(number) {
            Asked::Granted(lease) => self.answer_spare(connection, lease),
            Asked::Late => {}
            Asked::New => {
                let keep_alive = Some(KeepAlive { number });
                let frame = ClientFrame { keep_alive, notices_through, ..ClientFrame::default() };
                self.sight_arrived(client, &frame);
                let principal = principal(client);
                self.hand_in(at.index, ReplicaInput::Frame { connection, principal, frame });
            }
        }
    }

    fn answer_spare(&mut self, connection: ConnectionId, lease: LeaseGranted) {
        let Some(stream) = self.streams.get(connection) else { return };
        let (from, to) = (Process::Replica(stream.replica.index), Process::Client(stream.client.index));
        self.post(from, to, connection, Leg::Answered(lease));
    }

    fn spare_answered(&mut self, connection: ConnectionId, lease: LeaseGranted) {
        let Some(stream) = self.streams.get_mut(connection) else { return };
        if stream.spare.unanswered != Some(lease.number) || lease.lease_ms == 0 {
            return;
        }
        stream.spare.unanswered = None;
        let (client, stream) = (stream.client, stream.name);
        if client == self.client_life(client.index) {
            self.sights.reach(Situation::ExtendedPastStream);
            let frame = ServerFrame { lease: Some(lease), ..ServerFrame::default() };
            self.hand_to_client(client.index, SessionInput::Frame { stream, frame });
        }
    }

    /// Sends something that is on no stream.
    fn post(&mut self, from: Process, to: Process, connection: ConnectionId, leg: Leg) {
        let copies = match self.network.fate(from, to) {
            Fate::Lost => [None, None],
            Fate::Once(nanos) => [Some(nanos), None],
            Fate::Twice(one, other) => [Some(one), Some(other)],
        };
        for nanos in copies.into_iter().flatten() {
            self.queue.push(self.now.after_nanos(nanos), Event::Spare(connection, leg));
        }
    }
}
