//! Owns what has come for a process that is stopped: the kernel takes it in, and the process finds it when it goes on, stale
//! as it is.
//!
//! Each connection has a buffer of its own, and so has each timer and each thread whose word a stopped process has yet
//! to take in. What a connection carried is read in its order; which connection is read first when the process goes on,
//! and whether a timer is seen before that, is chance. What clients' streams carry stays in [`crate::streams`] and is
//! marked there; everything else waits here.
//!
//! Invariant: the buffers are bounded. A stream's sender holds back what does not fit; a message between replicas is lost,
//! as at the sender's full outbox.

use std::collections::{BTreeMap, VecDeque};

use holdfast_replica::CallId;
use holdfast_types::ConnectionId;

use crate::clock::TrueTime;
use crate::coverage::Situation;
use crate::event::Event;
use crate::network::Process;
use crate::rng::Rng;
use crate::streams::Direction;
use crate::world::{Phase, World};

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;
/// After so long a replica that has heard nothing has been deposed, or may have been.
const STALE_NANOS: u64 = 1_000 * MILLI;
/// A line is read in pieces of so many events at the most, and others are read between them.
const PIECE_MAX: u64 = 8;

/// Where something comes from that a process reads in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Line {
    /// A replica's messages: those that are urgent have a connection of their own.
    Peer {
        /// The other replica.
        from: usize,
        /// By which of the two connections.
        urgent: bool,
    },
    /// Snapshots, from another replica or of their arrival there.
    Transfer(usize),
    /// KeepAlives past a stream, and their answers.
    Spare(ConnectionId),
    /// A call by name, and its answer.
    Named(CallId),
    /// The thread that writes the log.
    LogWriter,
    /// The thread that writes a snapshot.
    SnapshotWriter,
}

/// What stopped processes have yet to read.
#[derive(Debug, Default)]
pub struct Sockets {
    /// With when it came. No queue is empty.
    waiting: BTreeMap<(Process, Line), VecDeque<(TrueTime, Event)>>,
}

impl Sockets {
    /// Whether something waits there: then nothing that comes later may pass it.
    fn holds(&self, process: Process, line: Line) -> bool {
        !self.waiting.is_empty() && self.waiting.contains_key(&(process, line))
    }

    fn put(&mut self, process: Process, line: Line, now: TrueTime, event: Event) {
        self.waiting.entry((process, line)).or_default().push_back((now, event));
    }

    /// How many bytes of messages wait there.
    fn bytes(&self, process: Process, line: Line) -> usize {
        let queue = self.waiting.get(&(process, line)).into_iter().flatten();
        queue.map(|(_, event)| bytes_of(event)).sum()
    }

    fn take(&mut self, process: Process, line: Line) -> Option<(TrueTime, Event)> {
        let queue = self.waiting.get_mut(&(process, line))?;
        let taken = queue.pop_front();
        if queue.is_empty() {
            self.waiting.remove(&(process, line));
        }
        taken
    }

    fn lines(&self, process: Process) -> Vec<Line> {
        self.waiting.keys().filter(|(whose, _)| *whose == process).map(|(_, line)| *line).collect()
    }
}

impl World {
    /// Whether a process that lives does not run: what comes for it waits in its sockets.
    pub(crate) fn is_stopped(&self, process: Process) -> bool {
        match process {
            Process::Replica(index) => {
                let server = &self.servers[index];
                server.paused_until > self.now && server.replica.is_some()
            }
            Process::Client(index) => {
                let client = &self.clients[index];
                client.paused_until.max(client.starved_until) > self.now && client.session.is_some()
            }
        }
    }

    /// Lets an event that is for a stopped process wait in its socket, and gives back any other.
    pub(crate) fn buffer(&mut self, event: Event) -> Option<Event> {
        let Some((process, line)) = self.reader(&event) else { return Some(event) };
        if !self.is_stopped(process) && !self.sockets.holds(process, line) {
            return Some(event);
        }
        let full = self.sockets.bytes(process, line) + bytes_of(&event) > self.plan.socket_bytes;
        if full && matches!(line, Line::Peer { .. }) {
            self.stats.overflowed += 1;
        } else {
            self.sockets.put(process, line, self.now, event);
        }
        None
    }

