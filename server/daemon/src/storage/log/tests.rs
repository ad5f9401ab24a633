use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::storage::testing::{
    crash_image, damage, entries, files, hard_state, log_options, logger, persist,
};

fn open(dir: &Path) -> Result<(LogStore, LogContents), StorageError> {
    LogStore::open(log_options(dir), &logger())
}

/// Opens a log that is not new.
fn reopen(dir: &Path) -> Result<(LogStore, LogContents), StorageError> {
    LogStore::open(LogOptions { may_be_new: false, ..log_options(dir) }, &logger())
}

/// A log with one record for each of the entries 1 to 9, as a crash leaves it.
fn crashed() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path()).unwrap();
    for index in 1..=9 {
        store.append(&[persist(index, entries(index..=index, 2))]).unwrap();
    }
    crash_image(dir.path())
}

fn newest_file(dir: &Path) -> PathBuf {
    files(dir, "raftlog").pop().unwrap()
}

/// Where the records of a file begin, and where the last one ends.
fn record_offsets(bytes: &[u8]) -> Vec<usize> {
    let mut offsets = vec![53 + 16];
    loop {
        let offset = *offsets.last().unwrap();
        let Some(header) = bytes.get(offset..offset + 8) else { return offsets };
        let length = u64::from_be_bytes(header.try_into().unwrap()) >> 8;
        if length == 0 {
            return offsets;
        }
        offsets.push(offset + length as usize);
    }
}

#[track_caller]
fn assert_damaged(dir: &Path, part: &str) {
    let error = reopen(dir).err().expect("the log is refused");
    assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains(part), "{part:?} in {text}");
    assert!(text.contains("holdfast member remove 1"), "how to replace the replica, in {text}");
}

#[test]
fn what_was_appended_is_there_after_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, contents) = open(dir.path()).unwrap();
    assert_eq!(contents, LogContents::default());
    let mut unsynced = persist(3, entries(5..=5, 3));
    unsynced.sync = false;
    // The second overwrites 3 and 4 of the first, as after a change of masters.
    store.append(&[persist(1, entries(1..=4, 2)), persist(2, entries(3..=4, 3)), unsynced]).unwrap();

    let image = crash_image(dir.path());
    let (_, contents) = reopen(image.path()).unwrap();
    let expected = [entries(1..=2, 2), entries(3..=5, 3)].concat();
    assert_eq!(contents, LogContents { hard_state: hard_state(3, 1, 4), entries: expected });
}

#[test]
fn what_is_read_after_a_crash_can_be_appended_to() {
    let image = crashed();
    let (mut store, contents) = reopen(image.path()).unwrap();
    assert_eq!(contents.entries, entries(1..=9, 2));
    store.append(&[persist(1, entries(10..=10, 2))]).unwrap();
    store.close().unwrap();
    let (_, contents) = reopen(image.path()).unwrap();
    assert_eq!(contents.entries, entries(1..=10, 2));
}

#[test]
fn a_log_cut_off_anywhere_gives_the_records_before_the_cut() {
    let image = crashed();
    let bytes = fs::read(newest_file(image.path())).unwrap();
    let offsets = record_offsets(&bytes);
    // The first record is the beginning's, without entries.
    assert_eq!(offsets.len(), 11);
    for cut in (offsets[1]..=offsets[10]).step_by(7) {
        let copy = crash_image(image.path());
        damage(&newest_file(copy.path()), |bytes| bytes.truncate(cut));
        let (_, contents) = reopen(copy.path()).unwrap();
        let whole = offsets[1..].iter().filter(|offset| **offset <= cut).count() as u64 - 1;
        assert_eq!(contents.entries, entries(1..=whole, 2), "cut at {cut}");
    }
}

#[test]
fn garbage_after_the_last_record_is_a_torn_write_and_cut_off() {
    let image = crashed();
    let end = *record_offsets(&fs::read(newest_file(image.path())).unwrap()).last().unwrap();
    damage(&newest_file(image.path()), |bytes| {
        bytes.truncate(end);
        bytes.extend((0..5_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()));
    });
    let (_, contents) = reopen(image.path()).unwrap();
    assert_eq!(contents.entries, entries(1..=9, 2));
    assert_eq!(fs::metadata(newest_file(image.path())).unwrap().len(), end as u64);
}

#[test]
fn a_flipped_byte_before_an_intact_record_is_refused() {
    let image = crashed();
    let offsets = record_offsets(&fs::read(newest_file(image.path())).unwrap());
    for flipped in (offsets[0]..offsets[9]).step_by(11) {
        let copy = crash_image(image.path());
        damage(&newest_file(copy.path()), |bytes| bytes[flipped] ^= 0x10);
        assert_damaged(copy.path(), "no torn write");
    }
}

#[test]
fn a_damaged_file_header_is_refused() {
    let image = crashed();
    damage(&newest_file(image.path()), |bytes| bytes[3] ^= 1);
    assert_damaged(image.path(), "header");
}

