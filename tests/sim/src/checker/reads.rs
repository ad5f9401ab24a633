//! I5 for reads of files: a read gives what the file held at the revision that the answer names, and that
//! revision is not older than anything any application had been told when the read began.
//!
//! Because every outcome names its revision, no search over histories is needed: the revision is the point at
//! which the read took place. It must lie between the read's call and its return.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{Contents, SetContentsRequest, outcome};
use holdfast_proto::log::v1::command::Kind;
use holdfast_state::Effect;
use holdfast_types::{HandleId, Revision, SessionId};

use super::onlooker;
use crate::canon::Step;
use crate::verdict::{Invariant, Violation};

/// The checker.
#[derive(Debug, Default)]
pub struct Reads {
    /// The file of each handle: its path and instance.
    handles: BTreeMap<(SessionId, HandleId), (String, u64)>,
    /// What each file held, by the revision of the write.
    contents: BTreeMap<(String, u64), BTreeMap<Revision, Bytes>>,
    /// The newest revision that any application was told of.
    told: Revision,
    /// The newest revision of the log.
    newest: Revision,
}

impl Reads {
    /// Takes in a step of the canonical log.
    pub fn see(&mut self, step: &Step<'_>) {
        self.newest = step.state.revision();
        if let Some(Kind::SetContents(write)) = &step.command.kind {
            return self.see_named(step, write);
        }
        let Some(Kind::Request(request)) = &step.command.kind else { return };
        let Some(operation) = request.request.as_ref().and_then(|request| request.operation.as_ref()) else {
            return;
        };
        for effect in step.effects {
            if let Effect::Replied { session, number, outcome, .. } = effect
                && let Some(result) = &outcome.result
            {
                let handle = HandleId(number.0);
                // An Open may name its node relative to another.
                let opened = step.state.session(*session).and_then(|session| session.handle_path(handle));
                self.see_result(*session, handle, opened.map(ToString::to_string), operation, result);
            }
        }
    }

    /// A file was written by name, or was not.
    fn see_named(&mut self, step: &Step<'_>, write: &SetContentsRequest) {
        for effect in step.effects {
            if let Effect::Decided { outcome, .. } = effect
                && let Some(outcome::Result::Written(written)) = &outcome.result
                && let Ok(stat) = step.state.read_stat(&onlooker(), &write.path)
            {
                let file = (write.path.clone(), stat.instance);
                let revision = Revision(written.content_generation);
                self.contents.entry(file).or_default().insert(revision, write.contents.clone());
            }
        }
    }

    fn see_result(
        &mut self,
        session: SessionId,
        handle: HandleId,
        path: Option<String>,
        operation: &Operation,
        result: &outcome::Result,
    ) {
        match (operation, result) {
            (Operation::Open(open), outcome::Result::Opened(opened)) => {
                let stat = opened.stat.clone().unwrap_or_default();
                let file = (path.unwrap_or_else(|| open.path.clone()), stat.instance);
                self.handles.insert((session, handle), file.clone());
                if opened.created {
                    let revision = Revision(stat.content_generation);
                    self.contents.entry(file).or_default().insert(revision, open.contents.clone());
                }
            }
            (Operation::SetContents(write), outcome::Result::Written(written)) => {
                if let Some(file) = self.handles.get(&(session, HandleId(write.handle))) {
                    let revision = Revision(written.content_generation);
                    self.contents.entry(file.clone()).or_default().insert(revision, write.contents.clone());
                }
            }
            _ => {}
        }
    }

    /// An application knows of a revision, in whatever way it was told.
    pub fn raise(&mut self, revision: Revision) {
        self.told = self.told.max(revision);
    }

    /// The newest revision that any application has been told of: no call that begins now may see an older one.
    #[must_use]
    pub fn floor(&self) -> Revision {
        self.told
    }

    /// An application is told an outcome's revision.
    ///
    /// # Errors
    ///
    /// If it is older than what was known when the call began, or newer than the log.
    pub fn told(&mut self, revision: Revision, floor: Revision, is_read: bool) -> Result<(), Violation> {
        if is_read && revision < floor {
            let what = format!("a read is as new as {revision}, and began when {floor} was known");
            return Err(broken(what));
        }
        if revision > self.newest {
            return Err(broken(format!(
                "an answer is as new as {revision}, and the log ends at {}",
                self.newest
            )));
        }
        self.told = self.told.max(revision);
        Ok(())
    }

    /// An application was told what a file holds.
    ///
    /// # Errors
    ///
    /// If that is not what it held at the revision.
    pub fn contents(
        &self,
        path: &str,
        instance: u64,
        revision: Revision,
        contents: &Contents,
    ) -> Result<(), Violation> {
        let file = (path.to_owned(), instance);
        let written = self.contents.get(&file).and_then(|writes| writes.range(..=revision).next_back());
        let generation = contents.stat.as_ref().map_or(0, |stat| stat.content_generation);
        if written == Some((&Revision(generation), &contents.contents)) {
            return Ok(());
        }
        Err(broken(format!(
            "a read of {} at {revision} gave {:?} of generation {generation}, and it held {written:?}",
            file.0, contents.contents
        )))
    }
}

fn broken(what: String) -> Violation {
    Violation::new(Invariant::Linearizability, what)
}

#[cfg(test)]
mod tests {
    use super::super::history::*;
    use super::*;
    use holdfast_proto::client::v1::Stat;

    const SESSION: SessionId = SessionId(1);
    const HANDLE: HandleId = HandleId(1);

    /// A file that held "a" from revision 5 on and "b" from 8 on.
    fn checker() -> Reads {
        let mut checker = Reads { newest: Revision(10), ..Reads::default() };
        checker.see_result(SESSION, HANDLE, None, &open("/file"), &opened_at(4));
        checker.see_result(SESSION, HandleId(2), None, &write(1, "a"), &written(5));
        checker.see_result(SESSION, HandleId(3), None, &write(1, "b"), &written(8));
        checker
    }

    fn read(revision: u64, generation: u64, contents: &'static str) -> Result<(), Violation> {
        let stat = Stat { content_generation: generation, ..Stat::default() };
        let contents = Contents { stat: Some(stat), contents: Bytes::from_static(contents.as_bytes()) };
        checker().contents("/file", 4, Revision(revision), &contents)
    }

    #[test]
    fn a_read_gives_the_last_write_before_its_revision() {
        assert!(read(5, 5, "a").is_ok());
        assert!(read(7, 5, "a").is_ok());
        assert!(read(8, 8, "b").is_ok());
        assert!(read(8, 5, "a").is_err(), "an old value under a new revision");
        assert!(read(7, 8, "b").is_err(), "a new value under an old revision");
        assert!(read(7, 5, "b").is_err(), "another value");
    }

    #[test]
    fn a_stale_read_is_found() {
        let mut checker = checker();
        checker.told(Revision(8), Revision(0), false).unwrap();
        let floor = checker.floor();
        assert!(checker.told(Revision(7), floor, true).is_err());
        assert!(checker.told(Revision(8), floor, true).is_ok());
        assert!(checker.told(Revision(7), floor, false).is_ok(), "a retried write names its old revision");
    }

    #[test]
    fn an_answer_from_the_future_is_found() {
        assert!(checker().told(Revision(11), Revision(0), true).is_err());
    }
}
