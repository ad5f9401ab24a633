//! Who a replica is: its data directory, what the directory was made for, and that nobody else uses it.
//!
//! ```text
//! <data_dir>/LOCK            held for as long as the process lives
//! <data_dir>/identity.toml   this module's: cell, replica, data_id, how far it has come; with a checksum
//! <data_dir>/STALE           this module's: there once the directory must not be used again
//! <data_dir>/log/            raft's log and hard state (storage::log)
//! <data_dir>/snapshots/      snapshots of the state (storage::snapshot)
//! ```
//!
//! What other modules use: [`DataDir::open`], then [`DataDir::identity`]; [`DataDir::found`] once every founding
//! replica has been heard from, or [`DataDir::join`] once the cell's id is known; [`cell_id`].
//!
//! A data directory is named by a random `data_id`, which is durable before the replica talks to anybody. A
//! replica that has lost its data must never come back under its id: it could vote away what it acknowledged
//! (design.md §5). So whatever is missing or damaged here is an error that says how to replace the replica;
//! nothing is repaired, and nothing is overwritten but by the next stage of the same identity.

mod error;
mod file;

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

use holdfast_proto::client::v1::Settings;
use holdfast_proto::log::v1::Member;
use holdfast_state::VERSION_MAX;
use holdfast_types::{Duration, ReplicaId};
use slog::{Logger, warn};
use xxhash_rust::xxh3::Xxh3;

use crate::config::Config;
use crate::storage::{self, sync_dir};
use crate::system::{create_private_dir, exposed};
pub use error::IdentityError;

/// What a data directory was made for, and how far it has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity {
    /// The cell's name.
    pub cell: String,
    /// The replica's raft id.
    pub replica: ReplicaId,
    /// Names the directory; random; never 0.
    pub data_id: u64,
    /// How far it has come. Only ever goes on from `Fresh` to one of the others.
    pub stage: Stage,
}

/// How far a replica has come.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// It belongs to no cell yet: raft has not run here.
    Fresh,
    /// It is one of those that founded its cell.
    Founded(Founded),
    /// It joined a cell that existed.
    Joined {
        /// The cell's id.
        cell_id: u64,
    },
}

/// How a cell was founded; the same on all its founders.
#[derive(Clone, Debug, PartialEq)]
pub struct Founded {
    /// The cell's id: see [`cell_id`].
    pub cell_id: u64,
    /// The founding replicas, by rising id, each with its data id; all voters.
    pub members: Vec<Member>,
    /// The settings that the cell began with.
    pub settings: Settings,
    /// The state version that the cell began with.
    pub state_version: u32,
}

impl Identity {
    /// The cell's id; 0 as long as the replica belongs to none.
    #[must_use]
    pub fn cell_id(&self) -> u64 {
        match &self.stage {
            Stage::Fresh => 0,
            Stage::Founded(founded) => founded.cell_id,
            Stage::Joined { cell_id } => *cell_id,
        }
    }
}

/// A replica's data directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct DataDir {
    root: PathBuf,
    identity: Identity,
    /// Holds the advisory lock, which goes when the file is closed, however the process ends.
    _lock: File,
}

impl DataDir {
    /// Locks the directory and reads its identity, or makes both where there is nothing yet.
    ///
    /// # Errors
    ///
    /// If it is in use, another's, damaged, or incomplete; see [`IdentityError`].
    pub fn open(config: &Config) -> Result<Self, IdentityError> {
        let root = config.data_dir.clone();
        create_private_dir(&root).map_err(io("create the data directory", &root))?;
        let lock = lock(&root)?;
        let path = root.join(file::NAME);
        let identity = match file::read(&path, config.replica)? {
            Some(identity) => identity,
            None => create(&root, config)?,
        };
        if identity.cell != config.cell {
            let configured = config.cell.clone();
            return Err(IdentityError::OtherCell { path: root, found: identity.cell, configured });
        }
        if identity.replica != config.replica {
            let (found, configured) = (identity.replica, config.replica);
            return Err(IdentityError::OtherReplica { path: root, found, configured });
        }
        let dir = Self { root, identity, _lock: lock };
        dir.check_not_stale()?;
        match dir.identity.stage {
            // The log is begun before the replica can come to a cell: from then on, a log that is not there is
            // lost, without a doubt.
            Stage::Fresh => storage::prepare(&dir, config)?,
            Stage::Founded(_) | Stage::Joined { .. } => dir.check_complete(&path)?,
        }
        Ok(dir)
    }

    /// Who the replica is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Says so if others on this machine may read what the cell holds, which a directory of an earlier release allows, or one
    /// that somebody else has made.
    pub(crate) fn warn_if_exposed(&self, logger: &Logger) {
        match exposed(&self.root) {
            Ok(None) => {}
            Ok(Some(path)) => warn!(
                logger,
                "others on this machine can read or change what is in the data directory, the contents of files and the \
                secrets of sessions: `chmod -R go= {}`", self.root.display(); "found" => path.display()
            ),
            Err(error) => warn!(logger, "cannot find out who may read the data directory: {error}"),
        }
    }

    /// Has the directory never be used again: under another master its being stale might not be noticed.
    pub(crate) fn mark_stale(&self, what: &str) -> Result<(), IdentityError> {
        let path = self.root.join(STALE);
        let mut file = File::create(&path).map_err(io("create", &path))?;
        file.write_all(what.as_bytes()).map_err(io("write", &path))?;
        file.sync_all().map_err(io("sync", &path))?;
        sync_dir(&self.root).map_err(io("sync", &self.root))
    }

