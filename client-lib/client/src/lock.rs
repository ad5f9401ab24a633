//! The guard of a held lock.
//!
//! Owns the fact that it may be lost: a lock is as valid as its session's lease, by this machine's clock, and
//! losing it, or being unsure of it, is a value to wait for (`lock_watch`). The invariant: while [`Lock::is_held`] says
//! true, no other session holds the lock in a conflicting mode (I3).

use crate::clock;
use crate::error::{Error, Interrupted, Lost};
use crate::handle::{Inner, mismatch};
use crate::lock_watch::{LockState, LockWatch};
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, outcome};
use holdfast_types::{Mode, RequestNumber, Sequencer, Time};
use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::sync::watch;

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
    /// How long its calls wait for the cell's answer.
    within: Option<Duration>,
    /// True once the application has given it back: from then on the cell may grant it to others.
    released: watch::Sender<bool>,
    /// False once a `Release` is decided.
    release_on_drop: bool,
}

impl Lock {
    pub(crate) fn new(
        inner: Arc<Inner>,
        within: Option<Duration>,
        number: RequestNumber,
        mode: Mode,
        granted: &wire::Granted,
    ) -> Self {
        let sequencer = Sequencer {
            name: inner.name.clone(),
            mode,
            generation: granted.lock_generation,
            instance: granted.instance,
        };
        let released = watch::Sender::new(false);
        Self { inner, sequencer, number, within, released, release_on_drop: true }
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
        let is_over = *self.inner.closed.borrow();
        clock::instant(if is_over { Time::ZERO } else { self.inner.shared.board.valid_until() })
    }

    /// How the lock fares at this very moment: held, suspended or lost.
    ///
    /// It is suspended as soon as its session's lease has run out by this machine's clock: that is before the cell may
    /// give the lock to anybody else. With the defaults it is lost for certain only 45 s later, when the grace period is
    /// over. So whoever must not act beside the next holder stops when the lock is suspended.
    #[must_use]
    pub fn state(&self) -> LockState {
        self.watch().state()
    }

    /// Follows how the lock fares from now on, as a value to wait for: see [`LockWatch::changed`].
    #[must_use]
    pub fn watch(&self) -> LockWatch {
        let shared = &self.inner.shared;
        let (session, board) = (shared.state.clone(), Arc::clone(&shared.board));
        LockWatch::new(session, board, self.inner.closed.subscribe(), self.released.subscribe())
    }

    /// Waits until the lock is lost for certain: its session is over, or its handle was closed. **That is too late to
    /// stop work that must not run beside the next holder's.** If the cell is out of reach, the cell grants the lock to
    /// another client soon after the lease has run out, and this tells of it only when the grace period is over, or when
    /// the cell is reached again. [`Lock::watch`] tells at once when the lock is [suspended](LockState::Suspended), and
    /// [`Lock::run`] stops work then. Dropping the future changes nothing.
    pub async fn lost(&self) -> Lost {
        let mut watch = self.watch();
        loop {
            if let LockState::Lost(lost) = watch.changed().await {
                return lost;
            }
        }
    }

    /// Runs `future` while the lock is held. `future` is dropped when the lock is lost, and already when it is
    /// [suspended](LockState::Suspended), for then another client may have it. To have work stand still and go on
    /// instead, say so: [`Lock::run_through_suspension`].
    ///
    /// It is stopped where it awaits. What it started elsewhere (a spawned task, a thread, another process) is
    /// not, and an order that is on its way is not called back: that is what the sequencer is for. If `future` does not
    /// await for so long that the lease runs out, and then is done, this waits until it is known whether the lock was
    /// held all the while. Dropping the future that is returned drops `future`.
    ///
    /// # Errors
    ///
    /// [`Interrupted::Suspended`] if the lease ran out before `future` was done. The guard is as good as before: it may
    /// come to be held again. [`Interrupted::Lost`] if the lock was lost before `future` was done.
    pub async fn run<F: Future>(&self, future: F) -> Result<F::Output, Interrupted> {
        self.work(future, false).await
    }

    /// Runs `future` while the lock is held, as [`Lock::run`] does, but does not drop it when the lock is
    /// [suspended](LockState::Suspended): then `future` is not polled, so it stands still, and goes on if the session
    /// proves to be alive. For work that costs much to begin again, and that does no harm where it stands: its spawned
    /// tasks, threads and processes go on meanwhile, and so does what others do on its behalf.
    ///
    /// # Errors
    ///
    /// [`Lost`] if the lock was lost before `future` was done. That may come as late as the end of the grace period.
    pub async fn run_through_suspension<F: Future>(&self, future: F) -> Result<F::Output, Lost> {
        match self.work(future, true).await {
            Ok(output) => Ok(output),
            Err(Interrupted::Lost(lost)) => Err(lost),
            // It goes through each suspension, to one end or the other.
            Err(Interrupted::Suspended) => Err(self.lost().await),
        }
    }

    async fn work<F: Future>(&self, future: F, through_suspension: bool) -> Result<F::Output, Interrupted> {
        let mut future = pin!(future);
        let mut watch = self.watch();
        let output = loop {
            match watch.state() {
                LockState::Lost(lost) => return Err(Interrupted::Lost(lost)),
                LockState::Suspended if through_suspension => {
                    watch.changed().await;
                    continue;
                }
                LockState::Suspended => return Err(Interrupted::Suspended),
                LockState::Held => {}
            }
            let while_held = std::future::poll_fn(|context| {
                if self.is_held() { future.as_mut().poll(context) } else { Poll::Pending }
            });
            tokio::select! {
                biased;
                _ = watch.changed() => {}
                output = while_held => break output,
            }
        };
        // The last poll may have taken longer than the lease: was the lock held to its end?
        loop {
            match watch.state() {
                LockState::Held => return Ok(output),
                LockState::Suspended => watch.changed().await,
                LockState::Lost(lost) => return Err(Interrupted::Lost(lost)),
            };
        }
    }

    /// Gives the lock back, and waits until the cell has done it; no lock-delay follows. If the future is
    /// dropped, the lock is released all the same. A handle with [`OpenOptions::keep_lock`](crate::OpenOptions) keeps
    /// an exclusive lock until somebody else asks for it, and this returns at once.
    ///
    /// # Errors
    ///
    /// [`Error::SessionEnded`] if the session is over, or [`Error::Refused`] (`NOT_LOCKED`, `UNKNOWN_HANDLE`) if
    /// its handle was closed: the lock is not held in any of these cases. [`Error::TimedOut`]: the lock is given back as
    /// soon as the cell hears of it, at the latest when the session ends.
    pub async fn release(mut self) -> Result<(), Error> {
        // Before it is sent: from then on the cell may grant it to somebody else.
        self.released.send_replace(true);
        let release = wire::Release { handle: self.inner.id.0 };
        let released = self.inner.shared.call(Operation::Release(release), self.within).await;
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
        self.released.send_replace(true);
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
