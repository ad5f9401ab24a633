//! Raft's log and hard state on disk, kept by raft-engine.
//!
//! What other modules use: `recovery` opens a [`LogStore`] and reads its `LogContents`; `writer` appends. Nobody
//! reads the log while the replica runs: raft reads its own copy in memory.
//!
//! One raft group, one key beside the entries: the hard state, together with the id of the data directory, so
//! that a log which was copied from elsewhere is noticed. Because that one record is written again and again,
//! nothing old ever pins a file of the log.
//!
//! Invariants: what `LogStore::append` was given with `sync` is durable when it returns. A log that was closed
//! in the normal way is marked as such, with its length, so that at the next start even a tail that was cut off
//! or damaged is told from a torn write.
//!
//! raft-engine panics when an fsync fails; whoever calls from a thread turns that into the end of the process.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_replica::{Persist, raft_bytes, raftpb};
use holdfast_types::ReplicaId;
use protobuf::Message;
use raft_engine::{Command, Engine, LogBatch, MessageExt};
use slog::{Logger, info, warn};
use xxhash_rust::xxh3::xxh3_64;

use super::checked_entry::{CheckedEntries, CheckedEntry};
use super::engine::{Trouble, check_room, open_engine, write_error};
use super::inspect::{self, InspectError, Tails};
use super::{StorageError, sync_dir};
use crate::config::Config;
use crate::identity::{DataDir, Stage};
use crate::system::create_private_dir;

/// raft-engine keeps many raft groups; a replica has one.
const GROUP: u64 = 1;

/// Where the hard state is. raft-engine has keys that begin with two underscores for itself.
const HARD_STATE_KEY: &[u8] = b"hard-state";
const HARD_STATE_VERSION: u8 = 1;

/// Says that the log was closed in the normal way, and how long its files are.
const CLOSED_NAME: &str = "CLOSED";

/// Which log to open.
#[derive(Clone, Debug)]
pub(super) struct LogOptions {
    pub(super) dir: PathBuf,
    pub(super) replica: ReplicaId,
    /// The data directory that the log belongs to.
    pub(super) data_id: u64,
    /// The replica belongs to no cell yet, so that the log may be new.
    pub(super) may_be_new: bool,
    /// How many bytes of log are needed at a time: between two snapshots, and behind the last.
    pub(super) live_bytes: u64,
}

impl LogOptions {
    /// The log of a replica.
    pub(super) fn new(dir: &DataDir, config: &Config) -> Self {
        let identity = dir.identity();
        Self {
            dir: dir.log_dir(),
            replica: identity.replica,
            data_id: identity.data_id,
            may_be_new: identity.stage == Stage::Fresh,
            live_bytes: config.snapshot_every_bytes + config.log_tail_bytes,
        }
    }
}

/// What a log holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct LogContents {
    pub(super) hard_state: raftpb::HardState,
    /// Without a gap.
    pub(super) entries: Vec<raftpb::Entry>,
}

/// Tells raft-engine what an entry is.
struct Entries;

impl MessageExt for Entries {
    type Entry = raftpb::Entry;

    fn index(entry: &raftpb::Entry) -> u64 {
        entry.index
    }
}

/// An open log.
pub struct LogStore {
    dir: PathBuf,
    data_id: u64,
    engine: Arc<Engine>,
    /// As on disk, for what replaces the log without bringing a hard state of its own.
    hard_state: raftpb::HardState,
}

/// Removes from the log what is no longer needed, on a thread of its own.
pub(super) struct LogTrimmer {
    dir: PathBuf,
    engine: Arc<Engine>,
}

impl LogStore {
    /// Opens the log, checks all of it, and reads it.
    pub(super) fn open(options: LogOptions, logger: &Logger) -> Result<(Self, LogContents), StorageError> {
        let LogOptions { dir, replica, data_id, may_be_new, live_bytes } = options;
        let damaged = |what: String| StorageError::Damaged { path: dir.clone(), what, replica };
        if may_be_new {
            create_private_dir(&dir).map_err(StorageError::io("create", &dir))?;
        }
        check_room(&dir)?;
        let closed = read_closed(&dir).map_err(|error| error.at(replica))?;
        let tails = if closed.is_some() { Tails::Refused } else { Tails::CutIfTorn };
        let inspection = inspect::inspect(&dir, tails).map_err(|error| error.at(replica))?;
        inspection.torn.iter().for_each(|torn| warn!(logger, "{}", torn));
        if let Some(closed) = closed {
            closed.check(&dir).map_err(|error| error.at(replica))?;
            remove_closed(&dir)?;
        }
        if inspection.files == 0 && !may_be_new {
            return Err(damaged("its files are not there".to_owned()));
        }
        let trouble = |trouble: Trouble| trouble.at(&dir, replica);
        let engine = open_engine(&dir, live_bytes).map_err(trouble)?;
        let mut store =
            Self { dir: dir.clone(), data_id, engine: Arc::new(engine), hard_state: Default::default() };
        let contents = store.contents().map_err(trouble)?;
        let Some(contents) = contents else {
            if !may_be_new {
                return Err(damaged("it holds no hard state".to_owned()));
            }
            store.begin()?;
            return Ok((store, LogContents::default()));
        };
        store.hard_state = contents.hard_state.clone();
        info!(logger, "the log is intact"; "entries" => contents.entries.len(),
            "last" => contents.entries.last().map_or(0, |entry| entry.index));
        Ok((store, contents))
    }

