//! Bars: nodes that a change is about to touch, and that nobody may begin to cache meanwhile (design.md §6, I5).
//!
//! A node is barred from the planning of a change until the change is applied, or dropped. Bars are counted, so that
//! of two overlapping changes the first does not lift the other's. A change that nobody's cache can be concerned by is
//! not barred at all, which costs it nothing: it only holds back the caching of anything new until it is applied.
//! Invariant: whatever is cached was read when every change that touches it was applied, or not planned yet.

use std::collections::BTreeMap;

use holdfast_state::{Opens, TouchedNodes};
use holdfast_types::{NodePath, planted};

/// All bars.
#[derive(Debug, Default)]
pub(crate) struct Bars {
    /// How many changes bar the caching of a node.
    data: BTreeMap<NodePath, u32>,
    /// How many bar opening a node without asking.
    opens: BTreeMap<NodePath, u32>,
    /// How many bar that for all nodes: what rests on an access control list may be changing as well.
    opens_all: u32,
    /// What was barred for changes that are proposed, by their tags.
    proposed: BTreeMap<u64, TouchedNodes>,
    /// The tag of the last change that was proposed without bars.
    unbarred: u64,
    /// The tag of the last of these that may void opens.
    unbarred_opens: u64,
    /// The greatest tag of a change that is known to be applied.
    applied: u64,
}

impl Bars {
    /// A change is planned.
    pub(crate) fn raise(&mut self, touched: &TouchedNodes) {
        for path in &touched.nodes {
            *self.data.entry(path.clone()).or_default() += 1;
        }
        match &touched.opens {
            Opens::None => {}
            Opens::Node(path) => *self.opens.entry(path.clone()).or_default() += 1,
            Opens::List(_) | Opens::All => self.opens_all += 1,
        }
    }

    /// A planned change is dropped, or applied.
    pub(crate) fn lower(&mut self, touched: &TouchedNodes) {
        for path in &touched.nodes {
            lower(&mut self.data, path);
        }
        match &touched.opens {
            Opens::None => {}
            Opens::Node(path) => lower(&mut self.opens, path),
            Opens::List(_) | Opens::All => self.opens_all -= 1,
        }
    }

    /// A planned change is proposed under this tag.
    pub(crate) fn proposed(&mut self, tag: u64, touched: TouchedNodes) {
        self.proposed.insert(tag, touched);
    }

    /// A change is proposed under this tag that nobody's cache was concerned by when it was planned.
    pub(crate) fn proposed_unbarred(&mut self, tag: u64, can_void_opens: bool) {
        self.unbarred = tag;
        if can_void_opens {
            self.unbarred_opens = tag;
        }
    }

    /// The command of this tag is applied. Commands are applied in the order of their tags.
    pub(crate) fn applied(&mut self, tag: u64) {
        self.applied = self.applied.max(tag);
        if self.proposed.is_empty() {
            return;
        }
        if let Some(touched) = self.proposed.remove(&tag) {
            self.lower(&touched);
        }
    }

    /// Whether a node may not be cached now.
    pub(crate) fn is_barred(&self, path: &NodePath) -> bool {
        // A change without bars that is under way may touch anything.
        self.applied < self.unbarred || self.data.contains_key(path)
    }

    /// Whether an open of the node proves nothing for later opens now.
    pub(crate) fn is_open_barred(&self, path: &NodePath) -> bool {
        self.applied < self.unbarred_opens || self.opens_all > 0 || self.opens.contains_key(path)
    }
}

fn lower(counts: &mut BTreeMap<NodePath, u32>, path: &NodePath) {
    if planted!(SharedBar) {
        counts.remove(path);
        return;
    }
    let count = counts.get_mut(path).expect("a bar is lowered once for each time that it was raised");
    *count -= 1;
    if *count == 0 {
        counts.remove(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> NodePath {
        NodePath::from_canonical(text).unwrap()
    }

    fn touched(paths: &[&str], opens: Opens) -> TouchedNodes {
        TouchedNodes { nodes: paths.iter().map(|text| path(text)).collect(), opens }
    }

    #[test]
    fn overlapping_changes_do_not_lift_each_others_bars() {
        let mut bars = Bars::default();
        let (first, second) = (touched(&["/a", "/"], Opens::None), touched(&["/b", "/"], Opens::None));
        bars.raise(&first);
        bars.raise(&second);
        bars.proposed(1, first);
        bars.applied(1);
        assert!(!bars.is_barred(&path("/a")));
        assert!(bars.is_barred(&path("/")) && bars.is_barred(&path("/b")));
        bars.lower(&second);
        assert!(!bars.is_barred(&path("/")));
    }

    #[test]
    fn a_change_without_bars_holds_back_all_new_caching_until_it_is_applied() {
        let mut bars = Bars::default();
        bars.proposed_unbarred(6, true);
        bars.proposed_unbarred(7, false);
        assert!(bars.is_barred(&path("/a")) && bars.is_open_barred(&path("/a")));
        bars.applied(6);
        assert!(bars.is_barred(&path("/a")) && !bars.is_open_barred(&path("/a")));
        bars.applied(7);
        assert!(!bars.is_barred(&path("/a")) && !bars.is_open_barred(&path("/a")));
    }

    #[test]
    fn opens_are_barred_for_one_node_or_for_all() {
        let mut bars = Bars::default();
        let (one, all) = (touched(&["/a"], Opens::Node(path("/a"))), touched(&[], Opens::All));
        bars.raise(&one);
        assert!(bars.is_open_barred(&path("/a")) && !bars.is_open_barred(&path("/b")));
        bars.raise(&all);
        assert!(bars.is_open_barred(&path("/b")) && !bars.is_barred(&path("/b")));
        bars.lower(&one);
        bars.lower(&all);
        assert!(!bars.is_open_barred(&path("/a")));
    }
}
