//! A replica whose every word the test says: real sockets and frames, no cell behind them.

use crate::service::Service;
use holdfast::{Cell, Handle, OpenOptions, Session};
use holdfast_proto::client::v1 as wire;
use holdfast_proto::client::v1::cell_server::CellServer;
use holdfast_proto::client::v1::{client_frame, outcome, request::Operation, server_frame};
use rustls::ServerConfig;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Status, Streaming};

/// Whatever is waited for here comes at once, or something is wrong.
const LIMIT: Duration = Duration::from_secs(10);

/// A listening replica. It stops when it is dropped.
pub(crate) struct Replica {
    pub(crate) address: String,
    streams: mpsc::Receiver<Stream>,
    writes: mpsc::Sender<Result<wire::SetContentsResponse, Status>>,
    extensions: mpsc::Receiver<wire::ExtendLeaseRequest>,
    extension_ms: Arc<AtomicU32>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// One session stream, with the test as master.
pub(crate) struct Stream {
    /// What the client calls it.
    pub(crate) name: String,
    pub(crate) inbound: Streaming<wire::ClientFrame>,
    /// Dropped to cut the stream.
    pub(crate) outbound: mpsc::Sender<Result<wire::ServerFrame, Status>>,
    /// Whether KeepAlives are answered by the way, and with how long a lease.
    pub(crate) lease_ms: Option<u32>,
    /// Whether the client may keep what it is answered.
    pub(crate) cacheable: bool,
    /// What the client has acknowledged.
    pub(crate) notices_through: u64,
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

impl Replica {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it listens").to_string();
        let incoming = TcpListenerStream::new(listener);
        Self::serve(address, async move |service| {
            let mut server = tonic::transport::Server::builder();
            server.add_service(service).serve_with_incoming(incoming).await
        })
    }

    /// One that speaks TLS.
    pub(crate) async fn start_tls(config: ServerConfig) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("it listens").to_string();
        let (connections, incoming) = mpsc::channel(8);
        let accepting = tokio::spawn(accept_tls(listener, TlsAcceptor::from(Arc::new(config)), connections));
        let mut replica = Self::serve(address, async move |service| {
            let mut server = tonic::transport::Server::builder();
            server.add_service(service).serve_with_incoming(ReceiverStream::new(incoming)).await
        });
        replica.tasks.push(accepting);
        replica
    }

    fn serve<F>(address: String, serve: impl FnOnce(CellServer<Service>) -> F) -> Self
    where
        F: Future<Output = Result<(), tonic::transport::Error>> + Send + 'static,
    {
        let (streams_sent, streams) = mpsc::channel(8);
        let (writes, writes_received) = mpsc::channel(8);
        let (extensions_sent, extensions) = mpsc::channel(8);
        let extension_ms = Arc::new(AtomicU32::new(4_000));
        let service = Service {
            streams: streams_sent,
            writes: Mutex::new(writes_received),
            extensions: extensions_sent,
            extension_ms: Arc::clone(&extension_ms),
        };
        let serving = serve(CellServer::new(service));
        let server = tokio::spawn(async move { serving.await.expect("the server serves") });
        Self { address, streams, writes, extensions, extension_ms, tasks: vec![server] }
    }

    /// The next stream that a client opens.
    pub(crate) async fn accept(&mut self) -> Stream {
        within(self.streams.recv()).await.expect("the replica runs")
    }

    /// The next KeepAlive that comes past its stream. It is answered at once, with a lease of 4 s if the test does
    /// not say otherwise.
    pub(crate) async fn past_stream(&mut self) -> wire::ExtendLeaseRequest {
        within(self.extensions.recv()).await.expect("the replica runs")
    }

    /// How long the leases are from now on that are granted past streams; 0: there are none.
    pub(crate) fn extend_by(&self, lease_ms: u32) {
        self.extension_ms.store(lease_ms, Ordering::Relaxed);
    }

    /// What the next write by name is answered.
    pub(crate) async fn answer_write(&self, answer: Result<wire::SetContentsResponse, Status>) {
        self.writes.send(answer).await.expect("the replica runs");
    }

    /// Whether somebody has tried to write without finding an answer, or left one.
    pub(crate) fn answers_left(&self) -> usize {
        self.writes.max_capacity() - self.writes.capacity()
    }
}

