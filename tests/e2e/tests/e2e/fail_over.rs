//! What clients notice when the master is killed: a delay, and nothing else.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast::{Cell, Handle, Lock, Mode, OpenOptions, RefusalCode, Session, SessionState};
use holdfast_e2e::{Cluster, eventually, within};
use tokio::task::{JoinHandle, JoinSet};

use crate::PROGRAMS;

/// So many locks have a holder, and the first `QUEUES` of them so many waiters each: 50 clients.
const HOLDERS: usize = 20;
const QUEUES: usize = 10;
const WAITERS: usize = 3;

fn path(lock: usize) -> String {
    format!("/lock-{lock:02}")
}

/// A client: a session of its own, with one handle.
async fn client(cell: &Cell, lock: usize) -> Handle {
    let session = cell.session().open().await.unwrap();
    session.open(&path(lock), OpenOptions::new().create()).await.unwrap()
}

/// Who held which lock, in the order of the grants: by lock, the waiter's place in the queue and the generation.
type Grants = Arc<Mutex<BTreeMap<usize, Vec<(usize, u64)>>>>;

/// Waits for a lock, notes the grant, and passes the lock on.
fn wait_in_line(handle: Handle, lock: usize, place: usize, grants: &Grants) -> JoinHandle<()> {
    let grants = Arc::clone(grants);
    tokio::spawn(async move {
        let guard = handle.acquire(Mode::Exclusive).await.unwrap();
        let stat = handle.lock_stat().await.unwrap();
        assert_eq!(stat.holder_count, 1, "nobody else holds {}", handle.path());
        assert_eq!(stat.generation, guard.generation(), "the lock has not passed on meanwhile");
        grants.lock().unwrap().entry(lock).or_default().push((place, guard.generation()));
        guard.release().await.unwrap();
    })
}

/// The 50 clients, in place.
async fn take_places(cell: &Cell, grants: &Grants) -> (Vec<(Handle, Lock)>, Vec<JoinHandle<()>>) {
    let mut holders = Vec::new();
    let mut waiters = Vec::new();
    for lock in 0..HOLDERS {
        let handle = client(cell, lock).await;
        let guard = handle.acquire(Mode::Exclusive).await.unwrap();
        holders.push((handle, guard));
    }
    for place in 0..WAITERS {
        for lock in 0..QUEUES {
            waiters.push(wait_in_line(client(cell, lock).await, lock, place, grants));
        }
        for (handle, _) in &holders[..QUEUES] {
            let waiting = place as u64 + 1;
            eventually("the next waiter has its place", async || {
                (handle.lock_stat().await.ok()?.waiting == waiting).then_some(())
            })
            .await;
        }
    }
    (holders, waiters)
}

#[tokio::test]
async fn fifty_clients_keep_their_locks_and_their_places_when_the_master_is_killed() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let grants = Grants::default();
    let (holders, waiters) = take_places(&cell, &grants).await;

    let first = cluster.master().await;
    cluster[first].kill().await;
    assert_ne!(cluster.master().await, first);
    for (handle, guard) in &holders {
        let lock = within("a holder reads its lock", handle.lock_stat()).await.unwrap();
        assert_eq!(lock.generation, guard.generation(), "{} was granted anew", handle.path());
        assert_eq!(lock.holder_count, 1);
        assert!(cell.check_sequencer(guard.sequencer()).await.unwrap().is_valid());
        eventually("its guard holds", async || guard.is_held().then_some(())).await;
    }
    assert!(grants.lock().unwrap().is_empty(), "nobody was granted what another holds");

    // The locks pass on while the second master dies as well.
    cluster[first].start();
    cluster.caught_up(first).await;
    let second = cluster.master().await;
    let mut releases = JoinSet::new();
    let mut generations = Vec::new();
    for (_, guard) in holders {
        generations.push(guard.generation());
        releases.spawn(guard.release());
    }
    cluster[second].kill().await;
    for release in within("all release", releases.join_all()).await {
        release.unwrap();
    }
    for waiter in waiters {
        within("each waiter has had its turn", waiter).await.unwrap();
    }

    let grants = grants.lock().unwrap();
    assert_eq!(grants.len(), QUEUES);
    for (lock, granted) in &*grants {
        let places: Vec<usize> = granted.iter().map(|(place, _)| *place).collect();
        assert_eq!(places, [0, 1, 2], "each waiter of {} once, in its turn", path(*lock));
        let first = [generations[*lock]].into_iter();
        let rising: Vec<u64> = first.chain(granted.iter().map(|(_, generation)| *generation)).collect();
        assert!(rising.is_sorted_by(|earlier, later| earlier < later), "generations rise: {rising:?}");
    }
}

