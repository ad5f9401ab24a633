//! How a lock fares, and what is done under it, when the cell falls silent.

use crate::fake::{Replica, Stream, session, within};
use futures::FutureExt as _;
use holdfast::{
    Ended, Error, Handle, Interrupted, Lock, LockState, Lost, Mode, OpenOptions, Session, SessionState,
};
use holdfast_proto::client::v1 as wire;
use std::time::Duration;
use tokio::sync::oneshot;

/// Longer than any test waits for anything.
const LONG: Duration = Duration::from_secs(45);
const SHORT: Duration = Duration::from_millis(400);
const LEASE_MS: u32 = 300;

/// A lock that is held, with a short lease.
async fn held(replica: &mut Replica, grace: Duration) -> (Session, Handle, Lock, Stream) {
    let (session, mut stream) = session(replica, LEASE_MS, grace).await;
    let (handle, _) = tokio::join!(session.open("/leader", OpenOptions::new()), stream.serve_open());
    let handle = handle.unwrap();
    let (lock, _) = tokio::join!(handle.acquire(Mode::Exclusive), stream.serve_acquire());
    (session, handle, lock.unwrap(), stream)
}

/// Takes the client in again, and answers its KeepAlives until the test is done with it.
async fn serve_again(replica: &mut Replica, stream: Stream) -> ! {
    drop(stream);
    let mut stream = replica.accept().await;
    stream.attach(LEASE_MS).await;
    stream.frame().await;
    panic!("the client asks for something that the test does not know of")
}

/// Holds up the whole thread, as a loop that computes does, until the lease has run out.
fn block(lock: &Lock) {
    while lock.is_held() {
        std::hint::spin_loop();
    }
}

#[tokio::test]
async fn a_lock_is_suspended_when_its_lease_runs_out_here_and_lost_after_the_grace_period() {
    let mut replica = Replica::start().await;
    let (session, handle, lock, _stream) = held(&mut replica, SHORT).await;
    let mut watch = lock.watch();
    assert_eq!((watch.state(), lock.state()), (LockState::Held, LockState::Held));
    assert!(lock.lost().now_or_never().is_none());
    // From here on nobody answers.
    assert_eq!(within(watch.changed()).await, LockState::Suspended);
    assert!(!lock.is_held());
    assert_eq!((lock.state(), session.state()), (LockState::Suspended, SessionState::Jeopardy));
    let lost = within(lock.lost()).await;
    assert!(matches!(lost, Lost::Session(Ended::GraceOver { .. })), "{lost:?}");
    // Whoever waits for more is told the same, now and for ever.
    for _ in 0..2 {
        assert_eq!(within(watch.changed()).await, LockState::Lost(lost.clone()));
    }
    assert!(!lock.is_held());
    // And everything else fails in the same way from now on.
    for _ in 0..2 {
        let error = within(handle.stat()).await.unwrap_err();
        assert!(matches!(&error, Error::SessionEnded { ended: Ended::GraceOver { .. }, .. }), "{error}");
        assert!(!error.is_retryable() && !error.is_outcome_unknown());
    }
}

#[tokio::test]
async fn a_lock_is_told_to_be_suspended_before_the_task_of_its_session_knows() {
    let mut replica = Replica::start().await;
    let (session, _handle, lock, _stream) = held(&mut replica, LONG).await;
    let mut watch = lock.watch();
    block(&lock);
    // The session's task has not run since.
    assert_eq!(*session.watch_state().borrow(), SessionState::Safe);
    assert_eq!((lock.state(), session.state()), (LockState::Suspended, SessionState::Jeopardy));
    assert_eq!(watch.changed().now_or_never(), Some(LockState::Suspended));
}

#[tokio::test]
async fn work_is_dropped_as_soon_as_its_lock_is_suspended() {
    let mut replica = Replica::start().await;
    let (_session, _handle, lock, _stream) = held(&mut replica, LONG).await;
    let (dropped, is_dropped) = oneshot::channel::<()>();
    let work = async {
        let _dropped = dropped;
        std::future::pending::<()>().await;
    };
    assert_eq!(within(lock.run(work)).await, Err(Interrupted::Suspended));
    assert!(is_dropped.await.is_err(), "the work was dropped");
    // Nothing is begun, either.
    let begun = std::cell::Cell::new(false);
    assert_eq!(within(lock.run(async { begun.set(true) })).await, Err(Interrupted::Suspended));
    assert!(!begun.get());
}

#[tokio::test]
async fn a_lock_that_was_suspended_is_held_again_if_its_session_was_alive() {
    let mut replica = Replica::start().await;
    let (_session, _handle, lock, stream) = held(&mut replica, LONG).await;
    let mut watch = lock.watch();
    let states = async {
        assert_eq!(within(watch.changed()).await, LockState::Suspended);
        assert_eq!(within(watch.changed()).await, LockState::Held);
        assert_eq!(within(lock.run(async { "done" })).await, Ok("done"));
    };
    let suspended = lock.run(std::future::pending::<()>());
    assert_eq!(within(suspended).await, Err(Interrupted::Suspended));
    tokio::select! {
        () = states => {}
        never = serve_again(&mut replica, stream) => never,
    }
}

