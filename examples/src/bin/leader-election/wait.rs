//! Waiting for something to become true, with a limit.

use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::{Instant, sleep};

/// Nothing in this show takes longer unless it is broken.
pub(crate) const LIMIT: Duration = Duration::from_secs(15);

const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Looks again and again until `look` sees something.
///
/// # Errors
///
/// If it has seen nothing after [`LIMIT`]; `what` says what did not happen.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + LIMIT;
    loop {
        if let Some(seen) = look().await {
            return Ok(seen);
        }
        if Instant::now() >= deadline {
            bail!("waited {} s in vain until {what}", LIMIT.as_secs());
        }
        sleep(LOOK_EVERY).await;
    }
}
