//! Three replicas on a table: instant messages, a disk that can be told to wait, a clock that is set by hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use holdfast_proto::client::v1::{self as client, RefusalCode, client_frame};
use holdfast_proto::log::v1::Member;
use holdfast_replica::{
    Boot, CallAnswer, CallId, CallRequest, Config, Input, Joiner, Output, Replica, StateAt, frame_bytes,
    raftpb,
};
use holdfast_state::{Genesis, Settings, State, VERSION_MAX, settings};
use holdfast_types::ledger::{Ledger, LedgerLimits};
use holdfast_types::{ConnectionId, Duration, Principal, ReplicaId, SocketId, Term, Time};
use slog::{Discard, Logger, o};

/// What survives a crash.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) hard_state: raftpb::HardState,
    pub(crate) state: Option<StateAt>,
    pub(crate) entries: Vec<raftpb::Entry>,
}

pub(crate) struct Host {
    pub(crate) replica: Replica,
    pub(crate) disk: Disk,
    /// Answers that the disk owes, and when it gives them.
    pub(crate) persisted: VecDeque<(Time, u64)>,
    /// The disk answers nothing for now.
    pub(crate) slow: bool,
    /// How long its disk takes for a sync of all that has come meanwhile, if that is not as long as all disks take.
    pub(crate) sync: Option<Duration>,
    pub(crate) frames: Vec<(ConnectionId, client::ServerFrame)>,
    pub(crate) answers: BTreeMap<CallId, Result<CallAnswer, client::Refusal>>,
    /// Where the last answer sent its caller.
    pub(crate) master_address: String,
    pub(crate) snapshots_written: usize,
    /// Snapshots cannot be written for now; so many could not be.
    pub(crate) snapshots_refused: Option<usize>,
    pub(crate) snapshots_sent: usize,
    /// How many snapshots of other replicas it has begun to install.
    pub(crate) installs: usize,
    /// What it sends next stays on its way, and stands here.
    pub(crate) on_its_way: Option<u64>,
    pub(crate) handed_over: bool,
}

pub(crate) struct Cell {
    pub(crate) now: Time,
    pub(crate) hosts: BTreeMap<ReplicaId, Host>,
    /// Messages between these are lost, in this direction.
    pub(crate) cut: BTreeSet<(ReplicaId, ReplicaId)>,
    pub(crate) config: fn(Config) -> Config,
    /// How long a disk takes.
    pub(crate) sync: Duration,
    /// What the frames of all replicas count in.
    pub(crate) ledger: Ledger,
}

pub(crate) fn member(id: u64) -> Member {
    let (peer_address, client_address) = (format!("p{id}:1"), format!("c{id}:1"));
    Member { id, data_id: id, peer_address, client_address, learner: false }
}

/// One that can apply what this release can.
pub(crate) fn joiner(id: u64) -> Joiner {
    Joiner { member: member(id), state_version: VERSION_MAX }
}

/// What a cell begins with that was founded at this state version.
pub(crate) fn genesis(version: u32) -> StateAt {
    let members = (1..=3).map(member).collect();
    let settings = settings::complete_at(version, Settings::default()).expect("defaults are");
    let genesis = Genesis { cell: "dev".into(), cell_id: 7, members, settings };
    let state = State::genesis_at(version, genesis);
    StateAt { index: 1, term: Term(1), voters: vec![1, 2, 3], learners: vec![], state }
}

impl Cell {
    pub(crate) fn new(config: fn(Config) -> Config) -> Self {
        Self::founded_at(VERSION_MAX, config)
    }

    /// A cell that was founded at this state version. Its replicas have announced nothing to each other.
    pub(crate) fn founded_at(version: u32, config: fn(Config) -> Config) -> Self {
        let mut cell = Self {
            now: Time::ZERO,
            hosts: BTreeMap::new(),
            cut: BTreeSet::new(),
            config,
            sync: Duration::ZERO,
            ledger: Ledger::new(LedgerLimits::NONE),
        };
        for id in 1..=3 {
            let disk = Disk { state: Some(genesis(version)), ..Disk::default() };
            cell.start(ReplicaId(id), disk);
        }
        cell
    }

    pub(crate) fn start(&mut self, id: ReplicaId, disk: Disk) {
        let config = (self.config)(Config::new(id, 42, self.now.as_nanos() + id.0));
        let boot = Boot {
            hard_state: disk.hard_state.clone(),
            state: disk.state.clone(),
            entries: disk.entries.clone(),
        };
        let logger = Logger::root(Discard, o!());
        let replica = Replica::new(self.now, config, boot, logger).expect("the disk is whole");
        let host = Host {
            replica,
            disk,
            persisted: VecDeque::new(),
            slow: false,
            sync: None,
            frames: Vec::new(),
            answers: BTreeMap::new(),
            master_address: String::new(),
            snapshots_written: 0,
            snapshots_refused: None,
            snapshots_sent: 0,
            installs: 0,
            on_its_way: None,
            handed_over: false,
        };
        self.hosts.insert(id, host);
    }