    /// Writes a new log's first record. The engine does not sync its directory when it makes its first files.
    fn begin(&mut self) -> Result<(), StorageError> {
        let mut batch = LogBatch::default();
        self.put_hard_state(&mut batch)?;
        self.write(batch, true)?;
        sync_dir(&self.dir).map_err(StorageError::io("sync", &self.dir))?;
        let parent = self.dir.parent().unwrap_or(Path::new("."));
        sync_dir(parent).map_err(StorageError::io("sync", parent))
    }

    /// Everything that the engine has; `None` if it has nothing.
    fn contents(&self) -> Result<Option<LogContents>, Trouble> {
        let first = self.engine.first_index(GROUP);
        let Some(record) = self.engine.get(GROUP, HARD_STATE_KEY) else {
            return match first {
                None => Ok(None),
                Some(_) => Err(Trouble::Damage("it holds entries and no hard state".to_owned())),
            };
        };
        let hard_state = decode_hard_state(&record, self.data_id).map_err(Trouble::Damage)?;
        let mut entries = Vec::new();
        if let (Some(first), Some(last)) = (first, self.engine.last_index(GROUP)) {
            let mut checked = Vec::new();
            let fetched =
                self.engine.fetch_entries_to::<CheckedEntries>(GROUP, first, last + 1, None, &mut checked);
            fetched.map_err(|error| {
                Trouble::of(error, &format!("its entries {first} to {last} cannot be read"))
            })?;
            entries.extend(checked.into_iter().map(CheckedEntry::into_inner));
            let whole = entries.iter().map(|entry| entry.index).eq(first..=last);
            if !whole {
                return Err(Trouble::Damage(format!("its entries {first} to {last} are not all there")));
            }
        }
        Ok(Some(LogContents { hard_state, entries }))
    }

    /// Writes all of `persists` at once, in their order; durable when this returns, if any of them must be. None of
    /// them may bring a snapshot.
    pub(super) fn append(&mut self, persists: &[Persist]) -> Result<(), StorageError> {
        let mut batch = LogBatch::default();
        for persist in persists {
            debug_assert!(persist.snapshot.is_none(), "a snapshot replaces the log: see `replace`");
            self.add_entries(&mut batch, &persist.entries)?;
            if let Some(hard_state) = &persist.hard_state {
                self.hard_state = hard_state.clone();
            }
        }
        let sync = persists.iter().any(|persist| persist.sync);
        // The engine takes an empty batch for nothing to do, and would leave what came before it unsynced.
        if persists.iter().any(|persist| persist.hard_state.is_some()) || (sync && batch.is_empty()) {
            self.put_hard_state(&mut batch)?;
        }
        self.write(batch, sync)
    }

    /// Replaces the whole log, atomically and durably, by `entries`, which follow a snapshot that is durable
    /// already. `hard_state`: the new one, if it changes.
    pub(super) fn replace(
        &mut self,
        hard_state: Option<&raftpb::HardState>,
        entries: &[raftpb::Entry],
    ) -> Result<(), StorageError> {
        if let Some(hard_state) = hard_state {
            self.hard_state = hard_state.clone();
        }
        let mut batch = LogBatch::default();
        batch.add_command(GROUP, Command::Clean);
        self.put_hard_state(&mut batch)?;
        self.add_entries(&mut batch, entries)?;
        self.write(batch, true)
    }

    /// Where it is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// What removes from this log.
    pub(super) fn trimmer(&self) -> LogTrimmer {
        LogTrimmer { dir: self.dir.clone(), engine: Arc::clone(&self.engine) }
    }

    /// Closes the log and marks it as closed. Its [`LogTrimmer`]s must be gone.
    ///
    /// # Errors
    ///
    /// If the mark cannot be written. Everything is durable all the same, and the next start checks the log as it does after a
    /// crash.
    pub(super) fn close(self) -> Result<(), StorageError> {
        let Self { dir, engine, .. } = self;
        let engine = Arc::into_inner(engine).ok_or_else(|| StorageError::Log {
            path: dir.clone(),
            what: "it is closed while another thread is trimming it".to_owned(),
        })?;
        drop(engine);
        write_closed(&dir)
    }

