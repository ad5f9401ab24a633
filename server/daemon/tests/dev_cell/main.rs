//! A whole cell in this process, and a client that uses nothing but the generated stubs.

mod past_stream;
mod session;
#[path = "../support/mod.rs"]
mod support;

use holdfast_proto::client::v1::cell_client::CellClient;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::server_frame::Hello;
use holdfast_proto::client::v1::{
    ClientFrame, GetContents, GetContentsRequest, RefusalCode, Request, Role, SetContents,
    SetContentsRequest, StatusRequest, StatusResponse, outcome,
};
use holdfast_server::dev::{DevCell, DevOptions};
use holdfast_types::ReplicaId;
use session::{SECRET, Stream, acquire, attach, open, open_session};
use slog::{Discard, Logger, o};
use support::{LIMIT, stub};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};

fn logger() -> Logger {
    Logger::root(Discard, o!())
}

async fn status(address: &str) -> Result<StatusResponse, Status> {
    stub(address).await.status(StatusRequest::default()).await.map(tonic::Response::into_inner)
}

/// Writes by name at whichever replica is master.
async fn write(addresses: &[String], path: &str, contents: &'static str) {
    let request = SetContentsRequest {
        path: path.into(),
        contents: contents.into(),
        create: true,
        ..Default::default()
    };
    let trying = async {
        for address in addresses.iter().cycle() {
            match stub(address).await.set_contents(request.clone()).await {
                Ok(_) => return,
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
            }
        }
    };
    tokio::time::timeout(LIMIT, trying).await.expect("a replica takes the write");
}

#[tokio::test]
async fn a_session_opens_takes_a_lock_and_stays_alive() {
    let cell = DevCell::start(DevOptions::default(), logger()).await.unwrap();
    let (mut stream, hello) = Stream::begin(&cell.addresses(), open_session(SECRET)).await;
    let Hello::Opened(opened) = hello else { panic!("{hello:?}") };
    assert_eq!(opened.lease_length_ms, 30_000);
    assert_eq!(opened.cell.unwrap().addresses, cell.addresses());
    assert!(
        matches!(stream.request(1, open("/ls/dev/lock")).await, outcome::Result::Opened(it) if it.created)
    );
    assert!(matches!(stream.request(2, acquire(1)).await, outcome::Result::Granted(_)));
    assert_eq!(stream.keep_alive(1).await, 30_000);
    cell.stop().await.unwrap();
}

#[tokio::test]
async fn every_replica_answers_status_and_refuses_what_only_a_master_may_do() {
    let mut cell = DevCell::start(DevOptions::default(), logger()).await.unwrap();
    let master = cell.master().await.unwrap();
    let addresses = cell.addresses();
    write(&addresses, "/file", "contents").await;
    let mut masters = 0;
    for address in &addresses {
        let status = status(address).await.unwrap();
        assert_eq!((status.cell.as_str(), status.members.len()), ("dev", 3));
        masters += u32::from(status.role() == Role::Master);
        let read = stub(address).await.get_contents(GetContentsRequest { path: "/file".into() }).await;
        match read {
            Ok(response) => assert_eq!(response.into_inner().contents.unwrap().contents, "contents"),
            Err(refused) => {
                assert_eq!(refused.code(), Code::Unavailable);
                assert_eq!(refused.metadata().get("holdfast-refusal").unwrap(), "NOT_MASTER");
                let there = refused.metadata().get("holdfast-master").unwrap().to_str().unwrap();
                assert!(addresses.iter().any(|address| address == there), "{there}");
            }
        }
    }
    assert_eq!(masters, 1, "{master} is the only one");
    cell.stop().await.unwrap();
}

