//! The one clock of a run: every process is on this machine, so that times of all of them can be compared.

use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

/// Now, in nanoseconds of the clock that leases are counted by.
///
/// # Panics
///
/// If the kernel has no such clock, which Linux always has.
#[must_use]
pub fn now() -> u64 {
    let spec = clock_gettime(ClockId::CLOCK_BOOTTIME).expect("Linux has CLOCK_BOOTTIME");
    nanos(Duration::from(spec))
}

/// A moment of the standard library's clock on this one, at the latest: never later than it really is.
#[must_use]
pub fn at(moment: Instant) -> u64 {
    let (now, here) = (now(), Instant::now());
    (now + nanos(moment.saturating_duration_since(here)))
        .saturating_sub(nanos(here.saturating_duration_since(moment)))
}

/// A span in nanoseconds.
#[must_use]
pub fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_come_out_no_later_than_they_are() {
        let second = Duration::from_secs(1);
        let (coming, over) = (Instant::now() + second, Instant::now());
        assert!(at(coming) <= now() + nanos(second) && at(coming) > now());
        assert!(at(over) <= now());
    }
}
