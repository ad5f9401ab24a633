//! I6, for sessions: what a client's library tells of its session's end, and what the log says of it, agree with what
//! was asked for. Nobody is told that the cell has ended a session that lives on there, or that an operator or the
//! application has ended one that neither has; and the cell ends none for such a reason without having been asked.
//!
//! A client that gives up by itself, because no master answers, says nothing of the cell: the cell ends its session
//! later, and may do so for any reason that it has.

use std::collections::BTreeSet;

use holdfast_proto::client::v1::EndReason;
use holdfast_session::Ended;
use holdfast_types::SessionId;

use crate::verdict::{Invariant, Violation};

/// The checker.
#[derive(Debug, Default)]
pub struct Outcomes {
    /// The sessions whose clients have told the cell that they are done with them.
    closed: BTreeSet<SessionId>,
    /// The sessions that an operator wants ended.
    killed: BTreeSet<SessionId>,
}

impl Outcomes {
    /// A client tells the cell that its session is over, or that it agrees that it is.
    pub fn closes(&mut self, session: SessionId) {
        self.closed.insert(session);
    }

    /// An operator asks for a session's end.
    pub fn kills(&mut self, session: SessionId) {
        self.killed.insert(session);
    }

    /// The log ends a session.
    ///
    /// # Errors
    ///
    /// If nobody had asked for that.
    pub fn ended(&mut self, session: SessionId, reason: EndReason) -> Result<(), Violation> {
        let asked = match reason {
            EndReason::Closed => self.closed.contains(&session),
            EndReason::Killed => self.killed.contains(&session),
            EndReason::Idle | EndReason::Expired => true,
            EndReason::Unspecified => false,
        };
        self.closed.remove(&session);
        if asked {
            Ok(())
        } else {
            Err(broken(format!("the cell ended {session}: {reason:?}; nobody had asked")))
        }
    }

    /// An application is told that its session is over. `lives`: the log has not ended it; `closing`: the application
    /// has asked for the end; `uses`: it has handles open, or keeps its session although it is idle.
    ///
    /// # Errors
    ///
    /// If that is not so.
    pub fn told(
        &self,
        session: SessionId,
        ended: &Ended,
        lives: bool,
        closing: bool,
        uses: bool,
    ) -> Result<(), Violation> {
        let wrong = match ended {
            Ended::Expired => lives,
            Ended::Killed => !self.killed.contains(&session),
            Ended::Closed => !closing,
            Ended::Idle => uses,
            _ => false,
        };
        if wrong {
            let facts =
                format!("open at the cell: {lives}, closed by its application: {closing}, in use: {uses}");
            return Err(broken(format!("the client of {session} was told: {ended}; {facts}")));
        }
        Ok(())
    }
}

fn broken(what: String) -> Violation {
    Violation::new(Invariant::ExactlyOnce, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(1);

    #[test]
    fn an_end_that_nobody_asked_for_is_found() {
        let mut outcomes = Outcomes::default();
        for reason in [EndReason::Closed, EndReason::Killed, EndReason::Unspecified] {
            assert!(outcomes.ended(SESSION, reason).is_err(), "{reason:?}");
        }
        assert!(outcomes.ended(SESSION, EndReason::Expired).is_ok());
        outcomes.closes(SESSION);
        outcomes.kills(SESSION);
        assert!(outcomes.ended(SESSION, EndReason::Killed).is_ok());
        outcomes.closes(SessionId(2));
        assert!(outcomes.ended(SessionId(2), EndReason::Closed).is_ok());
    }

    #[test]
    fn word_of_an_expiry_that_has_not_happened_is_found() {
        let told = |lives| Outcomes::default().told(SESSION, &Ended::Expired, lives, false, true);
        assert!(told(true).is_err());
        assert!(told(false).is_ok());
    }

    #[test]
    fn word_of_a_kill_or_a_close_that_nobody_asked_for_is_found() {
        let mut outcomes = Outcomes::default();
        assert!(outcomes.told(SESSION, &Ended::Killed, false, false, false).is_err());
        assert!(outcomes.told(SESSION, &Ended::Closed, false, false, false).is_err());
        assert!(outcomes.told(SESSION, &Ended::Closed, true, true, false).is_ok());
        outcomes.kills(SESSION);
        assert!(outcomes.told(SESSION, &Ended::Killed, true, false, false).is_ok());
    }

    #[test]
    fn an_idle_end_of_a_session_that_is_in_use_is_found() {
        let told = |uses| Outcomes::default().told(SESSION, &Ended::Idle, true, false, uses);
        assert!(told(true).is_err());
        assert!(told(false).is_ok());
    }

    #[test]
    fn a_client_may_give_up_by_itself() {
        let ended = Ended::GraceOver { grace_ms: 1, last: String::new() };
        assert!(Outcomes::default().told(SESSION, &ended, true, false, true).is_ok());
    }
}
