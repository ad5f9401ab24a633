//! A replica: raft-rs's `RawNode`, the replicated state and, in office, the master, as one pure machine.
//!
//! It orders. Inputs go in by [`Replica::handle`]; when a batch of them is through, [`Replica::poll_output`]
//! gives what is to be done, in an order that is the contract. Commands that the master proposed meanwhile share
//! one raft entry: that is where the throughput comes from.
//!
//! What matters here, and where it is:
//! - *Asynchronous persistence* (`ready`): a leader's messages go out at once, a follower's after its disk has
//!   what they promise; entries are applied when committed, whoever made them so.
//! - *Batches are void unless their master still was one* (`propose`, and `State::apply_batch`). Proposals and
//!   read-index requests that other replicas forward are dropped: a deposed master's decision must never be
//!   committed by its successor.
//! - *Office* (`office`): a [`Master`] exists from the commit of the term's first entry until the term ends.
//! - *Chance* is raft's election time-out alone, and comes from the seed (`election`).
//!
//! Caveats: raft-rs panics on impossible input from a peer that it trusts. So peers are checked before they are let in
//! (daemon, `peers`), and what they say before raft hears it (`hearsay`): bytes that are no message, and messages that
//! nobody sends, are dropped; one that contradicts the log here is a [`Fault`]. A snapshot's contents travel outside
//! raft: the message only says where it stands.

#![forbid(unsafe_code)]

pub mod admission;
mod disk;
mod election;
mod hearsay;
mod interface;
mod lock_out;
mod log;
mod membership;
mod office;
mod propose;
pub mod raft_bytes;
mod raft_log;
mod ready;
pub mod recovery;
mod snapshots;
mod upgrade;

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use holdfast_master::{Master, RoundId};
use holdfast_proto::client::v1 as client;
use holdfast_state::{Effect, State};
use holdfast_types::{ConnectionId, Duration, ReplicaId, Term, Time, planted};
use raft::{RawNode, StateRole};
use slog::{Logger, debug, warn};

pub use holdfast_master::{
    Asked, CallAnswer, CallId, CallRequest, Joiner, List, PastStream, frame_bytes, request_bytes,
};
pub use interface::{Boot, Config, Fault, Input, Output, Persist, StateAt};
pub use lock_out::OVERRIDE_FOR;
/// raft's own messages, for whoever stores them. Nobody else need look inside.
pub use raft::eraftpb as raftpb;

use election::Election;
use hearsay::{Doubt, Known};
use log::Log;
use ready::Unpersisted;
use snapshots::Snapshots;

/// One replica of a cell.
pub struct Replica {
    config: Config,
    logger: Logger,
    /// When something last happened. Only rises.
    now: Time,
    raw: RawNode<Log>,
    /// What the log up to the applied entry has made.
    state: State,
    /// In office: from the first commit of our own term to the term's end.
    master: Option<Master>,
    /// When raft ticks next.
    next_tick: Time,
    election: Election,
    /// What the master has proposed and raft has not taken yet.
    proposals: propose::Proposals,
    /// The last number in a read-index context.
    last_context: u64,
    /// Rounds that raft is running, by the number in their context.
    rounds: BTreeMap<u64, RoundId>,
    /// Rounds that are confirmed once so much is applied.
    confirmed: VecDeque<(u64, RoundId)>,
    /// Readies whose effects wait for the disk, oldest first.
    unpersisted: VecDeque<Unpersisted>,
    /// Of the entries in these.
    unpersisted_bytes: u64,
    /// When a heartbeat was last answered before the disk had what came before it.
    prompt_at: Time,
    /// Entries that raft has given out as committed, and that are not applied yet, oldest first.
    committed: VecDeque<raftpb::Entry>,
    /// The snapshot that a message just stepped belongs to.
    incoming: Option<Box<StateAt>>,
    snapshots: Snapshots,
    disk: disk::DiskWatch,
    /// What the present turn has done; `None` between turns.
    turn: Option<ready::Turn>,
    /// The last turn left something for the next one, of raft's or to be applied.
    is_behind: bool,
    /// Streams and calls that came while no master was known.
    parked: office::Parked,
    /// A membership change that is proposed: whom to answer.
    membership: Option<membership::Pending>,
    /// Which state versions the members can apply.
    upgrade: upgrade::Upgrade,
    /// Another bootstrap principal that an operator wants, until the log says so.
    overriding: Option<lock_out::Override>,
    /// When to give up handing over; set while we do.
    handing_over: Option<Time>,
    /// What was last told of who leads.
    told: (Option<ReplicaId>, Term),
    outputs: VecDeque<Output>,
    /// Reused by every apply.
    effects: Vec<Effect>,
}

