//! I4, as far as the log shows it: a lock-delay ends no earlier than its length after the loss.
//!
//! That nothing conflicting is granted while it runs is the state's part, and checked there by its own
//! invariants after each run; that it runs long enough, fail-overs included, is the masters' part, and is
//! checked here.

use std::collections::BTreeMap;

use holdfast_types::Revision;

use super::Fact;
use crate::clock::TrueTime;
use crate::verdict::{Invariant, Violation};

/// The checker.
#[derive(Debug, Default)]
pub struct LockDelays {
    /// When each delay that runs began, and its length in milliseconds.
    running: BTreeMap<(String, Revision), (TrueTime, u32)>,
}

impl LockDelays {
    /// Takes in what happened.
    ///
    /// # Errors
    ///
    /// A delay that ended too early.
    pub fn see(&mut self, fact: &Fact<'_>, now: TrueTime) -> Result<(), Violation> {
        match fact {
            Fact::DelayStarted { path, loss, delay_ms } => {
                self.running.insert(((*path).to_owned(), *loss), (now, *delay_ms));
            }
            Fact::DelayEnded { path, loss } => {
                let Some((began, delay_ms)) = self.running.remove(&((*path).to_owned(), *loss)) else {
                    return Ok(());
                };
                // A master's clock may be fast by the drift bound; the promise is kept by its own clock.
                let least = u64::from(delay_ms) * 1_000_000 / 1_000 * 990;
                if now < began.after_nanos(least) {
                    let what =
                        format!("the delay of {delay_ms} ms on {path} began at {began} and ended at {now}");
                    return Err(Violation::new(Invariant::LockDelay, what));
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_that_is_cut_short_is_found() {
        let at = |ms: u64| TrueTime::from_nanos(ms * 1_000_000);
        let (path, loss) = ("/lock", Revision(5));
        let ended_at = |end: TrueTime| {
            let mut checker = LockDelays::default();
            checker.see(&Fact::DelayStarted { path, loss, delay_ms: 1_000 }, at(100)).unwrap();
            checker.see(&Fact::DelayEnded { path, loss }, end)
        };
        assert!(ended_at(at(1_100)).is_ok());
        assert_eq!(ended_at(at(1_050)).unwrap_err().invariant, Invariant::LockDelay);
    }
}