#[test]
fn after_a_normal_end_even_a_damaged_or_shortened_tail_is_refused() {
    let image = crashed();
    reopen(image.path()).unwrap().0.close().unwrap();
    let changes: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.truncate(bytes.len() - 1),
        |bytes| *bytes.last_mut().unwrap() ^= 1,
        |bytes| bytes.push(0),
        |bytes| {
            let offsets = record_offsets(bytes);
            bytes.truncate(offsets[offsets.len() - 2]);
        },
    ];
    for change in changes {
        let copy = crash_image(image.path());
        damage(&newest_file(copy.path()), change);
        assert_damaged(copy.path(), "is damaged");
    }
    let (_, contents) = reopen(image.path()).unwrap();
    assert_eq!(contents.entries, entries(1..=9, 2));
    assert!(!image.path().join(CLOSED_NAME).exists(), "an open log is not marked as closed");
}

#[test]
fn a_log_of_another_data_directory_is_refused() {
    let image = crashed();
    let options = LogOptions { data_id: 8, ..log_options(image.path()) };
    let error = LogStore::open(options, &logger()).err().expect("the log is refused");
    assert!(error.to_string().contains("another data directory"), "{error}");
}

#[test]
fn a_log_without_its_files_is_refused_and_a_new_one_is_begun_only_where_it_may() {
    let dir = tempfile::tempdir().unwrap();
    assert_damaged(dir.path(), "its files are not there");
    open(dir.path()).unwrap().0.close().unwrap();
    reopen(dir.path()).unwrap();
}

/// A log of many small files, whose entries are big.
fn many_files(dir: &Path) -> LogStore {
    let options = LogOptions { live_bytes: 200 << 10, ..log_options(dir) };
    let (mut store, _) = LogStore::open(options, &logger()).unwrap();
    for index in 1..=100 {
        let mut entry = entries(index..=index, 2);
        entry[0].data = vec![index as u8; 16 << 10].into();
        store.append(&[persist(index, entry)]).unwrap();
    }
    store
}

#[test]
fn a_trimmed_log_gives_its_files_back_and_keeps_the_rest() {
    let dir = tempfile::tempdir().unwrap();
    let store = many_files(dir.path());
    let before = files(dir.path(), "raftlog").len();
    store.trimmer().trim_to(90).unwrap();
    let after = files(dir.path(), "raftlog").len();
    assert!(after * 2 < before, "{before} files became {after}");
    let (_, contents) = reopen(crash_image(dir.path()).path()).unwrap();
    let indexes: Vec<u64> = contents.entries.iter().map(|entry| entry.index).collect();
    assert_eq!(indexes, (90..=100).collect::<Vec<_>>());
    assert_eq!(contents.hard_state, hard_state(2, 1, 99));
}

#[test]
fn a_file_that_is_missing_or_damaged_before_the_newest_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(many_files(dir.path()));
    let image = crash_image(dir.path());
    fs::remove_file(&files(image.path(), "raftlog")[2]).unwrap();
    assert_damaged(image.path(), "number 3, is missing");

    let image = crash_image(dir.path());
    damage(&files(image.path(), "raftlog")[2], |bytes| bytes.truncate(bytes.len() - 1));
    assert_damaged(image.path(), "is not intact");
}

#[test]
fn a_file_that_was_just_created_when_the_process_died_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    drop(many_files(dir.path()));
    let next = files(dir.path(), "raftlog").len() as u64 + 1;
    for header_bytes in [0, 10] {
        let image = crash_image(dir.path());
        let created = image.path().join(format!("{next:016}.raftlog"));
        let mut bytes = fs::read(newest_file(image.path())).unwrap();
        bytes.truncate(header_bytes);
        bytes.resize(header_bytes + 100, 0);
        fs::write(&created, bytes).unwrap();
        let (_, contents) = reopen(image.path()).unwrap();
        assert_eq!(contents.entries.len(), 100);
        assert!(!created.exists());
    }
}

#[test]
fn a_replaced_log_holds_only_what_follows_the_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path()).unwrap();
    store.append(&[persist(1, entries(1..=9, 2))]).unwrap();
    store.replace(Some(&hard_state(4, 0, 20)), &entries(21..=22, 4)).unwrap();
    let (_, contents) = reopen(crash_image(dir.path()).path()).unwrap();
    assert_eq!(contents, LogContents { hard_state: hard_state(4, 0, 20), entries: entries(21..=22, 4) });

    // Without a new hard state, the old one stays.
    store.replace(None, &[]).unwrap();
    store.append(&[persist(2, entries(31..=31, 5))]).unwrap();
    let (_, contents) = reopen(crash_image(dir.path()).path()).unwrap();
    assert_eq!(contents, LogContents { hard_state: hard_state(5, 1, 30), entries: entries(31..=31, 5) });
}

#[test]
fn a_log_cannot_be_opened_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (_store, _) = open(dir.path()).unwrap();
    assert!(open(dir.path()).is_err());
}

#[test]
fn what_the_system_refuses_is_not_called_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).unwrap();
    store.close().unwrap();
    // The engine cannot open its lock: a directory refuses that to everybody, `root` included.
    let lock = dir.path().join("LOCK");
    fs::remove_file(&lock).unwrap();
    fs::create_dir(&lock).unwrap();
    let error = reopen(dir.path()).map(|_| ()).unwrap_err();
    assert!(matches!(error, StorageError::Io { .. }), "{error}");
    let said = error.to_string();
    assert!(said.contains("cannot open the log in") && said.contains("directory"), "{said}");
    assert!(!said.contains("damaged") && !said.contains("member add"), "{said}");
    fs::remove_dir(&lock).unwrap();
    reopen(dir.path()).map(|_| ()).expect("the log is as it was");
}
