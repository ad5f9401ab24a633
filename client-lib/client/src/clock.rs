//! The clock that leases are counted by.
//!
//! `CLOCK_BOOTTIME` runs on while the machine is suspended (design.md §4): a laptop that slept through its
//! lease must find it gone. The one invariant: every time that meets a session machine comes from here.

use holdfast_types::Time;
use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// Now.
///
/// # Panics
///
/// If the kernel has no such clock, which Linux since 2.6.39 always has.
pub(crate) fn now() -> Time {
    let spec = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME");
    let span = Duration::from(spec);
    Time::from_nanos(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX))
}

/// The same moment on the standard library's clock, which stands still in suspend: good for a timer, to be
/// checked against [`now`] when it fires. A moment that is over is in the past there too.
pub(crate) fn instant(time: Time) -> Instant {
    let (now, here) = (now(), Instant::now());
    // Of the two spans, one is zero. Where that clock cannot go back so far, now is the best there is.
    here.checked_sub(now.since(time)).unwrap_or(here) + time.since(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_is_in_the_past_on_the_other_clock() {
        let minute = Duration::from_secs(60);
        let before = Instant::now();
        let coming = instant(now() + minute);
        assert!(coming >= before + minute && coming <= Instant::now() + minute, "{coming:?}");
        // A session that has ended is valid until zero.
        for over in [Time::ZERO, Time::from_nanos(now().as_nanos() - 1_000_000_000)] {
            assert!(instant(over) < Instant::now(), "{over}");
        }
        let second_ago = instant(Time::from_nanos(now().as_nanos() - 1_000_000_000));
        assert!(Instant::now() - second_ago >= Duration::from_secs(1), "{second_ago:?}");
    }
}
