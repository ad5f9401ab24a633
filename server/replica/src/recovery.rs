//! What a replica may begin with, decided from what its disk has: pure, so that the daemon and the simulator decide
//! alike. The daemon reads the files (`storage::recovery`), and says what is to be done about a refusal.
//!
//! - The commit index is raised to the snapshot's. Log that does not join the snapshot was about to be replaced by
//!   it when the process died, and is discarded.
//! - A damaged newest snapshot is passed over only if what is older still joins the log, and the log reaches as far
//!   as the damaged one did.
//!
//! Invariant: the replica begins with everything that it ever acknowledged, or not at all (design.md §5, §8).

use holdfast_types::Term;

use crate::StateAt;
use crate::raftpb::{Entry, HardState};

/// A log that was fitted to a state.
#[derive(Debug, PartialEq)]
pub struct Fit {
    /// With its commit index raised to the state's.
    pub hard_state: HardState,
    /// What joins the state.
    pub entries: Vec<Entry>,
    /// How many entries did not join the state, and are not among `entries`.
    pub discarded: usize,
}

/// Where a state stands in the log.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The last entry that it has applied.
    pub index: u64,
    /// That entry's term.
    pub term: Term,
}

impl Place {
    /// Where `at` stands.
    #[must_use]
    pub fn of(at: &StateAt) -> Self {
        Self { index: at.index, term: at.term }
    }
}

/// Fits the log to the state that stands at `base`. `damaged_index`: the log must reach so far by itself, because
/// a snapshot that did is damaged.
///
/// # Errors
///
/// What keeps them from fitting, for a person: the replica must not start.
pub fn fit(
    base: Option<Place>,
    damaged_index: Option<u64>,
    mut hard_state: HardState,
    mut entries: Vec<Entry>,
) -> Result<Fit, String> {
    let Some(base) = base else {
        if entries.is_empty() && hard_state.commit == 0 && damaged_index.is_none() {
            return Ok(Fit { hard_state, entries, discarded: 0 });
        }
        return Err(
            "there is no snapshot, and the log is not that of a replica which has yet to join".to_owned()
        );
    };
    let (index, term) = (base.index, base.term.0);
    if let Some(first) = entries.first().filter(|first| first.index > index + 1) {
        return Err(format!(
            "the log begins at entry {}, and the state before it ends at {index}",
            first.index
        ));
    }
    let joins = joins(base, &entries);
    if let Some(damaged) = damaged_index {
        let last = entries.last().map_or(0, |last| last.index);
        if !joins || last < damaged {
            return Err(format!("the log ends at entry {last} and must reach entry {damaged}"));
        }
    }
    let discarded = if joins { 0 } else { std::mem::take(&mut entries).len() };
    let last = entries.last().map_or(index, |last| last.index.max(index));
    if hard_state.commit > last {
        return Err(format!("the log ends at entry {last}, and entry {} was committed", hard_state.commit));
    }
    hard_state.commit = hard_state.commit.max(index);
    if hard_state.term < term {
        hard_state.term = term;
        hard_state.vote = 0;
    }
    match entries.last() {
        Some(last) if last.term > hard_state.term => {
            Err(format!("entry {} is of term {}, later than the hard state's", last.index, last.term))
        }
        _ => Ok(Fit { hard_state, entries, discarded }),
    }
}

/// Whether the log goes on from the state, or through it: an entry at the state's place is of its term.
fn joins(base: Place, entries: &[Entry]) -> bool {
    match (entries.first(), entries.last()) {
        (Some(first), Some(last)) if first.index <= base.index && base.index <= last.index => {
            let at_base = usize::try_from(base.index - first.index).ok().and_then(|at| entries.get(at));
            at_base.is_some_and(|entry| entry.term == base.term.0)
        }
        (Some(first), _) => first.index == base.index + 1,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(
        term: u64,
        commit: u64,
        indexes: std::ops::RangeInclusive<u64>,
        of: u64,
    ) -> (HardState, Vec<Entry>) {
        let entry = |index| Entry { index, term: of, ..Entry::default() };
        (HardState { term, commit, vote: 2, ..HardState::default() }, indexes.map(entry).collect())
    }

    fn fit_to(
        (index, term): (u64, u64),
        damaged: Option<u64>,
        (hard_state, entries): (HardState, Vec<Entry>),
    ) -> Result<Fit, String> {
        fit(Some(Place { index, term: Term(term) }), damaged, hard_state, entries)
    }

    #[test]
    fn uncommitted_log_of_another_history_is_discarded() {
        let fit = fit_to((20, 4), None, log(5, 8, 2..=25, 3)).unwrap();
        assert_eq!((fit.hard_state.commit, fit.hard_state.term, fit.hard_state.vote), (20, 5, 2));
        assert_eq!((fit.entries.len(), fit.discarded), (0, 24));
    }

    #[test]
    fn a_log_that_ends_before_what_was_committed_is_refused() {
        let misfit = fit_to((1, 1), None, log(2, 9, 2..=8, 2)).unwrap_err();
        assert!(misfit.contains("entry 9 was committed"), "{misfit}");
    }

    #[test]
    fn a_log_without_its_hard_states_term_is_refused() {
        let misfit = fit_to((1, 1), None, log(2, 4, 2..=8, 3)).unwrap_err();
        assert!(misfit.contains("entry 8 is of term 3"), "{misfit}");
    }

    #[test]
    fn the_log_makes_up_for_a_damaged_snapshot_only_if_it_reaches_as_far() {
        assert_eq!(fit_to((4, 2), Some(8), log(2, 8, 2..=9, 2)).unwrap().entries.len(), 8);
        let misfit = fit_to((4, 2), Some(20), log(2, 8, 2..=9, 2)).unwrap_err();
        assert!(misfit.contains("must reach entry 20"), "{misfit}");
    }
}
