//! What happens on the streams between clients and replicas: how they come to be, what they carry, how they end.
//!
//! A stream is one gRPC call over one connection. Each end hears of the other's end when word of it gets
//! through; a frame that reaches a dead process is answered by a reset, if the host is up.

use bytes::Bytes;
use holdfast_proto::client::v1::{ClientFrame, ServerFrame};
use holdfast_replica::Input as ReplicaInput;
use holdfast_session::{Input as SessionInput, Problem, StreamId};
use holdfast_types::ConnectionId;
use prost::Message;

use crate::event::Event;
use crate::genesis::replica_at;
use crate::network::Process;
use crate::streams::{Direction, Item, Stream};
use crate::verdict::Violation;
use crate::world::{World, fault};

/// How long a client tries to reach a host that does not answer.
const CONNECT_NANOS: u64 = 1_000_000_000;

impl World {
    /// A client wants a stream.
    pub(crate) fn connect(&mut self, client: usize, name: StreamId, address: &str) {
        let replica = replica_at(address).filter(|index| *index < self.servers.len());
        self.trace.say(self.now, || format!("client {} connects to {address}", client + 1));
        let (client, replica) = (self.client_life(client), self.life_of(replica.unwrap_or(0)));
        let connection = self.streams.open(client, name, replica);
        let round_trip = self.network.stream_flight() + self.network.stream_flight();
        self.queue.push(self.now.after_nanos(round_trip), Event::Establish(connection));
    }

    pub(crate) fn establish(&mut self, connection: ConnectionId) {
        let Some(stream) = self.streams.get(connection) else { return };
        let (client, name, replica) = (stream.client, stream.name, stream.replica);
        let up = self.servers[replica.index].replica.is_some();
        let silent = !up && self.servers[replica.index].silent;
        if silent || !self.network.connects(Process::Client(client.index), Process::Replica(replica.index)) {
            self.queue.push(self.now.after_nanos(CONNECT_NANOS), Event::GaveUp(connection));
        } else if self.lives(replica) {
            self.streams.establish(connection);
            if client == self.client_life(client.index) {
                self.hand_to_client(client.index, SessionInput::Connected { stream: name });
            }
        } else {
            self.give_up(connection);
        }
    }

    /// A stream does not come to be.
    pub(crate) fn give_up(&mut self, connection: ConnectionId) {
        let Some(stream) = self.streams.get(connection) else { return };
        let (client, stream) = (stream.client, stream.name);
        self.streams.remove(connection);
        if client == self.client_life(client.index) {
            let problem = Problem::unserved("the connection was not established");
            self.hand_to_client(client.index, SessionInput::Disconnected { stream, problem });
        }
    }

    pub(crate) fn client_sends(&mut self, client: usize, name: StreamId, bytes: Bytes) {
        if let Some(connection) = self.streams.find(self.client_life(client), name) {
            self.send(connection, Direction::Up, Item::Frame(bytes));
        }
    }

    /// A client closes its end: it hears nothing more, and the replica hears of it.
    pub(crate) fn client_disconnects(&mut self, client: usize, name: StreamId) {
        let Some(connection) = self.streams.find(self.client_life(client), name) else { return };
        self.leave_stream(connection, Direction::Down);
    }

    /// A replica closes its end, after what it has sent.
    pub(crate) fn replica_disconnects(&mut self, index: usize, connection: ConnectionId) {
        self.servers[index].books.disconnected(connection);
        self.leave_stream(connection, Direction::Up);
    }

    /// One end is closed: it takes nothing more from `direction`, and the other end is told.
    fn leave_stream(&mut self, connection: ConnectionId, direction: Direction) {
        let Some(stream) = self.streams.get(connection) else { return };
        if !stream.established {
            self.streams.remove(connection);
            return;
        }
        self.streams.close(connection, direction);
        self.send(connection, direction.other(), Item::End);
        self.streams.remove_if_over(connection);
    }

    pub(crate) fn send(&mut self, connection: ConnectionId, direction: Direction, item: Item) {
        let at = self.leaving().after_nanos(self.network.stream_flight());
        if let Some(at) = self.streams.send(connection, direction, at, item) {
            self.queue.push(at, Event::Arrival(connection, direction));
        }
    }

