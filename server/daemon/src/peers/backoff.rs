//! How long to wait before the next attempt: little at first, for the other replica may just be starting.

use holdfast_types::Duration;

const FIRST: Duration = Duration::from_millis(5);
const MAX: Duration = Duration::from_millis(500);

/// Waits that double, each shortened by up to a half so that two replicas do not go on dialling in step.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    /// Begins with the shortest wait.
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    /// Begins anew, after a success.
    pub(super) fn reset(&mut self) {
        self.next = FIRST;
    }

    /// The next wait.
    pub(super) fn next(&mut self) -> Duration {
        // Without randomness there is no jitter, which costs nothing but a little harmony.
        let jitter = getrandom::u32().unwrap_or(0);
        self.wait(f64::from(jitter) / f64::from(u32::MAX))
    }

    fn wait(&mut self, jitter: f64) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(MAX);
        full.mul_f64(1.0 - jitter / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::new();
        let waits: Vec<_> = (0..9).map(|_| backoff.wait(0.0).as_millis()).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 500, 500]);
        assert_eq!(backoff.wait(1.0).as_millis(), 250);
        backoff.reset();
        assert_eq!(backoff.wait(0.0), FIRST);
    }
}