impl Stream {
    /// The next frame; a KeepAlive in it is answered by the way.
    async fn any_frame(&mut self) -> wire::ClientFrame {
        let frame = within(self.inbound.message()).await.expect("the stream stands").expect("it goes on");
        if let (Some(keep_alive), Some(lease_ms)) = (&frame.keep_alive, self.lease_ms) {
            let lease = wire::LeaseGranted { number: keep_alive.number, lease_ms };
            self.send(wire::ServerFrame { lease: Some(lease), ..wire::ServerFrame::default() }).await;
        }
        self.notices_through = self.notices_through.max(frame.notices_through);
        frame
    }

    /// The number of the next KeepAlive.
    pub(crate) async fn keep_alive(&mut self) -> u64 {
        loop {
            if let Some(keep_alive) = self.any_frame().await.keep_alive {
                return keep_alive.number;
            }
        }
    }

    /// The next frame that is more than a KeepAlive or an acknowledgement.
    pub(crate) async fn frame(&mut self) -> wire::ClientFrame {
        loop {
            let frame = self.any_frame().await;
            if frame.hello.is_some() || !frame.requests.is_empty() || frame.close.is_some() {
                return frame;
            }
        }
    }

    /// The one request of the next frame.
    pub(crate) async fn request(&mut self) -> (u64, Operation) {
        let mut frame = self.frame().await;
        assert_eq!(frame.requests.len(), 1, "{frame:?}");
        let request = frame.requests.remove(0);
        (request.number, request.operation.expect("a request asks for something"))
    }

    pub(crate) async fn send(&self, frame: wire::ServerFrame) {
        self.outbound.send(Ok(frame)).await.expect("the client listens");
    }

    pub(crate) async fn reply(&self, number: u64, result: outcome::Result) {
        let outcome = Some(wire::Outcome { revision: 100, result: Some(result) });
        let replies = vec![wire::Reply { number, outcome, cacheable: self.cacheable }];
        self.send(wire::ServerFrame { replies, ..wire::ServerFrame::default() }).await;
    }

    /// Answers the next request, which it returns.
    pub(crate) async fn answer(&mut self, result: outcome::Result) -> Operation {
        let (number, operation) = self.request().await;
        self.reply(number, result).await;
        operation
    }

    /// Sends a notice, and waits until the client has acknowledged it.
    pub(crate) async fn notice(&mut self, notice: wire::Notice) {
        let number = notice.number;
        self.send(wire::ServerFrame { notices: vec![notice], ..wire::ServerFrame::default() }).await;
        while self.notices_through < number {
            let frame = self.any_frame().await;
            assert!(frame.requests.is_empty(), "{frame:?}");
        }
    }

    /// Takes the hello of a client and opens its session.
    pub(crate) async fn open(&mut self, lease_ms: u32) {
        self.lease_ms = Some(lease_ms);
        let frame = self.frame().await;
        assert!(matches!(frame.hello, Some(client_frame::Hello::Open(_))), "{frame:?}");
        let opened = wire::SessionOpened {
            session: 9,
            lease_ms,
            lease_length_ms: lease_ms,
            cell: Some(cell(1)),
            principal: "anonymous".to_owned(),
        };
        self.hello(server_frame::Hello::Opened(opened)).await;
    }

    /// Takes the hello of a client and attaches its session.
    pub(crate) async fn attach(&mut self, lease_ms: u32) {
        self.attach_at(1, lease_ms).await;
    }

    /// The same as master of a term.
    pub(crate) async fn attach_at(&mut self, term: u64, lease_ms: u32) {
        self.lease_ms = Some(lease_ms);
        let frame = self.frame().await;
        let Some(client_frame::Hello::Attach(attach)) = frame.hello else {
            panic!("no attachment: {frame:?}")
        };
        let attachment = attach.attachment;
        let attached = wire::SessionAttached { attachment, locks: Vec::new(), cell: Some(cell(term)) };
        self.hello(server_frame::Hello::Attached(attached)).await;
    }

    pub(crate) async fn hello(&self, hello: server_frame::Hello) {
        self.send(wire::ServerFrame { hello: Some(hello), ..wire::ServerFrame::default() }).await;
    }

