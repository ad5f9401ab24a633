//! Writes, deletions and changes of access control names by name, which need no session.
//!
//! They are not exactly-once: a caller that lost the reply can make a retry safe only by naming a generation or
//! an instance. The rules for what may be written or deleted are those of `requests`; who
//! may is decided by the node's lists at once, for there is no handle.

use holdfast_proto::client::v1::{
    AclSet, DeleteRequest, Deleted, GenerationKind, Refusal, SetAclRequest, SetContentsRequest, Written,
};
use holdfast_types::{NodePath, Principal, Revision};

use crate::acl::Permission;
use crate::node::{Kind, Node};
use crate::opening::wished_kind;
use crate::tree::NodeKey;
use crate::{Effect, State, refusal};

impl State {
    /// Writes a file, or creates it, or creates a directory.
    pub(crate) fn set_contents_by_name(
        &mut self,
        principal: &Principal,
        write: &SetContentsRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<Written, Refusal> {
        let kind = wished_kind(write.kind)?.unwrap_or(Kind::File);
        if kind == Kind::Directory && (!write.contents.is_empty() || write.if_generation != Some(0)) {
            return Err(refusal::invalid("a directory is created without contents, and at if_generation 0"));
        }
        let path = self.parse_path(&write.path)?;
        let written = self.write_path(principal, path.clone(), kind, write, effects);
        written.map_err(|refusal| self.concealed(principal, &path, refusal))
    }

    fn write_path(
        &mut self,
        principal: &Principal,
        path: NodePath,
        kind: Kind,
        write: &SetContentsRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<Written, Refusal> {
        let existing = self.tree.get(&path);
        match write.if_generation {
            Some(0) if existing.is_some() => Err(refusal::already_exists(&path)),
            Some(0) => self.create(principal, path, kind, &write.contents, effects),
            None if write.create && existing.is_none() => {
                self.create(principal, path, kind, &write.contents, effects)
            }
            wanted => {
                let node = existing.ok_or_else(|| self.missing(&path))?;
                self.check_permission(principal, &path, &node.acl, Permission::Write)?;
                self.check_list_lock_out(principal, &path, &write.contents, write.force)?;
                self.write(principal, &NodeKey::new(path), &write.contents, wanted, effects)
            }
        }
    }

    /// Deletes a node.
    pub(crate) fn delete_by_name(
        &mut self,
        principal: &Principal,
        delete: &DeleteRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<Deleted, Refusal> {
        let path = self.parse_path(&delete.path)?;
        let node = self.permitted(principal, &path, Permission::Write)?;
        self.check_list_lock_out(principal, &path, &[], delete.force)?;
        let instance = node.instance;
        if let Some(wanted) = delete.if_instance.filter(|wanted| *wanted != instance.0) {
            return Err(refusal::generation_mismatch(&path, GenerationKind::Instance, wanted, instance));
        }
        let key = NodeKey::new(path);
        self.check_deletion(&key, effects)?;
        self.remove_node(&key, effects);
        Ok(Deleted {})
    }

    /// Changes the names of a node's access control lists.
    pub(crate) fn set_acl_by_name(
        &mut self,
        principal: &Principal,
        set: &SetAclRequest,
        effects: &mut Vec<Effect>,
    ) -> Result<AclSet, Refusal> {
        let path = self.parse_path(&set.path)?;
        self.permitted(principal, &path, Permission::ChangeAcl)?;
        let names = set.acl.clone().unwrap_or_default();
        self.check_names_lock_out(principal, &path, &names, set.force)?;
        self.change_acl(principal, &NodeKey::new(path), &names, set.if_generation, effects)
    }

    /// A node that a principal may do something with.
    pub(crate) fn permitted(
        &self,
        principal: &Principal,
        path: &NodePath,
        permission: Permission,
    ) -> Result<&Node, Refusal> {
        let node = self.tree.get(path).ok_or_else(|| self.missing(path));
        let permitted = node.and_then(|node| {
            self.check_permission(principal, path, &node.acl, permission)?;
            Ok(node)
        });
        permitted.map_err(|refusal| self.concealed(principal, path, refusal))
    }

    /// Creates a permanent node where there is none.
    fn create(
        &mut self,
        principal: &Principal,
        path: NodePath,
        kind: Kind,
        contents: &[u8],
        effects: &mut Vec<Effect>,
    ) -> Result<Written, Refusal> {
        let acl = self.check_creation(principal, &path, contents.len())?;
        self.check_new_list(&path, kind, false, contents)?;
        self.check_list_characters(&path, contents)?;
        let revision = self.revision.next();
        let node = match kind {
            Kind::File => Node::file(revision, false, acl, contents),
            Kind::Directory => Node::directory(revision, false, acl),
        };
        let Revision(content_generation) = node.content_generation;
        self.insert_node(principal, NodeKey::new(path), node, effects)?;
        Ok(Written { content_generation, created: true })
    }
}
