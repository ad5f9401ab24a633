//! What goes wrong and when, drawn from a seed.
//!
//! Faults are dealt like cards: each kind comes once before any comes again, so that a run of a few minutes has them
//! all. Knows nothing of how they are done. Invariant: the same seed and powers give the same schedule.

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Kind {
    /// A replica dies by SIGKILL, and is started again.
    Kill,
    /// The master does.
    KillMaster,
    /// A replica is stopped by SIGSTOP, and continued.
    Pause,
    /// The master is.
    PauseMaster,
    /// All replicas die at once, and are started again.
    KillAll,
    /// One replica after the other is stopped by SIGTERM, and started again.
    Rolling,
    /// A replica and everybody else hear nothing of each other.
    Isolate,
    /// The master and everybody else do.
    IsolateMaster,
    /// The master and some of the clients, and everybody else, hear nothing of each other.
    SplitMaster,
    /// The same, and the master stands still for longer than a lease: it wakes deposed, and knows only these clients.
    SleepingMaster,
    /// The master hears nothing, and is heard.
    DeafMaster,
    /// The master is not heard, and hears.
    MuteMaster,
    /// Each replica hears only its neighbours in a ring: majorities, no two of them the same.
    Ring,
    /// Packets are lost, everywhere.
    Loss,
    /// What goes to a replica and comes from it is late.
    Delay,
    /// It does not come at all, and connections stay.
    Stall,
    /// Connections to a replica are closed in one direction.
    HalfClose,
    /// A replica loses its data: it must not come back, and is replaced by another.
    Wipe,
    /// A replica's disk is full.
    FullDisk,
    /// A client that holds a lock dies, and when its session is over, so does the master: the lock-delay runs.
    KillHolder,
    /// A client hears answers late, and then nothing more at all.
    LateAnswers,
    /// A client dies by SIGKILL; another takes its place.
    KillClient,
    /// A client is stopped by SIGSTOP, and continued.
    PauseClient,
    /// A client reaches no replica.
    CutClient,
}

impl Kind {
    /// Whether it needs a network in which packets can be dropped.
    #[must_use]
    pub fn needs_net(self) -> bool {
        use Kind::{CutClient, LateAnswers, Loss, Ring, SleepingMaster, SplitMaster};
        use Kind::{DeafMaster, Isolate, IsolateMaster, MuteMaster};
        matches!(self, Isolate | IsolateMaster | SplitMaster | SleepingMaster | DeafMaster | MuteMaster)
            || matches!(self, Ring | Loss | CutClient | LateAnswers)
    }

    /// Whether it is done by itself, when nothing else is wrong, and takes as long as it takes.
    #[must_use]
    pub fn is_alone(self) -> bool {
        matches!(self, Self::Rolling | Self::KillAll | Self::Wipe | Self::FullDisk)
            || matches!(self, Self::SleepingMaster | Self::KillHolder | Self::LateAnswers)
    }

    /// The least and the most that it lasts, in milliseconds.
    fn lasts_ms(self) -> [u64; 2] {
        match self {
            Self::Kill | Self::KillMaster | Self::KillAll => [300, 4_000],
            Self::Pause | Self::PauseMaster => [500, 7_000],
            Self::PauseClient => [500, 20_000],
            Self::CutClient => [1_000, 20_000],
            Self::SleepingMaster | Self::LateAnswers | Self::SplitMaster => [1_500, 7_000],
            Self::KillHolder => [20, 300],
            Self::KillClient | Self::Wipe | Self::FullDisk | Self::Rolling | Self::HalfClose => [500, 1_500],
            _ => [1_500, 10_000],
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill of a replica",
            Self::KillMaster => "kill of the master",
            Self::Pause => "pause of a replica",
            Self::PauseMaster => "pause of the master",
            Self::KillAll => "kill of all replicas",
            Self::Rolling => "rolling restart",
            Self::Isolate => "isolated replica",
            Self::IsolateMaster => "isolated master",
            Self::SplitMaster => "master split off with clients",
            Self::SleepingMaster => "master asleep and split off with clients",
            Self::KillHolder => "kill of a holder, then of the master",
            Self::LateAnswers => "client with late answers, then isolated",
            Self::DeafMaster => "deaf master",
            Self::MuteMaster => "mute master",
            Self::Ring => "majority ring",
            Self::Loss => "packet loss",
            Self::Delay => "delayed connections",
            Self::Stall => "stalled connections",
            Self::HalfClose => "half-closed connections",
            Self::Wipe => "wiped disk",
            Self::FullDisk => "full disk",
            Self::KillClient => "kill of a client",
            Self::PauseClient => "pause of a client",
            Self::CutClient => "isolated client",
        })
    }
}

