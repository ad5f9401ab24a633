//! Lock-delays that run: when each is over (design.md, I4).
//!
//! The state knows which delays there are; only the master knows when they end. A new master starts each again
//! at its full length, for it cannot know how much of it has passed.

use std::collections::BTreeSet;

use holdfast_state::LockDelay;
use holdfast_types::{Duration, NodePath, Revision, Time};

/// Delays by their ends.
#[derive(Debug)]
pub(crate) struct Delays {
    drift_per_mille: u32,
    due: BTreeSet<(Time, Revision, NodePath)>,
}

impl Delays {
    pub(crate) fn new(drift_per_mille: u32) -> Self {
        Self { drift_per_mille, due: BTreeSet::new() }
    }

    /// A delay begins now. Our clock may be fast by the drift bound, so it runs longer by as much.
    pub(crate) fn start(&mut self, now: Time, delay: LockDelay) {
        let length = Duration::from_millis(u64::from(delay.delay_ms));
        let end = now + length + length * self.drift_per_mille / 1000;
        self.due.insert((end, delay.loss, delay.path));
    }

    /// A delay that is over, if one is.
    pub(crate) fn pop_over(&mut self, now: Time) -> Option<(NodePath, Revision)> {
        if self.next_end()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, loss, path)| (path, loss))
    }

    /// When the next delay is over.
    pub(crate) fn next_end(&self) -> Option<Time> {
        self.due.first().map(|(end, ..)| *end)
    }
}
