//! Waiting for a condition, with a limit.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

/// Longer than anything here takes on a machine with too much to do, and shorter than a person's patience.
pub const LIMIT: Duration = Duration::from_secs(20);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Asks `probe` over and over until it gives something.
///
/// # Panics
///
/// If it gives nothing within [`LIMIT`]; `what` says what was waited for.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + LIMIT;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {LIMIT:?} in vain: {what}");
    }
}

/// Waits for `future`.
///
/// # Panics
///
/// If it takes longer than [`LIMIT`]; `what` says what was waited for.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(LIMIT, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {LIMIT:?} in vain: {what}"),
    }
}
