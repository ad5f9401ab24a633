//! The signals that come to us, as values to wait for.
//!
//! Whoever started us may have had a signal ignored (`nohup`, a shell's background jobs): then it stays ignored, by us and
//! by whatever we start.

use std::future::poll_fn;
use std::task::Poll;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, raise};
use tokio::signal::unix::{self, SignalKind};

/// These ask a program to stop.
const STOPPING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
/// These end a program that does not handle them, too.
const ENDING: [Signal; 9] = [
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGPWR,
    Signal::SIGXCPU,
    Signal::SIGXFSZ,
];
/// These do not, and a command may be interested in them.
const TELLING: [Signal; 3] = [Signal::SIGWINCH, Signal::SIGCONT, Signal::SIGTSTP];

/// Signals, from when this was made.
#[derive(Debug)]
pub(crate) struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    /// Takes those over that ask us to stop, from their default, which would end us with a session open.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(crate) fn that_stop() -> Result<Self> {
        Self::take(&STOPPING)
    }

    /// Takes all over that can be passed on to a command. KILL and STOP cannot, nor what faults of our own bring about.
    ///
    /// # Errors
    ///
    /// If the system refuses.
    pub(crate) fn to_pass_on() -> Result<Self> {
        Self::take(&[&STOPPING[..], &ENDING, &TELLING].concat())
    }

    fn take(signals: &[Signal]) -> Result<Self> {
        let ignored = ignored();
        let heeded = signals.iter().filter(|signal| ignored & bit(**signal) == 0);
        let taken = heeded.map(|signal| {
            let taken =
                unix::signal(SignalKind::from_raw(*signal as i32)).context("cannot handle signals")?;
            anyhow::Ok((*signal, taken))
        });
        taken.collect::<Result<_>>().map(Self)
    }

    /// Waits for the next one. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let come = self.0.iter_mut().find_map(|(signal, stream)| match stream.poll_recv(context) {
                Poll::Ready(_) => Some(*signal),
                Poll::Pending => None,
            });
            come.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Waits for one that ends us while there is no command to pass it on to. The others do to us what they do to any
    /// program. Dropping the future loses none.
    pub(crate) async fn end(&mut self) -> Signal {
        loop {
            match self.next().await {
                Signal::SIGTSTP => stop_ourselves(),
                Signal::SIGWINCH | Signal::SIGCONT => {}
                signal => return signal,
            }
        }
    }
}

/// Stops this process until it is sent CONT.
pub(crate) fn stop_ourselves() {
    // It cannot be refused, and if it were, we would just go on.
    let _ = raise(Signal::SIGSTOP);
}

/// As a shell reports a process that died of the signal.
pub(crate) fn status_of(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
}

/// Those that this process was started with to be ignored, a bit each.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

fn bit(signal: Signal) -> u64 {
    1 << (signal as i32 - 1)
}
