//! What is answered without a message: cached reads and opens, and locks that are kept.

use crate::fake::{Replica, Stream, contents, handle_with, opened, session, stat, told, within};
use futures::FutureExt as _;
use holdfast::{Handle, Mode, NodeKind, OpenOptions, SessionState};
use holdfast_proto::client::v1 as wire;
use holdfast_proto::client::v1::{outcome, request::Operation};
use std::time::Duration;

/// An open handle whose file is cached.
async fn cached(replica: &mut Replica) -> (holdfast::Session, Handle, Stream) {
    let (session, handle, mut stream) = handle_with(replica, OpenOptions::new()).await;
    stream.cacheable = true;
    let (read, operation) = tokio::join!(handle.contents(), stream.answer(contents("first")));
    assert!(matches!(operation, Operation::GetContents(_)), "{operation:?}");
    assert_eq!(read.unwrap().bytes, "first");
    (session, handle, stream)
}

/// Whatever was called for before has cost no message: this is the next request that the cell sees.
async fn nothing_was_sent(handle: &Handle, stream: &mut Stream) {
    let (asked, operation) =
        tokio::join!(within(handle.lock_stat()), stream.answer(outcome::Result::Stat(Box::new(stat()))));
    asked.unwrap();
    assert!(matches!(operation, Operation::GetStat(_)), "{operation:?}");
}

fn void(number: u64, path: &str) -> wire::Notice {
    let invalidations = vec![wire::Invalidation { path: path.to_owned(), opens: false }];
    wire::Notice { number, invalidations, ..wire::Notice::default() }
}

#[tokio::test]
async fn a_cached_read_costs_no_message_and_does_not_wait() {
    let mut replica = Replica::start().await;
    let (session, handle, mut stream) = cached(&mut replica).await;
    let before = session.cache_stats();
    for _ in 0..3 {
        // Polled once, and done: it has met no await point.
        let read = handle.contents().now_or_never().expect("it is cached").unwrap();
        assert_eq!((&read.bytes[..], read.stat.content_generation), (&b"first"[..], 6));
        assert_eq!(
            (&*read.stat.acl.read, &*read.stat.acl.write, &*read.stat.acl.change),
            ("*", "team", "admin")
        );
    }
    let stat = handle.stat().now_or_never().expect("it came with the contents").unwrap();
    assert_eq!(stat.instance, 5);
    let after = session.cache_stats();
    assert_eq!((after.hits - before.hits, after.misses - before.misses), (4, 0));
    nothing_was_sent(&handle, &mut stream).await;
}

#[tokio::test]
async fn what_the_cell_declares_void_is_not_read_again() {
    let mut replica = Replica::start().await;
    let (session, handle, mut stream) = cached(&mut replica).await;
    stream.notice(void(1, "/other")).await;
    assert!(handle.cached_contents().is_some());
    // When it is acknowledged, it is gone.
    stream.notice(void(2, "/leader")).await;
    assert_eq!(handle.cached_contents(), None);
    assert_eq!(session.cache_stats().invalidations, 2);
    let (read, _) = tokio::join!(handle.contents(), stream.answer(contents("second")));
    assert_eq!(read.unwrap().bytes, "second");
    assert_eq!(handle.cached_contents().unwrap().bytes, "second");
}

#[tokio::test]
async fn in_jeopardy_nothing_is_read_from_the_cache() {
    let mut replica = Replica::start().await;
    let (session, mut stream) = session(&mut replica, 300, Duration::from_secs(45)).await;
    let (handle, _) = tokio::join!(session.open("/leader", OpenOptions::new()), stream.serve_open());
    let handle = handle.unwrap();
    stream.cacheable = true;
    let (read, _) = tokio::join!(handle.contents(), stream.answer(contents("first")));
    read.unwrap();
    assert!(handle.cached_contents().is_some());
    // From here on nobody answers.
    within(session.watch_state().wait_for(|state| *state == SessionState::Jeopardy)).await.unwrap();
    assert_eq!(handle.cached_contents(), None);
    assert!(handle.contents().now_or_never().is_none(), "a call waits in jeopardy");
}

