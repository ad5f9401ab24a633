//! A session's client of the plainest kind: the generated stub, and no library in between.

use holdfast_proto::client::STREAM_KEY;
use holdfast_proto::client::v1::cell_client::CellClient;
use holdfast_proto::client::v1::server_frame::Hello;
use holdfast_proto::client::v1::{
    AttachSession, ClientFrame, Creation, KeepAlive, LockMode, NodeKind, OpenSession, Outcome, Request,
    ServerFrame, client_frame, outcome, request,
};
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use crate::support::LIMIT;

/// How many streams were begun.
static STREAMS: AtomicU64 = AtomicU64::new(0);

pub(crate) const SECRET: &[u8] = b"a secret of the test's own";

/// A session's stream.
pub(crate) struct Stream {
    /// What it can be named by elsewhere.
    pub(crate) name: String,
    frames: mpsc::Sender<ClientFrame>,
    answers: Streaming<ServerFrame>,
    /// Outcomes that came while something else was waited for.
    outcomes: Vec<(u64, Outcome)>,
}

impl Stream {
    /// Begins a stream with `hello` at the first of `addresses` that does not refuse it, and gives the answer.
    pub(crate) async fn begin(addresses: &[String], hello: client_frame::Hello) -> (Self, Hello) {
        let trying = async {
            for address in addresses.iter().cycle() {
                if let Some(begun) = Self::try_begin(address, hello.clone()).await {
                    return begun;
                }
                tokio::task::yield_now().await;
            }
            unreachable!("addresses go round")
        };
        tokio::time::timeout(LIMIT, trying).await.expect("a replica serves the stream")
    }

    pub(crate) async fn try_begin(address: &str, hello: client_frame::Hello) -> Option<(Self, Hello)> {
        let mut stub = CellClient::connect(format!("http://{address}")).await.ok()?;
        let (frames, sent) = mpsc::channel(16);
        let first = ClientFrame { hello: Some(hello), ..ClientFrame::default() };
        frames.send(first).await.unwrap();
        let name = format!("a stream of the test's {}", STREAMS.fetch_add(1, Ordering::Relaxed));
        let mut request = tonic::Request::new(ReceiverStream::new(sent));
        request.metadata_mut().insert(STREAM_KEY, name.parse().unwrap());
        let mut answers = stub.session(request).await.ok()?.into_inner();
        match answers.message().await.ok()??.hello? {
            Hello::Refused(_) => None,
            hello => Some((Self { name, frames, answers, outcomes: Vec::new() }, hello)),
        }
    }

    /// Sends a request and waits for its outcome.
    pub(crate) async fn request(&mut self, number: u64, operation: request::Operation) -> outcome::Result {
        let request = Request { number, operation: Some(operation) };
        self.send(ClientFrame { requests: vec![request], ..ClientFrame::default() }).await;
        let waiting = async {
            loop {
                if let Some(place) = self.outcomes.iter().position(|(replied, _)| *replied == number) {
                    return self.outcomes.swap_remove(place).1;
                }
                self.next().await;
            }
        };
        let outcome = tokio::time::timeout(LIMIT, waiting).await.expect("the request is decided");
        outcome.result.unwrap()
    }

    /// Sends a KeepAlive and waits for the lease.
    pub(crate) async fn keep_alive(&mut self, number: u64) -> u32 {
        let keep_alive = Some(KeepAlive { number });
        self.send(ClientFrame { keep_alive, ..ClientFrame::default() }).await;
        let waiting = async {
            loop {
                match self.next().await.lease {
                    Some(lease) if lease.number == number => return lease.lease_ms,
                    _ => {}
                }
            }
        };
        tokio::time::timeout(LIMIT, waiting).await.expect("the lease is extended")
    }

    pub(crate) async fn send(&self, frame: ClientFrame) {
        self.frames.send(frame).await.unwrap();
    }

    /// The next frame; or how the stream ends.
    pub(crate) async fn read(&mut self) -> Result<Option<ServerFrame>, Status> {
        self.answers.message().await
    }

    async fn next(&mut self) -> ServerFrame {
        let frame = self.read().await.unwrap().expect("the stream goes on");
        let replies = frame.replies.iter().map(|reply| (reply.number, reply.outcome.clone().unwrap()));
        self.outcomes.extend(replies);
        frame
    }
}

pub(crate) fn open_session(secret: &'static [u8]) -> client_frame::Hello {
    client_frame::Hello::Open(OpenSession {
        secret: secret.into(),
        lease_ms: 30_000,
        client: "test".into(),
        attachment: 1,
        ..OpenSession::default()
    })
}

pub(crate) fn attach(session: u64, attachment: u64) -> client_frame::Hello {
    client_frame::Hello::Attach(AttachSession {
        session,
        secret: SECRET.into(),
        attachment,
        ..AttachSession::default()
    })
}

pub(crate) fn open(path: &str) -> request::Operation {
    request::Operation::Open(Box::new(holdfast_proto::client::v1::Open {
        path: path.into(),
        creation: Creation::May.into(),
        kind: NodeKind::File.into(),
        ..Default::default()
    }))
}

pub(crate) fn acquire(handle: u64) -> request::Operation {
    request::Operation::Acquire(holdfast_proto::client::v1::Acquire {
        handle,
        mode: LockMode::Exclusive.into(),
        try_only: false,
    })
}
