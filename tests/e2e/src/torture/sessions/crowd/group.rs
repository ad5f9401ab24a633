//! The sessions that share a lock, and what was seen of who holds it.
//!
//! Invariant: what is wrong is counted where it is seen, by the session that was granted the lock.

use std::sync::{Mutex, PoisonError};

/// What was seen of a lock.
#[derive(Debug, Default)]
pub(super) struct Group(Mutex<Record>);

#[derive(Debug, Default)]
struct Record {
    /// Of the last grant.
    generation: u64,
    /// Somebody has it, as far as was seen.
    held: bool,
}

impl Group {
    /// Somebody was granted the lock. Says whether that is as it must be: nobody else has it, and it is a new grant.
    pub(super) fn granted(&self, generation: u64) -> bool {
        let mut record = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let right = !record.held && generation > record.generation;
        record.generation = record.generation.max(generation);
        record.held = true;
        right
    }

    /// It is about to be released, or was lost.
    pub(super) fn released(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).held = false;
    }
}
