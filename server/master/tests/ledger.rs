//! One ledger counts what clients make a master hold, at each stage; what finds no room there is refused, and nothing that must
//! not be.

use holdfast_master::{Config, Input, Master, Output, frame_bytes};
use holdfast_proto::client::v1::{
    self as client, ClientFrame, RefusalCode, client_frame, outcome, refusal::Facts, request::Operation,
    server_frame,
};
use holdfast_proto::log::v1::Command;
use holdfast_state::{Genesis, State, settings};
use holdfast_types::ledger::{Account, Ledger, LedgerLimits};
use holdfast_types::{ConnectionId, Principal, Term, Time};

const KIB: usize = 1 << 10;
/// The core may keep half: 512 KiB.
const LIMITS: LedgerLimits =
    LedgerLimits { connection_bytes_max: 1 << 20, principal_bytes_max: 1 << 20, total_bytes_max: 2 << 20 };
const KEPT_MAX: usize = 512 * KIB;
/// Of each request that is sent here.
const CONTENTS: usize = 16 * KIB;

/// A master, the state under it, a ledger and a connection with a hundred streams; those beyond have one each, and use it once.
/// Time stands still; rounds are confirmed and commands applied only when a test says so.
struct Cell {
    state: State,
    master: Master,
    ledger: Ledger,
    account: Account,
    proposed: Vec<Command>,
    rounds: Vec<holdfast_master::RoundId>,
    frames: Vec<(ConnectionId, client::ServerFrame)>,
    /// What the master is told of the log.
    log_bytes: u64,
}

impl Cell {
    /// Of one client with a session, in which it has the file `/a` open under the handle 1.
    fn new() -> Self {
        let settings = settings::defaults();
        let state = State::genesis(Genesis { cell: "dev".into(), cell_id: 7, members: Vec::new(), settings });
        // One turn takes up all that a frame brings here: what is kept is to be seen, and not what waits for a turn.
        let config = Config { turn_work: 1 << 20, ..Config::default() };
        let master = Master::new(Time::ZERO, Term(1), config, &state);
        let ledger = Ledger::new(LIMITS);
        let account = ledger.account(&Principal::anonymous());
        let mut cell = Self {
            state,
            master,
            ledger,
            account,
            proposed: Vec::new(),
            rounds: Vec::new(),
            frames: Vec::new(),
            log_bytes: 0,
        };
        cell.session(1);
        cell.requests(1, [(1, open("/a", false))]);
        cell.commit();
        cell.frames.clear();
        assert_eq!(cell.ledger.held(), 0, "what is answered is not held");
        cell
    }

    fn session(&mut self, stream: u8) {
        let open = client::OpenSession { secret: vec![stream; 16].into(), ..Default::default() };
        self.frame(
            stream,
            ClientFrame { hello: Some(client_frame::Hello::Open(open)), ..Default::default() },
        );
        self.commit();
    }

    fn frame(&mut self, stream: u8, frame: ClientFrame) {
        let own = (stream >= 100).then(|| self.ledger.account(&Principal::anonymous()));
        let charge = own.as_ref().unwrap_or(&self.account).charge_anyway(frame_bytes(&frame));
        let (connection, principal) = (ConnectionId(stream.into()), Principal::anonymous());
        self.input(Input::Frame { connection, principal, frame, charge });
    }

    fn requests(&mut self, stream: u8, requests: impl IntoIterator<Item = (u64, Operation)>) {
        let request = |(number, operation)| client::Request { number, operation: Some(operation) };
        let requests = requests.into_iter().map(request).collect();
        self.frame(stream, ClientFrame { requests, ..ClientFrame::default() });
    }

    fn input(&mut self, input: Input) {
        self.master.handle(Time::ZERO, &self.state, Input::TurnBegins);
        self.master.handle(Time::ZERO, &self.state, input);
        self.turn();
    }

