//! How much memory the replicas take, beyond what they had at the beginning and what the greedy client has stored.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::sleep;

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The memory of the replicas.
pub(super) struct Memory {
    /// Each replica's process, and what it had at the beginning.
    replicas: Vec<(u32, u64)>,
    /// The most that a replica has had beyond that.
    excess_bytes: u64,
}

impl Memory {
    pub(super) fn begin(processes: Vec<u32>) -> Result<Self> {
        let with_memory = |process| Some((process, resident_bytes(process)?));
        let replicas: Option<Vec<_>> = processes.into_iter().map(with_memory).collect();
        Ok(Self { replicas: replicas.context("/proc does not tell a replica's memory")?, excess_bytes: 0 })
    }

    /// Looks at all replicas. A replica that has just died is noticed elsewhere.
    pub(super) fn look(&mut self, stored_bytes: u64) {
        for (process, before) in &self.replicas {
            let now = resident_bytes(*process).unwrap_or(0);
            self.excess_bytes = self.excess_bytes.max(excess(now, *before, stored_bytes));
        }
    }

    pub(super) async fn pause(&self) {
        sleep(LOOK_EVERY).await;
    }

    pub(super) fn excess_bytes(&self) -> u64 {
        self.excess_bytes
    }
}

/// What a replica has now beyond what it had before and what it was given to keep.
fn excess(now: u64, before: u64, stored: u64) -> u64 {
    now.saturating_sub(before).saturating_sub(stored)
}

/// The memory of a process that is resident.
fn resident_bytes(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_stored_is_no_excess() {
        assert_eq!((excess(900, 100, 300), excess(350, 100, 300), excess(50, 100, 0)), (500, 0, 0));
    }

    #[test]
    fn this_process_has_memory() {
        let mut memory = Memory::begin(vec![std::process::id()]).unwrap();
        let filled = vec![1_u8; 64 << 20];
        memory.look(0);
        assert!(filled.iter().all(|byte| *byte == 1) && memory.excess_bytes() > 32 << 20);
        assert!(Memory::begin(vec![u32::MAX]).is_err());
    }
}
