//! Taking and leaving office, and what clients are told while nobody is known to hold it (design.md §5).

use std::collections::{BTreeMap, VecDeque};

use holdfast_master::{CallId, CallRequest, Master};
use holdfast_proto::client::v1::{self as client, RefusalCode, server_frame};
use holdfast_state::refusal::limit_facts;
use holdfast_types::ledger::Charge;
use holdfast_types::{ConnectionId, Duration, Principal, ReplicaId, SocketId, Term, Time};
use raft::StateRole;
use slog::info;

use crate::{Fault, Output, Replica, propose};

/// How long handing over may take before we give it up.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);
/// Whoever deposed the leader, or was handed the leadership, gets so long to be elected: the time of a few syncs.
const DEPOSED_WAIT: Duration = Duration::from_millis(50);
/// So many calls.
const PARKED_CALLS_MAX: usize = 4096;
/// For so long. Unlike a stream's, a caller's leaving is not heard of, and a write must not land long after it.
const PARKED_CALL_WAIT_MAX: Duration = Duration::from_secs(10);

/// Streams and calls that came while no master was known. They wait, so that a client need not ask again and
/// again during a fail-over: whoever becomes master serves them, the others say who it is. What the frames count for in the
/// ledger of bytes waits with them.
#[derive(Debug, Default)]
pub(crate) struct Parked {
    streams: BTreeMap<ConnectionId, ParkedStream>,
    /// Oldest first.
    calls: VecDeque<ParkedCall>,
}

/// A stream that waits, with what came on it so far.
#[derive(Debug)]
struct ParkedStream {
    principal: Principal,
    frames: Vec<(client::ClientFrame, Charge)>,
}

/// A call that waits.
#[derive(Debug)]
struct ParkedCall {
    since: Time,
    call: CallId,
    principal: Principal,
    socket: SocketId,
    request: CallRequest,
}

impl Parked {
    pub(crate) fn disconnected(&mut self, connection: ConnectionId) {
        self.streams.remove(&connection);
    }

    fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.calls.is_empty()
    }
}

impl Replica {
    pub(crate) fn handle_frame(
        &mut self,
        connection: ConnectionId,
        principal: Principal,
        frame: client::ClientFrame,
        mut charge: Charge,
    ) {
        if let Some(master) = &mut self.master {
            let input = holdfast_master::Input::Frame { connection, principal, frame, charge };
            return master.handle(self.now, &self.state, input);
        }
        // What follows on a stream that was refused concerns nobody.
        if frame.hello.is_none() && !self.parked.streams.contains_key(&connection) {
            return;
        }
        if let Err(full) = charge.keep() {
            self.parked.disconnected(connection);
            let facts = Some(limit_facts(full.limit(), full.maximum() as u64, 0));
            let message = format!("no master is known, and {full}: try again later");
            let refusal = client::Refusal { facts, ..refusal(RefusalCode::Overloaded, message) };
            self.refuse_stream(connection, refusal);
            return;
        }
        let stream = ParkedStream { principal, frames: Vec::new() };
        self.parked.streams.entry(connection).or_insert(stream).frames.push((frame, charge));
    }

    pub(crate) fn handle_call(
        &mut self,
        call: CallId,
        principal: Principal,
        socket: SocketId,
        request: CallRequest,
    ) -> Result<(), Fault> {
        if self.master.is_none() {
            if self.parked.calls.len() >= PARKED_CALLS_MAX {
                self.answer_refused(call, too_many_parked());
            } else {
                let parked = ParkedCall { since: self.now, call, principal, socket, request };
                self.parked.calls.push_back(parked);
            }
            return Ok(());
        }
        if is_membership(&request)
            && let Err(refusal) = self.state.may_administer(&principal)
        {
            self.answer_refused(call, refusal);
            return Ok(());
        }
        match request {
            CallRequest::AddMember(joiner) => self.add_member(call, joiner),
            CallRequest::PromoteMember(id) => self.promote_member(call, id),
            CallRequest::RemoveMember(id) => self.remove_member(call, id),
            request => {
                if let Some(master) = &mut self.master {
                    let input = holdfast_master::Input::Call { call, principal, socket, request };
                    master.handle(self.now, &self.state, input);
                }
                Ok(())
            }
        }
    }

