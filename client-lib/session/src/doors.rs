//! The doors of the machine: what goes in, what comes out, and the values on both.
//!
//! Owns no behaviour. One closed enum each way, so that a driver and the simulator must handle all of it.

use crate::reach::Problem;
use crate::slot::Slot;
use bytes::Bytes;
use holdfast_proto::client::v1::refusal::Facts;
use holdfast_proto::client::v1::{
    Cancel, ClientFrame, Close, HandleEvent, ServerFrame, outcome, request::Operation,
};
use holdfast_types::{Duration, HandleId, RequestNumber, Revision, Term, escaped};
use std::sync::Arc;

/// Everything that a session is told once, when it is made.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where replicas serve clients; at least one, in the driver's own spelling. More are learned from the cell.
    pub addresses: Vec<String>,
    /// What others have found out about the cell before.
    pub known: Known,
    /// The cell that is meant; empty for whichever answers.
    pub cell: String,
    /// What this client calls itself, for people who look at the cell; at most 255 bytes.
    pub client: String,
    /// From a cryptographic source: names the opening, and is the session's secret.
    pub secret: [u8; 32],
    /// The length of lease to ask for, in whole milliseconds.
    pub lease: Duration,
    /// How long a session that has lost its lease is waited for.
    pub grace: Duration,
    /// How long the opening may take.
    pub open_timeout: Duration,
    /// The cell may end the session when it has had no handle and no call for a minute. If not, it is told so, and the
    /// session is kept for as long as the application has it.
    pub ends_when_idle: bool,
    /// By how much the rates of two clocks may differ, in thousandths. The lease is believed that much shorter.
    pub drift_per_mille: u32,
    /// What retries are spread by. No two clients should have the same.
    pub seed: u64,
    /// The cache, and the handles that are kept for it.
    pub cache: CacheConfig,
}

/// What is known of a cell's replicas when a session begins. Nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Where replicas are, as the cell says, beside what the application said.
    pub addresses: Vec<String>,
    /// Where the master was last: it is asked first.
    pub master: Option<String>,
    /// A replica of the cell has answered before. While none has, an opening is given up when nothing has listened at any
    /// address for [`ABSENT_PATIENCE`](crate::ABSENT_PATIENCE).
    pub heard: bool,
}

/// How much a session may keep of what it has read and opened.
#[derive(Clone, Debug)]
pub struct CacheConfig {
    /// Whether anything is cached at all. If not, every `Open` is sent as one without `caching`. Default: true.
    pub on: bool,
    /// The most bytes that slots and absences may have together; what was not used of late goes first. Default:
    /// 64 MiB.
    pub bytes_max: u64,
    /// So many handles that the application has closed are kept open for a next `Open`. Default: 256.
    pub idle_handles_max: usize,
    /// For so long. Default: 30 s, half of what makes a session idle at the cell.
    pub idle_handle_time: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            on: true,
            bytes_max: 64 << 20,
            idle_handles_max: 256,
            idle_handle_time: Duration::from_secs(30),
        }
    }
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
        /// Why.
        problem: Problem,
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
    /// A call is waited for so long, from now on: a time-out that is told as [`CallError::TimedOut`]. What is over by then,
    /// and an Acquire that waits in the cell's queue, which has its answer, goes on as it would without.
    LimitCall {
        /// Which.
        token: Token,
        /// How long.
        within: Duration,
    },
    /// Tell by [`Output::Flushed`] when all that was given back before (locks, handles, withdrawn calls) is decided. After
    /// [`Input::Close`] the machine tells of the session's end alone.
    Flush {
        /// Finds the answer.
        token: Token,
    },
    /// Nobody waits for a call any more: there will be no completion. A pending `Acquire` is withdrawn and a
    /// pending `Open` undone, however far they got; other calls may or may not take effect.
    CancelCall {
        /// Which.
        token: Token,
    },
    /// From now on this handle keeps its exclusive lock when it is released, until somebody else asks for it: so the
    /// next `Acquire` costs no message. For a handle that was opened with the event CONFLICTING_REQUEST; of any other
    /// it says nothing, because nobody would tell when the lock is wanted.
    KeepLocks {
        /// Which.
        handle: HandleId,
    },
    /// The application is done with the session.
    Close,
    /// The driver is about to be gone, and can send nothing more: not even that the session is over.
    Abandoned,
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
    /// Send a frame. The last one before a `Disconnect` may carry the session's `close`, and should get out: without
    /// it, the cell waits for the end of the lease.
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
    /// Something happened to the node of a handle that was opened with events. Told after the change: a read that is
    /// called for from now on sees it, or something newer. Several changes may come as one.
    Event(HandleEvent),
    /// All that was given back before the [`Input::Flush`] of this token is decided. Never told once the session is over.
    Flushed {
        /// Which.
        token: Token,
    },
    /// Another master serves the session from here on. Nothing need be done: what differs is told as events.
    FailedOver {
        /// The epoch of the new master.
        term: Term,
    },
}

