//! Tells a torn write from damage in raft-engine's files, before raft-engine opens them.
//!
//! raft-engine itself either refuses every irregular tail, the zeros that it allocates ahead included, or cuts
//! off everything from the first irregularity on, intact records that were acknowledged included. Neither will
//! do (design.md §8). So every record of every file is checked here, with its checksums. The tail of the newest
//! file of a queue is cut only if nothing intact follows in it; raft-engine is then opened in its strict mode,
//! which finds nothing left to complain of.
//!
//! Why only the newest file: a file is closed, trimmed and synced before its successor is created.
//!
//! What is read here counts as durable from then on. So it is made durable first: the process before may have died
//! between a write and its sync, or because of a sync that failed, after which the system's cache may show what the
//! disk does not have.
//!
//! The format (raft-engine 0.4, version 2, without alignment, compression or recycled files):
//! ```text
//! file    magic, u64 version = 2, u64 alignment = 0; then records
//! record  u64 length << 8 | compression = 0, u64 offset of the footer,
//!         entries and u32 crc32 of them (absent where there are none), footer and u32 crc32 ^ file number
//! ```

use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};

use holdfast_types::ReplicaId;

use super::{StorageError, sync_dir};

const MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
const FILE_HEADER_BYTES: usize = MAGIC.len() + 16;
const RECORD_HEADER_BYTES: usize = 16;
const CHECKSUM_BYTES: usize = 4;

/// raft-engine's two queues of files, by the files' extension.
const QUEUES: [&str; 2] = ["raftlog", "rewrite"];

/// What an inspection found that an operator may want to know.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Inspection {
    /// How many log files there are, after torn ones were removed.
    pub(super) files: usize,
    /// Torn writes that were cut off, for the program's log. Allocated zeros are not worth a word.
    pub(super) torn: Vec<String>,
}

/// What to do with the end of a queue's newest file if it is not intact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tails {
    /// Cut it off if it is a torn write.
    CutIfTorn,
    /// Refuse it: the log was closed in the normal way, so nothing can be torn.
    Refused,
}

/// A log file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogFile {
    pub(super) number: u64,
    pub(super) path: PathBuf,
}

/// Why a file cannot be used: what is wrong with it, for a person.
#[derive(Debug)]
pub(super) enum InspectError {
    /// It cannot be read or repaired.
    Storage(StorageError),
    /// It is damaged.
    Damaged { path: PathBuf, what: String },
}

impl InspectError {
    /// The error as one of the replica's storage.
    pub(super) fn at(self, replica: ReplicaId) -> StorageError {
        match self {
            Self::Storage(error) => error,
            Self::Damaged { path, what } => StorageError::Damaged { path, what, replica },
        }
    }
}

impl From<StorageError> for InspectError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Checks all files of a log, and cuts torn writes off its tails.
pub(super) fn inspect(dir: &Path, tails: Tails) -> Result<Inspection, InspectError> {
    let mut inspection = Inspection::default();
    for queue in QUEUES {
        let files = log_files(dir, queue)?;
        check_numbers(&files)?;
        for (position, file) in files.iter().enumerate() {
            let may_be_torn = tails == Tails::CutIfTorn && position + 1 == files.len();
            let kept = inspect_file(file, may_be_torn, &mut inspection.torn)?;
            inspection.files += usize::from(kept);
        }
    }
    sync_dir(dir).map_err(StorageError::io("sync", dir))?;
    Ok(inspection)
}

/// The files of all queues.
pub(super) fn all_files(dir: &Path) -> Result<Vec<LogFile>, StorageError> {
    let queues = QUEUES.into_iter().map(|queue| log_files(dir, queue)).collect::<Result<Vec<_>, _>>()?;
    Ok(queues.concat())
}

/// The files of a queue, by rising number.
fn log_files(dir: &Path, queue: &str) -> Result<Vec<LogFile>, StorageError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(StorageError::io("list", dir))? {
        let path = entry.map_err(StorageError::io("list", dir))?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok());
        if let (Some(number), true) = (number, path.extension().is_some_and(|extension| extension == queue)) {
            files.push(LogFile { number, path });
        }
    }
    files.sort();
    Ok(files)
}

/// raft-engine drops the files before a gap without a word.
fn check_numbers(files: &[LogFile]) -> Result<(), InspectError> {
    for pair in files.windows(2) {
        if pair[0].number + 1 != pair[1].number {
            let what = format!("the file before it, number {}, is missing", pair[1].number - 1);
            return Err(InspectError::Damaged { path: pair[1].path.clone(), what });
        }
    }
    Ok(())
}