    fn add_entries(&self, batch: &mut LogBatch, entries: &[raftpb::Entry]) -> Result<(), StorageError> {
        batch.add_entries::<Entries>(GROUP, entries).map_err(|error| self.error(error))
    }

    fn put_hard_state(&self, batch: &mut LogBatch) -> Result<(), StorageError> {
        let record = encode_hard_state(&self.hard_state, self.data_id);
        batch.put(GROUP, HARD_STATE_KEY.to_vec(), record).map_err(|error| self.error(error))
    }

    fn write(&self, mut batch: LogBatch, sync: bool) -> Result<(), StorageError> {
        self.engine.write(&mut batch, sync).map(drop).map_err(|error| self.error(error))
    }

    fn error(&self, error: raft_engine::Error) -> StorageError {
        write_error(&self.dir, error)
    }
}

impl LogTrimmer {
    /// Removes the entries below `index`, and the files that held nothing else.
    pub(super) fn trim_to(&self, index: u64) -> Result<(), StorageError> {
        let error = |error: raft_engine::Error| write_error(&self.dir, error);
        let mut batch = LogBatch::default();
        batch.add_command(GROUP, Command::Compact { index });
        self.engine.write(&mut batch, false).map_err(error)?;
        self.engine.purge_expired_files().map(drop).map_err(error)
    }
}

fn encode_hard_state(hard_state: &raftpb::HardState, data_id: u64) -> Vec<u8> {
    let mut record = vec![HARD_STATE_VERSION];
    record.extend_from_slice(&data_id.to_le_bytes());
    hard_state.write_to_vec(&mut record).expect("a hard state can be encoded");
    record
}

fn decode_hard_state(record: &[u8], data_id: u64) -> Result<raftpb::HardState, String> {
    let (version, rest) = record.split_first().ok_or("its hard state is empty")?;
    if *version != HARD_STATE_VERSION {
        return Err(format!(
            "its hard state has version {version}, and this program knows {HARD_STATE_VERSION}"
        ));
    }
    let (owner, rest) = rest.split_first_chunk::<8>().ok_or("its hard state is too short")?;
    if u64::from_le_bytes(*owner) != data_id {
        return Err("it is the log of another data directory, copied or moved here".to_owned());
    }
    raft_bytes::parse(rest).map_err(|error| format!("its hard state cannot be decoded: {error}"))
}

/// The lengths of the log's files when it was closed.
struct Closed(String);

impl Closed {
    /// Whether the files are as they were.
    fn check(&self, dir: &Path) -> Result<(), InspectError> {
        if self.0 == listing(dir)? {
            return Ok(());
        }
        let what = "its files are not those that it was closed with, or not as long".to_owned();
        Err(InspectError::Damaged { path: dir.to_owned(), what })
    }
}

/// The log's files with their lengths, one a line.
fn listing(dir: &Path) -> Result<String, StorageError> {
    let mut lines = String::new();
    for file in inspect::all_files(dir)? {
        let length = fs::metadata(&file.path).map_err(StorageError::io("read", &file.path))?.len();
        let name = file.path.file_name().unwrap_or_default().to_string_lossy();
        lines.push_str(&format!("{name} {length}\n"));
    }
    Ok(lines)
}

fn write_closed(dir: &Path) -> Result<(), StorageError> {
    let (path, temporary) = (dir.join(CLOSED_NAME), dir.join("CLOSED.tmp"));
    let lines = listing(dir)?;
    let text = format!("{:016x}\n{lines}", xxh3_64(lines.as_bytes()));
    let write = || {
        let mut file = File::create(&temporary).map_err(StorageError::io("create", &temporary))?;
        file.write_all(text.as_bytes()).map_err(StorageError::io("write", &temporary))?;
        file.sync_all().map_err(StorageError::io("sync", &temporary))?;
        fs::rename(&temporary, &path).map_err(StorageError::io("rename", &temporary))
    };
    if let Err(error) = write() {
        // It would be of no use to anybody.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    sync_dir(dir).map_err(StorageError::io("sync", dir))
}

fn read_closed(dir: &Path) -> Result<Option<Closed>, InspectError> {
    let path = dir.join(CLOSED_NAME);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StorageError::io("read", &path)(error).into()),
    };
    let (checksum, lines) = text.split_once('\n').unwrap_or_default();
    if checksum != format!("{:016x}", xxh3_64(lines.as_bytes())) {
        return Err(InspectError::Damaged { path, what: "its checksum does not match".to_owned() });
    }
    Ok(Some(Closed(lines.to_owned())))
}

/// The mark holds until the log is opened for writing.
fn remove_closed(dir: &Path) -> Result<(), StorageError> {
    let path = dir.join(CLOSED_NAME);
    fs::remove_file(&path).map_err(StorageError::io("remove", &path))?;
    sync_dir(dir).map_err(StorageError::io("sync", dir))
}

#[cfg(test)]
mod tests;
