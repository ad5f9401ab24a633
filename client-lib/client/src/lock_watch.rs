//! How a lock fares, as a value to wait for.
//!
//! Owns the rule that makes one state of what is known: the guard, its handle, its session, and the lease by this
//! machine's clock. It keeps neither the guard nor the session alive. The invariant: a lock is told to be suspended at
//! the moment its lease runs out here, although the session's task has not said so yet, and may not get to run.

use crate::call::{Board, SessionState};
use crate::clock;
use crate::error::Lost;
use holdfast_session::Ended;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::Sleep;

/// How soon the clock is looked at again when the lease has run out by it and the session's task has not said so
/// yet. A lease may also be extended in just that moment, which the task announces to nobody.
const RECHECK: Duration = Duration::from_millis(5);

/// How a lock fares; see [`Lock::state`](crate::Lock::state).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockState {
    /// The lock is certainly held: no other session holds it in a conflicting mode.
    Held,
    /// The lease has run out here, and no master has extended it. The cell may have ended the session, and given the
    /// lock to another client: act as if it had. The lock is held again, without a gap, if the session proves to be
    /// alive; and lost if it does not.
    Suspended,
    /// The lock is not held any more, and never again by this guard.
    Lost(Lost),
}

/// Tells every change of a lock's [`LockState`]; made by [`Lock::watch`](crate::Lock::watch). It keeps neither the lock
/// nor the session, so it can be given to another task.
#[derive(Clone)]
pub struct LockWatch {
    session: watch::Receiver<SessionState>,
    board: Arc<Board>,
    /// True once the handle was closed on purpose.
    handle_closed: watch::Receiver<bool>,
    /// True, or without a sender, once the guard was released or dropped.
    released: watch::Receiver<bool>,
    seen: LockState,
}

impl LockWatch {
    pub(crate) fn new(
        session: watch::Receiver<SessionState>,
        board: Arc<Board>,
        handle_closed: watch::Receiver<bool>,
        released: watch::Receiver<bool>,
    ) -> Self {
        let mut watch = Self { session, board, handle_closed, released, seen: LockState::Suspended };
        watch.state();
        watch
    }

    /// How the lock fares at this very moment. The next [`LockWatch::changed`] waits for another state than this one.
    pub fn state(&mut self) -> LockState {
        self.seen = self.look();
        self.seen.clone()
    }

    /// Waits until the lock fares otherwise than this watch has told last, and tells how. What lasts for a moment only
    /// may be passed over. [`LockState::Lost`] is the last state, and is told again at once from then on. Dropping the
    /// future changes nothing.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(lock: holdfast::Lock) {
    /// use holdfast::LockState;
    ///
    /// let mut watch = lock.watch();
    /// loop {
    ///     match watch.changed().await {
    ///         LockState::Held => println!("go on"),
    ///         LockState::Suspended => println!("stop now: somebody else may have the lock"),
    ///         LockState::Lost(why) => break println!("give up: {why}"),
    ///         _ => {}
    ///     }
    /// }
    /// # }
    /// ```
    pub async fn changed(&mut self) -> LockState {
        loop {
            let last = self.seen.clone();
            let state = self.state();
            if state != last || matches!(state, LockState::Lost(_)) {
                return state;
            }
            let doubt = self.doubt(&state);
            tokio::select! {
                // The timer last: it is not to be looked at when its runtime has ended, which the session tells.
                biased;
                // A sender that is gone is a reason to look again: `look` finds it gone, too.
                _ = self.session.changed() => {}
                _ = self.handle_closed.changed() => {}
                _ = self.released.changed() => {}
                () = wait(doubt) => {}
            }
        }
    }

    fn look(&mut self) -> LockState {
        let is_released = *self.released.borrow_and_update() || self.released.has_changed().is_err();
        if is_released {
            return LockState::Lost(Lost::Released);
        }
        if *self.handle_closed.borrow_and_update() {
            return LockState::Lost(Lost::HandleClosed);
        }
        if let SessionState::Ended(ended) = &*self.session.borrow_and_update() {
            return LockState::Lost(Lost::Session(ended.clone()));
        }
        if !self.board.is_ours() {
            return LockState::Lost(Lost::Session(Ended::RuntimeGone));
        }
        if self.board.is_valid() { LockState::Held } else { LockState::Suspended }
    }

    /// A timer for the moment at which only the clock changes the state; `None` if there is no such moment.
    fn doubt(&self, state: &LockState) -> Option<Sleep> {
        let at = match state {
            LockState::Held => clock::instant(self.board.valid_until()),
            // The session's task tells the end of it, if it knows of the jeopardy.
            LockState::Suspended if *self.session.borrow() == SessionState::Safe => Instant::now() + RECHECK,
            LockState::Suspended | LockState::Lost(_) => return None,
        };
        Some(self.board.timer(at))
    }
}

async fn wait(timer: Option<Sleep>) {
    match timer {
        Some(timer) => timer.await,
        None => std::future::pending().await,
    }
}

impl fmt::Debug for LockWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockWatch").field("seen", &self.seen).finish_non_exhaustive()
    }
}
