//! Clients that say what they should not: each is told what was wrong, and nobody else notices.

use bytes::Bytes;
use holdfast::{Cell, Mode, OpenOptions, RefusalCode, WriteOptions};
use holdfast_e2e::wire::{self, Stream, call_with_bytes, connect, opening};
use holdfast_e2e::{Cluster, eventually, within};
use holdfast_proto::client::v1::{
    Acquire, AttachSession, GetContents, Open, OpenSession, Outcome, Refusal, client_frame::Hello, outcome,
    request::Operation,
};
use tonic::Code;

use crate::PROGRAMS;

const SECRET: &[u8; 32] = b"a secret that nobody else knows.";

/// The code of a refusal that says something.
fn code(refusal: &Refusal) -> RefusalCode {
    assert!(refusal.message.len() > 20, "{refusal:?} explains nothing");
    refusal.code()
}

/// The code of the refusal that an outcome is.
fn refusal(outcome: &Outcome) -> RefusalCode {
    match &outcome.result {
        Some(outcome::Result::Refusal(refusal)) => code(refusal),
        other => panic!("{other:?} is no refusal"),
    }
}

/// A bystander's session goes on, and so does the master that was there before.
async fn unharmed(cluster: &Cluster, term: u64, bystander: &holdfast::Session) {
    let file = bystander.open("/file", OpenOptions::new().create()).await.unwrap();
    within("a write", file.set_contents("all is well")).await.unwrap();
    let status = cluster.cell().status().await.unwrap();
    assert_eq!(status.term, term, "the master was deposed");
}

async fn term(cell: &Cell) -> u64 {
    cell.status().await.unwrap().term
}

#[tokio::test]
async fn names_sizes_and_values_that_cannot_be_are_refused_each_with_its_own_code() {
    use RefusalCode as R;
    let cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let term = term(&cell).await;
    let session = cell.session().open().await.unwrap();
    let long_name = format!("/{}", "n".repeat(256));
    let long_path = "/nn".repeat(1366);
    for (path, expected) in [
        ("", R::BadPath),
        ("relative", R::BadPath),
        ("//file", R::BadPath),
        ("/a/../b", R::BadPath),
        ("/bell\u{7}", R::BadPath),
        ("/ls/other/file", R::ForeignCell),
        (&long_name, R::Limit),
        (&long_path, R::Limit),
        ("/missing/file", R::NoParent),
    ] {
        let error = session.open(path, OpenOptions::new().create()).await.unwrap_err();
        assert_eq!(error.refusal(), Some(expected), "{path:?} through a session: {error}");
        let written = cell.set_contents(path, "text", WriteOptions::new().create()).await;
        assert_eq!(written.unwrap_err().refusal(), Some(expected), "{path:?} by name");
    }

    let file = session.open("/file", OpenOptions::new().create()).await.unwrap();
    let most = 256 << 10;
    file.set_contents(vec![1; most]).await.unwrap();
    for length in [most + 1, 3 << 20, 20 << 20] {
        let error = within("an answer", file.set_contents(vec![2; length])).await.unwrap_err();
        assert_eq!(error.refusal(), Some(R::Limit), "{length} bytes through a session: {error}");
    }
    let error = cell.set_contents("/file", vec![2; most + 1], WriteOptions::new()).await.unwrap_err();
    assert_eq!(error.refusal(), Some(R::Limit), "{error}");
    assert_eq!(file.contents().await.unwrap().bytes, vec![1; most]);

    let too_long = OpenOptions::new().lock_delay(std::time::Duration::from_secs(61));
    assert_eq!(session.open("/file", too_long).await.unwrap_err().refusal(), Some(R::Invalid));
    let too_short = cell.session().lease(std::time::Duration::from_millis(99)).open().await;
    assert_eq!(too_short.unwrap_err().refusal(), Some(R::Invalid));
    for text in ["", "holdfast:2:exclusive:1:1:/ls/e2e/file", "holdfast:1:exclusive:x:1:/ls/e2e/file"] {
        assert_eq!(
            cell.check_sequencer(text).await.unwrap_err().refusal(),
            Some(R::BadSequencer),
            "{text:?}"
        );
    }
    unharmed(&cluster, term, &session).await;
}

