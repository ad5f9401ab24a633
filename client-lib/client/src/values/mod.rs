//! What the cell tells about nodes, in this library's own types.
//!
//! The invariant: nothing here refers to the wire; the conversions are in `wire`, and nowhere else.

mod wire;

pub(crate) use wire::{mode_to_wire, no_stat};

use crate::events::EventSet;
use bytes::Bytes;
use holdfast_types::Mode;
use std::sync::Arc;
use std::time::Duration;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// Has contents and no children.
    File,
    /// Has children and no contents.
    Directory,
}

/// A node's metadata (P§2.3), less the state of its lock. Every generation is the cell's revision at which the thing
/// it counts last changed, so each only rises.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// File or directory.
    pub kind: NodeKind,
    /// Goes when nobody has it open any more.
    pub ephemeral: bool,
    /// Greater than that of any earlier node of the same name.
    pub instance: u64,
    /// When the contents last changed; 0 for a directory.
    pub content_generation: u64,
    /// When the names of the access control lists last changed.
    pub acl_generation: u64,
    /// When a child was last added, removed or written; 0 for a file.
    pub children_generation: u64,
    /// The contents' length in bytes.
    pub length: u64,
    /// XXH3 of the contents, 64 bits.
    pub checksum: u64,
    /// How many children the directory has.
    pub children: u64,
    /// Who may read, write, and change who may.
    pub acl: AclNames,
}

/// How a node's lock fares, and who has the node open. Never cached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockStat {
    /// When the lock last went from free to held; 0 if never. The fencing token.
    pub generation: u64,
    /// How it is held; `None` if it is free.
    pub mode: Option<Mode>,
    /// Who holds it; at most 16 of them.
    pub holders: Vec<LockHolder>,
    /// How many hold it.
    pub holder_count: u64,
    /// How many wait for it.
    pub waiting: u64,
    /// How many lock-delays run on it.
    pub delayed: u64,
    /// How many handles are open on the node, in all sessions.
    pub open_handles: u64,
}

/// All that the cell tells about a node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeStat {
    /// Its metadata.
    pub stat: Stat,
    /// Its lock, at the same moment.
    pub lock: LockStat,
}

/// The names of a node's access control lists: files in the cell's directory `/acl`, or `*` for everyone. Cheap to
/// clone.
///
/// In a [`Stat`] all three are there. In a request, what is empty stays as it is, or is inherited from the parent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AclNames {
    /// Who may read.
    pub read: Arc<str>,
    /// Who may write, create children, delete, and take the lock.
    pub write: Arc<str>,
    /// Who may change these names.
    pub change: Arc<str>,
}

impl AclNames {
    /// Three empty names.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this list for reading.
    #[must_use]
    pub fn read(self, name: impl Into<Arc<str>>) -> Self {
        Self { read: name.into(), ..self }
    }

    /// With this list for writing, and for the lock.
    #[must_use]
    pub fn write(self, name: impl Into<Arc<str>>) -> Self {
        Self { write: name.into(), ..self }
    }

    /// With this list for changing the names.
    #[must_use]
    pub fn change(self, name: impl Into<Arc<str>>) -> Self {
        Self { change: name.into(), ..self }
    }
}

/// What a handle may be used for: checked against the node's access control lists when it is opened, and on every call
/// through it. By default reading and writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Uses {
    /// Contents, metadata and children.
    pub read: bool,
    /// Writing, deleting, and the lock in both modes.
    pub write: bool,
    /// Changing the names of the access control lists.
    pub change_acl: bool,
}

impl Uses {
    /// Reading alone.
    pub const READ: Self = Self { read: true, write: false, change_acl: false };
    /// Reading, writing, and the lock.
    pub const READ_WRITE: Self = Self { read: true, write: true, change_acl: false };
    /// Everything.
    pub const ALL: Self = Self { read: true, write: true, change_acl: true };
}

impl Default for Uses {
    fn default() -> Self {
        Self::READ_WRITE
    }
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockHolder {
    /// The session's id.
    pub session: u64,
    /// What the client calls itself.
    pub client: String,
}

/// A file, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Contents {
    /// Its contents.
    pub bytes: Bytes,
    /// Its metadata at the same revision.
    pub stat: Stat,
}

/// A child of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its name within the directory.
    pub name: String,
    /// Its metadata.
    pub stat: Stat,
    /// Its lock. `None` if it was read through a handle, whose answers may be cached.
    pub lock: Option<LockStat>,
}

/// Children of a directory, in the order of their names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirPage {
    /// The directory's own metadata.
    pub stat: Stat,
    /// The children.
    pub entries: Vec<Entry>,
    /// More children follow the last of these.
    pub more: bool,
}

/// An open handle, as operators see it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HandleInfo {
    /// The session's id.
    pub session: u64,
    /// The handle's id within its session.
    pub handle: u64,
    /// What the client calls itself.
    pub client: String,
    /// The node's path in the cell.
    pub path: String,
    /// The node's instance.
    pub instance: u64,
    /// The node was deleted.
    pub gone: bool,
    /// What the handle may be used for.
    pub uses: Uses,
    /// What is told through it.
    pub events: EventSet,
    /// Its client may cache through it.
    pub caching: bool,
    /// Its lock-delay.
    pub lock_delay: Duration,
    /// How it holds the lock, if it does.
    pub holds: Option<Mode>,
    /// How it waits for the lock, if it does.
    pub waits: Option<Mode>,
    /// The sequencer that its calls depend on, as text.
    pub sequencer: Option<String>,
}

/// What a write by name did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Written {
    /// The file's content generation now: what a next conditional write names.
    pub content_generation: u64,
    /// Whether the write created the file.
    pub created: bool,
}

/// Whether a sequencer is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a sequencer that is not looked at protects nothing"]
pub enum SequencerCheck {
    /// The lock is held, as the sequencer says.
    Valid,
    /// It is not; the reason is for people.
    Invalid(String),
}

impl SequencerCheck {
    pub(crate) fn new(valid: bool, reason: String) -> Self {
        if valid { Self::Valid } else { Self::Invalid(reason) }
    }

    /// Whether the lock is held, as the sequencer says.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        *self == Self::Valid
    }
}
