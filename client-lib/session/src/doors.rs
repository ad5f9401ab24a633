//! The doors of the machine: what goes in, what comes out, and the values on both.
//!
//! Owns no behaviour. One closed enum each way, so that a driver and the simulator must handle all of it.

use bytes::Bytes;
use holdfast_proto::client::v1::{Cancel, ClientFrame, ServerFrame, outcome, request::Operation};
use holdfast_types::{Duration, HandleId, RequestNumber, Revision};

/// Everything that a session is told once, when it is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where replicas serve clients; at least one, in the driver's own spelling. More are learned from the cell.
    pub addresses: Vec<String>,
    /// The cell that is meant; empty for whichever answers.
    pub cell: String,
    /// What this client calls itself, for people who look at the cell; at most 255 bytes.
    pub client: String,
    /// From a cryptographic source: names the opening, and is the session's secret.
    pub secret: [u8; 32],
    /// The length of lease to ask for, in whole milliseconds.
    pub lease: Duration,
    /// How long a session that has lost its lease is waited for; also how long the opening may take.
    pub grace: Duration,
    /// By how much the rates of two clocks may differ, in thousandths. The lease is believed that much shorter.
    pub drift_per_mille: u32,
    /// What retries are spread by. No two clients should have the same.
    pub seed: u64,
}

/// One stream, as the machine names it. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// One call, as the caller names it. Never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// What happens to a session.
#[derive(Clone, Debug)]
pub enum Input {
    /// The stream that was asked for stands.
    Connected {
        /// Which.
        stream: StreamId,
    },
    /// The stream broke, or never came to be.
    Disconnected {
        /// Which.
        stream: StreamId,
        /// Why, for people.
        reason: String,
    },
    /// A frame came.
    Frame {
        /// On this stream.
        stream: StreamId,
        /// The frame.
        frame: ServerFrame,
    },
    /// The application asks for something.
    Call {
        /// Finds the completion.
        token: Token,
        /// What it asks for.
        operation: Operation,
    },
    /// Nobody waits for a call any more: there will be no completion. A pending `Acquire` is withdrawn and a
    /// pending `Open` undone, however far they got; other calls may or may not take effect.
    CancelCall {
        /// Which.
        token: Token,
    },
    /// The application is done with the session.
    Close,
    /// The moment that [`poll_timeout`](crate::Session::poll_timeout) named has come. To be handed in after all
    /// other inputs that are there: only then is a replica judged to be silent.
    TimePassed,
}

/// What the session wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a stream to this address. There is never more than one at a time.
    Connect {
        /// Its name from now on.
        stream: StreamId,
        /// Where to.
        address: String,
    },
    /// Close the stream. Its frames would be ignored.
    Disconnect {
        /// Which.
        stream: StreamId,
        /// Nothing was heard on it for too long: its connection is not to be used for another stream either.
        silent: bool,
    },
    /// Send a frame.
    Send {
        /// On this stream.
        stream: StreamId,
        /// The frame.
        frame: ClientFrame,
    },
    /// A call is over. Each call that was not cancelled completes exactly once.
    Complete {
        /// Which.
        token: Token,
        /// What came of it.
        result: Result<Completion, CallError>,
    },
    /// The session's state is a new one.
    StateChanged(State),
}

/// What a call brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The number that it was sent under.
    pub number: RequestNumber,
    /// The handle that it opened, or that it named.
    pub handle: HandleId,
    /// The cell's revision then. Zero if a lock was granted out of the queue.
    pub revision: Revision,
    /// The result: neither a refusal nor `Queued`.
    pub result: outcome::Result,
}

impl Completion {
    /// What takes back what this completion brought, should nobody want it: a handle or a lock. `None` if there
    /// is nothing to take back.
    #[must_use]
    pub fn undo(&self) -> Option<Operation> {
        let handle = match self.result {
            outcome::Result::Opened(_) => 0,
            outcome::Result::Granted(_) => self.handle.0,
            _ => return None,
        };
        Some(Operation::Cancel(Cancel { number: self.number.0, handle }))
    }
}

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The cell refused it, and changed nothing.
    #[error("{}", .0.message)]
    Refused(holdfast_proto::client::v1::Refusal),
    /// The session is over.
    #[error("{ended}")]
    Ended {
        /// Why; the same for all calls of the session from now on.
        ended: Ended,
        /// The request had been sent, so it may have taken effect.
        maybe_applied: bool,
    },
    /// The master answered with something that is no answer.
    #[error("the master broke the protocol: {0}")]
    Protocol(&'static str),
}

/// How a session fares (P§2.8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// The cell has not granted it yet.
    Opening,
    /// It holds a lease.
    Safe,
    /// Its lease has run out here, and may or may not have run out at the cell. Calls wait.
    Jeopardy,
    /// It is over, for ever.
    Ended(Ended),
}

/// Why a session is over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Ended {
    /// The application closed it.
    #[error("the session was closed")]
    Closed,
    /// The cell ended it, because its lease had run out there.
    #[error("the session expired: the cell heard nothing from it for a whole lease")]
    Expired,
    /// No master extended the lease within the grace period.
    #[error(
        "the session expired: no master extended its lease within the grace period of {grace_ms} ms ({last})"
    )]
    GraceOver {
        /// The grace period in milliseconds.
        grace_ms: u64,
        /// What was in the way last.
        last: String,
    },
    /// No master opened it within the grace period.
    #[error("no master opened the session within {waited_ms} ms ({last})")]
    Unreachable {
        /// How long was tried, in milliseconds.
        waited_ms: u64,
        /// What was in the way last.
        last: String,
    },
    /// The cell refuses the session, and would always.
    #[error("the cell refused the session: {message}")]
    Refused {
        /// The code of the refusal.
        code: i32,
        /// The refusal's message.
        message: String,
    },
}

impl Config {
    /// The secret as it travels.
    pub(crate) fn secret_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.secret)
    }
}
