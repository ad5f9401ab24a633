//! One of many caching clients dies, and the master with it: only writes to what the dead one may have cached wait for
//! its lease; everybody else goes on at once (design.md §5).

use std::time::Duration;

use holdfast::{Cell, Handle, Mode, OpenOptions};
use holdfast_e2e::{Client, Cluster, eventually, within};
use tokio::task::JoinSet;

use crate::PROGRAMS;

const CLIENTS: usize = 50;
/// They share so many connections.
const CONNECTIONS: usize = 5;
/// Of the client that dies, which the new master starts again: enough for all others to be served meanwhile.
const LEASE: Duration = Duration::from_secs(6);

/// A client with a file of its own and one of all, both in its cache.
async fn client(cell: &Cell, number: usize) -> (Handle, Handle) {
    let session = cell.session().open().await.unwrap();
    let own = session.open(&format!("/own-{number:02}"), OpenOptions::new().create()).await.unwrap();
    let shared = session.open("/shared", OpenOptions::new()).await.unwrap();
    for handle in [&own, &shared] {
        eventually("it is cached", async || {
            handle.contents().await.unwrap();
            handle.cached_contents()
        })
        .await;
    }
    (own, shared)
}

/// Everything that a client does, but for writing what the dead one may have cached.
async fn use_all((own, shared): (Handle, Handle)) {
    assert_eq!(shared.contents().await.unwrap().bytes, "all of us");
    own.set_contents("mine").await.unwrap();
    assert_eq!(own.contents().await.unwrap().bytes, "mine");
    own.acquire(Mode::Exclusive).await.unwrap().release().await.unwrap();
    let held = shared.acquire(Mode::Shared).await.unwrap();
    assert_eq!(own.stat().await.unwrap().length, 4);
    held.release().await.unwrap();
    assert_eq!(shared.contents().await.unwrap().bytes, "all of us");
}

#[tokio::test]
async fn when_a_caching_client_and_the_master_die_only_writes_to_what_it_cached_wait() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let root = cluster.cell().session().open().await.unwrap();
    root.open("/shared", OpenOptions::new().create_new().contents("all of us")).await.unwrap();
    let cells: Vec<_> =
        (0..CONNECTIONS).map(|_| Cell::connect(cluster.cell().addresses()).unwrap()).collect();
    let mut clients = Vec::new();
    for number in 0..CLIENTS {
        clients.push(client(&cells[number % CONNECTIONS], number).await);
    }
    let mut dying = Client::start(&cluster, "dying", LEASE, LEASE).await;
    for order in ["open /dead create", "open /shared", "read /dead", "read /shared"] {
        dying.ask(order).await.unwrap();
    }
    let mut waiting = Vec::new();
    for path in ["/dead", "/shared"] {
        waiting.push(root.open(path, OpenOptions::new().caching(false)).await.unwrap());
    }

    let master = cluster.master().await;
    dying.kill().await;
    cluster[master].kill().await;
    let mut writes = JoinSet::new();
    for handle in waiting {
        writes.spawn(async move { handle.set_contents("at last").await });
    }
    let others: JoinSet<()> = clients.into_iter().map(use_all).collect();
    within("everybody else goes on", others.join_all()).await;
    assert!(writes.try_join_next().is_none(), "the dead client's lease was over before anybody was served");
    for written in within("the lease ends", writes.join_all()).await {
        written.unwrap();
    }
    assert_eq!(cluster.cell().contents("/dead").await.unwrap().bytes, "at last");
}
