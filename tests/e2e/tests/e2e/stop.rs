//! A replica that is asked to stop hands over first.

use std::time::{Duration, Instant};

use holdfast::OpenOptions;
use holdfast_e2e::{Cluster, Replica, eventually, within};

use crate::PROGRAMS;

/// What the others would need to notice a silent master, at the least: `election_ms`.
const ELECTION: Duration = Duration::from_millis(10_000);
/// The longest that a client may wait for a write meanwhile. A handover takes milliseconds; the rest is for a machine
/// that has too much to do.
const GAP: Duration = Duration::from_millis(1_000);

#[tokio::test]
async fn a_master_that_is_asked_to_stop_hands_over_and_clients_hardly_notice() {
    // An election time-out that is much longer than the gap tells a handover from an election.
    let election_ms = ELECTION.as_millis().to_string();
    let mut cluster = Cluster::start_with(PROGRAMS, &[("election-ms", &election_ms)]).await;
    let session = cluster.cell().session().open().await.unwrap();
    let file = session.open("/file", OpenOptions::new().create()).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let writer = tokio::spawn(async move {
        let (mut gap, mut writes) = (Duration::ZERO, 0);
        while !*stopped.borrow() {
            let began = Instant::now();
            file.set_contents(format!("write {writes}")).await.unwrap();
            gap = gap.max(began.elapsed());
            writes += 1;
        }
        (gap, writes)
    });

    let master = cluster.master().await;
    let term = cluster.status(master).await.unwrap().term;
    cluster[master].terminate();
    let status = cluster[master].end().await;
    assert_eq!(status.code(), Some(0), "it stopped as it was asked to: {}", cluster[master].last_words());
    let successor = eventually("somebody else is master", async || {
        cluster.cell().status().await.ok().filter(|status| status.term > term)
    })
    .await;
    assert_ne!(successor.master, master);
    stop.send_replace(true);
    let (gap, writes) = within("the writer ends", writer).await.unwrap();
    assert!(writes > 0);
    assert!(gap < GAP, "a client waited {gap:?} for a write");

    // It comes back as a follower, with all its data, and a follower stops just as well.
    cluster[master].start();
    cluster.caught_up(master).await;
    cluster[master].terminate();
    assert_eq!(cluster[master].end().await.code(), Some(0));
}

#[tokio::test]
async fn a_whole_cell_that_is_asked_to_stop_does_so_and_comes_back_with_everything() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let session = cell.session().open().await.unwrap();
    let file = session.open("/file", OpenOptions::new().create()).await.unwrap();
    file.set_contents("kept").await.unwrap();
    cluster.replicas_mut().for_each(Replica::terminate);
    for replica in cluster.replicas_mut() {
        assert_eq!(replica.end().await.code(), Some(0), "{}", replica.last_words());
    }
    cluster.replicas_mut().for_each(Replica::start);
    let contents = within("the session goes on", file.contents()).await.unwrap();
    assert_eq!(contents.bytes, "kept");
}
