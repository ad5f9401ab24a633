//! Nobody reads what a replica logs any more: it serves on, it ends when it must, and it ends when it is asked to.

use std::io::{PipeReader, PipeWriter, Write as _};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;

use holdfast::WriteOptions;
use holdfast_e2e::torture::disk::SmallDisk;
use holdfast_e2e::{Cluster, Replica, eventually, within};
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;

use crate::PROGRAMS;

/// A pipe that takes no byte more, and its end to read from.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let room = fcntl(writer.as_fd(), FcntlArg::F_GETPIPE_SZ).unwrap();
    writer.write_all(&vec![b'x'; usize::try_from(room).unwrap()]).unwrap();
    (reader, writer)
}

/// Has replica 1 be the master: the others make way for it.
async fn make_first_master(cluster: &mut Cluster) {
    loop {
        let master = cluster.master().await;
        if master == 1 {
            return;
        }
        cluster[master].terminate();
        assert_eq!(cluster[master].end().await.code(), Some(0));
        cluster[master].start();
        cluster.serving().await;
    }
}

/// A cell whose replica 1 is the master, logs everything, and has no reader for any of it.
async fn with_stuck_master(disk: Option<&SmallDisk>) -> (Cluster, PipeReader) {
    let mut cluster = Cluster::configure(PROGRAMS, &[]);
    let (reader, writer) = full_pipe();
    cluster[1].set("log-level", "debug");
    cluster[1].set("log-format", "json");
    if let Some(disk) = disk {
        cluster[1].set("data-dir", disk.path().join("data").display().to_string());
    }
    cluster[1].start_telling(writer);
    cluster[2].start();
    cluster[3].start();
    cluster.serving().await;
    make_first_master(&mut cluster).await;
    let written = cluster.cell().set_contents("/file", "nobody reads", WriteOptions::new().create()).await;
    written.expect("it serves");
    (cluster, reader)
}

#[tokio::test]
async fn a_master_whose_log_nobody_reads_hands_over_and_stops_when_it_is_asked_to() {
    let (mut cluster, _reader) = with_stuck_master(None).await;
    cluster[1].terminate();
    let status = cluster[1].end().await;
    assert_eq!(status.code(), Some(0), "it stopped as it was asked to");
    assert_ne!(cluster.master().await, 1);
    // Its data directory is free, and its log was closed.
    cluster[1].start();
    cluster.caught_up(1).await;
}

#[tokio::test]
async fn a_replica_that_cannot_start_says_so_to_nobody_and_ends() {
    let mut cluster = Cluster::configure(PROGRAMS, &[]);
    let (_reader, writer) = full_pipe();
    cluster[1].set("cell", "");
    cluster[1].start_telling(writer);
    assert_eq!(cluster[1].end().await.code(), Some(2));
}

#[tokio::test]
async fn a_master_whose_log_nobody_reads_ends_when_its_disk_is_full() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(dir.path(), 1) else {
        return println!("no disk can be mounted here, so nothing is tested");
    };
    let (mut cluster, _reader) = with_stuck_master(Some(&disk)).await;
    let cell = cluster.cell();
    disk.fill().unwrap();
    let ended = async |replica: &mut Replica| {
        eventually("the replica notices that its disk is full, and ends", async || {
            // Whether it is written is the cell's business: that the replica tries to is enough.
            let written = cell.set_contents("/file", vec![7; 100_000], WriteOptions::new());
            let _ = within("a write is decided", written).await;
            (!replica.is_running()).then_some(())
        })
        .await;
    };
    ended(&mut cluster[1]).await;
    let status = cluster[1].end().await;
    assert_eq!(status.signal(), Some(Signal::SIGABRT as i32), "{status}");
    assert_ne!(cluster.master().await, 1);
}
