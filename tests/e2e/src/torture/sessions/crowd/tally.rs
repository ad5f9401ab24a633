//! What is counted over the whole crowd.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast::SessionState;
use serde::{Deserialize, Serialize};

use super::seat::Seat;

/// The counters.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    grants: u64,
    violations: u64,
    jeopardies: u64,
    jeopardy_max: Duration,
    /// The terms of masters that sessions came to.
    terms: BTreeSet<u64>,
    fail_overs: u64,
    /// Why sessions ended, and how many.
    ended: BTreeMap<String, u64>,
    /// How long answers took, in milliseconds.
    answers: Vec<u32>,
    bulk_writes: u64,
    /// The least that was left of a lease when it was looked at.
    lease_left_min: Option<Duration>,
}

/// How the crowd fares.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Status {
    /// How many sessions there are, every lock being held by one.
    pub(crate) sessions: usize,
    pub(crate) safe: usize,
    pub(crate) jeopardy: usize,
    /// Why sessions have ended, and how many.
    pub(crate) ended: BTreeMap<String, u64>,
    /// Locks that are certainly held at this moment.
    pub(crate) held: usize,
    /// Grants so far.
    pub(crate) grants: u64,
    /// Grants while another held the lock, or with a generation that is not new.
    pub(crate) violations: u64,
    /// The sum of the generations of the locks that are held.
    pub(crate) generations: u64,
    /// The least number that a session has seen in its watched file.
    pub(crate) seen_min: u64,
    /// Sessions that came into jeopardy and out of it, and the longest time that one was in it.
    pub(crate) jeopardies: u64,
    pub(crate) jeopardy_max_ms: u64,
    /// How often sessions came to another master, and the terms of those.
    pub(crate) fail_overs: u64,
    pub(crate) terms: BTreeSet<u64>,
    /// The least that was left of a held lock's lease since the last status.
    pub(crate) lease_left_min_ms: Option<u64>,
    /// Answers since the last status.
    pub(crate) answers: usize,
    /// The longest that an answer took since the last status.
    pub(crate) answer_max_ms: u32,
    pub(crate) bulk_writes: u64,
}

impl Tally {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn grants(&self) -> u64 {
        self.counts().grants
    }

    pub(super) fn count_grant(&self, right: bool) {
        let mut counts = self.counts();
        counts.grants += 1;
        counts.violations += u64::from(!right);
    }

    pub(super) fn count_jeopardy(&self, lasted: Duration) {
        let mut counts = self.counts();
        counts.jeopardies += 1;
        counts.jeopardy_max = counts.jeopardy_max.max(lasted);
    }

    pub(super) fn count_fail_over(&self, term: u64) {
        let mut counts = self.counts();
        counts.fail_overs += 1;
        counts.terms.insert(term);
    }

    pub(super) fn count_end(&self, why: &str) {
        *self.counts().ended.entry(why.to_owned()).or_default() += 1;
    }

    pub(super) fn count_answer(&self, took: Duration) {
        self.counts().answers.push(u32::try_from(took.as_millis()).unwrap_or(u32::MAX));
    }

    pub(super) fn count_bulk(&self) {
        self.counts().bulk_writes += 1;
    }

    /// Looks how much is left of the leases.
    pub(super) fn look(&self, seats: &[Arc<Seat>]) {
        let now = Instant::now();
        let left = |seat: &Arc<Seat>| {
            seat.lock().as_ref().map(|lock| lock.valid_until().saturating_duration_since(now))
        };
        let least = seats.iter().filter_map(left).min();
        let mut counts = self.counts();
        counts.lease_left_min = counts.lease_left_min.into_iter().chain(least).min();
    }
}

impl Status {
    /// How `seats` fare. Begins the figures anew that are since the last status.
    pub(super) fn of(seats: &[Arc<Seat>], tally: &Tally) -> Self {
        let count = |wanted: SessionState| seats.iter().filter(|seat| seat.session.state() == wanted).count();
        let held = |seat: &Arc<Seat>| {
            seat.lock().as_ref().filter(|lock| lock.is_held()).map(|lock| lock.generation())
        };
        let generations: Vec<u64> = seats.iter().filter_map(held).collect();
        let mut counts = tally.counts();
        let answers = std::mem::take(&mut counts.answers);
        Self {
            sessions: seats.len(),
            safe: count(SessionState::Safe),
            jeopardy: count(SessionState::Jeopardy),
            ended: counts.ended.clone(),
            held: generations.len(),
            grants: counts.grants,
            violations: counts.violations,
            generations: generations.iter().sum(),
            seen_min: seats.iter().map(|seat| seat.seen()).min().unwrap_or(0),
            jeopardies: counts.jeopardies,
            jeopardy_max_ms: millis(counts.jeopardy_max),
            fail_overs: counts.fail_overs,
            terms: counts.terms.clone(),
            lease_left_min_ms: counts.lease_left_min.take().map(millis),
            answers: answers.len(),
            answer_max_ms: answers.iter().copied().max().unwrap_or(0),
            bulk_writes: counts.bulk_writes,
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