/// One message between replicas has entries of so many bytes, or a single one that is larger: what a connection that
/// loses packets brings before it breaks is then kept, and not sent anew with all that was to come after it.
const APPEND_BYTES_MAX: u64 = 256 << 10;

impl Replica {
    /// Starts from what the disk has.
    ///
    /// # Errors
    ///
    /// A [`Fault`] if that is not whole.
    pub fn new(now: Time, config: Config, mut boot: Boot, logger: Logger) -> Result<Self, Fault> {
        let log = Log::new(&mut boot)?;
        let applied = log.applied();
        let raft_config = raft::Config {
            id: config.id.0,
            election_tick: config.election_ticks,
            // Raft draws from here and is told another one at once: the longest that it may be told.
            max_election_tick: config.election_ticks * 2 * election::PATIENCE_MAX,
            heartbeat_tick: config.heartbeat_ticks,
            applied: applied.index,
            max_size_per_msg: APPEND_BYTES_MAX,
            max_inflight_msgs: 256,
            check_quorum: true,
            pre_vote: true,
            max_uncommitted_size: propose::UNCOMMITTED_BYTES_MAX,
            max_committed_size_per_ready: ready::APPLY_BYTES_MAX,
            // A commit is told with the next entries or the next heartbeat. A message of its own for it would
            // double what an idle cell sends for a command, and followers answer nobody.
            skip_bcast_commit: true,
            ..raft::Config::default()
        };
        let raw = RawNode::new(&raft_config, log, &raft_log::logger(&logger))?;
        let state = match boot.state {
            Some(at) => at.state,
            // A replica that has yet to join has nothing; its first snapshot replaces this.
            None => State::genesis(holdfast_state::Genesis {
                cell: "joining".to_owned(),
                cell_id: 0,
                members: Vec::new(),
                settings: holdfast_state::settings::defaults(),
            }),
        };
        let mut replica = Self {
            now,
            next_tick: now + Duration::from_millis(config.tick_ms),
            election: Election::new(config.id, config.seed),
            raw,
            state,
            master: None,
            proposals: propose::Proposals::default(),
            last_context: 0,
            rounds: BTreeMap::new(),
            confirmed: VecDeque::new(),
            unpersisted: VecDeque::new(),
            unpersisted_bytes: 0,
            prompt_at: Time::ZERO,
            committed: VecDeque::new(),
            incoming: None,
            snapshots: Snapshots::new(applied.index),
            disk: disk::DiskWatch::default(),
            turn: None,
            is_behind: false,
            parked: office::Parked::default(),
            membership: None,
            upgrade: upgrade::Upgrade::default(),
            overriding: config
                .override_bootstrap_principal
                .clone()
                .map(|principal| lock_out::Override::new(principal, now)),
            handing_over: None,
            told: (None, Term(0)),
            outputs: VecDeque::new(),
            effects: Vec::new(),
            config,
            logger,
        };
        replica.set_election_timeout();
        replica.tell_members();
        // Whoever starts knows of no leader. If there is one, the pre-vote is refused and its heartbeat comes; if
        // all have just started, nobody has to wait for a time-out.
        replica.campaign_eagerly(raft::INVALID_ID, Duration::ZERO);
        Ok(replica)
    }

