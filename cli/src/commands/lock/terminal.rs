//! The terminal, which belongs to one process group at a time: who is in it reads, and is sent what the keys mean.
//!
//! The command has a group of its own. So that it can prompt, and be interrupted, the terminal is handed to it where it is
//! ours to give: where our group has it, and nobody else is in our group who may want it (`lock … | less`).

use std::fs::{File, read_dir, read_to_string};

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Pid, getpgrp, getpid, tcgetpgrp, tcsetpgrp};

/// The terminal that this process belongs to.
#[derive(Debug)]
pub(super) struct Terminal(File);

impl Terminal {
    /// `None` if there is none.
    pub(super) fn open() -> Option<Self> {
        let terminal = File::options().read(true).write(true).open("/dev/tty").ok()?;
        // Who does not have the terminal is stopped for giving it away, unless this signal is blocked. What we start
        // begins with no signal blocked.
        SigSet::from(Signal::SIGTTOU).thread_block().ok()?;
        Some(Self(terminal))
    }

    /// Whether our group has it.
    pub(super) fn is_ours(&self) -> bool {
        self.belongs_to(getpgrp())
    }

    /// Whether a group has it.
    pub(super) fn belongs_to(&self, group: Pid) -> bool {
        tcgetpgrp(&self.0) == Ok(group)
    }

    /// Gives it to a group. If the group has ended meanwhile, nothing is given.
    pub(super) fn give_to(&self, group: Pid) {
        let _ = tcsetpgrp(&self.0, group);
    }

    /// Takes it back from a group, if that has it.
    pub(super) fn take_back(&self, group: Pid) {
        if self.belongs_to(group) {
            self.give_to(getpgrp());
        }
    }
}

/// Whether nobody but this process is in its group.
pub(super) fn are_alone() -> bool {
    let (group, own) = (getpgrp().as_raw(), getpid().as_raw());
    let Ok(processes) = read_dir("/proc") else { return false };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    !pids
        .filter(|pid| *pid != own)
        .filter_map(Stat::of)
        .any(|other| other.group == group && !other.has_ended())
}

/// What the kernel tells of a process.
#[derive(Debug)]
pub(super) struct Stat {
    /// One letter: `T` if it is stopped, `Z` if it has ended and nobody has asked how.
    state: char,
    /// Its process group.
    pub(super) group: i32,
}

impl Stat {
    /// Of a process; `None` if there is none.
    pub(super) fn of(pid: i32) -> Option<Self> {
        let text = read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name before may have anything in it, and nothing behind it has a parenthesis.
        let (_, fields) = text.rsplit_once(')')?;
        let mut fields = fields.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let group = fields.nth(1)?.parse().ok()?;
        Some(Self { state, group })
    }

    /// Whether it runs no more.
    pub(super) fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}