    /// Which process reads an event off which of its lines, if it is one that a process reads.
    fn reader(&self, event: &Event) -> Option<(Process, Line)> {
        let replica = Process::Replica;
        match event {
            Event::Peer { from, to, urgent, .. } => {
                Some((replica(to.index), Line::Peer { from: *from, urgent: *urgent }))
            }
            Event::PeerReset { at, peer } => {
                Some((replica(at.index), Line::Peer { from: *peer, urgent: false }))
            }
            Event::Snapshot { from, to, .. } => Some((replica(to.index), Line::Transfer(from.index))),
            Event::SnapshotSent { at, to, .. } => Some((replica(at.index), Line::Transfer(*to))),
            Event::Written(at) => Some((replica(at.index), Line::LogWriter)),
            Event::SnapshotWritten(at, _) => Some((replica(at.index), Line::SnapshotWriter)),
            Event::Spare(connection, leg) => {
                let stream = self.streams.get(*connection)?;
                let end = if leg.is_for_replica() {
                    replica(stream.replica.index)
                } else {
                    Process::Client(stream.client.index)
                };
                Some((end, Line::Spare(*connection)))
            }
            Event::NamedArrives(call) => Some((replica(self.named.get(call)?.replica), Line::Named(*call))),
            Event::NamedTold(call, _) | Event::NamedGivesUp(call) => {
                Some((Process::Client(self.named.get(call)?.client.index), Line::Named(*call)))
            }
            Event::Run(..)
            | Event::Establish(_)
            | Event::GaveUp(_)
            | Event::Arrival(..)
            | Event::Read(..)
            | Event::GoesOn(_)
            | Event::NamedWithdraws(_)
            | Event::Peek(_)
            | Event::Order { .. }
            | Event::Die(_)
            | Event::Greet(_)
            | Event::Operate
            | Event::Fault
            | Event::CutOff { .. }
            | Event::FaultEnds(_)
            | Event::Heal
            | Event::Drain
            | Event::Look => None,
        }
    }

    /// A process goes on, unless it is stopped still: each of its lines is read after a while of its own, and its timers
    /// are seen somewhere between.
    pub(crate) fn read_sockets(&mut self, process: Process) {
        if self.is_stopped(process) {
            return;
        }
        let calm = self.phase > Phase::Faults;
        let rng = self.rng_of(process);
        let spread =
            if calm { 0 } else { [0, 200 * MICRO, 5 * MILLI, 50 * MILLI, 300 * MILLI][rng.index(5)] };
        for line in self.sockets.lines(process) {
            let at = self.now.after_nanos(self.rng_of(process).between(0, spread));
            self.queue.push(at, Event::Read(process, line));
        }
        let ours = |(stream, direction): (Process, Direction)| (stream == process).then_some(direction);
        for (connection, end) in self.streams.buffered() {
            let Some(direction) = ours(end) else { continue };
            let at = self.now.after_nanos(self.rng_of(process).between(0, spread));
            self.streams.read_from(connection, direction, at);
            self.queue.push(at, Event::Arrival(connection, direction));
        }
        let nanos = self.rng_of(process).between(0, spread);
        self.plan_run(process, self.now.after_nanos(nanos));
    }

    /// A process reads a piece of what waits on one of its lines.
    pub(crate) fn read(&mut self, process: Process, line: Line) -> Result<(), crate::verdict::Violation> {
        if self.is_stopped(process) {
            return Ok(());
        }
        let piece = self.rng_of(process).between(1, PIECE_MAX);
        for _ in 0..piece {
            let Some((came, event)) = self.sockets.take(process, line) else { return Ok(()) };
            self.sight_read(process, line, came);
            self.happen(event)?;
        }
        if self.sockets.holds(process, line) {
            let at = self.now.after_nanos(self.rng_of(process).between(2 * MICRO, 60 * MICRO));
            self.queue.push(at, Event::Read(process, line));
        }
        Ok(())
    }

    /// A process is gone: what waited for it finds that out.
    pub(crate) fn drop_sockets(&mut self, process: Process) {
        for line in self.sockets.lines(process) {
            while let Some((_, event)) = self.sockets.take(process, line) {
                self.queue.push(self.now, event);
            }
        }
    }

    /// Something is read that came while its process was stopped.
    fn sight_read(&mut self, process: Process, line: Line, came: TrueTime) {
        if self.now < came.after_nanos(STALE_NANOS) {
            return;
        }
        self.stats.stale += 1;
        match (process, line) {
            (Process::Replica(index), Line::Peer { .. }) if self.servers[index].was_master => {
                self.sights.reach(Situation::StaleMessageToMaster);
            }
            (Process::Replica(index), Line::Named(_)) if self.servers[index].was_master => {
                self.sights.reach(Situation::StaleRequestToMaster);
            }
            _ => {}
        }
    }

    fn rng_of(&mut self, process: Process) -> &mut Rng {
        match process {
            Process::Replica(index) => &mut self.servers[index].rng,
            Process::Client(index) => &mut self.clients[index].rng,
        }
    }
}

/// How much of a socket's buffer an event takes.
fn bytes_of(event: &Event) -> usize {
    match event {
        Event::Peer { messages, .. } => messages.iter().map(|message| message.len()).sum(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_in_its_order_and_others_beside_it() {
        let mut sockets = Sockets::default();
        let process = Process::Replica(0);
        let (one, other) = (Line::Peer { from: 1, urgent: true }, Line::Peer { from: 2, urgent: true });
        for number in 1..3 {
            sockets.put(process, one, TrueTime::from_nanos(number), Event::Look);
        }
        sockets.put(process, other, TrueTime::from_nanos(9), Event::Look);
        assert_eq!(sockets.lines(process), [one, other]);
        assert_eq!(sockets.lines(Process::Client(0)), []);
        let came = |sockets: &mut Sockets| sockets.take(process, one).map(|(came, _)| came.as_nanos());
        assert_eq!((came(&mut sockets), came(&mut sockets), came(&mut sockets)), (Some(1), Some(2), None));
        assert!(!sockets.holds(process, one) && sockets.holds(process, other));
    }
}
