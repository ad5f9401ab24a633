//! What is told of a run: what was done, what was seen, what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use holdfast_sim::Verdict;

use super::history::Event;
use super::judge::Evidence;

/// A gap between acknowledged writes that is worth telling.
const GAP: u64 = 1_000_000_000;

/// What was seen, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    counts: BTreeMap<&'static str, u64>,
    /// Why sessions were lost, and how many.
    lost: BTreeMap<String, u64>,
    /// The terms that sessions have failed over to.
    terms: BTreeSet<String>,
    /// The times without an acknowledged write of anybody, the longest last.
    gaps: Vec<Duration>,
}

impl Seen {
    /// Counts what clients wrote down.
    #[must_use]
    pub fn of(evidence: &Evidence) -> Self {
        let mut seen = Self::default();
        let mut wrote = Vec::new();
        for record in evidence.histories.iter().flat_map(|history| &history.records) {
            seen.count(&record.event);
            if matches!(record.event, Event::Wrote { .. }) {
                wrote.push(record.at);
            }
        }
        wrote.sort_unstable();
        let gaps = wrote.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap >= GAP);
        seen.gaps = gaps.map(Duration::from_nanos).collect();
        seen.gaps.sort_unstable();
        let refused = evidence.arrivals.iter().filter(|arrival| !arrival.done).count() as u64;
        seen.counts.insert("orders at the resource", evidence.arrivals.len() as u64);
        seen.counts.insert("orders refused", refused);
        seen
    }

    fn count(&mut self, event: &Event) {
        let what = match event {
            Event::Opened { .. } => "sessions",
            Event::Read { cached: true, .. } => "cached reads",
            Event::Read { .. } => "reads",
            Event::Writing { .. } => "writes begun",
            Event::Wrote { .. } => "writes acknowledged",
            Event::Refused { .. } => "writes refused",
            Event::LetsGo { .. } => "locks held",
            Event::Told { .. } => "events told",
            Event::Listed { .. } => "listings",
            Event::State { state } if state == "jeopardy" => "jeopardies",
            Event::State { state } => {
                if state.starts_with("failed over") {
                    self.terms.insert(state.clone());
                }
                return;
            }
            Event::Over { reason, closed: false, .. } => {
                let short = reason.split(" (").next().unwrap_or(reason).to_owned();
                *self.lost.entry(short).or_default() += 1;
                "sessions lost"
            }
            Event::Failed { what } => {
                *self.lost.entry(format!("failed: {what}")).or_default() += 1;
                return;
            }
            _ => return,
        };
        *self.counts.entry(what).or_default() += 1;
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts: Vec<String> = self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        writeln!(f, "seen: {}", counts.join(", "))?;
        let longest = self.gaps.last().copied().unwrap_or_default();
        writeln!(
            f,
            "      {} fail-overs that sessions noticed; {} gaps of a second or more without an acknowledged write, \
             the longest {:.1} s",
            self.terms.len(),
            self.gaps.len(),
            longest.as_secs_f64()
        )?;
        for (why, count) in &self.lost {
            writeln!(f, "      {count} times: {why}")?;
        }
        Ok(())
    }
}

/// What was done.
#[must_use]
pub fn done(evidence: &Evidence) -> String {
    let counts = evidence.troubles.counts();
    let kinds: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    format!("done: {} faults: {}", counts.values().sum::<u64>(), kinds.join(", "))
}

/// The worst of several verdicts.
#[must_use]
pub fn worst(violations: Vec<holdfast_sim::Violation>) -> Verdict {
    let verdicts = violations.into_iter().map(Verdict::of);
    verdicts.max_by_key(Verdict::exit_status).unwrap_or(Verdict::Passed)
}

#[cfg(test)]
mod tests {
    use holdfast_sim::{Invariant, Violation};

    use super::super::history::{History, Record};
    use super::*;

    #[test]
    fn what_was_seen_is_counted() {
        let record = |at, event| Record { at, event };
        let records = vec![
            record(1, Event::Wrote { call: 1, generation: 1 }),
            record(2 * GAP, Event::Wrote { call: 2, generation: 2 }),
            record(3 * GAP, Event::Over { session: 1, reason: "expired (no answer)".into(), closed: false }),
            record(3 * GAP, Event::State { state: "failed over to term 4".into() }),
        ];
        let histories = vec![History { client: "a".into(), records }];
        let told = Seen::of(&Evidence { histories, ..Evidence::default() }).to_string();
        for part in ["2 writes acknowledged", "1 fail-overs", "longest 2.0 s", "1 times: expired\n"] {
            assert!(told.contains(part), "{part:?} in {told}");
        }
    }

    #[test]
    fn the_worst_counts() {
        let violation = |invariant| Violation::new(invariant, "it");
        assert_eq!(worst(Vec::new()).exit_status(), 0);
        let all = vec![
            violation(Invariant::Progress),
            violation(Invariant::Fencing),
            violation(Invariant::Survival),
        ];
        assert_eq!(worst(all).exit_status(), 5);
        assert_eq!(worst(vec![violation(Invariant::Progress)]).exit_status(), 3);
    }
}
