//! What a refusal says beyond its code and its message: the generation that the node has, what the lock is like, which
//! limit was met.
//!
//! Facts are hints for programs and never a promise: a cell of an older version sends none, and the node may have changed
//! since. Nothing here decides whether to try again; [`Error::is_retryable`](crate::Error::is_retryable) does.

use holdfast_proto::client::RefusalMeaning;
use holdfast_proto::client::v1 as wire;
use holdfast_proto::client::v1::refusal::Facts;
use holdfast_types::Mode;

/// What a refusal tells a program beyond its code.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RefusalFacts {
    /// With `GENERATION_MISMATCH`.
    #[non_exhaustive]
    GenerationMismatch {
        /// Which of the node's generations it is.
        kind: GenerationKind,
        /// The generation that the call named.
        wanted: u64,
        /// The generation that the node had when the cell refused.
        present: u64,
    },
    /// With `LOCK_CONFLICT` and `LOCKED`: the lock as it was when the cell refused.
    #[non_exhaustive]
    LockConflict {
        /// How the lock was held; `None` if no handle held it: then its waiters come first, or a lock-delay runs.
        held: Option<Mode>,
        /// How many handles held it.
        holders: u64,
        /// How many requests waited for it.
        waiting: u64,
        /// How many lock-delays ran on it.
        delayed: u64,
    },
    /// With `LIMIT` and `OVERLOADED`.
    #[non_exhaustive]
    LimitExceeded {
        /// The name of the cell's setting, such as `contents_bytes_max`, or of a constant of the server.
        limit: String,
        /// The most that it allows.
        maximum: u64,
        /// What the call would have come to, if the server knows.
        wanted: Option<u64>,
    },
}

/// Which generation of a node a call named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GenerationKind {
    /// Of the contents: [`Stat::content_generation`](crate::Stat::content_generation).
    Content,
    /// Of the names of the access control lists: [`Stat::acl_generation`](crate::Stat::acl_generation).
    Acl,
    /// The instance: [`Stat::instance`](crate::Stat::instance).
    Instance,
}

impl RefusalFacts {
    /// The facts of a refusal. `None` if it has none, or some that this version of the library does not know.
    pub(crate) fn from_wire(facts: Option<Facts>) -> Option<Self> {
        match facts? {
            Facts::GenerationMismatch(mismatch) => {
                let kind = match mismatch.kind() {
                    wire::GenerationKind::Content => GenerationKind::Content,
                    wire::GenerationKind::Acl => GenerationKind::Acl,
                    wire::GenerationKind::Instance => GenerationKind::Instance,
                    wire::GenerationKind::Unspecified => return None,
                };
                let wire::GenerationMismatch { wanted, present, .. } = *mismatch;
                Some(Self::GenerationMismatch { kind, wanted, present })
            }
            Facts::LockConflict(conflict) => {
                let held = match conflict.held() {
                    wire::LockMode::Exclusive => Some(Mode::Exclusive),
                    wire::LockMode::Shared => Some(Mode::Shared),
                    wire::LockMode::Unspecified => None,
                };
                let wire::LockConflict { holders, waiting, delayed, .. } = *conflict;
                Some(Self::LockConflict { held, holders, waiting, delayed })
            }
            Facts::LimitExceeded(exceeded) => {
                let wire::LimitExceeded { limit, maximum, wanted } = *exceeded;
                Some(Self::LimitExceeded { limit, maximum, wanted: (wanted > 0).then_some(wanted) })
            }
        }
    }
}

/// Whether the same call may well succeed later, as it is.
pub(crate) fn is_retryable(code: wire::RefusalCode) -> bool {
    RefusalMeaning::of(code).retry
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_another_version_are_none_at_all() {
        assert_eq!(RefusalFacts::from_wire(None), None);
        let unknown = wire::GenerationMismatch { kind: 99, wanted: 1, present: 2 };
        assert_eq!(RefusalFacts::from_wire(Some(Facts::GenerationMismatch(Box::new(unknown)))), None);
    }

    #[test]
    fn a_limit_that_does_not_say_what_was_wanted_wants_nothing() {
        let limit = |wanted| {
            let exceeded = wire::LimitExceeded { limit: "nodes_max".to_owned(), maximum: 7, wanted };
            RefusalFacts::from_wire(Some(Facts::LimitExceeded(Box::new(exceeded))))
        };
        let facts =
            |wanted| RefusalFacts::LimitExceeded { limit: "nodes_max".to_owned(), maximum: 7, wanted };
        assert_eq!(limit(0), Some(facts(None)));
        assert_eq!(limit(8), Some(facts(Some(8))));
    }
}
