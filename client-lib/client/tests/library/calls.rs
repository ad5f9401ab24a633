//! Calls through a handle: what each asks for, giving them up, poisoning, closing.

use crate::fake::{Replica, Stream, granted, handle, handle_with, opened, session, stat, within};
use futures::FutureExt as _;
use holdfast::{AclNames, Error, EventKind, Handle, Mode, OpenOptions, SequencerCheck, Uses};
use holdfast_proto::client::v1 as wire;
use holdfast_proto::client::v1::{outcome, request::Operation};
use std::time::Duration;

/// A call that is under way.
type Pending<'h> = std::pin::Pin<Box<dyn Future<Output = Result<(), Error>> + Send + 'h>>;

/// One of each call that a handle has, but for those that close it.
fn calls(handle: &Handle) -> Vec<Pending<'_>> {
    vec![
        Box::pin(async { handle.contents().await.map(drop) }),
        Box::pin(async { handle.stat().await.map(drop) }),
        Box::pin(async { handle.lock_stat().await.map(drop) }),
        Box::pin(async { handle.read_dir().await.map(drop) }),
        Box::pin(async { handle.set_contents("x").await.map(drop) }),
        Box::pin(async { handle.set_acl(AclNames::new().read("team")).await.map(drop) }),
        Box::pin(async { handle.delete().await }),
        Box::pin(async { handle.sequencer().await.map(drop) }),
        Box::pin(async { handle.set_sequencer("holdfast:1:exclusive:1:1:/ls/dev/x").await }),
        Box::pin(async { handle.open("child", OpenOptions::new()).await.map(drop) }),
        Box::pin(async { handle.acquire(Mode::Exclusive).await.map(drop) }),
    ]
}

/// The handle still does what it is asked.
async fn is_usable(handle: &Handle, stream: &mut Stream) {
    let (asked, ()) = tokio::join!(within(handle.lock_stat()), answer_stat(stream));
    asked.unwrap();
}

/// Answers the next GetStat; whatever comes before it goes without an answer.
async fn answer_stat(stream: &mut Stream) {
    loop {
        let frame = stream.frame().await;
        for request in frame.requests {
            if let Some(Operation::GetStat(_)) = request.operation {
                return stream.reply(request.number, outcome::Result::Stat(Box::new(stat()))).await;
            }
        }
    }
}

#[tokio::test]
async fn giving_up_any_call_before_or_after_it_was_sent_leaves_the_handle_usable() {
    let mut replica = Replica::start().await;
    let (_session, handle, mut stream) = handle(&mut replica).await;
    for number in 0..calls(&handle).len() {
        for sent in [false, true] {
            let mut call = calls(&handle).swap_remove(number);
            assert!(futures::poll!(&mut call).is_pending(), "call {number}");
            if sent {
                stream.frame().await;
            }
            drop(call);
            is_usable(&handle, &mut stream).await;
        }
    }
}

#[tokio::test]
async fn a_poisoned_handle_fails_every_call_under_way_and_later_and_is_not_closed() {
    let mut replica = Replica::start().await;
    let (session, handle, mut stream) = handle(&mut replica).await;
    let (lock, acquired) = tokio::join!(handle.acquire(Mode::Exclusive), stream.serve_acquire());
    let lock = lock.unwrap();
    let (mut write, mut read) = (Box::pin(handle.set_contents("x")), Box::pin(handle.contents()));
    assert!(futures::poll!(&mut write).is_pending() && futures::poll!(&mut read).is_pending());
    handle.poison();
    // The write may have taken effect, the read has nothing that could.
    assert!(matches!(within(write).await, Err(Error::Poisoned { maybe_applied: true, .. })));
    assert!(matches!(within(read).await, Err(Error::Poisoned { maybe_applied: false, .. })));
    for (number, call) in calls(&handle).into_iter().enumerate() {
        let failed = call.now_or_never().unwrap_or_else(|| panic!("call {number} does not fail at once"));
        assert!(matches!(failed, Err(Error::Poisoned { maybe_applied: false, .. })), "{number}: {failed:?}");
    }
    // The lock is as held as before, and can be given back; only then is the handle closed.
    assert!(lock.is_held());
    drop(lock);
    drop(handle);
    let mut given_back = Vec::new();
    while given_back.len() < 2 {
        let requests = stream.frame().await.requests.into_iter().filter_map(|request| request.operation);
        given_back.extend(
            requests.filter(|operation| matches!(operation, Operation::Cancel(_) | Operation::Close(_))),
        );
    }
    assert!(matches!(&given_back[0], Operation::Cancel(cancel) if cancel.number == acquired));
    assert!(matches!(&given_back[1], Operation::Close(close) if close.handle == 1));
    let (other, _) =
        tokio::join!(session.open("/other", OpenOptions::new().caching(false)), stream.serve_open());
    is_usable(&other.unwrap(), &mut stream).await;
}

#[tokio::test]
async fn a_node_may_have_been_created_under_a_directory_handle_that_was_poisoned() {
    let mut replica = Replica::start().await;
    let (_session, directory, mut stream) = handle(&mut replica).await;
    let mut creation = Box::pin(directory.open("new", OpenOptions::new().create()));
    let mut opening = Box::pin(directory.open("old", OpenOptions::new()));
    assert!(futures::poll!(&mut creation).is_pending() && futures::poll!(&mut opening).is_pending());
    stream.frame().await;
    directory.poison();
    assert!(matches!(within(creation).await, Err(Error::Poisoned { maybe_applied: true, .. })));
    assert!(matches!(within(opening).await, Err(Error::Poisoned { maybe_applied: false, .. })));
}

