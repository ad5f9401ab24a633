//! A crowd of clients in one process: many sessions over few connections, each with a lock that it holds or waits for
//! and a file that it watches. It is the program itself, started as [`parts::CROWD`](crate::torture::parts::CROWD).
//!
//! Says on its standard output, every now and then, how all of them fare: a `Status` as JSON. The files that the
//! sessions watch, `/watched-0` and so on, are there before it is started. What is written to them is a number that
//! rises; whoever sees it pass a multiple of `ROUND` passes its lock on and queues up again. Invariant: a crowd ends
//! no session of its own accord.

mod group;
mod seat;
mod tally;

use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use holdfast::Cell;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use group::Group;
pub(crate) use seat::ROUND;
use seat::{Plan, Seat};
pub(crate) use tally::Status;
use tally::Tally;

/// So many sessions are opened at a time.
const OPENINGS: usize = 64;
/// How often the leases are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// And how often it is said how all fare.
const LOOKS_PER_STATUS: u64 = 2;

/// What kind of crowd.
#[derive(Debug, Parser)]
struct Arguments {
    /// Where the replicas are, with commas between them.
    addresses: String,
    /// What its locks and files are named by.
    name: String,
    #[arg(long, default_value_t = 100)]
    sessions: usize,
    /// The sessions are spread over so many cells, each with connections of its own.
    #[arg(long, default_value_t = 1)]
    cells: usize,
    #[arg(long, default_value_t = 12_000)]
    lease_ms: u64,
    #[arg(long, default_value_t = 45_000)]
    grace_ms: u64,
    /// So many sessions share a lock: one holds it, the others wait.
    #[arg(long, default_value_t = 5)]
    group: usize,
    /// How many watched files there are.
    #[arg(long, default_value_t = 1)]
    files: usize,
    /// Every session asks the master something so often; 0: never.
    #[arg(long, default_value_t = 0)]
    ask_every_ms: u64,
    /// So many of the sessions write files of 256 KiB without a pause.
    #[arg(long, default_value_t = 0)]
    bulk: usize,
}

/// Runs until it is killed.
///
/// # Errors
///
/// If a session, or what it needs, cannot be opened.
pub fn run() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(sit(&arguments))
}

#[expect(clippy::print_stdout, reason = "it is how the program says how it fares")]
async fn sit(arguments: &Arguments) -> anyhow::Result<()> {
    let tally = Arc::new(Tally::default());
    let seats = open(arguments, &tally).await?;
    let groups = arguments.sessions.div_ceil(arguments.group.max(1)) as u64;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    for look in 0_u64.. {
        looks.tick().await;
        tally.look(&seats);
        if look % LOOKS_PER_STATUS == 0 && tally.grants() >= groups {
            println!("{}", serde_json::to_string(&Status::of(&seats, &tally))?);
        }
    }
    Ok(())
}

/// Opens the sessions, some at a time, and sets each to work.
async fn open(arguments: &Arguments, tally: &Arc<Tally>) -> anyhow::Result<Vec<Arc<Seat>>> {
    let mut cells = Vec::new();
    for _ in 0..arguments.cells.max(1) {
        cells.push(Cell::connect([&arguments.addresses])?);
    }
    let openings = Arc::new(Semaphore::new(OPENINGS));
    let mut opening = JoinSet::new();
    let mut group = Arc::new(Group::default());
    for index in 0..arguments.sessions {
        if index % arguments.group.max(1) == 0 {
            group = Arc::default();
        }
        let plan = Plan {
            lock: format!("/{}-lock-{}", arguments.name, index / arguments.group.max(1)),
            watched: format!("/watched-{}", index % arguments.files.max(1)),
            bulk: (index < arguments.bulk).then(|| format!("/{}-bulk-{index}", arguments.name)),
            ask_every: Duration::from_millis(arguments.ask_every_ms),
            group: Arc::clone(&group),
            tally: Arc::clone(tally),
        };
        let builder = cells[index % cells.len()].session();
        let builder = builder
            .client_name(format!("{}-{index}", arguments.name))
            .lease(Duration::from_millis(arguments.lease_ms))
            .grace(Duration::from_millis(arguments.grace_ms));
        let openings = Arc::clone(&openings);
        opening.spawn(async move {
            let _permit = openings.acquire_owned().await?;
            Seat::take(builder.open().await?, plan).await
        });
    }
    let mut seats = Vec::new();
    while let Some(seat) = opening.join_next().await {
        seats.push(seat??);
    }
    Ok(seats)
}
