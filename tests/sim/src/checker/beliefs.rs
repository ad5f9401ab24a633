//! I1 from outside: what clients believed of their locks, and when, over a whole history.
//!
//! Knows nothing of the cell: a history is beliefs with the times of one clock. Two conflicting beliefs never overlap,
//! and whoever believes later does so at a greater generation. Who records a belief lets it begin when he is told of
//! the grant, and end at the latest when his lease does, or when he asks for the lock to be released.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::LockMode;

use crate::verdict::{Invariant, Violation};

/// For some time a client believed that it held a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Belief {
    /// Which client: any name that no other has.
    pub client: String,
    /// The lock's node.
    pub path: String,
    /// How it was held.
    pub mode: LockMode,
    /// The generation of the grant.
    pub generation: u64,
    /// When it began.
    pub from: u64,
    /// The first moment at which it was over.
    pub until: u64,
}

/// Checks all beliefs of a history, in any order.
///
/// # Errors
///
/// Two that conflict: at one moment, or by their generations.
pub fn check(beliefs: &[Belief]) -> Result<(), Violation> {
    let mut by_path: BTreeMap<&str, Vec<&Belief>> = BTreeMap::new();
    for belief in beliefs.iter().filter(|belief| belief.from < belief.until) {
        by_path.entry(&belief.path).or_default().push(belief);
    }
    for beliefs in by_path.values_mut() {
        beliefs.sort_by_key(|belief| (belief.from, belief.until));
        check_lock(beliefs)?;
    }
    Ok(())
}

/// The beliefs in one lock, by their beginnings.
fn check_lock(beliefs: &[&Belief]) -> Result<(), Violation> {
    // Of all that began earlier, in either mode: the one that ends last, and the one of the greatest generation.
    let mut exclusive = Earlier::default();
    let mut shared = Earlier::default();
    for belief in beliefs {
        exclusive.check(belief)?;
        if belief.mode == LockMode::Exclusive {
            shared.check(belief)?;
            exclusive.add(belief);
        } else {
            shared.add(belief);
        }
    }
    Ok(())
}

/// The beliefs of a mode that matter for those that begin later.
#[derive(Default)]
struct Earlier<'b> {
    /// Those of each client that end last.
    last: BTreeMap<&'b str, &'b Belief>,
    newest: Option<&'b Belief>,
}

impl<'b> Earlier<'b> {
    fn add(&mut self, belief: &'b Belief) {
        let last = self.last.entry(&belief.client).or_insert(belief);
        if last.until < belief.until {
            *last = belief;
        }
        if self.newest.is_none_or(|newest| newest.generation < belief.generation) {
            self.newest = Some(belief);
        }
    }

    /// Holds a later belief, which conflicts with all of these, against them.
    fn check(&mut self, belief: &Belief) -> Result<(), Violation> {
        self.last.retain(|_, earlier| earlier.until > belief.from);
        if let Some(other) = self.last.values().find(|other| other.client != belief.client) {
            return Err(broken("at one moment", other, belief));
        }
        match self.newest {
            // A client may go on to believe what it had believed before.
            Some(newest) if newest.client == belief.client && newest.generation == belief.generation => {
                Ok(())
            }
            Some(newest) if newest.generation >= belief.generation => {
                Err(broken("by their generations", newest, belief))
            }
            _ => Ok(()),
        }
    }
}

fn broken(how: &str, one: &Belief, other: &Belief) -> Violation {
    let what = format!("two beliefs in {} conflict {how}: {one:?} and {other:?}", one.path);
    Violation::new(Invariant::MutualExclusion, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use LockMode::{Exclusive, Shared};

    fn belief(client: &str, mode: LockMode, generation: u64, from: u64, until: u64) -> Belief {
        let (client, path) = (client.to_owned(), "/lock".to_owned());
        Belief { client, path, mode, generation, from, until }
    }

    fn both(one: Belief, other: Belief) -> Result<(), Violation> {
        assert_eq!(
            check(&[one.clone(), other.clone()]).is_ok(),
            check(&[other.clone(), one.clone()]).is_ok()
        );
        check(&[one, other])
    }

    #[test]
    fn conflicting_beliefs_at_one_moment_are_found() {
        let a = || belief("a", Exclusive, 5, 10, 20);
        assert!(both(a(), belief("b", Exclusive, 6, 19, 30)).is_err());
        assert!(both(a(), belief("b", Shared, 6, 19, 30)).is_err());
        assert!(both(a(), belief("b", Exclusive, 6, 20, 30)).is_ok(), "one after the other");
        assert!(both(belief("a", Shared, 5, 10, 20), belief("b", Shared, 5, 12, 30)).is_ok(), "shared");
        let elsewhere = Belief { path: "/other".to_owned(), ..belief("b", Exclusive, 6, 12, 30) };
        assert!(both(a(), elsewhere).is_ok(), "another lock");
        assert!(both(a(), belief("b", Exclusive, 6, 12, 12)).is_ok(), "it was never believed");
    }

    #[test]
    fn a_later_belief_at_no_greater_generation_is_found() {
        let a = || belief("a", Exclusive, 5, 10, 20);
        assert!(both(a(), belief("b", Exclusive, 5, 30, 40)).is_err());
        assert!(both(a(), belief("b", Shared, 4, 30, 40)).is_err());
        assert!(both(a(), belief("a", Exclusive, 5, 30, 40)).is_ok(), "it goes on after jeopardy");
        assert!(both(a(), belief("a", Exclusive, 4, 30, 40)).is_err());
        assert!(both(belief("a", Shared, 5, 10, 20), belief("b", Shared, 5, 30, 40)).is_ok());
        assert!(both(belief("a", Shared, 5, 10, 20), belief("b", Exclusive, 5, 30, 40)).is_err());
    }

    #[test]
    fn an_overlap_is_found_behind_beliefs_that_end_early() {
        let long = belief("a", Exclusive, 1, 0, 100);
        let own = belief("a", Exclusive, 1, 5, 6);
        assert!(check(&[long, own, belief("b", Exclusive, 2, 50, 60)]).is_err());
    }
}
