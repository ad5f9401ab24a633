//! I6 as those see it who count: every increment that was acknowledged took effect once, and none did twice.
//!
//! Knows nothing of the cell: each counter is a number that begins at zero and is raised by one at a time, by compare
//! and set. No two increments make the same number, because each would have had to find the one before it.

use std::collections::BTreeMap;

use crate::verdict::{Invariant, Violation};

/// The history of counters.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    counters: BTreeMap<String, Counter>,
}

#[derive(Clone, Debug, Default)]
struct Counter {
    /// Who was told that he made each number.
    made: BTreeMap<u64, String>,
    /// How many increments may have taken effect without anybody being told.
    unknown: u64,
}

impl Counters {
    /// Somebody was told that his increment took effect and made the counter `number`.
    ///
    /// # Errors
    ///
    /// If another was told so too.
    pub fn counted(&mut self, counter: &str, who: &str, number: u64) -> Result<(), Violation> {
        let made = &mut self.counters.entry(counter.to_owned()).or_default().made;
        match made.insert(number, who.to_owned()) {
            Some(other) => Err(broken(format!(
                "{other} and {who} were both told that they counted {counter} up to {number}"
            ))),
            None => Ok(()),
        }
    }

    /// Nobody was told whether an increment took effect.
    pub fn unknown(&mut self, counter: &str) {
        self.counters.entry(counter.to_owned()).or_default().unknown += 1;
    }

    /// At the end, when nothing is under way any more, a counter is at `number`.
    ///
    /// # Errors
    ///
    /// If increments were lost, or took effect twice.
    pub fn check(&self, counter: &str, number: u64) -> Result<(), Violation> {
        let none = Counter::default();
        let Counter { made, unknown } = self.counters.get(counter).unwrap_or(&none);
        let told = made.len() as u64;
        if let Some((beyond, who)) = made.range(number.saturating_add(1)..).next() {
            return Err(broken(format!("{who} counted {counter} up to {beyond}, and it ends at {number}")));
        }
        if number < told || number > told + unknown {
            return Err(broken(format!(
                "{counter} ends at {number} after {told} increments that were acknowledged and {unknown} that may have been made"
            )));
        }
        Ok(())
    }
}

fn broken(what: String) -> Violation {
    Violation::new(Invariant::ExactlyOnce, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(numbers: &[u64]) -> Counters {
        let mut counters = Counters::default();
        for number in numbers {
            counters.counted("/counter", "a", *number).unwrap();
        }
        counters
    }

    #[test]
    fn an_increment_that_is_lost_is_found() {
        assert!(counted(&[1, 2, 3]).check("/counter", 3).is_ok());
        assert!(counted(&[1, 2, 3]).check("/counter", 2).is_err());
        assert!(counted(&[7]).check("/counter", 3).is_err(), "it was told beyond the end");
    }

    #[test]
    fn an_increment_that_took_effect_twice_is_found() {
        assert!(counted(&[1, 2]).check("/counter", 3).is_err());
        assert!(counted(&[1, 2]).counted("/counter", "b", 2).is_err());
        let mut counters = counted(&[1, 2]);
        counters.unknown("/counter");
        assert!(counters.check("/counter", 3).is_ok(), "nobody was told of it");
        assert!(counters.check("/counter", 4).is_err());
    }
}
