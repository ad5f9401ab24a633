//! I5 as clients lived it: for each file, what was read and written by whom between when and when, and whether any one
//! order explains it all. Cached reads are in it like all others.
//!
//! Nothing here comes from the cell's log. Invariant: a write of which nobody was told stays in the history, because
//! it may have taken effect.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_proto::client::v1::request::Operation;

use super::linear::{Answer, Call, is_linearizable};
use super::register::Op;
use crate::verdict::{Invariant, Violation};

/// So many tries are made for one file. Those that pass need few more than they have calls.
const STEPS_MAX: u64 = 2_000_000;

/// A file, of all that were ever made: its path and instance.
type File = (String, u64);

/// The histories of all files.
#[derive(Debug, Default)]
pub struct Histories {
    /// The last place given.
    last: u64,
    files: BTreeMap<File, Vec<Call>>,
}

impl Histories {
    /// The next place in the order of all beginnings and ends.
    pub fn tick(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// A call that had begun at a place ends now.
    pub fn add(&mut self, path: &str, instance: u64, began: u64, op: Op) {
        let ended = Some(self.tick());
        self.calls(path, instance).push(Call { op, began, ended });
    }

    /// Nobody will ever be told what came of a call.
    pub fn abandon(&mut self, path: &str, instance: u64, began: u64, operation: &Operation) {
        let Operation::SetContents(write) = operation else { return };
        let (contents, if_generation) = (write.contents.clone(), write.if_generation);
        let op = Op::Write { contents, if_generation, generation: None };
        self.calls(path, instance).push(Call { op, began, ended: None });
    }

    fn calls(&mut self, path: &str, instance: u64) -> &mut Vec<Call> {
        self.files.entry((path.to_owned(), instance)).or_default()
    }

    /// Checks each file's history. Returns how many were decided, and how many could not be.
    ///
    /// # Errors
    ///
    /// A history that nothing explains.
    pub fn check(&self) -> Result<(u64, u64), Violation> {
        let (mut decided, mut undecided) = (0, 0);
        for ((path, instance), calls) in &self.files {
            let calls = without_unseen(calls);
            match is_linearizable(&calls, STEPS_MAX) {
                Answer::Yes => decided += 1,
                Answer::Undecided => undecided += 1,
                Answer::No => {
                    let what = format!("no order explains the {} calls on {path} (r{instance})", calls.len());
                    return Err(Violation::new(Invariant::Linearizability, what));
                }
            }
        }
        Ok((decided, undecided))
    }
}

/// Without the writes that have no end and that nobody ever read: if there is an order with such a write in it, there
/// is the same one without it, because no two writes of a run have the same contents.
fn without_unseen(calls: &[Call]) -> Vec<Call> {
    let read: BTreeSet<&Bytes> = calls
        .iter()
        .filter_map(|call| match &call.op {
            Op::Read { contents, .. } => Some(contents),
            Op::Write { .. } => None,
        })
        .collect();
    let seen = |call: &&Call| match &call.op {
        Op::Write { contents, .. } => call.ended.is_some() || read.contains(contents),
        Op::Read { .. } => true,
    };
    calls.iter().filter(seen).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::super::history::write as request;
    use super::super::register::{read, write};
    use super::*;

    #[test]
    fn a_history_that_nothing_explains_is_found() {
        let mut histories = Histories::default();
        let begun: Vec<u64> = (0..3).map(|_| histories.tick()).collect();
        histories.add("/file", 1, begun[0], write("a", 1));
        histories.add("/file", 1, begun[1], write("b", 2));
        let late = histories.tick();
        histories.add("/file", 2, late, read("a", 1));
        histories.add("/file", 1, begun[2], read("a", 1));
        assert_eq!(histories.check(), Ok((2, 0)), "it may have been read in between");
        histories.add("/file", 1, late, read("a", 1));
        assert_eq!(histories.check().unwrap_err().invariant, Invariant::Linearizability);
    }

    #[test]
    fn a_write_without_an_end_explains_what_is_read_and_nothing_else() {
        let mut histories = Histories::default();
        let began = histories.tick();
        histories.abandon("/file", 1, began, &request(1, "b"));
        for _ in 0..40 {
            histories.abandon("/file", 1, began, &request(1, "never seen"));
        }
        let began = histories.tick();
        histories.add("/file", 1, began, read("b", 7));
        assert_eq!(histories.check(), Ok((1, 0)));
        let began = histories.tick();
        histories.add("/file", 1, began, read("c", 8));
        assert!(histories.check().is_err());
    }
}