    /// Serves an Open.
    pub(crate) async fn serve_open(&mut self) -> u64 {
        let (number, operation) = self.request().await;
        assert!(matches!(operation, Operation::Open(_)), "{operation:?}");
        self.reply(number, opened()).await;
        number
    }

    /// Serves an Acquire, at once.
    pub(crate) async fn serve_acquire(&mut self) -> u64 {
        let (number, operation) = self.request().await;
        assert!(matches!(operation, Operation::Acquire(_)), "{operation:?}");
        self.reply(number, granted(42)).await;
        number
    }
}

/// Hands on every connection whose handshake succeeds.
async fn accept_tls(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    connections: mpsc::Sender<Result<DuplexStream, std::io::Error>>,
) {
    while let Ok((tcp, _)) = listener.accept().await {
        let (acceptor, connections) = (acceptor.clone(), connections.clone());
        tokio::spawn(async move {
            let Ok(mut tls) = acceptor.accept(tcp).await else { return };
            let (mut ours, theirs) = tokio::io::duplex(1 << 16);
            if connections.send(Ok(theirs)).await.is_ok() {
                // It ends with the connection.
                let _ = tokio::io::copy_bidirectional(&mut tls, &mut ours).await;
            }
        });
    }
}

/// An open session, and the stream that serves it.
pub(crate) async fn session(replica: &mut Replica, lease_ms: u32, grace: Duration) -> (Session, Stream) {
    let cell = Cell::connect([&replica.address]).unwrap();
    let open = tokio::spawn(cell.session().lease(Duration::from_millis(lease_ms.into())).grace(grace).open());
    let mut stream = replica.accept().await;
    stream.open(lease_ms).await;
    (within(open).await.unwrap().unwrap(), stream)
}

/// An open handle of an open session.
pub(crate) async fn handle(replica: &mut Replica) -> (Session, Handle, Stream) {
    handle_with(replica, OpenOptions::new().create()).await
}

/// The same, opened as the test wants.
pub(crate) async fn handle_with(replica: &mut Replica, options: OpenOptions) -> (Session, Handle, Stream) {
    let (session, mut stream) = session(replica, 10_000, Duration::from_secs(45)).await;
    let (handle, _) = tokio::join!(session.open("/leader", options), stream.serve_open());
    (session, handle.unwrap(), stream)
}

/// The metadata of the one file that there is.
pub(crate) fn stat() -> wire::Stat {
    let acl = wire::AclNames { read: "*".to_owned(), write: "team".to_owned(), change: "admin".to_owned() };
    wire::Stat {
        kind: wire::NodeKind::File.into(),
        instance: 5,
        content_generation: 6,
        acl_generation: 5,
        acl: Some(acl),
        ..wire::Stat::default()
    }
}

pub(crate) fn opened() -> outcome::Result {
    outcome::Result::Opened(Box::new(wire::Opened { created: true, stat: Some(stat()) }))
}

pub(crate) fn contents(text: &'static str) -> outcome::Result {
    outcome::Result::Contents(Box::new(wire::Contents { stat: Some(stat()), contents: text.into() }))
}

/// A notice of something that happened to the node of a handle.
pub(crate) fn told(number: u64, handle: u64, kinds: &[wire::EventKind]) -> wire::Notice {
    let kinds = kinds.iter().map(|kind| i32::from(*kind)).collect();
    let event = wire::HandleEvent {
        handle,
        kinds,
        content_generation: 100 + number,
        children_generation: 100 + number,
        ..wire::HandleEvent::default()
    };
    wire::Notice { number, events: vec![event], ..wire::Notice::default() }
}

pub(crate) fn granted(lock_generation: u64) -> outcome::Result {
    let mode = wire::LockMode::Exclusive.into();
    outcome::Result::Granted(wire::Granted { mode, lock_generation, instance: 5 })
}

/// Waits for what must come.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(LIMIT, future).await.expect("it does not come")
}

fn cell(term: u64) -> wire::CellInfo {
    wire::CellInfo {
        name: "dev".to_owned(),
        cell_id: 77,
        term,
        addresses: Vec::new(),
        requests_in_flight_max: 64,
        contents_bytes_max: 262_144,
        reattach_spread_ms: 0,
    }
}
