//! What is measured. Each work says of itself what one operation is, and checks every one.

mod failover;
mod handoff;
mod loops;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use crate::arguments::Run;
use crate::cell::Target;
use crate::report::Line;

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
    /// The longest time that a client waits for a write when the master is killed.
    FailoverGap,
}

impl Work {
    /// In the order in which they are measured.
    pub(crate) const ALL: [Self; 5] =
        [Self::LockPairs, Self::Handoff, Self::Write, Self::Read, Self::FailoverGap];

    /// With how many clients it is measured if nobody says.
    pub(crate) fn default_clients(self) -> &'static [u32] {
        match self {
            Self::LockPairs | Self::Write | Self::Read => &[1, 64, 256],
            Self::Handoff => &[8, 64],
            Self::FailoverGap => &[64],
        }
    }

    /// The fewest clients it can be measured with.
    pub(crate) fn clients_min(self) -> u32 {
        // A lock that one client has for itself is not handed over.
        if self == Self::Handoff { 2 } else { 1 }
    }

    /// Measures it with so many clients.
    pub(crate) async fn measure(self, target: &mut Target, run: &Run, clients: u32) -> Result<Line> {
        let measured = match self {
            Self::LockPairs => loops::measure(target, run, clients, loops::Operation::LockPair).await?,
            Self::Write => loops::measure(target, run, clients, loops::Operation::Write).await?,
            Self::Read => loops::measure(target, run, clients, loops::Operation::Read).await?,
            Self::Handoff => handoff::measure(target, run, clients).await?,
            Self::FailoverGap => {
                let gaps = failover::measure(target, run, clients).await?;
                return Ok(Line::of_gaps(self, clients, gaps));
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
