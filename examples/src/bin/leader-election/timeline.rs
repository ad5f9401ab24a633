//! What the spectator reads: who did what, when, and whether what was claimed is so.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Prints lines with the time since the beginning.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline {
    beginning: Instant,
}

impl Timeline {
    /// Begins now.
    pub(crate) fn new() -> Self {
        Self { beginning: Instant::now() }
    }

    /// A heading.
    pub(crate) fn act(self, title: &str) {
        println!("\n{title}");
    }

    /// Something happened.
    pub(crate) fn says(self, who: &str, what: impl Display) {
        println!("{:7.2} s  {who:<9}  {what}", self.beginning.elapsed().as_secs_f64());
    }

    /// Something is claimed to be so.
    ///
    /// # Errors
    ///
    /// If it is not. That ends the show.
    pub(crate) fn claim(self, claim: impl Display, holds: bool) -> Result<()> {
        println!("{:>9}  {:<9}  {claim}", if holds { "ok" } else { "FAILED" }, "");
        if !holds {
            bail!("this claim does not hold: {claim}");
        }
        Ok(())
    }
}

/// A span as the timeline prints it.
pub(crate) fn seconds(span: Duration) -> String {
    format!("{:.2} s", span.as_secs_f64())
}
