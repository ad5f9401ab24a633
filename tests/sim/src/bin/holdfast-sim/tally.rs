//! Adds up what came of many runs, and tells it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Instant;

use holdfast_sim::coverage::Table;
use holdfast_sim::{Invariant, Report, Stats};

/// What came of many runs.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    stats: Stats,
    coverage: Table,
    /// How long all runs together were, in simulated nanoseconds.
    simulated_nanos: u64,
    /// How many runs ended with each exit status.
    by_status: BTreeMap<u8, u64>,
    by_invariant: BTreeMap<Invariant, u64>,
    /// The smallest seed that failed, and as what.
    first_failure: Option<(u64, Invariant)>,
}

impl Tally {
    /// Takes in a run.
    pub(crate) fn add(&mut self, report: &Report) {
        self.stats += &report.stats;
        self.coverage.add(&report.coverage);
        self.simulated_nanos += report.ended.as_nanos();
        *self.by_status.entry(report.verdict.exit_status()).or_default() += 1;
        if let Some(violation) = report.verdict.violation() {
            *self.by_invariant.entry(violation.invariant).or_default() += 1;
            if self.first_failure.is_none_or(|(seed, _)| report.seed < seed) {
                self.first_failure = Some((report.seed, violation.invariant));
            }
        }
    }

    /// How many runs there were.
    pub(crate) fn runs(&self) -> u64 {
        self.by_status.values().sum()
    }

    /// How many of them failed.
    pub(crate) fn failures(&self) -> u64 {
        self.runs() - self.ended_with(0)
    }

    /// The smallest seed that failed, and as what.
    pub(crate) fn first_failure(&self) -> Option<(u64, Invariant)> {
        self.first_failure
    }

    /// How many runs failed, by what was broken.
    pub(crate) fn by_invariant(&self) -> &BTreeMap<Invariant, u64> {
        &self.by_invariant
    }

    /// The exit status of the worst run.
    pub(crate) fn worst_status(&self) -> u8 {
        self.by_status.keys().last().copied().unwrap_or(0)
    }

    fn ended_with(&self, status: u8) -> u64 {
        self.by_status.get(&status).copied().unwrap_or(0)
    }

    /// How fast it went.
    pub(crate) fn pace(&self, began: Instant) -> String {
        pace(self.simulated_nanos, began)
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.stats)?;
        let missing = self.stats.missing();
        if !missing.is_empty() {
            writeln!(f, "never happened: {}", missing.join(", "))?;
        }
        writeln!(f, "{}", self.coverage)?;
        write!(
            f,
            "{} seeds: {} passed, {} unsafe, {} stuck, {} crashed",
            self.runs(),
            self.ended_with(0),
            self.ended_with(5),
            self.ended_with(3),
            self.ended_with(4)
        )?;
        for (invariant, seeds) in &self.by_invariant {
            write!(f, "\n{invariant}: {seeds} seeds")?;
        }
        Ok(())
    }
}

/// How fast something was simulated.
pub(crate) fn pace(simulated_nanos: u64, began: Instant) -> String {
    let simulated = simulated_nanos as f64 / 1e9;
    let real = began.elapsed().as_secs_f64();
    format!("{simulated:.1} s simulated in {real:.2} s, {:.0} times real time", simulated / real.max(1e-9))
}
