//! The thread that makes what raft hands over durable, in order, with as few syncs as can be.
//!
//! What other modules use: [`LogWriter::spawn`], [`LogWriter::submit`], [`LogWriter::close`]. The thread takes all
//! that is queued, writes it as one batch with one sync, and reports the last number: while the disk works, the
//! next batch gathers. What needs no sync keeps its place in the order all the same. A second thread trims the
//! log, so that no write waits for files to be removed.
//!
//! Invariants: a number is reported only once it and everything before it is written, and durable if it must be.
//! A snapshot's file is durable before the log that it replaces is gone; a crash between the two leaves both, and
//! `recovery` sorts that out. The log is never trimmed beyond the newest complete snapshot. After the first
//! failure nothing is written, reported or tried again: the owner is told, and ends the process (design.md §8). There is one
//! exception: a snapshot from another replica that finds no room is tried again after a pause, and everything behind it waits.
//! The next start would need the same snapshot and the same room.
//! A writer that is dropped and not closed leaves the disk as a process that was killed does.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use holdfast_replica::Persist;
use holdfast_types::Duration;
use slog::{Logger, debug, info, warn};

use super::log::{LogStore, LogTrimmer};
use super::snapshot_files::SnapshotFiles;
use super::{StorageError, panic_message};

/// So many may wait. Raft's own limits on what is in flight are reached long before; if not, the disk is so far
/// behind that the replica had better stand still with it.
const PERSISTS_WAITING_MAX: usize = 4_096;

/// One batch takes no more once it has so many bytes of entries: the first of them would wait too long.
const BATCH_BYTES: usize = 4 << 20;

/// Trims that wait. If there are more, the oldest wait for a later, greater one.
const TRIMS_WAITING_MAX: usize = 16;

/// The first pause after a snapshot from another replica that found no room. It doubles, up to the longest.
const RETRY_MIN: Duration = if cfg!(test) { Duration::from_millis(10) } else { Duration::from_secs(5) };
const RETRY_MAX: Duration = Duration::from_secs(30);

/// The log's thread has failed, and has said so to its owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the log can no longer be written")]
pub struct LogStopped;

/// Owns the threads that write and trim the log. Dropping it discards what is queued, and blocks until the threads have
/// ended: nothing touches the disk afterwards.
pub struct LogWriter {
    /// `None` once the writer is closed.
    running: Option<Running>,
    /// What is queued is not to be written any more.
    abandoned: Arc<AtomicBool>,
    /// The writer is closed or dropped: its thread waits for no room any more.
    ending: Arc<Ending>,
}

/// Whether a thread is to end, for a thread that pauses.
#[derive(Default)]
struct Ending {
    is_asked: Mutex<bool>,
    asked: Condvar,
}

impl Ending {
    fn ask(&self) {
        *self.is_asked.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.asked.notify_all();
    }

