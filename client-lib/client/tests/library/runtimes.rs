//! Programs with more than one runtime, or none: tests, blocking wrappers, processes that end.

use crate::fake::{Replica, handle, session, within};
use futures::FutureExt as _;
use futures::executor::block_on;
use holdfast::{
    Cell, Ended, Error, Interrupted, LockState, Lost, Mode, OpenOptions, SessionEvent, SessionState,
    WriteOptions,
};
use holdfast_proto::client::v1::{SetContentsResponse, Written};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

/// A runtime that goes on, for the replica.
fn multi_thread() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn written() -> SetContentsResponse {
    SetContentsResponse { written: Some(Written::default()), revision: 1 }
}

#[test]
fn a_cell_that_several_runtimes_use_one_after_the_other_and_together_serves_each() {
    let world = multi_thread();
    let mut replica = world.block_on(Replica::start());
    // As a `static` is, in a program whose tests each have a runtime.
    let cell = Cell::connect([&replica.address]).unwrap();
    let write = async |cell: &Cell| within(cell.set_contents("/x", "y", WriteOptions::new())).await.unwrap();
    // The one that stays made its connection first, and does not run in between.
    let stays = current_thread();
    for _ in 0..3 {
        world.block_on(replica.answer_write(Ok(written())));
        stays.block_on(write(&cell));
        world.block_on(replica.answer_write(Ok(written())));
        current_thread().block_on(write(&cell));
        // Sessions too.
        let open = cell.session();
        current_thread().block_on(async {
            let (session, _stream) = tokio::join!(within(open.open()), async {
                let mut stream = replica.accept().await;
                stream.open(10_000).await;
                stream
            });
            assert_eq!(session.unwrap().id(), 9);
        });
    }
}

#[test]
fn a_session_whose_runtime_has_ended_is_over_and_everybody_is_told_the_same() {
    let world = multi_thread();
    let runtime = current_thread();
    let mut replica = world.block_on(Replica::start());
    let (session, handle, lock, mut events, mut watch) = runtime.block_on(async {
        let (session, handle, mut stream) = handle(&mut replica).await;
        let (lock, _) = tokio::join!(handle.acquire(Mode::Exclusive), stream.serve_acquire());
        let lock = lock.unwrap();
        let contents = crate::fake::contents("old");
        stream.cacheable = true;
        let (read, _) = tokio::join!(handle.contents(), stream.answer(contents));
        assert_eq!(read.unwrap().bytes, "old");
        assert!(handle.cached_contents().is_some());
        let (events, watch) = (session.events(), lock.watch());
        // What is under way when the runtime ends.
        let writes = session.clone();
        tokio::spawn(async move { writes.open("/b", OpenOptions::new().create()).await.map(drop) });
        stream.request().await;
        (session, handle, lock, events, watch)
    });
    assert!(lock.is_held());
    let mut write = Box::pin(handle.set_contents("x"));
    assert!(world.block_on(async { futures::poll!(&mut write) }).is_pending());
    drop(runtime);

    let gone = Ended::RuntimeGone;
    let failed = |error: Error| matches!(error, Error::SessionEnded { ended: Ended::RuntimeGone, .. });
    world.block_on(async {
        assert_eq!(session.state(), SessionState::Ended(gone.clone()));
        assert_eq!(*session.watch_state().borrow(), SessionState::Ended(gone.clone()));
        assert_eq!(within(session.expired()).await, gone);
        assert_eq!(within(session.close()).await, gone);
        assert_eq!(within(events.next()).await, Some(SessionEvent::Ended(gone.clone())));
        assert!(session.valid_until() <= Instant::now());
        assert!(!lock.is_held() && lock.valid_until() <= Instant::now());
        let lost = Lost::Session(gone);
        assert_eq!(lock.state(), LockState::Lost(lost.clone()));
        assert_eq!(within(watch.changed()).await, LockState::Lost(lost.clone()));
        assert_eq!(within(lock.lost()).await, lost.clone());
        assert_eq!(within(lock.run(async {})).await, Err(Interrupted::Lost(lost)));
        assert!(handle.cached_contents().is_none());
        // The call that was made before, which nobody had taken up, and one that is made now.
        let error = within(write).await.unwrap_err();
        assert!(!error.is_outcome_unknown() && failed(error));
        assert!(failed(within(handle.stat()).await.unwrap_err()));
        assert!(failed(within(session.open("/a", OpenOptions::new())).await.unwrap_err()));
        assert!(failed(within(lock.release()).await.unwrap_err()));
    });
}

#[test]
fn a_call_under_way_when_its_runtime_ends_says_whether_it_may_have_taken_effect() {
    let world = multi_thread();
    let runtime = current_thread();
    let mut replica = world.block_on(Replica::start());
    let (session, handle, mut stream) = runtime.block_on(handle(&mut replica));
    let mut write = Box::pin(handle.set_contents("x"));
    let mut read = Box::pin(session.open("/b", OpenOptions::new().create().caching(false)));
    runtime.block_on(async {
        assert!(futures::poll!(&mut write).is_pending());
        stream.request().await;
    });
    // Made, and never sent.
    assert!(world.block_on(async { futures::poll!(&mut read) }).is_pending());
    drop(runtime);
    let sent = write.now_or_never().expect("it has failed").unwrap_err();
    assert!(sent.is_outcome_unknown(), "{sent}");
    let unsent = read.now_or_never().expect("it has failed").unwrap_err();
    assert!(!unsent.is_outcome_unknown(), "{unsent}");
}

#[test]
fn what_needs_a_runtime_says_so_where_there_is_none() {
    let cell = Cell::connect(["127.0.0.1:1"]).unwrap();
    let now = |result: Option<Result<(), Error>>| result.expect("it fails at once").unwrap_err();
    let error = now(cell.session().open().now_or_never().map(|opened| opened.map(drop)));
    assert!(matches!(error, Error::NoRuntime), "{error}");
    assert!(error.to_string().contains("tokio runtime"), "{error}");
    let error = now(cell.contents("/x").now_or_never().map(|read| read.map(drop)));
    assert!(matches!(error, Error::NoRuntime), "{error}");
    let error = now(cell.status().now_or_never().map(|status| status.map(drop)));
    assert!(matches!(error, Error::NoRuntime), "{error}");
}

#[test]
fn a_lock_is_watched_outside_a_runtime_too_and_until_the_runtime_of_its_session_has_ended() {
    let world = multi_thread();
    let (lock, mut watch, stream) = world.block_on(async {
        let mut replica = Replica::start().await;
        let (session, mut stream) = session(&mut replica, 300, Duration::from_secs(45)).await;
        let (handle, _) = tokio::join!(session.open("/leader", OpenOptions::new()), stream.serve_open());
        let handle = handle.unwrap();
        let (lock, _) = tokio::join!(handle.acquire(Mode::Exclusive), stream.serve_acquire());
        let lock = lock.unwrap();
        let watch = lock.watch();
        (lock, watch, stream)
    });
    // Nobody answers KeepAlives from here on.
    assert_eq!(block_on(watch.changed()), LockState::Suspended);
    assert_eq!(block_on(lock.run(async {})), Err(Interrupted::Suspended));
    let ending = std::thread::spawn(move || {
        let lost = block_on(lock.lost());
        (lost, lock)
    });
    drop((stream, world));
    let (lost, _lock) = ending.join().unwrap();
    assert_eq!(lost, Lost::Session(Ended::RuntimeGone));
}
