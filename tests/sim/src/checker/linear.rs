//! Whether a history of overlapping calls on one register is linearizable, by search: Wing and Gong's algorithm with
//! Lowe's memory of what has been tried.
//!
//! Knows nothing of the cell, its log or its revisions, so that it can contradict all of them: a history is calls, and
//! when each began and ended. Invariant: [`Answer::No`] is said only when every order has been tried.

use std::collections::BTreeSet;

use super::register::{Op, Register};

/// A call, as the one who made it saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was done, and what came of it.
    pub op: Op,
    /// When it began: a place in the order of all beginnings and ends of the history.
    pub began: u64,
    /// When it ended; `None` if nobody was told, so that it may take effect at any time from its beginning, or never.
    pub ended: Option<u64>,
}

/// What came of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// There is an order.
    Yes,
    /// There is none.
    No,
    /// Too many orders are possible to try them all.
    Undecided,
}

/// Looks for an order of the calls in which each does to the register what it says, and in which a call that ended
/// before another began comes before it. Gives up after `steps_max` tries.
#[must_use]
pub fn is_linearizable(calls: &[Call], steps_max: u64) -> Answer {
    let mut search = Search::new(calls);
    for _ in 0..steps_max {
        if let Some(answer) = search.step() {
            return answer;
        }
    }
    Answer::Undecided
}

/// One beginning or end, in a list from which calls are taken out and put back.
#[derive(Clone, Copy, Debug)]
struct Entry {
    call: usize,
    is_end: bool,
    previous: usize,
    next: usize,
}

/// The search: calls are taken out of the list in the order in which they took effect.
struct Search<'c> {
    calls: Vec<&'c Call>,
    /// How many of them ended. These come first among `calls`, by their beginning; the others may be left over.
    ended: usize,
    /// Entry 0 is the list's head and its end.
    entries: Vec<Entry>,
    /// The two entries of each call; a call that did not end has none for its end.
    places: Vec<(usize, Option<usize>)>,
    /// Where the search looks.
    at: usize,
    register: Register,
    taken: Taken,
    /// The calls that ended and are still to be taken, by generation: the register never goes back to an earlier one.
    left: BTreeSet<(u64, usize)>,
    /// What was taken, with the register before it.
    path: Vec<(usize, Register)>,
    /// What has been tried already: those taken, and the register that they made.
    tried: BTreeSet<(Vec<usize>, Register)>,
}

impl<'c> Search<'c> {
    fn new(calls: &'c [Call]) -> Self {
        let (mut sorted, mut open): (Vec<_>, Vec<_>) = calls.iter().partition(|call| call.ended.is_some());
        sorted.sort_by_key(|call| call.began);
        let ended = sorted.len();
        sorted.append(&mut open);
        let mut moments: Vec<(u64, bool, usize)> = Vec::new();
        for (number, call) in sorted.iter().enumerate() {
            moments.push((call.began, false, number));
            moments.extend(call.ended.map(|at| (at, true, number)));
        }
        moments.sort_unstable();
        let last = moments.len();
        let mut entries = vec![Entry { call: usize::MAX, is_end: true, previous: last, next: last.min(1) }];
        let mut places = vec![(0, None); sorted.len()];
        for (index, (_, is_end, call)) in moments.into_iter().enumerate() {
            let place = index + 1;
            let next = if place == last { 0 } else { place + 1 };
            entries.push(Entry { call, is_end, previous: index, next });
            if is_end { places[call].1 = Some(place) } else { places[call].0 = place }
        }
        let by_generation = |number: usize| Some((sorted[number].op.generation()?, number));
        let left = (0..ended).filter_map(by_generation).collect();
        let taken = Taken { which: vec![false; sorted.len()], first_left: 0, beyond: BTreeSet::new() };
        let (at, register, path, tried) = (entries[0].next, Register::Beginning, Vec::new(), BTreeSet::new());
        Self { calls: sorted, ended, entries, places, at, register, taken, left, path, tried }
    }

