//! What a client has in its cache: reads, and opens, that cost no message.
//!
//! A client is a task that does nothing else, and all of them share one thread, as everything in this program does: so
//! the figure is that of one core, for as long as that is free. That nobody was asked is checked by the sessions' own
//! counters: not one miss from the first operation to the last.
//!
//! A look at the clock takes a good part of the time of such a read. So latencies are those of batches, divided by the
//! number of operations in each.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use holdfast::{Handle, OpenOptions, Session};

use crate::arguments::Run;
use crate::cell::Target;
use crate::load::{self, Clients, Measured, Meter};

/// The size of what is read.
const CONTENTS_BYTES: usize = 256;
/// So many reads between two looks at the clock. The session's task gets to run then too.
const READS_A_BATCH: u64 = 1_024;
/// An answer is kept unless it crosses with an invalidation, and nobody writes here: so one of a few must be.
const READS_UNTIL_CACHED_MAX: u32 = 100;

/// What is done over and over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    /// Read a file through an open handle.
    Read,
    /// Open a file that was closed a moment ago, and close it again.
    Open,
}

/// One client.
struct Client {
    session: Session,
    handle: Handle,
    contents: Bytes,
}

/// Measures one operation with so many clients.
pub(super) async fn measure(
    target: &mut Target,
    run: &Run,
    count: u32,
    operation: Operation,
) -> Result<Measured> {
    let contents = Bytes::from(vec![b'c'; CONTENTS_BYTES]);
    let path = |client| format!("/bench-cached-{client}");
    let open = Clients::open(target, count, &contents, path).await?;
    let mut clients = Vec::new();
    for number in 0..count {
        let session = open.session(number).clone();
        let handle = session.open(&path(number), OpenOptions::new()).await.context("open")?;
        fill(&handle).await?;
        let client = Client { session, handle, contents: contents.clone() };
        // What is opened from now on is the handle that this one leaves behind.
        client.open().await?;
        clients.push(client);
    }
    let before = open.cache_stats();
    let meter = Arc::new(Meter::new(run.seconds)?);
    let tasks = clients.into_iter().map(|client| client.run(operation, Arc::clone(&meter)));
    let measured = load::measure(target, &meter, tasks).await?;
    let after = open.cache_stats();
    let (hits, misses) = (after.hits - before.hits, after.misses - before.misses);
    ensure!(misses == 0, "the cell was asked {misses} times for what was cached");
    ensure!(hits >= measured.operations(), "only {hits} of {} came from the cache", measured.operations());
    open.close().await;
    Ok(measured)
}

/// Reads until the file is in the cache.
async fn fill(handle: &Handle) -> Result<()> {
    for _ in 0..READS_UNTIL_CACHED_MAX {
        handle.contents().await.context("read")?;
        if handle.cached_contents().is_some() {
            return Ok(());
        }
    }
    bail!("{handle:?} was not cached after {READS_UNTIL_CACHED_MAX} reads")
}

impl Client {
    async fn run(self, operation: Operation, meter: Arc<Meter>) -> Result<()> {
        let mut began = Instant::now();
        while !meter.is_over(began) {
            let count = match operation {
                Operation::Read => {
                    for _ in 0..READS_A_BATCH {
                        self.read().await?;
                    }
                    READS_A_BATCH
                }
                Operation::Open => {
                    self.open().await?;
                    1
                }
            };
            tokio::task::yield_now().await;
            let ended = Instant::now();
            meter.record_batch(began, ended, count);
            began = ended;
        }
        Ok(())
    }

    async fn read(&self) -> Result<()> {
        let contents = self.handle.contents().await.context("read")?;
        ensure!(contents.bytes == self.contents, "a read gave something that nobody wrote");
        Ok(())
    }

    async fn open(&self) -> Result<()> {
        let handle = self.session.open(self.handle.path(), OpenOptions::new()).await.context("open")?;
        ensure!(!handle.created(), "an open file was created once more");
        Ok(())
    }
}
