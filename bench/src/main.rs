//! `holdfast-bench run`: starts a cell of three replicas as processes on loopback, and measures what clients get.
//!
//! It measures through the public client library only, from outside, as an application would. Never here: anything
//! that a client of the cell could not do, but for killing the master's process.
//!
//! - [`arguments`]: the command line
//! - [`run`]: one work after the other, and a line for each
//! - [`work`]: what is measured, and [`load`]: how
//! - [`cell`]: the processes; [`replica`]: this program as one of them; [`usage`]: what they consume
//! - [`cacher`]: this program as a client that dies; `work::fairness` has it as greedy clients
//! - [`report`]: the lines
//!
//! Invariant: a figure is printed only if every operation behind it succeeded and was checked.

#![forbid(unsafe_code)]

mod arguments;
mod cacher;
mod cell;
mod load;
mod replica;
mod report;
mod run;
mod usage;
mod work;

use anyhow::{Context as _, Result};
use clap::Parser as _;

use arguments::{Arguments, Command};
use mimalloc::MiMalloc;
use tokio::runtime::Runtime;

/// That of `holdfastd`, which this program is as well.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Replica(replica) => replica::serve(&replica),
        Command::Companion(companion) => runtime()?.block_on(work::fairness::be(&companion)),
        Command::Cacher(cacher) => runtime()?.block_on(cacher::cache(&cacher)),
        // It is the main thread that starts the replicas, because they die with the thread that started them.
        Command::Run(run) => runtime()?.block_on(run::run_until_interrupted(&run)),
    }
}

/// One thread: on a small machine the replicas need the others more than the load does.
fn runtime() -> Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")
}