    /// Tries one thing. Says the answer once there is one.
    fn step(&mut self) -> Option<Answer> {
        if self.taken.first_left >= self.ended {
            return Some(Answer::Yes);
        }
        let Entry { call, is_end, next, .. } = self.entries[self.at];
        if is_end {
            // Whoever this is had to take effect by now: what was taken last was wrong.
            let Some((call, before)) = self.path.pop() else { return Some(Answer::No) };
            self.put_back(call);
            self.register = before;
            self.at = self.entries[self.places[call].0].next;
            return None;
        }
        self.at = next;
        let op = &self.calls[call].op;
        if op
            .generation()
            .is_some_and(|generation| self.left.first().is_some_and(|(least, _)| *least < generation))
        {
            // What has a smaller generation could not be taken any more.
            return None;
        }
        if let Some(after) = self.register.after(op) {
            self.taken.add(call);
            if self.tried.insert((self.taken.name(), after.clone())) {
                let before = std::mem::replace(&mut self.register, after);
                self.path.push((call, before));
                self.take_out(call);
                self.at = self.entries[0].next;
            } else {
                self.taken.remove(call);
            }
        }
        None
    }

    fn take_out(&mut self, call: usize) {
        if let Some(generation) = self.calls[call].op.generation() {
            self.left.remove(&(generation, call));
        }
        let (begin, end) = self.places[call];
        for place in [Some(begin), end].into_iter().flatten() {
            let Entry { previous, next, .. } = self.entries[place];
            self.entries[previous].next = next;
            self.entries[next].previous = previous;
        }
    }

    /// Undoes `take_out`, in the opposite order.
    fn put_back(&mut self, call: usize) {
        self.taken.remove(call);
        if let Some(generation) = self.calls[call].op.generation()
            && call < self.ended
        {
            self.left.insert((generation, call));
        }
        let (begin, end) = self.places[call];
        for place in [end, Some(begin)].into_iter().flatten() {
            let Entry { previous, next, .. } = self.entries[place];
            self.entries[previous].next = place;
            self.entries[next].previous = place;
        }
    }
}

/// Which calls were taken. Mostly all up to some place, and few beyond it, which keeps their name short.
struct Taken {
    which: Vec<bool>,
    /// The first that was not taken.
    first_left: usize,
    /// Those that were, behind it.
    beyond: BTreeSet<usize>,
}

impl Taken {
    fn add(&mut self, call: usize) {
        self.which[call] = true;
        self.beyond.insert(call);
        while self.which.get(self.first_left) == Some(&true) {
            self.beyond.remove(&self.first_left);
            self.first_left += 1;
        }
    }

    fn remove(&mut self, call: usize) {
        self.which[call] = false;
        self.beyond.remove(&call);
        if call < self.first_left {
            self.beyond.extend(call + 1..self.first_left);
            self.first_left = call;
        }
    }

