//! A timer by the lease clock, which the runtime's own may differ from.

use crate::clock;
use holdfast_types::Time;
use std::pin::Pin;
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A timer that is set again only when it has to be.
pub(crate) struct Timer {
    at: Option<Time>,
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    pub(crate) fn new() -> Self {
        Self { at: None, sleep: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }

    pub(crate) fn set(&mut self, at: Option<Time>) {
        // A timer that fired is set again too: the lease clock may be behind the runtime's by a little.
        if self.at != at || self.sleep.is_elapsed() {
            self.at = at;
            if let Some(at) = at {
                self.sleep.as_mut().reset(Instant::now() + at.since(clock::now()));
            }
        }
    }

    pub(crate) async fn wait(&mut self) {
        if self.at.is_some() {
            self.sleep.as_mut().await;
        } else {
            std::future::pending::<()>().await;
        }
    }
}
