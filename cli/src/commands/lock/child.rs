//! The command that runs while the lock is held, as a process.
//!
//! Owns how it is started, signalled and reaped; knows nothing of locks. Two promises: a command does not
//! outlive the process that holds the lock for it, and its exit status is what a shell would report.
//!
//! Where standard input is no terminal, the command leads a process group of its own, so that a signal reaches
//! what it started, too: stopping `sh -c 'a; b'` must stop `a`. On a terminal it stays in ours, because a group
//! of its own could neither read from the terminal nor be interrupted by its keys.

use std::ffi::OsString;
use std::io::{ErrorKind, IsTerminal as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::{Pid, getpid, getppid};
use tokio::process::Command;
use tokio::time::timeout;

use crate::failure::{Failure, Kind};
use crate::output::Output;

/// The hidden subcommand that the command is started through.
pub(crate) const GUARDED: &str = "exec-guarded";

/// The command, running.
#[derive(Debug)]
pub(super) struct Child {
    /// Killed when dropped, so that no early return leaves it running without the lock.
    process: tokio::process::Child,
    /// Its id; that of its group, too, if it leads one.
    pid: Pid,
    /// Whether it leads a process group.
    leads_group: bool,
}

impl Child {
    /// Starts `command`, with `sequencer` in its environment.
    ///
    /// # Errors
    ///
    /// If no process can be made. That there is no such command shows later, as exit status 127.
    pub(super) fn start(command: &[OsString], sequencer: &str, output: Output) -> Result<Self> {
        let leads_group = !std::io::stdin().is_terminal();
        // Not `current_exe`: that is a name, and the program may have been replaced under it.
        let mut starter = Command::new("/proc/self/exe");
        starter.args(output.is_json().then_some("--json"));
        starter.arg(GUARDED).arg(getpid().to_string()).arg("--").args(command);
        starter.env("HOLDFAST_SEQUENCER", sequencer).kill_on_drop(true);
        if leads_group {
            starter.process_group(0);
        }
        let process = starter.spawn().context("cannot start a process for the command")?;
        let pid = process.id().context("the process is gone already")?;
        let pid = Pid::from_raw(i32::try_from(pid).context("a process id beyond 31 bits")?);
        Ok(Self { process, pid, leads_group })
    }

    /// Waits until it has ended. Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub(super) async fn wait(&mut self) -> Result<u8> {
        let status = self.process.wait().await.context("cannot wait for the command")?;
        Ok(shell_status(status))
    }

    /// Passes a signal on that came to us.
    pub(super) fn forward(&self, signal: Signal) {
        // In our own group, the terminal has sent its interrupt to the command already.
        if self.leads_group || signal != Signal::SIGINT {
            self.signal(signal);
        }
    }

    /// Stops it: TERM, and KILL if it is still there after `patience`.
    ///
    /// # Errors
    ///
    /// If the system does not tell whether it ended.
    pub(super) async fn stop(&mut self, patience: Duration) -> Result<()> {
        self.signal(Signal::SIGTERM);
        if let Ok(ended) = timeout(patience, self.process.wait()).await {
            ended.context("cannot wait for the command")?;
        }
        // Also when the command itself has ended: what it started may have stayed.
        self.signal(Signal::SIGKILL);
        self.wait().await?;
        Ok(())
    }

    /// Sends a signal to all that can be reached. One who has ended already needs none.
    fn signal(&self, signal: Signal) {
        let _ = if self.leads_group {
            killpg(self.pid, signal)
        } else if self.process.id().is_some() {
            kill(self.pid, signal)
        } else {
            Ok(())
        };
    }
}

/// The hidden subcommand.
#[derive(Debug, Args)]
pub(crate) struct Guarded {
    /// The process that holds the lock.
    holder: i32,
    /// What to become.
    #[arg(last = true, required = true)]
    command: Vec<OsString>,
}

impl Guarded {
    /// Turns this process into the command, having asked the kernel to kill it when the process that holds the
    /// lock dies, in whatever way. Comes back only if that fails.
    ///
    /// A step of our own between fork and exec would do the same, but needs `unsafe`.
    ///
    /// # Errors
    ///
    /// If the holder is gone already, or the command cannot be run.
    pub(crate) fn run(&self) -> Result<u8> {
        // KILL, because nobody would be left to follow a TERM up.
        prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie the command to the holder of the lock")?;
        if getppid() != Pid::from_raw(self.holder) {
            bail!("the process that held the lock is gone");
        }
        let (program, arguments) = self.command.split_first().context("no command is given")?;
        let error = std::process::Command::new(program).args(arguments).exec();
        let kind = if error.kind() == ErrorKind::NotFound { Kind::NoCommand } else { Kind::CannotRun };
        Err(Failure::error(kind, format!("cannot run {}: {error}", program.display())))
    }
}

/// What a shell's `$?` says of it.
fn shell_status(status: ExitStatus) -> u8 {
    let number = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255);
    u8::try_from(number).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_by_signal_is_reported_as_a_shell_does() {
        assert_eq!(shell_status(ExitStatus::from_raw(0)), 0);
        assert_eq!(shell_status(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(shell_status(ExitStatus::from_raw(15)), 143);
    }
}
