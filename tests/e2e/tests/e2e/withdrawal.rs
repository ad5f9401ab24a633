//! Dropping a pending acquire leaves nothing behind at the cell, whatever becomes of the connection.

use std::sync::Arc;
use std::time::Duration;

use holdfast::{Cell, Handle, Mode, OpenOptions, Session};
use holdfast_e2e::{Cluster, Proxy, eventually, within};
use tokio::task::JoinHandle;

use crate::PROGRAMS;

const PATH: &str = "/queue";

async fn open(session: &Session) -> Arc<Handle> {
    Arc::new(session.open(PATH, OpenOptions::new().create()).await.unwrap())
}

/// Waits until so many wait for the lock.
async fn waiting(cell: &Cell, count: u64) {
    eventually(&format!("{count} wait for the lock"), async || {
        (cell.stat(PATH).await.ok()?.lock.waiting == count).then_some(())
    })
    .await;
}

/// Asks for the lock in the background. Aborting the task drops the acquire, and not the handle, whose closing would
/// withdraw it too.
fn acquire(handle: &Arc<Handle>) -> JoinHandle<()> {
    let handle = Arc::clone(handle);
    tokio::spawn(async move {
        let lock = handle.acquire(Mode::Exclusive).await;
        panic!("nobody was to be granted the lock: {lock:?}");
    })
}

/// Whether the lock, once it is free, goes to somebody who asks for it only then.
async fn is_free_for_others(cell: &Cell) -> bool {
    let session = cell.session().open().await.unwrap();
    open(&session).await.try_acquire(Mode::Exclusive).await.unwrap().is_some()
}

#[tokio::test]
async fn a_dropped_acquire_leaves_the_queue() {
    let cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let session = cell.session().open().await.unwrap();
    let holder = open(&session).await;
    let lock = holder.acquire(Mode::Exclusive).await.unwrap();

    let handle = open(&session).await;
    let pending = acquire(&handle);
    let timed_out = open(&session).await;
    waiting(&cell, 1).await;
    let limit = tokio::time::timeout(Duration::from_millis(50), timed_out.acquire(Mode::Shared)).await;
    assert!(limit.is_err(), "the lock is held");
    waiting(&cell, 1).await;
    pending.abort();
    waiting(&cell, 0).await;

    lock.release().await.unwrap();
    assert!(is_free_for_others(&cell).await);
    // The session that had it a moment ago gives it back beside this one.
    let _lock = eventually("its handle is as good as before", async || {
        timed_out.try_acquire(Mode::Exclusive).await.unwrap()
    })
    .await;
}

#[tokio::test]
async fn an_acquire_dropped_while_its_connection_is_cut_leaves_the_queue() {
    let cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let holding = cell.session().open().await.unwrap();
    let holder = open(&holding).await;
    let lock = holder.acquire(Mode::Exclusive).await.unwrap();

    let master = cluster.master().await;
    let proxy = Proxy::start(cluster[master].client_address()).await;
    let session = Cell::connect([proxy.address()]).unwrap().session().open().await.unwrap();
    let handle = open(&session).await;
    let pending = acquire(&handle);
    waiting(&cell, 1).await;
    proxy.cut();
    pending.abort();
    waiting(&cell, 0).await;

    lock.release().await.unwrap();
    assert!(is_free_for_others(&cell).await);
    assert!(within("the session lives on", open(&session)).await.stat().await.is_ok());
}

#[tokio::test]
async fn an_acquire_whose_grant_is_lost_on_the_way_is_withdrawn() {
    let cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let master = cluster.master().await;
    let proxy = Proxy::start(cluster[master].client_address()).await;
    let session = Cell::connect([proxy.address()]).unwrap().session().open().await.unwrap();
    let handle = open(&session).await;

    proxy.deafen();
    let pending = acquire(&handle);
    eventually("the lock is granted", async || {
        (cell.stat(PATH).await.ok()?.lock.holder_count == 1).then_some(())
    })
    .await;
    pending.abort();
    proxy.cut();
    eventually("the lock is free", async || {
        (cell.stat(PATH).await.ok()?.lock.holder_count == 0).then_some(())
    })
    .await;
    assert!(is_free_for_others(&cell).await, "it was released, not lost: no lock-delay");
}
