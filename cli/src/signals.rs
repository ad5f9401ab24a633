//! The signals that ask us to stop, as values to wait for.

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tokio::signal::unix::{self, SignalKind};

/// SIGTERM, SIGINT and SIGHUP, from when this was made.
#[derive(Debug)]
pub(crate) struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hang_up: unix::Signal,
}

impl Signals {
    /// Takes the signals over from their default, which would end us with a session open.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(crate) fn take() -> Result<Self> {
        let take = |kind| unix::signal(kind).context("cannot handle signals");
        Ok(Self {
            terminate: take(SignalKind::terminate())?,
            interrupt: take(SignalKind::interrupt())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::SIGTERM,
            _ = self.interrupt.recv() => Signal::SIGINT,
            _ = self.hang_up.recv() => Signal::SIGHUP,
        }
    }
}

/// As a shell reports a process that died of the signal.
pub(crate) fn status_of(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
}