    /// Takes up one input. What is to be done about it comes from [`Replica::poll_output`], once for a whole
    /// batch of inputs.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: the process must stop.
    pub fn handle(&mut self, now: Time, input: Input) -> Result<(), Fault> {
        self.notice_standstill(now);
        self.now = self.now.max(now);
        self.begin_turn();
        if planted!(StalledMasterEnds)
            && let Some(master) = &mut self.master
        {
            master.handle(self.now, &self.state, holdfast_master::Input::TimePassed);
        }
        match input {
            Input::TimePassed => self.handle_time()?,
            Input::Peer { from, messages } => self.handle_peer(from, &messages)?,
            Input::PeerReset { peer } => self.handle_peer_reset(peer),
            Input::PeerAnnounced { peer, state_version } => self.handle_announced(peer, state_version),
            Input::Persisted { number } => self.handle_persisted(number)?,
            Input::SnapshotArrived { from, message, state } => {
                self.handle_snapshot_arrived(from, &message, state)?;
            }
            Input::SnapshotSent { to, index, ok } => self.handle_snapshot_sent(to, index, ok),
            Input::SnapshotWritten { index } => self.handle_snapshot_written(index),
            Input::SnapshotFailed { why } => self.handle_snapshot_failed(&why),
            Input::Frame { connection, principal, frame, charge } => {
                self.handle_frame(connection, principal, frame, charge);
            }
            Input::Disconnected { connection } => self.handle_disconnected(connection),
            Input::Withdraw { call } => self.withdraw_call(call),
            Input::Call { call, principal, socket, request } => {
                self.handle_call(call, principal, socket, request)?;
            }
            Input::HandOver => self.hand_over(),
            Input::Unheard { since } => {
                if let Some(master) = &mut self.master {
                    master.handle(self.now, &self.state, holdfast_master::Input::Unheard { since });
                }
            }
        }
        self.check_office();
        Ok(())
    }

    /// The next thing to be done.
    ///
    /// # Errors
    ///
    /// A [`Fault`]: the process must stop.
    pub fn poll_output(&mut self) -> Result<Option<Output>, Fault> {
        if self.outputs.is_empty() {
            self.work()?;
        }
        let output = self.outputs.pop_front();
        if output.is_none() {
            self.turn = None;
        }
        Ok(output)
    }

