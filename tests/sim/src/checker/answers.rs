//! I5 for whatever an application reads, cached or not: contents, metadata, lists of children, that a node is there
//! and that it is not.
//!
//! The canonical log is the one true order of all changes, so no search over orders is needed: an answer is right if
//! the cell would have given it at some revision between the newest that any application had been told when the read
//! began, and the newest that any replica had applied when it ended. An answer that names its revision must be what
//! the cell would have said at that very one. The cell's own rules say what it would have answered; that they are
//! right is tested where they are, and contents are held against a model of their own by `reads`.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{Directory, Open, RefusalCode, Request, Stat, outcome};
use holdfast_proto::log::v1::command::Kind;
use holdfast_proto::log::v1::{Command, SessionRequest};
use holdfast_state::{Effect, State};
use holdfast_types::{Revision, SessionId};

use super::onlooker;
use super::past::Past;
use crate::verdict::{Invariant, Violation};

/// A number that no session of a run gets to: what the cell would answer is tried out under it.
const TRIAL: u64 = 1 << 60;

/// What an application read through a handle.
#[derive(Clone, Debug)]
pub struct Read<'r> {
    /// The path of the handle's node.
    pub path: &'r str,
    /// Its instance.
    pub instance: u64,
    /// What was asked.
    pub operation: &'r Operation,
    /// What was answered.
    pub answer: &'r outcome::Result,
}

/// What an application was told of a name that it wanted to open.
#[derive(Clone, Debug)]
pub struct Opening<'o> {
    /// Whose.
    pub session: SessionId,
    /// What it asked for, its path being absolute.
    pub open: &'o Open,
    /// The instance of what it opened; or it was refused for this.
    pub answer: Result<u64, RefusalCode>,
}

/// Judges an answer that names its revision.
///
/// # Errors
///
/// If the cell would have answered something else then.
pub fn check_at(past: &Past, read: &Read<'_>, revision: Revision) -> Result<(), Violation> {
    // What is no longer kept is not judged.
    let Some(state) = past.at(revision) else { return Ok(()) };
    let expected = answer_of(state, read);
    if expected.as_ref() == Some(read.answer) {
        return Ok(());
    }
    Err(broken(format!(
        "{:?} of {} at {revision} gave {:?}, and it was {expected:?}",
        read.operation, read.path, read.answer
    )))
}

/// Judges an answer that came from a cache between two moments. Returns the earliest revision that it can be of.
///
/// # Errors
///
/// If it is right at no revision since `floor`.
pub fn check_cached(past: &Past, read: &Read<'_>, floor: Revision) -> Result<Revision, Violation> {
    let Some(mut states) = past.since(floor) else { return Ok(floor) };
    let blank = |answer: &outcome::Result| without_locks(answer.clone());
    let given = blank(read.answer);
    let found =
        states.find(|(_, state)| answer_of(state, read).is_some_and(|answer| blank(&answer) == given));
    found.map(|(revision, _)| revision.max(floor)).ok_or_else(|| {
        broken(format!(
            "{:?} of {} came from a cache as {:?}, which it was at no revision since {floor}",
            read.operation, read.path, read.answer
        ))
    })
}

/// Judges what an application was told of a name: that it could, or could not, be opened. Returns the earliest
/// revision that this can be of.
///
/// # Errors
///
/// If it is right at no revision since `floor`.
pub fn check_opening(past: &Past, opening: &Opening<'_>, floor: Revision) -> Result<Revision, Violation> {
    let Some(mut states) = past.since(floor) else { return Ok(floor) };
    let found = states.find(|(_, state)| try_opening(state, opening) == opening.answer);
    found.map(|(revision, _)| revision.max(floor)).ok_or_else(|| {
        broken(format!(
            "{} was told {:?} of {:?}, which was right at no revision since {floor}",
            opening.session, opening.answer, opening.open
        ))
    })
}

/// What the cell would have answered, if the node of the handle was still there.
fn answer_of(state: &State, read: &Read<'_>) -> Option<outcome::Result> {
    let stat = state.read_stat(&onlooker(), read.path).ok()?;
    if stat.instance != read.instance {
        return None;
    }
    match read.operation {
        Operation::GetStat(_) => Some(outcome::Result::Stat(Box::new(stat))),
        Operation::GetContents(_) => {
            let contents = state.read_contents(&onlooker(), read.path).ok()?;
            Some(outcome::Result::Contents(Box::new(contents)))
        }
        Operation::ReadDir(page) => {
            let directory = state.read_dir(&onlooker(), read.path, &page.after, page.limit);
            Some(outcome::Result::Directory(Box::new(directory.ok()?)))
        }
        _ => None,
    }
}

/// What would have come of an Open at that state.
fn try_opening(state: &State, opening: &Opening<'_>) -> Result<u64, RefusalCode> {
    let operation = Some(Operation::Open(Box::new(opening.open.clone())));
    let request = Some(Request { number: TRIAL, operation });
    let request = SessionRequest { session: opening.session.0, request, acknowledged: None };
    let command = Command { tag: 0, kind: Some(Kind::Request(request)), ..Command::default() };
    let mut effects = Vec::new();
    let applied = state.clone().apply(command, &mut effects);
    let replied = effects.iter().find_map(|effect| match effect {
        Effect::Replied { outcome, .. } => outcome.result.as_ref(),
        _ => None,
    });
    match (applied, replied) {
        (Ok(()), Some(outcome::Result::Opened(opened))) => {
            Ok(opened.stat.as_ref().map_or(0, |stat| stat.instance))
        }
        (Ok(()), Some(outcome::Result::Refusal(refusal))) => Err(refusal.code()),
        _ => Err(RefusalCode::Unspecified),
    }
}