/// Checks one file. Tells whether it is still there.
fn inspect_file(file: &LogFile, may_be_torn: bool, torn: &mut Vec<String>) -> Result<bool, InspectError> {
    let path = &file.path;
    let bytes = read_from_disk(path)?;
    let damaged = |what| InspectError::Damaged { path: path.clone(), what };
    if !has_header(&bytes) {
        if may_be_torn && is_torn_header(&bytes) {
            torn.push(format!("{} was created just before the crash, and is empty: removed", path.display()));
            fs::remove_file(path).map_err(StorageError::io("remove", path))?;
            return Ok(false);
        }
        return Err(damaged("its header is not a log file's".to_owned()));
    }
    let end = intact_bytes(&bytes, file.number);
    if end == bytes.len() {
        return Ok(true);
    }
    if !may_be_torn {
        return Err(damaged(format!("the record at byte {end} of {} is not intact", bytes.len())));
    }
    if let Some(next) = next_intact_record(&bytes, end, file.number) {
        return Err(damaged(format!(
            "the record at byte {end} is not intact, and an intact one follows at byte {next}: this is no torn write"
        )));
    }
    let zeros = bytes[end..].iter().all(|byte| *byte == 0);
    if !zeros {
        let cut = bytes.len() - end;
        torn.push(format!("a torn write was cut off {}: {cut} bytes from byte {end} on", path.display()));
    }
    truncate(path, end)?;
    Ok(true)
}

/// Writes out what is only in the system's cache, and then reads what is on the disk rather than in the cache.
fn read_from_disk(path: &Path) -> Result<Vec<u8>, StorageError> {
    let mut file =
        File::options().read(true).write(true).open(path).map_err(StorageError::io("open", path))?;
    file.sync_all().map_err(StorageError::io("sync", path))?;
    #[cfg(target_os = "linux")]
    {
        // Advice: a file system without a cache of its own, or without a disk, has nothing to drop.
        use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(StorageError::io("read", path))?;
    Ok(bytes)
}

fn truncate(path: &Path, length: usize) -> Result<(), StorageError> {
    let file = File::options().write(true).open(path).map_err(StorageError::io("open", path))?;
    file.set_len(length as u64).map_err(StorageError::io("truncate", path))?;
    file.sync_all().map_err(StorageError::io("sync", path))
}

fn header() -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..MAGIC.len()].copy_from_slice(MAGIC);
    header[MAGIC.len() + 7] = 2;
    header
}

fn has_header(bytes: &[u8]) -> bool {
    bytes.starts_with(&header())
}

/// A header of which only a part was written: a beginning of it, and after that nothing or zeros.
fn is_torn_header(bytes: &[u8]) -> bool {
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    header().starts_with(&bytes[..written])
}

/// How far the file is intact, record by record.
fn intact_bytes(bytes: &[u8], number: u64) -> usize {
    let mut end = FILE_HEADER_BYTES;
    while let Some(record) = record_at(bytes, end, number) {
        end = record.end;
    }
    end
}

/// Where, anywhere after `from`, an intact record begins.
fn next_intact_record(bytes: &[u8], from: usize, number: u64) -> Option<usize> {
    (from + 1..bytes.len()).find(|offset| record_at(bytes, *offset, number).is_some())
}

/// The intact record that begins at `offset`, if there is one.
fn record_at(bytes: &[u8], offset: usize, number: u64) -> Option<Range<usize>> {
    let header = bytes.get(offset..offset + RECORD_HEADER_BYTES)?;
    let length_and_type = u64::from_be_bytes(header[..8].try_into().expect("8 bytes"));
    let footer = u64::from_be_bytes(header[8..].try_into().expect("8 bytes"));
    let (length, compression) = (length_and_type >> 8, length_and_type & 0xff);
    if compression != 0 || footer < RECORD_HEADER_BYTES as u64 || footer >= length {
        return None;
    }
    let length = usize::try_from(length).ok()?;
    let record = bytes[offset..].get(..length)?;
    let (entries, footer) = record[RECORD_HEADER_BYTES..].split_at(footer as usize - RECORD_HEADER_BYTES);
    // raft-engine signs footers with the low half of the file's number.
    let intact = has_checksum(footer, number as u32) && (entries.is_empty() || has_checksum(entries, 0));
    intact.then_some(offset..offset + length)
}

/// Whether `bytes` end in their own checksum, which is XORed with `signature`.
fn has_checksum(bytes: &[u8], signature: u32) -> bool {
    let Some((content, checksum)) = bytes.split_last_chunk::<CHECKSUM_BYTES>() else { return false };
    !content.is_empty() && crc32fast::hash(content) ^ signature == u32::from_le_bytes(*checksum)
}
