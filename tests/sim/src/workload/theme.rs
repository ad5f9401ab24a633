//! What most applications of a run do: where all of them do the same, they meet.

use super::{Workload, churn, contested, election, greedy, hot, queue, registry};
use crate::rng::Rng;

/// The theme of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Theme {
    /// Everything at once.
    #[default]
    Mixed,
    /// Many wait for one lock.
    Queue,
    /// Many read and write one file, through caches.
    Hot,
    /// Many want to be elected, and the elected give orders to a resource.
    Election,
    /// Names appear and vanish with those who registered them.
    Registry,
    /// Access control lists change all the time.
    Access,
    /// Session after session, each short.
    Churn,
    /// Sessions that nobody uses.
    Idle,
    /// Calls by name, without a session.
    ByName,
    /// A few ask for more than their share, of a cell that others use too.
    Greedy,
    /// Changes that others make possible, beside readers of what both change.
    Contested,
}

impl Theme {
    /// Of so many, this many sessions have to do with the theme.
    const PER_MILLE: u32 = 800;

    /// One of chance. Half of all runs have none.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        match rng.below(26) {
            0..=2 => Self::Queue,
            3 | 4 => Self::Hot,
            5 | 6 => Self::Election,
            7 => Self::Registry,
            8 => Self::Access,
            9 => Self::Churn,
            10 => Self::Idle,
            11 => Self::ByName,
            12 | 13 => Self::Greedy,
            14 => Self::Contested,
            _ => Self::Mixed,
        }
    }

    /// What a session of a run with this theme is used for.
    pub(crate) fn workload(self, rng: &mut Rng) -> Workload {
        if self == Self::Greedy {
            return Self::beside_greed(rng);
        }
        if self == Self::Mixed || !rng.per_mille(Self::PER_MILLE) {
            return Workload::draw(rng);
        }
        match self {
            Self::Queue => Workload::Queue(queue::Queue::draw(rng)),
            Self::Hot => Workload::Hot(hot::Hot::draw(rng)),
            Self::Election => Workload::Election(election::Election::draw(rng)),
            Self::Registry => Workload::Registry(registry::Registry::draw(rng)),
            Self::Access => Workload::Access(super::access::Access::default()),
            Self::Churn => Workload::Churn(churn::Churn::draw(rng)),
            Self::Idle => Workload::Idler(super::idler::Idler::default()),
            Self::ByName => Workload::ByName(super::by_name::ByName::draw(rng)),
            Self::Contested => Workload::Contested(contested::Contested::draw(rng)),
            Self::Mixed | Self::Greedy => Workload::draw(rng),
        }
    }

    /// Some are greedy, some share the file that these are greedy of, and the rest does what it always does.
    fn beside_greed(rng: &mut Rng) -> Workload {
        match rng.below(4) {
            0 => Workload::Greedy(greedy::Greedy::draw(rng)),
            1 => Workload::Hot(hot::Hot::draw(rng)),
            _ => Workload::draw(rng),
        }
    }

    /// How long the next session is waited for at the most, in milliseconds.
    pub(crate) fn gap_ms_max(self) -> u64 {
        if self == Self::Churn { 20 } else { 500 }
    }
}
