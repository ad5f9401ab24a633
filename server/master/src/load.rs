//! How a loaded master spreads its work: longer leases, and a crowd that does not come back in one instant
//! (design.md §4; ADR 0009).
//!
//! Pure sums, and one timer: when leases that were longer than they may be now are over. Invariant: the state's promise
//! is lowered only when no lease beyond it is out, by any clock within the drift bound.

use holdfast_types::{Duration, Time};

/// A client sends so many KeepAlives in the length of a lease.
const KEEP_ALIVES_PER_LEASE: u64 = 3;
/// Each session stretches the coming back of all by so much: about what an attachment costs.
const REATTACH_MICROS: usize = 20;
/// But no more than this in all.
const REATTACH_SPREAD_MS_MAX: usize = 2_000;

/// How long a lease to grant a session whose own length is `own_ms`, while `attached` sessions send KeepAlives of which
/// `keep_alives_per_s` can be answered, and no lease may be lengthened beyond `lease_ms_max`.
pub(crate) fn lease_ms(own_ms: u32, attached: usize, keep_alives_per_s: u32, lease_ms_max: u32) -> u32 {
    let needed_ms = KEEP_ALIVES_PER_LEASE * attached as u64 * 1_000 / u64::from(keep_alives_per_s.max(1));
    let needed_ms = u32::try_from(needed_ms).unwrap_or(u32::MAX);
    own_ms.max(needed_ms.min(lease_ms_max))
}

/// Over how long a time clients are to spread their coming back, if there are so many sessions.
pub(crate) fn reattach_spread_ms(sessions: usize) -> u32 {
    let millis = (sessions.saturating_mul(REATTACH_MICROS) / 1_000).min(REATTACH_SPREAD_MS_MAX);
    u32::try_from(millis).expect("it is bounded")
}

/// When the promise of the longest lease can be lowered to what is the setting now.
#[derive(Debug, Default)]
pub(crate) struct PromiseTimer {
    due: Option<Time>,
}

impl PromiseTimer {
    /// From `now` on no lease longer than `lease_ms_max` is granted; those that are out may be as long as `promised_ms`.
    pub(crate) fn set(&mut self, now: Time, drift_per_mille: u32, promised_ms: u32, lease_ms_max: u32) {
        let promised = Duration::from_millis(u64::from(promised_ms));
        let over = now + promised + promised * drift_per_mille / 1_000;
        self.due = (promised_ms > lease_ms_max).then_some(over);
    }

    /// Whether the time has come; once.
    pub(crate) fn pop_due(&mut self, now: Time) -> bool {
        self.due.take_if(|due| *due <= now).is_some()
    }

    pub(crate) fn next(&self) -> Option<Time> {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_as_long_as_the_load_asks_for_and_the_setting_allows() {
        assert_eq!(lease_ms(12_000, 1_000, 20_000, 60_000), 12_000, "there is no load");
        assert_eq!(lease_ms(12_000, 200_000, 20_000, 60_000), 30_000);
        assert_eq!(lease_ms(12_000, 1_000_000, 20_000, 60_000), 60_000);
        assert_eq!(lease_ms(12_000, 1_000_000, 20_000, 100), 12_000, "it is not in force");
        assert_eq!(lease_ms(100, 1_000, 20_000, 60_000), 150);
    }

    #[test]
    fn ten_thousand_clients_come_back_within_a_fifth_of_a_second() {
        assert_eq!(reattach_spread_ms(1), 0);
        assert_eq!(reattach_spread_ms(10_000), 200);
        assert_eq!(reattach_spread_ms(usize::MAX), 2_000);
    }

    #[test]
    fn the_promise_is_lowered_when_the_longest_lease_is_over_by_any_clock() {
        let mut timer = PromiseTimer::default();
        timer.set(Time::from_millis(500), 10, 60_000, 60_000);
        assert_eq!(timer.next(), None, "the promise is the setting");
        timer.set(Time::from_millis(500), 10, 60_000, 100);
        assert!(!timer.pop_due(Time::from_millis(61_099)));
        assert!(timer.pop_due(Time::from_millis(61_100)));
        assert!(!timer.pop_due(Time::from_millis(61_101)));
    }
}
