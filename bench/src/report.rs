//! The lines: for people a table, for programs one JSON object each.

use std::io::Write as _;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use crate::arguments::Run;
use crate::load::Measured;
use crate::usage::Usage;
use crate::work::{Waits, Work, fairness};

/// What one measurement has shown.
pub(crate) struct Line {
    figures: Figures,
    /// Of a rate: for the diagnosis.
    measured: Option<Measured>,
}

/// The figures as programs read them; those that do not apply are left out.
#[derive(Debug, PartialEq, Serialize)]
struct Figures {
    work: Work,
    clients: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    ops_per_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_us: Option<f64>,
    /// The median over the trials of the longest gap of any client.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_ms: Option<f64>,
    /// The longest of any trial.
    #[serde(skip_serializing_if = "Option::is_none")]
    gap_max_ms: Option<f64>,
    /// The median over the trials of how long the write waited that a dead client was in the way of.
    #[serde(skip_serializing_if = "Option::is_none")]
    blocked_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trials: Option<usize>,
}

impl Line {
    /// Of a work that is done as often as possible.
    pub(crate) fn of_rate(work: Work, clients: u32, measured: Measured) -> Self {
        let figures = Figures {
            ops_per_s: Some(rounded(measured.per_second())),
            p50_us: Some(rounded_us(measured.quantile_us(0.5))),
            p99_us: Some(rounded_us(measured.quantile_us(0.99))),
            ..Figures::new(work, clients)
        };
        Self { figures, measured: Some(measured) }
    }

    /// Of what waited in one or more trials.
    pub(crate) fn of_waits(work: Work, clients: u32, waits: Vec<Waits>) -> Self {
        let (others, mut blocked): (_, Vec<_>) =
            waits.into_iter().map(|Waits { others, blocked }| (others, blocked)).unzip();
        blocked.sort_unstable();
        let mut line = Self::of_gaps(work, clients, others);
        line.figures.blocked_ms = median(&blocked).map(ms);
        line
    }

    /// Of the gaps of one or more trials.
    pub(crate) fn of_gaps(work: Work, clients: u32, mut gaps: Vec<Duration>) -> Self {
        gaps.sort_unstable();
        let figures = Figures {
            gap_ms: median(&gaps).map(ms),
            gap_max_ms: gaps.last().copied().map(ms),
            trials: Some(gaps.len()),
            ..Figures::new(work, clients)
        };
        Self { figures, measured: None }
    }
}

impl Figures {
    fn new(work: Work, clients: u32) -> Self {
        let (ops_per_s, p50_us, p99_us) = (None, None, None);
        let (gap_ms, gap_max_ms, blocked_ms) = (None, None, None);
        Self { work, clients, ops_per_s, p50_us, p99_us, gap_ms, gap_max_ms, blocked_ms, trials: None }
    }

    fn text(&self) -> String {
        let rate = self.ops_per_s.map(|rate| format!("{rate:>12.0} /s"));
        let latency = |name: &str, us: Option<f64>| {
            // What takes less than a microsecond is told in nanoseconds.
            us.map(|us| match us {
                ..1.0 => format!("  {name} {:>8.0} ns", us * 1e3),
                _ => format!("  {name} {:>8.3} ms", us / 1e3),
            })
        };
        let gap = |name: &str, ms: Option<f64>| ms.map(|ms| format!("  {name} gap {ms:.1} ms"));
        let parts = [
            Some(format!("{:<14}{:>5} clients", self.work.to_string(), self.clients)),
            rate,
            latency("p50", self.p50_us),
            latency("p99", self.p99_us),
            gap("median", self.gap_ms),
            gap("longest", self.gap_max_ms),
            self.blocked_ms.map(|ms| format!("  write of what the dead one cached {ms:.0} ms")),
            self.trials.map(|trials| format!("  of {trials} trials")),
        ];
        parts.into_iter().flatten().collect()
    }
}

/// Of a sorted list; the mean of the middle two if there are two.
fn median(sorted: &[Duration]) -> Option<Duration> {
    let middle = sorted.get(sorted.len() / 2)?;
    let other = if sorted.len().is_multiple_of(2) { sorted.get(sorted.len() / 2 - 1)? } else { middle };
    Some((*middle + *other) / 2)
}

/// As [`rounded`]; what takes less than a microsecond, to nanoseconds.
fn rounded_us(us: f64) -> f64 {
    if us < 1.0 { (us * 1e3).round() / 1e3 } else { rounded(us) }
}

fn ms(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1e3)
}

/// More digits than a measurement has say nothing.
fn rounded(figure: f64) -> f64 {
    (figure * 10.0).round() / 10.0
}

/// Prints lines.
pub(crate) struct Report {
    json: bool,
    verbose: bool,
}

