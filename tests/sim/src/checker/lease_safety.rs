//! I3: if a client believes at a moment that its session is valid, no replica has applied that session's end
//! before that moment.
//!
//! It is asked at the first application of an end (what does the client believe now?), and again whenever a
//! client of an ended session has had a chance to change its mind.

use std::collections::BTreeMap;

use holdfast_types::SessionId;

use super::Fact;
use crate::clock::TrueTime;
use crate::verdict::{Invariant, Violation};

/// The checker.
#[derive(Debug, Default)]
pub struct LeaseSafety {
    /// When the end of each session was first applied.
    ended: BTreeMap<SessionId, TrueTime>,
}

impl LeaseSafety {
    /// Takes in what happened.
    pub fn see(&mut self, fact: &Fact<'_>, now: TrueTime) {
        if let Fact::SessionEnded { session, .. } = fact {
            self.ended.entry(*session).or_insert(now);
        }
    }

    /// A client believes now that its session is valid until a moment.
    ///
    /// # Errors
    ///
    /// If the session has ended and the moment is yet to come.
    pub fn believes(&self, session: SessionId, until: TrueTime, now: TrueTime) -> Result<(), Violation> {
        let Some(ended) = self.ended.get(&session) else { return Ok(()) };
        if until <= now {
            return Ok(());
        }
        let what = format!(
            "the end of {session} was applied at {ended}, and at {now} its client believes in it until {until}"
        );
        Err(Violation::new(Invariant::LeaseSafety, what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_belief_beyond_the_end_is_found() {
        let at = TrueTime::from_nanos;
        let session = SessionId(4);
        let mut checker = LeaseSafety::default();
        assert!(checker.believes(session, at(9), at(3)).is_ok(), "it has not ended");
        checker.see(&Fact::SessionEnded { session, expired: true }, at(5));
        assert!(checker.believes(session, at(5), at(5)).is_ok(), "the lease is over");
        assert!(checker.believes(session, at(6), at(5)).is_err());
        assert!(checker.believes(session, at(12), at(10)).is_err(), "nor may the belief come back");
        assert!(checker.believes(SessionId(5), at(12), at(10)).is_ok(), "another session");
    }
}
