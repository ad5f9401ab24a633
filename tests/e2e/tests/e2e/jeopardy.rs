//! A client that is stopped (SIGSTOP) or whose cell is, and continued in time or too late (design.md §4): it may go on
//! only if its session did, it never reads what is old, and its guard never says that it holds what it may have lost.

use std::time::Duration;

use holdfast::{Mode, OpenOptions};
use holdfast_e2e::{Client, Cluster, Replica, eventually, within};

use crate::PROGRAMS;

/// Longer than any test waits for anything.
const LONG: Duration = Duration::from_secs(60);
/// A session with a longer lease caches nothing (`caching_lease_ms_max`).
const LONGEST_THAT_CACHES: Duration = Duration::from_secs(12);
const LEASE: Duration = Duration::from_millis(1_000);
const GRACE: Duration = Duration::from_millis(1_500);

/// A client with a lock on `/lock`, and with `/file` in its cache.
async fn client(cluster: &Cluster, name: &str, lease: Duration, grace: Duration) -> Client {
    let mut client = Client::start(cluster, name, lease, grace).await;
    client.ask("open /file create").await.unwrap();
    client.ask("write /file old").await.unwrap();
    cached(&mut client, "old").await;
    client
}

/// Reads until the file is in the cache: a read may come while a write is not quite over.
async fn cached(client: &mut Client, text: &str) {
    eventually("the file is cached", async || {
        assert_eq!(client.ask("read /file").await.unwrap(), text);
        client.ask("cached /file").await.ok()
    })
    .await;
}

async fn lock(client: &mut Client) -> String {
    client.ask("open /lock create").await.unwrap();
    client.ask("lock /lock").await.unwrap()
}

fn stop_all(cluster: &mut Cluster) {
    cluster.replicas_mut().for_each(Replica::pause);
}

fn resume_all(cluster: &mut Cluster) {
    cluster.replicas_mut().for_each(Replica::resume);
}