#[tokio::test]
async fn a_handle_that_does_not_cache_asks_every_time() {
    let mut replica = Replica::start().await;
    let (_session, handle, mut stream) = handle_with(&mut replica, OpenOptions::new().caching(false)).await;
    stream.cacheable = true;
    for _ in 0..2 {
        let (read, _) = tokio::join!(handle.contents(), stream.answer(contents("first")));
        read.unwrap();
        assert_eq!(handle.cached_contents(), None);
    }
}

#[tokio::test]
async fn a_handle_with_a_sequencer_asks_every_time() {
    let mut replica = Replica::start().await;
    let (_session, handle, mut stream) = cached(&mut replica).await;
    let set = outcome::Result::SequencerSet(wire::SequencerSet {});
    let sequencer = "holdfast:1:exclusive:42:17:/ls/dev/other";
    let (done, operation) = tokio::join!(handle.set_sequencer(sequencer), stream.answer(set));
    done.unwrap();
    assert!(matches!(operation, Operation::SetSequencer(set) if set.sequencer == sequencer));
    assert_eq!(handle.cached_contents(), None);
    let refusal = wire::Refusal {
        code: wire::RefusalCode::SequencerInvalid.into(),
        message: "over".to_owned(),
        ..Default::default()
    };
    let (read, _) = tokio::join!(handle.contents(), stream.answer(outcome::Result::Refusal(refusal)));
    assert_eq!(read.unwrap_err().refusal(), Some(wire::RefusalCode::SequencerInvalid));
}

#[tokio::test]
async fn opening_for_reading_what_is_open_costs_no_message_and_closing_one_leaves_the_other_open() {
    let mut replica = Replica::start().await;
    let (session, first, mut stream) = handle_with(&mut replica, OpenOptions::new().read_only()).await;
    stream.cacheable = true;
    let second = within(session.open("/leader", OpenOptions::new().read_only())).await.unwrap();
    assert!(!second.created());
    // What the first one heard may be old by now.
    assert_eq!(first.stat_at_open().unwrap().content_generation, 6);
    assert_eq!((second.stat_at_open(), second.kind(), second.instance()), (None, NodeKind::File, 5));
    within(first.close()).await;
    let (read, _) = tokio::join!(second.contents(), stream.answer(contents("first")));
    assert_eq!(read.unwrap().bytes, "first");
    nothing_was_sent(&second, &mut stream).await;
    let third = within(session.open("/leader", OpenOptions::new().read_only())).await.unwrap();
    assert_eq!(third.stat_at_open().unwrap().content_generation, 6, "it is cached");
}

#[tokio::test]
async fn a_kept_lock_is_taken_again_without_a_message_until_somebody_else_asks_for_it() {
    let mut replica = Replica::start().await;
    let (session, mut stream) = session(&mut replica, 10_000, Duration::from_secs(45)).await;
    let options = OpenOptions::new().keep_lock(true);
    let (opening, operation) = tokio::join!(session.open("/leader", options), stream.answer(opened()));
    let handle = opening.unwrap();
    let Operation::Open(open) = operation else { panic!("{operation:?}") };
    assert_eq!(open.events, [i32::from(wire::EventKind::ConflictingRequest)]);

    let (lock, acquired) = tokio::join!(handle.acquire(Mode::Exclusive), stream.serve_acquire());
    within(lock.unwrap().release()).await.unwrap();
    for _ in 0..2 {
        let again = within(handle.acquire(Mode::Exclusive)).await.unwrap();
        assert!(again.is_held());
        assert_eq!(again.generation(), 42);
        // In the background, this time.
        drop(again);
    }
    nothing_was_sent(&handle, &mut stream).await;

    // It is not in use, so it goes at once; and the application asked for no events.
    assert!(handle.events().is_err());
    let wanted = wire::ServerFrame {
        notices: vec![told(1, acquired - 1, &[wire::EventKind::ConflictingRequest])],
        ..wire::ServerFrame::default()
    };
    stream.send(wanted).await;
    let (_, operation) = stream.request().await;
    assert!(matches!(operation, Operation::Cancel(cancel) if cancel.number == acquired), "{operation:?}");
}