impl Report {
    pub(crate) fn new(run: &Run) -> Self {
        Self { json: run.json, verbose: run.verbose }
    }

    pub(crate) fn print_fairness(&self, line: &fairness::Line) -> Result<()> {
        let text = if self.json { serde_json::to_string(line)? } else { line.text() };
        Ok(writeln!(std::io::stdout().lock(), "{text}")?)
    }

    pub(crate) fn print(&mut self, line: &Line) -> Result<()> {
        let text = if self.json { serde_json::to_string(&line.figures)? } else { line.figures.text() };
        writeln!(std::io::stdout().lock(), "{text}")?;
        if let Some(measured) = line.measured.as_ref().filter(|_| self.verbose) {
            write!(std::io::stderr().lock(), "{}", diagnosis(measured))?;
        }
        Ok(())
    }
}

/// What a measurement consumed, and whether it was a closed loop.
fn diagnosis(measured: &Measured) -> String {
    let operations = measured.operations() as f64;
    let mut text = format!("    {:.1} under way on average\n", measured.in_flight());
    let Some(costs) = measured.costs() else { return text };
    let mut sum = Duration::ZERO;
    for (who, Usage { cpu, waits }) in
        [("master", costs.master), ("followers", costs.followers), ("load", costs.load)]
    {
        let each_us = cpu.as_secs_f64() * 1e6 / operations;
        let share = cpu.as_secs_f64() / measured.length().as_secs_f64() * 100.0;
        let each_waits = waits as f64 / operations;
        text += &format!(
            "    {who:<10}{each_us:>8.2} µs of CPU and {each_waits:>6.3} waits each, {share:>4.0}% of a core\n"
        );
        sum += cpu;
    }
    text + &format!("    {:<10}{:>8.2} µs of CPU each\n", "together", sum.as_secs_f64() * 1e6 / operations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_do_not_apply_are_left_out() {
        let gaps = [30, 10, 500, 20].map(Duration::from_millis).to_vec();
        let line = Line::of_gaps(Work::FailoverGap, 64, gaps);
        let json = serde_json::to_string(&line.figures).unwrap();
        assert_eq!(
            json,
            r#"{"work":"failover-gap","clients":64,"gap_ms":25.0,"gap_max_ms":500.0,"trials":4}"#
        );
        let figures = Figures {
            ops_per_s: Some(1.5),
            p50_us: Some(2.0),
            p99_us: Some(3.0),
            ..Figures::new(Work::LockPairs, 1)
        };
        let json = serde_json::to_string(&figures).unwrap();
        assert_eq!(json, r#"{"work":"lock-pairs","clients":1,"ops_per_s":1.5,"p50_us":2.0,"p99_us":3.0}"#);
    }

    #[test]
    fn a_line_for_people_has_the_rate_and_the_quantiles() {
        let figures = Figures {
            ops_per_s: Some(12_345.6),
            p50_us: Some(250.0),
            p99_us: Some(1_900.0),
            ..Figures::new(Work::Read, 256)
        };
        assert_eq!(
            figures.text(),
            "read            256 clients       12346 /s  p50    0.250 ms  p99    1.900 ms"
        );
    }

    #[test]
    fn what_takes_nanoseconds_is_told_in_nanoseconds() {
        let figures = Figures {
            ops_per_s: Some(5e6),
            p50_us: Some(rounded_us(0.1876)),
            p99_us: Some(rounded_us(1.26)),
            ..Figures::new(Work::CachedRead, 1)
        };
        assert_eq!(
            figures.text(),
            "cached-read       1 clients     5000000 /s  p50      188 ns  p99    0.001 ms"
        );
    }

    #[test]
    fn a_trial_tells_what_others_and_what_the_blocked_write_waited() {
        let wait = |others, blocked| Waits {
            others: Duration::from_millis(others),
            blocked: Duration::from_millis(blocked),
        };
        let line =
            Line::of_waits(Work::DeadCacher, 1_000, vec![wait(30, 5_100), wait(20, 5_000), wait(90, 5_300)]);
        let json = serde_json::to_string(&line.figures).unwrap();
        assert_eq!(
            json,
            r#"{"work":"dead-cacher","clients":1000,"gap_ms":30.0,"gap_max_ms":90.0,"blocked_ms":5100.0,"trials":3}"#
        );
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        let ms = |list: &[u64]| list.iter().copied().map(Duration::from_millis).collect::<Vec<_>>();
        assert_eq!(median(&ms(&[1, 2, 9])), Some(Duration::from_millis(2)));
        assert_eq!(median(&ms(&[1, 2, 4, 9])), Some(Duration::from_millis(3)));
        assert_eq!(median(&[]), None);
    }
}
