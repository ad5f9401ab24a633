//! What the cell tells about nodes, in this library's own types.
//!
//! Conversions from the wire live here and nowhere else.

use crate::error::Error;
use crate::events::{EventKind, EventSet};
use bytes::Bytes;
use holdfast_proto::client::v1 as wire;
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

impl Stat {
    /// Reads a stat whose names of access control lists are known already.
    pub(crate) fn from_wire(stat: &wire::Stat, acl: AclNames) -> Result<Self, Error> {
        let kind = match stat.kind() {
            wire::NodeKind::File => NodeKind::File,
            wire::NodeKind::Directory => NodeKind::Directory,
            wire::NodeKind::Unspecified => return Err(Error::protocol("a stat without a kind")),
        };
        Ok(Self {
            kind,
            ephemeral: stat.ephemeral,
            instance: stat.instance,
            content_generation: stat.content_generation,
            acl_generation: stat.acl_generation,
            children_generation: stat.children_generation,
            length: stat.length,
            checksum: stat.checksum,
            children: stat.children,
            acl,
        })
    }
}

impl NodeStat {
    /// A stat that has to be there.
    pub(crate) fn from_wire(stat: Option<wire::Stat>) -> Result<Self, Error> {
        let stat = stat.ok_or_else(no_stat)?;
        Ok(Self { stat: Stat::from_wire(&stat, AclNames::from_wire(stat.acl.as_ref()))?, lock: stat.into() })
    }
}

impl AclNames {
    pub(crate) fn from_wire(acl: Option<&wire::AclNames>) -> Self {
        acl.map_or_else(Self::default, |acl| Self {
            read: acl.read.as_str().into(),
            write: acl.write.as_str().into(),
            change: acl.change.as_str().into(),
        })
    }

    fn is(&self, acl: Option<&wire::AclNames>) -> bool {
        acl.is_some_and(|acl| {
            *self.read == acl.read && *self.write == acl.write && *self.change == acl.change
        })
    }
}

impl From<AclNames> for wire::AclNames {
    fn from(acl: AclNames) -> Self {
        Self { read: acl.read.to_string(), write: acl.write.to_string(), change: acl.change.to_string() }
    }
}

impl From<Uses> for wire::Uses {
    fn from(Uses { read, write, change_acl }: Uses) -> Self {
        Self { read, write, change_acl }
    }
}

impl From<wire::Stat> for LockStat {
    fn from(stat: wire::Stat) -> Self {
        let lock = stat.lock.unwrap_or_default();
        Self {
            generation: stat.lock_generation,
            mode: mode_from_wire(lock.mode()),
            holders: lock
                .holders
                .into_iter()
                .map(|holder| LockHolder { session: holder.session, client: holder.client })
                .collect(),
            holder_count: lock.holder_count,
            waiting: lock.waiting,
            delayed: lock.delayed,
            open_handles: stat.open_handles,
        }
    }
}

impl TryFrom<wire::Contents> for Contents {
    type Error = Error;

    fn try_from(contents: wire::Contents) -> Result<Self, Error> {
        Ok(Self { stat: NodeStat::from_wire(contents.stat)?.stat, bytes: contents.contents })
    }
}

impl DirPage {
    /// With the locks of the children, as of the same moment.
    pub(crate) fn with_locks(page: wire::Directory) -> Result<Self, Error> {
        let mut with_locks = Self::from_wire(&page)?;
        for (entry, told) in with_locks.entries.iter_mut().zip(page.entries) {
            entry.lock = told.stat.map(LockStat::from);
        }
        Ok(with_locks)
    }

    pub(crate) fn from_wire(page: &wire::Directory) -> Result<Self, Error> {
        let stat = page.stat.as_ref().ok_or_else(no_stat)?;
        // Most children have the names that they inherited: those are kept once.
        let mut acl = AclNames::from_wire(stat.acl.as_ref());
        let stat = Stat::from_wire(stat, acl.clone())?;
        let mut entries = Vec::with_capacity(page.entries.len());
        for entry in &page.entries {
            let stat = entry.stat.as_ref().ok_or_else(no_stat)?;
            if !acl.is(stat.acl.as_ref()) {
                acl = AclNames::from_wire(stat.acl.as_ref());
            }
            let stat = Stat::from_wire(stat, acl.clone())?;
            entries.push(Entry { name: entry.name.clone(), stat, lock: None });
        }
        Ok(Self { stat, entries, more: page.more })
    }
}

impl From<wire::HandleInfo> for HandleInfo {
    fn from(info: wire::HandleInfo) -> Self {
        let uses = info.uses.unwrap_or_default();
        Self {
            session: info.session,
            handle: info.handle,
            uses: Uses { read: uses.read, write: uses.write, change_acl: uses.change_acl },
            events: info.events().filter_map(EventKind::from_wire).collect(),
            holds: mode_from_wire(info.holds()),
            waits: mode_from_wire(info.waits()),
            client: info.client,
            path: info.path,
            instance: info.instance,
            gone: info.gone,
            caching: info.caching,
            lock_delay: Duration::from_millis(info.lock_delay_ms.into()),
            sequencer: Some(info.sequencer).filter(|text| !text.is_empty()),
        }
    }
}

impl From<NodeKind> for wire::NodeKind {
    fn from(kind: NodeKind) -> Self {
        match kind {
            NodeKind::File => Self::File,
            NodeKind::Directory => Self::Directory,
        }
    }
}

pub(crate) fn no_stat() -> Error {
    Error::protocol("an answer without a stat")
}

/// `None` for a free lock.
pub(crate) fn mode_from_wire(mode: wire::LockMode) -> Option<Mode> {
    match mode {
        wire::LockMode::Exclusive => Some(Mode::Exclusive),
        wire::LockMode::Shared => Some(Mode::Shared),
        wire::LockMode::Unspecified => None,
    }
}

/// The mode as requests say it.
pub(crate) fn mode_to_wire(mode: Mode) -> wire::LockMode {
    match mode {
        Mode::Exclusive => wire::LockMode::Exclusive,
        Mode::Shared => wire::LockMode::Shared,
    }
}
