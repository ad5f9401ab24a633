//! What becomes of a lock when the process that holds it dies, or stands still.

use std::time::{Duration, Instant};

use holdfast::{Mode, OpenOptions};
use holdfast_e2e::{Cluster, Holder, Resource, Verdict, eventually, within};

use crate::PROGRAMS;

const LEASE: Duration = Duration::from_millis(1_000);
const LOCK_DELAY: Duration = Duration::from_millis(800);
/// What a machine that is busy may add.
const SLACK: Duration = Duration::from_secs(3);

#[tokio::test]
async fn a_holder_killed_is_succeeded_after_lease_and_lock_delay_and_not_before() {
    let cluster = Cluster::start(PROGRAMS).await;
    let resource = Resource::start().await;
    let mut holder = Holder::start(&cluster, "/primary", LEASE, LOCK_DELAY, &resource).await;
    let session = cluster.cell().session().open().await.unwrap();
    let next = session.open("/primary", OpenOptions::new()).await.unwrap();
    let waiting = tokio::spawn(async move { (next.acquire(Mode::Exclusive).await, Instant::now(), next) });
    let cell = cluster.cell();
    eventually("the other waits", async || {
        (cell.stat("/primary").await.ok()?.lock.waiting == 1).then_some(())
    })
    .await;

    let asked = Instant::now();
    let believed_until = asked + holder.validity().await;
    holder.kill().await;
    let killed = Instant::now();
    let (lock, granted, next) = within("the next holds the lock", waiting).await.unwrap();
    let lock = lock.unwrap();

    // The dead holder could have believed in its lock until then; and only then does the lock-delay begin.
    assert!(
        granted >= believed_until + LOCK_DELAY,
        "granted {:?} too early",
        believed_until + LOCK_DELAY - granted
    );
    assert!(
        granted <= killed + LEASE + LOCK_DELAY + SLACK,
        "granted only {:?} after the death",
        granted - killed
    );
    assert!(lock.generation() > holder.sequencer().generation);

    // A lock that is released instead passes on at once.
    let heir = session.open("/primary", OpenOptions::new()).await.unwrap();
    let waiting =
        tokio::spawn(async move { heir.acquire(Mode::Exclusive).await.map(|lock| (lock, Instant::now())) });
    eventually("the heir waits", async || (next.lock_stat().await.ok()?.waiting == 1).then_some(())).await;
    let released = Instant::now();
    lock.release().await.unwrap();
    let (_lock, granted) = within("the heir holds the lock", waiting).await.unwrap().unwrap();
    assert!(granted < released + LOCK_DELAY, "a release was followed by a lock-delay");
}

#[tokio::test]
async fn a_holder_that_stood_still_past_its_lease_is_fenced_and_told_so() {
    let cluster = Cluster::start(PROGRAMS).await;
    let resource = Resource::start().await;
    let mut holder = Holder::start(&cluster, "/primary", LEASE, Duration::ZERO, &resource).await;
    holder.order("first").await;
    assert_eq!(holder.verdict().await, (Verdict::Done, true));

    holder.pause();
    let session = cluster.cell().session().open().await.unwrap();
    let next = session.open("/primary", OpenOptions::new()).await.unwrap();
    let lock = within("the next holds the lock", next.acquire(Mode::Exclusive)).await.unwrap();
    assert_eq!(resource.order(lock.generation(), "second"), Verdict::Done);
    // This is the first thing that it does when it goes on, before it can have heard from the cell.
    holder.order("late").await;
    holder.resume();

    assert_eq!(
        holder.verdict().await,
        (Verdict::Refused, false),
        "the resource refuses it, its guard says no"
    );
    let reason = holder.lost().await;
    assert!(reason.contains("expired"), "{reason}");
    assert_eq!(resource.done(), ["first", "second"]);
    let old = cluster.cell().check_sequencer(holder.sequencer()).await.unwrap();
    assert!(!old.is_valid(), "the cell knows the old sequencer as invalid");
    assert!(cluster.cell().check_sequencer(lock.sequencer()).await.unwrap().is_valid());
    assert!(lock.is_held());
}

#[tokio::test]
async fn an_ephemeral_file_stays_as_long_as_anybody_has_it_open() {
    let cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let first = cell.session().lease(LEASE).open().await.unwrap();
    let second = cell.session().open().await.unwrap();
    let here = OpenOptions::new().create().ephemeral();
    let made = first.open("/here", here.clone()).await.unwrap();
    let found = second.open("/here", here).await.unwrap();
    assert!(made.created() && !found.created());
    first.close().await;
    assert_eq!(cell.stat("/here").await.unwrap().lock.open_handles, 1);
    found.close().await;
    eventually("the file is gone", async || cell.stat("/here").await.err()?.refusal()).await;
}

#[tokio::test]
async fn a_holder_that_becomes_a_daemon_does_not_believe_in_what_its_parent_held() {
    let cluster = Cluster::start(PROGRAMS).await;
    let resource = Resource::start().await;
    let mut holder = Holder::start(&cluster, "/primary", LEASE, LOCK_DELAY, &resource).await;
    let believed = holder.become_daemon().await;
    assert_eq!(believed, "Lost(Session(RuntimeGone)) | Ended(RuntimeGone)");
    // The parent has ended with all that it had.
    let session = cluster.cell().session().open().await.unwrap();
    let next = session.open("/primary", OpenOptions::new()).await.unwrap();
    within("the lock is free", next.acquire(Mode::Exclusive)).await.unwrap().release().await.unwrap();
}
