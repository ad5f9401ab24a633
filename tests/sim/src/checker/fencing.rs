//! I2, where the cell is the resource: what is done through a handle that depends on a sequencer is done while the lock
//! is held as the sequencer says, and never after it was passed on. And what a session wrote before it gave something
//! back is decided before that.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::outcome;
use holdfast_proto::client::v1::request::Operation;
use holdfast_types::{HandleId, RequestNumber, Revision, SessionId};

use super::{Decided, Fact};
use crate::verdict::{Invariant, Violation};

/// The checker.
#[derive(Debug, Default)]
pub struct Fencing {
    /// The sequencer that each handle depends on, and since when.
    sequencers: BTreeMap<(SessionId, HandleId), (String, Revision)>,
    /// The last request of each session that gave something back.
    given_back: BTreeMap<SessionId, RequestNumber>,
}

impl Fencing {
    /// Takes in what happened at a revision. `is_valid` says whether a sequencer is valid then.
    ///
    /// # Errors
    ///
    /// Something that was done under a sequencer that is not.
    pub fn see(
        &mut self,
        fact: &Fact<'_>,
        at: Revision,
        is_valid: impl Fn(&str) -> bool,
    ) -> Result<(), Violation> {
        let (session, operation, result) = match fact {
            Fact::Decided(decided) => {
                self.check_order(decided)?;
                (decided.session, decided.operation, decided.result)
            }
            Fact::SessionEnded { session, .. } => {
                self.given_back.remove(session);
                self.sequencers.retain(|(of, _), _| of != session);
                return Ok(());
            }
            _ => return Ok(()),
        };
        let handle = match (operation, result) {
            (Operation::SetSequencer(set), outcome::Result::SequencerSet(_)) => {
                let name = (session, HandleId(set.handle));
                match set.sequencer.as_str() {
                    "" => self.sequencers.remove(&name),
                    text => self.sequencers.insert(name, (text.to_owned(), at)),
                };
                set.handle
            }
            (Operation::Close(close), _) => {
                self.sequencers.remove(&(session, HandleId(close.handle)));
                return Ok(());
            }
            (Operation::SetContents(write), _) => write.handle,
            (Operation::Delete(delete), _) => delete.handle,
            (Operation::SetAcl(change), _) => change.handle,
            (Operation::Acquire(acquire), _) => acquire.handle,
            _ => return Ok(()),
        };
        self.check(session, HandleId(handle), at, is_valid)
    }

    /// What a session wrote before it gave something back is decided before that, or refused: a delayed write must not
    /// land after its lock was passed on.
    fn check_order(&mut self, decided: &Decided<'_>) -> Result<(), Violation> {
        let Decided { session, number, operation, .. } = decided;
        match operation {
            Operation::Release(_) | Operation::Close(_) | Operation::Cancel(_) => {
                let last = self.given_back.entry(*session).or_insert(*number);
                *last = (*last).max(*number);
            }
            Operation::SetContents(_) | Operation::Delete(_) | Operation::SetAcl(_) => {
                if let Some(given_back) = self.given_back.get(session).filter(|last| *last > number) {
                    let what = format!(
                        "{session} {number} took effect after {given_back}, which gave something back"
                    );
                    return Err(Violation::new(Invariant::Fencing, what));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Something was done, or read, through a handle at a revision.
    ///
    /// # Errors
    ///
    /// If it depends on a sequencer that was not valid then.
    pub fn check(
        &self,
        session: SessionId,
        handle: HandleId,
        at: Revision,
        is_valid: impl Fn(&str) -> bool,
    ) -> Result<(), Violation> {
        match self.sequencers.get(&(session, handle)) {
            Some((text, since)) if *since <= at && !is_valid(text) => {
                let what =
                    format!("{session} did something through {handle} under {text:?}, which was not valid");
                Err(Violation::new(Invariant::Fencing, what))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::client::v1 as wire;

    use super::super::history::*;
    use super::*;

    #[test]
    fn a_write_that_lands_after_a_later_release_is_found() {
        let mut fencing = Fencing::default();
        let mut see = |session, number, operation: &Operation, result: &outcome::Result| {
            fencing.see(&decided(session, number, operation, result).fact(), Revision(9), |_| true)
        };
        see(1, 2, &write(1, "a"), &written(5)).unwrap();
        see(1, 4, &release(1), &released()).unwrap();
        assert!(see(1, 3, &write(1, "b"), &written(6)).is_err());
        see(1, 5, &write(1, "c"), &written(7)).unwrap();
        see(2, 3, &write(1, "d"), &written(8)).unwrap();
    }

    #[test]
    fn a_write_under_a_sequencer_that_is_not_valid_is_found() {
        let bind = |text: &str| {
            Operation::SetSequencer(wire::SetSequencer { handle: 1, sequencer: text.to_owned() })
        };
        let bound = outcome::Result::SequencerSet(wire::SequencerSet {});
        let mut fencing = Fencing::default();
        fencing.see(&decided(1, 2, &bind("old"), &bound).fact(), Revision(4), |_| true).unwrap();
        let write = |fencing: &mut Fencing| {
            fencing.see(&decided(1, 3, &write(1, "a"), &written(5)).fact(), Revision(5), |text| text != "old")
        };
        assert_eq!(write(&mut fencing).unwrap_err().invariant, Invariant::Fencing);
        assert!(fencing.check(SessionId(1), HandleId(1), Revision(5), |_| false).is_err(), "reads count too");
        assert!(fencing.check(SessionId(1), HandleId(1), Revision(3), |_| false).is_ok(), "before it");
        assert!(fencing.check(SessionId(1), HandleId(2), Revision(5), |_| false).is_ok(), "another handle");
        fencing.see(&decided(1, 4, &bind("new"), &bound).fact(), Revision(5), |_| true).unwrap();
        assert!(write(&mut fencing).is_ok());
        fencing.see(&decided(1, 5, &bind(""), &bound).fact(), Revision(6), |_| true).unwrap();
        assert!(
            fencing.check(SessionId(1), HandleId(1), Revision(9), |_| false).is_ok(),
            "it depends on none any more"
        );
    }
}
