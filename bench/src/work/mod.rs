//! What is measured. Each work says of itself what one operation is, and checks every one.

mod cached;
mod dead_cacher;
mod failover;
pub(crate) mod fairness;
mod handoff;
mod loops;

use anyhow::{Result, bail};
use clap::ValueEnum;
use serde::Serialize;

use crate::arguments::Run;
use crate::cell::Target;
use crate::report::Line;

pub(crate) use dead_cacher::Waits;

/// The works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Work {
    /// Acquire and release; each client has a lock of its own.
    LockPairs,
    /// One lock for all: from one client's release to the grant to the next in the queue.
    Handoff,
    /// Write 256 bytes; each client has a file of its own.
    Write,
    /// Read 256 bytes, linearizably; each client has a file of its own.
    Read,
    /// Read 256 bytes from the client's cache; all clients on one core.
    CachedRead,
    /// Open a file that was closed a moment ago, without a message; all clients on one core.
    CachedOpen,
    /// The longest time that a client waits for a write when the master is killed.
    FailoverGap,
    /// The same for every operation, if a client that caches is killed too; and how long a write to what that one
    /// cached waits.
    DeadCacher,
    /// What an honest client has beside a greedy one, for each kind of greedy client. Takes a cell of its own for each, and
    /// minutes for all: measured only if it is named.
    Fairness,
}

impl Work {
    /// What is measured if nobody names a work, in that order.
    pub(crate) const ALL: [Self; 8] = [
        Self::LockPairs,
        Self::Handoff,
        Self::Write,
        Self::Read,
        Self::CachedRead,
        Self::CachedOpen,
        Self::FailoverGap,
        Self::DeadCacher,
    ];

    /// With how many clients it is measured if nobody says.
    pub(crate) fn default_clients(self) -> &'static [u32] {
        match self {
            Self::LockPairs | Self::Write | Self::Read => &[1, 64, 256],
            Self::Handoff => &[8, 64],
            Self::CachedRead | Self::CachedOpen => &[1],
            Self::FailoverGap => &[64],
            Self::DeadCacher => &[1_000],
            // The honest client.
            Self::Fairness => &[1],
        }
    }

    /// Whether it needs a cell of our own.
    pub(crate) fn needs_own_cell(self) -> bool {
        matches!(self, Self::FailoverGap | Self::DeadCacher | Self::Fairness)
    }

    /// The fewest clients it can be measured with.
    pub(crate) fn clients_min(self) -> u32 {
        // A lock that one client has for itself is not handed over, and one that is dead leaves nobody else.
        if matches!(self, Self::Handoff | Self::DeadCacher) { 2 } else { 1 }
    }

    /// Measures it with so many clients.
    pub(crate) async fn measure(self, target: &mut Target, run: &Run, clients: u32) -> Result<Line> {
        let measured = match self {
            Self::LockPairs => loops::measure(target, run, clients, loops::Operation::LockPair).await?,
            Self::Write => loops::measure(target, run, clients, loops::Operation::Write).await?,
            Self::Read => loops::measure(target, run, clients, loops::Operation::Read).await?,
            Self::CachedRead => cached::measure(target, run, clients, cached::Operation::Read).await?,
            Self::CachedOpen => cached::measure(target, run, clients, cached::Operation::Open).await?,
            Self::Handoff => handoff::measure(target, run, clients).await?,
            Self::FailoverGap => {
                let gaps = failover::measure(target, run, clients).await?;
                return Ok(Line::of_gaps(self, clients, gaps));
            }
            Self::Fairness => bail!("each kind of greedy client has a line of its own"),
            Self::DeadCacher => {
                let waits = dead_cacher::measure(target, run, clients).await?;
                return Ok(Line::of_waits(self, clients, waits));
            }
        };
        Ok(Line::of_rate(self, clients, measured))
    }
}

/// The text of a work is its name on the command line.
impl std::fmt::Display for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let value = self.to_possible_value().expect("no work is hidden");
        f.write_str(value.get_name())
    }
}