/// Creates files one after the other until told to stop, and says how many.
async fn create_files(session: Session, creator: usize, stop: tokio::sync::watch::Receiver<bool>) -> usize {
    let mut count = 0;
    while !*stop.borrow() {
        let path = format!("/made/{creator}-{count}");
        let text = format!("contents {count} of {creator}");
        let made = session.open(&path, OpenOptions::new().create_new().contents(text)).await;
        let handle = made.unwrap_or_else(|error| panic!("{path} was made twice, or not at all: {error}"));
        assert!(handle.created(), "{path}");
        count += 1;
    }
    count
}

/// Writes one file over and over, each time at whatever generation it has, and checks that each write took effect
/// once: a second time would leave a generation that nobody was told of.
async fn write_file(session: Session, stop: tokio::sync::watch::Receiver<bool>) -> usize {
    let file = session.open("/written", OpenOptions::new().create()).await.unwrap();
    let mut writes = 0;
    while !*stop.borrow() {
        let generation = file.set_contents(format!("write {writes}")).await.unwrap();
        let read = file.contents().await.unwrap();
        assert_eq!(read.stat.content_generation, generation, "write {writes} was applied again");
        assert_eq!(read.bytes, format!("write {writes}"));
        writes += 1;
    }
    writes
}

#[tokio::test]
async fn what_is_retried_across_the_deaths_of_masters_takes_effect_once() {
    const CREATORS: usize = 4;
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let root = cell.session().open().await.unwrap();
    root.open("/made", OpenOptions::new().create_new().directory()).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut creators = JoinSet::new();
    for creator in 0..CREATORS {
        creators.spawn(create_files(cell.session().open().await.unwrap(), creator, stopped.clone()));
    }
    let writer = tokio::spawn(write_file(cell.session().open().await.unwrap(), stopped));

    let children = async || cell.stat("/made").await.ok().map(|node| node.stat.children);
    for _ in 0..3 {
        // Requests are under way when the master dies.
        let before = eventually("the cell answers", children).await;
        eventually("files are being made", async || children().await.filter(|now| *now > before + 20)).await;
        let master = cluster.master().await;
        cluster[master].kill().await;
        cluster.master().await;
        cluster[master].start();
        cluster.caught_up(master).await;
    }
    stop.send_replace(true);
    let made: usize = within("the creators end", creators.join_all()).await.into_iter().sum();
    let writes = within("the writer ends", writer).await.unwrap();
    assert!(writes > 0);

    let entries = cell.read_dir("/made").await.unwrap();
    assert_eq!(entries.len(), made, "as many files as were acknowledged");
    // The cell refuses to make one again: so those above would have been told if they had been made twice.
    let again = root.open("/made/0-0", OpenOptions::new().create_new()).await;
    assert_eq!(again.unwrap_err().refusal(), Some(RefusalCode::AlreadyExists));
}

/// Counts in a file, under its lock, until told to stop; says how often.
async fn count_under_lock(session: Session, stop: tokio::sync::watch::Receiver<bool>) -> u64 {
    let file = session.open("/counter", OpenOptions::new().create()).await.unwrap();
    let mut counted = 0;
    while !*stop.borrow() {
        let lock = file.acquire(Mode::Exclusive).await.unwrap();
        let before = file.contents().await.unwrap();
        let count: u64 = String::from_utf8(before.bytes.to_vec()).unwrap().parse().unwrap_or(0);
        // Not conditional: only the lock keeps others out, and only exactly-once keeps this from counting twice.
        file.set_contents((count + 1).to_string()).await.unwrap();
        lock.release().await.unwrap();
        counted += 1;
    }
    counted
}

