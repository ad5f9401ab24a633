//! What the cell tells about nodes, in this library's own types.
//!
//! Conversions from the wire live here and nowhere else.

use crate::error::Error;
use bytes::Bytes;
use holdfast_proto::client::v1 as wire;
use holdfast_types::Mode;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NodeKind {
    /// Has contents and no children.
    File,
    /// Has children and no contents.
    Directory,
}

/// A node's metadata (P§2.3). Every generation is the cell's revision at which the thing it counts last changed,
/// so each only rises.
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
    /// When the lock last went from free to held; 0 if never.
    pub lock_generation: u64,
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
    /// How many handles are open on the node, in all sessions.
    pub open_handles: u64,
    /// The lock.
    pub lock: LockStat,
}

/// The state of a node's lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockStat {
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
    /// Whether the lock is held, as the sequencer says.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        *self == Self::Valid
    }
}

impl TryFrom<wire::Stat> for Stat {
    type Error = Error;

    fn try_from(stat: wire::Stat) -> Result<Self, Error> {
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
            lock_generation: stat.lock_generation,
            acl_generation: stat.acl_generation,
            children_generation: stat.children_generation,
            length: stat.length,
            checksum: stat.checksum,
            children: stat.children,
            open_handles: stat.open_handles,
            lock: stat.lock.map(LockStat::from).unwrap_or_default(),
        })
    }
}

impl From<wire::LockStat> for LockStat {
    fn from(lock: wire::LockStat) -> Self {
        Self {
            mode: mode_from_wire(lock.mode()),
            holders: lock
                .holders
                .into_iter()
                .map(|holder| LockHolder { session: holder.session, client: holder.client })
                .collect(),
            holder_count: lock.holder_count,
            waiting: lock.waiting,
            delayed: lock.delayed,
        }
    }
}

impl TryFrom<wire::Contents> for Contents {
    type Error = Error;

    fn try_from(contents: wire::Contents) -> Result<Self, Error> {
        Ok(Self { stat: stat(contents.stat)?, bytes: contents.contents })
    }
}

impl TryFrom<wire::DirectoryEntry> for Entry {
    type Error = Error;

    fn try_from(entry: wire::DirectoryEntry) -> Result<Self, Error> {
        Ok(Self { stat: stat(entry.stat)?, name: entry.name })
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

/// A stat that has to be there.
pub(crate) fn stat(stat: Option<wire::Stat>) -> Result<Stat, Error> {
    stat.ok_or_else(|| Error::protocol("an answer without a stat"))?.try_into()
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
