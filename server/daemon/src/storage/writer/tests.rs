use std::fs;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::storage::log::LogContents;
use crate::storage::testing::{
    CELL_ID, REPLICA, crash_image, entries, hard_state, log_options, logger, persist, state_at,
};

/// How long a test waits for what must happen.
const WAIT: Duration = Duration::from_secs(30);

struct Running {
    dir: TempDir,
    writer: LogWriter,
    snapshots: Arc<SnapshotFiles>,
    persisted: Receiver<u64>,
    failures: Receiver<String>,
}

fn start() -> Running {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = LogStore::open(log_options(&dir.path().join("log")), &logger()).unwrap();
    let snapshots = Arc::new(SnapshotFiles::open(dir.path().join("snapshots"), REPLICA).unwrap());
    let (persisted_sender, persisted) = channel();
    let (failures_sender, failures) = channel();
    let on_persisted = move |number| {
        let _ = persisted_sender.send(number);
    };
    let on_failure = move |error: StorageError| {
        let _ = failures_sender.send(error.to_string());
    };
    let writer = LogWriter::spawn(store, Arc::clone(&snapshots), logger(), on_persisted, on_failure).unwrap();
    Running { dir, writer, snapshots, persisted, failures }
}

fn read(dir: &Path) -> LogContents {
    LogStore::open(log_options(&dir.join("log")), &logger()).unwrap().1
}

/// Waits until `number` is reported, and checks that the numbers rise.
fn wait_for(persisted: &Receiver<u64>, number: u64) {
    let mut last = 0;
    while last < number {
        let next = persisted.recv_timeout(WAIT).expect("more is reported");
        assert!(next > last, "{next} after {last}");
        last = next;
    }
    assert_eq!(last, number);
}

#[test]
fn everything_reported_is_there_after_a_crash_and_in_order() {
    let running = start();
    for number in 1..=500 {
        let mut persist = persist(number, entries(number..=number, 2));
        persist.sync = number % 3 == 0;
        running.writer.submit(persist).unwrap();
    }
    wait_for(&running.persisted, 500);
    let image = crash_image(running.dir.path());
    assert_eq!(read(image.path()).entries, entries(1..=500, 2));
    running.writer.close().unwrap();
    assert_eq!(read(running.dir.path()).entries, entries(1..=500, 2));
}

#[test]
fn a_writer_that_is_dropped_keeps_what_it_reported_and_ends_its_threads() {
    let running = start();
    for number in 1..=50 {
        running.writer.submit(persist(number, entries(number..=number, 2))).unwrap();
    }
    let first = running.persisted.recv_timeout(WAIT).unwrap();
    drop(running.writer);
    let last = running.persisted.iter().last().unwrap_or(first);
    let kept = read(running.dir.path()).entries;
    assert_eq!(kept.len() as u64, last, "what was reported, and nothing after it");
    assert_eq!(kept, entries(1..=last, 2));
}

#[test]
fn what_is_queued_when_the_writer_is_closed_is_written() {
    let running = start();
    for number in 1..=50 {
        running.writer.submit(persist(number, entries(number..=number, 2))).unwrap();
    }
    running.writer.close().unwrap();
    assert_eq!(read(running.dir.path()).entries.len(), 50);
    assert_eq!(running.persisted.try_iter().last(), Some(50));
}

#[test]
fn a_snapshot_takes_the_place_of_the_log_between_what_came_before_and_after() {
    let running = start();
    running.writer.submit(persist(1, entries(1..=5, 2))).unwrap();
    running.writer.submit(installed(2, 40)).unwrap();
    running.writer.submit(persist(3, entries(41..=42, 3))).unwrap();
    wait_for(&running.persisted, 3);

    let image = crash_image(running.dir.path());
    assert_eq!(
        read(image.path()),
        LogContents { hard_state: hard_state(3, 1, 41), entries: entries(41..=42, 3) }
    );
    let files = SnapshotFiles::open(image.path().join("snapshots"), REPLICA).unwrap();
    let at = files.read(files.names().unwrap()[0], CELL_ID).unwrap();
    assert_eq!((at.index, at.state.session_count()), (40, 2));
}

