//! Unary calls that must be held: whose they are, and which get through beside them.

use std::collections::BTreeMap;

use holdfast_master::{CallId, CallRequest, Config, Input, Master, Output};
use holdfast_proto::client::v1::{self as client, RefusalCode, client_frame, request::Operation};
use holdfast_proto::log::v1::Command;
use holdfast_state::{Genesis, State, settings};
use holdfast_types::ledger::{Ledger, LedgerLimits};
use holdfast_types::{ConnectionId, Principal, SessionId, SocketId, Term, Time};

/// A cell in which a client caches `/a` and `/acl/ops`, and acknowledges nothing. Its administrator is `root`.
struct Cell {
    state: State,
    master: Master,
    proposed: Vec<Command>,
    /// What calls were answered: `None` if it is no refusal.
    answers: BTreeMap<u64, Option<RefusalCode>>,
    last_call: u64,
}

impl Cell {
    fn new() -> Self {
        let settings = client::Settings { bootstrap_principal: "root".to_owned(), ..settings::defaults() };
        let state = State::genesis(Genesis { cell: "dev".into(), cell_id: 7, members: Vec::new(), settings });
        let master = Master::new(Time::ZERO, Term(1), Config::default(), &state);
        let (proposed, answers) = (Vec::new(), BTreeMap::new());
        let mut cell = Self { state, master, proposed, answers, last_call: 0 };
        let open = client::OpenSession { secret: vec![7; 16].into(), ..client::OpenSession::default() };
        cell.frame(client::ClientFrame {
            hello: Some(client_frame::Hello::Open(open)),
            ..client::ClientFrame::default()
        });
        cell.commit();
        for (number, path) in [(1, "/a"), (2, "/acl/ops")] {
            let open = client::Open {
                path: path.to_owned(),
                creation: client::Creation::May.into(),
                caching: true,
                uses: Some(client::Uses { read: true, ..client::Uses::default() }),
                ..client::Open::default()
            };
            cell.request(number, Operation::Open(Box::new(open)));
            cell.commit();
        }
        cell.request(3, Operation::GetContents(client::GetContents { handle: 1 }));
        cell
    }

    fn input(&mut self, input: Input) {
        self.master.handle(Time::ZERO, &self.state, Input::TurnBegins);
        self.master.handle(Time::ZERO, &self.state, input);
        self.master.handle(Time::ZERO, &self.state, Input::Work { log_bytes: 0 });
        while let Some(output) = self.master.poll_output() {
            match output {
                Output::Propose(command) => self.proposed.push(command),
                Output::Confirm(round) => {
                    self.master.handle(Time::ZERO, &self.state, Input::Confirmed(round));
                    self.master.handle(Time::ZERO, &self.state, Input::Work { log_bytes: 0 });
                }
                Output::Frame { .. } | Output::Disconnect { .. } => {}
                Output::List { call, .. } => {
                    self.answers.insert(call.0, None);
                }
                Output::Answer { call, answer } => {
                    self.answers.insert(call.0, answer.err().map(|refusal| refusal.code()));
                }
            }
        }
    }

    fn frame(&mut self, frame: client::ClientFrame) {
        let principal = Principal::parse("root").expect("a principal");
        let charge = Ledger::new(LedgerLimits::NONE).account(&principal).charge_anyway(0);
        self.input(Input::Frame { connection: ConnectionId(1), principal, frame, charge });
    }

    fn request(&mut self, number: u64, operation: Operation) {
        let requests = vec![client::Request { number, operation: Some(operation) }];
        self.frame(client::ClientFrame { requests, ..client::ClientFrame::default() });
    }

    fn commit(&mut self) {
        let mut effects = Vec::new();
        for command in std::mem::take(&mut self.proposed) {
            self.state.apply(command, &mut effects).expect("no fault");
        }
        for effect in effects {
            self.input(Input::Applied(effect));
        }
    }

    /// Makes a call; tells how it was answered, if it was.
    fn call(&mut self, by: &str, request: CallRequest) -> Option<Option<RefusalCode>> {
        self.last_call += 1;
        let principal = Principal::parse(by).expect("a principal");
        self.input(Input::Call { call: CallId(self.last_call), principal, socket: SocketId(1), request });
        self.answers.get(&self.last_call).copied()
    }
}