    /// Takes off a stream what has arrived by now, unless a partition holds it up.
    pub(crate) fn arrive(&mut self, connection: ConnectionId, direction: Direction) -> Result<(), Violation> {
        while let Some(stream) = self.streams.get(connection) {
            let (from, to) = ends(stream, direction);
            let reaches = self.network.reaches(from, to);
            let reads = !self.is_stopped(to) && self.streams.is_read(connection, direction, self.now);
            if !reads {
                if reaches {
                    self.streams.buffer(connection, direction, self.now, self.plan.socket_bytes);
                }
                return Ok(());
            }
            if !reaches && !self.streams.is_buffered(connection, direction) {
                return Ok(());
            }
            let Some(item) = self.streams.arrive(connection, direction, self.now) else { return Ok(()) };
            match direction {
                Direction::Up => self.arrive_at_replica(connection, item)?,
                Direction::Down => self.arrive_at_client(connection, item)?,
            }
        }
        Ok(())
    }

    fn arrive_at_replica(&mut self, connection: ConnectionId, item: Item) -> Result<(), Violation> {
        let Some(stream) = self.streams.get(connection) else { return Ok(()) };
        let (at, client) = (stream.replica, stream.client.index);
        match item {
            Item::Frame(bytes) if self.lives(at) => {
                let frame = ClientFrame::decode(bytes).map_err(|error| fault("a client's frame", error))?;
                self.sight_arrived(client, &frame);
                self.hand_in_frame(at.index, connection, client, frame);
            }
            // A process that knows nothing of the connection resets it; a host that is down does not.
            Item::Frame(_) => {
                if self.servers[at.index].replica.is_some() || !self.servers[at.index].silent {
                    self.reset(connection, Direction::Down);
                }
            }
            Item::End => {
                if self.lives(at) {
                    self.servers[at.index].books.disconnected(connection);
                    self.hand_in(at.index, ReplicaInput::Disconnected { connection });
                }
                self.leave_stream(connection, Direction::Up);
            }
        }
        Ok(())
    }

    fn arrive_at_client(&mut self, connection: ConnectionId, item: Item) -> Result<(), Violation> {
        let Some(stream) = self.streams.get(connection) else { return Ok(()) };
        let (client, name) = (stream.client, stream.name);
        let lives = client == self.client_life(client.index);
        match item {
            Item::Frame(bytes) if lives => {
                let frame = ServerFrame::decode(bytes).map_err(|error| fault("a replica's frame", error))?;
                let frame = self.clients[client.index].greed.strip(frame);
                self.spare_heard(connection, &frame);
                self.clients[client.index].greets &= frame.hello.is_none();
                self.hand_to_client(client.index, SessionInput::Frame { stream: name, frame });
            }
            Item::Frame(_) => self.reset(connection, Direction::Up),
            Item::End => {
                if lives {
                    let problem = Problem::unserved("the stream broke");
                    self.hand_to_client(client.index, SessionInput::Disconnected { stream: name, problem });
                }
                self.leave_stream(connection, Direction::Down);
            }
        }
        Ok(())
    }

    /// Breaks a stream in one direction: what is on its way is lost, and that end learns of it.
    pub(crate) fn reset(&mut self, connection: ConnectionId, direction: Direction) {
        let at = self.now.after_nanos(self.network.stream_flight());
        self.sight_cut(connection, direction);
        self.streams.cut(connection, direction, at);
        self.queue.push(at, Event::Arrival(connection, direction));
    }

    /// A replica's process is gone: the clients of all its streams are told.
    pub(crate) fn reset_streams_of(&mut self, index: usize) {
        let life = self.life_of(index);
        for connection in self.streams.select(|stream| stream.replica == life) {
            self.reset(connection, Direction::Down);
        }
    }

    /// All partitions end.
    pub(crate) fn mend_network(&mut self) {
        self.network.unblock_all();
        self.deliver_held_up();
    }

    /// What a partition held up goes on its way, if there is one now.
    pub(crate) fn deliver_held_up(&mut self) {
        for connection in self.streams.select(|_| true) {
            for direction in [Direction::Up, Direction::Down] {
                let at = self.now.after_nanos(self.network.stream_flight());
                self.queue.push(at, Event::Arrival(connection, direction));
            }
        }
    }
}

fn ends(stream: &Stream, direction: Direction) -> (Process, Process) {
    let (client, replica) = (Process::Client(stream.client.index), Process::Replica(stream.replica.index));
    match direction {
        Direction::Up => (client, replica),
        Direction::Down => (replica, client),
    }
}
