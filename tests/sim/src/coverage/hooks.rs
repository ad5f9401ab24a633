//! Where the world tells what it sees, as far as that takes more than the sights know: who is stopped, who believes
//! what, what is on its way.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    ClientFrame, EndReason, ServerFrame, StreamRefused, client_frame, event, outcome, server_frame,
};
use holdfast_replica::Replica;
use holdfast_types::{ConnectionId, HandleId, SessionId};
use prost::Message;

use super::Situation;
use super::greed::is_ledger_full;
use crate::client::Client;
use crate::disk::Lost;
use crate::member::Standing;
use crate::streams::{Direction, Item};
use crate::world::World;

impl World {
    /// A replica sends a frame to a client.
    pub(crate) fn sight_sent(
        &mut self,
        index: usize,
        connection: ConnectionId,
        term: u64,
        frame: &ServerFrame,
    ) {
        let Some(stream) = self.streams.get(connection) else { return };
        let client = stream.client;
        let session = self.clients.get(client.index).filter(|other| other.life == client.life);
        self.sights.sent(session.and_then(|client| client.session_id), term, frame, self.now);
        if let Some(server_frame::Hello::Refused(StreamRefused { refusal: Some(refusal), .. })) = &frame.hello
            && is_ledger_full(refusal)
        {
            self.sights.reach(Situation::HelloFindsNoRoom);
        }
        let greets =
            matches!(frame.hello, Some(server_frame::Hello::Opened(_) | server_frame::Hello::Attached(_)));
        if greets && self.is_other_master_attended(index) {
            self.sights.reach(Situation::TwoMastersWithClients);
        }
    }

    /// Another replica believes itself in office, and has clients.
    fn is_other_master_attended(&self, index: usize) -> bool {
        let others =
            self.servers.iter().enumerate().filter(|(other, server)| *other != index && server.was_master);
        others.filter_map(|(_, server)| server.replica.as_ref()).any(|replica| replica.status().attached > 0)
    }

    /// How many replicas believe themselves in office.
    fn masters(&self) -> usize {
        self.servers.iter().filter(|server| server.was_master).count()
    }

    /// A frame of a client's reaches a living replica.
    pub(crate) fn sight_arrived(&mut self, client: usize, frame: &ClientFrame) {
        let Some(session) = self.clients[client].session_id else { return };
        self.sights.arrived(session, frame, self.now);
        for operation in frame.requests.iter().filter_map(|request| request.operation.as_ref()) {
            match operation {
                Operation::SetContents(write) => self.sight_write(client, write.handle),
                Operation::Release(release) => {
                    let held = |(path, handle): (&str, u64)| {
                        handle == release.handle && self.sights.is_invalidated(path)
                    };
                    if writes_of(&self.clients[client]).any(held) {
                        self.sights.reach(Situation::ReleaseBehindWrite);
                    }
                }
                _ => {}
            }
        }
    }

    fn sight_write(&mut self, client: usize, handle: u64) {
        let Some(path) = self.clients[client].handles.get(&HandleId(handle)).map(|handle| &handle.path)
        else {
            return;
        };
        let others = self.clients.iter().enumerate().filter(|(other, _)| *other != client);
        if self.sights.is_invalidated(path)
            && others.flat_map(|(_, other)| writes_of(other)).any(|(other, _)| other == path)
        {
            self.sights.reach(Situation::OverlappingWrites);
        }
    }

    /// Sessions were ended by the canonical log just now.
    pub(crate) fn sight_ends(&mut self) {
        for (session, reason) in std::mem::take(&mut self.sights.ended) {
            let Some(client) = self.clients.iter().find(|client| client.session_id == Some(session)) else {
                continue;
            };
            let jeopardy = client.is_in_jeopardy();
            let stopped = client.paused_until > self.now && client.guard.is_some();
            let expired = reason == EndReason::Expired;
            let reached = [
                (expired && stopped, Situation::ExpiredWithGuard),
                (expired && client.greets, Situation::ExpiryRacedAttachment),
                (reason == EndReason::Killed && jeopardy, Situation::KilledInJeopardy),
            ];
            reached.into_iter().filter(|(so, _)| *so).for_each(|(_, situation)| self.sights.reach(situation));
        }
    }

    /// A client sends a frame: it may be one that attaches it.
    pub(crate) fn sight_client_sent(&mut self, client: usize, frame: &ClientFrame) {
        self.clients[client].greets |= matches!(frame.hello, Some(client_frame::Hello::Attach(_)));
    }

    /// A replica takes office.
    pub(crate) fn sight_office(&mut self, term: u64) {
        self.sights.office(self.canon.state(), term);
        if self.clients.iter().any(Client::is_in_jeopardy) {
            self.sights.reach(Situation::FailOverInJeopardy);
        }
    }

