//! Runs many seeds on several threads, each run on one. Failures are told as they come.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use holdfast_sim::{COMMIT, Options, Report, Verdict, replay, run};

use crate::tally::Tally;

/// Seeds that are run in the same way.
#[derive(Clone, Debug)]
pub(crate) struct Batch {
    pub(crate) seeds: Range<u64>,
    pub(crate) options: Options,
    pub(crate) threads: usize,
    /// Stop when so many have failed.
    pub(crate) failures_max: u64,
    /// Failures are not told: they are what is expected.
    pub(crate) quiet: bool,
}

impl Batch {
    /// Runs them all, or until `stop` says so. What was begun by then is finished: an earlier seed may fail too.
    /// `told` hears after each run how far it is.
    pub(crate) fn run(&self, stop: impl Fn() -> bool + Sync, told: impl FnMut(&Tally) + Send) -> Tally {
        let next = AtomicU64::new(self.seeds.start);
        let end = AtomicU64::new(self.seeds.end);
        let progress = Mutex::new((Tally::default(), told));
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= end.load(Ordering::Relaxed) || stop() {
                    break;
                }
                let report = run(seed, &self.options);
                let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
                let (tally, told) = &mut *progress;
                tally.add(&report);
                self.tell_failure(&report);
                if tally.failures() >= self.failures_max {
                    end.fetch_min(seed, Ordering::Relaxed);
                }
                told(tally);
            }
        };
        std::thread::scope(|scope| (0..self.threads).for_each(|_| drop(scope.spawn(work))));
        progress.into_inner().unwrap_or_else(PoisonError::into_inner).0
    }

    fn tell_failure(&self, report: &Report) {
        if report.verdict != Verdict::Passed && !self.quiet {
            let Report { seed, verdict, .. } = report;
            println!(
                "seed {seed}: {verdict}\n    at commit {COMMIT}; replay: {}",
                replay(*seed, &self.options)
            );
        }
    }
}
