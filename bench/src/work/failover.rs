//! The master is killed: how long clients wait.
//!
//! Clients write in a closed loop. In each trial the process of the master gets SIGKILL, and what counts is the
//! longest time, over all clients, between two writes that succeeded, of which the second ended after the kill. Then
//! the replica is started again and catches up, and the next trial begins.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use holdfast::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::arguments::Run;
use crate::cell::{LocalCell, Target};
use crate::load::Clients;

const CONTENTS_BYTES: usize = 256;
/// The load runs so long before the kill, and again after every client has been served.
const SETTLE: Duration = Duration::from_millis(500);
/// A client that waits longer than this has lost more than time.
const GAP_MAX: Duration = Duration::from_secs(60);

/// Measures the gap of each trial.
pub(super) async fn measure(target: &mut Target, run: &Run, count: u32) -> Result<Vec<Duration>> {
    if matches!(target, Target::Foreign(_)) {
        bail!("the master of a cell at --addresses is not ours to kill: leave --addresses out");
    }
    let mut gaps = Vec::new();
    for _ in 0..run.trials {
        let contents = Bytes::from(vec![b'f'; CONTENTS_BYTES]);
        let mut clients =
            Clients::open(target, count, &contents, |client| format!("/bench-own-{client}")).await?;
        let handles = std::mem::take(&mut clients.handles);
        let Target::Local(cell) = target else { bail!("the cell is ours") };
        gaps.push(trial(cell, handles, &contents).await?);
        clients.close().await;
    }
    Ok(gaps)
}

async fn trial(cell: &mut LocalCell, handles: Vec<Handle>, contents: &Bytes) -> Result<Duration> {
    let over = Arc::new(AtomicBool::new(false));
    let (back, mut all_back) = watch::channel(0);
    let (kill, killed) = watch::channel(None);
    let count = handles.len();
    let mut tasks = JoinSet::new();
    for handle in handles {
        let writer = Writer {
            handle,
            contents: contents.clone(),
            over: Arc::clone(&over),
            killed: killed.clone(),
            back: back.clone(),
        };
        tasks.spawn(writer.run());
    }
    sleep(SETTLE).await;
    let (index, at) = cell.kill_master().await?;
    kill.send_replace(Some(at));
    let served = timeout(GAP_MAX, all_back.wait_for(|back| *back == count)).await;
    served.context("some clients were not served again")?.context("the clients are gone")?;
    sleep(SETTLE).await;
    over.store(true, Ordering::Relaxed);
    let mut longest = Duration::ZERO;
    while let Some(gap) = tasks.join_next().await {
        longest = longest.max(gap??);
    }
    cell.restart(index).await?;
    Ok(longest)
}

/// One client.
struct Writer {
    handle: Handle,
    contents: Bytes,
    over: Arc<AtomicBool>,
    /// When the master was killed.
    killed: watch::Receiver<Option<Instant>>,
    /// How many clients have been served since.
    back: watch::Sender<usize>,
}

impl Writer {
    /// Writes until it is over, and gives the longest gap that ended after the kill.
    async fn run(self) -> Result<Duration> {
        let mut last = Instant::now();
        let mut generation = 0;
        let mut longest = Duration::ZERO;
        let mut served = false;
        while !self.over.load(Ordering::Relaxed) {
            let began = Instant::now();
            let written = self.handle.set_contents(self.contents.clone()).await.context("write")?;
            ensure!(written > generation, "generation {written} came after {generation}");
            generation = written;
            let now = Instant::now();
            let gap = now - std::mem::replace(&mut last, now);
            let Some(killed) = *self.killed.borrow() else { continue };
            if now > killed {
                longest = longest.max(gap);
            }
            // An answer that was on its way when the master died does not show that there is another.
            if began > killed && !served {
                served = true;
                self.back.send_modify(|back| *back += 1);
            }
        }
        ensure!(served, "a client was not served after the kill");
        Ok(longest)
    }
}
