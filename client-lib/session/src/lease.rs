//! The lease and what may be believed of it: KeepAlives, their stamps, and the arithmetic (design.md §4).
//!
//! Owns the one number that safety hangs on, `valid_until`. The invariant: it is never later than the stamp of a
//! KeepAlive that the cell has answered, plus the granted length less the drift bound; and it never moves back.

use crate::chance::Chance;
use holdfast_proto::client::v1::KeepAlive;
use holdfast_types::{Duration, Time, planted};

/// A KeepAlive that has had no answer for a quarter of the lease means that this master, or the way to it, is
/// dead; within these bounds. Longer leases must not wait longer for a master that is silent, shorter ones must
/// not take a scheduling delay for silence.
const SILENCE_MIN: Duration = Duration::from_millis(200);
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// A request that has had no answer for so long makes a KeepAlive due: a master that stands still is noticed by its
/// silence to that one, and not only when the next would be due. Requests may wait at a master for good reasons, so
/// it is not more than one KeepAlive in that time.
const UNANSWERED: Duration = Duration::from_millis(500);

/// A lease that was not extended, because an acknowledgement was missing, is asked for again after a sixteenth of its
/// length, within these bounds.
const REPEAT_MIN: Duration = Duration::from_millis(10);
const REPEAT_MAX: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct Lease {
    /// By how much clock rates may differ, in thousandths; at most 1,000.
    drift_per_mille: u64,
    /// The session is valid before this moment. Only rises.
    valid_until: Time,
    /// The lease's length as last granted, or as asked for; paces the KeepAlives.
    length: Duration,
    /// Of the last KeepAlive sent. Only rises, across attachments too.
    number: u64,
    /// The KeepAlive that is to be answered on the present attachment, and when it was sent.
    unanswered: Option<(u64, Time)>,
    /// When the next one is due; `None` while nothing is attached.
    due: Option<Time>,
    /// When the last one was sent.
    sent_at: Time,
    chance: Chance,
}

impl Lease {
    pub(crate) fn new(length: Duration, drift_per_mille: u32, seed: u64) -> Self {
        Self {
            drift_per_mille: u64::from(drift_per_mille).min(1_000),
            valid_until: Time::ZERO,
            length,
            number: 0,
            unanswered: None,
            due: None,
            sent_at: Time::ZERO,
            // Not the numbers that the route goes by.
            chance: Chance::new(!seed),
        }
    }

    pub(crate) fn valid_until(&self) -> Time {
        self.valid_until
    }

    /// A stream is attached: the first thing on it is a KeepAlive.
    pub(crate) fn attached(&mut self, now: Time) {
        self.unanswered = None;
        self.due = Some(now);
    }

    /// The stream is gone, and with it the answers to what it carried.
    pub(crate) fn detached(&mut self) {
        self.unanswered = None;
        self.due = None;
    }

    /// The KeepAlive that is due now, stamped: it must be handed over no earlier than `now`. `unanswered_since`: when
    /// the request was sent that waits for its answer longest.
    pub(crate) fn keep_alive(&mut self, now: Time, unanswered_since: Option<Time>) -> Option<KeepAlive> {
        if self.unanswered.is_some() || self.due(unanswered_since).is_none_or(|due| now < due) {
            return None;
        }
        self.number += 1;
        self.unanswered = Some((self.number, now));
        self.sent_at = now;
        self.due = Some(now + self.pace());
        Some(KeepAlive { number: self.number })
    }

    fn due(&self, unanswered_since: Option<Time>) -> Option<Time> {
        let due = self.due?;
        let probe = unanswered_since.map(|since| since.max(self.sent_at) + UNANSWERED);
        Some(probe.map_or(due, |probe| probe.min(due)))
    }

    /// A third of the lease, so that one may be lost and the next still comes in time; less up to 15% of it by chance,
    /// so that the KeepAlives of many clients spread.
    fn pace(&mut self) -> Duration {
        let per_mille = 850 + u32::try_from(self.chance.below(151)).unwrap_or(0);
        self.length / 3 * per_mille / 1_000
    }

    /// The cell answered a KeepAlive. Answers to others than the one that is waited for mean nothing.
    pub(crate) fn granted(&mut self, now: Time, number: u64, lease_ms: u32) -> bool {
        match self.unanswered {
            Some((waited_for, stamp)) if waited_for == number => {
                self.unanswered = None;
                self.extend(if planted!(LeaseFromReply) { now } else { stamp }, lease_ms);
                // The length may be another one than when it was sent.
                self.due = Some(match lease_ms {
                    0 => now + (self.length / 16).clamp(REPEAT_MIN, REPEAT_MAX),
                    _ => stamp + self.pace(),
                });
                true
            }
            _ => false,
        }
    }

    /// A lease that is counted from `stamp`. None at all if its length is 0.
    pub(crate) fn extend(&mut self, stamp: Time, lease_ms: u32) {
        if lease_ms == 0 {
            return;
        }
        // Milliseconds times thousandths left over, in nanoseconds: exact.
        let drift_per_mille = if planted!(NoDrift) { 0 } else { self.drift_per_mille };
        let believed = Duration::from_nanos(u64::from(lease_ms) * (1_000 - drift_per_mille) * 1_000);
        self.valid_until = self.valid_until.max(stamp + believed);
        self.length = Duration::from_millis(u64::from(lease_ms));
    }

    /// A whole lease from `now`, without the cell's word: only where a fault that is planted has it.
    pub(crate) fn renew(&mut self, now: Time) {
        self.extend(now, u32::try_from(self.length.as_millis()).unwrap_or(u32::MAX));
    }

    /// The longest pause that a session makes before it comes back: an eighth of its lease.
    pub(crate) fn pause_max(&self) -> Duration {
        self.length / 8
    }

    /// How long an answer may take before the other end counts as silent.
    pub(crate) fn silence(&self) -> Duration {
        (self.length / 4).clamp(SILENCE_MIN, SILENCE_MAX)
    }

    /// When an unanswered KeepAlive makes the stream count as silent.
    pub(crate) fn silent_at(&self) -> Option<Time> {
        self.unanswered.map(|(_, stamp)| stamp + self.silence())
    }

    /// When to come back for the next KeepAlive, or because there was no answer.
    pub(crate) fn timeout(&self, unanswered_since: Option<Time>) -> Option<Time> {
        self.silent_at().or_else(|| self.due(unanswered_since))
    }
}
