//! Conditions of a run that can be calmed one at a time, to see whether a failure needs them.
//!
//! Calming draws nothing: everything else of the plan stays as the seed has it.

use std::fmt;

use crate::plan::{NetworkConditions, Plan};

/// Something that is bad all the time while faults are on, apart from the faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Condition {
    /// Messages between replicas are lost, and frames of streams sent again.
    Loss,
    /// Messages between replicas come twice.
    Doubles,
    /// Some messages take far longer than others.
    Late,
    /// All flights are long.
    Flights,
    /// Syncs take long.
    Syncs,
}

impl Condition {
    /// All of them, by the names that the command line has for them.
    pub const ALL: [(&str, Self); 5] = [
        ("loss", Self::Loss),
        ("doubles", Self::Doubles),
        ("late", Self::Late),
        ("flights", Self::Flights),
        ("syncs", Self::Syncs),
    ];

    /// The condition of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, condition)| *condition)
    }

    /// Takes it out of a plan.
    pub(crate) fn calm(self, plan: &mut Plan) {
        let calm = NetworkConditions::calm();
        match self {
            Self::Loss => plan.network.lost_per_mille = calm.lost_per_mille,
            Self::Doubles => plan.network.doubled_per_mille = calm.doubled_per_mille,
            Self::Late => plan.network.late_per_mille = calm.late_per_mille,
            Self::Flights => plan.network.flight_nanos_max = calm.flight_nanos_max,
            Self::Syncs => plan.sync_nanos_max = plan.sync_nanos_max.min(Plan::CALM_SYNC_NANOS),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(_, condition)| condition == self).map(|(name, _)| *name);
        f.write_str(name.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plan::Options;

    #[test]
    fn a_calmed_condition_is_gone_and_the_others_are_as_the_seed_has_them() {
        let seed = 3;
        let rough = Plan::draw(seed, &Options::default());
        let calm = BTreeSet::from([Condition::Loss]);
        let drawn = Plan::draw(seed, &Options { calm, ..Options::default() });
        assert_eq!(drawn.network.lost_per_mille, 0);
        let again =
            NetworkConditions { lost_per_mille: rough.network.lost_per_mille, ..drawn.network.clone() };
        assert_eq!(Plan { network: again, ..drawn }.to_string(), rough.to_string());
    }

    #[test]
    fn with_all_calm_a_network_is_a_good_one() {
        let calm = Condition::ALL.iter().map(|(_, condition)| *condition).collect();
        for seed in 0..50 {
            let plan = Plan::draw(seed, &Options { calm: BTreeSet::clone(&calm), ..Options::default() });
            let network = plan.network;
            assert_eq!(
                (network.lost_per_mille, network.doubled_per_mille, network.late_per_mille),
                (0, 0, 0)
            );
            assert_eq!(network.flight_nanos_max, NetworkConditions::calm().flight_nanos_max);
            assert_eq!(plan.sync_nanos_max, Plan::CALM_SYNC_NANOS);
        }
    }

    #[test]
    fn names_mean_what_they_say() {
        for (name, condition) in Condition::ALL {
            assert_eq!((Condition::named(name), condition.to_string()), (Some(condition), name.to_owned()));
        }
        assert_eq!(Condition::named("weather"), None);
    }
}
