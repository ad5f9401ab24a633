//! A node: a file or a directory, with its generations, its contents and its lock.
//!
//! A value, without the tree around it. Invariant: every generation is a revision not greater than the cell's,
//! and none ever falls; the names of its access control lists are never empty.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::client::v1::{AclNames, NodeKind};
use holdfast_types::{Principal, Revision};
use xxhash_rust::xxh3::xxh3_64;

use imbl::OrdSet;

use crate::acl::AccessList;
use crate::lock::{Holder, Lock};
use crate::watchers::Watchers;

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Directory => "directory",
        }
    }
}

impl From<Kind> for NodeKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::File => Self::File,
            Kind::Directory => Self::Directory,
        }
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    /// Never changes.
    pub(crate) kind: Kind,
    /// Never changes. The root is not ephemeral.
    pub(crate) ephemeral: bool,
    /// The revision of the creation, so greater than that of any earlier node of the same name.
    pub(crate) instance: Revision,
    /// When the contents last changed; 0 for a directory.
    pub(crate) content_generation: Revision,
    /// When the access control names last changed: at first, the creation.
    pub(crate) acl_generation: Revision,
    /// When a child was last added, removed or written; 0 for a file.
    pub(crate) children_generation: Revision,
    /// Empty for a directory. Never a slice of a raft entry: a small file must not keep an entry alive.
    pub(crate) contents: Bytes,
    /// Of the contents; 0 for a directory.
    pub(crate) checksum: u64,
    /// How many nodes have this one as their parent; 0 for a file.
    pub(crate) children: u64,
    /// How many handles are open on this instance.
    pub(crate) open_handles: u64,
    /// The lock that every node is.
    pub(crate) lock: Lock,
    /// Who may do what with it. Shared with the parent where it was inherited.
    pub(crate) acl: Arc<AclNames>,
    /// The handles on this instance that asked for events: exactly those.
    pub(crate) watchers: Watchers,
    /// The handles on this instance through which clients may cache: exactly those.
    pub(crate) cachers: OrdSet<Holder>,
    /// Who created it; nobody is known of a node that is older than state version 2.
    pub(crate) owner: Option<Principal>,
    /// What the contents of an access control list say; `None` of every other node.
    pub(crate) list: Option<Arc<AccessList>>,
}

impl Node {
    /// A file, as it is at its creation. Copies the contents.
    pub(crate) fn file(instance: Revision, ephemeral: bool, acl: Arc<AclNames>, contents: &[u8]) -> Self {
        let mut file = Self::new(Kind::File, instance, ephemeral, acl);
        file.write(instance, contents);
        file
    }

    /// A directory, as it is at its creation.
    pub(crate) fn directory(instance: Revision, ephemeral: bool, acl: Arc<AclNames>) -> Self {
        Self { children_generation: instance, ..Self::new(Kind::Directory, instance, ephemeral, acl) }
    }

    fn new(kind: Kind, instance: Revision, ephemeral: bool, acl: Arc<AclNames>) -> Self {
        Self {
            kind,
            ephemeral,
            instance,
            content_generation: Revision(0),
            acl_generation: instance,
            children_generation: Revision(0),
            contents: Bytes::new(),
            checksum: 0,
            children: 0,
            open_handles: 0,
            lock: Lock::default(),
            acl,
            watchers: Watchers::default(),
            cachers: OrdSet::new(),
            owner: None,
            list: None,
        }
    }

    /// Replaces the contents of a file. Copies them.
    pub(crate) fn write(&mut self, revision: Revision, contents: &[u8]) {
        assert_eq!(self.kind, Kind::File, "only files have contents");
        self.content_generation = revision;
        self.checksum = xxh3_64(contents);
        self.contents = Bytes::copy_from_slice(contents);
    }

    /// Whether nothing keeps this ephemeral node any more. A lock-delay does: if the node went, one of the same
    /// name could be locked before the delay has passed (I4).
    pub(crate) fn is_orphan(&self) -> bool {
        self.ephemeral && self.open_handles == 0 && self.children == 0 && self.lock.is_at_rest()
    }
}
