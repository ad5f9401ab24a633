//! One line for each kind of greedy client.

use std::time::Duration;

use holdfast_greedy::{Kind, Status};
use serde::Serialize;

use super::Phase;
use super::latencies::Summary;
use crate::work::Work;

/// What was measured beside one kind, as programs read it.
#[derive(Debug, Serialize)]
pub(crate) struct Line {
    work: Work,
    greedy: Kind,
    /// The 99th percentile of all the honest client's operations, in multiples of the same beside the burner.
    p99_ratio: f64,
    /// How often one of the honest client's sessions came into jeopardy.
    jeopardies: u64,
    /// By how much a replica's memory rose at most, beyond what it was given to keep.
    memory_mib: f64,
    masters_changed: u64,
    /// How long a lock whose holder had died was not granted: beside the greedy client, and beside the burner.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_lock_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lost_lock_quiet_ms: Option<f64>,
    admin_answered: u64,
    admin_failed: u64,
    admin_longest_ms: f64,
    /// The honest client's latencies beside the greedy client, and beside the burner.
    beside: Summary,
    quiet: Summary,
    /// Of one core.
    greedy_cpu: f64,
    /// What the greedy client got.
    got: Status,
    /// What failed in either phase and should not have.
    errors: Vec<String>,
}

impl Line {
    pub(super) fn new(greedy: Kind, beside: &Phase, quiet: &Phase) -> Self {
        let (with, without) = (beside.outcome.latencies.summary(), quiet.outcome.latencies.summary());
        let mut errors = beside.outcome.errors.clone();
        errors.extend(quiet.outcome.errors.iter().map(|error| format!("beside the burner: {error}")));
        Self {
            work: Work::Fairness,
            greedy,
            p99_ratio: ratio(with.all.p99_ms, without.all.p99_ms),
            jeopardies: beside.outcome.jeopardies,
            memory_mib: hundredths(beside.memory_bytes as f64 / f64::from(1 << 20)),
            masters_changed: beside.masters_changed,
            lost_lock_ms: beside.outcome.lost_lock.map(ms),
            lost_lock_quiet_ms: quiet.outcome.lost_lock.map(ms),
            admin_answered: beside.outcome.admin.answered,
            admin_failed: beside.outcome.admin.failed,
            admin_longest_ms: ms(beside.outcome.admin.longest),
            beside: with,
            quiet: without,
            greedy_cpu: hundredths(beside.cpu_share),
            got: beside.got.clone(),
            errors,
        }
    }

    /// What made the run unclean, if anything did: something honest failed.
    pub(crate) fn unclean(&self) -> Option<String> {
        let admin = (self.admin_failed > 0)
            .then(|| format!("{} calls of the administrator had no answer", self.admin_failed));
        let wrong: Vec<String> = self.errors.iter().cloned().chain(admin).collect();
        (!wrong.is_empty()).then(|| format!("beside {}: {}", self.greedy.name(), wrong.join("; ")))
    }

    pub(crate) fn text(&self) -> String {
        let refused: u64 = self.got.refused.values().sum();
        let lost_lock = self.lost_lock_ms.map_or_else(|| "never".to_owned(), |ms| format!("{ms:.0} ms"));
        let mut text = format!(
            "beside {:<26} p99 {:>9.2} ms, {:>8.2} times  jeopardies {}  masters changed {}  memory {:>7.1} MiB  \
             lost lock {lost_lock}  admin {}/{}  greedy: {} done, {refused} refused",
            self.greedy.name(),
            self.beside.all.p99_ms,
            self.p99_ratio,
            self.jeopardies,
            self.masters_changed,
            self.memory_mib,
            self.admin_answered,
            self.admin_answered + self.admin_failed,
            self.got.done,
        );
        if let Some(unclean) = self.unclean() {
            text += &format!("  WRONG: {unclean}");
        }
        text
    }
}

fn ratio(with: f64, without: f64) -> f64 {
    if without > 0.0 { hundredths(with / without) } else { 0.0 }
}

fn ms(time: Duration) -> f64 {
    hundredths(time.as_secs_f64() * 1e3)
}

fn hundredths(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::super::honest::{Admin, Outcome};
    use super::super::latencies::{Latencies, Operation};
    use super::*;

    fn phase(ms: u64, failed: u64, errors: &[&str]) -> Phase {
        let mut latencies = Latencies::new();
        latencies.record(Operation::Write, Duration::from_millis(ms));
        let outcome = Outcome {
            latencies,
            jeopardies: 2,
            lost_lock: Some(Duration::from_millis(2_100)),
            admin: Admin { answered: 3, failed, longest: Duration::from_millis(9) },
            errors: errors.iter().map(ToString::to_string).collect(),
        };
        Phase { outcome, masters_changed: 1, memory_bytes: 3 << 19, cpu_share: 0.5, got: Status::default() }
    }

    #[test]
    fn a_line_has_what_the_issue_asks_for_first() {
        let line = Line::new(Kind::ReadDir, &phase(90, 0, &[]), &phase(50, 0, &[]));
        let json = serde_json::to_string(&line).unwrap();
        let start = r#"{"work":"fairness","greedy":"read-dir","p99_ratio":1.8,"jeopardies":2,"memory_mib":1.5,"masters_changed":1,"#;
        assert!(json.starts_with(start), "{json}");
        assert_eq!(line.unclean(), None);
        assert!(line.text().contains("1.80 times"), "{}", line.text());
    }

    #[test]
    fn what_failed_for_an_honest_client_makes_a_run_unclean() {
        let wrong = [
            (phase(1, 0, &["a write"]), phase(1, 0, &[]), "a write"),
            (phase(1, 0, &[]), phase(1, 0, &["a read"]), "burner: a read"),
            (phase(1, 2, &[]), phase(1, 0, &[]), "2 calls of the administrator"),
        ];
        for (beside, quiet, said) in wrong {
            let line = Line::new(Kind::HeldCalls, &beside, &quiet);
            assert!(line.unclean().is_some_and(|unclean| unclean.contains(said)), "{said}");
            assert!(line.text().contains("WRONG"));
        }
    }
}