    fn turn(&mut self) {
        self.master.handle(Time::ZERO, &self.state, Input::TurnBegins);
        self.master.handle(Time::ZERO, &self.state, Input::Work { log_bytes: self.log_bytes });
        while let Some(output) = self.master.poll_output() {
            match output {
                Output::Propose(command) => self.proposed.push(command),
                Output::Confirm(round) => self.rounds.push(round),
                Output::Frame { connection, frame } => self.frames.push((connection, frame)),
                Output::Disconnect { .. } | Output::Answer { .. } | Output::List { .. } => {}
            }
        }
    }

    fn commit(&mut self) {
        let mut effects = Vec::new();
        for command in std::mem::take(&mut self.proposed) {
            self.state.apply(command, &mut effects).expect("no fault");
        }
        for effect in effects {
            self.master.handle(Time::ZERO, &self.state, Input::Applied(effect));
        }
        self.turn();
    }

    /// Confirms rounds until nobody waits for one.
    fn confirm(&mut self) {
        while let Some(round) = self.rounds.pop() {
            self.input(Input::Confirmed(round));
        }
    }

    /// How many requests were refused because the ledger is full, and how many were answered otherwise.
    fn answers(&self) -> (usize, usize) {
        let replies = self.frames.iter().flat_map(|(_, frame)| &frame.replies);
        let is_refused = |reply: &client::Reply| match reply.outcome.as_ref().and_then(|o| o.result.as_ref())
        {
            Some(outcome::Result::Refusal(refusal)) => is_full(refusal),
            _ => false,
        };
        let refused = replies.clone().filter(|reply| is_refused(reply)).count();
        (refused, replies.count() - refused)
    }

    /// Why the stream was refused, if it was because the ledger is full.
    fn is_refused_as_full(&self, stream: u8) -> bool {
        self.frames.iter().any(|(to, frame)| match &frame.hello {
            Some(server_frame::Hello::Refused(refused)) if to.0 == u64::from(stream) => {
                refused.refusal.as_ref().is_some_and(is_full)
            }
            _ => false,
        })
    }
}

fn is_full(refusal: &client::Refusal) -> bool {
    let Some(Facts::LimitExceeded(limit)) = &refusal.facts else { return false };
    assert_eq!(limit.maximum, KEPT_MAX as u64, "{limit:?}");
    refusal.code() == RefusalCode::Overloaded && limit.limit == "ledger_connection_bytes_max"
}

fn open(path: &str, caching: bool) -> Operation {
    Operation::Open(Box::new(client::Open {
        path: path.to_owned(),
        creation: client::Creation::May.into(),
        caching,
        uses: Some(client::Uses { read: true, write: true, ..client::Uses::default() }),
        ..client::Open::default()
    }))
}

fn write(handle: u64) -> Operation {
    let contents = vec![7; CONTENTS].into();
    Operation::SetContents(client::SetContents { handle, contents, if_generation: None })
}

fn writes(numbers: std::ops::Range<u64>) -> impl Iterator<Item = (u64, Operation)> {
    numbers.map(|number| (number, write(1)))
}

/// Sends a hundred writes of 16 KiB at once, which find no way on: what the ledger has room for is kept, and the others are
/// refused. `go_on` lets them go on in the end.
fn assert_bounded(cell: &mut Cell, mut go_on: impl FnMut(&mut Cell)) {
    cell.requests(1, writes(100..200));
    let kept = 100 - cell.answers().0;
    assert!((1..=KEPT_MAX / CONTENTS).contains(&kept), "{kept} requests are kept");
    assert_eq!(cell.answers().1, 0, "none is answered yet");
    assert!(cell.ledger.held() >= kept * CONTENTS, "what is kept is counted: {:?}", cell.ledger);
    assert!(cell.ledger.kept() <= KEPT_MAX, "{:?}", cell.ledger);
    // What gives back is taken all the same, and so is what was sent before.
    let (release, close) = (client::Release { handle: 1 }, client::Close { handle: 1 });
    cell.requests(1, [(300, Operation::Release(release)), (301, Operation::Close(close)), (100, write(1))]);
    assert_eq!(cell.answers().0, 100 - kept, "neither is refused");
    go_on(cell);
    assert_eq!(cell.answers(), (100 - kept, kept + 2), "each is answered once");
    assert_eq!((cell.ledger.held(), cell.ledger.kept()), (0, 0), "nothing is held any more");
    assert!(cell.proposed.is_empty());
    // What was refused was not recorded: it can be sent again under its number.
    cell.requests(1, [(2, open("/a", false))]);
    cell.commit();
    cell.frames.clear();
    cell.requests(1, [(199, write(2))]);
    cell.commit();
    assert_eq!(cell.answers(), (0, 1));
}