/// An answer without what is never cached: how locks fare, and how many have a node open.
fn without_locks(mut answer: outcome::Result) -> outcome::Result {
    let blank = |stat: &mut Option<Stat>| {
        if let Some(stat) = stat {
            (stat.lock, stat.lock_generation, stat.open_handles) = (None, 0, 0);
        }
    };
    match &mut answer {
        outcome::Result::Stat(stat) => (stat.lock, stat.lock_generation, stat.open_handles) = (None, 0, 0),
        outcome::Result::Contents(contents) => blank(&mut contents.stat),
        outcome::Result::Directory(directory) => {
            let Directory { stat, entries, .. } = &mut **directory;
            blank(stat);
            entries.iter_mut().for_each(|entry| blank(&mut entry.stat));
        }
        _ => {}
    }
    answer
}

fn broken(what: String) -> Violation {
    Violation::new(Invariant::Linearizability, what)
}

#[cfg(test)]
mod tests {
    use holdfast_proto::client::v1::{self as wire, Creation};

    use super::super::history::{Cell, cell};
    use super::*;

    /// A past in which `/file` holds "a", then "b", then is deleted and made again with "c".
    struct Told {
        cell: Cell,
        past: Past,
        a: Revision,
        b: Revision,
        gone: Revision,
        c: Revision,
    }

    fn told() -> Told {
        let (mut cell, mut past) = (cell(), Past::default());
        past.see(&cell.state);
        let mut after = |cell: &mut Cell, change: &dyn Fn(&mut Cell)| {
            change(cell);
            past.see(&cell.state);
            cell.state.revision()
        };
        let a = after(&mut cell, &|cell| cell.write("/file", "a"));
        let b = after(&mut cell, &|cell| cell.write("/file", "b"));
        let gone = after(&mut cell, &|cell| cell.delete("/file"));
        let c = after(&mut cell, &|cell| cell.write("/file", "c"));
        Told { cell, past, a, b, gone, c }
    }

    impl Told {
        /// What a read of `/file` or `/` gave at a revision.
        fn answer(&self, operation: &Operation, path: &str, revision: Revision) -> (u64, outcome::Result) {
            let state = self.past.at(revision).unwrap();
            let instance = super::super::history::stat(state, path).unwrap().instance;
            let answer = outcome::Result::Closed(wire::Closed {});
            let answer = answer_of(state, &Read { path, instance, operation, answer: &answer }).unwrap();
            (instance, answer)
        }

        fn cached(&self, operation: &Operation, path: &str, of: Revision, floor: Revision) -> bool {
            let (instance, answer) = self.answer(operation, path, of);
            let read = Read { path, instance, operation, answer: &without_locks(answer) };
            check_cached(&self.past, &read, floor).is_ok()
        }
    }

    fn contents() -> Operation {
        Operation::GetContents(wire::GetContents { handle: 1 })
    }

    #[test]
    fn a_cached_answer_is_right_as_long_as_nobody_knows_better() {
        let told = told();
        assert!(told.cached(&contents(), "/file", told.a, told.a));
        assert!(told.cached(&contents(), "/file", told.b, told.a), "it may be newer");
        assert!(!told.cached(&contents(), "/file", told.a, told.b), "somebody knew the new contents");
        assert!(
            !told.cached(&contents(), "/file", told.b, told.gone),
            "somebody knew that the file was gone"
        );
        assert!(!told.cached(&contents(), "/file", told.b, told.c), "and another was there");
    }

    #[test]
    fn metadata_and_lists_are_judged_like_contents() {
        let told = told();
        let (stat, list) =
            (Operation::GetStat(wire::GetStat::default()), Operation::ReadDir(wire::ReadDir::default()));
        assert!(told.cached(&stat, "/file", told.a, told.a));
        assert!(!told.cached(&stat, "/file", told.a, told.b));
        assert!(told.cached(&list, "/", told.b, told.b));
        assert!(!told.cached(&list, "/", told.b, told.gone));
        assert!(!told.cached(&list, "/", told.gone, told.c));
    }

    #[test]
    fn an_answer_that_names_its_revision_is_of_that_one() {
        let told = told();
        let (instance, answer) = told.answer(&contents(), "/file", told.a);
        let read = Read { path: "/file", instance, operation: &contents(), answer: &answer };
        assert!(check_at(&told.past, &read, told.a).is_ok());
        assert!(check_at(&told.past, &read, told.b).is_err());
    }

    #[test]
    fn that_a_node_is_there_or_not_is_judged_too() {
        let told = told();
        let session = told.cell.session;
        let open = Open { path: "/file".to_owned(), caching: true, ..Open::default() };
        let right = |answer, floor| {
            check_opening(&told.past, &Opening { session, open: &open, answer }, floor).is_ok()
        };
        let (old, new) = (told.a.0, told.c.0);
        assert!(right(Ok(old), told.a));
        assert!(!right(Ok(old), told.gone));
        assert!(right(Err(RefusalCode::NotFound), told.b));
        assert!(!right(Err(RefusalCode::NotFound), told.c));
        assert!(right(Ok(new), told.c));
        let creating = Open { creation: Creation::Must.into(), ..open.clone() };
        let opening = Opening { session, open: &creating, answer: Err(RefusalCode::AlreadyExists) };
        assert!(check_opening(&told.past, &opening, told.c).is_ok());
    }
}