    fn check_not_stale(&self) -> Result<(), IdentityError> {
        let path = self.root.join(STALE);
        match fs::read_to_string(&path) {
            Ok(what) => Err(IdentityError::Stale { path, what, replica: self.identity.replica }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(io("read", &path)(error)),
        }
    }

    /// Where raft's log is.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.root.join("log")
    }

    /// Where the snapshots are.
    #[must_use]
    pub fn snapshot_dir(&self) -> PathBuf {
        self.root.join("snapshots")
    }

    /// Records how the cell was founded. Durable when this returns. `members` are all founding replicas with
    /// their data ids; their order does not matter.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    ///
    /// # Panics
    ///
    /// If the replica belongs to a cell already.
    pub fn found(&mut self, mut members: Vec<Member>, settings: Settings) -> Result<&Founded, IdentityError> {
        members.sort_by_key(|member| member.id);
        let pairs = members.iter().map(|member| (ReplicaId(member.id), member.data_id));
        let cell_id = cell_id(&self.identity.cell, pairs);
        let state_version = VERSION_MAX;
        self.advance(Stage::Founded(Founded { cell_id, members, settings, state_version }))?;
        match &self.identity.stage {
            Stage::Founded(founded) => Ok(founded),
            other => unreachable!("the stage was just set, and is {other:?}"),
        }
    }

    /// Records which cell the replica joined. Durable when this returns.
    ///
    /// # Errors
    ///
    /// If the disk fails.
    ///
    /// # Panics
    ///
    /// If the replica belongs to a cell already.
    pub fn join(&mut self, cell_id: u64) -> Result<(), IdentityError> {
        self.advance(Stage::Joined { cell_id })
    }

    fn advance(&mut self, stage: Stage) -> Result<(), IdentityError> {
        assert_eq!(self.identity.stage, Stage::Fresh, "a replica comes to a cell once");
        let identity = Identity { stage, ..self.identity.clone() };
        file::write(&self.root, &identity)?;
        self.identity = identity;
        Ok(())
    }

    /// A replica that has been part of its cell has a log; what the log holds is checked when it is read.
    fn check_complete(&self, path: &Path) -> Result<(), IdentityError> {
        for dir in [self.log_dir(), self.snapshot_dir()] {
            match fs::metadata(&dir) {
                Ok(metadata) if metadata.is_dir() => {}
                // A link that leads nowhere may lead to what is not mounted yet.
                Err(error) if error.kind() != ErrorKind::NotFound || dir.is_symlink() => {
                    return Err(io("open", &dir)(error));
                }
                Ok(_) | Err(_) => {
                    let replica = self.identity.replica;
                    return Err(IdentityError::DataGone { path: path.to_owned(), missing: dir, replica });
                }
            }
        }
        Ok(())
    }
}

/// The id of the cell that these replicas found: no two foundings give the same one, for the data ids are random.
#[must_use]
pub fn cell_id(cell: &str, pairs: impl IntoIterator<Item = (ReplicaId, u64)>) -> u64 {
    let mut pairs: Vec<_> = pairs.into_iter().collect();
    pairs.sort_unstable();
    let mut hash = Xxh3::new();
    hash.update(&(cell.len() as u64).to_le_bytes());
    hash.update(cell.as_bytes());
    for (replica, data_id) in pairs {
        hash.update(&replica.0.to_le_bytes());
        hash.update(&data_id.to_le_bytes());
    }
    // 0 means "no cell yet" on the wire.
    hash.digest().max(1)
}

fn lock(root: &Path) -> Result<File, IdentityError> {
    let path = root.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(io("open", &path))?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_WAIT => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => return Err(IdentityError::InUse { path: root.to_owned() }),
            Err(TryLockError::Error(source)) => {
                return Err(IdentityError::Io { action: "lock", path, source });
            }
        }
    }
}

/// How long a directory may seem to be in use: a process that is ending holds its lock until it is gone, and so
/// does, for a moment, a child that its process has just forked.
pub(crate) const LOCK_WAIT: Duration = Duration::from_millis(500);
/// How often it is looked at meanwhile.
pub(crate) const LOCK_PAUSE: Duration = Duration::from_millis(5);

const LOCK: &str = "LOCK";
/// Says that the directory is older than what its replica has acknowledged, and how that is known.
const STALE: &str = "STALE";

fn create(root: &Path, config: &Config) -> Result<Identity, IdentityError> {
    check_empty(root, config.replica)?;
    let data_id = getrandom::u64().map_err(|error| IdentityError::Random(error.to_string()))?.max(1);
    let identity =
        Identity { cell: config.cell.clone(), replica: config.replica, data_id, stage: Stage::Fresh };
    file::write(root, &identity)?;
    // The directory's own entry in its parent, in case it was made just now.
    let parent = root.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    sync_dir(parent).map_err(io("sync", parent))?;
    Ok(identity)
}

/// Only our own lock, what a crash left of writing the first identity, and what file systems put into every
/// directory of their own may be there.
fn check_empty(root: &Path, replica: ReplicaId) -> Result<(), IdentityError> {
    let ours = [LOCK, file::TEMPORARY_NAME, "lost+found"];
    for entry in fs::read_dir(root).map_err(io("list", root))? {
        let name = entry.map_err(io("list", root))?.file_name();
        let found = name.to_string_lossy().into_owned();
        if !ours.contains(&found.as_str()) {
            return Err(IdentityError::NoIdentity { path: root.to_owned(), found, replica });
        }
    }
    Ok(())
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> IdentityError + use<> {
    let path = path.to_owned();
    move |source| IdentityError::Io { action, path, source }
}

#[cfg(test)]
mod tests;
