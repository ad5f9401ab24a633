//! Events: of handles and of sessions, to readers that are quick, slow, many, or late.

use crate::fake::{Replica, Stream, handle_with, session, told, within};
use futures::FutureExt as _;
use holdfast::{Ended, Error, EventKind, EventSet, Handle, OpenOptions, Session, SessionEvent};
use holdfast_proto::client::v1 as wire;
use std::time::Duration;
use wire::EventKind::{AclChanged, ChildAdded, ContentsModified, HandleInvalid};

/// The first request of a session opens its first handle, under its own number.
const HANDLE: u64 = 1;

/// A handle that wants to hear of its contents and children.
async fn watched(replica: &mut Replica) -> (Session, Handle, Stream) {
    let wanted = [EventKind::ContentsModified, EventKind::ChildAdded];
    handle_with(replica, OpenOptions::new().read_only().events(wanted)).await
}

#[tokio::test]
async fn events_are_told_as_they_come_and_those_not_asked_for_are_not() {
    let mut replica = Replica::start().await;
    let (_session, handle, mut stream) = watched(&mut replica).await;
    let mut events = handle.events().unwrap();
    assert!(events.next().now_or_never().is_none());
    let next = tokio::spawn(async move {
        let event = events.next().await;
        (event, events)
    });
    stream.notice(told(1, HANDLE, &[AclChanged])).await;
    stream.notice(told(2, HANDLE, &[ContentsModified, AclChanged])).await;
    let (event, mut events) = within(next).await.unwrap();
    let event = event.unwrap().unwrap();
    assert_eq!(event.kinds, EventKind::ContentsModified.into());
    assert_eq!(event.content_generation, 102);
    assert!(events.next().now_or_never().is_none());
    // But that the node is gone is told to all who listen: nothing else will ever come.
    stream.notice(told(3, HANDLE, &[HandleInvalid])).await;
    assert_eq!(within(events.next()).await.unwrap().unwrap().kinds, EventKind::HandleInvalid.into());
}

#[tokio::test]
async fn what_a_slow_reader_has_not_read_becomes_one_event_for_each_of_its_streams() {
    let mut replica = Replica::start().await;
    let (_session, handle, mut stream) = watched(&mut replica).await;
    let (mut quick, mut slow) = (handle.events().unwrap(), handle.events().unwrap());
    stream.notice(told(1, HANDLE, &[ContentsModified])).await;
    assert_eq!(within(quick.next()).await.unwrap().unwrap().content_generation, 101);
    for number in 2..50 {
        stream.notice(told(number, HANDLE, &[ChildAdded])).await;
    }
    let event = within(slow.next()).await.unwrap().unwrap();
    assert_eq!(event.kinds, EventSet::from([EventKind::ContentsModified, EventKind::ChildAdded]));
    assert_eq!(event.children_generation, 149);
    assert!(slow.next().now_or_never().is_none());
    assert_eq!(within(quick.next()).await.unwrap().unwrap().kinds, EventKind::ChildAdded.into());
}

#[tokio::test]
async fn what_happens_while_nobody_listens_is_told_to_the_next_stream() {
    let mut replica = Replica::start().await;
    let (_session, handle, mut stream) = watched(&mut replica).await;
    stream.notice(told(1, HANDLE, &[ContentsModified])).await;
    let unread = handle.events().unwrap();
    stream.notice(told(2, HANDLE, &[ChildAdded])).await;
    drop(unread);
    let mut events = handle.events().unwrap();
    let event = within(events.next()).await.unwrap().unwrap();
    assert_eq!(event.kinds, EventSet::from([EventKind::ContentsModified, EventKind::ChildAdded]));
    assert!(handle.events().unwrap().next().now_or_never().is_none(), "it is told once");
}

#[tokio::test]
async fn a_stream_that_takes_the_place_of_another_tells_what_that_one_has_not() {
    let mut replica = Replica::start().await;
    let (_session, handle, mut stream) = watched(&mut replica).await;
    let mut events = handle.events().unwrap();
    stream.notice(told(1, HANDLE, &[ContentsModified])).await;
    assert!(handle.events().unwrap().next().now_or_never().is_none(), "a second one begins with what is new");
    // The new one is made before the old one is dropped.
    drop(std::mem::replace(&mut events, handle.events().unwrap()));
    let event = within(events.next()).await.unwrap().unwrap();
    assert_eq!(event.kinds, EventKind::ContentsModified.into());
}

