//! What can go wrong, as values.
//!
//! Every error answers two questions that a program must ask: is it worth trying again, and may the thing have
//! happened all the same? As text, what a replica said is escaped: an error ends up on terminals and in logs.

use crate::refusal::{self, RefusalFacts};
use crate::session::{LEASE_MAX, LEASE_MIN};
use crate::tls::TlsError;
use holdfast_proto::client::v1::{Refusal, RefusalCode};
use holdfast_session::{CallError, Ended};
use holdfast_types::escaped;
use tokio::time::Duration;

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The cell refused the call, which changed nothing.
    #[error("{}", escaped(.message))]
    #[non_exhaustive]
    Refused {
        /// The reason, for programs.
        code: RefusalCode,
        /// The reason, for people: what was wrong and what would be right.
        message: String,
        /// What a program may want to know beyond the code: the generation that the node has, what the lock is like,
        /// which limit was met. `None` for other codes, and where the cell does not say it.
        facts: Option<RefusalFacts>,
    },
    /// The session is over. Every later call of the session fails with the same reason.
    #[error("{ended}{}", unknown(*.maybe_applied))]
    #[non_exhaustive]
    SessionEnded {
        /// Why it is over.
        ended: Ended,
        /// The request had been sent: it may have taken effect before the session ended.
        maybe_applied: bool,
    },
    /// The handle was poisoned by [`Handle::poison`](crate::Handle::poison).
    #[error("the handle was poisoned{}", unknown(*.maybe_applied))]
    #[non_exhaustive]
    Poisoned {
        /// The call was under way, and may have taken effect.
        maybe_applied: bool,
    },
    /// No master answered in time; or it was given up before, because nothing could come of trying on: nothing has
    /// listened at any address for 2 s and no replica has ever answered this [`Cell`](crate::Cell), or a replica will not
    /// serve this client before certificates or configurations change, and no other answers. The call had no effect.
    #[error("{} ({})", no_answer(*.waited, *.absent), escaped(.last))]
    #[non_exhaustive]
    Unavailable {
        /// How long it was tried.
        waited: Duration,
        /// What was in the way, at which addresses.
        last: String,
        /// Nothing listens at any of the addresses: no replica runs, or it runs elsewhere.
        absent: bool,
    },
    /// The connection broke, or the time ran out, while a write was under way: it may have taken effect.
    #[error(
        "the outcome is unknown: {}; the call may have taken effect, or may still do so for a while: \
         to be sure of a write, read the node when the longest lease is over, or make a conditional change",
        escaped(.message)
    )]
    #[non_exhaustive]
    OutcomeUnknown {
        /// What happened.
        message: String,
    },
    /// The cell did not answer within the time-out of the session or handle.
    #[error("the cell did not answer within {waited:?}{}", unknown(*.maybe_applied))]
    #[non_exhaustive]
    TimedOut {
        /// The time-out.
        waited: Duration,
        /// The request had been sent: it may have taken effect, or may yet. What an open or an acquire brought is given
        /// back.
        maybe_applied: bool,
    },
    /// A handle that was opened without events has none to tell.
    #[error("the handle of {} was opened without events: name their kinds when it is opened, with `OpenOptions::events`",
        escaped(.path))]
    #[non_exhaustive]
    NoEvents {
        /// The node's full name.
        path: String,
    },
    /// The call was made outside a tokio runtime. It had no effect.
    #[error("there is no tokio runtime here: call it from a task, or within `Runtime::block_on`")]
    NoRuntime,
    /// A replica answered with something that is no answer: it is of another version, or no replica.
    #[error("the replica broke the protocol: {}", escaped(.message))]
    #[non_exhaustive]
    Protocol {
        /// What it did.
        message: String,
    },
}

fn unknown(maybe_applied: bool) -> &'static str {
    if maybe_applied { "; the outcome of this call is unknown" } else { "" }
}

fn no_answer(waited: Duration, absent: bool) -> String {
    if absent {
        return "no replica of the cell was found".to_owned();
    }
    // What the client finds to be in vain once it has asked each replica, it has not waited for.
    if waited < Duration::from_millis(250) {
        return "no master of the cell answered".to_owned();
    }
    format!("no master of the cell answered within {waited:?}")
}

