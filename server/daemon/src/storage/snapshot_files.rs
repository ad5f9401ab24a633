//! Snapshots on disk: `<index>-<term>.snap`, in the format of [`snapshot`](super::snapshot).
//!
//! What other modules use: [`SnapshotFiles::write`], from any blocking thread. `recovery` opens and reads.
//!
//! A snapshot is written to a temporary name, synced every few MiB (one great flush at the end would stall the
//! log's own syncs for seconds, L§7), renamed, and the directory synced; only then are older ones removed, all
//! but one. Invariant: at every moment of a crash the newest complete snapshot is there under its name.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use holdfast_replica::StateAt;
use holdfast_types::{ReplicaId, Term};

use super::snapshot::{SnapshotDecoder, SnapshotEncoder, SnapshotError};
use super::{StorageError, sync_dir};
use crate::system::create_private_dir;

const EXTENSION: &str = "snap";
const TEMPORARY_EXTENSION: &str = "tmp";

/// What could not be read is kept under this, so that somebody can look at it.
const DAMAGED_EXTENSION: &str = "damaged";

/// So many bytes are written before they are synced.
const BYTES_PER_SYNC: usize = 4 << 20;

const READ_BYTES: usize = 1 << 20;

/// The newest two are kept: the one that counts, and the one before it.
const SNAPSHOTS_KEPT: usize = 2;

/// The directory of a replica's snapshots.
#[derive(Debug)]
pub struct SnapshotFiles {
    dir: PathBuf,
    replica: ReplicaId,
    /// The index of the newest complete snapshot; 0 if there is none. Held while names in the directory change,
    /// since the log's thread and a background thread may both have a snapshot to write.
    newest: Mutex<u64>,
}

/// A snapshot file by what its name says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SnapshotName {
    pub(super) index: u64,
    pub(super) term: Term,
}

impl SnapshotName {
    fn of(at: &StateAt) -> Self {
        Self { index: at.index, term: at.term }
    }

    fn parse(path: &Path) -> Option<Self> {
        let stem = path.file_stem().filter(|_| path.extension().is_some_and(|it| it == EXTENSION))?;
        let (index, term) = stem.to_str()?.split_once('-')?;
        Some(Self { index: index.parse().ok()?, term: Term(term.parse().ok()?) })
    }

    /// Fixed width, so that a listing is in order.
    fn file_name(self) -> String {
        format!("{:020}-{:020}.{EXTENSION}", self.index, self.term.0)
    }
}

impl SnapshotFiles {
    /// Opens the directory, making it if need be, and removes what a crash left half written.
    pub(super) fn open(dir: PathBuf, replica: ReplicaId) -> Result<Self, StorageError> {
        create_private_dir(&dir).map_err(StorageError::io("create", &dir))?;
        check_writable(&dir)?;
        for entry in fs::read_dir(&dir).map_err(StorageError::io("list", &dir))? {
            let path = entry.map_err(StorageError::io("list", &dir))?.path();
            if path.extension().is_some_and(|extension| extension == TEMPORARY_EXTENSION) {
                fs::remove_file(&path).map_err(StorageError::io("remove", &path))?;
            }
        }
        let files = Self { dir, replica, newest: Mutex::new(0) };
        // A snapshot that was renamed just before a crash counts from now on.
        files.sync()?;
        let newest = files.names()?.first().map_or(0, |name| name.index);
        *files.newest.lock().unwrap_or_else(PoisonError::into_inner) = newest;
        Ok(files)
    }