/// The cell has ended this session.
async fn is_over(cluster: &Cluster, session: u64) {
    let cell = cluster.cell();
    eventually("the session is over at the cell", async || {
        let sessions = cell.list_sessions().await.ok()?;
        sessions.iter().all(|info| info.session != session).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_stopped_for_less_than_its_lease_loses_nothing_and_reads_nothing_old() {
    let cluster = Cluster::start(PROGRAMS).await;
    let mut client = client(&cluster, "client", LONGEST_THAT_CACHES, LONG).await;
    lock(&mut client).await;
    let session = cluster.cell().session().open().await.unwrap();
    let file = session.open("/file", OpenOptions::new().caching(false)).await.unwrap();
    let other = session.open("/other", OpenOptions::new().create().caching(false)).await.unwrap();

    client.pause();
    let write = tokio::spawn(async move { file.set_contents("new").await });
    // The master has taken the write up when it has answered what came after it on the same stream.
    within("another file is written", other.set_contents("x")).await.unwrap();
    assert_eq!(
        cluster.cell().contents("/file").await.unwrap().bytes,
        "old",
        "nobody may see the new contents yet"
    );
    assert!(!write.is_finished(), "the client may read its copy for as long as its lease lasts");
    client.tell("held /lock").await;
    client.resume();
    within("the write is done as soon as the client runs", write).await.unwrap().unwrap();
    assert_eq!(client.ask("read /file").await.unwrap(), "new");
    assert_eq!(client.answer("held /lock").await.unwrap(), "true");
    let lock = cluster.cell().stat("/lock").await.unwrap().lock;
    assert_eq!(lock.holders.iter().map(|holder| holder.session).collect::<Vec<_>>(), [client.session()]);
}

#[tokio::test]
async fn a_client_stopped_in_jeopardy_and_continued_within_the_grace_period_goes_on_with_what_is_right() {
    let mut cluster = Cluster::start_with(PROGRAMS, &[("lease-floor-ms", "10000")]).await;
    let mut client = client(&cluster, "client", LEASE, LONG).await;
    lock(&mut client).await;

    let master = cluster.master().await;
    stop_all(&mut cluster);
    client.state("jeopardy").await;
    assert_eq!(client.ask("held /lock").await.unwrap(), "false");
    client.ask("cached /file").await.expect_err("in jeopardy nothing is read from the cache");
    client.tell("read /file").await;
    client.tell("write /file mine").await;
    client.pause();
    client.tell("held /lock").await;
    client.resume();
    assert_eq!(
        client.answer("held /lock").await.unwrap(),
        "false",
        "nothing was heard from the cell meanwhile"
    );

    // The master never comes back, so its successor starts the lease again, at the floor.
    cluster[master].kill().await;
    cluster.replicas_mut().filter(|replica| replica.id() != master).for_each(Replica::resume);
    client.state("safe").await;
    client.answer("read /file").await.expect("the call has waited, and was then answered");
    client.answer("write /file mine").await.expect("so was this one");
    cached(&mut client, "mine").await;
    assert_eq!(client.ask("held /lock").await.unwrap(), "true");

    // It caches as before: what others write, it learns of.
    cluster.cell().set_contents("/file", "theirs", holdfast::WriteOptions::new()).await.unwrap();
    cached(&mut client, "theirs").await;
}

#[tokio::test]
async fn a_client_stopped_until_its_session_was_over_reads_nothing_and_learns_that_it_expired() {
    let cluster = Cluster::start(PROGRAMS).await;
    let mut client = client(&cluster, "client", LEASE, LONG).await;
    lock(&mut client).await;
    client.pause();
    is_over(&cluster, client.session()).await;
    let session = cluster.cell().session().open().await.unwrap();
    let file = session.open("/file", OpenOptions::new()).await.unwrap();
    within("nobody has to be waited for any more", file.set_contents("new")).await.unwrap();
    let next = session.open("/lock", OpenOptions::new()).await.unwrap();
    let _next = within("the lock is free", next.acquire(Mode::Exclusive)).await.unwrap();

    // What it hears first when it goes on, before it can hear from the cell.
    client.tell("held /lock").await;
    client.tell("cached /file").await;
    client.tell("read /file").await;
    client.resume();
    assert_eq!(client.answer("held /lock").await.unwrap(), "false");
    client.answer("cached /file").await.expect_err("the lease is over");
    let expired = client.answer("read /file").await.expect_err("the session is over");
    assert!(expired.contains("expired"), "{expired}");
    assert_eq!(client.state("ended").await, expired);
    fails_for_ever(&mut client, &expired).await;
}

#[tokio::test]
async fn a_client_stopped_in_jeopardy_beyond_its_grace_period_is_expired_for_ever() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let mut stopped = client(&cluster, "stopped", LEASE, GRACE).await;
    lock(&mut stopped).await;
    // One that is not stopped tells when the grace period of both is over.
    let mut running = client(&cluster, "running", LEASE, GRACE).await;

    stop_all(&mut cluster);
    stopped.state("jeopardy").await;
    stopped.tell("write /file late").await;
    stopped.pause();
    running.state("jeopardy").await;
    let expired = running.state("ended").await;
    assert!(expired.contains("grace period"), "{expired}");
    fails_for_ever(&mut running, &expired).await;
    stopped.tell("held /lock").await;
    stopped.resume();
    assert_eq!(stopped.answer("held /lock").await.unwrap(), "false");
    let expired = stopped.state("ended").await;
    assert!(expired.contains("grace period"), "{expired}");
    stopped.answer("write /file late").await.expect_err("it waited until the end");

    // Even if the cell comes back: what is lost is a suffix.
    resume_all(&mut cluster);
    cluster.serving().await;
    fails_for_ever(&mut stopped, &expired).await;
    is_over(&cluster, stopped.session()).await;
    let session = cluster.cell().session().open().await.unwrap();
    let next = session.open("/lock", OpenOptions::new()).await.unwrap();
    within("the lock passes on", next.acquire(Mode::Exclusive)).await.unwrap().release().await.unwrap();
    fails_for_ever(&mut stopped, &expired).await;
    assert_eq!(stopped.ask("held /lock").await.unwrap(), "false");
}

/// Every call fails, and always with the same error.
async fn fails_for_ever(client: &mut Client, expired: &str) {
    for order in ["read /file", "write /file text", "list /file", "open /file", "exists /none"] {
        let error = client.ask(order).await.expect_err(order);
        assert!(error.starts_with(expired), "{order}: {error}");
    }
    client.ask("cached /file").await.expect_err("nothing is cached any more");
}
