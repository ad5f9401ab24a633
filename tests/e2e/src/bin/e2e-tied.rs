//! Becomes the program that its arguments name, tied to the life of the process that started it: when that dies,
//! however it dies, so does this one. No test leaves a replica behind.

#![forbid(unsafe_code)]

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::Context;
use holdfast_e2e::torture::parts::tie_to;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let parent: i32 = arguments.next().and_then(|id| id.to_str()?.parse().ok()).context("no parent's id")?;
    let program = arguments.next().context("no program")?;
    tie_to(parent)?;
    // Returns only if it fails; the wish outlives it.
    Err(Command::new(program).args(arguments).exec().into())
}
