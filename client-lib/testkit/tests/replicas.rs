//! Replicas are killed, stopped, restarted and paused; clients see a delay and lose nothing.

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{LIMIT, leader, session, soon};
use holdfast::{EventKind, Mode, OpenOptions, SessionEvent};
use holdfast_testkit::{Error, ReplicaId, TestCell, eventually};

#[tokio::test]
async fn a_lock_outlives_the_master_that_granted_it() {
    let cell = TestCell::start().await.unwrap();
    let (first, second) = (session(&cell.client()).await, session(&cell.client()).await);
    let (handle, waiting) = (leader(&first).await, leader(&second).await);
    let lock = handle.acquire(Mode::Exclusive).await.unwrap();
    let mut events = first.events();

    let old = cell.kill_master().await.unwrap();
    let new = cell.wait_for_new_master(old).await.unwrap();
    assert_ne!(old, new);
    soon("a write through the new master", handle.set_contents("mine")).await.unwrap();
    assert!(lock.is_held());
    let event = soon("word of the fail-over", events.next()).await;
    assert!(matches!(event, Some(SessionEvent::FailedOver { .. })), "{event:?}");
    assert!(cell.client().check_sequencer(lock.sequencer()).await.unwrap().is_valid());

    cell.restart(old).await.unwrap();
    lock.release().await.unwrap();
    let next = soon("the lock", waiting.acquire(Mode::Exclusive)).await.unwrap();
    assert!(next.generation() > 0);
}

#[tokio::test]
async fn what_was_acknowledged_survives_the_death_of_all_replicas() {
    let cell = TestCell::start().await.unwrap();
    let client = cell.client();
    let handle = leader(&session(&client).await).await;
    for number in 0..20 {
        handle.set_contents(format!("{number}")).await.unwrap();
    }
    cell.kill_all().await.unwrap();
    let error = client.status().await.unwrap_err();
    assert!(error.is_retryable(), "{error}");
    cell.restart_all().await.unwrap();
    let contents = soon("the contents", client.contents("/leader")).await.unwrap();
    assert_eq!(contents.bytes, "19");
    // The session lives too.
    soon("a write of the old session", handle.set_contents("20")).await.unwrap();
}

#[tokio::test]
async fn a_replica_that_is_stopped_hands_over_and_comes_back() {
    let cell = TestCell::start().await.unwrap();
    let old = cell.master().await.unwrap();
    cell.stop(old).await.unwrap();
    let new = cell.wait_for_new_master(old).await.unwrap();
    cell.restart(old).await.unwrap();
    assert_eq!(cell.master().await.unwrap(), new, "it does not take the office back");
    assert!(cell.logs().iter().any(|line| line.contains("handing over")), "{:#?}", cell.logs());
}

#[tokio::test]
async fn a_master_that_is_paused_is_replaced_and_wakes_deposed() {
    let cell = TestCell::start().await.unwrap();
    let handle = leader(&session(&cell.client()).await).await;
    let lock = handle.acquire(Mode::Exclusive).await.unwrap();
    let old = cell.master().await.unwrap();

    cell.pause(old).await.unwrap();
    let lines = cell.logs().len();
    cell.wait_for_new_master(old).await.unwrap();
    soon("a write through the new master", handle.set_contents("mine")).await.unwrap();
    assert!(lock.is_held());
    let tag = format!("replica: {}", old.0);
    let said: Vec<_> = cell.logs().drain(lines..).filter(|line| line.ends_with(&tag)).collect();
    assert!(said.is_empty(), "it stands still: {said:?}");

    cell.resume(old).unwrap();
    let is_deposed = async || {
        cell.logs().iter().any(|line| line.ends_with(&tag) && line.contains("out of office")).then_some(())
    };
    eventually("the old master learns that it is none", LIMIT, is_deposed).await;
    assert_ne!(cell.master().await.unwrap(), old);
}

#[tokio::test]
async fn a_client_waits_while_all_replicas_stand_still_and_loses_nothing() {
    let cell = TestCell::start().await.unwrap();
    let handle = leader(&session(&cell.client()).await).await;
    for replica in cell.replicas() {
        cell.pause(replica).await.unwrap();
    }
    let early = tokio::time::timeout(Duration::from_millis(300), handle.set_contents("late")).await;
    assert!(early.is_err(), "nobody can have answered");
    for replica in cell.replicas() {
        cell.resume(replica).unwrap();
    }
    soon("an answer", handle.set_contents("later")).await.unwrap();
}

