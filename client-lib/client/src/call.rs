//! One call of a session: from the application's task to the session's task and back.
//!
//! Owns what makes a dropped future safe: whatever it asked for and can no longer receive is withdrawn at the
//! cell. The invariant: a lock or handle that the cell granted is either in the hands of the application or on
//! its way back.

use crate::error::Error;
use crate::events::EventSet;
use crate::streams::{EventHub, SessionHub};
use holdfast_proto::client::v1::{Cancel, Close, request::Operation};
use holdfast_session::{CacheCounters, Completion, Ended, Token};
use holdfast_types::{HandleId, RequestNumber, SessionId, Time};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, oneshot, watch};

/// So many calls of one session may be under way; more wait before they reach the session's task. It bounds
/// the command queue, which must itself be unbounded because dropping a guard cannot wait.
const CALLS_MAX: usize = 32_768;

/// What the session's task is asked.
pub(crate) enum Command {
    /// A call, and who waits for it.
    Call { token: Token, operation: Operation, opening: Opening, reply: Reply },
    /// Nobody waits for the call any more.
    Cancel(Token),
    /// A call that nobody waits for, such as the release of a dropped guard.
    Background(Operation),
    /// Calls on this handle fail from now on, and those that are under way too.
    Poison(HandleId),
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

/// What the session's task tells everybody. It does not keep the session open.
#[derive(Debug)]
pub(crate) struct Board {
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
    pub(crate) board: Arc<Board>,
    pub(crate) state: watch::Receiver<SessionState>,
}

impl Shared {
    pub(crate) fn new(
        commands: mpsc::UnboundedSender<Command>,
        board: Arc<Board>,
        state: watch::Receiver<SessionState>,
    ) -> Self {
        Self { commands, permits: Semaphore::new(CALLS_MAX), tokens: AtomicU64::new(0), board, state }
    }

    /// Does a call. Dropping the future gives back a lock that it was, or will be, granted.
    pub(crate) async fn call(&self, operation: Operation) -> Result<Completion, Error> {
        Ok(self.ask(operation, Opening::default()).await?.completion)
    }

    /// Does a call that opens a handle. Dropping the future gives the handle back.
    pub(crate) async fn ask(&self, operation: Operation, opening: Opening) -> Result<Answer, Error> {
        let permit = self.permits.acquire().await.map_err(|_| self.ended_before())?;
        let token = Token(self.tokens.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let call = Command::Call { token, operation, opening, reply };
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

    pub(crate) fn close(&self) {
        let _ = self.commands.send(Command::Close);
    }

    /// Whether the session is valid at this very moment.
    pub(crate) fn is_valid(&self) -> bool {
        crate::clock::now() < self.board.valid_until()
    }

    /// Waits for the end of the session.
    pub(crate) async fn ended(&self) -> Ended {
        let mut state = self.state.clone();
        let is_ended = |state: &SessionState| matches!(state, SessionState::Ended(_));
        match state.wait_for(is_ended).await.as_deref() {
            Ok(SessionState::Ended(ended)) => ended.clone(),
            // The session's task is gone with the runtime that it ran on.
            _ => Ended::Closed,
        }
    }

    /// For calls that the session's task never saw.
    fn ended_before(&self) -> Error {
        let ended = match &*self.state.borrow() {
            SessionState::Ended(ended) => ended.clone(),
            _ => Ended::Closed,
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
        // The session's task is gone with its runtime. What it had sent nobody knows.
        received.unwrap_or(Err(Error::SessionEnded { ended: Ended::Closed, maybe_applied: true }))
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
