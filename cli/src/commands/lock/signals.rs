//! The signals that ask us to stop, as values to wait for.

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind};

/// SIGTERM, SIGINT and SIGHUP, from when this was made.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    /// Takes the signals over from their default, which would end us without releasing the lock.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(super) fn take() -> Result<Self> {
        let take = |kind| unix::signal(kind).context("cannot handle signals");
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.hang_up.recv() => Signal::SIGHUP,
        }
    }
}
