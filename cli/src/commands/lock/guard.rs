//! A process that stops the command if the one that holds the lock cannot: because it was killed, or is stopped itself.
//!
//! It is told the command's process group and, over and over, until when the lock is certain. If it hears nothing new
//! until then it does what its parent would do: TERM, and after a while KILL. If its parent is gone, KILL at once. It
//! heeds no signal but KILL and STOP, so that whatever reaches its parent's group or session does not reach it.
//! Invariant: it never outlives its parent for longer than it takes to stop the command.

use std::io::{self, BufRead as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use clap::Args;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;

use super::since_boot;
use crate::units;

/// The hidden subcommand that is the guard.
pub(crate) const GUARD: &str = "guard-command";
/// Its parent is given so much longer to stop the command itself.
const LATER: Duration = Duration::from_millis(250);
/// The clock is looked at again after so long at most: the machine may have slept.
const RECHECK: Duration = Duration::from_millis(500);
/// Whether a group that was sent TERM is gone is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The guard, from its parent's side. Dropping it, which ends the guard, kills what is left of the command's group.
#[derive(Debug)]
pub(super) struct Guard {
    process: Child,
    /// What it is told through. Never waits.
    orders: ChildStdin,
}

impl Guard {
    /// Starts one that knows of no command yet.
    ///
    /// # Errors
    ///
    /// If no process can be made.
    pub(super) fn start(patience: Duration) -> Result<Self> {
        let mut process = Command::new("/proc/self/exe")
            .arg0("holdfast")
            .args([GUARD, &format!("{}ms", patience.as_millis())])
            .stdin(Stdio::piped())
            // Whoever reads what the command prints must not wait for the guard.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .context("cannot start a process that guards the command")?;
        let orders = process.stdin.take().context("the guard has no standard input")?;
        // A guard that is stopped must not stop us.
        fcntl(&orders, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).context("cannot talk to the guard")?;
        Ok(Self { process, orders })
    }

    /// Its process.
    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Tells it whom it guards.
    pub(super) fn watch(&mut self, group: Pid) {
        self.say(&format!("group {group}\n"));
    }

    /// Tells it until when, by the clock of leases, the command need not be stopped.
    pub(super) fn until(&mut self, deadline: Duration) {
        self.say(&format!("until {}\n", deadline.as_millis()));
    }

    /// Tells it that the command has ended. What that left behind is its own affair.
    pub(super) fn dismiss(&mut self) {
        self.say("done\n");
    }

    fn say(&mut self, order: &str) {
        // Whoever has killed the guard does without.
        let _ = io::copy(&mut order.as_bytes(), &mut self.orders);
    }
}

/// The hidden subcommand.
#[derive(Debug, Args)]
pub(crate) struct GuardCommand {
    /// How long the command has between TERM and KILL.
    #[arg(value_parser = units::parse_span)]
    patience: Duration,
}

/// What a guard is told.
enum Order {
    Group(Pid),
    Until(Duration),
    Done,
}

impl Order {
    /// `None` for what no parent of ours says.
    fn parse(line: &str) -> Option<Self> {
        match line.split_once(' ') {
            None if line == "done" => Some(Self::Done),
            Some(("group", group)) => Some(Self::Group(Pid::from_raw(group.parse().ok()?))),
            Some(("until", deadline)) => Some(Self::Until(Duration::from_millis(deadline.parse().ok()?))),
            _ => None,
        }
    }
}

impl GuardCommand {
    /// Guards until it is dismissed or there is nothing left to guard.
    ///
    /// # Errors
    ///
    /// If the system lets it not block signals.
    pub(crate) fn run(&self) -> Result<u8> {
        SigSet::all().thread_block().context("cannot block signals")?;
        let (sender, orders) = channel();
        thread::spawn(move || {
            for line in io::stdin().lock().lines().map_while(Result::ok) {
                if let Some(order) = Order::parse(&line)
                    && sender.send(order).is_err()
                {
                    return;
                }
            }
        });
        let (mut group, mut deadline) = (None, None);
        loop {
            let left = deadline
                .map_or(RECHECK, |deadline: Duration| (deadline + LATER).saturating_sub(since_boot()));
            match orders.recv_timeout(RECHECK.min(left)) {
                Ok(Order::Done) => return Ok(0),
                Ok(Order::Group(known)) => group = Some(known),
                Ok(Order::Until(later)) => deadline = Some(later),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    group.inspect(|group| signal(*group, Signal::SIGKILL));
                    return Ok(0);
                }
            }
            if let (Some(group), Some(deadline)) = (group, deadline)
                && since_boot() >= deadline + LATER
            {
                self.stop(group);
                return Ok(0);
            }
        }
    }

    /// Does what the parent does in [`Child::stop`](super::child::Child::stop).
    fn stop(&self, group: Pid) {
        signal(group, Signal::SIGTERM);
        // Who is stopped does not notice TERM.
        signal(group, Signal::SIGCONT);
        let until = Instant::now() + self.patience;
        while Instant::now() < until && killpg(group, None).is_ok() {
            thread::sleep(LOOK_EVERY);
        }
        signal(group, Signal::SIGKILL);
    }
}

/// Whoever is left of a group gets it; there may be nobody.
fn signal(group: Pid, signal: Signal) {
    let _ = killpg(group, signal);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_understands_its_parent_and_nobody_else() {
        assert!(matches!(Order::parse("group 7"), Some(Order::Group(group)) if group.as_raw() == 7));
        assert!(matches!(Order::parse("until 1500"), Some(Order::Until(at)) if at.as_millis() == 1_500));
        assert!(matches!(Order::parse("done"), Some(Order::Done)));
        for line in ["", "done 1", "group", "group x", "until -1"] {
            assert!(Order::parse(line).is_none(), "{line}");
        }
    }
}
