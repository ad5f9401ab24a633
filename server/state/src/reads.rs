//! Reads: by handle for sessions, by name for everybody else.
//!
//! They change nothing and are not replicated. The master answers them after a leadership round that began after
//! they arrived, which is what makes them linearizable; nothing of that is known here.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    Contents, Directory, DirectoryEntry, LockHolder, LockMode, LockStat, NodeKind, Outcome, Refusal, Stat,
    outcome,
};
use holdfast_types::{HandleId, NodePath, Principal, SessionId};
use prost::Message;

use crate::acl::Permission;
use crate::lock::Holder;
use crate::locking::wire_mode;
use crate::node::{Kind, Node};
use crate::{State, refusal};

/// The most holders of a lock that a stat lists.
const HOLDERS_MAX: usize = 16;
/// The most children of a page.
const PAGE_ENTRIES_MAX: usize = 1000;
/// A page ends after the child that brings it over this, so that a reply stays well below what gRPC takes.
const PAGE_BYTES_MAX: usize = 1024 * 1024;

impl State {
    /// Answers a session's read. Anything but a read is refused.
    #[must_use]
    pub fn read(&self, session: SessionId, operation: &Operation) -> Outcome {
        let result = match self.sessions.get(session) {
            None => Err(refusal::unknown_session(session)),
            Some(_) => self.read_by_handle(session, operation),
        };
        self.outcome(result.unwrap_or_else(outcome::Result::Refusal))
    }

    /// Reads a file by name.
    ///
    /// # Errors
    ///
    /// A bad path, no such node, one that the principal may not read, or a directory.
    pub fn read_contents(&self, principal: &Principal, path: &str) -> Result<Contents, Refusal> {
        let path = self.parse_path(path)?;
        self.contents(&path, self.readable(principal, &path)?)
    }

    /// Reads a node's metadata by name.
    ///
    /// # Errors
    ///
    /// A bad path, no such node, or one that the principal may not read.
    pub fn read_stat(&self, principal: &Principal, path: &str) -> Result<Stat, Refusal> {
        let path = self.parse_path(path)?;
        Ok(self.stat(self.readable(principal, &path)?))
    }

    /// Reads a page of a directory's children by name: those after `after`, at most `limit`; 0 for the most.
    ///
    /// # Errors
    ///
    /// A bad path, no such node, one that the principal may not read, or a file.
    pub fn read_dir(
        &self,
        principal: &Principal,
        path: &str,
        after: &str,
        limit: u32,
    ) -> Result<Directory, Refusal> {
        let path = self.parse_path(path)?;
        self.directory(&path, self.readable(principal, &path)?, after, limit)
    }

    /// A node's metadata.
    pub(crate) fn stat(&self, node: &Node) -> Stat {
        let lock = &node.lock;
        let holders = lock.holders().take(HOLDERS_MAX).map(|holder| LockHolder {
            session: holder.session.0,
            client: self
                .sessions
                .get(holder.session)
                .map_or_else(String::new, |session| session.client().into()),
        });
        let lock_stat = LockStat {
            mode: lock.mode().map_or(LockMode::Unspecified, wire_mode).into(),
            holders: holders.collect(),
            holder_count: lock.holder_count(),
            waiting: lock.waiter_count(),
            delayed: lock.delay_count(),
        };
        Stat {
            kind: NodeKind::from(node.kind).into(),
            ephemeral: node.ephemeral,
            instance: node.instance.0,
            content_generation: node.content_generation.0,
            lock_generation: lock.generation().0,
            acl_generation: node.acl_generation.0,
            children_generation: node.children_generation.0,
            length: node.contents.len() as u64,
            checksum: node.checksum,
            children: node.children,
            open_handles: node.open_handles,
            lock: Some(lock_stat),
            acl: Some((*node.acl).clone()),
        }
    }

    fn read_by_handle(&self, session: SessionId, operation: &Operation) -> Result<outcome::Result, Refusal> {
        let node = |handle| {
            let holder = Holder { session, handle: HandleId(handle) };
            let path = self.usable_handle(holder, Permission::Read)?.key.path();
            Ok((path, self.tree.get(path).expect("a usable handle has its node")))
        };
        match operation {
            Operation::GetContents(read) => {
                let (path, node) = node(read.handle)?;
                self.contents(path, node).map(|contents| outcome::Result::Contents(Box::new(contents)))
            }
            Operation::GetStat(read) => {
                let (_, node) = node(read.handle)?;
                Ok(outcome::Result::Stat(Box::new(self.stat(node))))
            }
            Operation::ReadDir(read) => {
                let (path, node) = node(read.handle)?;
                let directory = self.directory(path, node, &read.after, read.limit)?;
                Ok(outcome::Result::Directory(Box::new(directory)))
            }
            Operation::GetSequencer(read) => {
                self.sequencer_of(session, HandleId(read.handle)).map(outcome::Result::Sequencer)
            }
            Operation::CheckSequencer(check) => {
                self.sequencer_checked(session, &check.sequencer).map(outcome::Result::SequencerChecked)
            }
            _ => Err(refusal::protocol("the request is no read")),
        }
    }

    /// A node that a principal may read.
    fn readable(&self, principal: &Principal, path: &NodePath) -> Result<&Node, Refusal> {
        self.permitted(principal, path, Permission::Read)
    }

    fn contents(&self, path: &NodePath, node: &Node) -> Result<Contents, Refusal> {
        check_kind(path, node, Kind::File)?;
        Ok(Contents { stat: Some(self.stat(node)), contents: node.contents.clone() })
    }

    fn directory(&self, path: &NodePath, node: &Node, after: &str, limit: u32) -> Result<Directory, Refusal> {
        check_kind(path, node, Kind::Directory)?;
        let entries_max = if limit == 0 { PAGE_ENTRIES_MAX } else { PAGE_ENTRIES_MAX.min(limit as usize) };
        let mut children = self.tree.children(path, after).peekable();
        let (mut entries, mut bytes) = (Vec::new(), 0);
        while entries.len() < entries_max && bytes < PAGE_BYTES_MAX {
            let Some((name, child)) = children.next() else { break };
            let entry = DirectoryEntry { name: name.to_owned(), stat: Some(self.stat(child)) };
            bytes += entry.encoded_len();
            entries.push(entry);
        }
        Ok(Directory { stat: Some(self.stat(node)), entries, more: children.peek().is_some() })
    }
}

fn check_kind(path: &NodePath, node: &Node, needed: Kind) -> Result<(), Refusal> {
    if node.kind == needed { Ok(()) } else { Err(refusal::wrong_kind(path, node.kind.name(), needed.name())) }
}