    /// Waits for so long, or until the thread is to end, and tells whether it is.
    fn wait(&self, pause: Duration) -> bool {
        let is_asked = self.is_asked.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.asked.wait_timeout_while(is_asked, pause, |is_asked| !*is_asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

struct Running {
    queue: SyncSender<Persist>,
    writer: JoinHandle<Option<LogStore>>,
    trimmer: JoinHandle<Option<()>>,
}

impl LogWriter {
    /// Starts the threads.
    ///
    /// `on_persisted` is called on the writer's thread with the number of the last [`Persist`] that is done.
    /// `on_failure` is called by a thread that fails, and is expected not to return: see
    /// [`logging::abort`](crate::logging::abort).
    ///
    /// # Errors
    ///
    /// If the system gives no threads.
    pub fn spawn(
        store: LogStore,
        snapshots: Arc<SnapshotFiles>,
        logger: Logger,
        on_persisted: impl FnMut(u64) + Send + 'static,
        on_failure: impl Fn(StorageError) + Send + Sync + 'static,
    ) -> Result<Self, StorageError> {
        let (queue, persists) = sync_channel(PERSISTS_WAITING_MAX);
        let (trims, trims_wanted) = sync_channel(TRIMS_WAITING_MAX);
        let on_failure = Arc::new(on_failure);
        let dir = store.dir().to_owned();
        let no_thread = StorageError::io("start a thread for", &dir);

        let log = store.trimmer();
        let trimming =
            Trimming { log, snapshots: Arc::clone(&snapshots), trims_wanted, logger: logger.clone() };
        let (abandoned, ending) = (Arc::new(AtomicBool::new(false)), Arc::new(Ending::default()));
        let (give_up, end) = (Arc::clone(&abandoned), Arc::clone(&ending));
        let writing = Writing { store, snapshots, persists, trims, give_up, end, logger, on_persisted };
        let (on_trim_failure, trim_dir) = (Arc::clone(&on_failure), dir.clone());
        let spawned = thread::Builder::new()
            .name("log-trimmer".to_owned())
            .spawn(move || guarded(&trim_dir, &*on_trim_failure, || trimming.run()))
            .and_then(|trimmer| {
                let writer = thread::Builder::new()
                    .name("log-writer".to_owned())
                    .spawn(move || guarded(&dir, &*on_failure, || writing.run()))?;
                Ok((writer, trimmer))
            });
        let (writer, trimmer) = spawned.map_err(no_thread)?;
        Ok(Self { running: Some(Running { queue, writer, trimmer }), abandoned, ending })
    }

    /// Queues what must be made durable. Blocks while the queue is full.
    ///
    /// # Errors
    ///
    /// If the thread has failed, which its owner knows already.
    pub fn submit(&self, persist: Persist) -> Result<(), LogStopped> {
        let running = self.running.as_ref().ok_or(LogStopped)?;
        running.queue.send(persist).map_err(|_| LogStopped)
    }

    /// Writes what is queued, ends the threads, and marks the log as closed in the normal way. What waits for a snapshot that
    /// finds no room is not written.
    ///
    /// # Errors
    ///
    /// If the disk fails now. What failed before was reported before, and is no error here.
    pub fn close(mut self) -> Result<(), StorageError> {
        let Some(Running { queue, writer, trimmer }) = self.running.take() else { return Ok(()) };
        drop(queue);
        self.ending.ask();
        // The writer holds the trimmer's queue, so they end in this order. Their panics are caught inside.
        let store = writer.join().ok().flatten();
        let trimmed = trimmer.join().ok().flatten();
        match (store, trimmed) {
            (Some(store), Some(())) => store.close(),
            _ => Ok(()),
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        let Some(Running { queue, writer, trimmer }) = self.running.take() else { return };
        self.abandoned.store(true, Ordering::Relaxed);
        self.ending.ask();
        drop(queue);
        // Their panics are caught inside.
        let _ = writer.join();
        let _ = trimmer.join();
    }
}

/// The writer's thread.
struct Writing<F> {
    store: LogStore,
    snapshots: Arc<SnapshotFiles>,
    persists: Receiver<Persist>,
    trims: SyncSender<u64>,
    /// Set when nothing more is to be written.
    give_up: Arc<AtomicBool>,
    /// Says that the thread has to end, and to wait for room no longer.
    end: Arc<Ending>,
    logger: Logger,
    on_persisted: F,
}

impl<F: FnMut(u64)> Writing<F> {
    fn run(mut self) -> Result<LogStore, StorageError> {
        let mut next = self.persists.recv().ok();
        while let Some(first) = next.take() {
            if self.give_up.load(Ordering::Relaxed) {
                break;
            }
            if first.snapshot.is_some() {
                if !self.replace(first)? {
                    break;
                }
            } else {
                next = self.append(first)?;
            }
            if next.is_none() {
                next = self.persists.recv().ok();
            }
        }
        Ok(self.store)
    }

    /// Writes `first` and what is queued behind it. Gives back what does not fit into the batch.
    fn append(&mut self, first: Persist) -> Result<Option<Persist>, StorageError> {
        let mut bytes = entry_bytes(&first);
        let mut batch = vec![first];
        let mut left_over = None;
        while bytes < BATCH_BYTES
            && let Ok(persist) = self.persists.try_recv()
        {
            if persist.snapshot.is_some() {
                left_over = Some(persist);
                break;
            }
            bytes += entry_bytes(&persist);
            batch.push(persist);
        }
        self.store.append(&batch)?;
        self.done(&batch);
        Ok(left_over)
    }

    /// A snapshot from another replica takes the place of the whole log: its file first. False if there was no room for it
    /// until the thread was to end: then nothing that is queued behind it may be written either.
    fn replace(&mut self, persist: Persist) -> Result<bool, StorageError> {
        let Some(at) = &persist.snapshot else { return Ok(true) };
        let mut pause = RETRY_MIN;
        while let Err(error) = self.snapshots.write(at) {
            if !error.may_pass() {
                return Err(error);
            }
            warn!(
                self.logger,
                "a snapshot from another replica could not be written, and is tried again in {} s; until it is written this \
                 replica neither votes nor acknowledges anything: {}", pause.as_secs(), error; "index" => at.index
            );
            if self.end.wait(pause) {
                return Ok(false);
            }
            pause = (pause * 2).min(RETRY_MAX);
        }
        self.store.replace(persist.hard_state.as_ref(), &persist.entries)?;
        info!(self.logger, "a snapshot has replaced the log"; "index" => at.index, "term" => at.term.0);
        self.done(&[persist]);
        Ok(true)
    }

    fn done(&mut self, batch: &[Persist]) {
        if let Some(last) = batch.last() {
            (self.on_persisted)(last.number);
        }
        if let Some(index) = batch.iter().filter_map(|persist| persist.compact_to).max() {
            // A full queue, or a trimmer that failed and said so: this trim is left to a later one.
            let _ = self.trims.try_send(index);
        }
    }
}

fn entry_bytes(persist: &Persist) -> usize {
    persist.entries.iter().map(|entry| entry.data.len()).sum()
}

/// The trimmer's thread.
struct Trimming {
    log: LogTrimmer,
    snapshots: Arc<SnapshotFiles>,
    trims_wanted: Receiver<u64>,
    logger: Logger,
}

impl Trimming {
    fn run(self) -> Result<(), StorageError> {
        let mut trimmed_to = 0;
        while let Ok(wanted) = self.trims_wanted.recv() {
            let wanted = self.trims_wanted.try_iter().fold(wanted, u64::max);
            let index = wanted.min(self.snapshots.newest_index() + 1);
            if index > trimmed_to {
                self.log.trim_to(index)?;
                debug!(self.logger, "the log is trimmed"; "first" => index);
                trimmed_to = index;
            }
        }
        Ok(())
    }
}

/// Runs a thread's work. Its failure, be it a panic, goes to `on_failure`.
fn guarded<T>(
    log_dir: &Path,
    on_failure: &dyn Fn(StorageError),
    work: impl FnOnce() -> Result<T, StorageError>,
) -> Option<T> {
    let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        Err(StorageError::Log { path: log_dir.to_owned(), what: panic_message(&*panic) })
    });
    outcome.map_err(on_failure).ok()
}

#[cfg(test)]
mod tests;
