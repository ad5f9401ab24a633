//! The words for what can happen to a node: on the command line, in lines, and in JSON the same.

use clap::ValueEnum;
use holdfast::{EventKind, EventSet};

/// What can be watched for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Topic {
    /// The file was written
    Contents,
    /// Children were added, removed, or written: these three together
    Children,
    /// A child was added
    Added,
    /// A child was removed
    Removed,
    /// A child was written
    Modified,
    /// The names of the access control lists changed
    Acl,
    /// The lock went from free to held
    Lock,
    /// All of these
    All,
}

impl Topic {
    /// What the cell calls it.
    fn kinds(self) -> &'static [EventKind] {
        use EventKind::{
            AclChanged, ChildAdded, ChildModified, ChildRemoved, ContentsModified, LockAcquired,
        };
        match self {
            Self::Contents => &[ContentsModified],
            Self::Children => &[ChildAdded, ChildRemoved, ChildModified],
            Self::Added => &[ChildAdded],
            Self::Removed => &[ChildRemoved],
            Self::Modified => &[ChildModified],
            Self::Acl => &[AclChanged],
            Self::Lock => &[LockAcquired],
            Self::All => {
                &[ContentsModified, ChildAdded, ChildRemoved, ChildModified, AclChanged, LockAcquired]
            }
        }
    }
}

/// What to ask the cell for: the topics, and that the node is deleted, which ends every watch.
pub(super) fn wanted(topics: &[Topic]) -> EventSet {
    let kinds = topics.iter().flat_map(|topic| topic.kinds());
    kinds.copied().chain([EventKind::HandleInvalid]).collect()
}

/// What a kind of event is called.
pub(crate) fn kind_name(kind: EventKind) -> &'static str {
    match kind {
        EventKind::ContentsModified => "contents",
        EventKind::ChildAdded => "added",
        EventKind::ChildRemoved => "removed",
        EventKind::ChildModified => "modified",
        EventKind::AclChanged => "acl",
        EventKind::HandleInvalid => "deleted",
        EventKind::LockAcquired => "lock",
        EventKind::ConflictingRequest => "asked",
        // Of a later version.
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_watch_hears_of_the_deletion() {
        let names = |topics: &[Topic]| wanted(topics).iter().map(kind_name).collect::<Vec<_>>();
        assert_eq!(names(&[Topic::Added, Topic::Children]), ["added", "removed", "modified", "deleted"]);
        assert_eq!(names(&[Topic::Contents, Topic::Lock]), ["contents", "deleted", "lock"]);
        // A watcher holds no lock that anybody could want.
        let all = EventKind::ALL.into_iter().filter(|kind| *kind != EventKind::ConflictingRequest);
        assert_eq!(wanted(&[Topic::All]), all.collect());
    }
}
