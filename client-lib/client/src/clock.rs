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
/// checked against [`now`] when it fires.
pub(crate) fn instant(time: Time) -> Instant {
    Instant::now() + time.since(now())
}