#[tokio::test]
async fn a_refused_call_says_why() {
    let options = DevOptions { replicas: 1, ..DevOptions::default() };
    let cell = DevCell::start(options, logger()).await.unwrap();
    let address = &cell.addresses()[0];
    write(&cell.addresses(), "/file", "contents").await;
    let missing = GetContentsRequest { path: "/missing".into() };
    let refused = stub(address).await.get_contents(missing).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let name = RefusalCode::NotFound.as_str_name().trim_start_matches("REFUSAL_CODE_");
    assert_eq!(refused.metadata().get("holdfast-refusal").unwrap(), name);
    assert!(refused.message().contains("/missing"), "{}", refused.message());
    cell.stop().await.unwrap();
}

#[tokio::test]
async fn a_stopped_cell_comes_back_with_its_sessions_and_locks() {
    let dir = tempfile::tempdir().unwrap();
    let options = DevOptions { data_dir: Some(dir.path().to_owned()), ..DevOptions::default() };
    let cell = DevCell::start(options.clone(), logger()).await.unwrap();
    let addresses = cell.addresses();
    let (mut stream, hello) = Stream::begin(&addresses, open_session(SECRET)).await;
    let Hello::Opened(opened) = hello else { panic!("{hello:?}") };
    stream.request(1, open("/lock")).await;
    let outcome::Result::Granted(granted) = stream.request(2, acquire(1)).await else {
        panic!("the lock is free")
    };
    cell.stop().await.unwrap();

    let cell = DevCell::start(options, logger()).await.unwrap();
    assert_eq!(cell.addresses(), addresses);
    let (mut stream, hello) = Stream::begin(&addresses, attach(opened.session, 2)).await;
    let Hello::Attached(attached) = hello else { panic!("{hello:?}") };
    assert_eq!(attached.locks.len(), 1);
    assert_eq!(attached.locks[0].granted, Some(granted));
    assert_eq!(stream.keep_alive(1).await, 30_000);
    cell.stop().await.unwrap();
}

#[tokio::test]
async fn a_cell_that_is_dropped_ends_and_leaves_nothing_behind() {
    let cell = DevCell::start(DevOptions::default(), logger()).await.unwrap();
    let (address, dir) = (cell.addresses()[0].clone(), cell.data_dir().to_owned());
    assert!(dir.is_dir());
    drop(cell);
    assert!(!dir.exists());
    assert!(CellClient::connect(format!("http://{address}")).await.is_err());
}

