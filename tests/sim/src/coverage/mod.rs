//! Which rare situations a run came into, and how often: what a simulator never reaches it does not test.
//!
//! They are told from what the world sees anyway: the canonical log, the frames, who takes office, what clients
//! believe. No machine is switched or asked for it. Invariant: nothing here changes what happens in a run.

mod greed;
mod hooks;
mod sights;

use std::fmt;

pub(crate) use sights::Sights;

macro_rules! situations {
    ($($name:ident $often:ident $label:literal,)*) => {
        /// A situation that is easily got wrong.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum Situation {
            $(#[doc = $label] $name,)*
        }

        impl Situation {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// How it is told to people.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// A few dozen seeds are enough to come into it.
            #[must_use]
            pub fn is_common(self) -> bool {
                match self { $(Self::$name => situations!(@ $often),)* }
            }
        }
    };
    (@ common) => { true };
    (@ rare) => { false };
}

situations! {
    FailOverWithInvalidation rare "fail-over with an invalidation that is not acknowledged",
    FailOverWithQueue common "fail-over with a queue for a lock",
    FailOverWithDelay rare "fail-over while a lock-delay runs",
    FailOverInJeopardy common "fail-over while a client is in jeopardy",
    TermWithoutMaster common "a term that nobody won",
    TwoMastersWithClients common "two masters in office, both with clients",
    CachedReadUnderTwoMasters rare "a read from a cache while two masters are in office",
    DeposedWokeUp common "a stopped master goes on, and is deposed",
    AsleepInRound common "a master stopped while a leadership round is under way",
    StaleMessageToMaster rare "a message handled by a master that was stopped for long after it had come",
    StaleRequestToMaster rare "a call handled by a master that was stopped for long after it had come",
    LongTurn rare "a turn of a master that takes longer than it may be silent",
    NoticeOverdue rare "a KeepAlive of a client that has had a notice for longer than it may",
    KeepAliveLifted rare "a KeepAlive that is answered before the requests that came with it",
    RefusedTooMuch rare "a request refused because there is too much of something",
    LedgerFull rare "a request refused because the ledger of bytes is full",
    HelloFindsNoRoom rare "a stream refused because the ledger of bytes is full",
    CommittedBySuccessor common "an entry of a deposed master, committed by its successor",
    DroppedProposal rare "a proposal that raft dropped, and that was proposed again",
    PowerFailureWithQueue rare "all replicas go down while sessions wait for locks",
    PowerFailureWithDelay rare "all replicas go down while a lock-delay runs",
    CrashLostUnsynced common "a crash that lost what was not synced",
    CrashDuringSnapshot rare "a crash with a snapshot file half written",
    SnapshotWhileWaiting common "a snapshot is installed while sessions wait for locks",
    RestartBehindSnapshot common "a replica restarts with its log cut off behind a snapshot",
    AnsweredFromRecord common "a request sent again to a later master, and found recorded",
    OpeningFoundAgain common "a session's opening sent again, and found open",
    GrantReplyLost rare "a grant that was lost on its way",
    GrantToldByAttachment common "a grant that the client learns of when it attaches anew",
    WithdrawnAfterGrant common "an Acquire withdrawn after its grant, before the client heard of it",
    WithdrawnWhileWaiting common "an Acquire withdrawn from the queue",
    ClosedWhileWaiting common "a handle closed while it waits for its lock",
    EndedWhileWaiting common "a session that ends while it waits for a lock",
    ClientDiedHolding common "a client that dies with a lock",
    SharedHolderLost rare "one of several shared holders is lost",
    WriterBarsReaders common "a shared Acquire that waits behind an exclusive one",
    AcquireMeetsDelay rare "an Acquire that waits only for a lock-delay",
    DeleteMeetsLock common "a deletion that is refused because of the lock",
    LostCompareAndSet rare "a write that is refused because another came first",
    SequencerOutlived common "a call under a sequencer that is not valid any more",
    HolderAskedToGiveWay common "a holder is told that somebody wants its lock",
    ReattachedSameTerm common "a session attached anew to the same master",
    AttachmentSuperseded common "a stream that is refused because the session has a newer one",
    ExpiryRacedAttachment common "a session expires while its client attaches anew",
    ExpiredWithGuard rare "a session expires while its client is stopped and acts as a holder",
    RescuedFromJeopardy common "a session rescued from jeopardy",
    KilledInJeopardy rare "a session killed while in jeopardy",
    DeadCacherHeldWrite rare "a change held up by a dead client's cache until its lease ran out",
    LeaseWithheld common "a KeepAlive that extends nothing, because of notices that are not acknowledged",
    KeepAliveWithInvalidation rare "a KeepAlive answered together with an invalidation",
    ExtendedPastStream common "a lease extended by a KeepAlive past its stream",
    OverlappingWrites rare "two sessions' writes to one node while it is invalidated",
    ReleaseBehindWrite rare "a Release behind a write of its session that waits for an invalidation",
    ReopenDenied rare "a name that was open, and is denied after a change of access control",
    HandleOutlivedNode rare "a call through a handle whose node is gone",
    NameRecreated common "a name made again after its deletion",
    ReapMeetsOpen rare "an ephemeral node opened again before it is reaped",
    IdleEndTaken rare "an idle session's end, with a call just too late",
    IdleEndVoid rare "an idle session's end, with a call just in time",
    EventsMerged common "several changes told as one event",
    ChangeFoundAtAttachment rare "a change that the new master found by comparing generations",
    WishToldByAttachment rare "a holder that learns when it attaches anew that its lock is wanted",
    CallByNameInDoubt rare "a call by name of which nobody can say whether it took effect",
    VersionRose rare "the state version rises while the cell serves",
    MembersChangedWithQueue common "the membership changes while sessions wait for locks",
    WipedRefused common "a replica without its data is refused",
    LostReplaced common "a replica that lost its data is replaced under a new id",
    MasterDiskFailed common "a disk that fails under the master",
    HandedOverForDisk rare "a master whose disk is the only slow one, and that hands over for that",
    SnapshotFoundNoRoom rare "a snapshot that finds no room, and is tried again later",
    TornTailCut common "a torn record that a start cuts off the log",
    SnapshotPassedOver rare "a damaged snapshot, and a start from the one before",
    WrongByClock rare "a belief or an answer that a clock beyond the bound made wrong",
    ReadWhileStarved rare "a read from the cache while the library does not run",
}

