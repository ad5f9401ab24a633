//! KeepAlives past their session's stream, as the client library and the daemon do it: one that has had no answer for a
//! while goes once more by a call of its own, which may be lost, doubled and late, and overtake the stream.
//!
//! What waits for an answer is kept with the stream, at both of its ends. Nothing of it outlives the stream.

use holdfast_proto::client::v1::{ClientFrame, KeepAlive, LeaseGranted, ServerFrame};
use holdfast_replica::{Asked, PastStream};
use holdfast_session::{Input as SessionInput, StreamId};
use holdfast_types::ConnectionId;

use crate::coverage::Situation;
use crate::event::Event;
use crate::network::{Fate, Process};
use crate::world::World;

/// A KeepAlive whose call was answered without a grant is sent again past its stream after so long. As the library does
/// it, which spreads this a little.
const PATIENCE_NANOS: u64 = 500_000_000;
/// A call is given up after so long, and the KeepAlive sent again at once. So does the library.
const CALL_NANOS: u64 = 1_100_000_000;
/// The first time it is after one of these, so that there are more of them: any moment is allowed. Or never, as where
/// there is no spare connection.
const FIRST_PATIENCE_NANOS: [Option<u64>; 4] =
    [Some(2_000_000), Some(50_000_000), Some(PATIENCE_NANOS), None];

/// What is known of a stream's KeepAlives.
#[derive(Debug, Default)]
pub struct Spare {
    /// By the client: the one that has no answer.
    unanswered: Option<u64>,
    /// By the client: counts its calls, and the pauses between them. Only the last one's answer is waited for.
    call: u32,
    /// By the client: the last notice that it has acted on.
    notices_through: u64,
    /// By the replica: the daemon's own.
    past: PastStream,
    /// By the replica: the call that waits.
    asker: u32,
}

/// Where a KeepAlive past its stream is.
#[derive(Clone, Copy, Debug)]
pub enum Leg {
    /// The client has waited long enough: for the stream, or for the last call or after it.
    Due {
        /// The KeepAlive.
        number: u64,
        /// What it waited for.
        call: u32,
    },
    /// It arrives at the replica, with the last notice that the client has acted on.
    Arrives {
        /// The KeepAlive.
        number: u64,
        /// The client's call.
        call: u32,
        /// The notice.
        notices_through: u64,
    },
    /// Its answer arrives at the client.
    Answered {
        /// The answer.
        lease: LeaseGranted,
        /// To this call.
        call: u32,
    },
}

impl Leg {
    /// The replica reads it, and not the client.
    pub(crate) fn is_for_replica(self) -> bool {
        match self {
            Self::Arrives { .. } => true,
            Self::Due { .. } | Self::Answered { .. } => false,
        }
    }
}

impl World {
    /// A client sends a frame by its stream.
    pub(crate) fn spare_sent(&mut self, client: usize, name: StreamId, frame: &ClientFrame) {
        let Some(connection) = self.streams.find(self.client_life(client), name) else { return };
        let Some(stream) = self.streams.get_mut(connection) else { return };
        stream.spare.notices_through = stream.spare.notices_through.max(frame.notices_through);
        let Some(KeepAlive { number }) = frame.keep_alive else { return };
        stream.spare.unanswered = Some(number);
        stream.spare.call += 1;
        let call = stream.spare.call;
        let drawn = self.clients[client].rng.index(FIRST_PATIENCE_NANOS.len());
        if let Some(patience) = FIRST_PATIENCE_NANOS[drawn] {
            self.spare_due(connection, number, call, patience);
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
        if let Some(lease) = stream.spare.past.sent(frame) {
            let call = stream.spare.asker;
            self.answer_spare(connection, lease, call);
        }
    }

    pub(crate) fn spare(&mut self, connection: ConnectionId, leg: Leg) {
        match leg {
            Leg::Due { number, call } => self.send_spare(connection, number, call),
            Leg::Arrives { number, call, notices_through } => {
                self.spare_arrives(connection, number, call, notices_through);
            }
            Leg::Answered { lease, call } => self.spare_answered(connection, lease, call),
        }
    }

    fn spare_due(&mut self, connection: ConnectionId, number: u64, call: u32, nanos: u64) {
        self.queue.push(self.now.after_nanos(nanos), Event::Spare(connection, Leg::Due { number, call }));
    }

    fn send_spare(&mut self, connection: ConnectionId, number: u64, call: u32) {
        let Some(stream) = self.streams.get_mut(connection) else { return };
        let (client, replica) = (stream.client, stream.replica);
        if stream.spare.unanswered != Some(number) || stream.spare.call != call {
            return;
        }
        stream.spare.call += 1;
        let (call, notices_through) = (stream.spare.call, stream.spare.notices_through);
        if client == self.client_life(client.index) {
            let (from, to) = (Process::Client(client.index), Process::Replica(replica.index));
            self.post(from, to, connection, Leg::Arrives { number, call, notices_through });
            self.spare_due(connection, number, call, CALL_NANOS);
        }
    }

    fn spare_arrives(&mut self, connection: ConnectionId, number: u64, call: u32, notices_through: u64) {
        let Some(stream) = self.streams.get(connection) else { return };
        let (at, client) = (stream.replica, stream.client.index);
        if !self.lives(at) {
            return;
        }
        let Some(stream) = self.streams.get_mut(connection) else { return };
        let waits = stream.spare.past.is_asked();
        match stream.spare.past.ask(number) {
            Asked::Granted(lease) => self.answer_spare(connection, lease, call),
            Asked::Late | Asked::Unattached => self.refuse_spare(connection, number, call),
            Asked::New => {
                let before = std::mem::replace(&mut stream.spare.asker, call);
                if waits && before != call {
                    // Who asked before is told that he will not be answered.
                    self.refuse_spare(connection, number, before);
                }
                let keep_alive = Some(KeepAlive { number });
                let frame = ClientFrame { keep_alive, notices_through, ..ClientFrame::default() };
                self.sight_arrived(client, &frame);
                self.hand_in_frame(at.index, connection, client, frame);
            }
        }
    }

    /// The call ends with an error. For its client that is as good as an answer without a grant.
    fn refuse_spare(&mut self, connection: ConnectionId, number: u64, call: u32) {
        self.answer_spare(connection, LeaseGranted { number, lease_ms: 0 }, call);
    }

    fn answer_spare(&mut self, connection: ConnectionId, lease: LeaseGranted, call: u32) {
        let Some(stream) = self.streams.get(connection) else { return };
        let (from, to) = (Process::Replica(stream.replica.index), Process::Client(stream.client.index));
        self.post(from, to, connection, Leg::Answered { lease, call });
    }

    fn spare_answered(&mut self, connection: ConnectionId, lease: LeaseGranted, call: u32) {
        let Some(stream) = self.streams.get_mut(connection) else { return };
        let Some(number) = stream.spare.unanswered else { return };
        if stream.spare.call != call {
            return;
        }
        stream.spare.call += 1;
        if lease.lease_ms == 0 || lease.number != number {
            let call = stream.spare.call;
            return self.spare_due(connection, number, call, PATIENCE_NANOS);
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
            self.queue.push(self.leaving().after_nanos(nanos), Event::Spare(connection, leg));
        }
    }
}