    /// The process dies; others notice that its connections are reset.
    pub(crate) fn crash(&mut self, id: ReplicaId) -> Disk {
        let host = self.hosts.remove(&id).expect("it runs");
        let others: Vec<_> = self.hosts.keys().copied().collect();
        for other in others {
            self.input(other, Input::PeerReset { peer: id });
        }
        host.disk
    }

    /// The replica `id` connects to all others, and says which state versions it can apply.
    pub(crate) fn announce(&mut self, id: ReplicaId, state_version: u32) {
        for to in self.others(id) {
            self.input(to, Input::PeerAnnounced { peer: id, state_version });
        }
    }

    pub(crate) fn input(&mut self, id: ReplicaId, input: Input) {
        if let Some(host) = self.hosts.get_mut(&id) {
            host.replica.handle(self.now, input).expect("no fault");
        }
    }

    /// Performs outputs until there are none.
    pub(crate) fn settle(&mut self) {
        loop {
            let ids: Vec<_> = self.hosts.keys().copied().collect();
            let mut busy = false;
            for id in ids {
                while let Some(output) = self.next_output(id) {
                    busy = true;
                    self.perform(id, output);
                }
                let host = self.hosts.get_mut(&id).expect("it runs");
                let mut owed = None;
                while !host.slow
                    && let Some((at, number)) = host.persisted.front().copied()
                    && at <= self.now
                {
                    host.persisted.pop_front();
                    owed = Some(number);
                }
                if let Some(number) = owed {
                    busy = true;
                    self.input(id, Input::Persisted { number });
                }
            }
            if !busy {
                return;
            }
        }
    }

    pub(crate) fn next_output(&mut self, id: ReplicaId) -> Option<Output> {
        self.hosts.get_mut(&id)?.replica.poll_output().expect("no fault")
    }

    pub(crate) fn perform(&mut self, id: ReplicaId, output: Output) {
        let host = self.hosts.get_mut(&id).expect("it runs");
        match output {
            Output::Persist(persist) => {
                if let Some(state) = persist.snapshot {
                    host.installs += 1;
                    host.disk.entries.clear();
                    host.disk.state = Some(*state);
                }
                if let Some(hard_state) = persist.hard_state {
                    host.disk.hard_state = hard_state;
                }
                if let Some(first) = persist.entries.first() {
                    host.disk.entries.retain(|entry| entry.index < first.index);
                }
                host.disk.entries.extend(persist.entries);
                if let Some(first) = persist.compact_to {
                    host.disk.entries.retain(|entry| entry.index >= first);
                }
                let at = match (host.sync, host.persisted.front()) {
                    (None, _) => self.now + self.sync,
                    (Some(sync), None) => self.now + sync,
                    // The one that is under way ends first.
                    (Some(sync), Some((ends, _))) => *ends + sync,
                };
                host.persisted.push_back((at, persist.number));
            }
            Output::Peer { to, message, .. } => {
                if !self.cut.contains(&(id, to)) {
                    self.input(to, Input::Peer { from: id, messages: vec![message] });
                }
            }
            Output::SendSnapshot { to, message, state } => {
                host.snapshots_sent += 1;
                let index = state.index;
                if let Some(on_its_way) = &mut host.on_its_way {
                    *on_its_way = index;
                    return;
                }
                let ok = !self.cut.contains(&(id, to)) && self.hosts.contains_key(&to);
                if ok {
                    self.input(to, Input::SnapshotArrived { from: id, message, state });
                }
                self.input(id, Input::SnapshotSent { to, index, ok });
            }
            Output::WriteSnapshot(_) if host.snapshots_refused.is_some() => {
                host.snapshots_refused = host.snapshots_refused.map(|count| count + 1);
                self.input(id, Input::SnapshotFailed { why: "there is no room".to_owned() });
            }
            Output::WriteSnapshot(state) => {
                host.snapshots_written += 1;
                let index = state.index;
                host.disk.state = Some(*state);
                self.input(id, Input::SnapshotWritten { index });
            }
            Output::Frame { connection, frame } => host.frames.push((connection, frame)),
            Output::List { call, list } => {
                assert!(host.answers.insert(call, list.answer()).is_none(), "{call:?} was answered twice");
            }
            Output::Answer { call, answer, master_address } => {
                host.master_address = master_address;
                assert!(host.answers.insert(call, answer).is_none(), "{call:?} was answered twice");
            }
            Output::HandedOver => host.handed_over = true,
            Output::Disconnect { .. } | Output::Members(_) | Output::Leadership { .. } | Output::Removed => {}
        }
    }

