//! What an operator does to sessions, and how their clients learn of it.

use std::time::Duration;

use holdfast::{Ended, Error, Lost, Mode, OpenOptions, RefusalCode};
use holdfast_e2e::{Client, Cluster, eventually, within};

use crate::PROGRAMS;

const LONG: Duration = Duration::from_secs(60);
/// Not so long that a test is slow, and long enough to be told from none.
const LOCK_DELAY: Duration = Duration::from_millis(700);

#[tokio::test]
async fn a_session_that_is_killed_loses_its_locks_after_their_lock_delay_and_its_client_learns_why() {
    let cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    // Its lease is so long that nobody waits for its end here: the client has to agree.
    let session = cell.session().lease(LONG).client_name("victim").open().await.unwrap();
    let file = session.open("/lock", OpenOptions::new().create().lock_delay(LOCK_DELAY)).await.unwrap();
    let lock = file.acquire(Mode::Exclusive).await.unwrap();
    let other = cell.session().open().await.unwrap();
    let next = other.open("/lock", OpenOptions::new()).await.unwrap();
    let info =
        cell.list_sessions().await.unwrap().into_iter().find(|info| info.session == session.id()).unwrap();
    assert_eq!((info.client.as_str(), info.locks_held, info.handles), ("victim", 1, 1));
    assert!(cell.list_handles(Some(session.id()), None).await.unwrap()[0].holds == Some(Mode::Exclusive));

    within("the session is killed", cell.kill_session(session.id(), LONG)).await.unwrap();
    let delayed = cell.stat("/lock").await.unwrap().lock;
    assert_eq!((delayed.holder_count, delayed.delayed), (0, 1), "lost, not released");
    let killed = within("its client learns of it", session.expired()).await;
    assert_eq!(killed, Ended::Killed);
    assert!(!lock.is_held());
    assert_eq!(lock.lost().await, Lost::Session(Ended::Killed));
    let error = file.contents().await.unwrap_err();
    assert!(matches!(error, Error::SessionEnded { ended: Ended::Killed, .. }), "{error:?}");
    within("the lock passes on", next.acquire(Mode::Exclusive)).await.unwrap().release().await.unwrap();
    let again = cell.kill_session(session.id(), LONG).await.unwrap_err();
    assert_eq!(again.refusal(), Some(RefusalCode::UnknownSession));
}

#[tokio::test]
async fn a_session_whose_client_is_stopped_is_killed_when_its_lease_is_over_and_not_before() {
    let cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let mut client = Client::start(&cluster, "client", Duration::from_secs(3), LONG).await;
    client.ask("open /lock create").await.unwrap();
    client.ask("lock /lock").await.unwrap();
    client.pause();
    let (killer, id) = (cluster.cell(), client.session());
    let kill = tokio::spawn(async move { killer.kill_session(id, LONG).await });
    let left = async || {
        let sessions = cell.list_sessions().await.ok()?;
        Some(sessions.into_iter().find(|info| info.session == id).map(|info| info.lease_left_ms))
    };
    // While the lease lasts the client may rightly believe in its lock.
    eventually("the lease runs out", async || {
        let holders = cell.stat("/lock").await.ok()?.lock.holder_count;
        let left = left().await?;
        if left.is_some_and(|left| left > 0) {
            assert_eq!(holders, 1, "the lease lasted then and lasts now");
        }
        left.is_none().then_some(())
    })
    .await;
    within("the kill is answered", kill).await.unwrap().unwrap();
    client.tell("held /lock").await;
    client.resume();
    assert_eq!(client.answer("held /lock").await.unwrap(), "false");
    client.state("ended").await;
}
