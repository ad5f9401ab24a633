//! An event as lines: one for each thing that changed.
//!
//! The cell may tell of several changes as one event; here it is taken apart again, as far as it says what changed.

use holdfast::{EventKind, HandleEvent};
use serde::Serialize;

use super::kinds::kind_name;

/// One thing that changed: a line. The field names are promised in docs/cli.md.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Change {
    pub(super) event: &'static str,
    pub(super) path: String,
    /// The child's name, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    child: Option<String>,
    /// The generation after the change: of the contents, the children, the access control names or the lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
}

impl Change {
    /// A change of a node's own.
    fn of_node(event: &'static str, path: &str, generation: Option<u64>) -> Self {
        Self { event, path: path.to_owned(), child: None, generation }
    }

    /// Whether it is the last that can be told of the node.
    pub(super) fn is_deletion(&self) -> bool {
        self.event == kind_name(EventKind::HandleInvalid)
    }

    /// For people: the event, what it is about, and the generation.
    pub(super) fn text(&self) -> String {
        let generation = self.generation.map(|generation| format!("generation {generation}"));
        let rest: Vec<String> = self.child.iter().cloned().chain(generation).collect();
        if rest.is_empty() { self.event.to_owned() } else { format!("{:<9} {}", self.event, rest.join("  ")) }
    }
}

/// What an event says, in the order in which it is best read: the deletion, after which nothing comes, last.
pub(super) fn changes(event: &HandleEvent, path: &str) -> Vec<Change> {
    let has = |kind| event.kinds.contains(kind);
    let mut changes = Vec::new();
    if has(EventKind::ContentsModified) {
        changes.push(Change::of_node("contents", path, Some(event.content_generation)));
    }
    changes.extend(event.children.iter().map(|child| Change {
        child: Some(child.name.clone()),
        ..Change::of_node(kind_name(child.kind), path, Some(event.children_generation))
    }));
    let kinds = [EventKind::ChildAdded, EventKind::ChildRemoved, EventKind::ChildModified];
    let is_about_children = kinds.into_iter().any(has);
    if event.more_children || is_about_children && event.children.is_empty() {
        changes.push(Change::of_node("children", path, Some(event.children_generation)));
    }
    if has(EventKind::AclChanged) {
        changes.push(Change::of_node("acl", path, Some(event.acl_generation)));
    }
    if has(EventKind::LockAcquired) {
        changes.push(Change::of_node("lock", path, Some(event.lock_generation)));
    }
    if has(EventKind::HandleInvalid) {
        changes.push(Change::of_node("deleted", path, None));
    }
    changes
}
