//! Replicas that die all at once, or are away for so long that the others have forgotten what they missed.

use std::time::Duration;

use holdfast::{Mode, OpenOptions, Session, SessionState};
use holdfast_e2e::{Cluster, Replica, eventually, within};
use tokio::task::{JoinHandle, JoinSet};

use crate::PROGRAMS;

/// Writes a file until told to stop, and says which write the cell has acknowledged last.
fn write_on(
    session: Session,
    file: usize,
    stop: tokio::sync::watch::Receiver<bool>,
) -> JoinHandle<(u64, u64)> {
    tokio::spawn(async move {
        let handle = session.open(&format!("/file-{file}"), OpenOptions::new().create()).await.unwrap();
        let mut last = (0, 0);
        while !*stop.borrow() {
            let write = last.0 + 1;
            last = (write, handle.set_contents(write.to_string()).await.unwrap());
        }
        last
    })
}

#[tokio::test]
async fn all_that_was_acknowledged_survives_the_death_of_all_replicas_and_sessions_go_on() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let session = cell.session().lease(Duration::from_secs(15)).open().await.unwrap();
    let held = session.open("/held", OpenOptions::new().create()).await.unwrap();
    let lock = held.acquire(Mode::Exclusive).await.unwrap();
    let queued = session.open("/held", OpenOptions::new()).await.unwrap();
    let waiting = tokio::spawn(async move { queued.acquire(Mode::Exclusive).await });
    let temporary = session.open("/temporary", OpenOptions::new().create().ephemeral()).await.unwrap();
    eventually("the other waits", async || (held.lock_stat().await.ok()?.waiting == 1).then_some(())).await;
    let mut states = session.watch_state();
    states.mark_unchanged();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writers: Vec<_> = (0..4).map(|file| write_on(session.clone(), file, stopped.clone())).collect();
    eventually("the writers write", async || {
        cell.contents("/file-3").await.ok().filter(|file| file.bytes.len() > 1)
    })
    .await;

    cluster.replicas_mut().for_each(Replica::kill_only);
    for replica in cluster.replicas_mut() {
        replica.end().await;
    }
    cluster.replicas_mut().for_each(Replica::start);
    cluster.serving().await;
    stop.send_replace(true);

    for (file, writer) in writers.into_iter().enumerate() {
        // The write that was under way at the crash went on afterwards, so the last one is acknowledged too.
        let (write, generation) = within("a writer goes on", writer).await.unwrap();
        let contents = cell.contents(&format!("/file-{file}")).await.unwrap();
        assert_eq!(contents.bytes, write.to_string(), "the last acknowledged write of file {file}");
        assert_eq!(contents.stat.content_generation, generation);
    }
    assert!(!states.has_changed().unwrap(), "the session never left its lease: {:?}", states.borrow());
    assert_eq!(session.state(), SessionState::Safe);
    assert!(lock.is_held());
    assert!(cell.check_sequencer(lock.sequencer()).await.unwrap().is_valid());
    assert_eq!(held.lock_stat().await.unwrap().generation, lock.generation());
    assert!(temporary.stat().await.is_ok(), "the ephemeral file lives as long as its session");
    let generation = lock.generation();
    lock.release().await.unwrap();
    let next = within("the queue goes on", waiting).await.unwrap().unwrap();
    assert!(next.generation() > generation);
}

#[tokio::test]
async fn a_replica_away_for_longer_than_the_log_is_kept_catches_up_by_snapshot_and_counts_again() {
    let flags = [("snapshot-every-bytes", "32KiB"), ("log-tail-bytes", "4KiB")];
    let mut cluster = Cluster::start_with(PROGRAMS, &flags).await;
    let cell = cluster.cell();
    let session = cell.session().open().await.unwrap();
    let away = cluster.follower().await;
    cluster[away].kill().await;

    let mut files = JoinSet::new();
    for file in 0..64_u8 {
        let session = session.clone();
        files.spawn(async move {
            let options = OpenOptions::new().create_new().contents(vec![file; 4096]);
            session.open(&format!("/file-{file}"), options).await.unwrap()
        });
    }
    let handles = within("the files are made", files.join_all()).await;
    assert_eq!(handles.len(), 64);
    let master = cluster.master().await;
    eventually("the master has a snapshot", async || {
        cluster[master].log().contains("wrote a snapshot").then_some(())
    })
    .await;
    assert!(!cluster[away].log().contains("has replaced the log"));
    cluster[away].start();
    cluster.caught_up(away).await;
    // The log alone would not have done.
    eventually("a snapshot has come", async || {
        cluster[away].log().contains("a snapshot has replaced the log").then_some(())
    })
    .await;
    let there = cluster.status(away).await.unwrap();
    assert_eq!(there.nodes, cell.status().await.unwrap().nodes);

    // Without the master, the one that was away is half of the majority.
    cluster[master].kill().await;
    let file = session.open("/after", OpenOptions::new().create_new()).await.unwrap();
    within("a write", file.set_contents("all is well")).await.unwrap();
    for file in 0..64_u8 {
        let contents = cell.contents(&format!("/file-{file}")).await.unwrap();
        assert_eq!(contents.bytes, vec![file; 4096], "file {file}");
    }
    // And what it got by snapshot it has on its own disk.
    cluster[away].kill().await;
    cluster[away].start();
    cluster.caught_up(away).await;
    assert_eq!(cell.contents("/after").await.unwrap().bytes, "all is well");
}
