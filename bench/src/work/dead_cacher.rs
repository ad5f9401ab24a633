//! A client that caches dies, and the master with it: how long everybody else waits, and how long a write waits that
//! the dead one stands in the way of (design.md §5).
//!
//! Each client has a session of its own, and keeps a file of its own and one of all in its cache. By turns it writes
//! and reads the former and reads the latter, some times a second, so that what is measured is not a queue for the
//! processor. One client is a process that does nothing but cache. In each trial it is killed, and at once the master;
//! and at once somebody writes to the file that was its own. What counts is the longest that an operation of any other
//! client took which ended after the kill; and how long that one write took. It may take as long as the dead client's
//! lease at the new master, and no client's operation may.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use holdfast::{Cell, Handle, OpenOptions, Session};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at, sleep, timeout};

use crate::arguments::Run;
use crate::cacher::Cacher;
use crate::cell::{LocalCell, Target};

const CONTENTS_BYTES: usize = 256;
const SHARED: &str = "/bench-shared";
const DEAD: &str = "/bench-dead";
/// Sessions share so many connections.
const CONNECTIONS: u32 = 8;
/// How often a client has its turn.
const TURN_EVERY: Duration = Duration::from_millis(500);
/// Of the client that dies. The least that a new master gives is longer by default, and is what the write waits for.
const LEASE: Duration = Duration::from_secs(3);
/// A write that waits longer waits for more than a lease.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What a trial has shown.
pub(crate) struct Waits {
    /// The longest operation of everybody else.
    pub(crate) others: Duration,
    /// The write that the dead client was in the way of.
    pub(crate) blocked: Duration,
}

/// Measures each trial, with `count` sessions, that of the dead one included.
pub(super) async fn measure(target: &mut Target, run: &Run, count: u32) -> Result<Vec<Waits>> {
    let addresses = target.addresses();
    let Target::Local(cell) = target else {
        bail!("the master of a cell at --addresses is not ours to kill: leave --addresses out");
    };
    let mut waits = Vec::new();
    for _ in 0..run.trials {
        waits.push(trial(cell, &addresses, count).await?);
    }
    Ok(waits)
}

async fn trial(cell: &mut LocalCell, addresses: &str, count: u32) -> Result<Waits> {
    let writer = Cell::connect([addresses])?.session().open().await.context("cannot open a session")?;
    writer.open(SHARED, OpenOptions::new().create().contents("everybody's")).await?;
    let over = Arc::new(AtomicBool::new(false));
    let (kill, killed) = watch::channel(None);
    let mut sessions = Vec::new();
    let mut tasks = JoinSet::new();
    let cells: Vec<_> = (0..CONNECTIONS).map(|_| Cell::connect([addresses])).collect::<Result<_, _>>()?;
    for (number, cell) in (1..count).zip(cells.iter().cycle()) {
        let client = Client::open(cell, number).await.context("cannot open a session")?;
        sessions.push(client.session.clone());
        tasks.spawn(client.run(number, count, Arc::clone(&over), killed.clone()));
    }
    let cacher = Cacher::start(addresses, LEASE, &[DEAD, SHARED]).await?;
    let dead = writer.open(DEAD, OpenOptions::new().caching(false)).await?;
    // All have had their turn.
    sleep(2 * TURN_EVERY).await;

    cacher.kill()?;
    let (index, at) = cell.kill_master().await?;
    kill.send_replace(Some(at));
    let written = timeout(WAIT_MAX, dead.set_contents("at last")).await;
    written.context("the write to what the dead client cached was not done")?.context("write")?;
    let blocked = at.elapsed();
    // Everybody has another turn: an operation that waits longer would be seen.
    sleep(2 * TURN_EVERY).await;
    over.store(true, Ordering::Relaxed);
    let mut others = Duration::ZERO;
    while let Some(longest) = tasks.join_next().await {
        others = others.max(longest??);
    }
    let closing: JoinSet<_> =
        sessions.into_iter().chain([writer]).map(|session| async move { session.close().await }).collect();
    closing.join_all().await;
    cell.restart(index).await?;
    Ok(Waits { others, blocked })
}

/// One of everybody else.
struct Client {
    session: Session,
    own: Handle,
    shared: Handle,
}

impl Client {
    async fn open(cell: &Cell, number: u32) -> Result<Self> {
        let session = cell.session().client_name(format!("bench-{number}")).open().await?;
        let own = session.open(&format!("/bench-own-{number}"), OpenOptions::new().create()).await?;
        let shared = session.open(SHARED, OpenOptions::new()).await?;
        Ok(Self { session, own, shared })
    }

    /// Has its turns until it is over, and gives the longest operation that ended after the kill.
    async fn run(
        self,
        number: u32,
        count: u32,
        over: Arc<AtomicBool>,
        killed: watch::Receiver<Option<Instant>>,
    ) -> Result<Duration> {
        // Clients take turns, rather than all at once.
        let first = tokio::time::Instant::now() + TURN_EVERY * number / count;
        let mut turns = interval_at(first, TURN_EVERY);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut longest = Duration::ZERO;
        let mut contents = vec![0; CONTENTS_BYTES];
        let mut turn: u64 = 0;
        while !over.load(Ordering::Relaxed) {
            turns.tick().await;
            turn += 1;
            contents[..8].copy_from_slice(&turn.to_le_bytes());
            for operation in 0..3 {
                let began = Instant::now();
                match operation {
                    0 => drop(self.own.set_contents(contents.clone()).await.context("write")?),
                    1 => {
                        let read = self.own.contents().await.context("read")?;
                        ensure!(read.bytes == contents, "a read gave something that was overwritten");
                    }
                    _ => {
                        let read = self.shared.contents().await.context("read")?;
                        ensure!(read.bytes == "everybody's", "a read gave something that nobody wrote");
                    }
                }
                let ended = Instant::now();
                if killed.borrow().is_some_and(|killed| ended > killed) {
                    longest = longest.max(ended - began);
                }
            }
        }
        Ok(longest)
    }
}
