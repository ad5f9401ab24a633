//! `holdfast lock`: runs a command while holding a lock, or just holds it.
//!
//! The order of a run: look for the command, open a session, open the node, wait for the lock, hold it (`hold.rs`),
//! release. Here is how the lock is got. The promise: **a command is stopped before anybody else can be given the lock**,
//! as long as the lock-delay is not shorter than `--kill-after`; `hold.rs` says what it rests on. It holds for the command
//! and its process group, also if this process is killed or stopped; processes that have left that group are told of.

mod child;
mod guard;
mod hold;
mod offspring;
mod terminal;

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::pin::pin;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use holdfast::{Error, EventKind, Handle, Mode, OpenOptions, Session};
use nix::time::{ClockId, clock_gettime};
use tokio::time::{sleep, timeout};

use crate::client::{self, Client, WRITE_ONLY};
use crate::failure::{Failure, Kind};
use crate::name::Name;
use crate::signals::{self, Signals};
use crate::{output, units};
pub(crate) use child::{GUARDED, Guarded};
pub(crate) use guard::{GUARD, GuardCommand};
use hold::{Asked, Ended};

/// How long somebody who looks on may wonder before being told that the lock is taken.
const SILENCE_MAX: Duration = Duration::from_secs(1);
/// As the library has it.
const LOCK_DELAY_DEFAULT: &str = "15";
/// Who has waited in vain asks whether there is a master at all, for so long at most.
const ASK_MAX: Duration = Duration::from_secs(1);

/// Run a command while holding a lock.
///
/// Waits for the lock, first come, first served, and runs COMMAND with the lock's sequencer in its environment
/// as HOLDFAST_SEQUENCER: hand it to the servers that COMMAND gives orders to. If the lock is lost, or no longer
/// certain, COMMAND is stopped before anybody else is given the lock (unless --lock-delay is shorter than
/// --kill-after), even if this program is killed or stopped. That goes for COMMAND's process group; processes that
/// have left it are told of. Signals are passed on to COMMAND; on a terminal, keys work as without 'holdfast lock'.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast lock /backup --try -- ./backup.sh                 # at most one at a time
  holdfast lock /service/leader -- ./serve                   # stand by, then serve; the next takes over at the end
  holdfast lock --hold-until-asked /service/leader -- ./serve    # a newcomer takes over at once
  holdfast lock --hold-until-asked /role                     # hold it, and say when somebody wants it")]
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
    /// If the file is created: remove it again with its last user, who holds its lock or waits for it. For locks that are
    /// named after jobs, of which there are ever more. A file that is there already stays.
    #[arg(long)]
    ephemeral: bool,
    /// Hold the lock until somebody else asks for it in a conflicting mode. COMMAND, if there is one and it still
    /// runs, is then sent SIGTERM, and the lock released when it has ended. If COMMAND ends before, with status 0, the
    /// lock is held on.
    #[arg(long)]
    hold_until_asked: bool,
    /// The cell gives a lock that was lost to nobody else for so long: 0 to 60 s. A release has no delay. It is the time in
    /// which COMMAND is stopped, and in which its orders that are on their way arrive, so that the next holder does not
    /// meet them; by so much longer, after the lease, a holder that dies keeps others waiting. Programs that use the
    /// library have the same default.
    #[arg(long, value_name = "SPAN", default_value = LOCK_DELAY_DEFAULT, value_parser = parse_lock_delay)]
    lock_delay: Duration,
    /// The session's lease: 100 ms to 60 s. So long after this program dies the lock is lost.
    #[arg(long, value_name = "SPAN", default_value = "12", value_parser = parse_lease)]
    lease: Duration,
    /// If the lock is lost: how long COMMAND has after SIGTERM, before SIGKILL.
    #[arg(long, value_name = "SPAN", default_value = "10", value_parser = units::parse_span)]
    kill_after: Duration,
    /// The command and its arguments, after '--'. May be left out with --hold-until-asked.
    #[arg(last = true, required_unless_present = "hold_until_asked", value_name = "COMMAND")]
    command: Vec<OsString>,
}

impl Lock {
    pub(crate) async fn run(&self, client: &Client) -> Result<u8> {
        if let Some(program) = self.command.first() {
            child::find(program)?;
        }
        // From here on a signal cannot end us with the lock held.
        let mut signals = Signals::to_pass_on()?;
        let session = tokio::select! {
            opened = client.open_session(client.cell.session().lease(self.lease)) => opened?,
            signal = signals.end() => return Ok(signals::status_of(signal)),
        };
        match self.run_in_session(client, &session, &mut signals).await {
            Ok(Some(status)) => {
                client::close(session).await;
                Ok(status)
            }
            // At the same time: where no master answers, neither is answered.
            Ok(None) => {
                let ((), error) = tokio::join!(client::close(session), self.in_vain(client));
                Err(error)
            }
            Err(error) => {
                client::close(session).await;
                Err(error)
            }
        }
    }