#[tokio::test]
async fn a_counter_under_a_lock_counts_right_while_replicas_die_in_turn() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut counters = JoinSet::new();
    for _ in 0..8 {
        counters.spawn(count_under_lock(cell.session().open().await.unwrap(), stopped.clone()));
    }
    let generation = async || cell.stat("/counter").await.ok().map(|node| node.stat.content_generation);
    for round in 0..6 {
        let before = eventually("the counter is there", generation).await;
        eventually("the counter rises", async || generation().await.filter(|now| *now > before + 30)).await;
        // Masters and others by turns, one after the other without a pause.
        let victim = if round % 2 == 0 { cluster.master().await } else { cluster.follower().await };
        cluster[victim].kill().await;
        cluster[victim].start();
        cluster.caught_up(victim).await;
    }
    stop.send_replace(true);
    let counted: u64 = within("the counters end", counters.join_all()).await.into_iter().sum();
    assert_eq!(cell.contents("/counter").await.unwrap().bytes, counted.to_string());
}

#[tokio::test]
async fn a_master_that_stood_still_is_replaced_and_never_serves_from_the_past() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    // A client looks for another master when a KeepAlive finds no answer, which a shorter lease has it send sooner.
    let session = cell.session().lease(Duration::from_secs(6)).open().await.unwrap();
    let file = session.open("/file", OpenOptions::new().create()).await.unwrap();
    file.set_contents("before").await.unwrap();
    let lock = file.acquire(Mode::Exclusive).await.unwrap();

    let old = cluster.master().await;
    let old_only = Cell::connect([cluster[old].client_address()]).unwrap();
    assert_eq!(old_only.contents("/file").await.unwrap().bytes, "before");
    cluster[old].pause();
    // Nobody resets a connection: the others, and the client, find out by themselves.
    within("a write finds the new master", file.set_contents("after")).await.unwrap();
    assert!(lock.is_held(), "the lease was long enough");
    cluster[old].resume();
    // The first thing that the old master hears when it goes on: it believes in its office yet.
    let read = within("a read by way of the old master", old_only.contents("/file")).await.unwrap();
    assert_eq!(read.bytes, "after");
    cluster.caught_up(old).await;
    assert_ne!(cluster.master().await, old);
    assert_eq!(file.lock_stat().await.unwrap().generation, lock.generation());
    assert!(cell.check_sequencer(lock.sequencer()).await.unwrap().is_valid());
}

#[tokio::test]
async fn a_session_that_outlives_a_dead_cell_goes_through_jeopardy_and_keeps_its_lock() {
    let mut cluster = Cluster::start_with(PROGRAMS, &[("lease-floor-ms", "5000")]).await;
    let session = cluster.cell().session().lease(Duration::from_secs(1)).open().await.unwrap();
    let file = session.open("/file", OpenOptions::new().create()).await.unwrap();
    let lock = file.acquire(Mode::Exclusive).await.unwrap();
    let mut states = session.watch_state();

    let dead: Vec<u64> = vec![cluster.master().await, cluster.follower().await];
    for id in &dead {
        cluster[*id].kill().await;
    }
    let jeopardy = states.wait_for(|state| *state == SessionState::Jeopardy);
    within("the lease runs out", jeopardy).await.unwrap();
    assert!(!lock.is_held());
    let write = tokio::spawn(async move { (file.set_contents("late").await, file) });
    for id in &dead {
        cluster[*id].start();
    }
    let (written, file) = within("the write waits for the cell", write).await.unwrap();
    written.unwrap();
    within("the session is safe", states.wait_for(|state| *state == SessionState::Safe)).await.unwrap();
    assert!(lock.is_held());
    assert_eq!(file.lock_stat().await.unwrap().generation, lock.generation());
}
