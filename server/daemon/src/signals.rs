//! SIGTERM and SIGINT as a wish to stop: the first gracefully and within a limited time, the second at once.
//!
//! A process that is a replica hears them on a thread of their own ([`SignalThread`]): whatever the replica's own thread is
//! waiting for, a disk that hangs among others, it ends when it is told to. What it had acknowledged is durable at every
//! moment, so an end by force loses nothing of it.

use std::io;
use std::thread;

use holdfast_types::Duration;
use slog::{Logger, info};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use crate::logging;
use crate::server::{Stop, runtime};

/// A replica that was asked to stop has so long for it: several times what it needs to hand over and to write what is queued.
pub(crate) const STOP_MAX: Duration = Duration::from_secs(10);
/// And one that was asked to stop at once so long.
const STOP_NOW_MAX: Duration = Duration::from_millis(500);
/// The exit status of a process that was ended by force.
const EXIT_FORCED: i32 = 1;

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

    /// Turns signals into wishes, and ends the process if they are not granted in time.
    async fn stop_replica(mut self, stop: watch::Sender<Stop>, patience: Duration, logger: Logger) {
        self.next().await;
        info!(logger, "asked to stop; a second signal stops at once");
        stop.send_replace(Stop::Gracefully);
        let asked_again = tokio::time::timeout(patience, self.next()).await.is_ok();
        stop.send_replace(Stop::Now);
        tokio::time::sleep(STOP_NOW_MAX).await;
        let why = match asked_again {
            true => "asked to stop at once".to_owned(),
            false => {
                format!("not stopped within {} s of being asked to: is its disk hanging?", patience.as_secs())
            }
        };
        let what = format!("the replica ends as in a crash, which loses nothing that it acknowledged: {why}");
        logging::exit(&logger, &what, EXIT_FORCED);
    }
}

/// The thread that hears the signals. Dropping it ends it: the signals have no effect any more.
#[derive(Debug)]
pub(crate) struct SignalThread {
    /// Nothing is ever sent.
    _until: oneshot::Sender<()>,
}

impl SignalThread {
    /// Takes the signals over, and tells `stop` of them. The process ends by force if it has not stopped `patience` after
    /// the first, or soon after the second.
    pub(crate) fn start(stop: watch::Sender<Stop>, patience: Duration, logger: Logger) -> io::Result<Self> {
        let runtime = runtime()?;
        let signals = {
            let _inside = runtime.enter();
            StopSignals::listen()?
        };
        let (until, ended) = oneshot::channel::<()>();
        thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = signals.stop_replica(stop, patience, logger) => {}
                    _ = ended => {}
                }
            });
        })?;
        Ok(Self { _until: until })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::Instant;

    use nix::sys::signal::{Signal, raise};
    use slog::o;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);
    /// What a test tells the process that it starts: how many signals come, and how patient it is.
    const SIGNALS: &str = "SIGNALS_TEST_SIGNALS";
    const PATIENCE_MS: &str = "SIGNALS_TEST_PATIENCE_MS";

    /// Not a test by itself: a process whose main thread waits for ever, as for a disk.
    #[test]
    fn a_process_that_waits_for_its_disk() {
        let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let (Some(signals), Some(patience)) = (number(SIGNALS), number(PATIENCE_MS)) else { return };
        let (stop, mut stops) = watch::channel(Stop::No);
        let logger = Logger::root(slog::Discard, o!());
        let _thread = SignalThread::start(stop, Duration::from_millis(patience), logger).unwrap();
        for signal in 0..signals {
            raise(Signal::SIGTERM).unwrap();
            // Two that come together count as one.
            while signal == 0 && *stops.borrow_and_update() == Stop::No {
                thread::yield_now();
            }
        }
        loop {
            thread::park();
        }
    }

    fn start(signals: u64, patience: Duration) -> Child {
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "signals::tests::a_process_that_waits_for_its_disk"]);
        again.env(SIGNALS, signals.to_string()).env(PATIENCE_MS, patience.as_millis().to_string());
        again.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The exit status of a process, which must end by itself.
    fn status(mut child: Child) -> Option<i32> {
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if began.elapsed() > LIMIT {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("it runs on");
            }
            thread::yield_now();
        }
        child.wait().unwrap().code()
    }

    #[test]
    fn a_second_signal_ends_a_replica_that_waits_for_its_disk() {
        assert_eq!(status(start(2, 100 * LIMIT)), Some(EXIT_FORCED));
    }

    #[test]
    fn a_replica_that_does_not_stop_in_time_is_ended() {
        assert_eq!(status(start(1, Duration::from_millis(10))), Some(EXIT_FORCED));
    }
}
