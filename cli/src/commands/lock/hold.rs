//! Holding the lock: until the command ends, until somebody asks for it, or until it is lost.
//!
//! That a command is stopped in time rests on this: nobody is given a lost lock before our lease's end, by our own
//! clock, plus the lock-delay. So if the session is in jeopardy, and that moment is only `--kill-after` and a little
//! away, the command is stopped, although the session may yet prove to be alive. If this process cannot do that, because
//! it is stopped itself, its guard does (`guard.rs`).

use std::cell::RefCell;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::Result;
use holdfast::{EventKind, HandleEvents};
use serde::Serialize;
use tokio::time::{sleep, timeout};

use super::Lock;
use super::child::Child;
use super::guard::Guard;
use super::{since_boot, unanswered};
use crate::client::Client;
use crate::signals::{self, Signals};
use crate::{output, units};

/// Stopping the command ends so much before somebody else can have the lock, on a machine that is not idle.
const RESERVE: Duration = Duration::from_millis(500);
/// A deadline is looked at again after so long at most: the machine may have slept, which stops timers but not
/// leases.
const RECHECK: Duration = Duration::from_millis(500);
/// And after so long at least.
const RECHECK_MIN: Duration = Duration::from_millis(5);

/// What ended a hold.
pub(super) enum Ended {
    /// The lock is still held and wanted no more; the exit status.
    Done(u8),
    /// The lock is lost, or may be soon; the command is stopped.
    Lost(String),
}

/// Whether somebody else has asked for the lock.
pub(super) struct Asked {
    /// `None` if nobody is to be heard, or once somebody was.
    events: Option<HandleEvents>,
    has_asked: bool,
}

impl Asked {
    /// Listens to a handle that was opened with `CONFLICTING_REQUEST`.
    pub(super) fn new(events: Option<HandleEvents>) -> Self {
        Self { events, has_asked: false }
    }

    /// Waits until somebody asks, once. Never done if nobody is to be heard, or when the session is over, which
    /// whoever holds a lock learns from the lock. Dropping the future loses nothing.
    async fn wait(&mut self) {
        while let Some(events) = &mut self.events {
            match events.next().await {
                Some(Ok(event)) if event.kinds.contains(EventKind::ConflictingRequest) => {
                    self.events = None;
                    self.has_asked = true;
                    return;
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => self.events = None,
            }
        }
        std::future::pending().await
    }
}

/// What becomes of the lock, for `--json`.
#[derive(Debug, Serialize)]
struct Document<'d> {
    event: &'static str,
    path: &'d str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequencer: Option<String>,
}

impl Lock {
    /// Sees the hold to its end.
    pub(super) async fn hold(
        &self,
        client: &Client,
        lock: &holdfast::Lock,
        asked: &mut Asked,
        signals: &mut Signals,
    ) -> Result<Ended> {
        if self.command.is_empty() {
            self.tell(client, "held", Some(lock.sequencer().to_string()))?;
        } else {
            let ended = self.run_command(client, lock, asked, signals).await?;
            let goes_on = self.hold_until_asked && !asked.has_asked && matches!(ended, Ended::Done(0));
            if !goes_on {
                return Ok(ended);
            }
            self.tell(client, "kept", None)?;
        }
        tokio::select! {
            // Who has lost the lock cannot let go of it.
            biased;
            reason = self.must_stop(lock, Duration::ZERO, |_| ()) => Ok(Ended::Lost(reason)),
            () = asked.wait() => {
                self.tell(client, "asked", None)?;
                Ok(Ended::Done(0))
            }
            signal = signals.end() => Ok(Ended::Done(signals::status_of(signal))),
        }
    }

    /// Sees the command to its end, or stops it when the lock is lost, or asks it to end when somebody asks.
    async fn run_command(
        &self,
        client: &Client,
        lock: &holdfast::Lock,
        asked: &mut Asked,
        signals: &mut Signals,
    ) -> Result<Ended> {
        let sequencer = lock.sequencer().to_string();
        let guard = RefCell::new(Guard::start(self.kill_after)?);
        let mut child = Child::start(&self.command, &sequencer, &mut guard.borrow_mut(), client.output)?;
        let certain = |until| guard.borrow_mut().until(until);
        let mut stop_reason = pin!(self.must_stop(lock, self.kill_after, certain));
        loop {
            tokio::select! {
                // A command that ends while we sleep past the lease's end may have run without the lock.
                biased;
                reason = &mut stop_reason => {
                    child.stop(self.kill_after).await?;
                    return Ok(Ended::Lost(format!("{reason}; the command was stopped")));
                }
                ended = child.wait() => {
                    let status = ended?;
                    child.let_go();
                    guard.borrow_mut().dismiss();
                    return Ok(Ended::Done(status));
                }
                () = asked.wait() => {
                    self.tell(client, "asked", None)?;
                    // Never KILL: the lock is still ours, and the command may have things to finish.
                    child.ask();
                }
                signal = signals.next() => child.forward(signal),
            }
        }
    }

    /// Waits until the lock is lost, or until there is just time enough left for a stop that takes `patience` before
    /// somebody else can be given it. Tells why; and `certain`, whenever it looks, until when there is time.
    async fn must_stop(
        &self,
        lock: &holdfast::Lock,
        patience: Duration,
        certain: impl Fn(Duration),
    ) -> String {
        // By so much the lock outlives the lease for our purpose.
        let margin = self.lock_delay.saturating_sub(patience + RESERVE);
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
                certain(deadline);
                // At the half, so that whoever watches us hears of a later deadline in good time.
                sleep(RECHECK.min((deadline - now) / 2).max(RECHECK_MIN)).await;
            }
        };
        tokio::select! {
            lost = lock.lost() => lost.to_string(),
            () = doubtful => "the lock is in doubt: no master has extended the lease".to_owned(),
        }
    }

    /// Gives the lock back. What was to be done under it is done by now, so its exit status counts, whatever comes of
    /// this.
    pub(super) async fn release(&self, client: &Client, lock: holdfast::Lock) -> Result<()> {
        let problem = match timeout(client.timeout, lock.release()).await {
            Ok(Ok(())) if self.command.is_empty() => return self.tell(client, "released", None),
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => unanswered("its release", client.timeout),
        };
        let held_for = units::span(self.lease + self.lock_delay);
        let message = format!("the lock may stay held for up to {held_for}: {problem}");
        output::tell(&message);
        Ok(())
    }

    /// Says what becomes of the lock: on standard output, unless that is the command's.
    fn tell(&self, client: &Client, event: &'static str, sequencer: Option<String>) -> Result<()> {
        let path = self.path.as_str();
        if self.command.is_empty() {
            let document = Document { event, path, sequencer };
            let text = |document: &Document<'_>| match &document.sequencer {
                Some(sequencer) => format!("{event} {sequencer}"),
                None => event.to_owned(),
            };
            // The lock is held on, whether or not anybody reads.
            client.output.print_line(&document, text)?;
            return Ok(());
        }
        // With `--json`, standard error is for failures.
        if !client.output.is_json() {
            let sentence = match event {
                "asked" => format!("somebody asks for the lock of {path}; the command is told to end"),
                _ => format!("the command is done; the lock of {path} is kept until somebody asks for it"),
            };
            output::tell(&sentence);
        }
        Ok(())
    }
}
