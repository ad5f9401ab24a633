//! Owns the streams between clients and replicas: bytes in order, both ways, until the stream breaks.
//!
//! Nothing on a stream is lost, doubled or overtaken: what a partition holds up waits and arrives when it ends,
//! unless the stream was broken meanwhile. The two ends learn of a break each for itself, and an end that is cut
//! off learns of it only when the network lets it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use holdfast_session::StreamId;
use holdfast_types::ConnectionId;

use crate::clock::TrueTime;
use crate::network::Process;
use crate::spare::Spare;

/// A process in one of its lives: events that are meant for an earlier one find nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Life {
    /// Its place in the world's list.
    pub index: usize,
    /// How many times it was started.
    pub life: u64,
}

/// Which way along a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the replica.
    Up,
    /// From the replica to the client.
    Down,
}

impl Direction {
    /// The way back.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Up => Self::Down,
            Self::Down => Self::Up,
        }
    }
}

/// What travels on a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An encoded frame.
    Frame(Bytes),
    /// The stream's end; nothing comes after it.
    End,
}

/// A stream.
#[derive(Debug)]
pub struct Stream {
    /// Whose it is.
    pub client: Life,
    /// What the client's session calls it.
    pub name: StreamId,
    /// Where it goes.
    pub replica: Life,
    /// Both ends know that it stands.
    pub established: bool,
    /// Of its KeepAlives past it.
    pub spare: Spare,
    up: Pipe,
    down: Pipe,
}

/// One direction of a stream.
#[derive(Debug, Default)]
struct Pipe {
    /// By the moment of arrival, which never falls.
    items: VecDeque<(TrueTime, Item)>,
    /// So many of them have arrived and wait in the socket of a process that is stopped, or has yet to read them.
    buffered: usize,
    /// Its reader was stopped, and reads on then.
    reads_from: TrueTime,
    last_arrival: TrueTime,
    /// Nothing is taken in any more: the end is on its way, or has arrived.
    ended: bool,
    /// Whoever is at its far end takes nothing more.
    over: bool,
}

/// All streams.
#[derive(Debug, Default)]
pub struct Streams {
    streams: BTreeMap<ConnectionId, Stream>,
    /// The last name given.
    last: u64,
}

impl Streams {
    /// A new stream, which is yet to be established.
    pub fn open(&mut self, client: Life, name: StreamId, replica: Life) -> ConnectionId {
        self.last += 1;
        let connection = ConnectionId(self.last);
        let (up, down) = (Pipe::default(), Pipe::default());
        let (established, spare) = (false, Spare::default());
        self.streams.insert(connection, Stream { client, name, replica, established, spare, up, down });
        connection
    }

    /// A stream.
    #[must_use]
    pub fn get(&self, connection: ConnectionId) -> Option<&Stream> {
        self.streams.get(&connection)
    }

    pub(crate) fn get_mut(&mut self, connection: ConnectionId) -> Option<&mut Stream> {
        self.streams.get_mut(&connection)
    }

    /// The stream that a client's session calls `name`.
    #[must_use]
    pub fn find(&self, client: Life, name: StreamId) -> Option<ConnectionId> {
        let mut found =
            self.streams.iter().filter(|(_, stream)| stream.client == client && stream.name == name);
        found.next().map(|(connection, _)| *connection)
    }

    /// The names of all streams that `chosen` chooses.
    pub fn select(&self, chosen: impl Fn(&Stream) -> bool) -> Vec<ConnectionId> {
        self.streams.iter().filter(|(_, stream)| chosen(stream)).map(|(connection, _)| *connection).collect()
    }

    /// The stream stands from now on.
    pub fn establish(&mut self, connection: ConnectionId) {
        if let Some(stream) = self.streams.get_mut(&connection) {
            stream.established = true;
        }
    }

