//! One call of a session: from the application's task to the session's task and back.
//!
//! Owns what makes a dropped future safe: whatever it asked for and can no longer receive is withdrawn at the
//! cell. The invariant: a lock or handle that the cell granted is either in the hands of the application or on
//! its way back.

use crate::clock;
use crate::error::Error;
use crate::events::EventSet;
use crate::streams::{EventHub, SessionHub};
use holdfast_proto::client::v1::{Cancel, Close, request::Operation};
use holdfast_session::{CacheCounters, Completion, Ended, Token};
use holdfast_types::{HandleId, RequestNumber, SessionId, Time};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::runtime;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Sleep;

/// So many calls of one session may be under way; more wait before they reach the session's task. It bounds
/// the command queue, which must itself be unbounded because dropping a guard cannot wait.
const CALLS_MAX: usize = 32_768;

/// What the session's task is asked.
pub(crate) enum Command {
    /// A call, and who waits for it, `within` which time if that is limited.
    Call { token: Token, operation: Operation, opening: Opening, within: Option<Duration>, reply: Reply },
    /// Nobody waits for the call any more.
    Cancel(Token),
    /// A call that nobody waits for, such as the release of a dropped guard.
    Background(Operation),
    /// Calls on this handle fail from now on, and those that are under way too.
    Poison(HandleId),
    /// Answer when all that was given back before has reached the cell. Dropped without an answer if the session is over.
    Flush(oneshot::Sender<()>),
    /// End the session. Who waits for that watches the state.
    Close,
}

/// What an application wants of a handle beyond what the cell is told. Of calls that open nothing: nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Opening {
    /// The events to tell.
    pub(crate) events: EventSet,
    /// Keep the lock when it is released.
    pub(crate) keep_lock: bool,
}

/// What a call brought.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) completion: Completion,
    /// Where the events of the opened handle come, if it asked for any. In place before the first of them.
    pub(crate) hub: Option<Arc<EventHub>>,
}

/// Where an answer goes.
pub(crate) type Reply = oneshot::Sender<Result<Answer, Error>>;

/// A session's state, as an application sees it (P§2.8).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionState {
    /// The session holds its lease.
    Safe,
    /// The lease has run out here, and may or may not have run out at the cell. Calls wait, locks count as not
    /// held. It becomes `Safe` again, or `Ended` when the grace period is over.
    Jeopardy,
    /// The session is over for ever, and so are its handles and locks.
    Ended(Ended),
}

/// What never changes of a session once it is open.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) id: SessionId,
    /// The cell's name.
    pub(crate) cell: Arc<str>,
    /// Who the cell takes this program for.
    pub(crate) principal: Arc<str>,
}

/// The library asks the system for the process's id again after so long: the question takes longer than all the rest of a
/// read from the cache. A program that forks, and makes a runtime in the child, takes longer than that.
const SAME_PROCESS_TIME: Duration = Duration::from_micros(50);

/// What the session's task tells everybody. It does not keep the session open.
///
/// It belongs to the process that the session was opened in. A process that is forked from that one has a copy of it, and
/// of the lease, but no task that would hear of the session's end: so the child takes the session to be over, from the first.
#[derive(Debug)]
pub(crate) struct Board {
    /// The process that has the session.
    process: u32,
    /// The runtime that has it. `None` only where there is none, as in a test of this alone.
    runtime: Option<runtime::Handle>,
    /// Nanoseconds of the lease clock until which nobody need ask whether this is that process.
    same_process_until: AtomicU64,
    /// Nanoseconds of the lease clock until which the session is valid; 0 once it is over.
    valid_until: AtomicU64,
    /// Set once, before the session is given to the application.
    identity: OnceLock<Identity>,
    pub(crate) events: SessionHub,
    pub(crate) cache: Arc<CacheCounters>,
}

