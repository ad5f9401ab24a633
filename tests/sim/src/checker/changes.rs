//! I8 from outside: whoever watched a node to the end has been told of its last change.
//!
//! Knows nothing of the cell: changes are named by their generations, which rise. Several may be told as one, and one
//! may be told twice.

use std::collections::BTreeMap;

use crate::verdict::{Invariant, Violation};

/// The changes of nodes, and what those who watched were told.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    nodes: BTreeMap<String, Node>,
    watches: Vec<Watch>,
}

#[derive(Clone, Debug, Default)]
struct Node {
    /// The newest change that was acknowledged.
    newest: u64,
    /// There may be newer ones that nobody was told of.
    unknown: bool,
}

/// Somebody watches a node.
#[derive(Clone, Debug)]
struct Watch {
    who: String,
    node: String,
    /// The generation when he began.
    from: u64,
    /// The newest that he was told of.
    told: u64,
    over: bool,
}

/// Names a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchId(usize);

impl Changes {
    /// Somebody was told that he changed a node, which made its generation this. A node is named by its path, and by
    /// its instance where a path has several.
    pub fn changed(&mut self, node: &str, generation: u64) {
        let node = self.nodes.entry(node.to_owned()).or_default();
        node.newest = node.newest.max(generation);
    }

    /// Nobody was told whether a change took effect.
    pub fn unknown(&mut self, node: &str) {
        self.nodes.entry(node.to_owned()).or_default().unknown = true;
    }

    /// Somebody begins to watch a node, which is at this generation.
    pub fn watch(&mut self, who: &str, node: &str, from: u64) -> WatchId {
        let (who, node) = (who.to_owned(), node.to_owned());
        self.watches.push(Watch { who, node, from, told: from, over: false });
        WatchId(self.watches.len() - 1)
    }

    /// A watcher is told of a change, or of several by the last.
    pub fn told(&mut self, watch: WatchId, generation: u64) {
        if let Some(watch) = self.watches.get_mut(watch.0) {
            watch.told = watch.told.max(generation);
        }
    }

    /// A watcher has stopped, or its session is over: nothing more is promised.
    pub fn end(&mut self, watch: WatchId) {
        if let Some(watch) = self.watches.get_mut(watch.0) {
            watch.over = true;
        }
    }

    /// Once all is quiet: everybody who watches still has been told of the last change, and of nothing that was not.
    ///
    /// # Errors
    ///
    /// Who has not, or has been told too much.
    pub fn check(&self) -> Result<(), Violation> {
        let none = Node::default();
        for Watch { who, node: path, from, told, over } in &self.watches {
            let Node { newest, unknown } = self.nodes.get(path).unwrap_or(&none);
            if told < newest && !over {
                return Err(broken(format!(
                    "{who} watches {path} since {from}, was told until {told}, and it changed at {newest}"
                )));
            }
            if told > newest && told > from && !unknown {
                return Err(broken(format!(
                    "{who} was told that {path} changed at {told}, and it did at {newest}"
                )));
            }
        }
        Ok(())
    }
}

fn broken(what: String) -> Violation {
    Violation::new(Invariant::NoLostChange, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(told: &[u64]) -> (Changes, WatchId) {
        let mut changes = Changes::default();
        let watch = changes.watch("a", "/file", 5);
        for generation in [3, 7, 8] {
            changes.changed("/file", generation);
        }
        for generation in told {
            changes.told(watch, *generation);
        }
        (changes, watch)
    }

    #[test]
    fn a_change_that_was_not_told_is_found() {
        assert!(watched(&[]).0.check().is_err());
        assert!(watched(&[7]).0.check().is_err());
        assert!(watched(&[8]).0.check().is_ok(), "both as one");
        assert!(watched(&[7, 8, 8]).0.check().is_ok());
        let (mut changes, watch) = watched(&[]);
        changes.end(watch);
        assert!(changes.check().is_ok(), "nobody watches any more");
    }

    #[test]
    fn word_of_what_has_not_happened_is_found() {
        let (mut changes, _) = watched(&[9]);
        assert!(changes.check().is_err());
        changes.unknown("/file");
        assert!(changes.check().is_ok(), "it may have");
    }
}