#[test]
fn requests_that_wait_for_the_log_are_kept_in_the_ledger_and_refused_beyond() {
    let mut cell = Cell::new();
    cell.log_bytes = u64::MAX;
    assert_bounded(&mut cell, |cell| {
        assert!(cell.proposed.is_empty(), "they stood in the queue");
        cell.log_bytes = 0;
        while cell.answers().1 < 1 || cell.ledger.kept() > 0 {
            cell.turn();
            cell.commit();
        }
    });
}

#[test]
fn changes_that_are_proposed_and_not_applied_are_kept_in_the_ledger_and_refused_beyond() {
    let mut cell = Cell::new();
    assert_bounded(&mut cell, |cell| {
        assert!(cell.proposed.len() > 10, "they were proposed");
        cell.commit();
    });
}

#[test]
fn changes_that_are_held_are_kept_in_the_ledger_and_refused_beyond() {
    let mut cell = Cell::new();
    cell.session(2);
    cell.requests(2, [(1, open("/a", true))]);
    cell.commit();
    cell.requests(2, [(2, Operation::GetContents(client::GetContents { handle: 1 }))]);
    cell.confirm();
    cell.frames.clear();
    assert_bounded(&mut cell, |cell| {
        assert!(cell.proposed.is_empty(), "they wait for the other client's cache");
        let notices = cell.frames.iter().flat_map(|(_, frame)| &frame.notices);
        let last = notices.map(|notice| notice.number).max().expect("it is told to drop it");
        cell.frame(2, ClientFrame { notices_through: last, ..ClientFrame::default() });
        cell.commit();
    });
}

#[test]
fn a_connection_that_is_full_keeps_no_other_from_going_on_until_all_are() {
    let mut cell = Cell::new();
    for stream in 100..103 {
        cell.session(stream);
        cell.requests(stream, [(1, open("/b", false))]);
        cell.commit();
    }
    cell.frames.clear();
    cell.requests(1, writes(100..200));
    let (refused, before) = (cell.answers().0, cell.proposed.len());
    assert!(refused > 0);
    cell.requests(100, writes(2..3));
    assert_eq!(cell.answers().0, refused, "it has room of its own");
    assert!(cell.proposed.len() > before, "and is proposed, with more of the first");
    cell.requests(101, writes(2..200));
    assert!(cell.ledger.kept() > LIMITS.total_bytes_max / 2 - 2 * CONTENTS, "{:?}", cell.ledger);
    cell.frames.clear();
    cell.requests(102, writes(2..6));
    let replies = cell.frames.iter().flat_map(|(_, frame)| &frame.replies);
    let mut limits = replies.filter_map(|reply| match reply.outcome.as_ref()?.result.as_ref()? {
        outcome::Result::Refusal(client::Refusal { facts: Some(Facts::LimitExceeded(limit)), .. }) => {
            Some(limit.limit.as_str())
        }
        _ => None,
    });
    assert!(limits.clone().count() >= 3 && limits.next_back() == Some("ledger_total_bytes_max"));
    cell.commit();
    assert_eq!(cell.ledger.held(), 0);
}

#[test]
fn reads_that_wait_for_a_round_are_kept_in_the_ledger_and_refused_beyond() {
    let mut cell = Cell::new();
    let after = "x".repeat(CONTENTS);
    let list = || Operation::ReadDir(client::ReadDir { handle: 1, after: after.clone(), limit: 1 });
    cell.requests(1, (100..200).map(|number| (number, list())));
    let kept = 100 - cell.answers().0;
    assert!((1..=KEPT_MAX / CONTENTS).contains(&kept), "{kept} requests are kept");
    assert!(cell.ledger.held() >= kept * CONTENTS && cell.ledger.kept() <= KEPT_MAX, "{:?}", cell.ledger);
    cell.confirm();
    assert_eq!((cell.answers(), cell.ledger.held()), ((100 - kept, kept), 0));
}

