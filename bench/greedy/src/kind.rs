//! The table of greedy clients.

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::greed::Greed;
use crate::kinds;

/// The ways in which a client can be greedy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// 32 streams with 256 reads each, under way, of a directory of 1,000 children
    ReadDir,
    /// Frames of 200,000 reads of metadata
    GetStatFrames,
    /// Frames of 4,096 reads of metadata
    GetStatBatches,
    /// 8 sessions with 64 writes of 256 KiB each under way
    LargeWrites,
    /// A creating Open that waits for a reader who never acknowledges, and 4,095 large writes that name its handle
    HeldWrites,
    /// 4,000 closes of handles behind one write that waits for a reader who never acknowledges
    ClosesBehindHeldWrite,
    /// 10,000 ends of one session behind such a write
    RepeatedEnds,
    /// 64 frames of 4 MiB behind a hello that is not answered yet
    HelloParked,
    /// A hello of two million empty entries
    SeenHello,
    /// 250 unary calls, each of which sends 3.9 MB of its message and no more
    HalfSent,
    /// A reader who caches a public node and never acknowledges, and writes by name to that node
    NeverAcknowledges,
    /// 8,192 unary writes that wait for a reader who never acknowledges
    HeldCalls,
    /// 96,000 watchers of one directory, and writes to its children
    Watchers,
    /// 8 sessions with a window each of refusals that name long paths, never acknowledged
    Refusals,
    /// 2,390 frames of one request each whose replies the client does not read, on a connection that it shares
    SlowReader,
    /// 300 unary calls at a time that are cancelled at once, on a connection that the client shares
    CancelledCalls,
    /// Frames each of which gives the master a quarter of a second of work, without a pause
    SlowTurns,
    /// 1,600 files of 256 KiB, and then sessions, 20,000 of them
    FillsCell,
}

impl Kind {
    /// All of them, in the order in which they are measured. What the last takes, it keeps for a while.
    pub const ALL: [Self; 18] = [
        Self::ReadDir,
        Self::GetStatFrames,
        Self::GetStatBatches,
        Self::LargeWrites,
        Self::HeldWrites,
        Self::ClosesBehindHeldWrite,
        Self::RepeatedEnds,
        Self::HelloParked,
        Self::SeenHello,
        Self::HalfSent,
        Self::NeverAcknowledges,
        Self::HeldCalls,
        Self::Watchers,
        Self::Refusals,
        Self::SlowReader,
        Self::CancelledCalls,
        Self::SlowTurns,
        Self::FillsCell,
    ];

    /// The name on the command line and in lines of JSON.
    ///
    /// # Panics
    ///
    /// Never: no kind is hidden.
    #[must_use]
    pub fn name(self) -> String {
        self.to_possible_value().expect("no kind is hidden").get_name().to_owned()
    }

    /// Prepares the attack, says that it is ready, and attacks until it is dropped or has done all that it wanted.
    ///
    /// # Errors
    ///
    /// If the preparation fails. During the attack a failure is counted, and the client begins again.
    pub async fn attack(self, greed: &Greed) -> Result<()> {
        match self {
            Self::ReadDir => kinds::read_dir::attack(greed).await,
            Self::GetStatFrames => kinds::get_stat::attack(greed, kinds::get_stat::FRAME).await,
            Self::GetStatBatches => kinds::get_stat::attack(greed, kinds::get_stat::BATCH).await,
            Self::LargeWrites => kinds::large_writes::attack(greed).await,
            Self::HeldWrites => kinds::held_writes::attack(greed).await,
            Self::ClosesBehindHeldWrite => kinds::closes::attack(greed).await,
            Self::RepeatedEnds => kinds::repeated_ends::attack(greed).await,
            Self::HelloParked => kinds::hello_parked::attack(greed).await,
            Self::SeenHello => kinds::seen_hello::attack(greed).await,
            Self::HalfSent => kinds::half_sent::attack(greed).await,
            Self::NeverAcknowledges => kinds::never_acknowledges::attack(greed).await,
            Self::HeldCalls => kinds::held_calls::attack(greed).await,
            Self::Watchers => kinds::watchers::attack(greed).await,
            Self::FillsCell => kinds::fills_cell::attack(greed).await,
            Self::Refusals => kinds::refusals::attack(greed).await,
            Self::SlowReader => kinds::slow_reader::attack(greed).await,
            Self::CancelledCalls => kinds::cancelled_calls::attack(greed).await,
            Self::SlowTurns => kinds::slow_turns::attack(greed).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_each_kind_once() {
        assert_eq!(Kind::ALL.as_slice(), Kind::value_variants());
        assert_eq!(serde_json::to_string(&Kind::ReadDir).unwrap(), format!("\"{}\"", Kind::ReadDir.name()));
    }

    #[test]
    fn each_kind_stands_in_the_ledger_of_what_went_wrong() {
        let ledger = include_str!("../../../docs/testing.md");
        for kind in Kind::ALL {
            let name = kind.name();
            assert!(ledger.contains(&format!("`{name}`")), "docs/testing.md says nothing of `{name}`");
        }
    }
}
