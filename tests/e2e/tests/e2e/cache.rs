//! The consistent cache between processes (P§2.7): who has to be waited for, for how long, and by whom not.

use std::time::{Duration, Instant};

use holdfast::{Handle, Mode, OpenOptions, RefusalCode, Session, WriteOptions};
use holdfast_e2e::{Client, Cluster, eventually, within};

use crate::PROGRAMS;

/// Longer than any test waits for anything.
const LONG: Duration = Duration::from_secs(60);
/// The longest lease with which a session caches.
const CACHING: Duration = Duration::from_secs(12);
/// What a machine that is busy may add.
const SLACK: Duration = Duration::from_secs(5);

/// A handle that does not cache, so that its own session is never in the way of a write.
async fn open(session: &Session, path: &str) -> Handle {
    session.open(path, OpenOptions::new().create().caching(false)).await.unwrap()
}

/// Has the client read the file until it is in its cache.
async fn cached(client: &mut Client, path: &str, text: &str) {
    eventually("the file is cached", async || {
        assert_eq!(client.ask(&format!("read {path}")).await.unwrap(), text);
        client.ask(&format!("cached {path}")).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_stopped_client_delays_writes_to_what_it_caches_until_its_lease_is_over_and_no_others() {
    const LEASE: Duration = Duration::from_secs(2);
    let cluster = Cluster::start(PROGRAMS).await;
    let mut client = Client::start(&cluster, "client", LEASE, LONG).await;
    for path in ["/a", "/b"] {
        client.ask(&format!("open {path} create")).await.unwrap();
    }
    client.ask("write /a old").await.unwrap();
    cached(&mut client, "/a", "old").await;
    let session = cluster.cell().session().open().await.unwrap();
    // The stopped client has `/b` open too, and has not read it; it has never heard of `/c`.
    let [a, b, c] = [open(&session, "/a").await, open(&session, "/b").await, open(&session, "/c").await];

    // Of another session: this one's releases wait for its own writes, which may be under the lock.
    let free = open(&cluster.cell().session().open().await.unwrap(), "/c").await;

    client.pause();
    let began = Instant::now();
    let write = tokio::spawn(async move {
        let written = a.set_contents("new").await;
        (written, Instant::now(), a)
    });
    // The master has taken the write up when it has answered what came after it on the same stream.
    within("nobody caches that", b.set_contents("first")).await.unwrap();
    assert_eq!(within("reads never wait", cluster.cell().contents("/a")).await.unwrap().bytes, "old");
    assert!(!write.is_finished(), "the client may read its copy for as long as its lease lasts");
    let mut turns = 0;
    while !write.is_finished() {
        within("nobody caches that", b.set_contents("again")).await.unwrap();
        within("nobody caches that", c.set_contents("again")).await.unwrap();
        let lock = within("locks have nothing to do with it", free.acquire(Mode::Exclusive)).await.unwrap();
        lock.release().await.unwrap();
        within("reads never wait", cluster.cell().contents("/a")).await.unwrap();
        turns += 1;
    }
    assert!(turns > 10, "others went on meanwhile: {turns} turns");
    let (written, ended, a) = within("the write waits for the lease at the most", write).await.unwrap();
    written.unwrap();
    assert!(ended - began < LEASE + SLACK, "it took {:?}", ended - began);
    within("once is enough", a.set_contents("newer")).await.unwrap();
    client.resume();
    assert!(client.state("ended").await.contains("expired"));
}

#[tokio::test]
async fn clients_that_live_delay_no_write_noticeably_and_read_nothing_old() {
    const WRITES: u64 = 200;
    let cluster = Cluster::start(PROGRAMS).await;
    // With such leases, a write that waits for one would not end within the limit.
    let mut clients = [
        Client::start(&cluster, "first", CACHING, LONG).await,
        Client::start(&cluster, "second", CACHING, LONG).await,
    ];
    for client in &mut clients {
        client.ask("open /file create").await.unwrap();
    }
    let session = cluster.cell().session().open().await.unwrap();
    let file = open(&session, "/file").await;
    within("all writes", async {
        for write in 0..WRITES {
            file.set_contents(write.to_string()).await.unwrap();
            for client in &mut clients {
                assert_eq!(client.ask("read /file").await.unwrap(), write.to_string());
                assert_eq!(client.ask("read /file").await.unwrap(), write.to_string());
            }
        }
    })
    .await;
    for client in &mut clients {
        let [hits, misses, invalidations] = client.cache_stats().await;
        assert!(hits >= WRITES / 2, "most second reads come from the cache: {hits} hits and {misses} misses");
        assert!(invalidations >= WRITES / 2, "{invalidations} invalidations");
    }
}

#[tokio::test]
async fn what_is_cached_costs_no_message_names_that_do_not_exist_and_opens_included() {
    const TURNS: u64 = 50;
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    cell.set_contents("/dir", "", WriteOptions::new().kind(holdfast::NodeKind::Directory)).await.unwrap();
    cell.set_contents("/dir/file", "text", WriteOptions::new().create()).await.unwrap();
    let session = cell.session().lease(CACHING).open().await.unwrap();
    let dir = session.open("/dir", OpenOptions::new()).await.unwrap();
    let file = session.open("/dir/file", OpenOptions::new()).await.unwrap();
    let none = async || session.open("/dir/none", OpenOptions::new()).await;
    let read_all = async || {
        assert_eq!(file.contents().await.unwrap().bytes, "text");
        assert_eq!(file.stat().await.unwrap().length, 4);
        assert_eq!(dir.read_dir().await.unwrap().len(), 1);
        assert_eq!(none().await.unwrap_err().refusal(), Some(RefusalCode::NotFound));
        session.open("/dir/file", OpenOptions::new()).await.unwrap();
    };
    eventually("everything is cached", async || {
        let before = session.cache_stats().misses;
        read_all().await;
        (session.cache_stats().misses == before).then_some(())
    })
    .await;
    // Nobody is there to be asked.
    cluster.replicas_mut().for_each(holdfast_e2e::Replica::pause);
    let before = session.cache_stats();
    for _ in 0..TURNS {
        within("the cache answers", read_all()).await;
    }
    let after = session.cache_stats();
    assert_eq!(after.misses, before.misses);
    assert!(after.hits >= before.hits + 5 * TURNS, "{before:?} {after:?}");
    cluster.replicas_mut().for_each(holdfast_e2e::Replica::resume);
    cluster.serving().await;

    // Somebody else makes what was not there.
    cell.set_contents("/dir/none", "made", WriteOptions::new().create()).await.unwrap();
    assert_eq!(none().await.unwrap().contents().await.unwrap().bytes, "made");
    assert_eq!(dir.read_dir().await.unwrap().len(), 2);
    cell.delete("/dir/none").await.unwrap();
    assert_eq!(none().await.unwrap_err().refusal(), Some(RefusalCode::NotFound));
}

#[tokio::test]
async fn a_kept_lock_costs_no_message_until_another_process_asks_for_it() {
    const TURNS: u64 = 20;
    let cluster = Cluster::start(PROGRAMS).await;
    let mut keeper = Client::start(&cluster, "keeper", CACHING, LONG).await;
    let mut other = Client::start(&cluster, "other", CACHING, LONG).await;
    keeper.ask("open /lock create keep").await.unwrap();
    other.ask("open /lock").await.unwrap();
    let first = keeper.ask("lock /lock").await.unwrap();
    keeper.ask("release /lock").await.unwrap();
    let [before, ..] = keeper.cache_stats().await;
    for _ in 0..TURNS {
        assert_eq!(keeper.ask("lock /lock").await.unwrap(), first, "it has held it all the while");
        keeper.ask("release /lock").await.unwrap();
    }
    let [after, ..] = keeper.cache_stats().await;
    assert_eq!(after - before, 2 * TURNS, "each costs no message");

    // In use, the keeper is not robbed of it; released, it passes on.
    keeper.ask("lock /lock").await.unwrap();
    other.tell("lock /lock").await;
    let cell = cluster.cell();
    eventually("the other waits", async || (cell.stat("/lock").await.ok()?.lock.waiting == 1).then_some(()))
        .await;
    assert_eq!(keeper.ask("held /lock").await.unwrap(), "true");
    keeper.ask("release /lock").await.unwrap();
    let second = other.answer("lock /lock").await.unwrap();
    assert!(second.parse::<u64>().unwrap() > first.parse().unwrap());

    // And back: the keeper gives it away at once when it does not use it.
    other.ask("release /lock").await.unwrap();
    keeper.ask("lock /lock").await.unwrap();
    keeper.ask("release /lock").await.unwrap();
    other.ask("lock /lock").await.unwrap();
    assert_eq!(other.ask("held /lock").await.unwrap(), "true");
}
