//! How long calls and openings wait, and what a program can wait for before it ends.

use crate::fake::{Replica, handle, session, within};
use futures::FutureExt as _;
use holdfast::{Cell, Ended, Error, LOCK_DELAY_DEFAULT, Mode, OpenOptions};
use holdfast_proto::client::v1::{self as wire, client_frame, outcome, request::Operation, server_frame};
use std::time::Duration;

const SHORT: Duration = Duration::from_millis(100);
const LONG: Duration = Duration::from_secs(45);

#[tokio::test]
async fn a_call_ends_when_its_time_out_is_over_and_says_whether_it_may_have_taken_effect() {
    let mut replica = Replica::start().await;
    let (_session, handle, mut stream) = handle(&mut replica).await;
    let patient = async {
        let read = within(handle.with_timeout(SHORT).stat()).await.unwrap_err();
        assert!(matches!(read, Error::TimedOut { waited: SHORT, maybe_applied: false, .. }), "{read:?}");
        assert!(read.is_retryable() && !read.is_outcome_unknown(), "{read}");
        let write = within(handle.with_timeout(SHORT).set_contents("x")).await.unwrap_err();
        assert!(matches!(write, Error::TimedOut { maybe_applied: true, .. }), "{write:?}");
        assert!(!write.is_retryable() && write.is_outcome_unknown(), "{write}");
        let lock = within(handle.with_timeout(SHORT).acquire(Mode::Exclusive)).await.unwrap_err();
        assert!(matches!(lock, Error::TimedOut { maybe_applied: false, .. }), "{lock:?}");
    };
    let silent = async {
        let mut operations = Vec::new();
        while operations.len() < 4 {
            operations.extend(stream.frame().await.requests.into_iter().filter_map(|it| it.operation));
        }
        operations
    };
    let ((), operations) = tokio::join!(patient, silent);
    // What was asked for is withdrawn, where that leaves something behind.
    assert!(matches!(operations[3], Operation::Cancel(_)), "{operations:?}");
    // Other calls on the same handle have no limit.
    assert!(handle.stat().now_or_never().is_none());
}

#[tokio::test]
async fn the_time_out_of_a_session_is_that_of_its_handles_and_of_no_wait_in_a_queue() {
    let mut replica = Replica::start().await;
    let cell = Cell::connect([&replica.address]).unwrap();
    let open = tokio::spawn(cell.session().timeout(SHORT).open());
    let mut stream = replica.accept().await;
    stream.open(10_000).await;
    let session = within(open).await.unwrap().unwrap();
    let (handle, _) = tokio::join!(session.open("/leader", OpenOptions::new()), stream.serve_open());
    let handle = handle.unwrap();
    let mut acquiring = Box::pin(handle.acquire(Mode::Exclusive));
    assert!(futures::poll!(&mut acquiring).is_pending());
    let (number, _) = stream.request().await;
    stream.reply(number, outcome::Result::Queued(wire::Queued { ahead: 1 })).await;
    // Calls that begin later have their time, and the lock is waited for still.
    let waited = within(session.open("/other", OpenOptions::new().create())).await.unwrap_err();
    assert!(matches!(waited, Error::TimedOut { waited: SHORT, maybe_applied: true, .. }), "{waited:?}");
    let waited = within(handle.stat()).await.unwrap_err();
    assert!(matches!(waited, Error::TimedOut { maybe_applied: false, .. }), "{waited:?}");
    assert!(futures::poll!(&mut acquiring).is_pending());
    let outcome::Result::Granted(granted) = crate::fake::granted(50) else { unreachable!("it is a grant") };
    let grant = wire::LockGrant { handle: 1, number, granted: Some(granted) };
    let event = wire::Event { event: Some(wire::event::Event::LockGranted(grant)) };
    stream.send(wire::ServerFrame { events: vec![event], ..wire::ServerFrame::default() }).await;
    assert_eq!(within(acquiring).await.unwrap().generation(), 50);
}

