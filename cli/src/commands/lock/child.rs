//! The command that runs while the lock is held, as a process.
//!
//! Owns how it is started, signalled, stopped and reaped; knows nothing of locks. Two promises: a command does not
//! outlive the process that holds the lock for it, and its exit status is what a shell would report.
//!
//! The command leads a process group of its own, so that a signal reaches what it started, too: stopping `sh -c 'a; b'`
//! must stop `a`. The terminal is handed to that group where it is ours to give (`terminal.rs`). If we cannot stop the
//! command, the guard does (`guard.rs`).

use std::cell::Cell;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{AccessFlags, Pid, access, getpid, getppid};
use tokio::process::Command;
use tokio::signal::unix::{self, SignalKind};
use tokio::time::{sleep, timeout};

use super::guard::Guard;
use super::offspring::Offspring;
use super::terminal::{Terminal, are_alone};
use crate::failure::{Failure, Kind};
use crate::output::{self, Output};
use crate::signals;

/// The hidden subcommand that the command is started through.
pub(crate) const GUARDED: &str = "exec-guarded";
/// The rest of a group that was sent a signal gets so long from then on to end of it; and is looked at so often.
const FOLLOW_MAX: Duration = Duration::from_secs(1);
const FOLLOW_LOOK: Duration = Duration::from_millis(5);
/// Where a command is looked for if `PATH` is not set.
const PATH_DEFAULT: &str = "/bin:/usr/bin";

/// The command, running.
#[derive(Debug)]
pub(super) struct Child {
    /// Killed when dropped, so that no early return leaves it running without the lock.
    process: tokio::process::Child,
    /// Its process group, which it leads.
    group: Pid,
    /// What it has left behind.
    offspring: Offspring,
    /// The terminal that we run on, if there is one.
    terminal: Option<Terminal>,
    /// Comes when a process of ours has stopped or ended.
    changes: unix::Signal,
    /// When its group was last sent a signal that may end it.
    signalled: LastSignal,
    output: Output,
}

impl Child {
    /// Starts `command`, with `sequencer` in its environment, and tells `guard` of it.
    ///
    /// # Errors
    ///
    /// If no process can be made. That the command cannot be run may show later, as exit status 126 or 127.
    pub(super) fn start(
        command: &[OsString],
        sequencer: &str,
        guard: &mut Guard,
        output: Output,
    ) -> Result<Self> {
        let changes = unix::signal(SignalKind::child()).context("cannot handle signals")?;
        let terminal = Terminal::open();
        let takes_terminal = terminal.as_ref().is_some_and(Terminal::is_ours) && are_alone();
        // Not `current_exe`: that is a name, and the program may have been replaced under it.
        let mut starter = Command::new("/proc/self/exe");
        starter.args(output.is_json().then_some("--json")).arg(GUARDED);
        starter.args(takes_terminal.then_some("--take-terminal"));
        starter.arg(getpid().to_string()).arg("--").args(command);
        starter.env("HOLDFAST_SEQUENCER", sequencer).kill_on_drop(true).process_group(0);
        let process = starter.spawn().context("cannot start a process for the command")?;
        let pid = process.id().context("the process is gone already")?;
        let group = Pid::from_raw(i32::try_from(pid).context("a process id beyond 31 bits")?);
        guard.watch(group);
        let offspring = Offspring::adopt(vec![pid, guard.pid()]);
        let signalled = LastSignal::default();
        Ok(Self { process, group, offspring, terminal, changes, signalled, output })
    }