    /// When to come back with [`Input::TimePassed`] if nothing else happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        if self.is_behind {
            return Some(self.now);
        }
        let master = self.master.as_ref().and_then(Master::poll_timeout);
        [Some(self.next_tick), self.election.next(), master].into_iter().flatten().min()
    }

    /// The replicated state, as far as it is applied here.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The last entry applied.
    #[must_use]
    pub fn applied_index(&self) -> u64 {
        self.raw.store().applied().index
    }

    /// The raft term.
    #[must_use]
    pub fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    /// Whether a master is in office here.
    #[must_use]
    pub fn is_master(&self) -> bool {
        self.master.is_some()
    }

    /// What the last turn has cost the master of what clients ask for, in the units of its `turn_work`; 0 out of office.
    #[must_use]
    pub fn turn_work_done(&self) -> u64 {
        self.master.as_ref().map_or(0, Master::turn_work_done)
    }

    /// How many batches of proposals raft has not taken: it dropped the first, and will be given it again.
    #[must_use]
    pub fn batches_waiting(&self) -> usize {
        self.proposals.waiting()
    }

    /// This replica's view of itself and the cell.
    #[must_use]
    pub fn status(&self) -> client::StatusResponse {
        let raft = &self.raw.raft;
        let role = match raft.state {
            StateRole::Leader => client::Role::Master,
            StateRole::Candidate | StateRole::PreCandidate => client::Role::Candidate,
            StateRole::Follower if raft.promotable() => client::Role::Follower,
            StateRole::Follower => client::Role::Learner,
        };
        client::StatusResponse {
            cell: self.state.cell().to_owned(),
            cell_id: self.state.cell_id(),
            replica: self.config.id.0,
            role: role.into(),
            master: raft.leader_id,
            master_address: self.master_address(),
            term: raft.term,
            applied_index: self.applied_index(),
            commit_index: raft.raft_log.committed,
            revision: self.state.revision().0,
            sessions: self.state.session_count() as u64,
            nodes: self.state.node_count() as u64,
            members: self.member_statuses(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            attached: self.master.as_ref().map_or(0, Master::attached) as u64,
            // Whoever serves the caller knows who it is, and whether that wants a hash.
            principal: String::new(),
            state_hash: None,
            state_version: self.state.version(),
        }
    }

    fn handle_time(&mut self) -> Result<(), Fault> {
        let may_campaign = !self.is_installing();
        if self.now >= self.next_tick {
            if may_campaign {
                self.raw.tick();
                self.set_election_timeout();
            }
            self.watch_disk();
            // Ticks that were missed are not made up for: a replica that slept must first hear what came.
            self.next_tick = self.now + Duration::from_millis(self.config.tick_ms);
        }
        // Asked first, because it sets the next time.
        let due = self.election.due(self.now, self.term());
        if due && may_campaign && self.raw.raft.leader_id == raft::INVALID_ID {
            self.raw.campaign()?;
            self.set_election_timeout();
        }
        self.check_office();
        if let Some(master) = &mut self.master {
            master.handle(self.now, &self.state, holdfast_master::Input::TimePassed);
        }
        self.check_handing_over();
        self.refuse_stale_calls();
        self.retry_snapshot();
        Ok(())
    }

    fn handle_peer(&mut self, from: ReplicaId, messages: &[Bytes]) -> Result<(), Fault> {
        for bytes in messages {
            let Some(message) = self.decode(from, bytes)? else { continue };
            if message.get_msg_type() == raftpb::MessageType::MsgSnapshot {
                debug!(self.logger, "a snapshot's message came without the snapshot"; "from" => from.0);
                continue;
            }
            self.step(message)?;
        }
        Ok(())
    }

    /// A message of raft's that can be; `None` if it is none, or cannot.
    fn decode(&self, from: ReplicaId, bytes: &Bytes) -> Result<Option<raftpb::Message>, Fault> {
        let message = match raft_bytes::parse::<raftpb::Message>(bytes) {
            Ok(message) => message,
            Err(error) => {
                warn!(self.logger, "a peer's message is not raft's"; "from" => from.0, "error" => %error);
                return Ok(None);
            }
        };
        if message.from != from.0 {
            warn!(self.logger, "a peer's message is not its own"; "from" => from.0);
            return Ok(None);
        }
        let raft = &self.raw.raft;
        let known = Known { role: raft.state, term: raft.term, last: raft.raft_log.last_index() };
        match hearsay::check(&message, known) {
            Ok(()) => Ok(Some(message)),
            Err(Doubt::Malformed(why)) => {
                warn!(self.logger, "a peer's message cannot be: {why}"; "from" => from.0);
                Ok(None)
            }
            Err(Doubt::Contradiction(why)) => Err(Fault::new(format!("{from} {why}"))),
            Err(Doubt::DataLost(why)) => Err(Fault::data_lost(format!("{from} {why}"))),
        }
    }

    fn step(&mut self, message: raftpb::Message) -> Result<(), Fault> {
        self.forget_deposed(&message);
        let stepped = self.raw.step(message);
        self.set_election_timeout();
        self.check_office();
        match stepped {
            // Whoever is not, or no longer, in the cell says things that do not concern us.
            Ok(()) | Err(raft::Error::StepPeerNotFound | raft::Error::StepLocalMsg) => Ok(()),
            Err(raft::Error::ProposalDropped) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn handle_disconnected(&mut self, connection: ConnectionId) {
        self.parked.disconnected(connection);
        if let Some(master) = &mut self.master {
            master.handle(self.now, &self.state, holdfast_master::Input::Disconnected { connection });
        }
    }
}
