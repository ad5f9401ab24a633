//! Replicas and clients are cut off from each other, and sessions expire.

mod common;

use std::time::{Duration, Instant};

use common::{LIMIT, LONG, leader, session, soon};
use holdfast::{Cell, Ended, EventKind, Mode, OpenOptions, Session, SessionEvent, SessionState};
use holdfast_testkit::{Error, ReplicaId, TestCell, eventually};

/// A lease that runs out while a test waits.
const BRIEF: Duration = Duration::from_secs(2);

/// A session that is soon in jeopardy if it is cut off.
async fn brief_session(client: &Cell) -> Session {
    client.session().lease(BRIEF).open().await.expect("a session")
}

async fn state(session: &Session, wanted: SessionState) {
    let mut states = session.watch_state();
    let reached = states.wait_for(|state| *state == wanted);
    soon(&format!("{wanted:?}"), reached).await.expect("the session's task runs");
}

#[tokio::test]
async fn a_client_that_is_cut_off_is_in_jeopardy_and_another_one_is_not() {
    let cell = TestCell::start().await.unwrap();
    let (far, near) = (cell.client_named("far").unwrap(), cell.client_named("near").unwrap());
    let (far, near) = (brief_session(&far).await, session(&near).await);
    let handle = leader(&far).await;
    let lock = handle.acquire(Mode::Exclusive).await.unwrap();
    let mut near_events = near.events();

    let cut = cell.partition_client("far").unwrap();
    state(&far, SessionState::Jeopardy).await;
    assert!(!lock.is_held(), "nobody in jeopardy can be sure");
    soon("a call of the other one", leader(&near)).await;
    cut.heal();
    let (ended, safe) = (far.expired(), state(&far, SessionState::Safe));
    // The cell may have given the lock away meanwhile, or not: then it is as if nothing had been.
    tokio::select! {
        ended = ended => assert_eq!(ended, Ended::Expired),
        () = safe => {}
    }
    let quiet = tokio::time::timeout(Duration::ZERO, near_events.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
}

#[tokio::test]
async fn a_client_that_is_cut_off_for_too_long_loses_its_lock_to_the_next() {
    let cell = TestCell::start().await.unwrap();
    let first = brief_session(&cell.client_named("first").unwrap()).await;
    let second = session(&cell.client_named("second").unwrap()).await;
    let lock = leader(&first).await.acquire(Mode::Exclusive).await.unwrap();
    let cut = cell.partition_client("first").unwrap();
    let next = leader(&second).await;
    let next = soon("the lock", next.acquire(Mode::Exclusive)).await.unwrap();
    assert!(!lock.is_held() && next.is_held() && next.generation() > lock.generation());
    assert!(!cell.client().check_sequencer(lock.sequencer()).await.unwrap().is_valid());
    cut.heal();
    assert_eq!(soon("the end", first.expired()).await, Ended::Expired);
}

#[tokio::test]
async fn an_isolated_master_serves_nobody_and_the_others_go_on() {
    let cell = TestCell::start().await.unwrap();
    let session = session(&cell.client()).await;
    let handle = leader(&session).await;
    let (old, cut) = cell.isolate_master().await.unwrap();
    let write = handle.set_contents("through the others");
    let new = cell.wait_for_new_master(old);
    let (written, new) = soon("a new master", async { tokio::join!(write, new) }).await;
    written.unwrap();
    assert_ne!(new.unwrap(), old);
    cut.heal();
    let catches_up = async || {
        let address = &cell.addresses()[old.0 as usize - 1];
        let behind = cell.client().status_of(address).await.ok()?;
        let master = cell.client().status().await.ok()?;
        (behind.revision == master.revision && behind.master == master.replica).then_some(())
    };
    eventually("the old master follows", LIMIT, catches_up).await;
}

#[tokio::test]
async fn a_minority_elects_nobody_and_a_majority_does() {
    let cell = TestCell::builder().replicas(5).start().await.unwrap();
    let master = cell.master().await.unwrap();
    let others: Vec<_> = cell.replicas().into_iter().filter(|id| *id != master).collect();
    let cut = cell.partition(&[master, others[0]], &others[1..]).unwrap();
    let new = cell.wait_for_new_master(master).await.unwrap();
    assert!(others[1..].contains(&new), "{new} is of the minority");
    // Clients reach everybody, and find the master of the majority.
    let client = cell.client();
    soon("a session", session(&client)).await;
    drop(cut);
    // A master that hears nobody is replaced, though the others hear him.
    let rest: Vec<_> = cell.replicas().into_iter().filter(|id| *id != new).collect();
    let deaf = cell.partition_one_way(&rest, &[new]).unwrap();
    cell.wait_for_new_master(new).await.unwrap();
    deaf.heal();
}

#[tokio::test]
async fn a_client_finds_the_master_though_it_reaches_no_other_replica() {
    let cell = TestCell::start().await.unwrap();
    let client = cell.client_named("lonely").unwrap();
    let master = cell.master().await.unwrap();
    let others: Vec<_> = cell.replicas().into_iter().filter(|id| *id != master).collect();
    let _cut = cell.partition_client_from("lonely", &others).unwrap();
    soon("a session", session(&client)).await;
}

#[tokio::test]
async fn an_expired_session_is_told_in_order_and_its_lock_delay_runs() {
    const DELAY: Duration = Duration::from_millis(700);
    let cell = TestCell::start().await.unwrap();
    let (first, second) = (session(&cell.client()).await, session(&cell.client()).await);
    let options = OpenOptions::new().create().lock_delay(DELAY);
    let handle = first.open("/leader", options).await.unwrap();
    let lock = handle.acquire(Mode::Exclusive).await.unwrap();
    let watching = OpenOptions::new().events(EventKind::LockAcquired);
    let watched = second.open("/leader", watching).await.unwrap();
    let (mut events, mut told) = (watched.events().unwrap(), first.events());
    let waiting =
        tokio::spawn(async move { watched.acquire(Mode::Exclusive).await.map(|lock| lock.generation()) });

    let began = Instant::now();
    cell.expire_session(first.id()).await.unwrap();
    assert!(began.elapsed() < LONG, "the lease is not waited for");
    assert!(!lock.is_held());
    assert!(matches!(soon("jeopardy", told.next()).await, Some(SessionEvent::Jeopardy)));
    assert!(matches!(soon("the end", told.next()).await, Some(SessionEvent::Ended(Ended::Expired))));
    assert!(!cell.client().check_sequencer(lock.sequencer()).await.unwrap().is_valid());
    let refused = handle.set_contents("too late").await.unwrap_err();
    assert!(refused.to_string().contains("expired"), "{refused}");
    let generation = soon("the lock", waiting).await.unwrap().unwrap();
    assert!(began.elapsed() >= DELAY, "after {:?}", began.elapsed());
    assert!(generation > lock.generation());
    assert!(soon("the event", events.next()).await.unwrap().is_ok());
}

#[tokio::test]
async fn a_session_whose_client_does_not_answer_expires_with_its_lease() {
    let cell = TestCell::start().await.unwrap();
    let session = brief_session(&cell.client_named("away").unwrap()).await;
    let _cut = cell.partition_client("away").unwrap();
    soon("the expiry", cell.expire_session(session.id())).await.unwrap();
    assert_ne!(session.state(), SessionState::Safe, "it never believed longer than the cell");
}

#[tokio::test]
async fn sides_that_cannot_be_are_refused_with_what_is_wrong() {
    let cell = TestCell::start().await.unwrap();
    let [one, two, three] = cell.replicas()[..] else { panic!("three replicas") };
    let refused =
        |cut: Result<_, Error>| cut.map(|_cut: holdfast_testkit::Partition| ()).unwrap_err().to_string();
    assert!(refused(cell.partition(&[one, two], &[two, three])).contains("replica 2 is given twice"));
    assert!(refused(cell.partition(&[one, one], &[two])).contains("replica 1 is given twice"));
    assert!(refused(cell.partition(&[one], &[])).contains("at least one replica on each side"));
    assert!(refused(cell.partition_one_way(&[one], &[ReplicaId(7)])).contains("no replica 7"));
    assert!(refused(cell.isolate(ReplicaId(7))).contains("no replica 7"));
    assert!(refused(cell.partition_client("nobody")).contains("client_named"));
    cell.client_named("somebody").unwrap();
    assert!(refused(cell.partition_client_from("somebody", &[])).contains("at least one"));
}
