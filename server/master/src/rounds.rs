//! Leadership rounds: who waits for which.
//!
//! Whatever depends on still being master (a lease, a read, "there is no such session") waits for a round that
//! began after it arrived (design.md §4). Rounds are shared: everything that arrived before a round began is
//! confirmed by it. This file only knows who waits; the replica runs the rounds.

use std::collections::VecDeque;

use holdfast_types::planted;

use crate::interface::RoundId;

/// So many rounds may be under way at once. More would cost messages; fewer would make an arrival wait for the
/// whole of the round before its own.
const ROUNDS_UNDER_WAY_MAX: usize = 2;

/// Those who wait, by round.
#[derive(Debug)]
pub(crate) struct Rounds<W> {
    /// The number of the last round asked for.
    last: RoundId,
    /// Rounds under way, oldest first, with those whom each confirms.
    under_way: VecDeque<(RoundId, Vec<W>)>,
    /// Those who came since the last round began.
    next: Vec<W>,
}

impl<W> Rounds<W> {
    pub(crate) fn new() -> Self {
        Self { last: RoundId(0), under_way: VecDeque::new(), next: Vec::new() }
    }

    /// Lets `waiter` wait for a round that begins later than now.
    pub(crate) fn wait(&mut self, waiter: W) {
        self.next.push(waiter);
    }

    /// The next round to ask for, if somebody needs one and there is room. Called when a batch of inputs is
    /// through, so that the whole batch shares it.
    pub(crate) fn begin(&mut self) -> Option<RoundId> {
        if self.next.is_empty() || self.under_way.len() >= ROUNDS_UNDER_WAY_MAX {
            return None;
        }
        self.last = RoundId(self.last.0 + 1);
        self.under_way.push_back((self.last, std::mem::take(&mut self.next)));
        Some(self.last)
    }

    /// Those whom `round` and the rounds before it confirm, in the order of their arrival.
    pub(crate) fn confirmed(&mut self, round: RoundId) -> Vec<W> {
        let mut waiters = Vec::new();
        while self.under_way.front().is_some_and(|(oldest, _)| *oldest <= round) {
            let (_, mut confirmed) = self.under_way.pop_front().expect("front was there");
            if waiters.is_empty() { waiters = confirmed } else { waiters.append(&mut confirmed) }
        }
        if planted!(RoundTakesLatecomers) {
            waiters.extend(self.under_way.drain(..).flat_map(|(_, later)| later));
            waiters.append(&mut self.next);
        }
        waiters
    }

    /// Everybody who still waits; the master is leaving office.
    pub(crate) fn into_waiters(self) -> impl Iterator<Item = W> {
        self.under_way.into_iter().flat_map(|(_, waiters)| waiters).chain(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_confirms_what_came_before_it_and_nothing_later() {
        let mut rounds = Rounds::new();
        assert_eq!(rounds.begin(), None);
        rounds.wait("a");
        rounds.wait("b");
        let first = rounds.begin().unwrap();
        rounds.wait("c");
        assert_eq!(rounds.confirmed(first), ["a", "b"]);
        let second = rounds.begin().unwrap();
        assert!(second > first);
        assert_eq!(rounds.confirmed(second), ["c"]);
    }

    #[test]
    fn a_later_round_confirms_the_earlier_ones_too() {
        let mut rounds = Rounds::new();
        rounds.wait(1);
        rounds.begin().unwrap();
        rounds.wait(2);
        let second = rounds.begin().unwrap();
        rounds.wait(3);
        assert_eq!(rounds.begin(), None, "no third round while two are under way");
        assert_eq!(rounds.confirmed(second), [1, 2]);
        assert_eq!(rounds.into_waiters().collect::<Vec<_>>(), [3]);
    }
}