fn put(path: &str) -> CallRequest {
    CallRequest::SetContents(client::SetContentsRequest {
        path: path.to_owned(),
        create: true,
        ..client::SetContentsRequest::default()
    })
}

fn set_acl(path: &str) -> CallRequest {
    let acl = Some(client::AclNames { read: "ops".to_owned(), ..client::AclNames::default() });
    CallRequest::SetAcl(client::SetAclRequest { path: path.to_owned(), acl, ..Default::default() })
}

#[test]
fn calls_of_one_principal_that_are_held_keep_neither_others_nor_administrators_out() {
    const OVERLOADED: Option<Option<RefusalCode>> = Some(Some(RefusalCode::Overloaded));
    let mut cell = Cell::new();
    let refused = (0..8_192).filter(|_| cell.call("ann", put("/a")) == OVERLOADED).count();
    assert_eq!(refused, 8_192 - 1_024);
    assert_eq!(cell.call("bob", put("/a")), None, "it is held like any other");
    for by in ["bob", "cid", "dan", "eve"] {
        while cell.call(by, put("/a")) != OVERLOADED {}
    }
    assert_eq!(cell.call("fay", put("/a")), OVERLOADED, "all places are taken");
    let proposed = cell.proposed.len();
    assert_eq!(cell.call("fay", put("/b")), None, "what need not be held has no use for one");
    assert_eq!(cell.proposed.len(), proposed + 1);
    // Only administrators have the places for administration.
    assert_eq!(cell.call("fay", set_acl("/acl/ops")), OVERLOADED);
    assert_eq!(cell.call("root", set_acl("/acl/ops")), None, "it is held, and the client is asked");
    let bootstrap = client::Settings { bootstrap_principal: "ops".to_owned(), ..Default::default() };
    assert_eq!(cell.call("root", change_settings(bootstrap)), None);
    let settings = client::Settings { nodes_max: 77, ..Default::default() };
    assert_eq!(cell.call("root", change_settings(settings)), None);
    assert_eq!(cell.proposed.len(), proposed + 2, "these settings void nothing");
    let (session, _) = cell.state.sessions().next().expect("the client has a session");
    let kill = CallRequest::KillSession(client::KillSessionRequest { session: session.0 });
    assert_eq!(cell.call("root", kill), None);
    let close = client::ClientFrame { close: Some(client::CloseSession {}), ..Default::default() };
    cell.frame(close);
    cell.commit();
    assert_eq!(cell.answers[&cell.last_call], None, "the session was killed");
    assert_eq!(cell.state.session(SessionId(session.0)).map(|_| ()), None);
    let applied = cell.answers.values().filter(|answer| answer.is_none()).count();
    assert!(applied >= 4_096, "{applied}: what was held went on then");
}

/// A change of settings whose caller means it.
fn change_settings(settings: client::Settings) -> CallRequest {
    CallRequest::ChangeSettings(client::ChangeSettingsRequest { settings: Some(settings), force: true })
}

#[test]
fn what_was_decided_of_a_call_is_said_also_if_the_office_ends_before_it_was() {
    let mut cell = Cell::new();
    assert_eq!(cell.call("ann", put("/a")), None, "it is held");
    assert_eq!(cell.call("bob", put("/b")), None, "it is proposed");
    // Seed 1723 of the simulator: the master withdraws the one, hears that the other is applied, and is deposed, all in one
    // turn. Neither is among those that wait.
    let Cell { mut state, mut master, proposed, .. } = cell;
    master.handle(Time::ZERO, &state, Input::Withdraw(CallId(1)));
    let mut effects = Vec::new();
    for command in proposed {
        state.apply(command, &mut effects).expect("no fault");
    }
    for effect in effects {
        master.handle(Time::ZERO, &state, Input::Applied(effect));
    }
    let abandoned = master.abandon();
    assert_eq!((abandoned.calls, abandoned.calls_unknown), (vec![], vec![]));
    let answers: Vec<_> = abandoned.answers.iter().map(|(call, answer)| (call.0, answer.is_ok())).collect();
    assert_eq!(answers, [(1, false), (2, true)]);
}
