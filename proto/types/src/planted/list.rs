//! The list of the faults that can be planted: what each does, and where it comes from.
//!
//! Owns names and words only. What a fault does is done where the right behaviour is: search for its name. Of some, a
//! second mechanism keeps the harm away; then that is taken out with it, and it says so.

/// Declares the faults: variant, name on the command line, origin, what it does.
macro_rules! faults {
    ($($variant:ident, $name:literal, $origin:literal, $what:literal;)+) => {
        /// A fault.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Planted {
            $(#[doc = $what] $variant,)+
        }

        impl Planted {
            /// All faults, with their names on the command line.
            pub const ALL: &[(&str, Self)] = &[$(($name, Self::$variant),)+];

            /// Where the fault was seen, or what asks for it.
            #[must_use]
            pub fn origin(self) -> &'static str {
                match self { $(Self::$variant => $origin,)+ }
            }

            /// What it does, in a sentence.
            #[must_use]
            pub fn what(self) -> &'static str {
                match self { $(Self::$variant => $what,)+ }
            }
        }
    };
}

faults! {
    // ---- Leases.
    LeaseFromReply, "lease-from-reply", "issue",
    "The client counts its lease from the reply and not from when it asked.";
    LeaseFromDisconnect, "lease-from-disconnect", "curator #980",
    "The client believes in its session for a whole lease from when it lost its connection.";
    AttachIsLease, "attach-is-lease", "curator #1211",
    "The client takes it for a lease that it was attached again, and its locks told.";
    LeaseWithoutRound, "lease-without-round", "etcd #15247",
    "The master extends a lease without having confirmed its leadership.";
    StalledMasterEnds, "stalled-master-ends", "etcd #15247",
    "A master that stood still holds all leases to be over before it hears what came meanwhile, and its successor \
     commits the ends that it decides.";
    GapAddedForEver, "gap-added-for-ever", "issue",
    "A master that stands still again and again adds each gap to every lease: those that nobody renews never end.";
    NoDrift, "no-drift", "own",
    "Neither the master nor the client allows for the drift of clocks. Either alone would be enough.";
    HalfLeases, "half-leases", "own",
    "A new master starts sessions with half of their leases.";
    PromiseForgotten, "promise-forgotten", "own",
    "A new master does not reckon with leases that its predecessor may have lengthened.";
    LeaseAfterEnd, "lease-after-end", "own",
    "A session whose end is proposed is granted leases on.";
    RepeatedOpeningLease, "repeated-opening-lease", "own",
    "An opening that is repeated carries a lease.";
    OldGrantPastStream, "old-grant-past-stream", "own",
    "A KeepAlive that comes past its stream is answered with the last grant, whichever KeepAlive that was made for.";

    // ---- Locks.
    GrantToEnded, "grant-to-ended", "etcd #11456",
    "A session ends, its place in the queue stays, and the lock is granted to it in its turn.";
    NotWithdrawn, "not-withdrawn", "curator #600",
    "The client forgets a waiting Acquire that nobody waits for any more, and does not withdraw it.";
    CancelKeepsGrant, "cancel-keeps-grant", "own",
    "The withdrawal of an Acquire that was granted already leaves the lock with the handle.";
    SharedTakesGeneration, "shared-takes-generation", "issue",
    "Whoever joins those who share a lock takes a new generation.";
    FenceNotReplicated, "fence-not-replicated", "issue",
    "Snapshots do not have the locks' generations.";
    WriterOvertaken, "writer-overtaken", "own",
    "Whoever can share a lock gets it at once, although somebody waits who wants it alone.";
    SequencerIgnoresGeneration, "sequencer-ignores-generation", "own",
    "A sequencer counts as valid while the lock is held as it says, by whomever.";
    ReleaseOvertakes, "release-overtakes", "own",
    "A Release or a Close does not wait for the earlier writes of its session.";
    DelayRestartsAtZero, "delay-restarts-at-zero", "issue",
    "A new master holds all running lock-delays to be over.";
    NoDelayOnExpiry, "no-delay-on-expiry", "own",
    "No lock-delay begins when a session expires.";
    WantedLockKept, "wanted-lock-kept", "own",
    "The client keeps a lock that its application has released, although somebody else wants it.";

    // ---- Reads and caches.
    ReadWithoutRound, "read-without-round", "own",
    "The master answers a read without having confirmed its leadership.";
    SharedRoundContext, "shared-round-context", "etcd #20418",
    "All leadership rounds of a replica share one context: late answers to an earlier round confirm a later one.";
    RoundTakesLatecomers, "round-takes-latecomers", "issue",
    "A leadership round confirms the reads and KeepAlives that came after it had begun, too.";
    ReadNotCounted, "read-not-counted", "issue",
    "Reads count in nothing: not in a session's requests in flight, and not in what a turn may cost.";
    CommitBeforeInvalidation, "commit-before-invalidation", "issue",
    "A change is proposed while copies that it makes stale may still be cached: the invalidations go out, and nobody \
     waits for them.";
    RefusalIgnoresBars, "refusal-ignores-bars", "own",
    "A conditional change is held to be refused by the node as it is, although changes of the node are under way.";
    SharedBar, "shared-bar", "issue",
    "Bars are flags and not counts: of two overlapping writes the first lifts the other's.";
    CachesForgotten, "caches-forgotten", "own",
    "A new master takes it that nobody caches anything.";
    CacheKeptOnAttach, "cache-kept-on-attach", "own",
    "The client keeps what it has cached when it attaches anew.";
    CacheAfterLease, "cache-after-lease", "own",
    "What is cached is believed, and not dropped, after the lease has run out.";
    AbsenceKept, "absence-kept", "own",
    "An invalidation leaves it cached that a name does not exist.";
    WriteSparesList, "write-spares-list", "own",
    "A write does not invalidate the lists that the file is in.";
    AclSparesOpens, "acl-spares-opens", "own",
    "A change of access control names does not invalidate opens that relied on them.";
    NoticeNeverOverdue, "notice-never-overdue", "issue",
    "The master extends the lease of a client that acknowledges no notice, for as long as that sends KeepAlives.";
    NeverAcknowledged, "never-acknowledged", "own",
    "The client does not say that it has dropped what it was told to, and the master extends its lease all the same.";

    // ---- Requests and events.
    RetryDecidedAgain, "retry-decided-again", "issue",
    "A reply is recorded twice: what came of a write is not looked up, and a retry writes again.";
    RecordProvesOpen, "record-proves-open", "ledger",
    "A reply is cached twice: an Open that is answered from the record is taken as proof that the node can be opened \
     now.";
    WindowNotReplicated, "window-not-replicated", "own",
    "Snapshots do not have what came of requests.";
    FloorForgotten, "floor-forgotten", "own",
    "Of a number that was acknowledged it is not known any more that it was decided.";
    OpenedTwice, "opened-twice", "own",
    "An opening that is repeated opens a second session under the same secret.";
    EventsLostAtFailOver, "events-lost-at-fail-over", "own",
    "Who attaches is not told of what has changed since it was last told.";
    ReapedWhileOpen, "reaped-while-open", "own",
    "An ephemeral node is reaped although somebody has opened it again.";

    LedgerLeaks, "ledger-leaks", "issue",
    "What the core has kept of clients' bytes is not given back to the ledger.";
    LedgerBypassed, "ledger-bypassed", "issue",
    "The core gives a request's bytes back to the ledger when it queues the request: its queues go past the ledger.";
    LedgerOverdrawn, "ledger-overdrawn", "own",
    "The core keeps a request that finds no room in the ledger.";

    // ---- Log and replicas.
    ForgottenSync, "forgotten-sync", "issue",
    "The log is written without a sync.";
    PromiseBeforeSync, "promise-before-sync", "own",
    "A follower sends its votes and acknowledgements before they are synced.";
    WipedVotes, "wiped-votes", "issue",
    "A replica that comes back under its id without its data is admitted, and votes again.";
    DeposedBatchCommitted, "deposed-batch-committed", "issue",
    "What a deposed master had decided is forwarded, and its successor takes it, commits it and applies it.";
    TransferNotReported, "transfer-not-reported", "own",
    "raft is not told that the transfer of a snapshot has failed.";
    DroppedForgotten, "dropped-forgotten", "own",
    "A proposal that raft drops is not proposed again.";
    VersionUnheard, "version-unheard", "own",
    "The master takes it that a replica that has announced nothing can apply every state version.";
    AclLostInSnapshot, "acl-lost-in-snapshot", "etcd #14571",
    "Who starts from a snapshot has access control names of nodes from their parents: it decides otherwise.";
}
