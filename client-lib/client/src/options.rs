//! How a node is to be opened, or written by its name.

use crate::call::Opening;
use crate::events::{EventKind, EventSet};
use crate::values::{AclNames, NodeKind, Uses};
use bytes::Bytes;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, Creation};
use std::time::Duration;

/// How a node is to be opened. By default it must exist, may be a file or a directory, and
/// what is read of it is cached.
#[derive(Clone, Debug)]
#[must_use = "options do nothing until they are given to `Session::open` or `Handle::open`"]
pub struct OpenOptions {
    creation: Creation,
    kind: Option<NodeKind>,
    ephemeral: bool,
    contents: Bytes,
    /// `None`: what the cell's clients have by default.
    lock_delay: Option<Duration>,
    uses: Uses,
    events: EventSet,
    caching: bool,
    acl: Option<AclNames>,
    keep_lock: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            creation: Creation::Unspecified,
            kind: None,
            ephemeral: false,
            contents: Bytes::new(),
            lock_delay: None,
            uses: Uses::default(),
            events: EventSet::new(),
            caching: true,
            acl: None,
            keep_lock: false,
        }
    }
}

impl OpenOptions {
    /// The node must exist.
    pub fn new() -> Self {
        Self::default()
    }

    /// Create the node if it does not exist. Its parent must exist.
    pub fn create(mut self) -> Self {
        self.creation = Creation::May;
        self
    }

    /// Create the node; it must not exist yet.
    pub fn create_new(mut self) -> Self {
        self.creation = Creation::Must;
        self
    }

    /// The node is a directory: it must be one, or is created as one.
    pub fn directory(mut self) -> Self {
        self.kind = Some(NodeKind::Directory);
        self
    }

    /// The node is a file: it must be one. What is created is a file unless [`OpenOptions::directory`] is
    /// called.
    pub fn file(mut self) -> Self {
        self.kind = Some(NodeKind::File);
        self
    }

    /// If the node is created: it goes when no session has it open any more (a directory: and it is empty), and no
    /// lock-delay runs on it. For locks that are named after jobs, so that no files are left of them: who holds such a lock,
    /// or waits for it, has the file open, and who comes after it is gone creates another.
    pub fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }

    /// If a file is created: its first contents. None by default.
    pub fn contents(mut self, contents: impl Into<Bytes>) -> Self {
        self.contents = contents.into();
        self
    }

    /// How long nobody may take the lock in a conflicting mode after this handle has lost it (its session
    /// expired), not after a release. 15 s by default ([`LOCK_DELAY_DEFAULT`](crate::LOCK_DELAY_DEFAULT)), as of
    /// `holdfast lock`; at most 60 s; whole milliseconds count.
    ///
    /// It protects resources that do not check sequencers: from orders that are still on their way when the lock is lost,
    /// and from what the holder has started and cannot stop at once. It is also how much longer a holder that dies keeps
    /// others out, beyond its lease. Where every resource checks sequencers, 0 is right.
    pub fn lock_delay(mut self, lock_delay: Duration) -> Self {
        self.lock_delay = Some(lock_delay);
        self
    }

    /// The handle is for reading alone: needs no write permission, and several of them can share one at the cell.
    pub fn read_only(self) -> Self {
        self.uses(Uses::READ)
    }

    /// What the handle may be used for: by default reading and writing, [`Uses::READ_WRITE`]. Checked against the
    /// node's access control lists now, and on every call.
    pub fn uses(mut self, uses: Uses) -> Self {
        self.uses = uses;
        self
    }

    /// What [`Handle::events`](crate::Handle::events) tells; nothing by default. Several calls add up. Whoever asks for
    /// any kind is also told [`EventKind::HandleInvalid`], because nothing else will ever happen afterwards.
    pub fn events(mut self, kinds: impl Into<EventSet>) -> Self {
        self.events = kinds.into().iter().fold(self.events, EventSet::with);
        self
    }

    /// Whether what is read through the handle may be kept and read again without asking the cell; true by default.
    /// A cached read is as good as one at the master: every write of the node waits until this client has dropped
    /// what it kept, or its lease has run out. So switch it off for what is written about as often as it is read.
    pub fn caching(mut self, caching: bool) -> Self {
        self.caching = caching;
        self
    }

    /// If the node is created: the names of its access control lists. What is empty is inherited from the parent, as
    /// all are by default.
    pub fn acl(mut self, acl: AclNames) -> Self {
        self.acl = Some(acl);
        self
    }

    /// Keep an exclusive lock that is released, until somebody else asks for it: taking it again then costs no
    /// message. False by default. To the cell, and to everybody else, the lock is held all the while: one who wants
    /// it has it a message later than otherwise, `try_acquire` fails elsewhere the first time, and only this session
    /// can delete the node.
    pub fn keep_lock(mut self, keep_lock: bool) -> Self {
        self.keep_lock = keep_lock;
        self
    }

    /// What the cell is asked, and what this end has to know. `directory` is what `path` is relative to; 0 if it is
    /// not. `lock_delay` is for handles that ask for no other.
    pub(crate) fn request(self, path: &str, directory: u64, lock_delay: Duration) -> (Operation, Opening) {
        // Only who may write may take the lock. All others can share what is open, with whatever delay.
        let may_lock = self.uses == Uses::default() || self.uses.write;
        let lock_delay = self.lock_delay.unwrap_or(if may_lock { lock_delay } else { Duration::ZERO });
        let kind = self.kind.map_or(wire::NodeKind::Unspecified, wire::NodeKind::from);
        // Only the cell can say when a kept lock is wanted.
        let told = if self.keep_lock { self.events.with(EventKind::ConflictingRequest) } else { self.events };
        let open = wire::Open {
            path: path.to_owned(),
            creation: self.creation.into(),
            kind: kind.into(),
            ephemeral: self.ephemeral,
            contents: self.contents,
            // Too long a delay is refused by the cell, with a message that names its limit.
            lock_delay_ms: u32::try_from(lock_delay.as_millis()).unwrap_or(u32::MAX),
            directory,
            uses: (self.uses != Uses::default()).then(|| self.uses.into()),
            events: told.to_wire(),
            caching: self.caching,
            acl: self.acl.map(wire::AclNames::from),
        };
        // Nothing was asked for: nothing is told.
        let events =
            if self.events.is_empty() { self.events } else { self.events.with(EventKind::HandleInvalid) };
        (Operation::Open(Box::new(open)), Opening { events, keep_lock: self.keep_lock })
    }
}

/// On what conditions [`Cell::set_contents`](crate::Cell::set_contents) writes. By default: whatever is there, but something must be.
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until they are given to `Cell::set_contents`"]
pub struct WriteOptions {
    pub(crate) if_generation: Option<u64>,
    pub(crate) create: bool,
    pub(crate) kind: Option<NodeKind>,
}

impl WriteOptions {
    /// The file must exist.
    pub fn new() -> Self {
        Self::default()
    }

    /// Write only if this is still the file's content generation. 0: the file must not exist yet, and is
    /// created.
    pub fn if_generation(mut self, generation: u64) -> Self {
        self.if_generation = Some(generation);
        self
    }

    /// Create the file, permanent, if it does not exist.
    pub fn create(mut self) -> Self {
        self.create = true;
        self
    }

    /// What to create: a file by default. A directory takes no contents, and implies `if_generation(0)`.
    pub fn kind(mut self, kind: NodeKind) -> Self {
        self.kind = Some(kind);
        if kind == NodeKind::Directory {
            self.if_generation = Some(0);
        }
        self
    }
}
