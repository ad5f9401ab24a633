//! Counts what happened in a run, so that a reader sees whether it was worth running.

use std::fmt;
use std::ops::AddAssign;

macro_rules! stats {
    ($($(#[$doc:meta])* $name:ident: $label:literal,)*) => {
        /// What happened, counted.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl AddAssign<&Self> for Stats {
            fn add_assign(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }

        impl fmt::Display for Stats {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let counts = [$((self.$name, $label)),*];
                let told: Vec<String> = counts.iter().map(|(count, label)| format!("{count} {label}")).collect();
                f.write_str(&told.join(", "))
            }
        }

        impl Stats {
            /// The labels of everything that never happened.
            #[must_use]
            pub fn missing(&self) -> Vec<&'static str> {
                [$((self.$name, $label)),*].into_iter().filter(|(count, _)| *count == 0).map(|(_, l)| l).collect()
            }
        }
    };
}

stats! {
    /// Events taken in by the trace.
    events: "events",
    /// Entries of the canonical log.
    entries: "log entries",
    /// Commands in them that counted.
    commands: "commands",
    /// Requests that came a second time through the log.
    repeated: "repeated requests",
    /// Masters that took office.
    masters: "masters",
    /// Of those, while an older master still believed itself in office.
    overlaps: "while another was in office",
    /// Replicas that crashed.
    crashes: "replica crashes",
    /// Times when all replicas crashed at once.
    power_failures: "power failures",
    /// Partitions.
    partitions: "partitions",
    /// Processes stopped for a while.
    pauses: "pauses",
    /// Events that a process handled long after they had come, because it had been stopped.
    stale: "stale events handled",
    /// Messages that did not fit into the socket of a stopped replica.
    overflowed: "messages lost at a full socket",
    /// Turns of replicas that took longer than a master may be silent.
    long_turns: "long turns",
    /// Masters stopped and cut off with clients of theirs.
    overslept: "overslept masters",
    /// Masters that hardly ran, cut off with clients of theirs.
    stutters: "stuttering masters",
    /// Libraries of clients that did not get to run.
    starved: "starved clients",
    /// Sessions that an operator ended.
    killed: "killed",
    /// Sessions that the cell ended because they were idle.
    idle: "ended idle",
    /// Streams broken by the network.
    resets: "broken streams",
    /// Client processes that died.
    client_crashes: "client crashes",
    /// Masters asked to hand over.
    hand_overs: "hand-overs",
    /// Masters that were to hand over while another replica's host went down.
    heirs_lost: "lost heirs",
    /// Replicas that ended because a sync failed.
    syncs_failed: "failed syncs",
    /// Replicas that ended because their disk was full.
    disks_full: "full disks",
    /// Disks that were slow for a while.
    slow_disks: "slow disks",
    /// Torn records that a start cut off the log.
    torn: "torn records cut off",
    /// Damaged snapshots that a start passed over, because older ones and the log made up for them.
    passed_over: "damaged snapshots passed over",
    /// Snapshots or records that were damaged.
    damaged: "damaged disks",
    /// Disks that were emptied.
    wiped: "wiped disks",
    /// Replicas that were told that they must not go on, or did not start.
    refused_replicas: "replicas refused",
    /// Replicas that another was to take the place of, because they will never come back.
    replaced: "replaced for good",
    /// Replicas that were added.
    added: "replicas added",
    /// Learners that were promoted.
    promoted: "promoted",
    /// Replicas that were removed.
    removed: "removed",
    /// Of those, while they were master.
    masters_removed: "masters to be removed",
    /// Replicas that applied their own removal.
    left: "replicas that heard of their removal",
    /// Snapshots cut off on their way to a replica.
    transfers_cut: "snapshot transfers cut off",
    /// Snapshot files written.
    snapshots: "snapshots",
    /// Snapshots sent to a replica and installed.
    transfers: "snapshot transfers",
    /// Sessions opened.
    sessions: "sessions",
    /// Sessions that expired at the cell.
    expired: "expired",
    /// Times when a client's lease ran out.
    jeopardies: "jeopardies",
    /// Sessions that went from jeopardy back to safe.
    rescued: "rescued",
    /// Beliefs and cached answers that clocks beyond the drift bound made wrong.
    beyond: "wrong by clocks beyond the bound",
    /// Calls that applications made.
    calls: "calls",
    /// Calls that were told Ok.
    ok: "ok",
    /// Calls that were refused.
    refused: "refused",
    /// Calls withdrawn.
    cancelled: "withdrawn",
    /// Locks that an application was told it holds.
    granted: "locks granted",
    /// Of those, out of the queue.
    queued: "out of the queue",
    /// Calls that were answered without a message.
    from_cache: "answered without a message",
    /// Reads that a slot answered.
    cache_reads: "reads from caches",
    /// Of the calls that were answered without a message: locks that had been kept.
    kept_locks: "kept locks taken again",
    /// Names that an application was told do not exist.
    absent: "absent",
    /// Calls by name.
    named: "calls by name",
    /// Of those, tries at another replica.
    named_again: "tried elsewhere",
    /// Orders that arrived at the resource which an elected client may give orders to.
    orders: "orders",
    /// Of those, refused because somebody later had been elected.
    orders_refused: "refused as too late",
    /// Events that an application was told of.
    events_told: "events",
    /// Times when a session went over to another master.
    failed_over: "failed over",
    /// Files' histories for which an order was found.
    histories: "histories",
    /// Lock-delays that began.
    delays: "lock-delays",
    /// Times when two replicas' states were compared by hash.
    compared: "states compared",
}
