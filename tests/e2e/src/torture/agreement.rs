//! Whether replicas that have applied the same are in the same state (I9), by what they say of it.
//!
//! Asks nobody. Invariant: who says nothing of its state agrees with nobody.

use std::collections::BTreeMap;

use holdfast::CellStatus;

/// What replicas say of themselves with a hash of their states, if all do, and have applied the same.
pub(super) fn comparable(statuses: Vec<Option<CellStatus>>) -> Option<Vec<(CellStatus, u64)>> {
    let hashed = |status: CellStatus| status.state_hash.map(|hash| (status, hash));
    let all: Vec<_> = statuses.into_iter().map(|status| status.and_then(hashed)).collect::<Option<_>>()?;
    let (first, _) = all.first()?;
    all.iter().all(|(status, _)| status.applied_index == first.applied_index).then_some(all)
}

/// The states that replicas are in which have applied the same: what each is, and who is in it.
pub(super) fn distinct(statuses: &[(CellStatus, u64)]) -> Vec<String> {
    let mut states: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (status, hash) in statuses {
        let CellStatus { applied_index, revision, sessions, nodes, .. } = status;
        let state = format!(
            "entry {applied_index}, revision {revision}, {sessions} sessions, {nodes} nodes, state hash {hash:016x}"
        );
        states.entry(state).or_default().push(status.replica);
    }
    states.into_iter().map(|(state, replicas)| format!("{state} (replicas {replicas:?})")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(replica: u64, applied_index: u64, state_hash: Option<u64>) -> CellStatus {
        CellStatus { replica, applied_index, state_hash, ..CellStatus::default() }
    }

    #[test]
    fn replicas_that_have_applied_the_same_and_differ_are_told_apart() {
        let states = |hashes: [u64; 3]| {
            let statuses = (1..).zip(hashes).map(|(replica, hash)| Some(status(replica, 9, Some(hash))));
            distinct(&comparable(statuses.collect()).unwrap())
        };
        assert_eq!(states([5, 5, 5]).len(), 1);
        let apart = states([5, 6, 5]);
        assert!(apart.len() == 2 && apart[0].ends_with("(replicas [1, 3])"), "{apart:?}");
    }

    #[test]
    fn replicas_that_say_nothing_of_their_states_do_not_agree() {
        let good = || Some(status(1, 9, Some(5)));
        assert!(comparable(vec![good(), Some(status(2, 9, Some(6)))]).is_some());
        for other in [None, Some(status(2, 9, None)), Some(status(2, 8, Some(5)))] {
            assert_eq!(comparable(vec![good(), other]), None);
        }
        assert_eq!(comparable(vec![Some(status(1, 9, None)), Some(status(2, 9, None))]), None);
        assert_eq!(comparable(Vec::new()), None);
    }
}