#[tokio::test]
async fn both_kinds_of_streams_end_with_the_session_and_say_why() {
    let mut replica = Replica::start().await;
    let (session, handle, mut stream) = watched(&mut replica).await;
    let (mut of_handle, mut of_session) = (handle.events().unwrap(), session.events());
    stream.notice(told(1, HANDLE, &[ContentsModified])).await;
    let ending = wire::SessionEnding { reason: wire::EndReason::Killed.into() };
    stream.send(wire::ServerFrame { ending: Some(ending), ..wire::ServerFrame::default() }).await;
    // The client agrees, so that the cell need not wait for the end of the lease.
    assert!(stream.frame().await.close.is_some());
    // What came before the end is told before it.
    assert!(within(of_handle.next()).await.unwrap().is_ok());
    assert_eq!(within(of_handle.next()).await, Some(Err(Ended::Killed)));
    assert_eq!(within(of_handle.next()).await, None);
    assert_eq!(within(of_session.next()).await, Some(SessionEvent::Ended(Ended::Killed)));
    assert_eq!(within(of_session.next()).await, None);
    // So do streams that are made afterwards.
    assert_eq!(within(handle.events().unwrap().next()).await, Some(Err(Ended::Killed)));
    assert_eq!(within(session.events().next()).await, Some(SessionEvent::Ended(Ended::Killed)));
}

#[tokio::test]
async fn a_stream_ends_when_its_handle_is_closed_and_keeps_it_open_until_then() {
    let mut replica = Replica::start().await;
    let (session, handle, mut stream) = watched(&mut replica).await;
    let mut events = handle.events().unwrap();
    drop(handle);
    stream.notice(told(1, HANDLE, &[ContentsModified])).await;
    assert!(within(events.next()).await.unwrap().is_ok());
    drop(events);
    let closed = wire::outcome::Result::Closed(wire::Closed {});
    let operation = stream.answer(closed.clone()).await;
    assert!(matches!(operation, wire::request::Operation::Close(_)), "{operation:?}");

    let (handle, _) = tokio::join!(
        session.open("/leader", OpenOptions::new().events(EventKind::ContentsModified)),
        stream.serve_open()
    );
    let handle = handle.unwrap();
    let mut events = handle.events().unwrap();
    tokio::join!(within(handle.close()), stream.answer(closed));
    assert_eq!(within(events.next()).await, None);
}

#[tokio::test]
async fn a_session_tells_of_jeopardy_of_fail_over_and_of_safety() {
    let mut replica = Replica::start().await;
    let (session, mut stream) = session(&mut replica, 300, Duration::from_secs(45)).await;
    let mut events = session.events();
    // Answers nothing until the lease has run out.
    assert_eq!(within(events.next()).await, Some(SessionEvent::Jeopardy));
    stream.lease_ms = None;
    drop(stream);
    let mut stream = replica.accept().await;
    stream.attach_at(2, 300).await;
    let serving = tokio::spawn(async move { stream.frame().await });
    assert_eq!(within(events.next()).await, Some(SessionEvent::FailedOver { term: 2 }));
    assert_eq!(within(events.next()).await, Some(SessionEvent::Safe));
    // A stream of events keeps no session open.
    drop(session);
    assert!(within(serving).await.unwrap().close.is_some());
}

#[tokio::test]
async fn a_handle_that_was_opened_without_events_says_so_and_does_not_wait_for_ever() {
    let mut replica = Replica::start().await;
    let (_session, handle, _stream) = handle_with(&mut replica, OpenOptions::new()).await;
    let error = handle.events().unwrap_err();
    assert!(matches!(error, Error::NoEvents { .. }) && !error.is_retryable(), "{error}");
    assert!(
        error.to_string().contains("/ls/dev/leader") && error.to_string().contains("OpenOptions::events"),
        "{error}"
    );
}
