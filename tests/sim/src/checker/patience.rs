//! I10 while somebody asks for too much: a dead client's session ends within a bound, however busy the master is, and
//! nobody else's session is in jeopardy because of that, nor does the master lose its office.
//!
//! Only for runs in which nothing else goes wrong: what a fault does to a session is nobody's greed.

use std::collections::BTreeMap;

use holdfast_types::SessionId;

use crate::clock::TrueTime;
use crate::verdict::{Invariant, Violation};

const MILLI: u64 = 1_000_000;
/// A new master starts with leases of this length at the least.
const LEASE_FLOOR_MS: u64 = 5_000;
/// How long it may take until a decision is in the log, of which all replicas that apply it are slow.
const DECISION_MS: u64 = 4_000;

/// What is waited for.
#[derive(Debug, Default)]
pub struct Patience {
    /// Sessions of clients that died, and when.
    dead: BTreeMap<SessionId, TrueTime>,
    /// When somebody last took office: leases begin anew then.
    office_at: TrueTime,
}

impl Patience {
    /// A session's client is dead.
    pub fn died(&mut self, session: SessionId, now: TrueTime) {
        self.dead.insert(session, now);
    }

    /// A session is over.
    pub fn ended(&mut self, session: SessionId) {
        self.dead.remove(&session);
    }

    /// Somebody takes office.
    pub fn office(&mut self, now: TrueTime) {
        self.office_at = now;
    }

    /// Nobody has been dead for longer than his lease can last.
    ///
    /// # Errors
    ///
    /// Whose session lives on.
    pub fn check(&self, now: TrueTime, lease_ms: u64) -> Result<(), Violation> {
        // As long again for all gaps in the master's own life, and a little for the drift of clocks.
        let bound_ms = lease_ms.max(LEASE_FLOOR_MS) * 205 / 100 + DECISION_MS;
        let late = |died: &TrueTime| now > (*died).max(self.office_at).after_nanos(bound_ms * MILLI);
        match self.dead.iter().find(|(_, died)| late(died)) {
            None => Ok(()),
            Some((session, died)) => {
                let what =
                    format!("the client of {session} died at {died}, and it lives on after {bound_ms} ms");
                Err(Violation::new(Invariant::Progress, what))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> TrueTime {
        TrueTime::from_nanos(millis * MILLI)
    }

    #[test]
    fn a_dead_client_keeps_its_session_for_twice_its_lease_at_the_most() {
        let mut patience = Patience::default();
        patience.died(SessionId(1), at(1_000));
        patience.died(SessionId(2), at(9_000));
        assert_eq!(patience.check(at(15_000), 3_000), Ok(()));
        assert!(patience.check(at(16_000), 3_000).is_err());
        // A new master knows of no end.
        patience.office(at(10_000));
        assert_eq!(patience.check(at(16_000), 3_000), Ok(()));
        patience.ended(SessionId(1));
        patience.ended(SessionId(2));
        assert_eq!(patience.check(at(99_000), 3_000), Ok(()));
    }
}
