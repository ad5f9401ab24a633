//! What a replica keeps on its disk: raft's log and hard state ([`log`]), and snapshots of the state
//! ([`snapshot_files`], in the format of [`snapshot`], which is the format that peers send too).
//!
//! What other modules use, in the order of a replica's life:
//! - [`recovery::boot`] reads and checks everything: a [`recovery::Recovered`], with the replica's
//!   [`Boot`](holdfast_replica::Boot);
//! - [`writer::LogWriter::spawn`] starts the thread that makes each [`Persist`](holdfast_replica::Persist)
//!   durable;
//! - [`snapshot_files::SnapshotFiles::write`] writes a snapshot, from a blocking thread;
//! - [`snapshot::SnapshotEncoder`] and [`snapshot::SnapshotDecoder`] carry one between replicas;
//! - [`writer::LogWriter::close`] at the end.
//!
//! Never here: what the bytes mean to raft or to the state. Invariant: nothing is reported durable before it is,
//! and nothing that was durable is dropped because of damage: where a torn write cannot be told from damage, the
//! replica does not start (design.md §5, §8).

mod checked_entry;
mod engine;
mod inspect;
pub mod log;
pub mod recovery;
pub mod snapshot;
pub mod snapshot_files;
#[cfg(test)]
pub(crate) mod testing;
pub mod writer;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use holdfast_replica::admission::ReplaceAdvice;
use holdfast_types::ReplicaId;
use slog::{Logger, o};

use crate::config::Config;
use crate::identity::DataDir;
use crate::system::{self, advice, create_private_dir};

/// Why storage cannot be used, or cannot be used any longer. Each of these ends the process, but for a snapshot that cannot be
/// written for a reason that may pass.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// A file could not be read or written.
    #[error("cannot {action} {path}: {source}{advice}", path = path.display(), advice = advice(source))]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The log could not be read or written.
    #[error("the log in {path} failed: {what}", path = path.display())]
    Log {
        /// The log's directory.
        path: PathBuf,
        /// What failed.
        what: String,
    },
    /// A newer version of Holdfast wrote it.
    #[error("{path} cannot be read: {what}", path = path.display())]
    TooNew {
        /// The file.
        path: PathBuf,
        /// What would be needed.
        what: String,
    },
    /// What is there is not what was written.
    #[error("{path} is damaged: {what}. {advice}", path = path.display(), advice = ReplaceAdvice(*replica))]
    Damaged {
        /// The file or directory.
        path: PathBuf,
        /// What is wrong with it, and where.
        what: String,
        /// The replica whose data these are.
        replica: ReplicaId,
    },
}

impl StorageError {
    /// Whether it is for want of room.
    pub(crate) fn is_no_room(&self) -> bool {
        matches!(self, Self::Io { source, .. } if system::is_no_room(source))
    }

    /// Whether it says nothing of the disk, and what failed may well succeed later.
    pub(crate) fn may_pass(&self) -> bool {
        matches!(self, Self::Io { source, .. } if system::may_pass(source))
    }

    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Begins the log and makes the directory of the snapshots, for a replica that belongs to no cell yet.
pub(crate) fn prepare(dir: &DataDir, config: &Config) -> Result<(), StorageError> {
    let snapshots = dir.snapshot_dir();
    create_private_dir(&snapshots).map_err(StorageError::io("create", &snapshots))?;
    let (log, _) =
        log::LogStore::open(log::LogOptions::new(dir, config), &Logger::root(slog::Discard, o!()))?;
    log.close()
}

/// Makes what was created, renamed or removed in a directory durable.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// What a caught panic said.
fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message").to_owned()
}
