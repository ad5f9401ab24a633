//! SIGTERM and SIGINT as a wish to stop: the first gracefully, the second at once.

use std::io;

use slog::{Logger, info};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::server::Stop;

/// The two signals, taken over: they no longer end the process by themselves.
#[derive(Debug)]
pub struct StopSignals {
    term: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Takes both signals over, from now on.
    ///
    /// # Errors
    ///
    /// If the system does not let this process handle signals.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime.
    pub fn listen() -> io::Result<Self> {
        Ok(Self { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal of either kind. Dropping the future loses nothing.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    /// Turns signals into wishes for as long as it is polled.
    pub(crate) async fn stop_replica(mut self, stop: watch::Sender<Stop>, logger: Logger) {
        self.next().await;
        info!(logger, "asked to stop; a second signal stops at once");
        stop.send_replace(Stop::Gracefully);
        self.next().await;
        stop.send_replace(Stop::Now);
    }
}
