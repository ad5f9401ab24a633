//! I4, as far as the log shows it: when a session expires a lock-delay begins for each lock that it held with one, and
//! a lock-delay ends no earlier than its length after the loss.
//!
//! That nothing conflicting is granted while it runs is the state's part, and checked there by its own
//! invariants after each run; that it runs long enough, fail-overs included, is the masters' part, and is
//! checked here.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::request::Operation;
use holdfast_types::{HandleId, Revision, SessionId};

use super::{Decided, Fact};
use crate::clock::TrueTime;
use crate::verdict::{Invariant, Violation};

/// The checker.
#[derive(Debug, Default)]
pub struct LockDelays {
    /// When each delay that runs began, and its length in milliseconds.
    running: BTreeMap<(String, Revision), (TrueTime, u32)>,
    /// The lock-delay of each handle that has one, in milliseconds.
    lengths: BTreeMap<(SessionId, HandleId), u32>,
    /// Nodes whose lock was lost by the present command, and the delay that has to begin on each.
    due: BTreeMap<String, u32>,
}

impl LockDelays {
    /// Takes in what happened.
    ///
    /// # Errors
    ///
    /// A delay that ended too early.
    pub fn see(&mut self, fact: &Fact<'_>, now: TrueTime) -> Result<(), Violation> {
        match fact {
            Fact::Decided(Decided { session, number, operation: Operation::Open(open), .. })
                if open.lock_delay_ms > 0 =>
            {
                self.lengths.insert((*session, HandleId(number.0)), open.lock_delay_ms);
            }
            Fact::SessionEnded { session, .. } => self.lengths.retain(|(of, _), _| of != session),
            Fact::DelayStarted { path, loss, delay_ms } => {
                if self.due.get(*path).is_some_and(|least| least <= delay_ms) {
                    self.due.remove(*path);
                }
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

impl LockDelays {
    /// A lock is lost by the command that is being looked at: its holder's session expires.
    pub fn lost(&mut self, session: SessionId, handle: HandleId, path: &str) {
        if let Some(delay_ms) = self.lengths.get(&(session, handle)) {
            let due = self.due.entry(path.to_owned()).or_default();
            *due = (*delay_ms).max(*due);
        }
    }

    /// The command has been looked at.
    ///
    /// # Errors
    ///
    /// A lock that was lost, and no delay has begun that is as long as its holder asked for.
    pub fn check_begun(&mut self) -> Result<(), Violation> {
        match self.due.pop_first() {
            Some((path, delay_ms)) => {
                let what = format!("the lock of {path} was lost, and no delay of {delay_ms} ms began");
                Err(Violation::new(Invariant::LockDelay, what))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::*;
    use super::*;

    #[test]
    fn a_loss_without_a_delay_is_found_and_so_is_one_with_a_shorter_delay() {
        let (session, handle, path) = (SessionId(1), HandleId(2), "/lock");
        let mut checker = LockDelays::default();
        checker.lost(session, handle, path);
        assert!(checker.check_begun().is_ok(), "it was opened without a delay");
        let Operation::Open(mut open) = open(path) else { unreachable!() };
        open.lock_delay_ms = 1_000;
        let opening = Operation::Open(open);
        let mut lose = |delays: &[u32]| {
            checker.see(&decided(1, 2, &opening, &opened_at(7)).fact(), TrueTime::ZERO).unwrap();
            checker.lost(session, handle, path);
            for &delay_ms in delays {
                let fact = Fact::DelayStarted { path, loss: Revision(5), delay_ms };
                checker.see(&fact, TrueTime::ZERO).unwrap();
            }
            checker.check_begun()
        };
        assert!(lose(&[1_000]).is_ok());
        assert_eq!(lose(&[]).unwrap_err().invariant, Invariant::LockDelay);
        assert!(lose(&[300]).is_err());
    }

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