#[tokio::test]
async fn poisoning_withdraws_a_waiting_acquire() {
    let mut replica = Replica::start().await;
    let (_session, handle, mut stream) = handle(&mut replica).await;
    let mut acquire = Box::pin(handle.acquire(Mode::Exclusive));
    assert!(futures::poll!(&mut acquire).is_pending());
    let (acquired, _) = stream.request().await;
    stream.reply(acquired, outcome::Result::Queued(wire::Queued { ahead: 1 })).await;
    handle.poison();
    assert!(matches!(within(acquire).await, Err(Error::Poisoned { maybe_applied: false, .. })));
    let (_, operation) = stream.request().await;
    assert!(matches!(operation, Operation::Cancel(cancel) if cancel.number == acquired), "{operation:?}");
}

#[tokio::test]
async fn closing_does_not_fail_whatever_the_cell_answers() {
    let mut replica = Replica::start().await;
    let (_session, handle, mut stream) = handle_with(&mut replica, OpenOptions::new().caching(false)).await;
    let refusal = wire::Refusal {
        code: wire::RefusalCode::UnknownHandle.into(),
        message: "what?".to_owned(),
        ..Default::default()
    };
    let ((), operation) =
        tokio::join!(within(handle.close()), stream.answer(outcome::Result::Refusal(refusal)));
    assert!(matches!(operation, Operation::Close(_)), "{operation:?}");
}

#[tokio::test]
async fn an_open_says_all_that_its_options_ask_for() {
    let mut replica = Replica::start().await;
    let (session, mut stream) = session(&mut replica, 10_000, Duration::from_secs(45)).await;
    let options = OpenOptions::new()
        .create_new()
        .file()
        .ephemeral()
        .contents("hello")
        .lock_delay(Duration::from_secs(1))
        .uses(Uses::ALL)
        .events(EventKind::AclChanged)
        .events([EventKind::HandleInvalid])
        .caching(false)
        .acl(AclNames::new().read("*").write("team"));
    let (opening, operation) = tokio::join!(session.open("/a", options), stream.answer(opened()));
    opening.unwrap();
    let expected = wire::Open {
        path: "/a".to_owned(),
        creation: wire::Creation::Must.into(),
        kind: wire::NodeKind::File.into(),
        ephemeral: true,
        contents: "hello".into(),
        lock_delay_ms: 1_000,
        directory: 0,
        uses: Some(wire::Uses { read: true, write: true, change_acl: true }),
        events: vec![wire::EventKind::AclChanged.into(), wire::EventKind::HandleInvalid.into()],
        caching: false,
        acl: Some(wire::AclNames { read: "*".to_owned(), write: "team".to_owned(), change: String::new() }),
    };
    assert_eq!(operation, Operation::Open(Box::new(expected)));
}

#[tokio::test]
async fn a_node_is_opened_relative_to_a_directory_that_is_open() {
    let mut replica = Replica::start().await;
    let (session, mut stream) = session(&mut replica, 10_000, Duration::from_secs(45)).await;
    let (root, operation) = tokio::join!(session.root(), stream.answer(opened()));
    let root = root.unwrap();
    assert!(matches!(&operation, Operation::Open(open) if open.path == "/"), "{operation:?}");
    assert_eq!(root.path(), "/ls/dev/");
    let (child, operation) =
        tokio::join!(root.open("service/a", OpenOptions::new()), stream.answer(opened()));
    let child = child.unwrap();
    let asked = |operation: &Operation| match operation {
        Operation::Open(open) => (open.directory, open.path.clone()),
        other => panic!("{other:?}"),
    };
    assert_eq!(asked(&operation), (1, "service/a".to_owned()));
    assert_eq!(child.path(), "/ls/dev/service/a");
    let (_, operation) = tokio::join!(child.open("b", OpenOptions::new()), stream.answer(opened()));
    assert_eq!(asked(&operation), (2, "b".to_owned()));
}

#[tokio::test]
async fn access_control_names_and_sequencers_go_out_and_in() {
    let mut replica = Replica::start().await;
    let (session, handle, mut stream) = handle(&mut replica).await;
    let set = outcome::Result::AclSet(wire::AclSet { acl_generation: 77 });
    let (changed, operation) =
        tokio::join!(handle.set_acl_if(5, AclNames::new().change("ops")), stream.answer(set));
    assert_eq!(changed.unwrap(), 77);
    let acl = wire::AclNames { change: "ops".to_owned(), ..wire::AclNames::default() };
    assert_eq!(
        operation,
        Operation::SetAcl(Box::new(wire::SetAcl { handle: 1, acl: Some(acl), if_generation: Some(5) }))
    );

    let (lock, _) = tokio::join!(handle.acquire(Mode::Exclusive), stream.answer(granted(42)));
    let lock = lock.unwrap();
    let text = outcome::Result::Sequencer(wire::SequencerText { sequencer: lock.sequencer().to_string() });
    let (sequencer, _) = tokio::join!(handle.sequencer(), stream.answer(text));
    assert_eq!(sequencer.unwrap(), *lock.sequencer());

    let checked = wire::SequencerChecked { valid: false, reason: "it was released".to_owned() };
    let (check, operation) = tokio::join!(
        session.check_sequencer(lock.sequencer()),
        stream.answer(outcome::Result::SequencerChecked(checked))
    );
    assert_eq!(check.unwrap(), SequencerCheck::Invalid("it was released".to_owned()));
    let sequencer = lock.sequencer().to_string();
    assert_eq!(operation, Operation::CheckSequencer(wire::CheckSequencer { sequencer }));
}