/// What a call brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// The number that it was sent under. Of a call that was answered here: a number that only this session knows,
    /// never used again, and good for [`Completion::undo`] and for withdrawing a lock like any other.
    pub number: RequestNumber,
    /// The handle that it opened, or that it named. An `Open` that was answered from the cache has a handle of its
    /// own, which only this session knows: closing it leaves others that share the open node alone.
    pub handle: HandleId,
    /// The cell's revision then. Zero if a lock was granted out of the queue, or if the call was answered here.
    pub revision: Revision,
    /// The result: neither a refusal nor `Queued`. An `Opened` that was answered here has `created` false, and the
    /// metadata that are cached, without those of the lock. If none are cached, all of them are blank (the
    /// `acl_generation`, for one, is 0, which no node has) but what never changes: kind, ephemeral, instance.
    pub result: outcome::Result,
    /// Of an `Open` with `caching` that may read: where what is cached of the node is to be read.
    pub slot: Option<Arc<Slot>>,
    /// The call was answered here, and cost no message.
    pub from_cache: bool,
}

impl Completion {
    /// What takes back what this completion brought, should nobody want it: a handle or a lock. `None` if there
    /// is nothing to take back.
    #[must_use]
    pub fn undo(&self) -> Option<Operation> {
        match self.result {
            // Not a withdrawal of the Open: others may share what it opened by now, and only this handle is closed.
            outcome::Result::Opened(_) => Some(Operation::Close(Close { handle: self.handle.0 })),
            outcome::Result::Granted(_) => {
                Some(Operation::Cancel(Cancel { number: self.number.0, handle: self.handle.0 }))
            }
            _ => None,
        }
    }
}

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// The cell refused it, and changed nothing.
    #[error("{}", escaped(&.0.message))]
    Refused(holdfast_proto::client::v1::Refusal),
    /// The session is over.
    #[error("{ended}")]
    Ended {
        /// Why; the same for all calls of the session from now on.
        ended: Ended,
        /// The request had been sent, so it may have taken effect.
        maybe_applied: bool,
    },
    /// The cell did not answer within the time that the application had set.
    #[error("the cell did not answer within {within_ms} ms")]
    TimedOut {
        /// The time, in milliseconds.
        within_ms: u64,
        /// The request had been sent, so it may have taken effect, or may yet. A lock or a handle is given back.
        maybe_applied: bool,
    },
    /// The master answered with something that is no answer.
    #[error("the master broke the protocol: {}", escaped(.0))]
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
    /// What keeps it alive is gone: the runtime that it was opened on has ended, or this process was forked from the
    /// one that has it. The cell hears nothing more of it, and ends it when its lease has run out there.
    #[error("the session's runtime has ended, or belongs to the process that this one was forked from")]
    RuntimeGone,
    /// The cell ended it, because its lease had run out there.
    #[error("the session expired: the cell heard nothing from it for a whole lease")]
    Expired,
    /// The cell ended it, because it had no handle open and nothing asked for for a minute, and the application had not
    /// asked for it to be kept.
    #[error("the session was idle for a minute, and the cell ended it")]
    Idle,
    /// An operator ended it.
    #[error("an operator ended the session")]
    Killed,
    /// No master extended the lease within the grace period.
    #[error(
        "the session expired: no master extended its lease within the grace period of {grace_ms} ms ({})",
        escaped(.last)
    )]
    GraceOver {
        /// The grace period in milliseconds.
        grace_ms: u64,
        /// What was in the way last.
        last: String,
    },
    /// No master opened it in time; or it was given up before, because nothing could come of trying on.
    #[error("no master opened the session within {waited_ms} ms ({})", escaped(.last))]
    Unreachable {
        /// How long was tried, in milliseconds.
        waited_ms: u64,
        /// What was in the way, with the addresses.
        last: String,
        /// Nothing listens at any of the addresses.
        absent: bool,
    },
    /// The cell refuses the session, and would always.
    #[error("the cell refused the session: {}", escaped(.message))]
    Refused {
        /// The code of the refusal.
        code: i32,
        /// The refusal's message.
        message: String,
        /// What it says beyond that, such as which limit is met.
        facts: Option<Facts>,
    },
}

impl Config {
    /// The secret as it travels.
    pub(crate) fn secret_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.secret)
    }
}
