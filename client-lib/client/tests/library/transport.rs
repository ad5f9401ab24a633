//! Corner cases between the library and the network, against replicas that say what the test wants.

use crate::fake::{Replica, granted, handle, session, told, within};
use holdfast::{Cell, Ended, Error, Mode, OpenOptions, RefusalFacts, SessionState, WriteOptions};
use holdfast_proto::client::v1 as wire;
use holdfast_proto::client::v1::{outcome, request::Operation, server_frame};
use std::time::Duration;
use tonic::Status;
use tonic::metadata::MetadataMap;

#[tokio::test]
async fn a_request_whose_reply_is_lost_with_its_stream_is_sent_again_under_its_number() {
    let mut replica = Replica::start().await;
    let (_session, handle, mut stream) = handle(&mut replica).await;
    let write = tokio::spawn(async move { handle.set_contents("x").await });
    let (number, operation) = stream.request().await;
    drop(stream);
    let mut stream = replica.accept().await;
    stream.attach(10_000).await;
    let again = stream.request().await;
    assert_eq!(again, (number, operation));
    let written = wire::Written { content_generation: 7, created: false };
    stream.reply(number, outcome::Result::Written(written)).await;
    assert_eq!(within(write).await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn dropping_a_pending_acquire_withdraws_it_also_if_the_stream_breaks_first() {
    let mut replica = Replica::start().await;
    let (_session, handle, mut stream) = handle(&mut replica).await;
    let acquire = tokio::spawn(async move { handle.acquire(Mode::Exclusive).await.map(drop) });
    let (acquired, operation) = stream.request().await;
    let Operation::Acquire(wire::Acquire { handle, .. }) = operation else { panic!("{operation:?}") };
    drop(stream);
    acquire.abort();
    assert!(within(acquire).await.unwrap_err().is_cancelled());
    let mut stream = replica.accept().await;
    stream.attach(10_000).await;
    // The Acquire again, its withdrawal, and the Close of the dropped handle, in one frame or more.
    let mut requests = Vec::new();
    while requests.len() < 3 {
        requests.extend(stream.frame().await.requests.into_iter().map(|r| (r.number, r.operation.unwrap())));
    }
    assert_eq!(requests[0].0, acquired);
    assert!(matches!(requests[0].1, Operation::Acquire(_)));
    let later: Vec<_> = requests[1..].iter().map(|(_, operation)| operation.clone()).collect();
    assert!(later.contains(&Operation::Cancel(wire::Cancel { number: acquired, handle })), "{later:?}");
    assert!(later.contains(&Operation::Close(wire::Close { handle })), "{later:?}");
}

#[tokio::test]
async fn a_lock_granted_to_a_future_that_was_dropped_is_given_back() {
    let mut replica = Replica::start().await;
    let (_session, handle, mut stream) = handle(&mut replica).await;
    let mut acquire = Box::pin(handle.acquire(Mode::Exclusive));
    assert!(futures::poll!(&mut acquire).is_pending());
    let acquired = stream.serve_acquire().await;
    // Delivered to the future or not yet: it is never polled again.
    drop(acquire);
    let (_, operation) = stream.request().await;
    let Operation::Cancel(wire::Cancel { number, .. }) = operation else { panic!("{operation:?}") };
    assert_eq!(number, acquired);
}

#[tokio::test]
async fn a_dropped_guard_is_released_and_a_dropped_session_closed() {
    let mut replica = Replica::start().await;
    let (session, handle, mut stream) = handle(&mut replica).await;
    let (lock, acquired) = tokio::join!(handle.acquire(Mode::Exclusive), stream.serve_acquire());
    let lock = lock.unwrap();
    assert_eq!(lock.generation(), 42);
    assert_eq!(lock.sequencer().to_string(), "holdfast:1:exclusive:42:5:/ls/dev/leader");
    assert!(lock.is_held());
    drop(lock);
    let (_, operation) = stream.request().await;
    assert!(matches!(operation, Operation::Cancel(wire::Cancel { number, .. }) if number == acquired));
    drop(session);
    drop(handle);
    while stream.frame().await.close.is_none() {}
}

#[tokio::test]
async fn a_queued_acquire_waits_for_its_grant() {
    let mut replica = Replica::start().await;
    let (_session, handle, mut stream) = handle(&mut replica).await;
    let acquire = tokio::spawn(async move { handle.acquire(Mode::Exclusive).await });
    let (number, _) = stream.request().await;
    stream.reply(number, outcome::Result::Queued(wire::Queued { ahead: 3 })).await;
    let outcome::Result::Granted(granted) = granted(50) else { unreachable!("it is a grant") };
    let grant = wire::LockGrant { handle: 1, number, granted: Some(granted) };
    let event = wire::Event { event: Some(wire::event::Event::LockGranted(grant)) };
    stream.send(wire::ServerFrame { events: vec![event], ..wire::ServerFrame::default() }).await;
    assert_eq!(within(acquire).await.unwrap().unwrap().generation(), 50);
}

#[tokio::test]
async fn a_session_follows_the_word_of_a_replica_that_is_not_the_master() {
    let (mut follower, mut master) = (Replica::start().await, Replica::start().await);
    let cell = Cell::connect([&follower.address]).unwrap();
    let open = tokio::spawn(cell.session().open());
    let mut stream = follower.accept().await;
    stream.frame().await;
    let refusal = wire::Refusal {
        code: wire::RefusalCode::NotMaster.into(),
        message: "no".to_owned(),
        ..Default::default()
    };
    let refused = wire::StreamRefused { refusal: Some(refusal), master_address: master.address.clone() };
    stream.hello(server_frame::Hello::Refused(refused)).await;
    master.accept().await.open(10_000).await;
    assert_eq!(within(open).await.unwrap().unwrap().id(), 9);
}

#[tokio::test]
async fn a_refused_session_says_why() {
    let mut replica = Replica::start().await;
    let cell = Cell::connect([&replica.address]).unwrap();
    let open = tokio::spawn(cell.session().open());
    let mut stream = replica.accept().await;
    stream.frame().await;
    let full = wire::LimitExceeded { limit: "sessions_max".to_owned(), maximum: 7, wanted: 8 };
    let refusal = wire::Refusal {
        code: wire::RefusalCode::Limit.into(),
        message: "the cell has 7 sessions".to_owned(),
        facts: Some(wire::refusal::Facts::LimitExceeded(Box::new(full))),
    };
    let refused = wire::StreamRefused { refusal: Some(refusal), master_address: String::new() };
    stream.hello(server_frame::Hello::Refused(refused)).await;
    let error = within(open).await.unwrap().unwrap_err();
    assert_eq!(error.refusal(), Some(wire::RefusalCode::Limit));
    assert_eq!(error.to_string(), "the cell has 7 sessions");
    let Some(RefusalFacts::LimitExceeded { limit, maximum: 7, wanted: Some(8), .. }) = error.facts() else {
        panic!("{error:?}")
    };
    assert_eq!(limit, "sessions_max");
}

#[tokio::test]
async fn closing_waits_for_the_word_of_the_cell() {
    let mut replica = Replica::start().await;
    let (session, mut stream) = session(&mut replica, 10_000, Duration::from_secs(45)).await;
    let master = async {
        assert!(stream.frame().await.close.is_some());
        let ended = wire::SessionEnded { reason: wire::EndReason::Closed.into() };
        stream.send(wire::ServerFrame { ended: Some(ended), ..wire::ServerFrame::default() }).await;
    };
    let (ended, ()) = tokio::join!(within(session.close()), master);
    assert_eq!(ended, Ended::Closed);
    assert_eq!(session.state(), SessionState::Ended(Ended::Closed));
    let error = within(session.open("/x", OpenOptions::new())).await.unwrap_err();
    assert!(matches!(error, Error::SessionEnded { ended: Ended::Closed, .. }));
}

/// A refusal as a status, as a replica makes it.
fn refusal(name: &'static str, master: Option<&str>) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert("holdfast-refusal", name.parse().unwrap());
    if let Some(master) = master {
        metadata.insert("holdfast-master", master.parse().unwrap());
    }
    Status::with_metadata(tonic::Code::Unavailable, name, metadata)
}

fn written() -> wire::SetContentsResponse {
    let written = wire::Written { content_generation: 7, created: false };
    wire::SetContentsResponse { written: Some(written), revision: 7 }
}

#[tokio::test]
async fn a_write_by_name_finds_the_master() {
    let (follower, master) = (Replica::start().await, Replica::start().await);
    follower.answer_write(Err(refusal("NOT_MASTER", Some(&master.address)))).await;
    master.answer_write(Ok(written())).await;
    let cell = Cell::connect([&follower.address]).unwrap();
    let done = within(cell.set_contents("/x", "y", WriteOptions::new())).await.unwrap();
    assert_eq!(done.content_generation, 7);
}

#[tokio::test]
async fn a_write_by_name_is_not_spent_on_a_replica_that_hangs() {
    // Takes connections, as the kernel does for a process that is stopped, and never says a word.
    let hanging = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let master = Replica::start().await;
    master.answer_write(Ok(written())).await;
    let addresses = [hanging.local_addr().unwrap().to_string(), master.address.clone()];
    let cell = Cell::builder().addresses(addresses).timeout(Duration::from_secs(2)).connect().unwrap();
    within(cell.set_contents("/x", "y", WriteOptions::new())).await.unwrap();
}

#[tokio::test]
async fn a_write_whose_reply_is_lost_is_repeated_only_under_a_condition() {
    let replica = Replica::start().await;
    let cell = Cell::connect([&replica.address]).unwrap();
    replica.answer_write(Err(Status::unavailable("broken pipe"))).await;
    let error = within(cell.set_contents("/x", "y", WriteOptions::new())).await.unwrap_err();
    assert!(error.is_outcome_unknown() && !error.is_retryable(), "{error}");

    replica.answer_write(Err(Status::unavailable("broken pipe"))).await;
    replica.answer_write(Ok(written())).await;
    let conditional = WriteOptions::new().if_generation(6);
    within(cell.set_contents("/x", "y", conditional.clone())).await.unwrap();

    // The mismatch may be the doing of the attempt whose reply was lost.
    replica.answer_write(Err(Status::unavailable("broken pipe"))).await;
    replica.answer_write(Err(refusal("GENERATION_MISMATCH", None))).await;
    let error = within(cell.set_contents("/x", "y", conditional)).await.unwrap_err();
    assert!(error.is_outcome_unknown(), "{error}");
    assert_eq!(replica.answers_left(), 0);
}

#[tokio::test]
async fn nobody_there_is_an_error_that_can_be_retried() {
    let address = Replica::start().await.address.clone();
    let cell = Cell::builder().addresses([address]).timeout(Duration::from_millis(200)).connect().unwrap();
    let error = within(cell.set_contents("/x", "y", WriteOptions::new())).await.unwrap_err();
    assert!(error.is_retryable() && !error.is_outcome_unknown(), "{error}");
}

#[tokio::test]
async fn a_keep_alive_that_its_stream_does_not_answer_goes_past_it_and_keeps_the_stream() {
    let mut replica = Replica::start().await;
    let (session, mut stream) = session(&mut replica, 4_000, Duration::from_secs(45)).await;
    stream.lease_ms = None;
    let unanswered = stream.keep_alive().await;
    let past = replica.past_stream().await;
    assert_eq!(past.stream, stream.name);
    assert_eq!(past.keep_alive, Some(wire::KeepAlive { number: unanswered }));
    // A stream that is silent is given up after a second, and this one goes on.
    assert_eq!(stream.keep_alive().await, unanswered + 1);
    assert_eq!(session.state(), SessionState::Safe);

    // What the session has acted on is told by that way too.
    stream.notice(told(1, 1, &[wire::EventKind::ContentsModified])).await;
    while replica.past_stream().await.notices_through == 0 {}
    assert_eq!(session.state(), SessionState::Safe);
}

#[tokio::test]
async fn a_stream_is_given_up_if_nothing_is_granted_past_it_either() {
    let mut replica = Replica::start().await;
    let (_session, mut stream) = session(&mut replica, 4_000, Duration::from_secs(45)).await;
    stream.lease_ms = None;
    replica.extend_by(0);
    let unanswered = stream.keep_alive().await;
    assert_eq!(replica.past_stream().await.keep_alive, Some(wire::KeepAlive { number: unanswered }));
    let mut newer = replica.accept().await;
    assert_ne!(newer.name, stream.name, "each stream has a name of its own");
    newer.attach(4_000).await;
    assert_eq!(newer.keep_alive().await, unanswered + 1);
}
