//! Owns what is going to happen: events by their moment and, within one, in the order in which they were put in.
//!
//! That order is total and depends on nothing but the run itself, which is what makes a run repeatable.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::TrueTime;

/// Events that wait for their moment.
///
/// The heap moves small keys about, and the events, which are large, stay where they were put.
#[derive(Debug)]
pub struct Queue<E> {
    waiting: BinaryHeap<Reverse<Key>>,
    /// By [`Key::place`].
    events: Vec<Option<E>>,
    /// The places that hold no event.
    free: Vec<u32>,
    /// How many were ever put in; breaks ties.
    count: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    at: TrueTime,
    order: u64,
    place: u32,
}

impl<E> Queue<E> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self { waiting: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), count: 0 }
    }

    /// Lets `event` happen at `at`.
    pub fn push(&mut self, at: TrueTime, event: E) {
        self.count += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            u32::try_from(self.events.len() - 1).expect("fewer events than that wait")
        });
        self.events[place as usize] = Some(event);
        self.waiting.push(Reverse(Key { at, order: self.count, place }));
    }

    /// Takes the next event and its moment.
    pub fn pop(&mut self) -> Option<(TrueTime, E)> {
        let Reverse(Key { at, place, .. }) = self.waiting.pop()?;
        self.free.push(place);
        self.events[place as usize].take().map(|event| (at, event))
    }
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self::new()
    }
}

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

    #[test]
    fn a_place_that_was_left_is_taken_again() {
        let mut queue = Queue::new();
        for number in 0..100 {
            queue.push(TrueTime::from_nanos(number), number);
            queue.push(TrueTime::from_nanos(1_000), number);
            assert_eq!(queue.pop().map(|(_, event)| event), Some(number));
        }
        assert_eq!(queue.events.len(), 101);
        let rest: Vec<u64> = std::iter::from_fn(|| queue.pop()).map(|(_, number)| number).collect();
        assert_eq!(rest, (0..100).collect::<Vec<_>>());
    }
}
