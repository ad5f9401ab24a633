//! Files that are not what was written: the replica refuses to start, says which file and what to do, and loses
//! nothing that can be put right.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast::{Cell, OpenOptions, WriteOptions};
use holdfast_e2e::{Cluster, Replica, eventually};

use crate::PROGRAMS;

/// Flips a bit of a byte.
fn flip(file: &Path, at: usize) {
    let mut bytes = fs::read(file).unwrap();
    bytes[at] ^= 1;
    fs::write(file, bytes).unwrap();
}

/// Makes files one after the other, so that each has a record of its own in the log.
async fn make_files(cell: &Cell, count: u8) {
    let session = cell.session().open().await.unwrap();
    for file in 0..count {
        let options = OpenOptions::new().create_new().contents(vec![file; 2048]);
        session.open(&format!("/file-{file}"), options).await.unwrap();
    }
}

async fn has_files(cell: &Cell, count: u8) {
    for file in 0..count {
        assert_eq!(cell.contents(&format!("/file-{file}")).await.unwrap().bytes, vec![file; 2048]);
    }
}

/// With one bit of each of `files` flipped, replica `id`, which does not run, refuses to start, because of the last of
/// them; with the bits flipped back, it starts and is as good as before.
async fn refuses_until_repaired(cluster: &mut Cluster, id: u64, files: &[PathBuf], at: usize) {
    files.iter().for_each(|file| flip(file, at));
    cluster[id].start();
    let status = cluster[id].end().await;
    let words = cluster[id].last_words();
    assert_eq!(status.code(), Some(3), "{words}");
    for part in [files[files.len() - 1].to_str().unwrap(), "is damaged", "holdfastd run --join"] {
        assert!(words.contains(part), "{part:?} in {words}");
    }
    files.iter().for_each(|file| flip(file, at));
    cluster[id].start();
    cluster.caught_up(id).await;
}

#[tokio::test]
async fn a_damaged_log_is_refused_and_the_cell_goes_on_without_it() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    make_files(&cell, 20).await;
    let damaged = cluster.follower().await;
    cluster.caught_up(damaged).await;
    cluster[damaged].kill().await;

    // Somewhere in the first records, which others follow: no crash leaves that behind.
    let file = cluster[damaged].newest_log_file();
    refuses_until_repaired(&mut cluster, damaged, &[file], 300).await;

    // The one that was damaged has all the files itself.
    let master = cluster.master().await;
    cluster[master].kill().await;
    has_files(&cell, 20).await;
}

/// A cell with so many files that its replicas have several snapshots, and no log from before the older ones; and the
/// id of a replica that was stopped.
async fn cell_with_snapshots(count: u8) -> (Cluster, u64) {
    let flags = [("snapshot-every-bytes", "16KiB"), ("log-tail-bytes", "0")];
    let mut cluster = Cluster::start_with(PROGRAMS, &flags).await;
    let cell = cluster.cell();
    make_files(&cell, count).await;
    let stopped = cluster.follower().await;
    eventually("two snapshots are written", async || {
        cell.set_contents("/last", vec![0; 2048], WriteOptions::new().create()).await.unwrap();
        (cluster[stopped].log().matches("wrote a snapshot").count() >= 2).then_some(())
    })
    .await;
    // The log is trimmed with the next write after a snapshot.
    cell.set_contents("/last", "trims", WriteOptions::new()).await.unwrap();
    cluster.caught_up(stopped).await;
    cluster[stopped].terminate();
    assert_eq!(cluster[stopped].end().await.code(), Some(0));
    (cluster, stopped)
}

#[tokio::test]
async fn damaged_snapshots_that_the_log_cannot_make_up_for_are_refused() {
    let (mut cluster, damaged) = cell_with_snapshots(40).await;
    let files = cluster[damaged].snapshots();
    assert_eq!(files.len(), 2, "the newest and the one before it");
    refuses_until_repaired(&mut cluster, damaged, &files, 1000).await;
    let master = cluster.master().await;
    cluster[master].kill().await;
    has_files(&cluster.cell(), 40).await;
}

#[tokio::test]
async fn a_torn_write_at_the_end_of_the_log_is_cut_off_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    make_files(&cell, 20).await;
    for id in 1..=3 {
        cluster.caught_up(id).await;
    }
    cluster.replicas_mut().for_each(Replica::kill_only);
    for replica in cluster.replicas_mut() {
        replica.end().await;
        // What a crash leaves of a write that nobody was told of yet.
        let file = replica.newest_log_file();
        let mut bytes = fs::read(&file).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        bytes.truncate(end);
        bytes.extend([0, 0, 0, 0, 0, 0, 99, 0, 7, 7, 7]);
        fs::write(&file, bytes).unwrap();
    }
    cluster.replicas_mut().for_each(Replica::start);
    cluster.serving().await;
    has_files(&cell, 20).await;
}