    /// Deals with what is parked, if it is known by now who is master. Tells whether there was anything.
    pub(crate) fn settle_parked(&mut self) -> Result<bool, Fault> {
        let elsewhere =
            self.raw.raft.leader_id != raft::INVALID_ID && self.raw.raft.state != StateRole::Leader;
        if self.parked.is_empty() || !(self.master.is_some() || elsewhere) {
            return Ok(false);
        }
        let Parked { streams, calls, .. } = std::mem::take(&mut self.parked);
        for (connection, ParkedStream { principal, frames }) in streams {
            if elsewhere {
                self.refuse_stream(connection, self.not_master());
                continue;
            }
            for (frame, charge) in frames {
                self.handle_frame(connection, principal.clone(), frame, charge);
            }
        }
        for ParkedCall { call, principal, socket, request, .. } in calls {
            if elsewhere {
                self.answer_refused(call, self.not_master());
            } else {
                self.handle_call(call, principal, socket, request)?;
            }
        }
        Ok(true)
    }

    /// A call's caller waits no longer.
    pub(crate) fn withdraw_call(&mut self, call: CallId) {
        if let Some(master) = &mut self.master {
            return master.handle(self.now, &self.state, holdfast_master::Input::Withdraw(call));
        }
        let parked = self.parked.calls.len();
        self.parked.calls.retain(|parked| parked.call != call);
        if self.parked.calls.len() < parked {
            self.answer_refused(call, self.not_master());
        }
    }

    /// Refuses the calls that have waited for a master for too long.
    pub(crate) fn refuse_stale_calls(&mut self) {
        while let Some(ParkedCall { since, call, .. }) = self.parked.calls.front()
            && self.now.since(*since) >= PARKED_CALL_WAIT_MAX
        {
            let call = *call;
            self.parked.calls.pop_front();
            self.answer_refused(call, self.not_master());
        }
    }

    /// Leaves office if the term of office is over. To be called after everything that may change raft's role,
    /// before the master hears of anything else: its soft state must not outlive its term.
    pub(crate) fn check_office(&mut self) {
        let raft = &self.raw.raft;
        let over = |master: &Master| raft.state != StateRole::Leader || raft.term != master.term().0;
        if !self.master.as_ref().is_some_and(over) {
            return;
        }
        let Some(mut master) = self.master.take() else { return };
        info!(self.logger, "out of office"; "term" => master.term().0);
        if propose::outlives_office() {
            self.proposals.outlive(&mut master);
        } else {
            self.proposals.clear();
        }
        self.rounds.clear();
        self.confirmed.clear();
        let abandoned = master.abandon();
        for connection in abandoned.connections {
            self.refuse_stream(connection, self.not_master());
        }
        for call in abandoned.calls {
            self.answer_refused(call, self.not_master());
        }
        for (call, answer) in abandoned.answers {
            self.outputs.push_back(Output::Answer { call, answer, master_address: String::new() });
        }
        let pending = self.membership.take().map(|pending| pending.call);
        for call in abandoned.calls_unknown.into_iter().chain(pending) {
            let message = "the master lost its office before the call was decided: it may yet take effect";
            self.answer_refused(call, refusal(RefusalCode::OutcomeUnknown, message));
        }
        self.check_handing_over();
    }

