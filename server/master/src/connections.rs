//! Streams of clients, and the frames that are on their way out to each.
//!
//! Everything that is said to one client in one turn leaves in one frame. A frame that has grown large leaves at
//! once, so that no frame exceeds what a client accepts by more than one answer.

use std::collections::{BTreeMap, VecDeque};

use holdfast_proto::client::v1 as client;
use holdfast_types::ledger::Charge;
use holdfast_types::{ConnectionId, SessionId};

use crate::interface::Output;

/// A frame this large is sent without waiting for the end of the turn.
const FRAME_BYTES_FLUSH: usize = 512 << 10;
/// Whoever is said more than this in one turn has asked for more than the front keeps for a stream. A few bytes of
/// request can call for a megabyte of answer, and all of it would be made before any of it leaves.
const TURN_BYTES_MAX: usize = 64 << 20;

/// What a stream is for.
#[derive(Debug)]
pub(crate) enum Stage {
    /// Its session is being opened, or looked for. Frames that follow the hello wait here.
    Hello {
        /// The frames, in order, with what they count for; the first is the rest of the hello's own.
        frames: Vec<(client::ClientFrame, Charge)>,
    },
    /// It is the newest attachment of a session.
    Attached(SessionId),
}

#[derive(Debug)]
struct Connection {
    stage: Stage,
    /// What has yet to be sent.
    frame: client::ServerFrame,
    /// About how large that is.
    bytes: usize,
    /// Whether `frame` is not empty, and so listed in `Connections::dirty`.
    dirty: bool,
    /// The turn in which something was last said.
    turn: u64,
    /// About how much that was, in that turn.
    turn_bytes: usize,
}

/// All streams.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    connections: BTreeMap<ConnectionId, Connection>,
    /// Those with something to send.
    dirty: Vec<ConnectionId>,
    /// Counts the turns.
    turn: u64,
    /// About how many bytes were ever said.
    said: u64,
}

impl Connections {
    /// Takes up a stream whose hello has just come.
    pub(crate) fn add(&mut self, connection: ConnectionId) {
        let stage = Stage::Hello { frames: Vec::new() };
        let frame = client::ServerFrame::default();
        let entry = Connection { stage, frame, bytes: 0, dirty: false, turn: self.turn, turn_bytes: 0 };
        self.connections.insert(connection, entry);
    }

    pub(crate) fn stage(&mut self, connection: ConnectionId) -> Option<&mut Stage> {
        self.connections.get_mut(&connection).map(|connection| &mut connection.stage)
    }

    /// The session that the stream serves.
    pub(crate) fn session(&self, connection: ConnectionId) -> Option<SessionId> {
        match self.connections.get(&connection)?.stage {
            Stage::Attached(session) => Some(session),
            Stage::Hello { .. } => None,
        }
    }

    /// The stream serves this session from now on. Gives the frames that waited for that.
    pub(crate) fn attach(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
    ) -> Vec<(client::ClientFrame, Charge)> {
        let Some(entry) = self.connections.get_mut(&connection) else { return Vec::new() };
        match std::mem::replace(&mut entry.stage, Stage::Attached(session)) {
            Stage::Hello { frames } => frames,
            Stage::Attached(_) => Vec::new(),
        }
    }

    /// About how many bytes were ever said: what is said meanwhile is the difference of two of these.
    pub(crate) fn said(&self) -> u64 {
        self.said
    }

    pub(crate) fn contains(&self, connection: ConnectionId) -> bool {
        self.connections.contains_key(&connection)
    }

    pub(crate) fn remove(&mut self, connection: ConnectionId) {
        self.connections.remove(&connection);
    }

    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Whether the stream was said so much in this turn that no more answers should be made for it.
    pub(crate) fn is_overfull(&self, connection: ConnectionId) -> bool {
        let entry = self.connections.get(&connection);
        entry.is_some_and(|entry| entry.turn == self.turn && entry.turn_bytes >= TURN_BYTES_MAX)
    }

    /// Adds to what the stream is sent next; `bytes` says by about how much. Nothing if the stream is gone.
    pub(crate) fn say(
        &mut self,
        connection: ConnectionId,
        bytes: usize,
        outputs: &mut VecDeque<Output>,
        add: impl FnOnce(&mut client::ServerFrame),
    ) {
        let Some(entry) = self.connections.get_mut(&connection) else { return };
        add(&mut entry.frame);
        self.said += bytes as u64;
        entry.bytes += bytes;
        let earlier = if entry.turn == self.turn { entry.turn_bytes } else { 0 };
        (entry.turn, entry.turn_bytes) = (self.turn, earlier + bytes);
        if entry.bytes >= FRAME_BYTES_FLUSH {
            entry.bytes = 0;
            let frame = std::mem::take(&mut entry.frame);
            outputs.push_back(Output::Frame { connection, frame });
        } else if !entry.dirty {
            entry.dirty = true;
            self.dirty.push(connection);
        }
    }

    /// Says the last thing and ends the stream.
    pub(crate) fn end(
        &mut self,
        connection: ConnectionId,
        outputs: &mut VecDeque<Output>,
        add: impl FnOnce(&mut client::ServerFrame),
    ) {
        let Some(mut entry) = self.connections.remove(&connection) else { return };
        add(&mut entry.frame);
        outputs.push_back(Output::Frame { connection, frame: entry.frame });
        outputs.push_back(Output::Disconnect { connection });
    }

    /// Turns everything unsaid into outputs.
    pub(crate) fn flush(&mut self, outputs: &mut VecDeque<Output>) {
        self.turn += 1;
        for connection in self.dirty.drain(..) {
            let Some(entry) = self.connections.get_mut(&connection) else { continue };
            entry.dirty = false;
            entry.bytes = 0;
            let frame = std::mem::take(&mut entry.frame);
            if frame != client::ServerFrame::default() {
                outputs.push_back(Output::Frame { connection, frame });
            }
        }
    }

    pub(crate) fn ids(&self) -> Vec<ConnectionId> {
        self.connections.keys().copied().collect()
    }
}
