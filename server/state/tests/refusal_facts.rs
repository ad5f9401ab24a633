//! What a refusal says beyond its code: facts as fields, in outcomes that are recorded from state version 2 on.

use bytes::Bytes;
use holdfast_proto::client::v1::refusal::Facts;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    Acquire, Creation, Delete, GenerationKind, GenerationMismatch, LimitExceeded, LockConflict, LockMode,
    Open, Refusal, Request, SetContents, outcome,
};
use holdfast_proto::log::v1::{Command, OpenSession, SessionRequest, command::Kind};
use holdfast_state::{Effect, Genesis, State, settings};

/// A cell with one session.
struct Cell {
    state: State,
    session: u64,
    number: u64,
}

impl Cell {
    fn new() -> Self {
        let genesis =
            Genesis { cell: "dev".into(), cell_id: 7, members: Vec::new(), settings: settings::defaults() };
        let mut cell = Self { state: State::genesis(genesis), session: 0, number: 0 };
        let open =
            OpenSession { secret: Bytes::from_static(&[7; 16]), lease_ms: 12_000, ..OpenSession::default() };
        let effects = cell.apply(Kind::OpenSession(open));
        let [Effect::SessionOpened { session, .. }] = effects[..] else { panic!("{effects:?}") };
        cell.session = session.0;
        cell
    }

    fn apply(&mut self, kind: Kind) -> Vec<Effect> {
        let mut effects = Vec::new();
        let command = Command { kind: Some(kind), ..Command::default() };
        self.state.apply(command, &mut effects).expect("no fault");
        effects
    }

    fn ask(&mut self, operation: Operation) -> outcome::Result {
        self.number += 1;
        let request = Some(Request { number: self.number, operation: Some(operation) });
        let effects =
            self.apply(Kind::Request(SessionRequest { session: self.session, request, acknowledged: None }));
        let Some(Effect::Replied { outcome, .. }) = effects.last() else { panic!("{effects:?}") };
        outcome.result.clone().expect("it was decided")
    }

    /// Opens a handle; gives its id.
    fn open(&mut self, path: &str) -> u64 {
        let creation = Creation::May.into();
        let opened =
            self.ask(Operation::Open(Box::new(Open { path: path.into(), creation, ..Open::default() })));
        assert!(matches!(opened, outcome::Result::Opened(_)), "{opened:?}");
        self.number
    }

    fn refused(&mut self, operation: Operation) -> Refusal {
        match self.ask(operation) {
            outcome::Result::Refusal(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    /// What a recorded refusal has to say, in the version that the state is of.
    fn expect(&self, facts: Facts) -> Option<Facts> {
        (self.state.version() >= 2).then_some(facts)
    }
}

fn acquire(handle: u64, mode: LockMode) -> Operation {
    Operation::Acquire(Acquire { handle, mode: mode.into(), try_only: true })
}

#[test]
fn a_lock_that_cannot_be_had_tells_how_it_is_held() {
    let mut cell = Cell::new();
    let (first, second) = (cell.open("/lock"), cell.open("/lock"));
    assert!(matches!(cell.ask(acquire(first, LockMode::Shared)), outcome::Result::Granted(_)));
    let held = LockConflict {
        wanted: LockMode::Exclusive.into(),
        held: LockMode::Shared.into(),
        holders: 1,
        ..LockConflict::default()
    };
    let refused = cell.refused(acquire(second, LockMode::Exclusive));
    assert_eq!(refused.facts, cell.expect(Facts::LockConflict(Box::new(held))));
    let refused = cell.refused(Operation::Delete(Delete { handle: second }));
    assert_eq!(refused.facts, cell.expect(Facts::LockConflict(Box::new(LockConflict { wanted: 0, ..held }))));
}

#[test]
fn another_generation_is_told_and_so_is_a_limit() {
    let mut cell = Cell::new();
    let handle = cell.open("/file");
    let write = |contents: Vec<u8>, if_generation| {
        Operation::SetContents(SetContents { handle, contents: contents.into(), if_generation })
    };
    let outcome::Result::Written(written) = cell.ask(write(vec![1], None)) else {
        panic!("the file is there")
    };
    let refused = cell.refused(write(vec![2], Some(1)));
    let (wanted, present) = (1, written.content_generation);
    let mismatch = GenerationMismatch { kind: GenerationKind::Content.into(), wanted, present };
    assert_eq!(refused.facts, cell.expect(Facts::GenerationMismatch(Box::new(mismatch))));
    let maximum = cell.state.settings().contents_bytes_max;
    let wanted = maximum + 1;
    let refused = cell.refused(write(vec![0; usize::try_from(wanted).unwrap()], None));
    let exceeded = LimitExceeded { limit: "contents_bytes_max".into(), maximum, wanted };
    assert_eq!(refused.facts, cell.expect(Facts::LimitExceeded(Box::new(exceeded))));
}