    /// Two sets of calls have the same name only if they are the same.
    fn name(&self) -> Vec<usize> {
        std::iter::once(self.first_left).chain(self.beyond.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::register::{read, write};
    use super::*;

    fn call(began: u64, ended: impl Into<Option<u64>>, op: Op) -> Call {
        Call { op, began, ended: ended.into() }
    }

    fn answer(calls: &[Call]) -> Answer {
        is_linearizable(calls, 100_000)
    }

    #[test]
    fn calls_that_do_not_overlap_keep_their_order() {
        let history = [call(0, 1, write("a", 1)), call(2, 3, write("b", 2)), call(4, 5, read("b", 2))];
        assert_eq!(answer(&history), Answer::Yes);
        let stale = [call(0, 1, write("a", 1)), call(2, 3, write("b", 2)), call(4, 5, read("a", 1))];
        assert_eq!(answer(&stale), Answer::No);
    }

    #[test]
    fn a_read_that_overlaps_a_write_gives_the_old_or_the_new() {
        for read in [read("a", 1), read("b", 2)] {
            let history = [call(0, 1, write("a", 1)), call(2, 5, write("b", 2)), call(3, 4, read)];
            assert_eq!(answer(&history), Answer::Yes);
        }
    }

    #[test]
    fn nobody_reads_the_old_after_somebody_has_read_the_new() {
        let history = [
            call(0, 1, write("a", 1)),
            call(2, 9, write("b", 2)),
            call(3, 4, read("b", 2)),
            call(5, 6, read("a", 1)),
        ];
        assert_eq!(answer(&history), Answer::No);
    }

    #[test]
    fn a_write_without_an_answer_may_take_effect_late_or_never() {
        let begin = [call(0, 1, write("a", 1)), call(2, None, write("b", None))];
        let with = |more: &[Call]| answer(&[&begin[..], more].concat());
        assert_eq!(with(&[call(3, 4, read("a", 1))]), Answer::Yes);
        assert_eq!(with(&[call(3, 4, read("a", 1)), call(5, 6, read("b", 9))]), Answer::Yes);
        assert_eq!(with(&[call(3, 4, read("b", 9)), call(5, 6, read("a", 1))]), Answer::No);
    }

    #[test]
    fn a_write_does_not_take_effect_before_it_began() {
        let history = [call(0, 1, write("a", 1)), call(2, 3, read("b", 2)), call(4, None, write("b", None))];
        assert_eq!(answer(&history), Answer::No);
    }

    #[test]
    fn a_search_that_takes_too_long_is_given_up() {
        let many: Vec<Call> = (0..20).map(|number| call(number, None, write("a", None))).collect();
        let history = [many, vec![call(50, 51, read("b", 1)), call(52, 53, read("c", 2))]].concat();
        assert_eq!(is_linearizable(&history, 1_000), Answer::Undecided);
    }

    /// What a history of a few calls is, by trying every order of every choice.
    fn is_linearizable_by_force(calls: &[Call], register: &Register) -> bool {
        if calls.iter().all(|call| call.ended.is_none()) {
            return true;
        }
        (0..calls.len()).any(|index| {
            let mut left = calls.to_vec();
            let next = left.remove(index);
            let too_early = left.iter().any(|other| other.ended.is_some_and(|ended| ended < next.began));
            !too_early
                && register.after(&next.op).is_some_and(|after| is_linearizable_by_force(&left, &after))
        })
    }

    fn any_call() -> impl Strategy<Value = Call> {
        let op = (any::<bool>(), 0_u8..3, 1_u64..5, any::<bool>()).prop_map(
            |(is_read, letter, generation, told)| {
                let contents = Bytes::copy_from_slice(&[b'a' + letter]);
                match is_read {
                    true => Op::Read { contents, generation },
                    false => {
                        Op::Write { contents, if_generation: None, generation: told.then_some(generation) }
                    }
                }
            },
        );
        (op, 0_u64..8, prop::option::of(1_u64..6)).prop_map(|(op, began, length)| Call {
            op,
            began: 2 * began,
            ended: length.map(|length| 2 * (began + length) - 1),
        })
    }

    proptest! {
        #[test]
        fn the_search_agrees_with_trying_everything(calls in prop::collection::vec(any_call(), 0..6)) {
            let expected = if is_linearizable_by_force(&calls, &Register::Beginning) { Answer::Yes } else { Answer::No };
            prop_assert_eq!(answer(&calls), expected);
        }

        /// Calls that take effect one after the other, at moments within their intervals, are linearizable; and no
        /// longer if the last read gives what was overwritten before everything else began.
        #[test]
        fn long_histories_are_decided(spans in prop::collection::vec((0_u64..9, 0_u64..9, any::<bool>()), 50..300)) {
            let (mut generation, mut calls) = (1, vec![call(0, 1, write("first", 1))]);
            let contents = |generation: u64| Bytes::from(generation.to_string());
            calls.push(Call { op: Op::Write { contents: contents(2), if_generation: None, generation: Some(2) }, began: 2, ended: Some(3) });
            generation += 1;
            for (number, (before, after, is_read)) in (0_u64..).zip(spans) {
                let point = 100 + number * 4;
                generation += u64::from(!is_read);
                let contents = contents(generation);
                let op = match is_read {
                    true => Op::Read { contents, generation },
                    false => Op::Write { contents, if_generation: None, generation: Some(generation) },
                };
                calls.push(Call { op, began: point - 2 * before, ended: Some(point + 2 * after + 1) });
            }
            prop_assert_eq!(is_linearizable(&calls, 1_000_000), Answer::Yes);
            calls.push(call(9_998, 9_999, read("first", 1)));
            prop_assert_eq!(is_linearizable(&calls, 1_000_000), Answer::No);
        }
    }
}
