//! The tree of nodes (P§2.3), as one persistent map from paths to nodes.
//!
//! A directory's children lie side by side, in the order of their names, and parents come before children. The
//! tree keeps counts and indexes right; whether something may be created or deleted is decided elsewhere.
//! Invariant: every node but the root has a directory as its parent, and the parent counts it.

use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use holdfast_proto::client::v1::AclNames;
use holdfast_types::{NodePath, Revision, planted};
use imbl::{OrdMap, OrdSet};

use crate::node::{Kind, Node};

/// A path as the key of a node: ordered by the parent first and by the name then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeKey {
    path: NodePath,
    /// Where the last slash is: before it the parent (nothing, if that is the root), after it the name.
    slash: usize,
}

impl NodeKey {
    pub(crate) fn new(path: NodePath) -> Self {
        let slash = path.as_str().rfind('/').expect("a canonical path begins with a slash");
        Self { path, slash }
    }

    pub(crate) fn path(&self) -> &NodePath {
        &self.path
    }

    /// Where the parent is; `None` for the root.
    pub(crate) fn parent(&self) -> Option<Place<'_>> {
        if self.path.is_root() {
            return None;
        }
        Some(match self.slash {
            0 => Place::ROOT,
            slash => Place::of(&self.path.as_str()[..slash]),
        })
    }

    pub(crate) fn place(&self) -> Place<'_> {
        let path = self.path.as_str();
        Place { parent: &path[..self.slash], name: &path[self.slash + 1..] }
    }
}

impl Ord for NodeKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}

impl PartialOrd for NodeKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Where a node is or could be: a borrowed key, so that looking for a parent or a page of children builds none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place<'p> {
    parent: &'p str,
    name: &'p str,
}

impl<'p> Place<'p> {
    const ROOT: Self = Self { parent: "", name: "" };

    /// A place in a directory that is not the root.
    pub(crate) fn within(parent: &'p str, name: &'p str) -> Self {
        Self { parent, name }
    }

    /// Where a canonical path leads.
    pub(crate) fn of(path: &'p str) -> Self {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Self { parent, name }
    }
}

impl Ord for Place<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(self.parent, other.parent).then_with(|| compare(self.name, other.name))
    }
}

impl PartialOrd for Place<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Like `one.cmp(other)`. Everything under the root has an empty parent, and a literal `""` points nowhere: to
/// compare nothing at nowhere by masked vector loads, as `memcmp` does, makes some processors take a fault and hide
/// it. That was a quarter of the time of a replica that writes.
fn compare(one: &str, other: &str) -> Ordering {
    if one.is_empty() || other.is_empty() { one.len().cmp(&other.len()) } else { one.cmp(other) }
}

impl Equivalent<NodeKey> for Place<'_> {
    fn equivalent(&self, key: &NodeKey) -> bool {
        *self == key.place()
    }
}

impl Comparable<NodeKey> for Place<'_> {
    fn compare(&self, key: &NodeKey) -> Ordering {
        self.cmp(&key.place())
    }
}

/// What came of removing a node.
#[derive(Debug)]
pub(crate) struct Removed {
    /// The node, as it was.
    pub(crate) node: Arc<Node>,
    pub(crate) parent_watched: bool,
    /// The parent, if it became an orphan by it.
    pub(crate) orphan: Option<(NodePath, Revision)>,
}

/// The tree. Cloning it costs nothing; what is changed afterwards is copied then, node by node.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tree {
    /// All nodes. The root is always there, but while a snapshot is read.
    nodes: OrdMap<NodeKey, Arc<Node>>,
    /// The instances of exactly those nodes that are orphans, for a new master.
    orphans: OrdMap<NodeKey, Revision>,
    /// Exactly those nodes whose locks have delays, for a new master.
    delayed: OrdSet<NodeKey>,
}

impl Tree {
    /// A tree of a root only.
    pub(crate) fn new(root: Node) -> Self {
        let key = NodeKey::new(NodePath::root());
        Self { nodes: OrdMap::unit(key, Arc::new(root)), ..Self::default() }
    }