#[tokio::test]
async fn a_stream_that_is_not_who_it_says_is_refused_and_the_session_lives_on() {
    let cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let term = term(&cell).await;
    let bystander = cell.session().open().await.unwrap();
    let master = connect(cluster[cluster.master().await].client_address()).await;

    for (wrong, expected) in [
        (opening(b"short"), RefusalCode::Invalid),
        (OpenSession { cell: "other".to_owned(), ..opening(SECRET) }, RefusalCode::ForeignCell),
        (OpenSession { lease_ms: 60_001, ..opening(SECRET) }, RefusalCode::Invalid),
        (OpenSession { client: "c".repeat(256), ..opening(SECRET) }, RefusalCode::Invalid),
    ] {
        let refused = Stream::open(master.clone(), wrong.clone()).await.unwrap_err();
        assert_eq!(code(&refused), expected, "{wrong:?}: {refused:?}");
    }

    let (mut stream, session) = Stream::open(master.clone(), opening(SECRET)).await.unwrap();
    let attach = |session, secret: &[u8], attachment| {
        let secret = Bytes::copy_from_slice(secret);
        AttachSession { session, secret, attachment, ..AttachSession::default() }
    };
    for (wrong, expected) in [
        (attach(session + 1_000_000, SECRET, 1), RefusalCode::UnknownSession),
        (attach(session, &[7; 32], 1), RefusalCode::WrongSecret),
        (attach(session, b"", 1), RefusalCode::WrongSecret),
    ] {
        let refused = Stream::attach(master.clone(), wrong.clone()).await.unwrap_err();
        assert_eq!(code(&refused), expected, "{wrong:?}: {refused:?}");
    }

    // None of that has touched the session. What it asks for wrongly itself is refused, and remembered.
    let unknown = Operation::GetContents(GetContents { handle: 99 });
    assert_eq!(refusal(&stream.call(1, unknown).await), RefusalCode::UnknownHandle);
    let open = Open { path: "/raw".to_owned(), creation: 1, ..Open::default() };
    let opened = stream.call(2, Operation::Open(Box::new(open.clone()))).await;
    assert!(matches!(opened.result, Some(outcome::Result::Opened(_))), "{opened:?}");
    assert_eq!(
        stream.call(2, Operation::Open(Box::new(open))).await,
        opened,
        "a repeated request has its first outcome"
    );
    let modeless = Operation::Acquire(Acquire { handle: 2, mode: 0, try_only: false });
    assert_eq!(refusal(&stream.call(3, modeless).await), RefusalCode::Invalid);

    // A newer attachment ends the older stream.
    let mut newer = Stream::attach(master, attach(session, SECRET, 1)).await.unwrap();
    eventually("the older stream is ended", async || stream.next().await.err()).await;
    assert_eq!(
        refusal(&newer.call(4, Operation::GetContents(GetContents { handle: 99 })).await),
        RefusalCode::UnknownHandle
    );
    unharmed(&cluster, term, &bystander).await;
}

#[tokio::test]
async fn bytes_that_are_no_message_cost_their_sender_the_call_and_nobody_else_anything() {
    let cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let term = term(&cell).await;
    let bystander = cell.session().open().await.unwrap();
    let handle = bystander.open("/held", OpenOptions::new().create()).await.unwrap();
    let lock = handle.acquire(Mode::Exclusive).await.unwrap();
    let master = connect(cluster[cluster.master().await].client_address()).await;

    for method in ["GetStat", "GetContents", "ReadDir", "Delete"] {
        let path = match method {
            "GetStat" => "/holdfast.client.v1.Cell/GetStat",
            "GetContents" => "/holdfast.client.v1.Cell/GetContents",
            "ReadDir" => "/holdfast.client.v1.Cell/ReadDir",
            _ => "/holdfast.client.v1.Cell/Delete",
        };
        let status = call_with_bytes(master.clone(), path, b"/caf\xe9").await.unwrap_err();
        assert!(status.message().contains("UTF-8"), "{method}: {status:?}");
    }
    let status =
        call_with_bytes(master.clone(), "/holdfast.client.v1.Cell/Explode", b"/file").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);

    // Two hellos on one stream.
    let (mut stream, _) = Stream::open(master.clone(), opening(SECRET)).await.unwrap();
    stream.send_hello(Hello::Open(opening(SECRET)));
    let refused = stream.refusal().await;
    assert_eq!(code(&refused), RefusalCode::Protocol, "{refused:?}");
    // None at all.
    let refused = wire::begin_without_hello(master).await;
    assert_eq!(code(&refused), RefusalCode::Protocol, "{refused:?}");

    assert!(lock.is_held());
    unharmed(&cluster, term, &bystander).await;
}
