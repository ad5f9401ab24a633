//! I2 as a resource sees it: a resource outside the cell that remembers the greatest generation it has seen and
//! refuses smaller ones never acts on an order of a holder whose lock has passed on.
//!
//! Knows nothing of the cell: it is told orders, in the order of their arrival. What the cell promises for it is that
//! a generation belongs to one exclusive holder alone, and that whoever holds the lock has the greatest one.

use std::collections::BTreeMap;

use crate::verdict::{Invariant, Violation};

/// An order that arrives at a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Who sent it: any name that no other holder has.
    pub holder: String,
    /// The generation of the sender's sequencer: of an exclusive lock.
    pub generation: u64,
    /// At its arrival the sender still believes, under a valid lease, that it holds the lock.
    pub believed: bool,
}

/// A resource that a lock protects.
#[derive(Clone, Debug, Default)]
pub struct Resource {
    /// The greatest generation that was seen.
    greatest: u64,
    /// Whose each generation is.
    holders: BTreeMap<u64, String>,
    /// How many orders were refused because they came too late.
    refused: u64,
}

impl Resource {
    /// An order arrives. Returns whether the resource acts on it.
    ///
    /// # Errors
    ///
    /// If fencing cannot work: two holders have one generation, or one that still holds the lock is refused.
    pub fn take(&mut self, order: &Order) -> Result<bool, Violation> {
        let Order { holder, generation, believed } = order;
        let owner = self.holders.entry(*generation).or_insert_with(|| holder.clone());
        if owner != holder {
            return Err(broken(format!("{owner} and {holder} give orders at one generation, {generation}")));
        }
        let greatest = self.greatest;
        if *generation >= greatest {
            self.greatest = *generation;
            return Ok(true);
        }
        if *believed {
            return Err(broken(format!(
                "{holder} holds the lock at {generation}, and somebody had given an order at {greatest}"
            )));
        }
        self.refused += 1;
        Ok(false)
    }

    /// How many orders came too late, and were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused
    }
}

/// Checks the orders that arrived at one resource, in the order of their arrival, each with what the resource did: it
/// acted, or not.
///
/// # Errors
///
/// As [`Resource::take`] says; or a resource that acted otherwise than it must.
pub fn check(orders: &[(Order, bool)]) -> Result<(), Violation> {
    let mut resource = Resource::default();
    for (order, acted) in orders {
        if resource.take(order)? != *acted {
            let verb = if *acted { "was acted on" } else { "was refused" };
            return Err(broken(format!("{order:?} {verb} after generation {}", resource.greatest)));
        }
    }
    Ok(())
}

fn broken(what: String) -> Violation {
    Violation::new(Invariant::Fencing, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(holder: &str, generation: u64, believed: bool) -> Order {
        Order { holder: holder.to_owned(), generation, believed }
    }

    #[test]
    fn an_order_that_is_late_is_refused_and_must_not_be_acted_on() {
        let late = |acted| {
            check(&[(order("a", 1, true), true), (order("b", 2, true), true), (order("a", 1, false), acted)])
        };
        assert!(late(false).is_ok());
        assert_eq!(late(true).unwrap_err().invariant, Invariant::Fencing);
    }

    #[test]
    fn two_holders_of_one_generation_are_found() {
        assert!(check(&[(order("a", 1, false), true), (order("b", 1, true), true)]).is_err());
        assert!(check(&[(order("a", 1, true), true), (order("a", 1, true), true)]).is_ok());
    }

    #[test]
    fn a_holder_that_is_refused_is_found() {
        assert!(check(&[(order("a", 2, true), true), (order("b", 1, true), false)]).is_err());
    }
}