impl Board {
    pub(crate) fn new(cache: Arc<CacheCounters>) -> Self {
        Self {
            process: std::process::id(),
            runtime: runtime::Handle::try_current().ok(),
            same_process_until: AtomicU64::new(0),
            valid_until: AtomicU64::new(0),
            identity: OnceLock::new(),
            events: SessionHub::default(),
            cache,
        }
    }

    /// Before this moment the session is valid.
    pub(crate) fn valid_until(&self) -> Time {
        Time::from_nanos(self.valid_until.load(Ordering::Acquire))
    }

    /// A timer, also for those who wait outside a runtime.
    pub(crate) fn timer(&self, at: Instant) -> Sleep {
        let elsewhere = runtime::Handle::try_current().is_err();
        let _entered = self.runtime.as_ref().filter(|_| elsewhere).map(runtime::Handle::enter);
        tokio::time::sleep_until(at.into())
    }

    /// Whether this process has the session, and is not one that was forked from that.
    pub(crate) fn is_ours(&self) -> bool {
        self.process == std::process::id()
    }

    /// Whether the session is valid at this very moment.
    pub(crate) fn is_valid(&self) -> bool {
        self.now() < self.valid_until()
    }

    /// Now, for whoever believes in something until a certain time: the end of time, if this is another process.
    pub(crate) fn now(&self) -> Time {
        let now = clock::now();
        if now.as_nanos() < self.same_process_until.load(Ordering::Relaxed) {
            return now;
        }
        if !self.is_ours() {
            return Time::MAX;
        }
        self.same_process_until.store((now + SAME_PROCESS_TIME).as_nanos(), Ordering::Relaxed);
        now
    }

    pub(crate) fn publish_validity(&self, until: Time) {
        self.valid_until.store(until.as_nanos(), Ordering::Release);
    }

    /// Who the session is: id 0 and empty names until it is open.
    pub(crate) fn identity(&self) -> Identity {
        let nobody = || Identity { id: SessionId(0), cell: Arc::from(""), principal: Arc::from("") };
        self.identity.get().cloned().unwrap_or_else(nobody)
    }

    pub(crate) fn publish_identity(&self, id: SessionId, cell: &str, principal: &str) {
        self.identity.get_or_init(|| Identity { id, cell: Arc::from(cell), principal: Arc::from(principal) });
    }
}

/// An open session. Handles and locks keep it; when the last goes, the command channel closes, and the
/// session's task closes the session.
pub(crate) struct Shared {
    commands: mpsc::UnboundedSender<Command>,
    permits: Semaphore,
    tokens: AtomicU64,
    /// Of handles that ask for no other.
    pub(crate) lock_delay: Duration,
    pub(crate) board: Arc<Board>,
    pub(crate) state: watch::Receiver<SessionState>,
}

impl Shared {
    pub(crate) fn new(
        commands: mpsc::UnboundedSender<Command>,
        lock_delay: Duration,
        board: Arc<Board>,
        state: watch::Receiver<SessionState>,
    ) -> Self {
        let (permits, tokens) = (Semaphore::new(CALLS_MAX), AtomicU64::new(0));
        Self { commands, permits, tokens, lock_delay, board, state }
    }

    /// Does a call. Dropping the future gives back a lock that it was, or will be, granted.
    pub(crate) async fn call(
        &self,
        operation: Operation,
        within: Option<Duration>,
    ) -> Result<Completion, Error> {
        Ok(self.ask(operation, Opening::default(), within).await?.completion)
    }

