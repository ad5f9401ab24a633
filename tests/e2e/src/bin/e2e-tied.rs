//! Becomes the program that its arguments name, tied to the life of the process that started it: when that dies,
//! however it dies, so does this one. No test leaves a replica behind.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use nix::sys::{prctl, signal::Signal};
use nix::unistd::{Pid, getppid};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let parent: i32 = arguments.next().and_then(|id| id.to_str()?.parse().ok()).context("no parent's id")?;
    let program = arguments.next().context("no program")?;
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // The parent may have died before the wish was known.
    anyhow::ensure!(getppid() == Pid::from_raw(parent), "the parent is gone");
    // Returns only if it fails; the wish outlives it.
    Err(Command::new(program).args(arguments).exec().into())
}