    /// Writes a snapshot. It is durable when this returns. Takes as long as the disk needs: for a thread that may
    /// block.
    ///
    /// # Errors
    ///
    /// If it could not be written: nothing is left of it, and the snapshots before are still there. If the reason is not one
    /// that may pass, the replica must stop: a disk that failed once is not to be trusted with the log.
    pub fn write(&self, at: &StateAt) -> Result<(), StorageError> {
        let name = SnapshotName::of(at);
        let path = self.path(name);
        let temporary = path.with_extension(format!("{EXTENSION}.{TEMPORARY_EXTENSION}"));
        let written = write_chunks(&temporary, SnapshotEncoder::new(at));
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let renamed = written
            .and_then(|()| fs::rename(&temporary, &path).map_err(StorageError::io("rename", &temporary)));
        if let Err(error) = renamed {
            // It takes the room that the log needs. If it cannot be removed, the next start does.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        self.sync()?;
        *newest = (*newest).max(name.index);
        self.remove_old()
    }

    /// The index of the newest complete snapshot; 0 if there is none.
    #[must_use]
    pub fn newest_index(&self) -> u64 {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What there is, the newest first.
    pub(super) fn names(&self) -> Result<Vec<SnapshotName>, StorageError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(StorageError::io("list", &self.dir))? {
            let path = entry.map_err(StorageError::io("list", &self.dir))?.path();
            names.extend(SnapshotName::parse(&path));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// Reads a snapshot of the cell `cell_id` and checks all of it.
    ///
    /// # Errors
    ///
    /// [`StorageError::Damaged`] if it is not what its name says, or not whole.
    pub(super) fn read(&self, name: SnapshotName, cell_id: u64) -> Result<StateAt, StorageError> {
        let path = self.path(name);
        let damaged = |what| StorageError::Damaged { path: path.clone(), what, replica: self.replica };
        let error = |error: SnapshotError| match error {
            SnapshotError::Damaged { .. } => damaged(error.to_string()),
            SnapshotError::TooNew { what } => StorageError::TooNew { path: path.clone(), what },
        };
        let mut file = File::open(&path).map_err(StorageError::io("open", &path))?;
        let mut decoder = SnapshotDecoder::new(cell_id);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let length = file.read(&mut buffer).map_err(StorageError::io("read", &path))?;
            if length == 0 {
                break;
            }
            decoder.push(&buffer[..length]).map_err(error)?;
        }
        let at = decoder.finish().map_err(error)?;
        if SnapshotName::of(&at) != name {
            let what = format!("it stands at entry {} of term {}, and its name differs", at.index, at.term.0);
            return Err(damaged(what));
        }
        Ok(at)
    }

    /// Takes a damaged snapshot out of the way, without destroying it.
    pub(super) fn set_aside(&self, name: SnapshotName) -> Result<(), StorageError> {
        let path = self.path(name);
        let aside = path.with_extension(format!("{EXTENSION}.{DAMAGED_EXTENSION}"));
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        fs::rename(&path, &aside).map_err(StorageError::io("rename", &path))?;
        self.sync()?;
        *newest = self.names()?.first().map_or(0, |name| name.index);
        Ok(())
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, name: SnapshotName) -> PathBuf {
        self.dir.join(name.file_name())
    }

    fn sync(&self) -> Result<(), StorageError> {
        sync_dir(&self.dir).map_err(StorageError::io("sync", &self.dir))
    }

    fn remove_old(&self) -> Result<(), StorageError> {
        for old in self.names()?.into_iter().skip(SNAPSHOTS_KEPT) {
            let path = self.path(old);
            fs::remove_file(&path).map_err(StorageError::io("remove", &path))?;
        }
        Ok(())
    }
}

/// Files can be made in the directory: better found out at the start than when a snapshot is due, which it is on all replicas
/// at once. That there is no room now may pass.
fn check_writable(dir: &Path) -> Result<(), StorageError> {
    let probe = dir.join(format!("probe.{TEMPORARY_EXTENSION}"));
    match File::create(&probe).map_err(StorageError::io("create", &probe)) {
        Err(error) if !error.is_no_room() => Err(error),
        // It is among what is removed next.
        Ok(_) | Err(_) => Ok(()),
    }
}

fn write_chunks(path: &Path, encoder: SnapshotEncoder) -> Result<(), StorageError> {
    let mut file = File::create(path).map_err(StorageError::io("create", path))?;
    let mut bytes_unsynced = 0;
    for chunk in encoder {
        file.write_all(&chunk).map_err(StorageError::io("write", path))?;
        bytes_unsynced += chunk.len();
        if bytes_unsynced >= BYTES_PER_SYNC {
            file.sync_data().map_err(StorageError::io("sync", path))?;
            bytes_unsynced = 0;
        }
    }
    file.sync_all().map_err(StorageError::io("sync", path))
}

#[cfg(test)]
mod tests;