    /// Does a call that opens a handle. Dropping the future gives the handle back.
    pub(crate) async fn ask(
        &self,
        operation: Operation,
        opening: Opening,
        within: Option<Duration>,
    ) -> Result<Answer, Error> {
        if self.board.now() == Time::MAX {
            return Err(self.ended_before());
        }
        let permit = self.permits.acquire().await.map_err(|_| self.ended_before())?;
        let token = Token(self.tokens.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let call = Command::Call { token, operation, opening, within, reply };
        self.commands.send(call).map_err(|_| self.ended_before())?;
        let mut pending = PendingCall { shared: self, token, answer: Some(answer), _permit: permit };
        pending.wait().await
    }

    /// Asks for something that nobody waits for.
    pub(crate) fn background(&self, operation: Operation) {
        // It fails if the session is over, which has undone everything already.
        let _ = self.commands.send(Command::Background(operation));
    }

    /// Releases the lock that this Acquire was granted.
    pub(crate) fn withdraw(&self, acquire: RequestNumber, handle: HandleId) {
        self.background(Operation::Cancel(Cancel { number: acquire.0, handle: handle.0 }));
    }

    pub(crate) fn close_handle(&self, handle: HandleId) {
        self.background(Operation::Close(Close { handle: handle.0 }));
    }

    pub(crate) fn poison(&self, handle: HandleId) {
        let _ = self.commands.send(Command::Poison(handle));
    }

    /// Waits until all that was given back before has reached the cell.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        if !self.board.is_ours() {
            return Err(self.ended_before());
        }
        let (reply, flushed) = oneshot::channel();
        self.commands.send(Command::Flush(reply)).map_err(|_| self.ended_before())?;
        flushed.await.map_err(|_| self.ended_before())
    }

    pub(crate) fn close(&self) {
        let _ = self.commands.send(Command::Close);
    }

    /// Whether the session is valid at this very moment.
    pub(crate) fn is_valid(&self) -> bool {
        self.board.is_valid()
    }

    /// Waits for the end of the session.
    pub(crate) async fn ended(&self) -> Ended {
        if !self.board.is_ours() {
            return Ended::RuntimeGone;
        }
        let mut state = self.state.clone();
        let is_ended = |state: &SessionState| matches!(state, SessionState::Ended(_));
        match state.wait_for(is_ended).await.as_deref() {
            Ok(SessionState::Ended(ended)) => ended.clone(),
            _ => Ended::RuntimeGone,
        }
    }

    /// For calls that the session's task never saw.
    fn ended_before(&self) -> Error {
        let ended = match &*self.state.borrow() {
            SessionState::Ended(ended) => ended.clone(),
            _ => Ended::RuntimeGone,
        };
        Error::SessionEnded { ended, maybe_applied: false }
    }
}

/// A call under way. Its drop is what withdraws.
struct PendingCall<'s> {
    shared: &'s Shared,
    token: Token,
    /// `None` once it is in the application's hands.
    answer: Option<oneshot::Receiver<Result<Answer, Error>>>,
    _permit: SemaphorePermit<'s>,
}

impl PendingCall<'_> {
    async fn wait(&mut self) -> Result<Answer, Error> {
        let Some(answer) = self.answer.as_mut() else {
            return Err(Error::protocol("a call was waited for twice"));
        };
        let received = answer.await;
        self.answer = None;
        // The session's task is gone, and had not taken the call up, or has panicked: what it had sent nobody knows.
        received.unwrap_or(Err(Error::SessionEnded { ended: Ended::RuntimeGone, maybe_applied: true }))
    }
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        let Some(mut answer) = self.answer.take() else { return };
        // From here on the session's task cannot deliver, and undoes a late completion itself. What it
        // delivered before is undone here.
        answer.close();
        match answer.try_recv() {
            Ok(Ok(answer)) => {
                answer.completion.undo().into_iter().for_each(|undo| self.shared.background(undo))
            }
            Ok(Err(_)) => {}
            // It fails if the session is over, which has undone everything already.
            Err(_) => drop(self.shared.commands.send(Command::Cancel(self.token))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_was_forked_from_the_one_that_has_the_session_does_not_believe_in_it() {
        let mut board = Board::new(Arc::default());
        board.publish_validity(Time::MAX);
        assert!(board.is_ours() && board.is_valid() && board.now() < board.valid_until());
        board.process += 1;
        assert!(!board.is_ours());
        // What the parent had made sure of last counts for a moment.
        while board.is_valid() || board.now() != Time::MAX {
            std::thread::yield_now();
        }
    }
}
