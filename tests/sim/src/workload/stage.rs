//! Where a workload is with the one lock that it is about: from its directory to the closed handle, and round again.
//!
//! The workloads decide what to do at each stage; what a completed call means there is the same for all of them.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, LockMode, outcome};
use holdfast_session::{CallError, Token};

use super::{Action, App, CallResult};

/// Stages name the handle that is open, and the call that is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    OpeningDirectory(Token),
    Opening(Token),
    /// The handle is open and wants nothing.
    Idle(u64),
    Acquiring(u64, Token, LockMode),
    Holding(u64),
    /// The lock is being given back.
    Leaving(u64, Token),
    Closing(Token),
    /// Before the start, and after all.
    Rest,
}

/// What a completed call has come to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'r> {
    /// The directory is there.
    Directory,
    /// The file is open, by this handle.
    Opened(u64),
    Granted {
        handle: u64,
        mode: LockMode,
        generation: u64,
    },
    NotGranted(u64, &'r CallError),
    /// The lock is given back, or was lost before.
    Left(u64),
    Closed,
}

impl Stage {
    /// What the end of this call means; `None` if it is not the one that is waited for.
    pub(super) fn step<'r>(&self, token: Token, result: &'r CallResult) -> Option<Step<'r>> {
        match (*self, result) {
            (Self::OpeningDirectory(awaited), Ok(_)) if awaited == token => Some(Step::Directory),
            (Self::Opening(awaited), Ok(completion)) if awaited == token => {
                Some(Step::Opened(completion.handle.0))
            }
            (Self::Acquiring(handle, awaited, mode), Ok(completion)) if awaited == token => {
                let outcome::Result::Granted(granted) = &completion.result else { return None };
                Some(Step::Granted { handle, mode, generation: granted.lock_generation })
            }
            (Self::Acquiring(handle, awaited, _), Err(error)) if awaited == token => {
                Some(Step::NotGranted(handle, error))
            }
            (Self::Leaving(handle, awaited), _) if awaited == token => Some(Step::Left(handle)),
            (Self::Closing(awaited), _) if awaited == token => Some(Step::Closed),
            _ => None,
        }
    }

    /// Asks for the lock.
    pub(super) fn acquire(app: &mut App<'_>, handle: u64, mode: LockMode, try_only: bool) -> Self {
        let acquire = wire::Acquire { handle, mode: mode.into(), try_only };
        Self::Acquiring(handle, app.call(Operation::Acquire(acquire)), mode)
    }

    /// Gives the lock back.
    pub(super) fn release(app: &mut App<'_>, handle: u64) -> Self {
        Self::Leaving(handle, app.call(Operation::Release(wire::Release { handle })))
    }

    pub(super) fn close(app: &mut App<'_>, handle: u64) -> Self {
        Self::Closing(app.close_handle(handle))
    }

    /// Ends the session, by closing it or by dying.
    pub(super) fn end(app: &mut App<'_>, how: Action) -> Self {
        app.act(how);
        Self::Rest
    }
}
