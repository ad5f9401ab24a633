//! I6: a request takes effect once or never, and once when the client was told Ok.
//!
//! Three things are held against each other: the outcomes in the canonical log, by session and number; the
//! writes, whose contents no workload uses twice, so that a second effect shows whatever number it came under;
//! and what applications were told.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{Granted, Outcome, RefusalCode, outcome};
use holdfast_types::{RequestNumber, SessionId};

use super::{Decided, Fact, is_read};
use crate::verdict::{Invariant, Violation};

/// A request, of all that were ever made.
type RequestName = (SessionId, RequestNumber);

/// The checker.
#[derive(Debug, Default)]
pub struct ExactlyOnce {
    /// What came of each request, the first time.
    outcomes: BTreeMap<RequestName, Outcome>,
    /// The Acquires that were granted out of a queue.
    grants: BTreeMap<RequestName, Granted>,
    /// The sessions that are open, by the secret that each was opened under.
    opened: BTreeMap<Bytes, SessionId>,
    /// Which request wrote these contents.
    writes: BTreeMap<Bytes, RequestName>,
}

impl ExactlyOnce {
    /// A request came out of the log, with an outcome. Returns whether it was decided now.
    ///
    /// # Errors
    ///
    /// A second outcome that differs from the first, or a repetition that changed something.
    pub fn decide(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        outcome: &Outcome,
        changed: bool,
    ) -> Result<bool, Violation> {
        let known = self.outcomes.get(&(session, number));
        let first = known.is_none() && !is_unrecorded(outcome);
        if changed && !first {
            return Err(broken(format!("{session} {number} was decided before and changed something again")));
        }
        match known {
            Some(known) if known != outcome && !is_unrecorded(outcome) => {
                Err(broken(format!("{session} {number} came to {known:?}, and later to {outcome:?}")))
            }
            Some(_) => Ok(false),
            None => {
                if first {
                    self.outcomes.insert((session, number), outcome.clone());
                }
                Ok(first)
            }
        }
    }

    /// A session was opened under a secret, by an opening that was not found to be a repetition.
    ///
    /// # Errors
    ///
    /// If one that is open was opened under it before.
    pub fn opened(&mut self, secret: &Bytes, session: SessionId) -> Result<(), Violation> {
        match self.opened.insert(secret.clone(), session) {
            Some(other) => Err(broken(format!("{session} was opened by the opening that opened {other}"))),
            None => Ok(()),
        }
    }

