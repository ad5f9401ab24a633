//! Owns the cell's past: the state after each revision of the canonical log, as long as somebody may have to be judged
//! by it.
//!
//! A state is a clone that shares nearly everything with the next, so keeping thousands costs little. Invariant: what
//! is kept is without a gap, and ends with the newest.

use std::collections::VecDeque;

use holdfast_state::State;
use holdfast_types::Revision;

/// The most that are kept. Who asks for older ones is not judged.
const STATES_MAX: usize = 20_000;

/// The states, by revision.
#[derive(Debug, Default)]
pub struct Past {
    /// Rising. A revision that changed things in several commands has the state after the last.
    states: VecDeque<(Revision, State)>,
}

impl Past {
    /// Takes in the state after a command.
    pub fn see(&mut self, state: &State) {
        let revision = state.revision();
        if self.states.back().is_some_and(|(newest, _)| *newest == revision) {
            self.states.pop_back();
        }
        self.states.push_back((revision, state.clone()));
        if self.states.len() > STATES_MAX {
            self.states.pop_front();
        }
    }

    /// Nobody will ask for a state before that of `revision`.
    pub fn forget_before(&mut self, revision: Revision) {
        // The state at a revision may be under an earlier one.
        while self.states.get(1).is_some_and(|(next, _)| *next <= revision) {
            self.states.pop_front();
        }
    }

    /// The state at a revision, if it is kept.
    #[must_use]
    pub fn at(&self, revision: Revision) -> Option<&State> {
        self.since(revision)?.next().map(|(_, state)| state)
    }

    /// The states from that of `floor` on, each with its revision, if all of them are kept.
    pub fn since(&self, floor: Revision) -> Option<impl Iterator<Item = (Revision, &State)>> {
        let first = self.states.partition_point(|(revision, _)| *revision <= floor).checked_sub(1)?;
        Some(self.states.range(first..).map(|(revision, state)| (*revision, state)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::history::cell;
    use super::*;

    #[test]
    fn the_state_of_a_revision_is_the_last_that_began_by_then() {
        let mut cell = cell();
        let mut past = Past::default();
        past.see(&cell.state);
        let begin = cell.state.revision();
        for contents in ["a", "b", "c"] {
            cell.write("/file", contents);
            past.see(&cell.state);
        }
        let newest = cell.state.revision();
        assert_eq!(past.at(begin).map(State::revision), Some(begin));
        assert_eq!(past.at(newest).map(State::hash), Some(cell.state.hash()));
        assert_eq!(past.since(begin).map(Iterator::count), Some(4));
        past.forget_before(newest);
        assert!(past.at(begin).is_none(), "it is forgotten");
        assert_eq!(past.since(newest).map(Iterator::count), Some(1));
    }
}
