//! Pieces to write histories with, for the checkers' own tests.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, LockMode, outcome};
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
    Operation::Open(wire::Open { path: path.to_owned(), ..wire::Open::default() })
}

pub(super) fn opened_at(instance: u64) -> outcome::Result {
    let stat = wire::Stat { instance, ..wire::Stat::default() };
    outcome::Result::Opened(wire::Opened { created: true, stat: Some(stat) })
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