    /// Lets time pass, waking whoever wants to be woken.
    pub(crate) fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        self.settle();
        while let Some(next) = self.next_timeout().filter(|next| *next <= until) {
            self.now = self.now.max(next);
            let ids: Vec<_> = self.hosts.keys().copied().collect();
            for id in ids {
                self.input(id, Input::TimePassed);
            }
            self.settle();
        }
        self.now = until;
    }

    pub(crate) fn next_timeout(&self) -> Option<Time> {
        let timeouts = self.hosts.values().filter_map(|host| host.replica.poll_timeout());
        let disks = self.hosts.values().filter(|host| !host.slow);
        let disks = disks.filter_map(|host| host.persisted.front().map(|(at, _)| *at));
        timeouts.chain(disks).min()
    }

    /// Waits until somebody is in office; gives who.
    pub(crate) fn elect(&mut self) -> ReplicaId {
        for _ in 0..1000 {
            self.pass(Duration::from_millis(10));
            let mut masters = self.hosts.iter().filter(|(_, host)| host.replica.is_master());
            if let Some((id, _)) = masters.next() {
                return *id;
            }
        }
        panic!("nobody was elected");
    }

    pub(crate) fn host(&self, id: ReplicaId) -> &Host {
        &self.hosts[&id]
    }

    pub(crate) fn host_mut(&mut self, id: ReplicaId) -> &mut Host {
        self.hosts.get_mut(&id).expect("it runs")
    }

    pub(crate) fn call(&mut self, id: ReplicaId, call: u64, request: CallRequest) {
        self.call_as(Principal::anonymous(), id, call, request);
    }

    pub(crate) fn call_as(&mut self, principal: Principal, id: ReplicaId, call: u64, request: CallRequest) {
        self.input(id, Input::Call { call: CallId(call), principal, socket: SocketId(1), request });
        self.settle();
    }

    /// A call; what follows from it is left to be settled.
    pub(crate) fn hand_in(&mut self, id: ReplicaId, call: u64, request: CallRequest) {
        let (call, principal) = (CallId(call), Principal::anonymous());
        self.input(id, Input::Call { call, principal, socket: SocketId(1), request });
    }

    /// A frame of a client's stream; what follows from it is left to be settled.
    pub(crate) fn frame(&mut self, id: ReplicaId, connection: ConnectionId, frame: client::ClientFrame) {
        let principal = Principal::anonymous();
        let charge = self.ledger.account(&principal).charge_anyway(frame_bytes(&frame));
        self.input(id, Input::Frame { connection, principal, frame, charge });
    }

    pub(crate) fn put(&mut self, id: ReplicaId, call: u64, path: &str, contents: Bytes) {
        let path = path.to_owned();
        let write = client::SetContentsRequest {
            path,
            contents,
            create: true,
            ..client::SetContentsRequest::default()
        };
        self.call(id, call, CallRequest::SetContents(write));
    }

    /// The answer to a call: the code of the refusal if it is one.
    pub(crate) fn answer(&self, id: ReplicaId, call: u64) -> Option<Result<CallAnswer, RefusalCode>> {
        let answer = self.host(id).answers.get(&CallId(call))?;
        Some(answer.clone().map_err(|refusal| refusal.code()))
    }

    pub(crate) fn others(&self, id: ReplicaId) -> Vec<ReplicaId> {
        self.hosts.keys().copied().filter(|other| *other != id).collect()
    }

    /// Cuts every link of `id`, both ways.
    pub(crate) fn isolate(&mut self, id: ReplicaId) {
        for other in self.others(id) {
            self.cut.insert((id, other));
            self.cut.insert((other, id));
        }
    }
}

pub(crate) fn defaults(config: Config) -> Config {
    config
}

/// Every kilobyte of log a snapshot, and hardly a tail.
pub(crate) fn eager_snapshots(config: Config) -> Config {
    Config { snapshot_every_bytes: 1000, log_tail_bytes: 200, ..config }
}

pub(crate) fn open_frame(letter: &str) -> client::ClientFrame {
    let secret = letter.repeat(16).into();
    let open = client::OpenSession { secret, attachment: 1, ..client::OpenSession::default() };
    client::ClientFrame { hello: Some(client_frame::Hello::Open(open)), ..client::ClientFrame::default() }
}