    /// Waits until it has ended, and gives its exit status. What it has started and left in its group may be about to end of
    /// a signal that was sent a moment before: then that is waited for, too. If the command is stopped by a key of the
    /// terminal, we stop with it. Dropping the future changes nothing: the next one goes on.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub(super) async fn wait(&mut self) -> Result<u8> {
        // Given again and again once it has ended.
        let status = self.wait_for_leader().await?;
        self.offspring.reap();
        while self.signalled.is_recent(Instant::now()) && self.offspring.is_within(self.group) {
            sleep(FOLLOW_LOOK).await;
            self.offspring.reap();
        }
        Ok(status)
    }

    async fn wait_for_leader(&mut self) -> Result<u8> {
        loop {
            tokio::select! {
                biased;
                ended = self.process.wait() => {
                    let status = ended.context("cannot wait for the command")?;
                    self.take_terminal();
                    return Ok(shell_status(status));
                }
                _ = self.changes.recv() => {
                    self.offspring.reap();
                    let stopped = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
                    // An error: it has ended, and was asked how.
                    if let Ok(WaitStatus::Stopped(_, signal)) = waitid(Id::Pid(self.group), stopped) {
                        self.has_stopped(signal);
                    }
                }
            }
        }
    }

    /// The command is stopped. What had the terminal was stopped from there, and the shell is to hear of it; what wants
    /// it gets it, if it is ours to give; what somebody else has stopped is his.
    fn has_stopped(&self, signal: Signal) {
        let Some(terminal) = &self.terminal else { return };
        if terminal.belongs_to(self.group) {
            terminal.take_back(self.group);
            signals::stop_ourselves();
        } else if matches!(signal, Signal::SIGTTIN | Signal::SIGTTOU) {
            if terminal.is_ours() {
                terminal.give_to(self.group);
                self.signal(Signal::SIGCONT);
            } else if !self.output.is_json() {
                output::tell("the command is stopped: it waits for the terminal, which others use");
            }
        }
    }

    /// Passes a signal on that came to us.
    pub(super) fn forward(&self, signal: Signal) {
        match signal {
            Signal::SIGTSTP => {
                self.signal(Signal::SIGTSTP);
                signals::stop_ourselves();
            }
            Signal::SIGCONT => {
                // A shell has put us into the foreground again.
                if let Some(terminal) = self.terminal.as_ref().filter(|terminal| terminal.is_ours())
                    && are_alone()
                {
                    terminal.give_to(self.group);
                }
                self.signal(Signal::SIGCONT);
            }
            signal => self.signal(signal),
        }
    }

    /// Asks it to end.
    pub(super) fn ask(&self) {
        self.signal(Signal::SIGTERM);
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
        self.process.wait().await.context("cannot wait for the command")?;
        self.take_terminal();
        self.offspring.reap();
        self.tell_of(&self.offspring.outside(self.group), "left its process group, and");
        Ok(())
    }

    /// It has ended by itself, as [`Self::wait`] has told; says what it has left behind.
    pub(super) fn let_go(&self) {
        self.tell_of(&self.offspring.running(), "was started by the command, and");
    }

    fn tell_of(&self, left: &[Pid], why: &str) {
        if !left.is_empty() && !self.output.is_json() {
            let pids: Vec<_> = left.iter().map(Pid::to_string).collect();
            let processes = if left.len() == 1 { "process" } else { "each of the processes" };
            output::tell(&format!("{processes} {} {why} runs on without the lock", pids.join(", ")));
        }
    }

    fn take_terminal(&self) {
        self.terminal.as_ref().inspect(|terminal| terminal.take_back(self.group));
    }

    /// Sends a signal to all of the group. There may be nobody any more.
    fn signal(&self, signal: Signal) {
        self.signalled.note(signal, Instant::now());
        let _ = killpg(self.group, signal);
        // Who is stopped notices nothing but KILL.
        if matches!(signal, Signal::SIGTERM | Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT) {
            let _ = killpg(self.group, Signal::SIGCONT);
        }
    }
}

/// When the command last sent its group a signal that may end a process of it.
#[derive(Debug, Default)]
struct LastSignal(Cell<Option<Instant>>);

impl LastSignal {
    fn note(&self, signal: Signal, now: Instant) {
        if !matches!(signal, Signal::SIGWINCH | Signal::SIGCONT | Signal::SIGTSTP) {
            self.0.set(Some(now));
        }
    }

    /// Whether a process of the group may still be about to end of that signal.
    fn is_recent(&self, now: Instant) -> bool {
        self.0.get().is_some_and(|at| now < at + FOLLOW_MAX)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.take_terminal();
    }
}

/// Looks whether there is such a command, so that nobody waits for a lock in vain.
///
/// # Errors
///
/// If there is none, or it cannot be run.
pub(super) fn find(command: &OsStr) -> Result<()> {
    let paths: Vec<PathBuf> = if command.as_encoded_bytes().contains(&b'/') {
        vec![Path::new(command).to_owned()]
    } else {
        let path = env::var_os("PATH").unwrap_or_else(|| PATH_DEFAULT.into());
        env::split_paths(&path).map(|directory| directory.join(command)).collect()
    };
    let mut found = paths.iter().filter(|path| path.exists()).peekable();
    if found.peek().is_none() {
        return Err(Failure::error(Kind::NoCommand, format!("there is no command {}", command.display())));
    }
    if found.any(|path| path.is_file() && access(path, AccessFlags::X_OK).is_ok()) {
        return Ok(());
    }
    let message = format!("cannot run {}: Permission denied, or it is no program", command.display());
    Err(Failure::error(Kind::CannotRun, message))
}

/// The hidden subcommand.
#[derive(Debug, Args)]
pub(crate) struct Guarded {
    /// Have the terminal belong to this process's group.
    #[arg(long)]
    take_terminal: bool,
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
        if self.take_terminal {
            // Here and not by the holder, so that the command has it before it looks.
            Terminal::open().inspect(|terminal| terminal.give_to(getpid()));
            SigSet::from(Signal::SIGTTOU).thread_unblock().context("cannot unblock signals")?;
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

    #[test]
    fn who_ends_long_after_a_signal_or_was_only_told_something_has_not_ended_of_it() {
        let (last, now) = (LastSignal::default(), Instant::now());
        assert!(!last.is_recent(now));
        for signal in [Signal::SIGWINCH, Signal::SIGCONT, Signal::SIGTSTP] {
            last.note(signal, now);
            assert!(!last.is_recent(now), "{signal}");
        }
        last.note(Signal::SIGUSR1, now);
        assert!(last.is_recent(now + FOLLOW_MAX / 2));
        assert!(!last.is_recent(now + FOLLOW_MAX));
        last.note(Signal::SIGTERM, now + FOLLOW_MAX);
        assert!(last.is_recent(now + FOLLOW_MAX));
    }

    #[test]
    fn a_command_is_looked_for_before_anybody_waits() {
        find("sh".as_ref()).unwrap();
        find("/bin/sh".as_ref()).unwrap();
        assert_eq!(Kind::of(&find("no-such-command".as_ref()).unwrap_err()), Kind::NoCommand);
        assert_eq!(Kind::of(&find("/no/such/command".as_ref()).unwrap_err()), Kind::NoCommand);
        assert_eq!(Kind::of(&find("/".as_ref()).unwrap_err()), Kind::CannotRun);
    }
}