    /// A replica has run: raft may have dropped what it was to propose, or it may have handed over.
    pub(crate) fn sight_run(&mut self, index: usize, replica: &Replica) {
        let waits = replica.batches_waiting() > 0;
        let server = &mut self.servers[index];
        if server.dropped && !waits && replica.is_master() {
            self.sights.reach(Situation::DroppedProposal);
        }
        server.dropped = waits;
        let handovers = replica.handovers_for_disk();
        if handovers > server.handovers_for_disk {
            self.sights.reach(Situation::HandedOverForDisk);
        }
        // A new life begins to count anew.
        self.servers[index].handovers_for_disk = handovers;
    }

    /// A replica is about to go on.
    pub(crate) fn sight_resumed(&mut self, index: usize) {
        if self.servers[index].was_master && self.masters() > 1 {
            self.sights.reach(Situation::DeposedWokeUp);
        }
    }

    /// A slot answered a read.
    pub(crate) fn sight_cache_read(&mut self, client: usize) {
        if self.masters() > 1 {
            self.sights.reach(Situation::CachedReadUnderTwoMasters);
        }
        if self.clients[client].starved_until > self.now {
            self.sights.reach(Situation::ReadWhileStarved);
        }
    }

    /// What is on its way to a client is about to be lost.
    pub(crate) fn sight_cut(&mut self, connection: ConnectionId, direction: Direction) {
        if direction == Direction::Up {
            return;
        }
        let frames = self.streams.under_way(connection).filter_map(|item| match item {
            Item::Frame(bytes) => ServerFrame::decode(bytes.clone()).ok(),
            Item::End => None,
        });
        if frames.into_iter().any(|frame| grants(&frame)) {
            self.sights.reach(Situation::GrantReplyLost);
        }
    }

    /// An entry of the canonical log changes the membership.
    pub(crate) fn sight_members(&mut self) {
        if self.sights.is_anybody_waiting() {
            self.sights.reach(Situation::MembersChangedWithQueue);
        }
    }

    /// A replica has read its disk: so many torn records were cut off, and so many snapshots passed over.
    pub(crate) fn sight_boot(&mut self, torn: u64, passed_over: u64) {
        self.stats.torn += torn;
        self.stats.passed_over += passed_over;
        let reached = [(torn > 0, Situation::TornTailCut), (passed_over > 0, Situation::SnapshotPassedOver)];
        reached.into_iter().filter(|(so, _)| *so).for_each(|(_, situation)| self.sights.reach(situation));
    }

    /// A replica must not go on, or not start.
    pub(crate) fn sight_refused(&mut self, index: usize) {
        if matches!(self.servers[index].standing, Standing::Wiped(_)) {
            self.sights.reach(Situation::WipedRefused);
        }
    }

    /// The operator sees that a replica belongs to the cell no longer.
    pub(crate) fn sight_removed(&mut self, index: usize) {
        if self.servers[index].lost {
            self.sights.reach(Situation::LostReplaced);
        }
    }

    /// A replica's process died.
    pub(crate) fn sight_crash(&mut self, lost: Lost) {
        if lost.writes > 0 {
            self.sights.reach(Situation::CrashLostUnsynced);
        }
        if lost.snapshot {
            self.sights.reach(Situation::CrashDuringSnapshot);
        }
    }

    /// All replicas are about to go down.
    pub(crate) fn sight_power_failure(&mut self) {
        if self.sights.is_anybody_waiting() {
            self.sights.reach(Situation::PowerFailureWithQueue);
        }
        if self.canon.state().delays().next().is_some() {
            self.sights.reach(Situation::PowerFailureWithDelay);
        }
    }

    /// A client is about to die.
    pub(crate) fn sight_client_crash(&mut self, client: usize) {
        let session: Option<SessionId> = self.clients[client].session_id;
        if session.is_some_and(|session| self.sights.holds(session)) {
            self.sights.reach(Situation::ClientDiedHolding);
        }
    }
}

/// The writes that a client has not heard of: to which path, through which handle.
fn writes_of(client: &Client) -> impl Iterator<Item = (&str, u64)> {
    client.calls.values().filter_map(|call| match &call.operation {
        Operation::SetContents(write) => Some((call.path()?, write.handle)),
        _ => None,
    })
}

/// Whether a frame tells of a grant.
fn grants(frame: &ServerFrame) -> bool {
    let results = frame.replies.iter().filter_map(|reply| reply.outcome.as_ref()?.result.as_ref());
    results.into_iter().any(|result| matches!(result, outcome::Result::Granted(_)))
        || frame.events.iter().any(|event| matches!(event.event, Some(event::Event::LockGranted(_))))
}
