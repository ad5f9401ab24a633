//! What replicas send each other: messages that may get lost or come twice, snapshots, and word of connections that are
//! gone.

use bytes::Bytes;
use holdfast_replica::{Input, StateAt};
use holdfast_types::ReplicaId;

use super::{MILLI, through_snapshot};
use crate::event::Event;
use crate::member::{Standing, id_of};
use crate::network::{Fate, Process};
use crate::streams::Life;
use crate::trace::Kind;
use crate::verdict::Violation;
use crate::world::World;

impl World {
    /// Tells all others that their connections with a replica are gone, where word of it gets through.
    pub(super) fn reset_peers(&mut self, index: usize) {
        for other in 0..self.servers.len() {
            let reached = self.network.reaches(Process::Replica(index), Process::Replica(other));
            if other != index && self.servers[other].replica.is_some() && reached {
                let at = self.now.after_nanos(self.network.stream_flight());
                self.queue.push(at, Event::PeerReset { at: self.life_of(other), peer: index });
            }
        }
    }

    pub(super) fn send_messages(&mut self, from: usize, to: usize, urgent: bool, messages: Vec<Bytes>) {
        for message in &messages {
            self.trace.event(self.now, Kind::PeerSent, from as u64, to as u64, message);
        }
        let life = self.life_of(to);
        let fate = self.network.fate(Process::Replica(from), Process::Replica(to));
        let leaving = self.leaving();
        let mut push = |nanos, messages| {
            self.queue.push(leaving.after_nanos(nanos), Event::Peer { from, to: life, urgent, messages });
        };
        match fate {
            Fate::Lost => {}
            Fate::Once(nanos) => push(nanos, messages),
            Fate::Twice(first, second) => {
                push(first, messages.clone());
                push(second, messages);
            }
        }
    }

    pub(crate) fn peer_arrives(
        &mut self,
        from: usize,
        to: Life,
        messages: Vec<Bytes>,
    ) -> Result<(), Violation> {
        let server = &self.servers[to.index];
        let listens = self.lives(to) || (server.standing == Standing::Waiting && server.life == to.life);
        if listens && self.admits(from, to.index)? {
            self.announce(from, to);
            self.hand_in(to.index, Input::Peer { from: id_of(from), messages });
        }
        Ok(())
    }

    pub(crate) fn peer_reset(&mut self, at: Life, peer: usize) {
        if self.lives(at) {
            self.hand_in(at.index, Input::PeerReset { peer: ReplicaId(peer as u64 + 1) });
        }
    }

    pub(super) fn send_snapshot(&mut self, from: usize, to: usize, message: Bytes, state: Box<StateAt>) {
        self.trace.say(self.now, || format!("replica {} sends the snapshot at {}", from + 1, state.index));
        let nanos = self.servers[from].rng.between(MILLI, 500 * MILLI) + self.network.stream_flight();
        let (at, peer) = (self.life_of(from), self.life_of(to));
        if let Some(nanos) = self.network.cut_off(nanos) {
            self.stats.transfers_cut += 1;
            let index = state.index;
            let end = self.leaving().after_nanos(nanos);
            return self.queue.push(end, Event::SnapshotSent { at, to, index, ok: false });
        }
        self.queue
            .push(self.leaving().after_nanos(nanos), Event::Snapshot { from: at, to: peer, message, state });
    }

    pub(crate) fn snapshot_arrives(
        &mut self,
        from: Life,
        to: Life,
        message: Bytes,
        mut state: Box<StateAt>,
    ) -> Result<(), Violation> {
        let connected = self.network.connects(Process::Replica(from.index), Process::Replica(to.index));
        let ok = connected && self.lives(to) && self.admits(from.index, to.index)?;
        let index = state.index;
        if ok {
            state.state = through_snapshot(&state.state)?;
            let from = ReplicaId(from.index as u64 + 1);
            self.hand_in(to.index, Input::SnapshotArrived { from, message, state });
        }
        let wait = if ok { self.network.stream_flight() } else { 1_000 * MILLI };
        self.queue
            .push(self.now.after_nanos(wait), Event::SnapshotSent { at: from, to: to.index, index, ok });
        Ok(())
    }

    pub(crate) fn snapshot_sent(&mut self, at: Life, to: usize, index: u64, ok: bool) {
        if self.lives(at) {
            self.hand_in(at.index, Input::SnapshotSent { to: ReplicaId(to as u64 + 1), index, ok });
        }
    }
}
