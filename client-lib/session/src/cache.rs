//! What is cached, and how much of it: the values in the slots, and the names that are known not to exist (P§2.7).
//!
//! Owns the budget of bytes. Decides nothing about when a value may be believed (`slot`) and knows no time. The
//! invariant: a slot has something in it only while its handle has an entry here, so that emptying the entries empties
//! everything there is to be read.

use crate::slot::Slot;
use holdfast_proto::client::v1::{self as wire, Refusal};
use holdfast_types::{HandleId, NodePath};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

/// What an entry takes beside what its value says: the maps, the counts, the generations.
const OVERHEAD_BYTES: usize = 256;

#[derive(Debug)]
pub(crate) struct Cache {
    entries: BTreeMap<Key, Entry>,
    /// The sum over all entries.
    bytes: u64,
    bytes_max: u64,
    /// The entry that was looked at last for what can go: the hand of a clock over the keys.
    hand: Option<Key>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    /// What is in the slot of this handle.
    Node(HandleId),
    /// There is no child of this name in this directory.
    Absence(NodePath, String),
}

#[derive(Debug)]
enum Entry {
    /// How much each takes: metadata, contents, children.
    Node {
        slot: Arc<Slot>,
        parts: [u64; 3],
    },
    Absence {
        refusal: Refusal,
        used: bool,
        bytes: u64,
    },
}

/// What a read brought.
pub(crate) enum Value {
    Contents(wire::Contents),
    Stat(wire::Stat),
    /// All children: not a page of them.
    Children(wire::Directory),
}

impl Value {
    fn stat(&self) -> Option<&wire::Stat> {
        match self {
            Self::Contents(contents) => contents.stat.as_ref(),
            Self::Stat(stat) => Some(stat),
            Self::Children(directory) => directory.stat.as_ref(),
        }
    }

    fn bytes(&self) -> u64 {
        match self {
            Self::Contents(contents) => (contents.contents.len() + OVERHEAD_BYTES) as u64,
            Self::Stat(_) => OVERHEAD_BYTES as u64,
            Self::Children(directory) => {
                let names = directory.entries.iter().map(|entry| entry.name.len() + OVERHEAD_BYTES);
                (names.sum::<usize>() + OVERHEAD_BYTES) as u64
            }
        }
    }
}

impl Entry {
    fn bytes(&self) -> u64 {
        match self {
            Self::Node { parts, .. } => parts.iter().sum(),
            Self::Absence { bytes, .. } => *bytes,
        }
    }

    /// Whether it was of use since this was last asked.
    fn take_used(&mut self) -> bool {
        match self {
            Self::Node { slot, .. } => slot.take_used(),
            Self::Absence { used, .. } => std::mem::take(used),
        }
    }
}

