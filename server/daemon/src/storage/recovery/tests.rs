use std::fs;
use std::path::Path;

use holdfast_replica::raftpb;
use tempfile::TempDir;

use super::*;
use crate::identity::IdentityError;
use crate::storage::testing::{
    config, crash_image, damage, entries, files, founded, hard_state, logger, persist,
};

/// A founded replica's directory, not open.
fn founded_dir() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    founded(&config(dir.path()));
    dir
}

fn boot_at(path: &Path) -> Result<Recovered, StorageError> {
    let config = config(path);
    let dir = DataDir::open(&config).expect("the identity is in order");
    boot(&dir, &config, &logger())
}

/// Lets a founded replica write this log, and take these snapshots of its genesis as if they stood at these
/// entries; then crash.
fn written(log: &[raftpb::Entry], snapshots: &[(u64, u64)]) -> TempDir {
    let dir = founded_dir();
    let mut recovered = boot_at(dir.path()).unwrap();
    if !log.is_empty() {
        recovered.log.append(&[persist(1, log.to_vec())]).unwrap();
    }
    let genesis = recovered.boot.state.unwrap();
    for (index, term) in snapshots {
        let at = StateAt { index: *index, term: Term(*term), ..genesis.clone() };
        recovered.snapshots.write(&at).unwrap();
    }
    crash_image(dir.path())
}

#[track_caller]
fn assert_refused(path: &Path, part: &str) {
    let error = boot_at(path).err().expect("the replica does not start");
    let text = error.to_string();
    assert!(text.contains(part), "{part:?} in {text}");
    assert!(text.contains("holdfast member remove 1"), "how to replace the replica, in {text}");
}

#[test]
fn a_founded_replica_begins_with_the_genesis_at_entry_1() {
    let dir = founded_dir();
    let boot = boot_at(dir.path()).unwrap().boot;
    assert_eq!(boot.hard_state, hard_state(1, 0, 1));
    assert_eq!(boot.entries, []);
    let at = boot.state.unwrap();
    assert_eq!((at.index, at.term, at.voters), (1, Term(1), vec![1, 2, 3]));
    assert_eq!((at.state.cell(), at.state.members().count()), ("dev", 3));
}

#[test]
fn a_replica_that_joined_begins_with_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path());
    DataDir::open(&config).unwrap().join(5).unwrap();
    let boot = boot_at(dir.path()).unwrap().boot;
    assert!(boot.state.is_none() && boot.entries.is_empty());
    assert_eq!(boot.hard_state, hard_state(0, 0, 0));
}

#[test]
fn log_and_snapshot_fit_together_wherever_the_snapshot_stands_in_the_log() {
    for (snapshots, base) in [(vec![], 1), (vec![(5, 2)], 5), (vec![(5, 2), (9, 2)], 9)] {
        let image = written(&entries(2..=9, 2), &snapshots);
        let boot = boot_at(image.path()).unwrap().boot;
        assert_eq!(boot.entries, entries(2..=9, 2));
        assert_eq!(boot.state.unwrap().index, base);
        assert_eq!(boot.hard_state, hard_state(2, 1, 8.max(base)), "raised to the snapshot's");
    }
}

#[test]
fn a_crash_between_a_received_snapshot_and_the_clearing_of_the_log_discards_the_log() {
    // The log ends before the snapshot, or has another history at its place.
    for log in [entries(2..=9, 2), [entries(2..=9, 2), entries(10..=25, 3)].concat()] {
        let image = written(&log, &[(20, 4)]);
        let recovered = boot_at(image.path());
        if log.len() > 8 {
            // What was committed beyond the snapshot cannot be of another history: that is damage.
            assert!(recovered.is_err());
            continue;
        }
        let boot = recovered.unwrap().boot;
        assert_eq!((boot.state.unwrap().index, boot.entries.len()), (20, 0));
        assert_eq!(boot.hard_state, hard_state(4, 0, 20));
        let again = boot_at(image.path()).unwrap().boot;
        assert_eq!((again.hard_state, again.entries.len()), (hard_state(4, 0, 20), 0));
    }
}

#[test]
fn a_damaged_newest_snapshot_is_passed_over_if_the_log_makes_up_for_it() {
    let image = written(&entries(2..=9, 2), &[(4, 2), (8, 2)]);
    let dir = image.path().join("snapshots");
    damage(&files(&dir, "snap")[1], |bytes| bytes[100] ^= 1);
    let boot = boot_at(image.path()).unwrap().boot;
    assert_eq!(boot.state.unwrap().index, 4);
    assert_eq!(boot.entries, entries(2..=9, 2));
    assert_eq!((files(&dir, "snap").len(), files(&dir, "damaged").len()), (1, 1));

    // The genesis counts as one.
    damage(&files(&dir, "snap")[0], |bytes| bytes.truncate(100));
    assert_eq!(boot_at(image.path()).unwrap().boot.state.unwrap().index, 1);
}

#[test]
fn a_damaged_newest_snapshot_that_nothing_makes_up_for_is_refused() {
    // The log does not reach it.
    let image = written(&entries(2..=9, 2), &[(4, 2), (20, 2)]);
    damage(&files(&image.path().join("snapshots"), "snap")[1], |bytes| bytes[100] ^= 1);
    assert_refused(image.path(), "must reach entry 20");

    // The log begins after the older one.
    let image = written(&entries(2..=9, 2), &[(8, 2)]);
    let recovered = boot_at(image.path()).unwrap();
    recovered.log.trimmer().trim_to(8).unwrap();
    let image = crash_image(image.path());
    damage(&files(&image.path().join("snapshots"), "snap")[0], |bytes| bytes[100] ^= 1);
    assert_refused(image.path(), "begins at entry 8");
}

#[test]
fn snapshots_that_are_gone_are_refused() {
    let image = written(&entries(2..=9, 2), &[(8, 2)]);
    let recovered = boot_at(image.path()).unwrap();
    recovered.log.trimmer().trim_to(8).unwrap();
    let image = crash_image(image.path());
    fs::remove_file(&files(&image.path().join("snapshots"), "snap")[0]).unwrap();
    assert_refused(image.path(), "the log begins at entry 8, and the state before it ends at 1");
}

#[test]
fn a_log_that_is_gone_is_refused() {
    let image = written(&entries(2..=9, 2), &[]);
    fs::remove_dir_all(image.path().join("log")).unwrap();
    let error = DataDir::open(&config(image.path())).unwrap_err();
    assert!(matches!(error, IdentityError::DataGone { .. }), "{error}");

    fs::create_dir(image.path().join("log")).unwrap();
    assert_refused(image.path(), "its files are not there");
}

#[test]
fn a_log_of_another_replica_is_refused() {
    let (image, other) = (written(&entries(2..=9, 2), &[]), written(&entries(2..=9, 2), &[]));
    fs::remove_dir_all(image.path().join("log")).unwrap();
    fs::rename(other.path().join("log"), image.path().join("log")).unwrap();
    assert_refused(image.path(), "another data directory");
}