#[test]
fn frames_behind_a_hello_are_kept_in_the_ledger_and_beyond_it_the_stream_ends() {
    let mut cell = Cell::new();
    let open = client::OpenSession { secret: vec![2; 16].into(), ..Default::default() };
    cell.frame(2, ClientFrame { hello: Some(client_frame::Hello::Open(open)), ..Default::default() });
    for number in 1..=KEPT_MAX / CONTENTS {
        assert!(!cell.is_refused_as_full(2), "the frame {number}");
        assert!(cell.ledger.kept() >= (number - 1) * CONTENTS && cell.ledger.kept() <= KEPT_MAX);
        cell.requests(2, [(number as u64, write(1))]);
    }
    assert!(cell.is_refused_as_full(2), "there is no room for all of them");
    cell.commit();
    assert_eq!((cell.ledger.held(), cell.ledger.kept()), (0, 0));
}

#[test]
fn hellos_that_wait_for_a_round_are_kept_in_the_ledger_and_refused_beyond() {
    let mut cell = Cell::new();
    let seen = vec![client::Seen::default(); CONTENTS / size_of::<client::Seen>()];
    let attach = client::AttachSession { session: 99, attachment: 1, seen, ..Default::default() };
    for stream in 2..80 {
        let hello = Some(client_frame::Hello::Attach(attach.clone()));
        cell.frame(stream, ClientFrame { hello, ..ClientFrame::default() });
        // It waits although its stream is gone.
        cell.input(Input::Disconnected { connection: ConnectionId(stream.into()) });
    }
    let refused = (2..80).filter(|stream| cell.is_refused_as_full(*stream)).count();
    assert!(78 - refused <= KEPT_MAX / CONTENTS, "{refused} are refused");
    assert!(cell.ledger.held() >= (78 - refused) * CONTENTS * 9 / 10, "{:?}", cell.ledger);
    cell.confirm();
    assert_eq!((cell.ledger.held(), cell.ledger.kept()), (0, 0));
}

#[test]
fn a_session_that_ends_and_a_master_that_leaves_give_back_what_was_held_for_clients() {
    let mut cell = Cell::new();
    cell.log_bytes = u64::MAX;
    cell.requests(1, writes(100..110));
    assert!(cell.ledger.kept() >= 10 * CONTENTS);
    let secret = vec![2; 16].into();
    let open = client::OpenSession { secret, ..Default::default() };
    cell.frame(2, ClientFrame { hello: Some(client_frame::Hello::Open(open)), ..Default::default() });
    cell.requests(2, writes(1..10));
    let Cell { master, ledger, .. } = cell;
    let abandoned = master.abandon();
    assert_eq!((abandoned.connections.len(), ledger.held(), ledger.kept()), (2, 0, 0));
}

#[test]
fn a_keep_alive_an_acknowledgement_and_a_close_come_through_a_full_ledger() {
    let mut cell = Cell::new();
    cell.log_bytes = u64::MAX;
    cell.requests(1, writes(100..200));
    assert!(cell.answers().0 > 0, "it is full");
    let keep_alive = Some(client::KeepAlive { number: 1 });
    let close = Some(client::CloseSession {});
    cell.frame(1, ClientFrame { keep_alive, close, ..ClientFrame::default() });
    cell.confirm();
    assert!(cell.frames.iter().any(|(_, frame)| frame.lease.is_some()), "its lease is extended");
    cell.log_bytes = 0;
    while !cell.frames.iter().any(|(_, frame)| frame.ended.is_some()) {
        cell.turn();
        cell.commit();
    }
    assert_eq!((cell.ledger.held(), cell.ledger.kept()), (0, 0));
}