impl Cache {
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { entries: BTreeMap::new(), bytes: 0, bytes_max, hand: None }
    }

    /// Puts what was read into the slot of the handle that it was read through; evicts something else if that is too
    /// much. What comes with the node's metadata renews those too. Returns them, if it was taken.
    pub(crate) fn fill(&mut self, id: HandleId, slot: &Arc<Slot>, value: Value) -> Option<wire::Stat> {
        let key = Key::Node(id);
        let mut parts = match self.entries.get(&key) {
            Some(Entry::Node { parts, .. }) => *parts,
            _ => [0; 3],
        };
        let mut stat = value.stat()?.clone();
        strip(Some(&mut stat));
        let bytes = value.bytes();
        // One value that is larger than the cache would drive out everything, and itself.
        if bytes > self.bytes_max {
            return None;
        }
        parts[0] = OVERHEAD_BYTES as u64;
        match value {
            Value::Stat(_) => {}
            Value::Contents(mut contents) => {
                parts[1] = bytes;
                strip(contents.stat.as_mut());
                slot.fill_contents(Arc::new(contents));
            }
            Value::Children(mut directory) => {
                parts[2] = bytes;
                strip(directory.stat.as_mut());
                directory.entries.iter_mut().for_each(|entry| strip(entry.stat.as_mut()));
                slot.fill_children(Arc::new(directory));
            }
        }
        slot.fill_stat(Arc::new(stat.clone()));
        self.put(key, Entry::Node { slot: Arc::clone(slot), parts });
        Some(stat)
    }

    /// Whether the node's metadata are cached.
    pub(crate) fn has_stat(&self, id: HandleId) -> bool {
        self.entries.contains_key(&Key::Node(id))
    }

    /// Notes that there is no node at `path`, with the cell's words for it.
    pub(crate) fn fill_absence(&mut self, path: &NodePath, refusal: Refusal) {
        let Some(key) = absence(path) else { return };
        let bytes = (path.as_str().len() + refusal.message.len() + OVERHEAD_BYTES) as u64;
        self.put(key, Entry::Absence { refusal, used: false, bytes });
    }

    /// The refusal that an `Open` of a node that must exist gets, if it is known that there is none.
    pub(crate) fn absent(&mut self, path: &NodePath) -> Option<Refusal> {
        match self.entries.get_mut(&absence(path)?)? {
            Entry::Absence { refusal, used, .. } => {
                *used = true;
                Some(refusal.clone())
            }
            Entry::Node { .. } => None,
        }
    }

    fn put(&mut self, key: Key, entry: Entry) {
        self.bytes += entry.bytes();
        if let Some(earlier) = self.entries.insert(key.clone(), entry) {
            self.bytes -= earlier.bytes();
        }
        while self.bytes > self.bytes_max && self.entries.len() > 1 {
            self.evict(&key);
        }
        if self.bytes > self.bytes_max {
            self.remove(&key);
        }
    }

    /// Takes away something that was not used since the hand came by last, but not what has just come.
    fn evict(&mut self, newest: &Key) {
        loop {
            let after = self.hand.take().map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.entries.range((after, Bound::Unbounded)).next();
            let Some((key, _)) = next.or_else(|| self.entries.first_key_value()) else { return };
            let key = key.clone();
            let used = self.entries.get_mut(&key).is_some_and(Entry::take_used);
            self.hand = Some(key.clone());
            if !used && key != *newest {
                return self.remove(&key);
            }
        }
    }

    fn remove(&mut self, key: &Key) {
        let Some(entry) = self.entries.remove(key) else { return };
        self.bytes -= entry.bytes();
        if let Entry::Node { slot, .. } = entry {
            slot.empty();
        }
    }

    /// What was read through this handle is void.
    pub(crate) fn drop_node(&mut self, id: HandleId) {
        self.remove(&Key::Node(id));
    }

    /// Whether this name exists is not known any more.
    pub(crate) fn drop_absence(&mut self, path: &NodePath) {
        if let Some(key) = absence(path) {
            self.remove(&key);
        }
    }

    /// Which names in this directory do not exist is not known any more.
    pub(crate) fn drop_absences_in(&mut self, directory: &NodePath) {
        let first = Key::Absence(directory.clone(), String::new());
        let is_child = |key: &&Key| matches!(key, Key::Absence(parent, _) if parent == directory);
        let keys = self.entries.range(first..).map(|(key, _)| key).take_while(is_child);
        for key in keys.cloned().collect::<Vec<_>>() {
            self.remove(&key);
        }
    }

    /// Everything is void.
    pub(crate) fn clear(&mut self) {
        for entry in std::mem::take(&mut self.entries).into_values() {
            if let Entry::Node { slot, .. } = entry {
                slot.empty();
            }
        }
        self.bytes = 0;
        self.hand = None;
    }
}

/// `None` for the root, which exists.
fn absence(path: &NodePath) -> Option<Key> {
    Some(Key::Absence(path.parent()?, path.name()?.to_owned()))
}

/// Takes away what nobody is told of when it changes: how the lock fares, and who has the node open.
pub(crate) fn strip(stat: Option<&mut wire::Stat>) {
    if let Some(stat) = stat {
        stat.lock = None;
        stat.lock_generation = 0;
        stat.open_handles = 0;
    }
}
