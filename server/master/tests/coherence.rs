//! Clients that cache, against a master that is driven by chance: whatever happens, no client that may believe in its
//! session has a copy that a change has made stale (I5), and in the end nothing is left waiting (I10).
//!
//! Frames, commits and rounds come late and in any order that one stream and one log allow; streams break, clients stop
//! and come back, masters lose their office. The whole system, with real clients, is the simulator's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_master::{CallId, CallRequest, Config, Input, Master, Output, RoundId, frame_bytes};
use holdfast_proto::client::v1::{
    self as client, ClientFrame, ServerFrame, client_frame, outcome, request::Operation, server_frame::Hello,
};
use holdfast_proto::log::v1::Command;
use holdfast_state::{Genesis, State, settings};
use holdfast_types::ledger::{Ledger, LedgerLimits};
use holdfast_types::{ConnectionId, Duration, Principal, SocketId, Term, Time};

const CLIENTS: usize = 4;
const LEASE_MS: u32 = 2_000;
const DIRECTORY: &str = "/d";
const FILES: [&str; 3] = ["/d/a", "/d/b", "/c"];

/// What a client has asked and not been answered.
#[derive(Clone, Debug)]
enum Asked {
    Open(&'static str),
    Read(&'static str),
    Change,
}

/// A client, as far as caches are concerned.
#[derive(Debug, Default)]
struct Client {
    /// Names the session's opening; another one for each session.
    secret: u64,
    session: Option<u64>,
    attachment: u64,
    stream: Option<ConnectionId>,
    /// The master has answered the stream's hello.
    is_attached: bool,
    /// Frames on their way to it.
    inbox: VecDeque<ServerFrame>,
    /// The last number of a request.
    last: u64,
    asked: BTreeMap<u64, Asked>,
    /// Its caching handles.
    handles: BTreeMap<&'static str, u64>,
    /// What it has cached: the content generation or children generation; `None`: that there is no such file.
    cache: BTreeMap<&'static str, Option<u64>>,
    /// It may believe its cache before this.
    valid_until: Time,
    /// When it sent the KeepAlive that is under way.
    keep_alive: Option<Time>,
    /// The last one's number.
    keep_alive_number: u64,
    /// It does nothing for now.
    is_stopped: bool,
}

struct World {
    random: u64,
    now: Time,
    term: u64,
    config: Config,
    state: State,
    master: Master,
    proposed: VecDeque<Command>,
    rounds: VecDeque<RoundId>,
    last_connection: u64,
    last_secret: u64,
    clients: Vec<Client>,
    calls: BTreeSet<u64>,
    last_call: u64,
    /// What the frames count in.
    ledger: Ledger,
}

impl World {
    fn new(seed: u64) -> Self {
        let settings = settings::defaults();
        let members = Vec::new();
        let state = State::genesis(Genesis { cell: "dev".into(), cell_id: 7, members, settings });
        // Every other master does one thing or two in a turn, so that frames, rounds and commits come between them.
        let config =
            Config { turn_work: if seed.is_multiple_of(2) { 1 << 20 } else { 300 }, ..Config::default() };
        let master = Master::new(Time::ZERO, Term(1), config.clone(), &state);
        let mut world = Self {
            random: seed,
            now: Time::ZERO,
            term: 1,
            config,
            state,
            master,
            proposed: VecDeque::new(),
            rounds: VecDeque::new(),
            last_connection: 0,
            last_secret: 0,
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            calls: BTreeSet::new(),
            last_call: 0,
            ledger: Ledger::new(LedgerLimits::NONE),
        };
        let kind = client::NodeKind::Directory.into();
        let (path, if_generation) = (DIRECTORY.to_owned(), Some(0));
        world.call(CallRequest::SetContents(client::SetContentsRequest {
            path,
            kind,
            if_generation,
            ..client::SetContentsRequest::default()
        }));
        world.commit(usize::MAX);
        world
    }

    /// SplitMix64.
    fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    fn input(&mut self, input: Input) {
        self.master.handle(self.now, &self.state, input);
        self.perform();
    }

    fn perform(&mut self) {
        self.master.handle(self.now, &self.state, Input::TurnBegins);
        self.master.handle(self.now, &self.state, Input::Work { log_bytes: 0 });
        while let Some(output) = self.master.poll_output() {
            match output {
                Output::Propose(command) => self.proposed.push_back(command),
                Output::Confirm(round) => self.rounds.push_back(round),
                Output::Frame { connection, frame } => {
                    let to = self.clients.iter_mut().find(|client| client.stream == Some(connection));
                    to.into_iter().for_each(|client| client.inbox.push_back(frame.clone()));
                }
                Output::Disconnect { .. } => {}
                Output::Answer { call, .. } | Output::List { call, .. } => {
                    assert!(self.calls.remove(&call.0), "{call:?} is answered once")
                }
            }
        }
    }

    /// Applies some of what is proposed, as one batch. No copy that may be believed is stale afterwards.
    fn commit(&mut self, count: usize) {
        let mut effects = Vec::new();
        for command in self.proposed.drain(..count.min(self.proposed.len())) {
            self.state.apply(command, &mut effects).expect("no fault");
        }
        for index in 0..self.clients.len() {
            self.check(index);
        }
        for effect in effects {
            self.master.handle(self.now, &self.state, Input::Applied(effect));
        }
        self.perform();
    }

    fn check(&self, index: usize) {
        let client = &self.clients[index];
        if self.now >= client.valid_until {
            return;
        }
        for (path, cached) in &client.cache {
            assert_eq!(*cached, self.generation(path), "client {index}'s copy of {path}: {client:?}");
        }
    }

    /// What a copy of the node must be of; `None` if there is no such node.
    fn generation(&self, path: &str) -> Option<u64> {
        let stat = self.state.read_stat(&Principal::anonymous(), path).ok()?;
        Some(if path == DIRECTORY { stat.children_generation } else { stat.content_generation })
    }

    fn confirm(&mut self) {
        if let Some(round) = self.rounds.pop_front() {
            self.input(Input::Confirmed(round));
        }
    }

    fn pass(&mut self, millis: u64) {
        for _ in 0..millis.div_ceil(100) {
            self.now += Duration::from_millis(100);
            self.input(Input::TimePassed);
        }
    }

    fn call(&mut self, request: CallRequest) {
        self.last_call += 1;
        self.calls.insert(self.last_call);
        let (call, principal) = (CallId(self.last_call), Principal::anonymous());
        self.input(Input::Call { call, principal, socket: SocketId(1), request });
    }

    fn fail_over(&mut self) {
        if self.below(2) == 0 {
            self.commit(usize::MAX);
        }
        self.proposed.clear();
        self.rounds.clear();
        self.calls.clear();
        self.term += 1;
        self.master = Master::new(self.now, Term(self.term), self.config.clone(), &self.state);
        for client in &mut self.clients {
            client.leave();
        }
        self.perform();
    }

    fn send(&mut self, index: usize, frame: ClientFrame) {
        if let Some(connection) = self.clients[index].stream {
            let principal = Principal::anonymous();
            let charge = self.ledger.account(&principal).charge_anyway(frame_bytes(&frame));
            self.input(Input::Frame { connection, principal, frame, charge });
        }
    }

    /// Opens a session, or attaches to the one that there is. The cache is emptied first.
    fn connect(&mut self, index: usize) {
        self.last_connection += 1;
        let client = &mut self.clients[index];
        client.cache.clear();
        client.attachment += 1;
        client.stream = Some(ConnectionId(self.last_connection));
        client.keep_alive = Some(self.now);
        if client.secret == 0 {
            self.last_secret += 1;
            client.secret = self.last_secret;
        }
        let (attachment, secret) = (client.attachment, client.secret.to_be_bytes().repeat(2).into());
        let hello = match client.session {
            None => client_frame::Hello::Open(client::OpenSession {
                secret,
                attachment,
                lease_ms: LEASE_MS,
                ..client::OpenSession::default()
            }),
            Some(session) => client_frame::Hello::Attach(client::AttachSession {
                session,
                secret,
                attachment,
                ..client::AttachSession::default()
            }),
        };
        self.send(index, ClientFrame { hello: Some(hello), ..ClientFrame::default() });
    }

    /// The client takes up one frame, and acknowledges its notices.
    fn receive(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(frame) = client.inbox.pop_front() else { return };
        let through = frame.notices.iter().map(|notice| notice.number).max();
        let is_over = client.take_up(self.now, frame);
        if is_over {
            *client = Client::default();
            return;
        }
        self.check(index);
        if let Some(notices_through) = through {
            self.send(index, ClientFrame { notices_through, ..ClientFrame::default() });
        }
    }

    fn ask(&mut self, index: usize, asked: Asked, operation: Operation) {
        let client = &mut self.clients[index];
        if !client.is_attached {
            return;
        }
        client.last += 1;
        let number = client.last;
        client.asked.insert(number, asked);
        let requests = vec![client::Request { number, operation: Some(operation) }];
        self.send(index, ClientFrame { requests, ..ClientFrame::default() });
    }

    fn keep_alive(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if client.is_attached && client.keep_alive.is_none() {
            client.keep_alive = Some(self.now);
            client.keep_alive_number += 1;
            let keep_alive = Some(client::KeepAlive { number: client.keep_alive_number });
            self.send(index, ClientFrame { keep_alive, ..ClientFrame::default() });
        }
    }

    /// Reads or changes something, through a handle or by name.
    fn act(&mut self, index: usize) {
        let file = FILES[usize::try_from(self.below(3)).expect("small")];
        let handle = self.clients[index].handles.get(file).copied();
        let directory = self.clients[index].handles.get(DIRECTORY).copied();
        match (self.below(9), handle, directory) {
            (0 | 1, Some(handle), _) => {
                self.ask(index, Asked::Read(file), Operation::GetContents(client::GetContents { handle }));
            }
            (2 | 3, _, Some(handle)) => {
                let list = client::ReadDir { handle, ..client::ReadDir::default() };
                self.ask(index, Asked::Read(DIRECTORY), Operation::ReadDir(list));
            }
            (4, Some(handle), _) => {
                let write = client::SetContents { handle, ..client::SetContents::default() };
                self.ask(index, Asked::Change, Operation::SetContents(write));
            }
            (5, Some(handle), _) => {
                self.clients[index].close(file);
                self.ask(index, Asked::Change, Operation::Close(client::Close { handle }));
            }
            (6, Some(handle), _) => {
                self.ask(index, Asked::Change, Operation::Delete(client::Delete { handle }));
            }
            (7, ..) => {
                let (path, create) = (file.to_owned(), true);
                let write = client::SetContentsRequest { path, create, ..Default::default() };
                self.call(CallRequest::SetContents(write));
            }
            (8, _, None) => self.open(index, DIRECTORY, client::Creation::Unspecified),
            (kind, ..) => {
                let creation =
                    if kind % 2 == 0 { client::Creation::May } else { client::Creation::Unspecified };
                self.open(index, file, creation);
            }
        }
    }

    fn open(&mut self, index: usize, path: &'static str, creation: client::Creation) {
        let (creation, caching) = (creation.into(), true);
        let open = client::Open { path: path.to_owned(), creation, caching, ..client::Open::default() };
        self.ask(index, Asked::Open(path), Operation::Open(Box::new(open)));
    }

    fn step(&mut self) {
        let index = usize::try_from(self.below(CLIENTS as u64)).expect("small");
        let is_stopped = self.clients[index].is_stopped;
        match self.below(100) {
            0 => self.fail_over(),
            1 => self.clients[index].is_stopped = !is_stopped,
            2 if !is_stopped => {
                if let Some(connection) = self.clients[index].stream {
                    self.clients[index].leave();
                    self.input(Input::Disconnected { connection });
                }
            }
            3..15 => self.pass(100),
            15..35 => {
                let count = usize::try_from(self.below(4)).expect("small");
                self.commit(count);
            }
            35..50 => self.confirm(),
            _ if is_stopped => {}
            50..70 if !self.clients[index].inbox.is_empty() => self.receive(index),
            _ if self.clients[index].stream.is_none() => self.connect(index),
            70..76 => self.keep_alive(index),
            _ => self.act(index),
        }
    }

    /// Everything that is under way ends, without any more faults.
    fn settle(&mut self) {
        for _ in 0..400 {
            for index in 0..CLIENTS {
                self.clients[index].is_stopped = false;
                if self.clients[index].stream.is_none() {
                    self.connect(index);
                }
                self.keep_alive(index);
                while !self.clients[index].inbox.is_empty() {
                    self.receive(index);
                }
            }
            self.commit(usize::MAX);
            self.confirm();
            self.pass(100);
        }
    }
}

impl Client {
    fn leave(&mut self) {
        self.stream = None;
        self.is_attached = false;
        self.inbox.clear();
        self.keep_alive = None;
        // A request that was not answered is not repeated here: that it is answered once is shown elsewhere.
        self.asked.clear();
    }

    fn close(&mut self, path: &'static str) {
        self.handles.remove(path);
        self.cache.remove(path);
    }

    /// Replies before notices. Tells whether the session is over.
    fn take_up(&mut self, now: Time, frame: ServerFrame) -> bool {
        match frame.hello {
            Some(Hello::Refused(_)) => return true,
            Some(Hello::Opened(opened)) => {
                (self.session, self.is_attached) = (Some(opened.session), true);
                self.extend(opened.lease_ms);
            }
            Some(Hello::Attached(_)) => {
                self.is_attached = true;
                self.keep_alive = None;
            }
            None => {}
        }
        for reply in frame.replies {
            self.answered(&reply);
        }
        if let Some(lease) = frame.lease {
            self.extend(lease.lease_ms);
        }
        if now >= self.valid_until {
            self.cache.clear();
        }
        for invalidation in frame.notices.iter().flat_map(|notice| &notice.invalidations) {
            // A directory's copy has with it which of its files do not exist.
            let is_void = |path: &&str| {
                *path == invalidation.path || (invalidation.path == DIRECTORY && path.starts_with("/d/"))
            };
            self.cache
                .retain(|path, cached| !(is_void(path) && (*path == invalidation.path || cached.is_none())));
        }
        frame.ended.is_some()
    }

    fn extend(&mut self, lease_ms: u32) {
        if let Some(sent) = self.keep_alive.take() {
            self.valid_until = self.valid_until.max(sent + Duration::from_millis(u64::from(lease_ms)));
        }
    }

    fn answered(&mut self, reply: &client::Reply) {
        let result = reply.outcome.as_ref().and_then(|outcome| outcome.result.as_ref());
        match (self.asked.remove(&reply.number), result) {
            (Some(Asked::Open(path)), Some(outcome::Result::Opened(_))) => {
                self.handles.insert(path, reply.number);
            }
            (Some(Asked::Open(path)), _) if reply.cacheable => {
                self.cache.insert(path, None);
            }
            (Some(Asked::Read(path)), Some(result)) if reply.cacheable && self.handles.contains_key(path) => {
                let generation = match result {
                    outcome::Result::Contents(contents) => {
                        contents.stat.as_ref().map(|s| s.content_generation)
                    }
                    outcome::Result::Directory(list) => list.stat.as_ref().map(|s| s.children_generation),
                    other => panic!("{other:?} may not be kept"),
                };
                self.cache.insert(path, generation);
            }
            (Some(Asked::Read(path)), Some(outcome::Result::Refusal(_))) => self.close(path),
            _ => {}
        }
    }
}

#[test]
fn no_copy_that_may_be_believed_is_stale_and_nothing_waits_for_ever() {
    let (mut kept, mut changes) = (0, 0);
    for seed in 0..300 {
        let mut world = World::new(seed);
        for _ in 0..1500 {
            world.step();
            kept += world.clients.iter().map(|client| client.cache.len()).sum::<usize>();
        }
        changes += world.state.revision().0;
        world.settle();
        assert_eq!(world.calls, BTreeSet::new(), "seed {seed}");
        assert!(world.clients.iter().all(|client| client.asked.is_empty()), "seed {seed}");
        assert_eq!((world.ledger.held(), world.ledger.kept()), (0, 0), "seed {seed}");
    }
    assert!(kept > 10_000 && changes > 10_000, "something was cached and changed: {kept}, {changes}");
}
