//! Writes and deletions by name, which need no session.
//!
//! They are not exactly-once: a caller that lost the reply can make a retry safe only by naming a generation or
//! an instance. The rules for what may be written or deleted are those of `requests`.

use holdfast_proto::client::v1::{DeleteRequest, Deleted, Refusal, SetContentsRequest, Written};
use holdfast_types::{NodePath, Revision};

use crate::node::{Kind, Node};
use crate::requests::wished_kind;
use crate::tree::NodeKey;
use crate::{Effect, State, refusal};

impl State {
    /// Writes a file, or creates it, or creates a directory.
    pub(crate) fn set_contents_by_name(&mut self, write: &SetContentsRequest) -> Result<Written, Refusal> {
        let kind = wished_kind(write.kind)?.unwrap_or(Kind::File);
        if kind == Kind::Directory && (!write.contents.is_empty() || write.if_generation != Some(0)) {
            return Err(refusal::invalid("a directory is created without contents, and at if_generation 0"));
        }
        let path = self.parse_path(&write.path)?;
        let exists = self.tree.get(&path).is_some();
        match write.if_generation {
            Some(0) if exists => Err(refusal::already_exists(&path)),
            Some(0) => self.create(path, kind, &write.contents),
            None if write.create && !exists => self.create(path, kind, &write.contents),
            _ if !exists => Err(self.missing(&path)),
            wanted => self.write(&NodeKey::new(path), &write.contents, wanted),
        }
    }

    /// Deletes a node.
    pub(crate) fn delete_by_name(
        &mut self,
        delete: &DeleteRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<Deleted, Refusal> {
        let path = self.parse_path(&delete.path)?;
        let instance = self.tree.get(&path).map(|node| node.instance).ok_or_else(|| self.missing(&path))?;
        if let Some(wanted) = delete.if_instance.filter(|wanted| *wanted != instance.0) {
            return Err(refusal::generation_mismatch(&path, "instance", wanted, instance));
        }
        let key = NodeKey::new(path);
        self.check_deletion(&key)?;
        self.remove_node(&key, effects);
        Ok(Deleted {})
    }

    /// Creates a permanent node where there is none.
    fn create(&mut self, path: NodePath, kind: Kind, contents: &[u8]) -> Result<Written, Refusal> {
        self.check_creation(&path, contents.len())?;
        let revision = self.advance();
        let node = match kind {
            Kind::File => Node::file(revision, false, contents),
            Kind::Directory => Node::directory(revision, false),
        };
        let Revision(content_generation) = node.content_generation;
        self.tree.insert(NodeKey::new(path), node);
        Ok(Written { content_generation, created: true })
    }
}
