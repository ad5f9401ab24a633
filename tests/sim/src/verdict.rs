//! What came of a run, and how it is told: passed, or why not, with the exit status that says which.

use std::fmt;

use crate::clock::TrueTime;
use crate::coverage::Coverage;
use crate::stats::Stats;

/// Something that must never be was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The invariant of the design that is broken.
    pub invariant: Invariant,
    /// What was seen.
    pub what: String,
}

/// The design's invariants, as far as they are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// I1.
    MutualExclusion,
    /// I2.
    Fencing,
    /// I3.
    LeaseSafety,
    /// I4.
    LockDelay,
    /// I5.
    Linearizability,
    /// I6.
    ExactlyOnce,
    /// I7.
    Durability,
    /// I8.
    NoLostChange,
    /// I9.
    Determinism,
    /// I10.
    Progress,
    /// A replica or a session stopped or panicked where it must not.
    Survival,
}

impl Violation {
    /// A violation.
    #[must_use]
    pub fn new(invariant: Invariant, what: impl Into<String>) -> Self {
        Self { invariant, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::MutualExclusion,
        Self::Fencing,
        Self::LeaseSafety,
        Self::LockDelay,
        Self::Linearizability,
        Self::ExactlyOnce,
        Self::Durability,
        Self::NoLostChange,
        Self::Determinism,
        Self::Progress,
        Self::Survival,
    ];

    /// What the design calls it, in short.
    #[must_use]
    pub fn code(self) -> &'static str {
        let name = self.name();
        name.split(' ').next().unwrap_or(name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::MutualExclusion => "I1 mutual exclusion",
            Self::Fencing => "I2 fencing",
            Self::LeaseSafety => "I3 lease safety",
            Self::LockDelay => "I4 lock-delay",
            Self::Linearizability => "I5 linearizability",
            Self::ExactlyOnce => "I6 exactly once",
            Self::Durability => "I7 durability",
            Self::NoLostChange => "I8 no lost change",
            Self::Determinism => "I9 determinism",
            Self::Progress => "I10 progress",
            Self::Survival => "survival",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was wrong.
    Passed,
    /// A safety invariant broke.
    Unsafe(Violation),
    /// After the faults had stopped, something did not end.
    Stuck(Violation),
    /// A machine panicked or stopped with a fault.
    Crashed(Violation),
}

impl Verdict {
    /// Sorts a violation by its kind.
    #[must_use]
    pub fn of(violation: Violation) -> Self {
        match violation.invariant {
            Invariant::Progress => Self::Stuck(violation),
            Invariant::Survival => Self::Crashed(violation),
            _ => Self::Unsafe(violation),
        }
    }

    /// What was wrong, if anything was.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        match self {
            Self::Passed => None,
            Self::Unsafe(violation) | Self::Stuck(violation) | Self::Crashed(violation) => Some(violation),
        }
    }

    /// The exit status of the program: the worst of a batch of runs counts.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Passed => 0,
            Self::Stuck(_) => 3,
            Self::Crashed(_) => 4,
            Self::Unsafe(_) => 5,
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => f.write_str("passed"),
            Self::Unsafe(violation) => write!(f, "SAFETY FAILURE, {violation}"),
            Self::Stuck(violation) => write!(f, "LIVENESS FAILURE, {violation}"),
            Self::Crashed(violation) => write!(f, "CRASH, {violation}"),
        }
    }
}

/// A run, told.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What came of it.
    pub verdict: Verdict,
    /// When it ended.
    pub ended: TrueTime,
    /// How many faults there were, those left out included: they are numbered from 1 on.
    pub faults: u32,
    /// The hash of all that happened.
    pub trace_hash: u64,
    /// What happened, counted.
    pub stats: Stats,
    /// Which rare situations it came into.
    pub coverage: Coverage,
    /// How the run was set up, for people.
    pub plan: String,
}
