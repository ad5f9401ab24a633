//! I5 as clients lived it: for each file, what was read and written by whom between when and when, and whether any one
//! order explains it all. Cached reads are in it like all others.
//!
//! Nothing here comes from the cell's log, so that recorded calls of real clients can be judged as well
//! ([`Histories::record`]). No two writes of a file may have the same contents. Invariant: a write of which nobody was
//! told stays in the history, because it may have taken effect.

use std::collections::BTreeMap;

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

    /// A call with times of its own, from one clock: of a history that was recorded elsewhere. Such calls are not to
    /// be mixed with those whose places come from [`Histories::tick`].
    pub fn record(&mut self, path: &str, instance: u64, call: Call) {
        self.calls(path, instance).push(call);
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

    /// Checks each file's history. Returns how many there are.
    ///
    /// # Errors
    ///
    /// A history that nothing explains, or that is too much to find out.
    pub fn check(&self) -> Result<u64, Violation> {
        for ((path, instance), calls) in &self.files {
            let calls = explained(calls);
            let answer = is_linearizable(&calls, STEPS_MAX);
            if answer != Answer::Yes {
                let so = if answer == Answer::No { "no order" } else { "no order that was tried" };
                let what = format!("{so} explains the {} calls on {path} (r{instance})", calls.len());
                return Err(Violation::new(Invariant::Linearizability, what));
            }
        }
        Ok(self.files.len() as u64)
    }
}

/// The history with what follows from no two writes of a run having the same contents: a write without an end has the
/// generation that somebody read its contents at; and if nobody did, whatever order there is is one without it, too.
fn explained(calls: &[Call]) -> Vec<Call> {
    let mut read: BTreeMap<&Bytes, u64> = BTreeMap::new();
    for call in calls {
        if let Op::Read { contents, generation } = &call.op {
            read.insert(contents, *generation);
        }
    }
    let mut explained = Vec::new();
    for call in calls {
        let mut call = call.clone();
        if let Op::Write { contents, generation: generation @ None, .. } = &mut call.op {
            let Some(read_at) = read.get(contents) else { continue };
            *generation = Some(*read_at);
        }
        explained.push(call);
    }
    explained
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
        assert_eq!(histories.check(), Ok(2), "it may have been read in between");
        histories.add("/file", 1, late, read("a", 1));
        assert_eq!(histories.check().unwrap_err().invariant, Invariant::Linearizability);
    }

    #[test]
    fn recorded_calls_are_judged_by_their_own_times() {
        let recorded = |ended| {
            let mut histories = Histories::default();
            histories.record("/file", 1, Call { op: read("a", 1), began: 700, ended: Some(800) });
            histories.record("/file", 1, Call { op: write("a", 1), began: 100, ended: Some(200) });
            histories.record("/file", 1, Call { op: write("b", 2), began: 300, ended });
            histories.check()
        };
        assert_eq!(recorded(Some(701)), Ok(1));
        assert!(recorded(Some(699)).is_err());
        assert_eq!(recorded(None), Ok(1));
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
        assert_eq!(histories.check(), Ok(1));
        let began = histories.tick();
        histories.add("/file", 1, began, read("c", 8));
        assert!(histories.check().is_err());
    }
}
