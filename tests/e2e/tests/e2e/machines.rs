//! What is wrong with a replica's machine, and not with its data: disks without room, and files that others may read.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};

use holdfast::{Cell, WriteOptions};
use holdfast_e2e::torture::disk::SmallDisk;
use holdfast_e2e::{Cluster, eventually, within};
use nix::sys::signal::Signal;

use crate::PROGRAMS;

async fn write(cell: &Cell, contents: Vec<u8>) -> Result<(), holdfast::Error> {
    let options = WriteOptions::new().create();
    within("a write is decided", cell.set_contents("/file", contents, options)).await.map(drop)
}

/// All there is in a directory.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { [walk(&path), vec![path]].concat() } else { vec![path] })
        .collect()
}

#[tokio::test]
async fn what_a_replica_writes_is_for_its_user_alone() {
    let flags = [("snapshot-every-bytes", "4KiB"), ("log-tail-bytes", "0")];
    let mut cluster = Cluster::start_with(PROGRAMS, &flags).await;
    let cell = cluster.cell();
    let replica = cluster.follower().await;
    let dir = cluster[replica].data_dir().to_owned();
    eventually("there is a snapshot", async || {
        write(&cell, vec![7; 1_000]).await.unwrap();
        (!cluster[replica].snapshots().is_empty()).then_some(())
    })
    .await;
    cluster[replica].terminate();
    assert_eq!(cluster[replica].end().await.code(), Some(0));
    for path in [walk(&dir), vec![dir.clone()]].concat() {
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} has the mode {mode:o}", path.display());
    }
    const WARNING: &str = "others on this machine can read or change what is in the data directory";
    assert!(!cluster[replica].log().contains(WARNING));

    // As an earlier release made it.
    let log = cluster[replica].newest_log_file();
    for (path, mode) in [(&dir, 0o755), (&dir.join("log"), 0o755), (&log, 0o644)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }
    cluster[replica].start();
    cluster.caught_up(replica).await;
    let said = cluster[replica].log();
    assert!(said.contains(WARNING) && said.contains("chmod -R go= "), "{said}");
}

#[tokio::test]
async fn the_most_talkative_log_has_no_contents_no_secrets_and_one_message_a_line() {
    let mut cluster = Cluster::configure(PROGRAMS, &[]);
    for replica in cluster.replicas_mut() {
        replica.set("log-level", "trace");
        replica.set("log-format", "json");
        replica.start();
    }
    cluster.serving().await;
    let cell = cluster.cell();
    const CONTENTS: &str = "entrusted-to-the-cell";
    write(&cell, CONTENTS.into()).await.unwrap();
    let session = cell.session().open().await.unwrap();
    let file = session.open("/path-of-a-node", holdfast::OpenOptions::new().create()).await.unwrap();
    file.set_contents(CONTENTS).await.unwrap();
    for id in 1..=3 {
        cluster.caught_up(id).await;
        let log = cluster[id].log();
        assert!(
            log.contains("\"level\":\"DEBG\"") || log.contains("\"level\":\"DEBUG\""),
            "it says much: {log}"
        );
        for line in log.lines() {
            assert_eq!(line.matches("\"msg\":").count(), 1, "{line}");
            for entrusted in [CONTENTS, "path-of-a-node"] {
                assert!(!line.contains(entrusted), "{line}");
            }
        }
    }
}

#[tokio::test]
async fn a_replica_whose_disk_is_full_ends_leaves_nothing_at_its_starts_and_comes_back_with_room() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path(), 3) else {
        return println!("no disk can be mounted here, so nothing is tested");
    };
    let mut cluster = Cluster::configure(PROGRAMS, &[]);
    let data = disk.path().join("data");
    cluster[3].set("data-dir", data.display().to_string());
    cluster.replicas_mut().for_each(|replica| replica.start());
    cluster.serving().await;
    let cell = cluster.cell();
    write(&cell, vec![1; 1_000]).await.unwrap();
    disk.fill().unwrap();
    eventually("the replica ends for want of room", async || {
        // If it was the master, the outcome may be unknown.
        let _ = write(&cell, vec![7; 100_000]).await;
        (!cluster[3].is_running()).then_some(())
    })
    .await;
    let status = cluster[3].end().await;
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32), "{status}");
    let said = cluster[3].log();
    assert!(
        said.contains("cannot write the log in") && said.contains("No room is left there: make some"),
        "{said}"
    );

    // What the failed write left is tidied up once.
    let mut files = Vec::new();
    for start in 0..3 {
        cluster[3].start();
        let status = cluster[3].end().await;
        let words = cluster[3].last_words();
        assert_eq!(status.code(), Some(1), "{words}");
        assert!(words.contains("No room is left there: make some") && !words.contains("--join"), "{words}");
        let mut found = walk(&data);
        found.sort();
        assert!(start == 0 || found == files, "{found:?} after {files:?}");
        files = found;
    }
    write(&cell, vec![2; 1_000]).await.expect("the cell goes on without it");
    disk.free().unwrap();
    cluster[3].start();
    cluster.caught_up(3).await;
}

#[tokio::test]
async fn snapshots_for_which_no_replica_has_room_end_none_and_are_written_once_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path(), 0) else {
        return println!("no disk can be mounted here, so nothing is tested");
    };
    let flags = [("snapshot-every-bytes", "16KiB"), ("log-tail-bytes", "0")];
    let mut cluster = Cluster::start_with(PROGRAMS, &flags).await;
    for replica in cluster.replicas_mut() {
        replica.terminate();
        assert_eq!(replica.end().await.code(), Some(0));
        // All their snapshots are on one disk, and their logs are not.
        let (snapshots, elsewhere) =
            (replica.data_dir().join("snapshots"), disk.path().join(replica.id().to_string()));
        fs::remove_dir_all(&snapshots).unwrap();
        fs::create_dir(&elsewhere).unwrap();
        symlink(&elsewhere, &snapshots).unwrap();
        replica.start();
    }
    cluster.serving().await;
    disk.fill().unwrap();
    let cell = cluster.cell();
    let said = |cluster: &Cluster, id: u64, words: &str| cluster[id].log().contains(words);
    const REFUSED: &str = "a snapshot could not be written, and is tried again in 5 s";
    eventually("a snapshot is due, and nobody has room for it", async || {
        write(&cell, vec![7; 10_000]).await.expect("the cell goes on");
        (1..=3).all(|id| said(&cluster, id, REFUSED)).then_some(())
    })
    .await;
    assert!((1..=3).all(|id| cluster[id].snapshots().is_empty()), "nothing is left of them");
    assert!(cluster.replicas_mut().all(|replica| replica.is_running()));
    disk.free().unwrap();
    eventually("the snapshots are written", async || {
        (1..=3).all(|id| said(&cluster, id, "snapshots can be written again")).then_some(())
    })
    .await;
}
