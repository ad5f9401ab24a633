//! Pieces to write histories with, for the checkers' own tests.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, LockMode, outcome};
use holdfast_proto::log::v1::command::Kind;
use holdfast_proto::log::v1::{Command, OpenSession};
use holdfast_state::{Effect, Genesis, State, settings};
use holdfast_types::{RequestNumber, SessionId};

use super::{Decided, Fact};

/// A request that took effect.
pub(super) fn decided<'f>(
    session: u64,
    number: u64,
    operation: &'f Operation,
    result: &'f outcome::Result,
) -> Decided<'f> {
    Decided { session: SessionId(session), number: RequestNumber(number), operation, result }
}

impl<'f> Decided<'f> {
    pub(super) fn fact(self) -> Fact<'f> {
        Fact::Decided(self)
    }
}

pub(super) fn open(path: &str) -> Operation {
    Operation::Open(Box::new(wire::Open { path: path.to_owned(), ..wire::Open::default() }))
}

pub(super) fn opened_at(instance: u64) -> outcome::Result {
    let stat = wire::Stat { instance, ..wire::Stat::default() };
    outcome::Result::Opened(Box::new(wire::Opened { created: true, stat: Some(stat) }))
}

pub(super) fn acquire(handle: u64, mode: LockMode) -> Operation {
    Operation::Acquire(wire::Acquire { handle, mode: mode.into(), try_only: false })
}

pub(super) fn granted(mode: LockMode, lock_generation: u64, instance: u64) -> outcome::Result {
    outcome::Result::Granted(wire::Granted { mode: mode.into(), lock_generation, instance })
}

pub(super) fn release(handle: u64) -> Operation {
    Operation::Release(wire::Release { handle })
}

pub(super) fn released() -> outcome::Result {
    outcome::Result::Released(wire::Released {})
}

pub(super) fn write(handle: u64, contents: &'static str) -> Operation {
    let contents = contents.as_bytes().into();
    Operation::SetContents(wire::SetContents { handle, contents, if_generation: None })
}

pub(super) fn written(content_generation: u64) -> outcome::Result {
    outcome::Result::Written(wire::Written { content_generation, created: false })
}

/// A cell with one session, to make true histories with.
pub(super) struct Cell {
    pub(super) state: State,
    pub(super) session: SessionId,
}

/// A cell in which nothing has happened but the opening of a session.
pub(super) fn cell() -> Cell {
    let (cell, settings) = ("sim".to_owned(), settings::defaults());
    let state = State::genesis(Genesis { cell, cell_id: 7, members: Vec::new(), settings });
    let mut cell = Cell { state, session: SessionId(0) };
    let open = OpenSession { secret: vec![1; 32].into(), lease_ms: 1_000, ..OpenSession::default() };
    let effects = cell.apply(Kind::OpenSession(open));
    let opened = effects.iter().find_map(|effect| match effect {
        Effect::SessionOpened { session, .. } => Some(*session),
        _ => None,
    });
    cell.session = opened.expect("a session can be opened");
    cell
}

impl Cell {
    pub(super) fn apply(&mut self, kind: Kind) -> Vec<Effect> {
        let mut effects = Vec::new();
        let command = Command { tag: 1, kind: Some(kind), ..Command::default() };
        self.state.apply(command, &mut effects).expect("the command can be applied");
        effects
    }

    /// Writes a file, which is made if there is none.
    pub(super) fn write(&mut self, path: &str, contents: &'static str) {
        let contents = contents.as_bytes().into();
        let write =
            wire::SetContentsRequest { path: path.to_owned(), contents, create: true, ..Default::default() };
        self.apply(Kind::SetContents(write));
    }

    pub(super) fn delete(&mut self, path: &str) {
        self.apply(Kind::Delete(wire::DeleteRequest {
            path: path.to_owned(),
            if_instance: None,
            ..Default::default()
        }));
    }
}

pub(super) fn stat(state: &State, path: &str) -> Option<wire::Stat> {
    state.read_stat(&super::onlooker(), path).ok()
}
