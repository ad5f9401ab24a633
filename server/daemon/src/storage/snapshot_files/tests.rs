use std::fs;

use tempfile::TempDir;

use super::*;
use crate::storage::testing::{CELL_ID, REPLICA, damage, files, state_at};

fn open() -> (TempDir, SnapshotFiles) {
    let dir = tempfile::tempdir().unwrap();
    let files = SnapshotFiles::open(dir.path().join("snapshots"), REPLICA).unwrap();
    (dir, files)
}

fn indexes(files: &SnapshotFiles) -> Vec<u64> {
    files.names().unwrap().iter().map(|name| name.index).collect()
}

#[test]
fn the_newest_two_are_kept() {
    let (_dir, files) = open();
    assert_eq!(files.newest_index(), 0);
    for index in [10, 200, 3_000] {
        files.write(&state_at(index, 2, 3)).unwrap();
        assert_eq!(files.newest_index(), index);
    }
    assert_eq!(indexes(&files), [3_000, 200]);
    let at = files.read(files.names().unwrap()[0], CELL_ID).unwrap();
    assert_eq!(at.state.hash(), state_at(3_000, 2, 3).state.hash());

    // One that was begun earlier and comes late does not push the newest out.
    files.write(&state_at(1_000, 2, 0)).unwrap();
    assert_eq!((indexes(&files), files.newest_index()), (vec![3_000, 1_000], 3_000));
}

#[test]
fn what_a_crash_left_half_written_is_removed_and_the_one_before_counts() {
    let (_dir, files) = open();
    files.write(&state_at(10, 2, 0)).unwrap();
    let temporary = files.path(SnapshotName { index: 20, term: Term(2) }).with_extension("snap.tmp");
    fs::write(&temporary, b"HFSNAP").unwrap();
    let files = SnapshotFiles::open(files.dir.clone(), REPLICA).unwrap();
    assert!(!temporary.exists());
    assert_eq!((indexes(&files), files.newest_index()), (vec![10], 10));
}

#[test]
fn a_damaged_or_renamed_file_is_named_in_the_error() {
    let (_dir, files) = open();
    files.write(&state_at(10, 2, 0)).unwrap();
    let (name, renamed) = (files.names().unwrap()[0], SnapshotName { index: 11, term: Term(2) });
    fs::copy(files.path(name), files.path(renamed)).unwrap();
    damage(&files.path(name), |bytes| bytes[30] ^= 1);
    for (name, part) in [(name, "checksum"), (renamed, "its name differs")] {
        let error = files.read(name, CELL_ID).unwrap_err().to_string();
        assert!(error.contains(&name.file_name()) && error.contains(part), "{error}");
    }
}

#[test]
fn a_snapshot_that_was_set_aside_no_longer_counts() {
    let (_dir, files) = open();
    files.write(&state_at(10, 2, 0)).unwrap();
    files.write(&state_at(20, 2, 0)).unwrap();
    files.set_aside(files.names().unwrap()[0]).unwrap();
    assert_eq!((indexes(&files), files.newest_index()), (vec![10], 10));
    assert_eq!(fs::read_dir(&files.dir).unwrap().count(), 2, "it is still there to be looked at");
}

#[test]
fn a_snapshot_that_cannot_be_written_leaves_nothing_and_the_older_one() {
    let dir = tempfile::tempdir().unwrap();
    let snapshots = SnapshotFiles::open(dir.path().to_owned(), REPLICA).unwrap();
    snapshots.write(&state_at(5, 1, 3)).unwrap();
    // Where the next one should be is something that no file can replace.
    let next = SnapshotName { index: 9, term: Term(1) };
    fs::create_dir_all(snapshots.path(next).join("in the way")).unwrap();
    let error = snapshots.write(&state_at(9, 1, 3)).unwrap_err();
    assert!(!error.may_pass(), "{error}");
    assert_eq!(snapshots.newest_index(), 5);
    assert_eq!(files(dir.path(), TEMPORARY_EXTENSION).len(), 0);
}

#[test]
fn a_directory_that_cannot_be_written_is_found_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    // The probe is in the way of itself: as `root` nothing else keeps a file from being made.
    fs::create_dir(dir.path().join(format!("probe.{TEMPORARY_EXTENSION}"))).unwrap();
    let error = SnapshotFiles::open(dir.path().to_owned(), REPLICA).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("cannot create"), "{error}");
}