    /// Gives the leadership to whoever is most up to date.
    pub(crate) fn hand_over(&mut self) {
        let own = self.config.id.0;
        let raft = &self.raw.raft;
        let voters = self.raw.store().conf_state().get_voters();
        // When raft has just checked its quorum, it has forgotten whom it heard, and nobody has answered since.
        let forgotten = raft.election_elapsed <= self.config.heartbeat_ticks;
        let heir = voters
            .iter()
            .filter(|id| **id != own)
            .filter_map(|id| Some((raft.prs().get(*id)?, *id)))
            .filter(|(progress, _)| progress.recent_active || forgotten)
            .max_by_key(|(progress, id)| (progress.recent_active, progress.matched, std::cmp::Reverse(*id)));
        match heir {
            Some((_, heir)) if raft.state == StateRole::Leader => {
                info!(self.logger, "handing over"; "to" => heir);
                self.raw.transfer_leader(heir);
                self.handing_over = Some(self.now + HAND_OVER_MAX);
            }
            _ => self.outputs.push_back(Output::HandedOver),
        }
    }

    pub(crate) fn check_handing_over(&mut self) {
        let Some(until) = self.handing_over else { return };
        if self.raw.raft.state != StateRole::Leader || self.now >= until {
            self.handing_over = None;
            self.outputs.push_back(Output::HandedOver);
        }
    }

    /// Tells who leads, if that has changed. If nobody does any more, and nobody's connection was reset, then a
    /// candidate with a later term has deposed the leader. It may well be one that cannot win, and no reset will
    /// ever come: so this campaigns too, if there is still nobody after a while.
    pub(crate) fn tell_leadership(&mut self) {
        let raft = &self.raw.raft;
        let master = (raft.leader_id != raft::INVALID_ID).then_some(ReplicaId(raft.leader_id));
        let now = (master, Term(raft.term));
        if master.is_some() {
            self.election.leader_found();
        } else if self.told.0.is_some() && self.handing_over.is_none() && self.election.next().is_none() {
            self.campaign_eagerly(raft::INVALID_ID, DEPOSED_WAIT);
        }
        if self.told != now {
            self.told = now;
            self.outputs.push_back(Output::Leadership { master, term: now.1 });
        }
    }

    /// Where the master serves clients, if it is known.
    pub(crate) fn master_address(&self) -> String {
        let leader = self.state.member(ReplicaId(self.raw.raft.leader_id));
        leader.map(|member| member.client_address.clone()).unwrap_or_default()
    }

    fn refuse_stream(&mut self, connection: ConnectionId, refusal: client::Refusal) {
        let master_address = self.master_address();
        let refused = client::StreamRefused { refusal: Some(refusal), master_address };
        let hello = Some(server_frame::Hello::Refused(refused));
        let frame = client::ServerFrame { hello, ..client::ServerFrame::default() };
        self.outputs.push_back(Output::Frame { connection, frame });
        self.outputs.push_back(Output::Disconnect { connection });
    }

    pub(crate) fn answer_refused(&mut self, call: CallId, refusal: client::Refusal) {
        let is_elsewhere = refusal.code == i32::from(RefusalCode::NotMaster);
        let master_address = if is_elsewhere { self.master_address() } else { String::new() };
        self.outputs.push_back(Output::Answer { call, answer: Err(refusal), master_address });
    }

    pub(crate) fn not_master(&self) -> client::Refusal {
        let address = self.master_address();
        let message = if address.is_empty() {
            format!("replica {} is not the master, and knows of none: try again", self.config.id.0)
        } else {
            format!("replica {} is not the master: try {address}", self.config.id.0)
        };
        refusal(RefusalCode::NotMaster, message)
    }
}

/// Whether the call is one that the replica sees to itself.
fn is_membership(request: &CallRequest) -> bool {
    matches!(
        request,
        CallRequest::AddMember(_) | CallRequest::PromoteMember(_) | CallRequest::RemoveMember(_)
    )
}

/// A refusal.
pub(crate) fn refusal(code: RefusalCode, message: impl Into<String>) -> client::Refusal {
    client::Refusal { code: code.into(), message: message.into(), ..Default::default() }
}

fn too_many_parked() -> client::Refusal {
    let facts = Some(limit_facts("parked_calls_max", PARKED_CALLS_MAX as u64, PARKED_CALLS_MAX as u64 + 1));
    let message = "no master is known, and too many wait for one already: try again later";
    client::Refusal { facts, ..refusal(RefusalCode::Overloaded, message) }
}
