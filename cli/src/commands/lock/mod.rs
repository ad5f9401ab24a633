//! `holdfast lock`: runs a command while holding a lock.
//!
//! The order of a run: open a session, open the node, wait for the lock, run the command, release. The promise:
//! **the command is stopped before anybody else can be given the lock**, as long as the lock-delay is not
//! shorter than `--kill-after`. It rests on this: nobody is given a lost lock before our lease's end, by our own
//! clock, plus the lock-delay. So if the session is in jeopardy, and that moment is only `--kill-after` and a little
//! away, the command is stopped, although the session may yet prove to be alive.

mod child;
mod signals;

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use holdfast::{Error, Handle, Mode, OpenOptions, Session};
use nix::sys::signal::Signal;
use nix::time::{ClockId, clock_gettime};
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::failure::{Failure, Kind};
use crate::name::Name;
use crate::units;
use child::Child;
pub(crate) use child::{GUARDED, Guarded};
use signals::Signals;

/// How long somebody who looks on may wonder before being told that the lock is taken.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// The cell gets so long to confirm the end of the session.
const CLOSE_MAX: Duration = Duration::from_secs(1);
/// Stopping the command ends so much before somebody else can have the lock, on a machine that is not idle.
const RESERVE: Duration = Duration::from_millis(500);
/// A deadline is looked at again after so long at most: the machine may have slept, which stops timers but not
/// leases.
const RECHECK: Duration = Duration::from_secs(1);

/// Run a command while holding a lock.
///
/// Waits for the lock, first come, first served, and runs COMMAND with the lock's sequencer in its environment
/// as HOLDFAST_SEQUENCER: hand it to the servers that COMMAND gives orders to. If the lock is lost, or no longer
/// certain, COMMAND is stopped before anybody else is given the lock (unless --lock-delay is shorter than
/// --kill-after). SIGTERM, SIGINT and SIGHUP are passed on to COMMAND.
#[derive(Debug, Args)]
pub(crate) struct Lock {
    /// The node to lock: a file, which is created if it does not exist, or a directory.
    path: Name,
    /// Hold it shared: together with others that do.
    #[arg(long)]
    shared: bool,
    /// Do not wait for the lock: exit status 117 if it cannot be had at once.
    #[arg(long = "try", conflicts_with = "wait")]
    try_only: bool,
    /// Wait so long for the lock at most: exit status 117 after that. Without it, for ever.
    #[arg(long, value_name = "SPAN", value_parser = units::parse_span)]
    wait: Option<Duration>,
    /// If the lock is lost, nobody is given it before so long after: 0 to 60 s. A release has no delay.
    #[arg(long, value_name = "SPAN", default_value = "15", value_parser = parse_lock_delay)]
    lock_delay: Duration,
    /// The session's lease: 100 ms to 60 s. So long after this program dies the lock is lost.
    #[arg(long, value_name = "SPAN", default_value = "12", value_parser = parse_lease)]
    lease: Duration,
    /// If the lock is lost: how long COMMAND has after SIGTERM, before SIGKILL.
    #[arg(long, value_name = "SPAN", default_value = "10", value_parser = units::parse_span)]
    kill_after: Duration,
    /// The command and its arguments, after '--'.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What ended a run.
enum Ended {
    /// The command, with this exit status.
    Command(u8),
    /// The lock is lost, or may be soon; the command is stopped.
    Lost(String),
}

impl Lock {
    pub(crate) async fn run(&self, client: &Client) -> Result<u8> {
        // From here on a signal cannot end us with the lock held.
        let mut signals = Signals::take()?;
        let opening = client.cell.session().lease(self.lease).open();
        let session = tokio::select! {
            opened = timeout(client.timeout, opening) => match opened {
                Ok(session) => session?,
                Err(_) => return Err(no_master(client).await),
            },
            signal = signals.next() => return Ok(status_of(signal)),
        };
        let ran = self.run_in_session(client, &session, &mut signals).await;
        // The lock is released already, or lost; what is left may not hold up the exit for long.
        let _ = timeout(CLOSE_MAX, session.close()).await;
        ran
    }

    async fn run_in_session(&self, client: &Client, session: &Session, signals: &mut Signals) -> Result<u8> {
        let options = OpenOptions::new().create().lock_delay(self.lock_delay);
        let path = client.path(&self.path);
        let taking = async {
            let handle = session.open(&path, options).await?;
            let lock = self.acquire(client, &handle).await?;
            anyhow::Ok((handle, lock))
        };
        // Dropped by a signal, it withdraws from the queue.
        let (_handle, lock) = tokio::select! {
            taken = taking => taken?,
            signal = signals.next() => return Ok(status_of(signal)),
        };
        let mut child = Child::start(&self.command, &lock.sequencer().to_string(), client.output)?;
        match self.watch(&lock, &mut child, signals).await? {
            Ended::Command(status) => {
                self.release(client, lock).await;
                Ok(status)
            }
            Ended::Lost(reason) => {
                Err(Failure::error(Kind::Lost, format!("{reason}; the command was stopped")))
            }
        }
    }

