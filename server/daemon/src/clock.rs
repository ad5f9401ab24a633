//! The one clock of a replica: it counts on through suspend (design.md §4), never goes back, and is read by the
//! driver alone, after it has taken its inputs.

use holdfast_types::{Duration, Time};
use nix::time::{ClockId, clock_gettime};

/// Where suspend is not counted by any other clock, leases would outlive the sleep of their holder's machine.
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

/// Reads the clock.
///
/// # Panics
///
/// If the system has no such clock: nothing here can go on without one.
pub(crate) fn now() -> Time {
    let reading = clock_gettime(CLOCK).expect("the system has a monotonic clock");
    Time::ZERO + Duration::from(reading)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_moves_and_never_goes_back() {
        let start = now();
        let mut last = start;
        while last == start {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }
}
