//! Opening raft-engine: with room to go on, and with the reason if it cannot be opened.
//!
//! Invariant: damage is said only of what was read and is wrong. An operator who hears of it gives the data up, so what the
//! system refuses (permission, descriptors, room) is told in the system's words instead.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::thread;
use std::time::Instant;

use holdfast_types::ReplicaId;
use raft_engine::{Engine, ReadableSize, RecoveryMode};

use super::StorageError;
use crate::identity::{LOCK_PAUSE, LOCK_WAIT};

/// Why a log cannot be used.
#[derive(Debug)]
pub(super) enum Trouble {
    /// What is there is not what was written. That is said only of what was read and is wrong: it makes an operator give the
    /// data up.
    Damage(String),
    /// The system did not give what is needed.
    System(io::Error),
    /// Something else, which proves nothing about the data.
    Other(String),
}

impl Trouble {
    pub(super) fn of(error: raft_engine::Error, what: &str) -> Self {
        use raft_engine::Error as E;
        match error {
            E::Io(source) => Self::System(source),
            error @ (E::Corruption(_) | E::Codec(_) | E::Protobuf(_)) => {
                Self::Damage(format!("{what}: {error}"))
            }
            error => Self::Other(format!("{what}: {error}")),
        }
    }

    pub(super) fn at(self, dir: &Path, replica: ReplicaId) -> StorageError {
        let path = dir.to_owned();
        match self {
            Self::Damage(what) => StorageError::Damaged { path, what, replica },
            Self::System(source) => StorageError::Io { action: "open the log in", path, source },
            Self::Other(what) => StorageError::Log { path, what },
        }
    }
}

/// What the engine calls a disk without room, in the text of an error of a kind of its own.
const NO_ROOM: &str = "nospace";

/// What to say of a write to the log in `dir` that failed.
pub(super) fn write_error(dir: &Path, error: raft_engine::Error) -> StorageError {
    let path = dir.to_owned();
    let what = error.to_string();
    let source = match error {
        raft_engine::Error::Io(source) => source,
        _ if what.contains(NO_ROOM) => io::ErrorKind::StorageFull.into(),
        _ => return StorageError::Log { path, what },
    };
    StorageError::Io { action: "write the log in", path, source }
}

/// A log is not opened with less room than this on its file system: it could take up next to nothing, and each attempt
/// would leave new files behind.
const ROOM_MIN: usize = 1 << 20;

/// Whether there is room for the log to go on.
pub(super) fn check_room(dir: &Path) -> Result<(), StorageError> {
    let path = dir.join("ROOM.tmp");
    let mut file = File::create(&path).map_err(StorageError::io("make room for the log with", &path))?;
    let written = file.write_all(&vec![0; ROOM_MIN]);
    drop(file);
    fs::remove_file(&path).map_err(StorageError::io("remove", &path))?;
    written.map_err(StorageError::io("find room for 1 MiB of log in", dir))
}

/// Opens raft-engine in its strict mode: what may be repaired was repaired before.
pub(super) fn open_engine(dir: &Path, live_bytes: u64) -> Result<Engine, Trouble> {
    let file_bytes = (live_bytes / 4).clamp(64 << 10, 32 << 20);
    let config = raft_engine::Config {
        dir: dir.to_str().ok_or_else(|| Trouble::Other("its path is not UTF-8".to_owned()))?.to_owned(),
        recovery_mode: RecoveryMode::AbsoluteConsistency,
        recovery_threads: 1,
        // Zero means never: the log is written once and read once, and entries are small.
        batch_compression_threshold: ReadableSize(0),
        target_file_size: ReadableSize(file_bytes),
        // Beyond this the engine begins to copy live entries to save space. What is needed must fit below.
        purge_threshold: ReadableSize(live_bytes + 2 * file_bytes),
        // A recycled file holds intact records of its former life behind its end.
        enable_log_recycle: false,
        ..raft_engine::Config::default()
    };
    once_unlocked(|| match catch_unwind(AssertUnwindSafe(|| Engine::open(config.clone()))) {
        Ok(opened) => opened.map_err(|error| Trouble::of(error, "it cannot be opened")),
        Err(panic) => Err(Trouble::Other(super::panic_message(&*panic))),
    })
}

/// What the engine says if somebody else has its lock.
const LOCKED: &str = "Failed to lock file";

/// Opens, again and again while the engine's lock is taken. Nobody else has the directory, which has a lock of its own:
/// it is a child that this process has just forked and that has not become another program yet, and holds the lock of an
/// engine that was closed since.
pub(super) fn once_unlocked<T>(mut open: impl FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
    let began = Instant::now();
    loop {
        match open() {
            Err(Trouble::Other(what)) if what.contains(LOCKED) && began.elapsed() < LOCK_WAIT => {
                thread::sleep(LOCK_PAUSE)
            }
            opened => return opened,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_opened_once_a_child_that_was_just_forked_lets_its_lock_go() {
        let dir = tempfile::tempdir().unwrap();
        drop(
            open_engine(dir.path(), 1 << 20).map_err(|trouble| trouble.at(dir.path(), ReplicaId(1))).unwrap(),
        );
        // As a child would hold it that was forked while the engine was open.
        let lock = File::open(dir.path().join("LOCK")).unwrap();
        lock.lock().unwrap();
        let mut held = Some(lock);
        let mut looks = 0;
        let engine = once_unlocked(|| {
            looks += 1;
            let config = raft_engine::Config {
                dir: dir.path().to_str().unwrap().to_owned(),
                ..raft_engine::Config::default()
            };
            let opened = Engine::open(config).map_err(|error| Trouble::of(error, "it cannot be opened"));
            held = None;
            opened
        });
        assert!(engine.is_ok(), "{:?}", engine.err());
        assert_eq!(looks, 2, "the first time it was locked");
        let other = once_unlocked(|| Err::<(), _>(Trouble::Damage("damaged".to_owned())));
        assert!(matches!(other, Err(Trouble::Damage(_))), "{other:?}");
    }

    #[test]
    fn only_what_was_read_and_is_wrong_is_damage() {
        use raft_engine::Error as E;
        let system = || io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(matches!(Trouble::of(E::Io(system()), "it"), Trouble::System(_)));
        assert!(matches!(Trouble::of(E::Corruption("bad".into()), "it"), Trouble::Damage(_)));
        assert!(matches!(Trouble::of(E::TryAgain("later".into()), "it"), Trouble::Other(_)));
        let said = Trouble::of(E::Io(system()), "it").at(Path::new("dir/log"), ReplicaId(1)).to_string();
        assert!(said.starts_with("cannot open the log in dir/log: ") && said.contains("chown -R"), "{said}");
    }

    #[test]
    fn a_write_without_room_says_so_with_what_to_do() {
        let dir = Path::new("dir/log");
        let engines = raft_engine::Error::TryAgain("error when append [Append:2]: nospace".to_owned());
        let said = write_error(dir, engines).to_string();
        assert!(
            said.starts_with("cannot write the log in dir/log: ") && said.contains("make some"),
            "{said}"
        );
        let other = write_error(dir, raft_engine::Error::Full).to_string();
        assert_eq!(other, "the log in dir/log failed: Full");
    }

    #[test]
    fn looking_for_room_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        check_room(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