#[tokio::test]
async fn work_that_is_to_go_through_suspension_stands_still_and_goes_on_afterwards() {
    let mut replica = Replica::start().await;
    let (session, _handle, lock, stream) = held(&mut replica, LONG).await;
    let (finish, finished) = oneshot::channel();
    let mut states = session.watch_state();
    let master = async {
        within(states.wait_for(|state| *state == SessionState::Jeopardy)).await.unwrap();
        // The work could go on now, but for the jeopardy.
        finish.send("done").unwrap();
        serve_again(&mut replica, stream).await
    };
    let work = lock.run_through_suspension(async {
        let word = finished.await.unwrap();
        assert!(lock.is_held(), "polled in jeopardy");
        word
    });
    tokio::select! {
        done = within(work) => assert_eq!(done.unwrap(), "done"),
        never = master => never,
    }
}

#[tokio::test]
async fn work_that_is_to_go_through_suspension_is_dropped_when_the_lock_is_lost() {
    let mut replica = Replica::start().await;
    let (_session, _handle, lock, _stream) = held(&mut replica, SHORT).await;
    let (dropped, is_dropped) = oneshot::channel::<()>();
    let ran = within(lock.run_through_suspension(async {
        let _dropped = dropped;
        std::future::pending::<()>().await;
    }));
    let ran = ran.await;
    assert!(matches!(ran, Err(Lost::Session(Ended::GraceOver { .. }))), "{ran:?}");
    assert!(is_dropped.await.is_err(), "the work was dropped");
}

#[tokio::test]
async fn work_that_blocks_past_its_lease_is_not_done_if_the_lock_was_lost_meanwhile() {
    let mut replica = Replica::start().await;
    let (_session, _handle, lock, _stream) = held(&mut replica, SHORT).await;
    let ran = within(lock.run(async { block(&lock) })).await;
    assert!(matches!(ran, Err(Interrupted::Lost(Lost::Session(Ended::GraceOver { .. })))), "{ran:?}");
    let ran = within(lock.run_through_suspension(async { block(&lock) })).await;
    assert!(matches!(ran, Err(Lost::Session(Ended::GraceOver { .. }))), "{ran:?}");
}

#[tokio::test]
async fn work_that_blocks_past_its_lease_is_done_once_the_lock_proves_to_have_been_held() {
    let mut replica = Replica::start().await;
    let (_session, _handle, lock, stream) = held(&mut replica, LONG).await;
    let work = lock.run(async {
        block(&lock);
        "done"
    });
    tokio::select! {
        ran = within(work) => assert_eq!(ran, Ok("done")),
        never = serve_again(&mut replica, stream) => never,
    }
    assert!(lock.is_held());
}

#[tokio::test]
async fn who_watches_a_lock_learns_that_it_was_given_back_before_the_cell_does() {
    let mut replica = Replica::start().await;
    let (_session, handle, lock, mut stream) = held(&mut replica, LONG).await;
    let mut watch = lock.watch();
    let mut release = Box::pin(lock.release());
    assert!(futures::poll!(&mut release).is_pending());
    assert_eq!(within(watch.changed()).await, LockState::Lost(Lost::Released));
    let released = wire::outcome::Result::Released(wire::Released::default());
    let (done, _) = tokio::join!(within(release), stream.answer(released));
    done.unwrap();
    assert_eq!(watch.state(), LockState::Lost(Lost::Released));

    // A later lock of the handle is another one.
    let (lock, _) = tokio::join!(handle.acquire(Mode::Exclusive), stream.serve_acquire());
    let lock = lock.unwrap();
    assert_eq!((watch.state(), lock.state()), (LockState::Lost(Lost::Released), LockState::Held));
    let mut watch = lock.watch();
    drop(lock);
    assert_eq!(watch.changed().now_or_never(), Some(LockState::Lost(Lost::Released)));
}

#[tokio::test]
async fn closing_its_handle_loses_a_lock() {
    let mut replica = Replica::start().await;
    let (_session, handle, lock, _stream) = held(&mut replica, LONG).await;
    let mut watch = lock.watch();
    let mut closing = Box::pin(handle.close());
    assert!(futures::poll!(&mut closing).is_pending());
    assert_eq!(within(watch.changed()).await, LockState::Lost(Lost::HandleClosed));
    assert_eq!(within(lock.lost()).await, Lost::HandleClosed);
}

#[tokio::test]
async fn a_handle_that_has_its_lock_already_says_what_can_be_done_about_it() {
    let mut replica = Replica::start().await;
    let (_session, handle, _lock, mut stream) = held(&mut replica, LONG).await;
    let refusal = wire::Refusal {
        code: wire::RefusalCode::AlreadyLocked.into(),
        message: "handle h1 holds the lock already, by request 2; release it first".to_owned(),
        ..Default::default()
    };
    let (again, _) = tokio::join!(
        within(handle.acquire(Mode::Exclusive)),
        stream.answer(wire::outcome::Result::Refusal(refusal))
    );
    let error = again.unwrap_err();
    assert_eq!(error.refusal(), Some(wire::RefusalCode::AlreadyLocked));
    let text = error.to_string();
    assert!(text.contains("/ls/dev/leader") && text.contains("`Lock::release`"), "{text}");
}