impl Error {
    /// Whether the same call may well succeed later, as it is: the cell was unreachable or overloaded, or the
    /// lock was taken. False where the outcome is unknown: look first.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { code, .. } => refusal::is_retryable(*code),
            Self::Unavailable { .. } => true,
            Self::TimedOut { maybe_applied, .. } => !maybe_applied,
            Self::SessionEnded { .. }
            | Self::Poisoned { .. }
            | Self::OutcomeUnknown { .. }
            | Self::NoEvents { .. }
            | Self::NoRuntime
            | Self::Protocol { .. } => false,
        }
    }

    /// Whether the call may have taken effect although it failed.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::OutcomeUnknown { .. } | Self::Protocol { .. } => true,
            Self::SessionEnded { maybe_applied, .. }
            | Self::Poisoned { maybe_applied }
            | Self::TimedOut { maybe_applied, .. } => *maybe_applied,
            Self::Refused { .. } | Self::Unavailable { .. } | Self::NoEvents { .. } | Self::NoRuntime => {
                false
            }
        }
    }

    /// The code of the cell's refusal, if that is what it is.
    #[must_use]
    pub fn refusal(&self) -> Option<RefusalCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }

    /// The facts of the cell's refusal, if it has some.
    ///
    /// ```
    /// # fn present(error: &holdfast::Error) -> Option<u64> {
    /// use holdfast::RefusalFacts;
    /// match error.facts()? {
    ///     RefusalFacts::GenerationMismatch { present, .. } => Some(*present),
    ///     _ => None,
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn facts(&self) -> Option<&RefusalFacts> {
        match self {
            Self::Refused { facts, .. } => facts.as_ref(),
            _ => None,
        }
    }

    /// Nothing was tried.
    pub(crate) fn unavailable(last: impl Into<String>) -> Self {
        Self::Unavailable { waited: Duration::ZERO, last: last.into(), absent: false }
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Self::Protocol { message: message.into() }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let code = refusal.code();
        Self::Refused { code, message: refusal.message, facts: RefusalFacts::from_wire(refusal.facts) }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Refused(refusal) => refusal.into(),
            CallError::Ended { ended, maybe_applied } => Self::SessionEnded { ended, maybe_applied },
            CallError::TimedOut { within_ms, maybe_applied } => {
                Self::TimedOut { waited: Duration::from_millis(within_ms), maybe_applied }
            }
            CallError::Protocol(message) => Self::protocol(message),
        }
    }
}

/// Why no [`Cell`](crate::Cell) can be made of what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The list of addresses is empty.
    #[error("no address of a replica was given: name at least one, as host:port")]
    NoAddress,
    /// An address is not well-formed.
    #[error("{address:?} is not an address: {what}; write host:port, http://host:port or https://host:port")]
    #[non_exhaustive]
    Malformed {
        /// The text.
        address: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The address asks for TLS, and none is configured.
    #[error("{address:?} asks for TLS, and no TLS is configured: give a CA certificate, or write http://")]
    #[non_exhaustive]
    TlsNeeded {
        /// The text.
        address: String,
    },
    /// The address asks for plain text, and TLS is configured.
    #[error(
        "{address:?} asks for plain text, and TLS is configured: write https://, or leave the scheme out"
    )]
    #[non_exhaustive]
    TlsRefused {
        /// The text.
        address: String,
    },
    /// No cell grants such a lease.
    #[error("a lease is {LEASE_MIN:?} to {LEASE_MAX:?} long, not {lease:?}")]
    #[non_exhaustive]
    Lease {
        /// The lease that was asked for.
        lease: Duration,
    },
    /// A certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl ConnectError {
    /// Whether trying again may help: only if a file was just being replaced.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Tls(error) if error.is_retryable())
    }
}

/// Why a lock is not held any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Lost {
    /// The session is over, and its locks with it.
    #[error("the lock is lost: {0}")]
    Session(Ended),
    /// The handle that the lock was taken through was closed by [`Handle::close`](crate::Handle::close).
    #[error("the lock is lost: its handle was closed")]
    HandleClosed,
    /// Its guard was given back by [`Lock::release`](crate::Lock::release), or dropped. Told to those who
    /// [watch](crate::Lock::watch) the lock.
    #[error("the lock was released")]
    Released,
}

/// Why [`Lock::run`](crate::Lock::run) has stopped its work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Interrupted {
    /// The lease has run out here, so another client may have the lock; or may not, in which case the guard comes to be
    /// held again: see [`LockState::Suspended`](crate::LockState::Suspended).
    #[error("the lock is suspended: no master has extended the lease, so another client may have the lock")]
    Suspended,
    /// The lock is lost.
    #[error(transparent)]
    Lost(#[from] Lost),
}