/// A snapshot from another replica.
fn installed(number: u64, index: u64) -> Persist {
    let snapshot = Some(Box::new(state_at(index, 3, 2)));
    let hard_state = Some(hard_state(3, 0, index));
    Persist { number, snapshot, hard_state, entries: vec![], sync: true, compact_to: None }
}

/// The next attempt to write the snapshot of this index finds no room.
fn fill_up(running: &Running, index: u64) {
    let file = running.snapshots.dir().join(format!("{index:020}-{:020}.snap.tmp", 3));
    std::os::unix::fs::symlink("/dev/full", file).unwrap();
}

#[test]
fn a_snapshot_that_finds_no_room_is_tried_again_and_what_is_behind_it_waits() {
    let running = start();
    running.writer.submit(persist(1, entries(1..=5, 2))).unwrap();
    // The attempt that fails removes it.
    fill_up(&running, 40);
    running.writer.submit(installed(2, 40)).unwrap();
    running.writer.submit(persist(3, entries(41..=42, 3))).unwrap();
    wait_for(&running.persisted, 3);
    assert_eq!(running.failures.try_iter().next(), None);
    let image = crash_image(running.dir.path());
    assert_eq!(read(image.path()).entries, entries(41..=42, 3));
    let files = SnapshotFiles::open(image.path().join("snapshots"), REPLICA).unwrap();
    assert_eq!(files.newest_index(), 40);
}

#[test]
fn a_writer_that_is_closed_while_a_snapshot_finds_no_room_leaves_the_log_as_it_was() {
    let running = start();
    running.writer.submit(persist(1, entries(1..=5, 2))).unwrap();
    wait_for(&running.persisted, 1);
    // The writer is to end when the first attempt fails.
    running.writer.ending.ask();
    fill_up(&running, 40);
    running.writer.submit(installed(2, 40)).unwrap();
    // It may have ended by now.
    let _ = running.writer.submit(persist(3, entries(41..=42, 3)));
    running.writer.close().unwrap();
    assert_eq!(running.persisted.try_iter().last(), None);
    assert_eq!(running.failures.try_iter().next(), None);
    assert_eq!(read(running.dir.path()).entries, entries(1..=5, 2));
}

#[test]
fn the_log_is_never_trimmed_beyond_the_newest_snapshot() {
    let running = start();
    running.snapshots.write(&state_at(6, 2, 0)).unwrap();
    let mut persist = persist(1, entries(1..=9, 2));
    persist.compact_to = Some(9);
    running.writer.submit(persist).unwrap();
    running.writer.close().unwrap();
    assert_eq!(read(running.dir.path()).entries, entries(7..=9, 2));
}

#[test]
fn after_a_failure_nothing_more_is_written_or_reported() {
    let running = start();
    running.writer.submit(persist(1, entries(1..=1, 2))).unwrap();
    wait_for(&running.persisted, 1);
    fs::remove_dir(running.snapshots.dir()).unwrap();
    let snapshot = Some(Box::new(state_at(40, 3, 0)));
    running.writer.submit(Persist { snapshot, ..persist(2, vec![]) }).unwrap();
    let failure = running.failures.recv_timeout(WAIT).unwrap();
    assert!(failure.contains("cannot create") && failure.contains(".snap.tmp"), "{failure}");

    // The thread is gone, or going; what is still taken is not written.
    while running.writer.submit(persist(3, entries(2..=2, 2))).is_ok() {
        thread::yield_now();
    }
    running.writer.close().unwrap();
    assert_eq!(running.persisted.try_iter().last(), None);
    assert_eq!(read(running.dir.path()).entries, entries(1..=1, 2));
}

#[test]
fn a_panic_of_the_engine_is_a_failure_like_any_other() {
    let (sender, failures) = channel();
    let on_failure = move |error: StorageError| {
        let _ = sender.send(error.to_string());
    };
    let outcome: Option<()> = guarded(Path::new("log"), &on_failure, || panic!("fsync: {}", "no such disk"));
    assert_eq!(outcome, None);
    assert_eq!(failures.recv().unwrap(), "the log in log failed: fsync: no such disk");
}
