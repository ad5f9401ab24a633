//! I7 as clients see it: what any application was told has happened is there, whoever takes office later, and after
//! every crash of all replicas at once.
//!
//! Knows nothing of the log: it keeps the newest that was acknowledged of each node, and is shown states that must have
//! it. Generations only rise, so that a state with a smaller one has forgotten something.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::client::v1::Stat;

use crate::verdict::{Invariant, Violation};

/// What was acknowledged.
#[derive(Debug, Default)]
pub struct Durability {
    /// Of each node: its newest instance that anybody was told of, and the generations of that.
    nodes: BTreeMap<String, Stat>,
    /// The instances that somebody was told are deleted.
    deleted: BTreeSet<(String, u64)>,
}

impl Durability {
    /// Somebody was told that a node is there, with at least these generations; those that are 0 say nothing.
    pub fn told(&mut self, path: &str, stat: &Stat) {
        let known = self.nodes.entry(path.to_owned()).or_default();
        if known.instance > stat.instance {
            return;
        }
        if known.instance < stat.instance {
            *known = Stat { instance: stat.instance, ..Stat::default() };
        }
        known.content_generation = known.content_generation.max(stat.content_generation);
        known.lock_generation = known.lock_generation.max(stat.lock_generation);
        known.acl_generation = known.acl_generation.max(stat.acl_generation);
    }

    /// Somebody was told that he deleted an instance of a node.
    pub fn deleted(&mut self, path: &str, instance: u64) {
        self.deleted.insert((path.to_owned(), instance));
    }

    /// Holds a state against all that was acknowledged: `stat` gives the node of a path, if there is one. Nodes whose
    /// path `may_vanish` may be absent, because anybody deletes them, or because they are ephemeral.
    ///
    /// # Errors
    ///
    /// What the state has forgotten.
    pub fn check(
        &self,
        stat: impl Fn(&str) -> Option<Stat>,
        may_vanish: impl Fn(&str) -> bool,
    ) -> Result<(), Violation> {
        for (path, known) in &self.nodes {
            let Some(present) = stat(path) else {
                if may_vanish(path) {
                    continue;
                }
                return Err(broken(format!("{path} was there, and is not any more")));
            };
            let generations =
                |stat: &Stat| [stat.content_generation, stat.lock_generation, stat.acl_generation];
            let behind = generations(&present).iter().zip(generations(known)).any(|(now, told)| *now < told);
            if present.instance < known.instance || (present.instance == known.instance && behind) {
                return Err(broken(format!("of {path} clients were told {known:?}, and it is {present:?}")));
            }
            if self.deleted.contains(&(path.clone(), present.instance)) {
                return Err(broken(format!(
                    "instance {} of {path} was deleted, and is there",
                    present.instance
                )));
            }
        }
        Ok(())
    }
}

fn broken(what: String) -> Violation {
    Violation::new(Invariant::Durability, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(instance: u64, content_generation: u64, lock_generation: u64) -> Stat {
        Stat { instance, content_generation, lock_generation, ..Stat::default() }
    }

    /// Clients were told of a write and of a grant; is this state what they may find later?
    fn found(present: Option<Stat>) -> Result<(), Violation> {
        let mut checker = Durability::default();
        checker.told("/file", &stat(3, 7, 0));
        checker.told("/file", &stat(3, 0, 8));
        checker.told("/file", &stat(2, 9, 9));
        checker.check(|_| present.clone(), |_| false)
    }

    #[test]
    fn a_write_or_a_grant_that_was_acknowledged_and_is_gone_is_found() {
        assert!(found(Some(stat(3, 7, 8))).is_ok());
        assert!(found(Some(stat(3, 12, 9))).is_ok(), "later ones");
        assert!(found(Some(stat(4, 4, 0))).is_ok(), "it was made anew");
        assert_eq!(found(Some(stat(3, 6, 8))).unwrap_err().invariant, Invariant::Durability);
        assert!(found(Some(stat(3, 7, 7))).is_err());
        assert!(found(Some(stat(2, 9, 9))).is_err(), "the instance is older");
    }

    #[test]
    fn a_node_that_is_gone_is_found_unless_it_may_be() {
        assert!(found(None).is_err());
        let mut checker = Durability::default();
        checker.told("/tree/1", &stat(3, 3, 0));
        assert!(checker.check(|_| None, |path| path.starts_with("/tree/")).is_ok());
    }

    #[test]
    fn a_deletion_that_is_undone_is_found() {
        let mut checker = Durability::default();
        checker.told("/tree/1", &stat(3, 3, 0));
        checker.deleted("/tree/1", 3);
        assert!(checker.check(|_| Some(stat(3, 3, 0)), |_| true).is_err());
        assert!(checker.check(|_| Some(stat(5, 5, 0)), |_| true).is_ok());
    }
}
