//! Electing a primary, and keeping what it writes safe: a show in four acts that checks what it claims.
//!
//! `cargo run --release --bin leader-election` starts a cell of three replicas, and three candidates, kills and
//! pauses some of them, and tells what follows. What to copy is `candidate.rs`, and the fence in `resource.rs`;
//! the rest is the stage.
//!
//! - `candidate.rs`: stands for primary, and serves as one
//! - `orders.rs`, `resource.rs`: what a primary does: orders to a resource that checks sequencers
//! - `show.rs`: the four acts and their claims
//! - `cell.rs`, `process.rs`, `timeline.rs`, `wait.rs`: the stage

#![forbid(unsafe_code)]

mod candidate;
mod cell;
mod orders;
mod process;
mod resource;
mod show;
mod timeline;
mod wait;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use holdfast::Cell;

use crate::process::Parent;

/// Shows how three candidates elect a primary, and what happens when things die. Takes less than a minute; exits
/// with status 1 if anything that it claims does not hold.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
}

/// What this program is when the show starts it again.
#[derive(Debug, Subcommand)]
enum Role {
    /// A replica of the cell.
    #[command(hide = true)]
    Replica(Box<cell::Replica>),
    /// A candidate.
    #[command(hide = true)]
    Candidate(Candidate),
}

#[derive(Debug, clap::Args)]
struct Candidate {
    #[command(flatten)]
    parent: Parent,
    /// What it calls itself.
    #[arg(long)]
    name: String,
    /// Where the cell is.
    #[arg(long)]
    addresses: String,
    /// Where the resource is.
    #[arg(long)]
    resource: SocketAddr,
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().role {
        // A replica makes its own runtime.
        Some(Role::Replica(replica)) => replica.run(),
        Some(Role::Candidate(candidate)) => candidate.run(),
        None => run_async(show::run()),
    };
    let Err(error) = ended else { return ExitCode::SUCCESS };
    // If standard error cannot be written, there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "leader-election: {error:#}");
    ExitCode::FAILURE
}

impl Candidate {
    /// Stands for primary until it is killed.
    fn run(&self) -> Result<()> {
        self.parent.tie()?;
        run_async(async {
            let cell = Cell::connect([&self.addresses])?;
            candidate::run(&self.name, &cell, self.resource).await
        })
    }
}

/// One thread, also because a child is tied to the thread that started it.
fn run_async(future: impl Future<Output = Result<()>>) -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}