/// How often a run came into each situation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Coverage {
    times: [u64; Situation::ALL.len()],
}

impl Default for Coverage {
    fn default() -> Self {
        Self { times: [0; Situation::ALL.len()] }
    }
}

impl Coverage {
    /// It came into this one.
    pub fn reach(&mut self, situation: Situation) {
        self.times[situation as usize] += 1;
    }

    /// How often it did.
    #[must_use]
    pub fn times(&self, situation: Situation) -> u64 {
        self.times[situation as usize]
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reached = Situation::ALL.iter().filter(|situation| self.times(**situation) > 0);
        let told: Vec<String> =
            reached.map(|situation| format!("{} x {}", self.times(*situation), situation.label())).collect();
        write!(f, "{} of {} situations: {}", told.len(), Situation::ALL.len(), told.join("; "))
    }
}

/// The coverage of many runs.
#[derive(Clone, Debug, Default)]
pub struct Table {
    total: Coverage,
    /// How many runs came into each situation.
    seeds: Coverage,
    runs: u64,
}

impl Table {
    /// Takes in a run.
    pub fn add(&mut self, run: &Coverage) {
        self.runs += 1;
        for (place, times) in run.times.iter().enumerate() {
            self.total.times[place] += times;
            self.seeds.times[place] += u64::from(*times > 0);
        }
    }

    /// What no run came into.
    #[must_use]
    pub fn never(&self) -> Vec<Situation> {
        Situation::ALL.iter().copied().filter(|situation| self.total.times(*situation) == 0).collect()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>10} {:>8}  situation", "times", format!("of {}", self.runs))?;
        for situation in Situation::ALL {
            let (times, seeds) = (self.total.times(*situation), self.seeds.times(*situation));
            writeln!(f, "{times:>10} {seeds:>8}  {}", situation.label())?;
        }
        match &self.never()[..] {
            [] => write!(f, "no situation was never reached"),
            never => {
                let labels: Vec<&str> = never.iter().map(|situation| situation.label()).collect();
                write!(f, "never reached: {}", labels.join("; "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_tells_times_seeds_and_what_was_never_reached() {
        let mut one = Coverage::default();
        one.reach(Situation::RescuedFromJeopardy);
        one.reach(Situation::RescuedFromJeopardy);
        let mut table = Table::default();
        for run in [&one, &Coverage::default(), &one] {
            table.add(run);
        }
        let text = table.to_string();
        assert!(text.contains("         4        2  a session rescued from jeopardy"), "{text}");
        assert_eq!(table.never().len(), Situation::ALL.len() - 1);
        assert!(text.contains("never reached: fail-over with"), "{text}");
    }

    #[test]
    fn no_two_situations_have_one_label() {
        let labels: std::collections::BTreeSet<&str> =
            Situation::ALL.iter().map(|situation| situation.label()).collect();
        assert_eq!(labels.len(), Situation::ALL.len());
    }
}