    /// How many nodes there are, the root included.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn get(&self, path: &NodePath) -> Option<&Node> {
        self.nodes.get(&Place::of(path.as_str())).map(|node| &**node)
    }

    /// The node of a place, with its key.
    pub(crate) fn entry(&self, place: &Place<'_>) -> Option<(&NodeKey, &Node)> {
        self.nodes.get_key_value(place).map(|(key, node)| (key, &**node))
    }

    /// The node of a key, if it is still that instance.
    pub(crate) fn live(&self, key: &NodeKey, instance: Revision) -> Option<&Node> {
        self.nodes.get(key).map(|node| &**node).filter(|node| node.instance == instance)
    }

    pub(crate) fn get_mut(&mut self, key: &NodeKey) -> Option<&mut Node> {
        self.nodes.get_mut(key).map(Arc::make_mut)
    }

    /// The node of a key, to be changed, if it is still that instance.
    pub(crate) fn live_mut(&mut self, key: &NodeKey, instance: Revision) -> Option<&mut Node> {
        let node = self.nodes.get_mut(key)?;
        if node.instance == instance { Some(Arc::make_mut(node)) } else { None }
    }

    /// Puts a new node into the directory that is its parent. Gives whether that is watched.
    pub(crate) fn insert(&mut self, key: NodeKey, node: Node) -> bool {
        let instance = node.instance;
        let parent = self.parent_mut(&key).expect("a new node has a parent");
        assert_eq!(parent.kind, Kind::Directory, "a parent is a directory");
        parent.children += 1;
        parent.children_generation = instance;
        let watched = !parent.watchers.is_empty();
        self.reindex_parent(&key);
        self.nodes.insert(key, Arc::new(node));
        watched
    }

    /// Puts a node back that a snapshot has, and counts it at its parent. Indexes are not kept: when all nodes and
    /// handles are back, [`Tree::reindex_all`] makes them.
    pub(crate) fn restore(&mut self, key: NodeKey, node: Node) -> Result<(), String> {
        if key.parent().is_some() {
            let parent = self.parent_mut(&key).filter(|parent| parent.kind == Kind::Directory);
            parent.ok_or("its parent does not exist, or is a file")?.children += 1;
        }
        self.nodes.insert(key, Arc::new(node));
        Ok(())
    }

    /// The access control names of a node that a snapshot has: its parent's own value where they are the same.
    pub(crate) fn shared_acl(&self, key: &NodeKey, acl: AclNames) -> Arc<AclNames> {
        match key.parent().and_then(|parent| self.entry(&parent)) {
            Some((_, parent)) if *parent.acl == acl => parent.acl.clone(),
            Some((of, parent)) if planted!(AclLostInSnapshot) && !of.path().is_root() => parent.acl.clone(),
            _ => Arc::new(acl),
        }
    }

    /// Makes the indexes anew.
    pub(crate) fn reindex_all(&mut self) {
        let nodes = self.nodes.iter();
        let orphans = nodes.clone().filter(|(_, node)| node.is_orphan());
        self.orphans = orphans.map(|(key, node)| (key.clone(), node.instance)).collect();
        let delayed = nodes.filter(|(_, node)| node.lock.delay_count() > 0);
        self.delayed = delayed.map(|(key, _)| key.clone()).collect();
    }

    /// Takes a node away that has no children. Tells of its parent if that became an orphan by it.
    pub(crate) fn remove(&mut self, key: &NodeKey, revision: Revision) -> Removed {
        let node = self.nodes.remove(key).expect("the node to remove is there");
        assert_eq!(node.children, 0, "a node with children is not removed");
        self.orphans.remove(key);
        self.delayed.remove(key);
        let parent = self.parent_mut(key).expect("the root is not removed");
        parent.children -= 1;
        parent.children_generation = revision;
        let parent_watched = !parent.watchers.is_empty();
        Removed { node, parent_watched, orphan: self.reindex_parent(key) }
    }

    /// Tells a node's parent that the node's contents changed. Gives whether the parent is watched.
    pub(crate) fn touch_parent(&mut self, key: &NodeKey, revision: Revision) -> bool {
        let Some(parent) = self.parent_mut(key) else { return false };
        parent.children_generation = revision;
        !parent.watchers.is_empty()
    }

    /// Brings the indexes up to date with a node that was changed; without effect if it is gone. Gives the node's
    /// instance if it became an orphan just now.
    pub(crate) fn reindex(&mut self, key: &NodeKey) -> Option<Revision> {
        let node = self.nodes.get(key)?;
        let (instance, is_orphan, is_delayed) =
            (node.instance, node.is_orphan(), node.lock.delay_count() > 0);
        if is_delayed {
            self.delayed.insert(key.clone());
        } else if !self.delayed.is_empty() {
            self.delayed.remove(key);
        }
        if is_orphan {
            return self.orphans.insert(key.clone(), instance).is_none().then_some(instance);
        }
        if !self.orphans.is_empty() {
            self.orphans.remove(key);
        }
        None
    }

    /// All nodes, parents before their children, from after `after` on.
    pub(crate) fn iter_after(&self, after: Option<&NodeKey>) -> impl Iterator<Item = (&NodeKey, &Node)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.nodes.range::<_, NodeKey>((start.cloned(), Bound::Unbounded));
        range.map(|(key, node)| (key, &**node))
    }

    /// A directory's children whose names are greater than `after`, in the order of the names.
    pub(crate) fn children<'t>(
        &'t self,
        directory: &'t NodePath,
        after: &'t str,
    ) -> impl Iterator<Item = (&'t str, &'t Node)> {
        let parent = if directory.is_root() { "" } else { directory.as_str() };
        let range = (Bound::Excluded(Place { parent, name: after }), Bound::Unbounded);
        self.nodes
            .range::<_, Place<'_>>(range)
            .take_while(move |(key, _)| key.place().parent == parent)
            .map(|(key, node)| (key.place().name, &**node))
    }

    /// The nodes that are kept by nothing any more.
    pub(crate) fn orphans(&self) -> impl Iterator<Item = (&NodePath, Revision)> {
        self.orphans.iter().map(|(key, instance)| (&key.path, *instance))
    }

    /// The nodes whose locks have delays.
    pub(crate) fn delayed(&self) -> impl Iterator<Item = (&NodePath, &Node)> {
        self.delayed.iter().map(|key| (&key.path, &**self.nodes.get(key).expect("a delayed node is there")))
    }

    fn parent_mut(&mut self, key: &NodeKey) -> Option<&mut Node> {
        self.nodes.get_mut(&key.parent()?).map(Arc::make_mut)
    }

    /// A node was added or removed: its directory may have ceased, or begun, to be an orphan.
    fn reindex_parent(&mut self, key: &NodeKey) -> Option<(NodePath, Revision)> {
        let parent = self.nodes.get(&key.parent()?)?;
        // Most directories are permanent; theirs is the common case, and builds no key.
        if !parent.ephemeral {
            return None;
        }
        let parent = NodeKey::new(key.path.parent()?);
        let instance = self.reindex(&parent)?;
        Some((parent.path, instance))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> NodePath {
        NodePath::from_canonical(text).unwrap()
    }

    fn tree(paths: &[&str]) -> Tree {
        let directory = |revision| Node::directory(Revision(revision), false, Arc::default());
        let mut tree = Tree::new(directory(1));
        for text in paths {
            tree.insert(NodeKey::new(path(text)), directory(2));
        }
        tree
    }

    #[test]
    fn siblings_are_adjacent_and_parents_come_first() {
        let tree = tree(&["/b", "/a", "/a/x", "/a!", "/a/x/1", "/a!/y", "/a/y", "/a/x!"]);
        let order: Vec<_> = tree.iter_after(None).map(|(key, _)| key.path().as_str()).collect();
        assert_eq!(order, ["/", "/a", "/a!", "/b", "/a/x", "/a/x!", "/a/y", "/a!/y", "/a/x/1"]);
        let names = |directory: &str, after: &str| -> Vec<String> {
            let directory = path(directory);
            tree.children(&directory, after).map(|(name, _)| name.to_owned()).collect()
        };
        assert_eq!(names("/", ""), ["a", "a!", "b"]);
        assert_eq!(names("/", "a"), ["a!", "b"]);
        assert_eq!(names("/a", ""), ["x", "x!", "y"]);
        assert!(names("/b", "").is_empty());
    }

    #[test]
    fn a_path_finds_its_node_and_its_parent() {
        let tree = tree(&["/a", "/a/x"]);
        for text in ["/", "/a", "/a/x"] {
            assert!(tree.get(&path(text)).is_some(), "{text}");
        }
        assert!(tree.get(&path("/x")).is_none());
        assert_eq!(NodeKey::new(path("/a/x")).parent(), Some(Place::of("/a")));
        assert_eq!(NodeKey::new(path("/a")).parent(), Some(Place::ROOT));
        assert_eq!(NodeKey::new(NodePath::root()).parent(), None);
    }
}
