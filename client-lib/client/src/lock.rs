//! The guard of a held lock.
//!
//! Owns the fact that it may be lost: a lock is as valid as its session's lease, by this machine's clock, and
//! losing it is a value to wait for. The invariant: while [`Lock::is_held`] says true, no other session holds
//! the lock in a conflicting mode (I3).

use crate::call::SessionState;
use crate::clock;
use crate::error::{Error, Lost};
use crate::handle::{Inner, mismatch};
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, outcome};
use holdfast_types::{Mode, RequestNumber, Sequencer};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

/// How soon [`Lock::run`] looks again when the lease has run out by the clock and the session's task has not
/// said so yet. A lease may also be extended in just that moment, which is announced to nobody.
const RECHECK: Duration = Duration::from_millis(5);

/// A lock that this program holds.
///
/// Dropping it releases the lock in the background; [`Lock::release`] waits until that is done. Locks are
/// advisory: what protects a resource is the [`Sequencer`], checked by the resource, or else a lock-delay.
#[must_use = "the lock is released as soon as its guard is dropped"]
pub struct Lock {
    inner: Arc<Inner>,
    sequencer: Sequencer,
    /// The Acquire that it was granted to. A drop withdraws exactly that, never a later lock of the handle.
    number: RequestNumber,
    /// False once a `Release` is decided.
    release_on_drop: bool,
}

impl Lock {
    pub(crate) fn new(inner: Arc<Inner>, number: RequestNumber, mode: Mode, granted: &wire::Granted) -> Self {
        let sequencer = Sequencer {
            name: inner.name.clone(),
            mode,
            generation: granted.lock_generation,
            instance: granted.instance,
        };
        Self { inner, sequencer, number, release_on_drop: true }
    }

    /// What to hand to the servers that are called under this lock. `to_string()` gives its text.
    #[must_use]
    pub fn sequencer(&self) -> &Sequencer {
        &self.sequencer
    }

    /// The lock generation: by itself a fencing token that any resource can compare.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.sequencer.generation
    }

    /// How the lock is held.
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.sequencer.mode
    }

    /// Whether the lock is certainly held at this moment. False as soon as the lease has run out here, and true
    /// again if it turns out that the session lived on.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !*self.inner.closed.borrow() && self.inner.shared.is_valid()
    }

    /// Until when the lock is certainly held if nothing more is heard from the cell; in the past if that moment
    /// is over.
    #[must_use]
    pub fn valid_until(&self) -> Instant {
        clock::instant(self.inner.shared.board.valid_until())
    }

    /// Waits until the lock is lost for good: its session is over, or its handle was closed. While the session
    /// is in jeopardy the lock is not lost yet; ask [`Lock::is_held`]. Dropping the future changes nothing.
    pub async fn lost(&self) -> Lost {
        let mut closed = self.inner.closed.subscribe();
        tokio::select! {
            ended = self.inner.shared.ended() => Lost::Session(ended),
            // The sender lives in `inner`, so this cannot fail.
            _ = closed.wait_for(|closed| *closed) => Lost::HandleClosed,
        }
    }

    /// Runs `future` while the lock is held. When the lock is lost, `future` is dropped. While the session is in
    /// jeopardy, `future` is not polled: it stands still, and goes on if the session proves to be alive.
    ///
    /// It is stopped where it awaits. What it started elsewhere (a spawned task, a thread, another process) is
    /// not, and an order that is on its way is not called back: that is what the sequencer is for. Dropping the
    /// future that is returned drops `future`.
    ///
    /// # Errors
    ///
    /// [`Lost`] if the lock was lost before `future` was done.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, Lost> {
        let mut future = pin!(future);
        let mut lost = pin!(self.lost());
        let mut state = self.inner.shared.state.clone();
        loop {
            let safe = *state.borrow_and_update() == SessionState::Safe && self.is_held();
            // Wakes when the lease runs out by the clock, even if the session's task does not get to run.
            let look_again = if safe { self.valid_until() } else { Instant::now() + RECHECK };
            let while_held = std::future::poll_fn(|context| {
                if self.is_held() { future.as_mut().poll(context) } else { Poll::Pending }
            });
            tokio::select! {
                biased;
                lost = &mut lost => return Err(lost),
                changed = state.changed() => if changed.is_err() { return Err(lost.await) },
                output = while_held, if safe => return Ok(output),
                () = tokio::time::sleep_until(look_again.into()) => {}
            }
        }
    }

    /// Gives the lock back, and waits until the cell has done it; no lock-delay follows. If the future is
    /// dropped, the lock is released all the same. A handle with [`OpenOptions::keep_lock`](crate::OpenOptions) keeps
    /// an exclusive lock until somebody else asks for it, and this returns at once.
    ///
    /// # Errors
    ///
    /// [`Error::SessionEnded`] if the session is over, or [`Error::Refused`] (`NOT_LOCKED`, `UNKNOWN_HANDLE`) if
    /// its handle was closed: the lock is not held in any of these cases.
    pub async fn release(mut self) -> Result<(), Error> {
        let release = wire::Release { handle: self.inner.id.0 };
        let released = self.inner.shared.call(Operation::Release(release)).await;
        // If this future is dropped before it gets here, `self` goes with it, and releases once more: harmless.
        self.release_on_drop = false;
        match released?.result {
            outcome::Result::Released(_) => Ok(()),
            _ => Err(mismatch()),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if self.release_on_drop {
            self.inner.shared.withdraw(self.number, self.inner.id);
        }
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lock").field("sequencer", &self.sequencer).field("held", &self.is_held()).finish()
    }
}
