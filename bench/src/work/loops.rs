//! Works whose clients have nothing to do with each other: lock pairs, writes, reads.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use holdfast::{Handle, Mode};

use crate::arguments::Run;
use crate::cell::Target;
use crate::load::{self, Clients, Measured, Meter};

/// The size of what is written and read.
const CONTENTS_BYTES: usize = 256;

/// What a client does over and over, to a file of its own.
#[derive(Clone, Copy, Debug)]
pub(super) enum Operation {
    LockPair,
    Write,
    Read,
}

/// What a client knows of its file, to check that it alone changes it.
struct Checks {
    contents: Bytes,
    /// The greatest generation seen.
    generation: u64,
}

impl Operation {
    async fn perform(self, handle: &Handle, checks: &mut Checks) -> Result<()> {
        match self {
            Self::LockPair => {
                let lock = handle.acquire(Mode::Exclusive).await.context("acquire")?;
                let generation = lock.generation();
                lock.release().await.context("release")?;
                checks.rises(generation)
            }
            Self::Write => {
                let generation = handle.set_contents(checks.contents.clone()).await.context("write")?;
                checks.rises(generation)
            }
            Self::Read => {
                let contents = handle.contents().await.context("read")?;
                ensure!(contents.bytes == checks.contents, "a read gave something that nobody wrote");
                Ok(())
            }
        }
    }
}

impl Checks {
    fn rises(&mut self, generation: u64) -> Result<()> {
        ensure!(generation > self.generation, "generation {generation} came after {}", self.generation);
        self.generation = generation;
        Ok(())
    }
}

/// Measures one operation with so many clients.
pub(super) async fn measure(
    target: &mut Target,
    run: &Run,
    count: u32,
    operation: Operation,
) -> Result<Measured> {
    let contents = Bytes::from(vec![b'h'; CONTENTS_BYTES]);
    let mut clients =
        Clients::open(target, count, &contents, |client| format!("/bench-own-{client}")).await?;
    let meter = Arc::new(Meter::new(run.seconds)?);
    let tasks = std::mem::take(&mut clients.handles).into_iter().map(|handle| {
        let (meter, contents) = (Arc::clone(&meter), contents.clone());
        async move {
            let mut checks = Checks { contents, generation: 0 };
            let mut began = Instant::now();
            while !meter.is_over(began) {
                operation.perform(&handle, &mut checks).await?;
                let ended = Instant::now();
                meter.record(began, ended);
                began = ended;
            }
            anyhow::Ok(())
        }
    });
    let measured = load::measure(target, &meter, tasks).await?;
    clients.close().await;
    Ok(measured)
}