/// A fault, as it is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub kind: Kind,
    /// When, since the beginning of the run.
    pub at: Duration,
    /// For how long.
    pub lasts: Duration,
    /// Says which replica or client, and how much: whoever does it makes of it what he needs.
    pub draw: u64,
}

/// What can be done in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Powers<'o> {
    /// Only these are wanted; if there are none, all.
    pub wanted: &'o [Kind],
    /// Packets can be dropped.
    pub net: bool,
    /// A replica has a small disk.
    pub disk: bool,
}

/// The faults of a run, by their beginnings. They may overlap.
#[must_use]
pub fn schedule(seed: u64, length: Duration, powers: Powers<'_>) -> Vec<Fault> {
    let mut chance = StdRng::seed_from_u64(seed);
    let possible = |kind: &Kind| {
        (powers.wanted.is_empty() || powers.wanted.contains(kind))
            && (powers.net || !kind.needs_net())
            && (powers.disk || *kind != Kind::FullDisk)
    };
    let (mut faults, mut deck) = (Vec::new(), Vec::new());
    let mut at = Duration::from_secs(1);
    while at < length {
        if deck.is_empty() {
            deck = Kind::value_variants().iter().copied().filter(possible).collect();
            deck.shuffle(&mut chance);
        }
        let Some(kind) = deck.pop() else { break };
        let [least, most] = kind.lasts_ms();
        let lasts = Duration::from_millis(chance.random_range(least..=most));
        faults.push(Fault { kind, at, lasts, draw: chance.random() });
        at += Duration::from_millis(chance.random_range(1_000..8_000));
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const ALL: Powers<'_> = Powers { wanted: &[], net: true, disk: true };

    fn kinds(faults: &[Fault]) -> BTreeSet<Kind> {
        faults.iter().map(|fault| fault.kind).collect()
    }

    #[test]
    fn a_seed_gives_one_schedule_and_another_seed_another() {
        let minute = Duration::from_secs(60);
        assert_eq!(schedule(5, minute, ALL), schedule(5, minute, ALL));
        assert_ne!(schedule(5, minute, ALL), schedule(6, minute, ALL));
        assert_eq!(schedule(5, minute * 2, ALL)[..5], schedule(5, minute, ALL)[..5], "only the end differs");
    }

    #[test]
    fn five_minutes_have_every_kind_of_fault() {
        for seed in 0..20 {
            let faults = schedule(seed, Duration::from_secs(300), ALL);
            assert_eq!(kinds(&faults), Kind::value_variants().iter().copied().collect());
            assert!(faults.iter().all(|fault| fault.at < Duration::from_secs(300)));
        }
    }

    #[test]
    fn what_is_not_possible_is_not_planned() {
        let faults = schedule(1, Duration::from_secs(600), Powers { wanted: &[], net: false, disk: false });
        let planned = kinds(&faults);
        assert!(!planned.contains(&Kind::FullDisk) && !planned.iter().any(|kind| kind.needs_net()));
        assert!(planned.contains(&Kind::Stall) && planned.contains(&Kind::KillAll));
    }

    #[test]
    fn nothing_is_planned_but_what_is_wanted() {
        let wanted = [Kind::KillMaster, Kind::Loss];
        assert_eq!(
            kinds(&schedule(1, Duration::from_secs(60), Powers { wanted: &wanted, ..ALL })),
            wanted.into()
        );
        let impossible = Powers { wanted: &[Kind::Loss], net: false, disk: true };
        assert_eq!(schedule(1, Duration::from_secs(60), impossible), []);
    }
}
