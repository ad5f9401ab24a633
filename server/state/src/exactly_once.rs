//! The window of a session's requests: which are over, and what came of the others (design.md §3, I6).
//!
//! A number is acknowledged, recorded or new. Acknowledged ones lie at or below a floor, or in ranges above it,
//! and are refused for ever; recorded ones keep their outcome. Nothing here decides a request. Invariant: a
//! number only ever moves from new to recorded to acknowledged, and no number is two of them.

use std::sync::Arc;

use holdfast_proto::client::v1::{Acknowledged, Outcome, Refusal};
use holdfast_types::{RequestNumber, planted};
use imbl::OrdMap;
use prost::Message;

use crate::acknowledgements::Acknowledgements;

/// What is known of a request's number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Recorded<'s> {
    /// Not seen yet.
    New,
    /// Its client knows the outcome, and has said so. It is not decided again.
    Acknowledged,
    /// Decided; a retry gets this.
    Outcome(&'s Outcome),
}

/// From so many bytes of outcomes on, only requests that give something back are decided: see [`outcome_bytes`].
pub(crate) const OUTCOMES_BYTES_MAX: usize = 3 << 20;
/// From so many bytes on, not even those.
pub(crate) const OUTCOMES_BYTES_LAST: usize = (4 << 20) - (64 << 10);

/// What an outcome takes in the memory of each replica: what it encodes to, and what the values around it take.
pub(crate) fn outcome_bytes(outcome: &Outcome) -> usize {
    outcome.encoded_len() + 256
}

/// A session's requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Window {
    /// What its client has the outcomes of.
    acknowledged: Acknowledgements,
    /// What came of the others that were seen.
    outcomes: OrdMap<RequestNumber, Arc<Outcome>>,
    /// What these take: the sum of their [`outcome_bytes`].
    bytes: usize,
}

