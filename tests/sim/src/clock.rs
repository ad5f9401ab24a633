//! Owns time: the one true time of a run, and the clock of each process, which is off by an offset and a rate.
//!
//! No machine ever sees true time; only the event queue and the checkers do. The rates of any two clocks differ
//! by no more than the drift bound, which is what lease safety (I3) is promised for; but in some runs clocks are far
//! beyond it, and then the checkers must not ask for what rests on it.

use std::fmt;

use holdfast_types::{Duration, Time};

use crate::rng::Rng;

/// The moment of the run, in nanoseconds since its beginning. Deliberately not a [`Time`]: that is what a clock
/// shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TrueTime(u64);

impl TrueTime {
    /// The beginning of the run.
    pub const ZERO: Self = Self(0);

    /// From nanoseconds.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// In nanoseconds.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// So much later.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// So many nanoseconds later.
    #[must_use]
    pub const fn after_nanos(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }
}

impl fmt::Display for TrueTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0 / 1_000;
        write!(f, "{:>4}.{:06}", micros / 1_000_000, micros % 1_000_000)
    }
}

/// Clocks run at most this much too fast or too slow, in millionths. Two that are apart by the most differ by
/// a factor of 1.0098, which is within the 10 thousandths that masters and clients allow for.
const RATE_MILLIONTHS_MAX: u64 = 4_900;
/// A clock begins anywhere up to here: machines differ in how long they have been up.
const OFFSET_NANOS_MAX: u64 = 3_600 * 1_000_000_000;
const MILLION: u64 = 1_000_000;

/// What a process reads its time from.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it showed at the beginning of the run.
    offset_nanos: u64,
    /// How far it goes while a million nanoseconds pass.
    rate: u64,
}

impl Clock {
    /// A clock of chance, off by no more than the bounds. A third run at one bound or the other: that is where
    /// mistakes in counting a lease show.
    pub fn draw(rng: &mut Rng) -> Self {
        let off = match rng.below(6) {
            0 => 0,
            1 => 2 * RATE_MILLIONTHS_MAX,
            _ => rng.between(0, 2 * RATE_MILLIONTHS_MAX),
        };
        Self { offset_nanos: rng.below(OFFSET_NANOS_MAX), rate: MILLION - RATE_MILLIONTHS_MAX + off }
    }

    /// As [`Clock::draw`]; if `beyond`, many run far too fast or too slow.
    pub fn draw_for(rng: &mut Rng, beyond: bool) -> Self {
        let clock = Self::draw(rng);
        if beyond && rng.per_mille(500) {
            let rate = if rng.per_mille(500) {
                rng.between(500_000, 950_000)
            } else {
                rng.between(1_050_000, 2_000_000)
            };
            return Self { rate, ..clock };
        }
        clock
    }

    /// What the clock shows at a moment.
    #[must_use]
    pub fn local(&self, moment: TrueTime) -> Time {
        let elapsed = u128::from(moment.0) * u128::from(self.rate) / u128::from(MILLION);
        Time::from_nanos(self.offset_nanos.saturating_add(elapsed as u64))
    }

    /// The first moment at which the clock shows `time`, or more.
    #[must_use]
    pub fn moment(&self, time: Time) -> TrueTime {
        let elapsed = u128::from(time.as_nanos().saturating_sub(self.offset_nanos));
        let nanos = (elapsed * u128::from(MILLION)).div_ceil(u128::from(self.rate));
        TrueTime(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moment_of_a_local_time_is_the_first_that_shows_it() {
        let mut rng = Rng::new(1);
        for _ in 0..1_000 {
            let clock = Clock::draw(&mut rng);
            let time = clock.local(TrueTime(rng.below(1 << 40))) + Duration::from_nanos(rng.below(1 << 30));
            let moment = clock.moment(time);
            assert!(clock.local(moment) >= time);
            assert!(clock.local(TrueTime(moment.0 - 1)) < time);
        }
    }

    #[test]
    fn beyond_the_bound_some_clocks_are_far_too_fast_or_too_slow() {
        let mut rng = Rng::new(1);
        let rates: Vec<u64> = (0..200).map(|_| Clock::draw_for(&mut rng, true).rate).collect();
        let bound = |rate: &&u64| rate.abs_diff(MILLION) <= RATE_MILLIONTHS_MAX;
        assert!((60..140).contains(&rates.iter().filter(bound).count()));
        assert!(rates.iter().any(|rate| *rate < 900_000) && rates.iter().any(|rate| *rate > 1_100_000));
        assert!((0..200).all(|_| bound(&&Clock::draw_for(&mut rng, false).rate)));
    }

    #[test]
    fn two_clocks_never_differ_by_more_than_the_drift_bound() {
        let (slow, fast) = (MILLION - RATE_MILLIONTHS_MAX, MILLION + RATE_MILLIONTHS_MAX);
        assert!(fast * 1_000 <= slow * 1_010);
    }
}
