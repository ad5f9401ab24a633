//! A client that speaks the protocol word by word, and so can say what the library never would.

use bytes::Bytes;
use holdfast_proto::client::v1::cell_client::CellClient;
use holdfast_proto::client::v1::{
    AttachSession, ClientFrame, OpenSession, Outcome, Refusal, Request, ServerFrame, client_frame::Hello,
    request::Operation, server_frame,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::wait::within;

/// Connects to a replica.
///
/// # Panics
///
/// If that is not possible.
pub async fn connect(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("the address is well-formed");
    within("a replica takes the connection", endpoint.connect()).await.expect("the replica listens")
}

/// An opening of a session with this secret.
#[must_use]
pub fn opening(secret: &[u8]) -> OpenSession {
    let secret = Bytes::copy_from_slice(secret);
    OpenSession { secret, lease_ms: 10_000, client: "raw".to_owned(), ..OpenSession::default() }
}

/// A session's stream.
#[derive(Debug)]
pub struct Stream {
    frames: mpsc::UnboundedSender<ClientFrame>,
    inbound: Streaming<ServerFrame>,
}

impl Stream {
    /// Begins a stream with this hello, and gives the first frame of the answer.
    ///
    /// # Errors
    ///
    /// The refusal, if the stream is refused.
    ///
    /// # Panics
    ///
    /// If the stream breaks.
    pub async fn begin(channel: Channel, hello: Hello) -> Result<(Self, ServerFrame), Refusal> {
        let mut stream =
            Self::with_first(channel, ClientFrame { hello: Some(hello), ..ClientFrame::default() }).await;
        let mut answer = stream.next().await.expect("the hello is answered");
        match answer.hello.take() {
            Some(server_frame::Hello::Refused(refused)) => Err(refused.refusal.unwrap_or_default()),
            hello => Ok((stream, ServerFrame { hello, ..answer })),
        }
    }

    /// A stream that begins with this frame.
    async fn with_first(channel: Channel, first: ClientFrame) -> Self {
        let (frames, outbound) = mpsc::unbounded_channel();
        frames.send(first).expect("the other end is here");
        let mut client = CellClient::new(channel);
        let call = client.session(UnboundedReceiverStream::new(outbound));
        let inbound = within("a stream", call).await.expect("the replica takes streams").into_inner();
        Self { frames, inbound }
    }

    /// Opens a session, and gives its id.
    ///
    /// # Errors
    ///
    /// The refusal, if the session is refused.
    pub async fn open(channel: Channel, opening: OpenSession) -> Result<(Self, u64), Refusal> {
        let (stream, answer) = Self::begin(channel, Hello::Open(opening)).await?;
        let Some(server_frame::Hello::Opened(opened)) = answer.hello else {
            panic!("{answer:?} is no opening")
        };
        Ok((stream, opened.session))
    }

    /// Attaches a stream to a session.
    ///
    /// # Errors
    ///
    /// The refusal, if the attachment is refused.
    pub async fn attach(channel: Channel, attach: AttachSession) -> Result<Self, Refusal> {
        Self::begin(channel, Hello::Attach(attach)).await.map(|(stream, _)| stream)
    }

    /// Sends a hello, which only the first frame may hold.
    pub fn send_hello(&self, hello: Hello) {
        // It fails if the stream has ended, which the next read tells.
        let _ = self.frames.send(ClientFrame { hello: Some(hello), ..ClientFrame::default() });
    }

    /// Waits until the stream is refused.
    ///
    /// # Panics
    ///
    /// If it ends otherwise.
    pub async fn refusal(&mut self) -> Refusal {
        loop {
            let frame = self.next().await.expect("a refusal comes before the end");
            if let Some(server_frame::Hello::Refused(refused)) = frame.hello {
                return refused.refusal.unwrap_or_default();
            }
        }
    }

    /// Sends a request.
    pub fn send(&self, number: u64, operation: Operation) {
        let request = Request { number, operation: Some(operation) };
        // It fails if the stream has ended, which the next read tells.
        let _ = self.frames.send(ClientFrame { requests: vec![request], ..ClientFrame::default() });
    }

    /// Sends a request, and waits for what comes of it.
    ///
    /// # Panics
    ///
    /// If the stream ends first.
    pub async fn call(&mut self, number: u64, operation: Operation) -> Outcome {
        self.send(number, operation);
        loop {
            let frame = self.next().await.expect("the stream lives on");
            if let Some(reply) = frame.replies.into_iter().find(|reply| reply.number == number) {
                return reply.outcome.expect("a reply has an outcome");
            }
        }
    }

    /// The next frame.
    ///
    /// # Errors
    ///
    /// The status that the stream ended with.
    pub async fn next(&mut self) -> Result<ServerFrame, Status> {
        let frame = within("a frame", self.inbound.message()).await?;
        frame.ok_or_else(|| Status::ok("the stream has ended"))
    }
}

/// Begins a stream without a hello, and gives the refusal.
pub async fn begin_without_hello(channel: Channel) -> Refusal {
    Stream::with_first(channel, ClientFrame::default()).await.refusal().await
}

/// Makes a unary call whose one field, of number 1, holds bytes where the service expects text.
///
/// # Errors
///
/// What the replica says to that.
pub async fn call_with_bytes(
    channel: Channel,
    method: &'static str,
    text: &'static [u8],
) -> Result<(), Status> {
    // A message of ours whose first field is bytes looks just like one whose first field is text.
    let message =
        holdfast_proto::log::v1::OpenSession { secret: Bytes::from_static(text), ..Default::default() };
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let codec: ProstCodec<_, holdfast_proto::client::v1::GetStatResponse> = ProstCodec::default();
    let call = client.unary(tonic::Request::new(message), PathAndQuery::from_static(method), codec);
    within("an answer", call).await.map(|_| ())
}
