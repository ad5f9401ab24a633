//! A state as somebody from outside can tell of it: read out of its own snapshot, which leaves nothing out.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::EventKind;
use holdfast_proto::log::v1::snapshot_record::Record;
use holdfast_proto::log::v1::{HandleRecord, NodeRecord, SnapshotRecord};
use holdfast_state::State;
use holdfast_types::NodePath;
use prost::Message;

/// A state's nodes and handles.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct View {
    /// By path.
    pub(crate) nodes: BTreeMap<String, NodeRecord>,
    /// By session and id.
    pub(crate) handles: BTreeMap<(u64, u64), HandleRecord>,
}

/// What a client may keep of a node: all but its lock and its handles.
pub(crate) type Cacheable = (NodeRecord, Vec<NodeRecord>);

impl View {
    pub(crate) fn of(state: &State) -> Self {
        let bytes: Vec<u8> = state.snapshot_records().flat_map(|chunk| chunk.to_vec()).collect();
        let (mut rest, mut view, mut session) = (&bytes[..], Self::default(), 0);
        while !rest.is_empty() {
            let record =
                SnapshotRecord::decode_length_delimited(&mut rest).expect("a snapshot is made of records");
            match record.record {
                Some(Record::Node(node)) => {
                    view.nodes.insert(node.path.clone(), node);
                }
                Some(Record::Session(record)) => session = record.id,
                Some(Record::Handle(handle)) => {
                    view.handles.insert((session, handle.id), handle);
                }
                Some(Record::Header(_) | Record::End(_)) | None => {}
            }
        }
        view
    }

    /// The node that a handle is on, if it is still there.
    pub(crate) fn node_of(&self, handle: &HandleRecord) -> Option<&NodeRecord> {
        self.nodes.get(&handle.path).filter(|node| node.instance == handle.instance)
    }

    /// What a client may keep of a node: with a directory, its children, but not their contents.
    pub(crate) fn cacheable(&self, path: &str) -> Option<Cacheable> {
        let node = unlocked(self.nodes.get(path)?);
        let bare = |node: &NodeRecord| NodeRecord { contents: Default::default(), ..unlocked(node) };
        Some((node, self.children(path).map(bare).collect()))
    }

    pub(crate) fn children(&self, path: &str) -> impl Iterator<Item = &NodeRecord> {
        let parent = NodePath::from_canonical(path).expect("a node's path is canonical");
        self.nodes.values().filter(move |node| {
            let path = NodePath::from_canonical(&node.path).expect("a node's path is canonical");
            path.parent().is_some_and(|of| of == parent)
        })
    }

    /// What happened to a handle's node between an earlier view and this one, as far as the values themselves tell:
    /// no generation is looked at but the lock's, which has no other value.
    pub(crate) fn changes(&self, earlier: &Self, session: u64, handle: &HandleRecord) -> Vec<EventKind> {
        let Some(was) = earlier.node_of(handle) else { return Vec::new() };
        let Some(is) = self.node_of(handle) else { return vec![EventKind::HandleInvalid] };
        let children = |view: &Self| -> BTreeMap<(String, u64), bytes::Bytes> {
            view.children(&handle.path)
                .map(|node| ((node.path.clone(), node.instance), node.contents.clone()))
                .collect()
        };
        let (before, after) = (children(earlier), children(self));
        let both = before.iter().filter_map(|(child, contents)| after.get(child).map(|now| (contents, now)));
        let changed = [
            (was.contents != is.contents, EventKind::ContentsModified),
            (after.keys().any(|child| !before.contains_key(child)), EventKind::ChildAdded),
            (before.keys().any(|child| !after.contains_key(child)), EventKind::ChildRemoved),
            (both.into_iter().any(|(was, is)| was != is), EventKind::ChildModified),
            (was.acl != is.acl, EventKind::AclChanged),
            (was.lock_generation != is.lock_generation, EventKind::LockAcquired),
            (wanted(is, session, handle) && !wanted(was, session, handle), EventKind::ConflictingRequest),
        ];
        changed.into_iter().filter(|(changed, _)| *changed).map(|(_, kind)| kind).collect()
    }
}

/// Whether the handle's session holds the lock by it, and somebody waits for it.
fn wanted(node: &NodeRecord, session: u64, handle: &HandleRecord) -> bool {
    let holds = node.holders.iter().any(|holder| (holder.session, holder.handle) == (session, handle.id));
    holds && !node.waiters.is_empty()
}

/// A node without what is never cached.
fn unlocked(node: &NodeRecord) -> NodeRecord {
    NodeRecord {
        lock_generation: 0,
        holders: Vec::new(),
        waiters: Vec::new(),
        delays: Vec::new(),
        ..node.clone()
    }
}