#[tokio::test]
async fn a_cell_goes_on_when_its_master_is_stopped_and_takes_it_back() {
    let mut cell = DevCell::start(DevOptions::default(), logger()).await.unwrap();
    let addresses = cell.addresses();
    write(&addresses, "/file", "before").await;
    let master = cell.master().await.unwrap();
    cell.stop_replica(master).await.unwrap();
    let others: Vec<_> =
        (1..=3).filter(|id| *id != master.0).map(|id| addresses[id as usize - 1].clone()).collect();
    write(&others, "/file", "between").await;
    cell.start_replica(master).await.unwrap();
    let successor = cell.master().await.unwrap();
    assert_ne!(successor, ReplicaId(0));
    let caught_up = async {
        loop {
            let (back, there) = (status(&addresses[master.0 as usize - 1]).await, status(&others[0]).await);
            if let (Ok(back), Ok(there)) = (back, there)
                && back.revision == there.revision
            {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, caught_up).await.expect("the replica catches up");
    cell.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_its_session_goes_on() {
    const READS: u64 = 1_000;
    let options = DevOptions { replicas: 1, ..DevOptions::default() };
    let cell = DevCell::start(options, logger()).await.unwrap();
    let addresses = cell.addresses();
    let (mut stream, hello) = Stream::begin(&addresses, open_session(SECRET)).await;
    let Hello::Opened(opened) = hello else { panic!("{hello:?}") };
    stream.request(1, open("/large")).await;
    let contents = vec![0; 256 << 10].into();
    let set = SetContents { handle: 1, contents, if_generation: None };
    assert!(matches!(stream.request(2, Operation::SetContents(set)).await, outcome::Result::Written(_)));

    // A quarter of a gigabyte of answers, and nobody takes them.
    let read = Operation::GetContents(GetContents { handle: 1 });
    let requests = (3..3 + READS).map(|number| Request { number, operation: Some(read.clone()) });
    stream.send(ClientFrame { requests: requests.collect(), ..ClientFrame::default() }).await;
    let cut_off = async { while status(&addresses[0]).await.unwrap().attached > 0 {} };
    tokio::time::timeout(LIMIT, cut_off).await.expect("the client is cut off, and others are served");
    let mut taken = 0;
    let refused = loop {
        match stream.read().await {
            Ok(frame) => taken += frame.expect("the end has a reason").replies.len(),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!((taken as u64) < READS);

    let (mut stream, hello) = Stream::begin(&addresses, attach(opened.session, 2)).await;
    assert!(matches!(hello, Hello::Attached(_)));
    assert!(matches!(stream.request(3 + READS, read).await, outcome::Result::Contents(_)));
    cell.stop().await.unwrap();
}

#[tokio::test]
async fn a_frame_that_is_too_long_ends_the_stream_with_the_reason() {
    let options = DevOptions { replicas: 1, ..DevOptions::default() };
    let cell = DevCell::start(options, logger()).await.unwrap();
    let (mut stream, _) = Stream::begin(&cell.addresses(), open_session(SECRET)).await;
    let set = SetContents { handle: 1, contents: vec![0; 5 << 20].into(), if_generation: None };
    let request = Request { number: 1, operation: Some(Operation::SetContents(set)) };
    stream.send(ClientFrame { requests: vec![request], ..ClientFrame::default() }).await;
    let last = stream.read().await.unwrap().expect("the end has a reason");
    let Some(Hello::Refused(refused)) = last.hello else { panic!("{last:?}") };
    let refusal = refused.refusal.unwrap();
    assert_eq!(refusal.code(), RefusalCode::Limit, "{refusal:?}");
    assert!(refusal.message.contains("4194304 bytes"), "{refusal:?}");
    cell.stop().await.unwrap();
}

#[tokio::test]
async fn a_stream_that_begins_without_a_hello_ends_with_the_reason() {
    let options = DevOptions { replicas: 1, ..DevOptions::default() };
    let cell = DevCell::start(options, logger()).await.unwrap();
    let mut stub = CellClient::connect(format!("http://{}", cell.addresses()[0])).await.unwrap();
    let frames = tokio_stream::iter([ClientFrame::default()]);
    let mut answers = stub.session(frames).await.unwrap().into_inner();
    let last = answers.message().await.unwrap().expect("the end has a reason");
    let Some(Hello::Refused(refused)) = last.hello else { panic!("{last:?}") };
    assert_eq!(refused.refusal.unwrap().code(), RefusalCode::Protocol);
    cell.stop().await.unwrap();
}

#[tokio::test]
async fn a_refused_stream_ends_with_the_status_of_its_refusal() {
    let options = DevOptions { replicas: 1, ..DevOptions::default() };
    let cell = DevCell::start(options, logger()).await.unwrap();
    let mut stub = CellClient::connect(format!("http://{}", cell.addresses()[0])).await.unwrap();
    let first = |hello| ClientFrame { hello, ..ClientFrame::default() };
    let unknown = first(Some(attach(1 << 40, 2)));
    for (frame, code, name) in
        [(first(None), Code::InvalidArgument, "PROTOCOL"), (unknown, Code::NotFound, "UNKNOWN_SESSION")]
    {
        // The client's side stays open, or the stream might be over before the refusal.
        let frames = tokio_stream::iter([frame]).chain(tokio_stream::pending());
        let mut answers = stub.session(frames).await.unwrap().into_inner();
        let refused = answers.message().await.unwrap().expect("the refusal comes first");
        assert!(matches!(refused.hello, Some(Hello::Refused(_))), "{refused:?}");
        let status = answers.message().await.unwrap_err();
        assert_eq!(status.code(), code, "{status}");
        assert_eq!(status.metadata().get("holdfast-refusal").unwrap(), name);
    }
    cell.stop().await.unwrap();
}
