//! How well the cache does: three counters that any thread may read at any time.
//!
//! Owns the numbers and decides nothing by them. The invariant: each only rises.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counters of one session's cache; see [`Session::cache_counters`](crate::Session::cache_counters).
#[derive(Debug, Default)]
pub struct CacheCounters {
    hits: AtomicU64,
    misses: AtomicU64,
    invalidations: AtomicU64,
}

/// The counters of a session's cache at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStats {
    /// Reads that a slot answered, and calls (`Open`, `Acquire`, `Release`) that were answered without a message.
    pub hits: u64,
    /// Reads that found their slot empty or the session not valid, and caching `Open`s that the cell was asked for.
    pub misses: u64,
    /// Invalidations that the cell sent.
    pub invalidations: u64,
}

impl CacheCounters {
    /// All of them. They are read one after the other, so a sum of them is that of no one moment.
    #[must_use]
    pub fn snapshot(&self) -> CacheStats {
        CacheStats {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
            invalidations: self.invalidations.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn miss(&self) {
        self.misses.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn invalidation(&self) {
        self.invalidations.fetch_add(1, Ordering::Relaxed);
    }
}
