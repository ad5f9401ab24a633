//! Latencies of the honest client's operations, counted from when each was due.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// What the honest client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Operation {
    Write,
    LockPair,
    Read,
}

impl Operation {
    /// All of them.
    pub(super) const ALL: [Self; 3] = [Self::Write, Self::LockPair, Self::Read];
}

/// A histogram of all operations, and of each kind.
#[derive(Clone, Debug)]
pub(super) struct Latencies {
    all: Histogram<u64>,
    writes: Histogram<u64>,
    lock_pairs: Histogram<u64>,
    reads: Histogram<u64>,
}

/// Two quantiles, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Quantiles {
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) longest_ms: f64,
}

/// The quantiles of all operations, and of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Summary {
    pub(super) all: Quantiles,
    pub(super) write: Quantiles,
    pub(super) lock_pair: Quantiles,
    pub(super) read: Quantiles,
}

impl Latencies {
    pub(super) fn new() -> Self {
        // Three digits of microseconds; the histogram grows as it needs to.
        let empty = Histogram::new_with_max(120_000_000, 3).expect("three digits are possible");
        Self { all: empty.clone(), writes: empty.clone(), lock_pairs: empty.clone(), reads: empty }
    }

    pub(super) fn record(&mut self, operation: Operation, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let own = match operation {
            Operation::Write => &mut self.writes,
            Operation::LockPair => &mut self.lock_pairs,
            Operation::Read => &mut self.reads,
        };
        own.saturating_record(micros);
        self.all.saturating_record(micros);
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            all: Quantiles::of(&self.all),
            write: Quantiles::of(&self.writes),
            lock_pair: Quantiles::of(&self.lock_pairs),
            read: Quantiles::of(&self.reads),
        }
    }
}

impl Quantiles {
    fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |micros: u64| micros as f64 / 1e3;
        Self {
            p50_ms: ms(histogram.value_at_quantile(0.5)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            longest_ms: ms(histogram.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_apart_and_all_are_together() {
        let mut latencies = Latencies::new();
        for ms in 1..=100 {
            latencies.record(Operation::Write, Duration::from_millis(ms));
            latencies.record(Operation::Read, Duration::from_millis(1));
        }
        latencies.record(Operation::LockPair, Duration::from_secs(5));
        let summary = latencies.summary();
        assert!((summary.write.p50_ms - 50.0).abs() < 0.1, "{summary:?}");
        assert!((summary.write.p99_ms - 99.0).abs() < 0.1, "{summary:?}");
        assert!(summary.read.longest_ms < 1.1, "{summary:?}");
        assert!(summary.all.longest_ms > 4_990.0 && summary.all.p50_ms < 1.1, "{summary:?}");
    }
}