    /// Sends something. Returns when it arrives, if the stream still takes it.
    pub fn send(
        &mut self,
        connection: ConnectionId,
        direction: Direction,
        arrival: TrueTime,
        item: Item,
    ) -> Option<TrueTime> {
        let pipe = self.streams.get_mut(&connection)?.pipe(direction);
        if pipe.ended {
            return None;
        }
        pipe.ended = item == Item::End;
        pipe.last_arrival = pipe.last_arrival.max(arrival);
        pipe.items.push_back((pipe.last_arrival, item));
        Some(pipe.last_arrival)
    }

    /// What is on its way to a stream's client.
    pub fn under_way(&self, connection: ConnectionId) -> impl Iterator<Item = &Item> {
        self.streams.get(&connection).into_iter().flat_map(|stream| &stream.down.items).map(|(_, item)| item)
    }

    /// What has arrived by `now`, as far as it fits into `bytes_max`, waits in the socket: nothing takes it away from there.
    pub fn buffer(
        &mut self,
        connection: ConnectionId,
        direction: Direction,
        now: TrueTime,
        bytes_max: usize,
    ) {
        let Some(stream) = self.streams.get_mut(&connection) else { return };
        let pipe = stream.pipe(direction);
        let mut bytes = 0;
        pipe.buffered = 0;
        for (at, item) in &pipe.items {
            bytes += item.bytes();
            if *at > now || (bytes > bytes_max && pipe.buffered > 0) {
                break;
            }
            pipe.buffered += 1;
        }
    }

    /// The reader of one direction was stopped, and goes on reading at a moment.
    pub fn read_from(&mut self, connection: ConnectionId, direction: Direction, at: TrueTime) {
        if let Some(stream) = self.streams.get_mut(&connection) {
            stream.pipe(direction).reads_from = at;
        }
    }

    /// Whether the reader of one direction reads at `now` what waits in its socket.
    #[must_use]
    pub fn is_read(&self, connection: ConnectionId, direction: Direction, now: TrueTime) -> bool {
        self.streams.get(&connection).is_some_and(|stream| stream.pipe_of(direction).reads_from <= now)
    }

    /// Whether something waits in the socket at the end of one direction.
    #[must_use]
    pub fn is_buffered(&self, connection: ConnectionId, direction: Direction) -> bool {
        self.streams.get(&connection).is_some_and(|stream| stream.pipe_of(direction).buffered > 0)
    }

    /// Whose sockets have something of a stream, and from which direction.
    #[must_use]
    pub fn buffered(&self) -> Vec<(ConnectionId, (Process, Direction))> {
        let mut found = Vec::new();
        for (connection, stream) in &self.streams {
            let ends = [
                (Process::Replica(stream.replica.index), Direction::Up),
                (Process::Client(stream.client.index), Direction::Down),
            ];
            let full = ends.into_iter().filter(|(_, direction)| stream.pipe_of(*direction).buffered > 0);
            found.extend(full.map(|end| (*connection, end)));
        }
        found
    }

    /// Breaks one direction: what is on its way is gone, and the end is what arrives next. What had arrived is read before
    /// it.
    pub fn cut(&mut self, connection: ConnectionId, direction: Direction, arrival: TrueTime) {
        if let Some(stream) = self.streams.get_mut(&connection) {
            let pipe = stream.pipe(direction);
            if pipe.over {
                return;
            }
            pipe.items.truncate(pipe.buffered);
            pipe.items.push_back((arrival, Item::End));
            pipe.ended = true;
        }
    }

    /// Takes what arrives by `now`.
    pub fn arrive(&mut self, connection: ConnectionId, direction: Direction, now: TrueTime) -> Option<Item> {
        let pipe = self.streams.get_mut(&connection)?.pipe(direction);
        let due = pipe.items.front().is_some_and(|(at, _)| *at <= now);
        if !due {
            return None;
        }
        pipe.buffered = pipe.buffered.saturating_sub(1);
        pipe.items.pop_front().map(|(_, item)| item)
    }

