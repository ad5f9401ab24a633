//! How often each kind of fault comes, of all that come: drawn from the seed, and some never in a run. A run that
//! has few kinds of fault goes deeper into what those bring about (swarm testing).

use std::fmt;

use crate::rng::Rng;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident: $label:literal, $weight:literal,)*) => {
        /// A kind of fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
        }

        /// Each kind with its name and how often it comes on the average.
        const KINDS: &[(Kind, &str, u64)] = &[$((Kind::$kind, $label, $weight),)*];
    };
}

kinds! {
    /// A replica dies.
    Crash: "crash", 4,
    /// All replicas die.
    PowerFailure: "power failure", 1,
    /// The network falls apart.
    Partition: "partition", 6,
    /// A replica is stopped for a while.
    ReplicaPause: "replica pause", 2,
    /// A client is stopped for a while.
    ClientPause: "client pause", 1,
    /// Streams break.
    Resets: "broken streams", 3,
    /// A client dies.
    ClientCrash: "client crash", 1,
    /// The master sleeps until it is deposed.
    Overslept: "overslept master", 1,
    /// The master hardly runs.
    Stutter: "stuttering master", 2,
    /// A client's library does not run.
    Starve: "starved client", 1,
    /// A session is ended from outside.
    Kill: "ended session", 1,
    /// Leases may be longer, or not.
    ChangeLeases: "changed leases", 1,
    /// A replica stops in the normal way.
    HandOver: "hand-over", 2,
    /// A sync fails.
    SyncFails: "failing sync", 1,
    /// A disk is full.
    DiskFull: "full disk", 1,
    /// A disk takes its time.
    SlowDisk: "slow disk", 2,
    /// Something durable is damaged.
    Damage: "damaged disk", 2,
    /// A disk is emptied.
    Wipe: "wiped disk", 1,
    /// A replica is added.
    Grow: "addition", 2,
    /// A replica is removed.
    Shrink: "removal", 2,
    /// A replica is replaced.
    Replace: "replacement", 1,
    /// A hand-over that may come to nothing.
    LoseHeir: "lost heir", 2,
}

/// How often each kind comes in a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultMix {
    /// By kind: how many of `total` are of it.
    weights: Vec<(Kind, u64)>,
    /// Never 0.
    total: u64,
}

impl FaultMix {
    /// A mix of chance: a third of the kinds never come, and some come far more often than on the average.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let weights: Vec<(Kind, u64)> = KINDS
            .iter()
            .map(|(kind, _, weight)| (*kind, weight * [0, 0, 1, 2, 2, 7][rng.index(6)]))
            .filter(|(_, weight)| *weight > 0)
            .collect();
        if weights.is_empty() { Self::even() } else { Self::of(weights) }
    }

    /// Clients die, and nothing else goes wrong.
    pub(crate) fn of_dying_clients() -> Self {
        Self::of(vec![(Kind::ClientCrash, 1)])
    }

    /// Each kind as often as on the average.
    #[must_use]
    pub fn even() -> Self {
        Self::of(KINDS.iter().map(|(kind, _, weight)| (*kind, *weight)).collect())
    }

    fn of(weights: Vec<(Kind, u64)>) -> Self {
        let total = weights.iter().map(|(_, weight)| weight).sum();
        Self { weights, total }
    }

    /// The kind of the next fault.
    pub(super) fn choose(&self, rng: &mut Rng) -> Kind {
        let mut place = rng.below(self.total);
        for (kind, weight) in &self.weights {
            match place.checked_sub(*weight) {
                Some(rest) => place = rest,
                None => return *kind,
            }
        }
        unreachable!("the place is below the sum of all weights")
    }
}

impl fmt::Display for FaultMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = self.weights.iter().map(|(kind, weight)| {
            let label = KINDS.iter().find(|(other, ..)| other == kind).map_or("", |(_, label, _)| label);
            format!("{weight} {label}")
        });
        write!(f, "of {} faults {}", self.total, told.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_kind_comes_in_some_runs_and_in_some_never() {
        let mut rng = Rng::new(1);
        let mixes: Vec<FaultMix> = (0..100).map(|_| FaultMix::draw(&mut rng)).collect();
        for (kind, label, _) in KINDS {
            let has = |mix: &&FaultMix| mix.weights.iter().any(|(other, _)| other == kind);
            let with = mixes.iter().filter(has).count();
            assert!((30..95).contains(&with), "{label} comes in {with} of 100 runs");
        }
    }

    #[test]
    fn only_what_has_a_weight_is_chosen_and_all_of_it() {
        let mix = FaultMix::of(vec![(Kind::Kill, 1), (Kind::Crash, 30)]);
        let mut rng = Rng::new(1);
        let chosen: BTreeSet<Kind> = (0..1_000).map(|_| mix.choose(&mut rng)).collect();
        assert_eq!(chosen, BTreeSet::from([Kind::Kill, Kind::Crash]));
        assert_eq!(mix.to_string(), "of 31 faults 1 ended session, 30 crash");
    }
}
