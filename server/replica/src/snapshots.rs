//! When a snapshot of the state is written, and which of the log may go for it.
//!
//! All replicas take one at the same entry, so what keeps one of them from writing it may keep all: a snapshot that could not
//! be written for a reason that may pass is not the end of the replica. It goes on with the log that it has, which grows
//! meanwhile, and tries again after a pause, which doubles.
//!
//! Invariant: the log is kept from the newest durable snapshot on, and from the oldest one that is being sent.

use std::collections::BTreeMap;

use holdfast_types::{Duration, ReplicaId, Time};
use slog::{info, warn};

use crate::{Output, Replica};

/// The first pause after a snapshot that could not be written.
const RETRY_MIN: Duration = Duration::from_secs(5);
/// It doubles so often at most, to 320 s.
const DOUBLINGS_MAX: u32 = 6;

/// Snapshots that are being written or sent.
#[derive(Debug, Default)]
pub(crate) struct Snapshots {
    /// Bytes of log applied since the last one was begun that is written, or being written.
    pub(crate) bytes_since: u64,
    /// One is being written: so many bytes of log it makes up for.
    pub(crate) writing: Option<u64>,
    /// The newest that is durable.
    pub(crate) durable: u64,
    /// To whom one is being sent, and where the latest stands. The log behind it is kept meanwhile.
    pub(crate) sending: BTreeMap<ReplicaId, u64>,
    /// The next persist tells the disk to drop entries below this.
    pub(crate) compact_to: Option<u64>,
    /// So many in a row could not be written.
    failures: u32,
    /// None is begun before this.
    not_before: Time,
}

impl Snapshots {
    /// Of a replica that begins with the snapshot at this entry.
    pub(crate) fn new(durable: u64) -> Self {
        Self { durable, ..Self::default() }
    }
}

impl Replica {
    /// Has a snapshot written if one is due.
    pub(crate) fn maybe_write_snapshot(&mut self) {
        let snapshots = &mut self.snapshots;
        if snapshots.writing.is_some()
            || snapshots.bytes_since < self.config.snapshot_every_bytes
            || self.now < snapshots.not_before
        {
            return;
        }
        snapshots.writing = Some(std::mem::take(&mut snapshots.bytes_since));
        self.outputs.push_back(Output::WriteSnapshot(Box::new(self.state_at())));
    }

    /// Has one written that could not be, once the pause is over.
    pub(crate) fn retry_snapshot(&mut self) {
        if self.snapshots.failures > 0 {
            self.maybe_write_snapshot();
        }
    }

    /// A snapshot file is durable: the log behind it can go, but for a tail, and but for what a snapshot in
    /// transfer will need next.
    pub(crate) fn handle_snapshot_written(&mut self, index: u64) {
        self.snapshots.writing = None;
        if std::mem::take(&mut self.snapshots.failures) > 0 {
            info!(self.logger, "snapshots can be written again"; "index" => index);
        }
        self.snapshots.durable = self.snapshots.durable.max(index);
        let in_transfer = self.snapshots.sending.values().copied().min().unwrap_or(u64::MAX);
        let through = self.snapshots.durable.min(in_transfer);
        let tail_bytes = self.config.log_tail_bytes;
        if let Some(first) = self.raw.mut_store().compact(through, tail_bytes) {
            self.snapshots.compact_to = Some(first);
        }
    }

    /// A snapshot could not be written, and nothing is left of it.
    pub(crate) fn handle_snapshot_failed(&mut self, why: &str) {
        let snapshots = &mut self.snapshots;
        snapshots.bytes_since += snapshots.writing.take().unwrap_or(0);
        let pause = RETRY_MIN * (1 << snapshots.failures.min(DOUBLINGS_MAX));
        snapshots.failures += 1;
        snapshots.not_before = self.now + pause;
        warn!(
            self.logger,
            "a snapshot could not be written, and is tried again in {} s; until one is, the log grows, on the disk and in \
            memory: {}", pause.as_secs(), why; "log_bytes" => snapshots.bytes_since, "failures" => snapshots.failures
        );
    }
}
