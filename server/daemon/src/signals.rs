//! SIGTERM and SIGINT as a wish to stop: the first gracefully, the second at once.

use std::io;

use slog::{Logger, info};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;

use crate::server::Stop;

/// The two signals.
struct Signals {
    term: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Takes both signals over at once, and gives a future that turns them into wishes for as long as it is polled.
pub(crate) fn stop_on_signals(
    stop: watch::Sender<Stop>,
    logger: Logger,
) -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut signals =
        Signals { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    Ok(async move {
        signals.next().await;
        info!(logger, "asked to stop; a second signal stops at once");
        stop.send_replace(Stop::Gracefully);
        signals.next().await;
        stop.send_replace(Stop::Now);
    })
}

/// Waits for either signal. Dropping the future leaves both taken over.
///
/// # Errors
///
/// If the system does not let this process handle signals.
pub async fn interrupted() -> io::Result<()> {
    let mut signals =
        Signals { term: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    signals.next().await;
    Ok(())
}