    /// Gives the exit status; `None` if the lock was not to be had within `--wait`.
    async fn run_in_session(
        &self,
        client: &Client,
        session: &Session,
        signals: &mut Signals,
    ) -> Result<Option<u8>> {
        let mut options =
            OpenOptions::new().create().uses(WRITE_ONLY).caching(false).lock_delay(self.lock_delay);
        if self.ephemeral {
            options = options.ephemeral();
        }
        if self.hold_until_asked {
            options = options.events(EventKind::ConflictingRequest);
        }
        let path = client.path(&self.path);
        let taking = async {
            let opening = session.open(&path, options);
            let what = format!("opening {}, which may have created it,", self.path.as_str());
            let handle = in_time(client.timeout, opening, &what).await?;
            let asked = Asked::new(self.hold_until_asked.then(|| handle.events()).transpose()?);
            let lock = self.acquire(client, &handle).await?;
            anyhow::Ok((handle, asked, lock))
        };
        // Dropped by a signal, it withdraws from the queue.
        let (_handle, mut asked, lock) = tokio::select! {
            taken = taking => taken?,
            signal = signals.end() => return Ok(Some(signals::status_of(signal))),
        };
        let Some(lock) = lock else { return Ok(None) };
        match self.hold(client, &lock, &mut asked, signals).await? {
            Ended::Done(status) => {
                self.release(client, lock).await?;
                Ok(Some(status))
            }
            Ended::Lost(reason) => Err(Failure::error(Kind::Lost, reason)),
        }
    }

    /// Waits for the lock, as long as the options say; `None` if it was not to be had within `--wait`.
    async fn acquire(&self, client: &Client, handle: &Handle) -> Result<Option<holdfast::Lock>> {
        let path = self.path.as_str();
        let mode = if self.shared { Mode::Shared } else { Mode::Exclusive };
        if self.try_only || self.wait.is_some_and(|wait| wait.is_zero()) {
            let taken = || Failure::error(Kind::NotObtained, format!("the lock of {path} is taken"));
            let what = format!("asking for the lock of {path}");
            let lock = in_time(client.timeout, handle.try_acquire(mode), &what).await?;
            return lock.ok_or_else(taken).map(Some);
        }
        let waiting = async {
            let mut acquiring = pin!(handle.acquire(mode));
            tokio::select! {
                acquired = &mut acquiring => return acquired,
                () = announce_wait(client, handle) => {}
            }
            acquiring.await
        };
        let Some(wait) = self.wait else { return Ok(Some(waiting.await?)) };
        timeout(wait, waiting).await.ok().transpose().map_err(anyhow::Error::from)
    }

    /// Why the lock was not to be had: somebody else has it, or nobody has answered.
    async fn in_vain(&self, client: &Client) -> anyhow::Error {
        let (path, waited) = (self.path.as_str(), units::span(self.wait.unwrap_or_default()));
        // By name, so that it does not wait for the session.
        let asked = timeout(ASK_MAX.min(client.timeout), client.cell.stat(&client.path(&self.path))).await;
        if matches!(asked, Err(_) | Ok(Err(Error::Unavailable { .. }))) {
            let message = format!(
                "the lock of {path} was not to be had in {waited} (--wait), and no master answers now"
            );
            return Failure::error(Kind::Unreachable, message);
        }
        let message = format!("the lock of {path} was not to be had in {waited} (--wait)");
        Failure::error(Kind::NotObtained, message)
    }
}

/// Waits for a call of the session until `limit`, which is `--timeout`. `what` the call does, for the error that there was no
/// answer: a master may well be there, and have put this call off.
async fn in_time<T>(limit: Duration, call: impl Future<Output = Result<T, Error>>, what: &str) -> Result<T> {
    match timeout(limit, call).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Failure::error(Kind::Unreachable, unanswered(what, limit))),
    }
}

/// That a call had no answer until `limit`.
fn unanswered(what: &str, limit: Duration) -> String {
    format!("{what} was not answered within {} (--timeout)", units::span(limit))
}

/// The clock of leases: it runs on while the machine sleeps, which [`Instant`](std::time::Instant) does not.
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
    // By name: the handle is good for writing only. The wait itself goes on, whatever comes of this.
    let Ok(stat) = client.cell.stat(handle.path()).await else { return };
    let holder = match stat.lock.holders.first() {
        Some(holder) => format!("held by {}", holder.client),
        None => "under a lock-delay".to_owned(),
    };
    output::tell(&format!("waiting for the lock of {}, which is {holder}", handle.path()));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_and_the_library_have_one_lock_delay() {
        assert_eq!(parse_lock_delay(LOCK_DELAY_DEFAULT), Ok(holdfast::LOCK_DELAY_DEFAULT));
    }

    #[tokio::test]
    async fn a_call_without_an_answer_says_nothing_of_masters() {
        let call = std::future::pending::<Result<(), Error>>();
        let error =
            in_time(Duration::ZERO, call, "opening /l, which may have created it,").await.unwrap_err();
        assert_eq!(Kind::of(&error), Kind::Unreachable);
        let said = "opening /l, which may have created it, was not answered within 0 ms (--timeout)";
        assert_eq!(error.to_string(), said);
    }
}
