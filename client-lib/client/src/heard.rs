//! When something was last heard on a connection: what tells one that is worth keeping from one that is cut off.
//!
//! Never decides what to do about it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One connection's, from when it is first asked for; a copy is the same connection's.
#[derive(Clone, Debug)]
pub(crate) struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Something came, or the connection is being made anew.
    pub(crate) fn note(&self) {
        *self.lock() = Instant::now();
    }

    /// Whether nothing has come for so long.
    pub(crate) fn is_silent_for(&self, time: Duration) -> bool {
        self.lock().elapsed() >= time
    }

    /// Has nothing been heard for so much longer.
    #[cfg(test)]
    pub(crate) fn age(&self, time: Duration) {
        let earlier = self.lock().checked_sub(time).expect("the machine is up for longer");
        *self.lock() = earlier;
    }

    /// Whether it is this connection's.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn lock(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
