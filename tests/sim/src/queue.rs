//! Owns what is going to happen: events by their moment and, within one, in the order in which they were put in.
//!
//! That order is total and depends on nothing but the run itself, which is what makes a run repeatable.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::clock::TrueTime;

/// Events that wait for their moment.
#[derive(Debug)]
pub struct Queue<E> {
    waiting: BinaryHeap<Waiting<E>>,
    /// How many were ever put in; breaks ties.
    count: u64,
}

#[derive(Debug)]
struct Waiting<E> {
    at: TrueTime,
    order: u64,
    event: E,
}

impl<E> Queue<E> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self { waiting: BinaryHeap::new(), count: 0 }
    }

    /// Lets `event` happen at `at`.
    pub fn push(&mut self, at: TrueTime, event: E) {
        self.count += 1;
        self.waiting.push(Waiting { at, order: self.count, event });
    }

    /// Takes the next event and its moment.
    pub fn pop(&mut self) -> Option<(TrueTime, E)> {
        self.waiting.pop().map(|waiting| (waiting.at, waiting.event))
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Ord for Waiting<E> {
    /// The heap gives the greatest first, and the earliest is to come first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl<E> PartialOrd for Waiting<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Waiting<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Waiting<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_moment_and_then_in_the_order_of_their_pushing() {
        let mut queue = Queue::new();
        for (at, name) in [(5, 'c'), (1, 'a'), (5, 'd'), (2, 'b')] {
            queue.push(TrueTime::from_nanos(at), name);
        }
        let order: String = std::iter::from_fn(|| queue.pop()).map(|(_, name)| name).collect();
        assert_eq!(order, "abcd");
    }
}