#[tokio::test]
async fn an_opening_ends_when_its_time_out_is_over_and_can_be_tried_again() {
    let replica = Replica::start().await;
    let cell = Cell::connect([&replica.address]).unwrap();
    let error = within(cell.session().timeout(SHORT).open()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(error.is_retryable());
}

/// Opens a session with a lease that is over before its client can hear of it, and then knows nothing of it.
async fn open_too_late(replica: &mut Replica) -> wire::OpenSession {
    let mut stream = replica.accept().await;
    let Some(client_frame::Hello::Open(open)) = stream.frame().await.hello else {
        panic!("it opens no session")
    };
    // No lease at all, as of an opening that is repeated; and the KeepAlive comes too late.
    let opened = wire::SessionOpened { session: 8, ..wire::SessionOpened::default() };
    stream.hello(server_frame::Hello::Opened(opened)).await;
    stream.lease_ms = None;
    stream.keep_alive().await;
    let ended = wire::SessionEnded { reason: wire::EndReason::Expired.into() };
    stream.send(wire::ServerFrame { ended: Some(ended), ..wire::ServerFrame::default() }).await;
    open
}

#[tokio::test]
async fn a_session_that_expires_while_it_is_opened_is_opened_anew() {
    let mut replica = Replica::start().await;
    let cell = Cell::connect([&replica.address]).unwrap();
    let open = tokio::spawn(cell.session().open());
    let first = open_too_late(&mut replica).await;
    let mut stream = replica.accept().await;
    let Some(client_frame::Hello::Open(second)) = stream.frame().await.hello else {
        panic!("it opens no session")
    };
    assert_ne!(first.secret, second.secret, "it is another session");
    let opened = wire::SessionOpened { session: 9, lease_ms: 10_000, ..wire::SessionOpened::default() };
    stream.hello(server_frame::Hello::Opened(opened)).await;
    assert_eq!(within(open).await.unwrap().unwrap().id(), 9);
}

#[tokio::test]
async fn an_opening_that_is_too_late_again_and_again_can_be_tried_again() {
    let mut replica = Replica::start().await;
    let cell = Cell::connect([&replica.address]).unwrap();
    let open = tokio::spawn(cell.session().timeout(SHORT).open());
    let too_late = async {
        loop {
            open_too_late(&mut replica).await;
        }
    };
    let error = tokio::select! {
        opened = open => opened.unwrap().unwrap_err(),
        () = too_late => unreachable!("it has no end"),
    };
    assert!(matches!(error, Error::Unavailable { .. }) && error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn a_session_is_kept_although_it_is_idle_unless_it_is_opened_otherwise() {
    let mut replica = Replica::start().await;
    let cell = Cell::connect([&replica.address]).unwrap();
    for (builder, keeps) in [(cell.session(), true), (cell.session().end_when_idle(), false)] {
        let _open = tokio::spawn(builder.open());
        let Some(client_frame::Hello::Open(open)) = replica.accept().await.frame().await.hello else {
            panic!("it opens no session")
        };
        assert_eq!(open.keep_when_idle, keeps);
    }
}

#[tokio::test]
async fn a_handle_that_may_take_its_lock_has_the_lock_delay_of_the_command() {
    let mut replica = Replica::start().await;
    let (session, mut stream) = session(&mut replica, 10_000, LONG).await;
    let cases = [
        (OpenOptions::new(), LOCK_DELAY_DEFAULT),
        (OpenOptions::new().lock_delay(Duration::ZERO), Duration::ZERO),
        // Who may not take the lock can share what is open with others.
        (OpenOptions::new().read_only(), Duration::ZERO),
    ];
    for (number, (options, expected)) in cases.into_iter().enumerate() {
        let path = format!("/{number}");
        let (opened, operation) =
            tokio::join!(session.open(&path, options), stream.answer(crate::fake::opened()));
        opened.unwrap();
        let Operation::Open(open) = operation else { panic!("{operation:?}") };
        assert_eq!(u128::from(open.lock_delay_ms), expected.as_millis(), "{path}");
    }
}

#[tokio::test]
async fn flushing_waits_until_the_cell_has_what_was_given_back() {
    let mut replica = Replica::start().await;
    let (session, handle, mut stream) = handle(&mut replica).await;
    within(session.flush()).await.unwrap();
    let (lock, _) = tokio::join!(handle.acquire(Mode::Exclusive), stream.serve_acquire());
    drop(lock.unwrap());
    let mut flushing = Box::pin(session.flush());
    assert!(futures::poll!(&mut flushing).is_pending());
    let (number, operation) = stream.request().await;
    assert!(matches!(operation, Operation::Cancel(_)), "{operation:?}");
    assert!(futures::poll!(&mut flushing).is_pending());
    stream.reply(number, outcome::Result::Cancelled(wire::Cancelled {})).await;
    within(flushing).await.unwrap();
}

#[tokio::test]
async fn flushing_a_session_that_ends_says_that_it_is_over() {
    let mut replica = Replica::start().await;
    let (session, handle, mut stream) = handle(&mut replica).await;
    let (lock, _) = tokio::join!(handle.acquire(Mode::Exclusive), stream.serve_acquire());
    drop(lock.unwrap());
    let mut flushing = Box::pin(session.flush());
    assert!(futures::poll!(&mut flushing).is_pending());
    let ended = wire::SessionEnded { reason: wire::EndReason::Killed.into() };
    stream.send(wire::ServerFrame { ended: Some(ended), ..wire::ServerFrame::default() }).await;
    for error in [within(flushing).await.unwrap_err(), within(session.flush()).await.unwrap_err()] {
        assert!(matches!(error, Error::SessionEnded { ended: Ended::Killed, .. }), "{error:?}");
    }
}