    /// Whoever takes from one direction takes nothing more: what is on its way is lost.
    pub fn close(&mut self, connection: ConnectionId, direction: Direction) {
        if let Some(stream) = self.streams.get_mut(&connection) {
            let pipe = stream.pipe(direction);
            pipe.items.clear();
            pipe.buffered = 0;
            (pipe.ended, pipe.over) = (true, true);
        }
    }

    /// Forgets a stream once neither end takes anything more.
    pub fn remove_if_over(&mut self, connection: ConnectionId) {
        if self.streams.get(&connection).is_some_and(|stream| stream.up.over && stream.down.over) {
            self.streams.remove(&connection);
        }
    }

    /// Forgets a stream.
    pub fn remove(&mut self, connection: ConnectionId) {
        self.streams.remove(&connection);
    }
}

impl Item {
    /// How much of a socket's buffer it takes.
    fn bytes(&self) -> usize {
        match self {
            Self::Frame(bytes) => bytes.len(),
            Self::End => 0,
        }
    }
}

impl Stream {
    fn pipe_of(&self, direction: Direction) -> &Pipe {
        match direction {
            Direction::Up => &self.up,
            Direction::Down => &self.down,
        }
    }

    fn pipe(&mut self, direction: Direction) -> &mut Pipe {
        match direction {
            Direction::Up => &mut self.up,
            Direction::Down => &mut self.down,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(nanos: u64) -> TrueTime {
        TrueTime::from_nanos(nanos)
    }

    fn stream() -> (Streams, ConnectionId) {
        let mut streams = Streams::default();
        let life = Life { index: 0, life: 1 };
        let connection = streams.open(life, StreamId(1), life);
        (streams, connection)
    }

    #[test]
    fn frames_arrive_in_the_order_of_their_sending() {
        let (mut streams, connection) = stream();
        let frame = |text: &'static str| Item::Frame(Bytes::from_static(text.as_bytes()));
        assert_eq!(streams.send(connection, Direction::Up, at(9), frame("a")), Some(at(9)));
        assert_eq!(streams.send(connection, Direction::Up, at(5), frame("b")), Some(at(9)));
        assert_eq!(streams.arrive(connection, Direction::Up, at(8)), None);
        assert_eq!(streams.arrive(connection, Direction::Up, at(9)), Some(frame("a")));
        assert_eq!(streams.arrive(connection, Direction::Up, at(9)), Some(frame("b")));
        assert_eq!(streams.arrive(connection, Direction::Down, at(9)), None);
    }

    #[test]
    fn what_waits_in_a_socket_is_read_before_the_end_and_no_more_than_fits_waits_there() {
        let (mut streams, connection) = stream();
        let frame = |text: &'static str| Item::Frame(Bytes::from_static(text.as_bytes()));
        for (nanos, text) in [(1, "aa"), (2, "bb"), (3, "cc"), (9, "dd")] {
            streams.send(connection, Direction::Up, at(nanos), frame(text));
        }
        streams.buffer(connection, Direction::Up, at(5), 4);
        assert!(streams.is_buffered(connection, Direction::Up));
        streams.cut(connection, Direction::Up, at(6));
        let read: Vec<Item> =
            std::iter::from_fn(|| streams.arrive(connection, Direction::Up, at(6))).collect();
        assert_eq!(read, [frame("aa"), frame("bb"), Item::End]);
    }

    #[test]
    fn nothing_comes_after_the_end() {
        let (mut streams, connection) = stream();
        streams.send(connection, Direction::Down, at(1), Item::Frame(Bytes::new()));
        streams.cut(connection, Direction::Down, at(2));
        assert_eq!(streams.send(connection, Direction::Down, at(1), Item::Frame(Bytes::new())), None);
        assert_eq!(streams.arrive(connection, Direction::Down, at(2)), Some(Item::End));
        assert_eq!(streams.arrive(connection, Direction::Down, at(9)), None);
    }
}