    /// Waits for the lock, as long as the options say.
    async fn acquire(&self, client: &Client, handle: &Handle) -> Result<holdfast::Lock> {
        let path = self.path.as_str();
        let mode = if self.shared { Mode::Shared } else { Mode::Exclusive };
        if self.try_only {
            let taken = || Failure::error(Kind::NotObtained, format!("the lock of {path} is taken"));
            return handle.try_acquire(mode).await?.ok_or_else(taken);
        }
        let waiting = async {
            let mut acquiring = pin!(handle.acquire(mode));
            tokio::select! {
                acquired = &mut acquiring => return acquired,
                () = announce_wait(client, handle) => {}
            }
            acquiring.await
        };
        let Some(wait) = self.wait else { return Ok(waiting.await?) };
        match timeout(wait, waiting).await {
            Ok(acquired) => Ok(acquired?),
            Err(_) => {
                let waited = units::span(wait);
                Err(Failure::error(
                    Kind::NotObtained,
                    format!("the lock of {path} was not to be had in {waited}"),
                ))
            }
        }
    }

    /// Sees the command to its end, or stops it when the lock is lost.
    async fn watch(&self, lock: &holdfast::Lock, child: &mut Child, signals: &mut Signals) -> Result<Ended> {
        let mut stop_reason = pin!(self.must_stop(lock));
        loop {
            tokio::select! {
                // A command that ends while we sleep past the lease's end may have run without the lock.
                biased;
                reason = &mut stop_reason => {
                    child.stop(self.kill_after).await?;
                    return Ok(Ended::Lost(reason));
                }
                ended = child.wait() => return Ok(Ended::Command(ended?)),
                signal = signals.next() => child.forward(signal),
            }
        }
    }

    /// Waits until the lock is lost, or until there is just time enough left to stop the command before somebody
    /// else can be given it. Tells why.
    async fn must_stop(&self, lock: &holdfast::Lock) -> String {
        // By so much the lock outlives the lease for our purpose.
        let margin = self.lock_delay.saturating_sub(self.kill_after + RESERVE);
        let doubtful = async {
            let mut deadline = since_boot() + margin;
            loop {
                let (now, lease_left) =
                    (since_boot(), lock.valid_until().saturating_duration_since(Instant::now()));
                if !lease_left.is_zero() {
                    deadline = now + lease_left + margin;
                }
                if deadline <= now {
                    return;
                }
                sleep(RECHECK.min(deadline - now)).await;
            }
        };
        tokio::select! {
            lost = lock.lost() => lost.to_string(),
            () = doubtful => "the lock is in doubt: no master has extended the lease".to_owned(),
        }
    }

    /// Gives the lock back. The command has ended well by now, so its exit status counts, whatever comes of this.
    async fn release(&self, client: &Client, lock: holdfast::Lock) {
        let problem = match timeout(client.timeout, lock.release()).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no master answered within {}", units::span(client.timeout)),
        };
        let held_for = units::span(self.lease + self.lock_delay);
        let message = format!("holdfast: the lock may stay held for up to {held_for}: {problem}");
        let _ = writeln!(std::io::stderr(), "{message}");
    }
}

/// The clock of leases: it runs on while the machine sleeps, which [`Instant`] does not.
fn since_boot() -> Duration {
    // Linux has had it since 2.6.39. Without it no lease would have been granted to us.
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(Duration::ZERO, Duration::from)
}

/// Says on a terminal who has the lock, if it is not to be had at once.
async fn announce_wait(client: &Client, handle: &Handle) {
    if client.output.is_json() || !std::io::stderr().is_terminal() {
        return;
    }
    sleep(SILENCE_MAX).await;
    // The wait itself goes on, whatever comes of this.
    let Ok(stat) = handle.stat().await else { return };
    let holder = match stat.lock.holders.first() {
        Some(holder) => format!("held by {}", holder.client),
        None => "under a lock-delay".to_owned(),
    };
    let line = format!("holdfast: waiting for the lock of {}, which is {holder}", handle.path());
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// As a shell reports a process that died of the signal.
fn status_of(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
}

/// Why there is no session. The session itself would have tried on.
async fn no_master(client: &Client) -> anyhow::Error {
    let reason = match client.cell.status().await {
        Err(Error::Unavailable { last, .. }) => last,
        Err(error) => error.to_string(),
        Ok(_) => "the replicas that answer have no master".to_owned(),
    };
    let waited = units::span(client.timeout);
    Failure::error(Kind::Unreachable, format!("no master opened a session within {waited}: {reason}"))
}

fn parse_lock_delay(text: &str) -> Result<Duration, String> {
    in_range(text, Duration::ZERO, Duration::from_secs(60), "a lock-delay is 0 to 60 s")
}

fn parse_lease(text: &str) -> Result<Duration, String> {
    in_range(text, Duration::from_millis(100), Duration::from_secs(60), "a lease is 100 ms to 60 s long")
}

fn in_range(text: &str, min: Duration, max: Duration, rule: &str) -> Result<Duration, String> {
    let span = units::parse_span(text)?;
    if span < min || span > max { Err(rule.to_owned()) } else { Ok(span) }
}