impl Window {
    /// What is known of a number.
    pub(crate) fn recorded(&self, number: RequestNumber) -> Recorded<'_> {
        if self.acknowledged.contains(number.0) && !planted!(FloorForgotten) {
            return Recorded::Acknowledged;
        }
        match self.outcomes.get(&number) {
            Some(outcome) => Recorded::Outcome(outcome),
            None => Recorded::New,
        }
    }

    /// Keeps the outcome of a new number.
    pub(crate) fn record(&mut self, number: RequestNumber, outcome: Outcome) {
        self.bytes += outcome_bytes(&outcome);
        let earlier = self.outcomes.insert(number, Arc::new(outcome));
        self.bytes -= earlier.as_deref().map_or(0, outcome_bytes);
        assert!(earlier.is_none() || planted!(RetryDecidedAgain), "request {number} was decided twice");
    }

    /// How many outcomes are kept.
    pub(crate) fn len(&self) -> usize {
        self.outcomes.len()
    }

    /// What the outcomes that are kept take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether [`Window::bytes`] is the right sum.
    pub(crate) fn bytes_are_right(&self) -> bool {
        self.bytes == self.outcomes.values().map(|outcome| outcome_bytes(outcome)).sum::<usize>()
    }

    fn forget(&mut self, number: RequestNumber) {
        self.bytes -= self.outcomes.remove(&number).as_deref().map_or(0, outcome_bytes);
    }

    /// The outcomes that are kept, by number.
    pub(crate) fn outcomes(&self) -> impl Iterator<Item = (RequestNumber, &Outcome)> {
        self.outcomes.iter().map(|(number, outcome)| (*number, &**outcome))
    }

    /// What is acknowledged.
    pub(crate) fn acknowledged(&self) -> Acknowledged {
        self.acknowledged.to_wire()
    }

    /// Forgets the outcomes of what the client acknowledges. Acknowledgements add up: an old one takes nothing
    /// back. Honest clients leave at most as many gaps as they have requests in flight, so more ranges than
    /// `ranges_max` are refused, and nothing changes.
    pub(crate) fn acknowledge(&mut self, news: &Acknowledged, ranges_max: u32) -> Result<(), Refusal> {
        if news.ranges.is_empty() && news.through <= self.acknowledged.through() {
            // Most commands bring no news, and pay nothing for the ranges that are there.
            return Ok(());
        }
        self.acknowledged.merge(news, ranges_max)?;
        let through = self.acknowledged.through();
        while self.outcomes.get_min().is_some_and(|(number, _)| number.0 <= through) {
            let oldest = self.outcomes.get_min().map(|(number, _)| *number);
            self.forget(oldest.expect("there is one"));
        }
        for range in &news.ranges {
            let within = RequestNumber(range.first)..=RequestNumber(range.last);
            let numbers: Vec<_> = self.outcomes.range(within).map(|(number, _)| *number).collect();
            for number in numbers {
                self.forget(number);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use holdfast_proto::client::v1::NumberRange;
    use proptest::prelude::*;

    use super::*;

    fn acknowledged(through: u64, ranges: &[(u64, u64)]) -> Acknowledged {
        let ranges = ranges.iter().map(|&(first, last)| NumberRange { first, last }).collect();
        Acknowledged { through, ranges }
    }

    #[test]
    fn ranges_that_touch_the_floor_raise_it() {
        let mut window = Window::default();
        window.acknowledge(&acknowledged(2, &[(4, 5), (7, 7)]), 8).unwrap();
        window.acknowledge(&acknowledged(3, &[]), 8).unwrap();
        assert_eq!(window.acknowledged(), acknowledged(5, &[(7, 7)]));
        window.acknowledge(&acknowledged(0, &[(6, 6)]), 8).unwrap();
        assert_eq!(window.acknowledged(), acknowledged(7, &[]));
    }

    #[test]
    fn ranges_out_of_order_or_of_no_end_are_taken_or_refused_without_harm() {
        let mut window = Window::default();
        window.acknowledge(&acknowledged(0, &[(9, u64::MAX), (5, 6)]), 8).unwrap();
        assert_eq!(window.acknowledged(), acknowledged(0, &[(5, 6), (9, u64::MAX)]));
        window.acknowledge(&acknowledged(0, &[(8, 7)]), 8).unwrap_err();
        window.acknowledge(&acknowledged(u64::MAX, &[(1, 1)]), 8).unwrap();
        assert_eq!(window.acknowledged(), acknowledged(u64::MAX, &[]));
    }

    #[test]
    fn more_gaps_than_requests_in_flight_are_refused() {
        let mut window = Window::default();
        let refusal = window.acknowledge(&acknowledged(0, &[(2, 2), (4, 4), (6, 6)]), 2).unwrap_err();
        assert!(refusal.message.contains("3"), "{}", refusal.message);
        assert_eq!(window, Window::default());
    }

    proptest! {
        /// Against a set of numbers, which is what the window is in the long form.
        #[test]
        fn a_window_is_a_set_of_acknowledged_numbers(
            steps in prop::collection::vec((0_u64..12, prop::collection::vec((1_u64..40, 0_u64..5), 0..4), 1_u64..48), 0..20)
        ) {
            let (mut window, mut model) = (Window::default(), BTreeSet::new());
            let mut recorded = BTreeSet::new();
            for (through, ranges, number) in steps {
                let ranges: Vec<_> = ranges.into_iter().map(|(first, more)| (first, first + more)).collect();
                window.acknowledge(&acknowledged(through, &ranges), 64).unwrap();
                model.extend(1..=through);
                model.extend(ranges.iter().flat_map(|&(first, last)| first..=last));
                recorded.retain(|number| !model.contains(number));
                let number = RequestNumber(number);
                if window.recorded(number) == Recorded::New {
                    window.record(number, Outcome::default());
                    recorded.insert(number.0);
                }
                for number in 1..50 {
                    let expected = match (model.contains(&number), recorded.contains(&number)) {
                        (true, _) => Recorded::Acknowledged,
                        (false, true) => Recorded::Outcome(&Outcome { revision: 0, result: None }),
                        (false, false) => Recorded::New,
                    };
                    prop_assert_eq!(window.recorded(RequestNumber(number)), expected);
                }
                let Acknowledged { through, ranges } = window.acknowledged();
                prop_assert!(ranges.windows(2).all(|two| two[0].last + 1 < two[1].first));
                prop_assert!(ranges.first().is_none_or(|first| through + 1 < first.first));
            }
        }
    }
}