    /// Takes in what happened.
    ///
    /// # Errors
    ///
    /// Contents that were written a second time.
    pub fn see(&mut self, fact: &Fact<'_>) -> Result<(), Violation> {
        match fact {
            Fact::SessionEnded { session, .. } => self.opened.retain(|_, open| open != session),
            Fact::LockGranted { session, number, granted, .. } => {
                self.grants.insert((*session, *number), **granted);
            }
            Fact::Decided(Decided {
                session,
                number,
                operation: Operation::SetContents(write),
                result: outcome::Result::Written(_),
            }) => {
                let name = (*session, *number);
                if let Some(other) = self.writes.insert(write.contents.clone(), name) {
                    let what = String::from_utf8_lossy(&write.contents).into_owned();
                    return Err(broken(format!(
                        "{what:?} was written by {} {} and again by {session} {number}",
                        other.0, other.1
                    )));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// An application was told that a request of a session succeeded. Reads are no concern of this checker.
    ///
    /// # Errors
    ///
    /// If by the log it did not, or with another result.
    pub fn told(
        &self,
        session: SessionId,
        number: RequestNumber,
        operation: &Operation,
        result: &outcome::Result,
    ) -> Result<(), Violation> {
        if is_read(operation) {
            return Ok(());
        }
        let name = (session, number);
        let recorded = self.outcomes.get(&name).and_then(|outcome| outcome.result.as_ref());
        let agrees = match (recorded, result) {
            (Some(outcome::Result::Queued(_)), outcome::Result::Granted(granted)) => {
                self.grants.get(&name) == Some(granted)
            }
            (recorded, result) => recorded == Some(result),
        };
        if !agrees {
            return Err(broken(format!(
                "an application was told {result:?} of {session} {number}, and the log has {recorded:?}"
            )));
        }
        if let Operation::SetContents(write) = operation
            && self.writes.get(&write.contents) != Some(&name)
        {
            return Err(broken(format!(
                "{session} {number} was told Ok, and its contents were never written"
            )));
        }
        Ok(())
    }
}

/// Whether this is one of the refusals that record nothing: the same number may yet come to something else.
fn is_unrecorded(outcome: &Outcome) -> bool {
    use RefusalCode::{Acknowledged, Limit, UnknownSession};
    let Some(outcome::Result::Refusal(refusal)) = &outcome.result else { return false };
    matches!(refusal.code(), Acknowledged | Limit | UnknownSession)
}

fn broken(what: String) -> Violation {
    Violation::new(Invariant::ExactlyOnce, what)
}

#[cfg(test)]
mod tests {
    use super::super::history::*;
    use super::*;

    const SESSION: SessionId = SessionId(1);

    fn outcome_of(result: outcome::Result) -> Outcome {
        Outcome { revision: 5, result: Some(result) }
    }

    /// The log decides number 2 to have written "a".
    fn checker_with_a_write() -> ExactlyOnce {
        let mut checker = ExactlyOnce::default();
        let outcome = outcome_of(written(5));
        assert_eq!(checker.decide(SESSION, RequestNumber(2), &outcome, true), Ok(true));
        checker.see(&decided(1, 2, &write(1, "a"), &written(5)).fact()).unwrap();
        checker
    }

    #[test]
    fn a_repetition_with_the_same_outcome_and_no_effect_is_fine() {
        let mut checker = checker_with_a_write();
        assert_eq!(checker.decide(SESSION, RequestNumber(2), &outcome_of(written(5)), false), Ok(false));
        assert!(checker.told(SESSION, RequestNumber(2), &write(1, "a"), &written(5)).is_ok());
    }

    #[test]
    fn a_second_effect_is_found() {
        let mut checker = checker_with_a_write();
        assert!(checker.decide(SESSION, RequestNumber(2), &outcome_of(written(5)), true).is_err());
    }

    #[test]
    fn a_session_that_is_opened_twice_is_found() {
        let (mut checker, secret) = (ExactlyOnce::default(), Bytes::from_static(b"secret"));
        checker.opened(&secret, SESSION).unwrap();
        assert!(checker.opened(&secret, SessionId(2)).is_err());
        checker.see(&Fact::SessionEnded { session: SessionId(2), expired: true }).unwrap();
        checker.opened(&secret, SessionId(3)).unwrap();
    }

    #[test]
    fn a_second_outcome_is_found() {
        let mut checker = checker_with_a_write();
        assert!(checker.decide(SESSION, RequestNumber(2), &outcome_of(written(6)), false).is_err());
    }

    #[test]
    fn a_retry_under_another_number_is_found() {
        let mut checker = checker_with_a_write();
        assert!(checker.see(&decided(1, 3, &write(1, "a"), &written(6)).fact()).is_err());
    }

    #[test]
    fn an_ok_without_an_effect_is_found() {
        let checker = ExactlyOnce::default();
        assert!(checker.told(SESSION, RequestNumber(2), &write(1, "a"), &written(5)).is_err());
    }

    #[test]
    fn a_result_that_is_not_the_logs_is_found() {
        let checker = checker_with_a_write();
        assert!(checker.told(SESSION, RequestNumber(2), &write(1, "a"), &written(6)).is_err());
    }

    #[test]
    fn a_grant_out_of_the_queue_must_be_in_the_log() {
        use holdfast_proto::client::v1::{LockMode, Queued};
        let mut checker = ExactlyOnce::default();
        let queued = outcome_of(outcome::Result::Queued(Queued { ahead: 1 }));
        checker.decide(SESSION, RequestNumber(3), &queued, true).unwrap();
        let (operation, result) = (acquire(1, LockMode::Shared), granted(LockMode::Shared, 8, 7));
        assert!(checker.told(SESSION, RequestNumber(3), &operation, &result).is_err());
        let granted = Granted { mode: LockMode::Shared.into(), lock_generation: 8, instance: 7 };
        let (session, handle, number) = (SESSION, holdfast_types::HandleId(1), RequestNumber(3));
        checker.see(&Fact::LockGranted { session, handle, number, granted: &granted }).unwrap();
        assert!(checker.told(SESSION, RequestNumber(3), &operation, &result).is_ok());
    }
}
