//! What is told about nodes and sessions (P§2.5), and how several events become one.
//!
//! Owns the values and their merging; `streams` carries them to whoever reads. The invariant (I8): merging forgets
//! when and how often something happened, never that it did. Where it must forget which child it was, it says so.

use holdfast_proto::client::v1 as wire;
use holdfast_session::Ended;
use std::fmt;

/// An event lists so many children at the most.
const CHILDREN_MAX: usize = 64;

/// What can happen to a node that a handle is open on; chosen by [`OpenOptions::events`](crate::OpenOptions::events).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum EventKind {
    /// The file's contents were written.
    ContentsModified,
    /// A child was added to the directory.
    ChildAdded,
    /// A child was removed from the directory.
    ChildRemoved,
    /// The contents of a child of the directory were written.
    ChildModified,
    /// The names of the node's access control lists changed.
    AclChanged,
    /// The node was deleted: the handle is good for nothing but closing it. Told to whoever asks for any kind.
    HandleInvalid,
    /// The node's lock went from free to held.
    LockAcquired,
    /// This handle holds the lock, and somebody else has asked for it in a conflicting mode.
    ConflictingRequest,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::ContentsModified,
        Self::ChildAdded,
        Self::ChildRemoved,
        Self::ChildModified,
        Self::AclChanged,
        Self::HandleInvalid,
        Self::LockAcquired,
        Self::ConflictingRequest,
    ];

    /// `None` for a kind of a later version.
    pub(crate) fn from_wire(kind: wire::EventKind) -> Option<Self> {
        match kind {
            wire::EventKind::Unspecified => None,
            wire::EventKind::ContentsModified => Some(Self::ContentsModified),
            wire::EventKind::ChildAdded => Some(Self::ChildAdded),
            wire::EventKind::ChildRemoved => Some(Self::ChildRemoved),
            wire::EventKind::ChildModified => Some(Self::ChildModified),
            wire::EventKind::AclChanged => Some(Self::AclChanged),
            wire::EventKind::HandleInvalid => Some(Self::HandleInvalid),
            wire::EventKind::LockAcquired => Some(Self::LockAcquired),
            wire::EventKind::ConflictingRequest => Some(Self::ConflictingRequest),
        }
    }

    fn to_wire(self) -> wire::EventKind {
        match self {
            Self::ContentsModified => wire::EventKind::ContentsModified,
            Self::ChildAdded => wire::EventKind::ChildAdded,
            Self::ChildRemoved => wire::EventKind::ChildRemoved,
            Self::ChildModified => wire::EventKind::ChildModified,
            Self::AclChanged => wire::EventKind::AclChanged,
            Self::HandleInvalid => wire::EventKind::HandleInvalid,
            Self::LockAcquired => wire::EventKind::LockAcquired,
            Self::ConflictingRequest => wire::EventKind::ConflictingRequest,
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Kinds of events. Collected from them: `EventSet::from([EventKind::ChildAdded])`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EventSet(u8);

impl EventSet {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Every kind.
    #[must_use]
    pub fn all() -> Self {
        EventKind::ALL.into_iter().collect()
    }

    /// Whether this kind is among them.
    #[must_use]
    pub fn contains(self, kind: EventKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// With this kind too.
    #[must_use]
    pub fn with(self, kind: EventKind) -> Self {
        Self(self.0 | kind.bit())
    }

    /// The kinds, in the order of [`EventKind::ALL`].
    pub fn iter(self) -> impl Iterator<Item = EventKind> {
        EventKind::ALL.into_iter().filter(move |kind| self.contains(*kind))
    }

    pub(crate) fn to_wire(self) -> Vec<i32> {
        self.iter().map(|kind| kind.to_wire().into()).collect()
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<EventKind> for EventSet {
    fn from_iter<I: IntoIterator<Item = EventKind>>(kinds: I) -> Self {
        kinds.into_iter().fold(Self::new(), Self::with)
    }
}

impl<const N: usize> From<[EventKind; N]> for EventSet {
    fn from(kinds: [EventKind; N]) -> Self {
        kinds.into_iter().collect()
    }
}

impl From<EventKind> for EventSet {
    fn from(kind: EventKind) -> Self {
        Self::new().with(kind)
    }
}

impl fmt::Debug for EventSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// What happened to a node since the event before, or since its handle was opened. The generations are those after the
/// last change; see [`Stat`](crate::Stat).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandleEvent {
    /// What happened, of the kinds that were asked for.
    pub kinds: EventSet,
    /// Of the node's contents.
    pub content_generation: u64,
    /// Of the directory's children.
    pub children_generation: u64,
    /// Of the names of its access control lists.
    pub acl_generation: u64,
    /// Of its lock.
    pub lock_generation: u64,
    /// The children that were added, removed or written, each once; at most 64.
    pub children: Vec<ChildChange>,
    /// Other children changed too: read the directory.
    pub more_children: bool,
}

/// What happened to a child of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChildChange {
    /// Its name within the directory.
    pub name: String,
    /// `ChildAdded`, `ChildRemoved` or `ChildModified`: the last that happened to it.
    pub kind: EventKind,
}

impl HandleEvent {
    /// What of an event the application has asked for; `None` if nothing.
    pub(crate) fn from_wire(event: wire::HandleEvent, asked_for: EventSet) -> Option<Self> {
        let kinds: EventSet = event.kinds().filter_map(EventKind::from_wire).collect();
        let kinds = kinds.and(asked_for);
        if kinds.is_empty() {
            return None;
        }
        let mut told = Self {
            kinds,
            content_generation: event.content_generation,
            children_generation: event.children_generation,
            acl_generation: event.acl_generation,
            lock_generation: event.lock_generation,
            children: Vec::new(),
            more_children: event.more_children,
        };
        for child in event.children {
            let kind = EventKind::from_wire(child.kind()).filter(|kind| asked_for.contains(*kind));
            if let Some(kind) = kind {
                told.note_child(ChildChange { name: child.name, kind });
            }
        }
        Some(told)
    }

    /// Takes up a later event of the same handle.
    pub(crate) fn merge(&mut self, later: Self) {
        self.kinds = EventSet(self.kinds.0 | later.kinds.0);
        self.content_generation = self.content_generation.max(later.content_generation);
        self.children_generation = self.children_generation.max(later.children_generation);
        self.acl_generation = self.acl_generation.max(later.acl_generation);
        self.lock_generation = self.lock_generation.max(later.lock_generation);
        self.more_children |= later.more_children;
        later.children.into_iter().for_each(|child| self.note_child(child));
    }

    fn note_child(&mut self, change: ChildChange) {
        if let Some(known) = self.children.iter_mut().find(|known| known.name == change.name) {
            known.kind = change.kind;
        } else if self.children.len() < CHILDREN_MAX {
            self.children.push(change);
        } else {
            self.more_children = true;
        }
    }
}

/// What happens to a session (P§2.8).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SessionEvent {
    /// The lease has run out here: calls wait, locks count as not held, nothing is read from the cache.
    Jeopardy,
    /// The session lives after all.
    Safe,
    /// Another master serves the session. Nothing was lost; what changed meanwhile is told as events.
    FailedOver {
        /// The epoch of the new master.
        term: u64,
    },
    /// The session is over for ever. The last event.
    Ended(Ended),
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(kinds: EventSet, generation: u64, children: &[(&str, EventKind)]) -> HandleEvent {
        HandleEvent {
            kinds,
            content_generation: generation,
            children_generation: generation,
            acl_generation: 1,
            lock_generation: 0,
            children: children
                .iter()
                .map(|(name, kind)| ChildChange { name: (*name).to_owned(), kind: *kind })
                .collect(),
            more_children: false,
        }
    }

    #[test]
    fn only_what_was_asked_for_is_told() {
        let kinds = [wire::EventKind::ContentsModified, wire::EventKind::ConflictingRequest];
        let wire = wire::HandleEvent { kinds: kinds.map(i32::from).to_vec(), ..Default::default() };
        let told = HandleEvent::from_wire(wire.clone(), EventKind::ContentsModified.into()).unwrap();
        assert_eq!(told.kinds, EventKind::ContentsModified.into());
        assert_eq!(HandleEvent::from_wire(wire, EventKind::AclChanged.into()), None);
    }

    #[test]
    fn a_child_is_told_of_once_with_the_last_that_happened_to_it() {
        let mut first = event(
            EventKind::ChildAdded.into(),
            5,
            &[("a", EventKind::ChildAdded), ("b", EventKind::ChildAdded)],
        );
        first.merge(event(EventKind::ChildRemoved.into(), 7, &[("a", EventKind::ChildRemoved)]));
        assert_eq!(first.kinds, EventSet::from([EventKind::ChildAdded, EventKind::ChildRemoved]));
        assert_eq!(first.children_generation, 7);
        let children: Vec<_> = first.children.iter().map(|child| (child.name.as_str(), child.kind)).collect();
        assert_eq!(children, [("a", EventKind::ChildRemoved), ("b", EventKind::ChildAdded)]);
    }

    proptest! {
        /// I8, and bounded memory: however many events become one, every child is told of or admitted to be missing.
        #[test]
        fn merging_forgets_no_change_without_saying_so(names in prop::collection::vec(0_u32..200, 1..300)) {
            let mut merged = event(EventSet::new(), 0, &[]);
            for (generation, name) in names.iter().enumerate() {
                let name = name.to_string();
                let generation = generation as u64 + 1;
                merged.merge(event(EventKind::ChildModified.into(), generation, &[(&name, EventKind::ChildModified)]));
            }
            prop_assert_eq!(merged.children_generation, names.len() as u64);
            prop_assert!(merged.children.len() <= CHILDREN_MAX);
            let told = |name: &u32| merged.children.iter().any(|child| child.name == name.to_string());
            prop_assert!(merged.more_children || names.iter().all(told));
        }
    }
}
