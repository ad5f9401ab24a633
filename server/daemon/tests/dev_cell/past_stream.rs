//! KeepAlives that come past their stream, by a connection of their own.

use holdfast_proto::client::STREAM_KEY;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::server_frame::Hello;
use holdfast_proto::client::v1::{
    Creation, ExtendLeaseRequest, GetContents, KeepAlive, NodeKind, Notice, Open, OpenSession, client_frame,
    outcome,
};
use holdfast_server::dev::{DevCell, DevOptions};
use tonic::{Code, Status};

use crate::session::{SECRET, Stream, attach, open_session};
use crate::support::{LIMIT, stub};
use crate::{logger, write};

async fn cell_of_one() -> DevCell {
    DevCell::start(DevOptions { replicas: 1, ..DevOptions::default() }, logger()).await.unwrap()
}

/// Asks for a lease past the stream of that name. Gives its length.
async fn extend(cell: &DevCell, stream: &str, number: u64, notices_through: u64) -> Result<u32, Status> {
    let request = ExtendLeaseRequest {
        stream: stream.to_owned(),
        keep_alive: Some(KeepAlive { number }),
        notices_through,
    };
    let lease = stub(&cell.addresses()[0]).await.extend_lease(request).await?.into_inner();
    assert_eq!(lease.number, number);
    Ok(lease.lease_ms)
}

fn code(extended: Result<u32, Status>) -> Code {
    extended.expect_err("the lease is not extended").code()
}

/// The next notice that the session has to act on.
async fn notice(stream: &mut Stream) -> Notice {
    let reading = async {
        loop {
            let frame = stream.read().await.unwrap().expect("the stream goes on");
            if let Some(notice) = frame.notices.into_iter().next() {
                return notice;
            }
        }
    };
    tokio::time::timeout(LIMIT, reading).await.expect("there is a notice")
}

#[tokio::test]
async fn a_keep_alive_past_its_stream_extends_the_lease_until_the_stream_is_gone() {
    let cell = cell_of_one().await;
    let (mut stream, hello) = Stream::begin(&cell.addresses(), open_session(SECRET)).await;
    let Hello::Opened(opened) = hello else { panic!("{hello:?}") };
    assert_eq!(extend(&cell, &stream.name, 1, 0).await.unwrap(), 30_000);
    assert_eq!(extend(&cell, &stream.name, 1, 0).await.unwrap(), 30_000, "the same, told again");
    assert_eq!(stream.keep_alive(2).await, 30_000, "the stream goes on");
    assert_eq!(code(extend(&cell, &stream.name, 1, 0).await), Code::Aborted, "a later one was granted");
    assert_eq!(code(extend(&cell, "a name that nobody has", 3, 0).await), Code::NotFound);
    let nothing = ExtendLeaseRequest { stream: stream.name.clone(), ..ExtendLeaseRequest::default() };
    let refused = stub(&cell.addresses()[0]).await.extend_lease(nothing).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.metadata().get("holdfast-refusal").unwrap(), "INVALID");

    // A newer attachment: the older stream extends nothing, neither while it ends nor later.
    let (newer, _) = Stream::begin(&cell.addresses(), attach(opened.session, 2)).await;
    let code_of_older = code(extend(&cell, &stream.name, 4, 0).await);
    assert!(matches!(code_of_older, Code::NotFound | Code::Aborted), "{code_of_older:?}");
    assert_eq!(extend(&cell, &newer.name, 5, 0).await.unwrap(), 30_000);
    let name = newer.name.clone();
    drop(newer);
    // Until its end is noticed, it is told again what it was granted.
    let gone = async {
        loop {
            match extend(&cell, &name, 5, 0).await {
                Ok(lease_ms) => assert_eq!(lease_ms, 30_000),
                Err(status) if status.code() == Code::NotFound => return,
                Err(status) => assert_eq!(status.code(), Code::Aborted, "{status}"),
            }
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("the stream's end is noticed");
    cell.stop().await.unwrap();
}

#[tokio::test]
async fn a_stream_whose_name_could_be_guessed_is_refused_and_one_without_a_name_is_not() {
    let cell = cell_of_one().await;
    let mut stub = stub(&cell.addresses()[0]).await;
    let mut named = tonic::Request::new(tokio_stream::pending());
    named.metadata_mut().insert(STREAM_KEY, "short".parse().unwrap());
    let refused = stub.session(named).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("holdfast-stream: 16 to 64 characters"), "{refused}");
    stub.session(tokio_stream::pending()).await.expect("it need have no name");
    cell.stop().await.unwrap();
}

#[tokio::test]
async fn a_lease_is_extended_past_the_stream_by_the_rules_of_the_stream_and_notices_acknowledged_too() {
    let cell = cell_of_one().await;
    // Longer leases do not cache.
    let client_frame::Hello::Open(opening) = open_session(SECRET) else { panic!("it is an opening") };
    let opening = client_frame::Hello::Open(OpenSession { lease_ms: 12_000, ..opening });
    let (mut stream, _) = Stream::begin(&cell.addresses(), opening).await;
    let open = Operation::Open(Box::new(Open {
        path: "/ls/dev/f".into(),
        creation: Creation::May.into(),
        kind: NodeKind::File.into(),
        caching: true,
        ..Open::default()
    }));
    assert!(matches!(stream.request(1, open).await, outcome::Result::Opened(_)));
    let read = Operation::GetContents(GetContents { handle: 1 });
    assert!(matches!(stream.request(2, read).await, outcome::Result::Contents(_)));

    let addresses = cell.addresses();
    let writing = tokio::spawn(async move { write(&addresses, "/ls/dev/f", "new").await });
    let notice = notice(&mut stream).await;
    assert!(!notice.invalidations.is_empty(), "{notice:?}");
    assert_eq!(extend(&cell, &stream.name, 1, 0).await.unwrap(), 12_000, "the notice may be on its way");
    assert_eq!(code(extend(&cell, &stream.name, 2, 0).await), Code::FailedPrecondition, "it is overdue");
    assert!(!writing.is_finished(), "who may read an older copy is waited for");
    assert_eq!(extend(&cell, &stream.name, 2, notice.number).await.unwrap(), 12_000);
    tokio::time::timeout(LIMIT, writing).await.expect("nobody has to be waited for").unwrap();
    cell.stop().await.unwrap();
}