#[tokio::test]
async fn a_paused_replica_can_be_killed_and_started_again() {
    let cell = TestCell::start().await.unwrap();
    let replica = cell.replicas()[2];
    cell.pause(replica).await.unwrap();
    cell.kill(replica).await.unwrap();
    cell.restart(replica).await.unwrap();
    cell.master().await.unwrap();
}

#[tokio::test]
async fn a_change_during_a_fail_over_is_told_to_who_watches() {
    let cell = TestCell::start().await.unwrap();
    let watcher = session(&cell.client()).await;
    let options = OpenOptions::new().create().events(EventKind::ContentsModified);
    let watched = watcher.open("/config", options).await.unwrap();
    let mut events = watched.events().unwrap();
    let writing = session(&cell.client()).await;
    let writer = writing.open("/config", OpenOptions::new()).await.unwrap();
    cell.kill_master().await.unwrap();
    soon("the write", writer.set_contents("new")).await.unwrap();
    let event = soon("the event", events.next()).await.unwrap().unwrap();
    assert!(event.kinds.contains(EventKind::ContentsModified), "{event:?}");
    assert_eq!(watched.contents().await.unwrap().bytes, "new");
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_with_what_is_the_matter() {
    let cell = TestCell::start().await.unwrap();
    let [one, two, three] = cell.replicas()[..] else { panic!("three replicas") };
    let refused = |done: Result<(), Error>| done.unwrap_err().to_string();

    let unknown = refused(cell.kill(ReplicaId(4)).await);
    assert_eq!(unknown, "the cell has no replica 4: its replicas are 1 to 3");
    assert!(refused(cell.restart(ReplicaId(0)).await).contains("no replica 0"));
    assert_eq!(refused(cell.restart(one).await), "replica 1 cannot be started: it runs");
    assert!(refused(cell.resume(one)).contains("cannot be resumed: it runs"));
    cell.pause(two).await.unwrap();
    assert!(refused(cell.pause(two).await).contains("stands still"));
    assert!(refused(cell.stop(two).await).contains("stands still"));
    cell.resume(two).unwrap();
    cell.kill(three).await.unwrap();
    assert!(refused(cell.kill(three).await).contains("is down"));
    assert!(refused(cell.pause(three).await).contains("is down"));
    assert!(matches!(cell.expire_session(999).await, Err(Error::UnknownSession { session: 999 })));

    for (builder, words) in [
        (TestCell::builder().replicas(0), "1 to 9 replicas"),
        (TestCell::builder().name("No"), "a-z"),
        (TestCell::builder().lease(Duration::from_millis(99)), "100ms"),
        (TestCell::builder().election_timeout(Duration::ZERO), "100ms at least"),
    ] {
        let error = builder.start().await.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_start_that_is_given_up_leaves_nothing_behind() {
    for millis in [0, 20, 60, 110] {
        let began = Instant::now();
        let start = tokio::time::timeout(Duration::from_millis(millis), TestCell::start());
        drop(start.await);
        assert!(began.elapsed() < LIMIT);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cell_works_on_several_threads() {
    let cell = Arc::new(TestCell::start().await.unwrap());
    let other = Arc::clone(&cell);
    let old = tokio::spawn(async move { other.kill_master().await }).await.unwrap().unwrap();
    cell.wait_for_new_master(old).await.unwrap();
}

#[tokio::test]
async fn sessions_have_the_lease_of_the_cell_unless_they_ask_for_another() {
    let cell = TestCell::builder().lease(Duration::from_secs(3)).name("other").start().await.unwrap();
    let client = cell.client();
    let by_default = client.session().open().await.unwrap();
    let asked_for = session(&client).await;
    let leases: Vec<_> = client.list_sessions().await.unwrap().iter().map(|info| info.lease_ms).collect();
    assert_eq!(leases, [3_000, 40_000]);
    assert_eq!((&*by_default.cell_name(), &*asked_for.cell_name()), ("other", "other"));
}
