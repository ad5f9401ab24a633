//! The service that other replicas call: Hello, raft messages, snapshots.
//!
//! A caller that can never be admitted is answered with the reason in `refused`, and stops; one that may be
//! admitted later gets the status `FailedPrecondition`, and tries again.

use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::client::v1::admin_server::AdminServer;
use holdfast_proto::client::v1::cell_server::CellServer;
use holdfast_proto::log::v1::Member;
use holdfast_proto::peer::v1::peer_server::{Peer, PeerServer};
use holdfast_proto::peer::v1::{
    HelloRequest, HelloResponse, Identity, MessagesResponse, PeerFrame, SnapshotChunk, SnapshotResponse,
};
use holdfast_replica::Input;
use holdfast_replica::admission::Denial;
use holdfast_types::{Duration, ReplicaId};
use slog::{Logger, debug, info, warn};
use tokio::sync::{Semaphore, mpsc};
use tonic::transport::Server;
use tonic::transport::server::Router;
use tonic::{Request, Response, Status, Streaming};

use super::PeerBook;
use super::dial::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, MESSAGE_BYTES_MAX};
use super::snapshot::receive;
use crate::driver::CoreInput;
use crate::guests::UnderWay;
use crate::socket::Caller;
use crate::tls::Presented;
use crate::wrong_port::WrongPort;

/// A stream must say who sends within this time.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(5);
/// What a replica may send by one connection before any of it is taken. HTTP/2's library closes a connection on which frames
/// of less than 256 bytes wait that lack half of this to be so long: that is more than the messages in a stream's window do.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// So many snapshots are taken at a time; one is the rule, two if the master changes during one.
const SNAPSHOTS_MAX: usize = 2;

/// The service.
pub(crate) struct PeerService {
    book: Arc<PeerBook>,
    core: mpsc::Sender<CoreInput>,
    snapshots: Semaphore,
    logger: Logger,
}

impl PeerService {
    /// A service that feeds `core`.
    pub(crate) fn new(book: Arc<PeerBook>, core: mpsc::Sender<CoreInput>, logger: Logger) -> Self {
        Self { book, core, snapshots: Semaphore::new(SNAPSHOTS_MAX), logger }
    }

    /// The service, ready to be served.
    pub(crate) fn router(self) -> Router {
        let book = Arc::clone(&self.book);
        let advice = move || match book.my_client_address() {
            Some(address) => format!("this port is for the replicas of the cell: clients use {address}"),
            None => "this port is for the replicas of the cell: clients use another one".to_owned(),
        };
        Server::builder()
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .add_service(PeerServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX))
            .add_service(WrongPort::<CellServer<()>>::new(advice.clone()))
            .add_service(WrongPort::<AdminServer<()>>::new(advice))
    }

    /// Whether the certificate that a request came with is that of the replica that it claims to be from. What
    /// cannot be true now may be with another certificate, so the sender goes on trying.
    fn check_certificate(&self, presented: &Presented, from: &Identity) -> Result<(), Status> {
        let me = self.book.me();
        presented.check_replica(&me.cell, ReplicaId(from.replica)).map_err(|why| {
            let whose = format!("replica {} of cell {:?}", from.replica, from.cell);
            warn!(self.logger, "refused somebody who claims to be {whose}: {why}");
            let me = format!("replica {} of cell {:?}", me.replica, me.cell);
            Status::permission_denied(format!("{me} does not believe that this is {whose}: {why}"))
        })
    }

    /// Whether the sender is admitted: `Ok(Err(reason))` is for the response, `Err` for the status.
    fn admit(&self, from: &Identity, to: u64) -> Result<Result<ReplicaId, String>, Status> {
        match self.book.admit(from, to) {
            Ok(id) => Ok(Ok(id)),
            Err(Denial::Never(reason)) => {
                warn!(self.logger, "refused replica {}: {reason}", from.replica);
                Ok(Err(reason))
            }
            Err(Denial::NotYet(reason)) => {
                debug!(self.logger, "put off replica {}: {reason}", from.replica);
                Err(Status::failed_precondition(reason))
            }
        }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn hello(&self, request: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        let (presented, _under_way, hello) = parts(request)?;
        self.check_certificate(&presented, &hello.from.clone().unwrap_or_default())?;
        let answer = self.book.answer(&hello);
        if !answer.refused.is_empty() {
            warn!(self.logger, "refused a replica: {}", answer.refused);
        }
        Ok(Response::new(answer))
    }

    async fn messages(
        &self,
        request: Request<Streaming<PeerFrame>>,
    ) -> Result<Response<MessagesResponse>, Status> {
        let (presented, _under_way, mut frames) = parts(request)?;
        let first = first(frames.message()).await?;
        let from = first.from.unwrap_or_default();
        self.check_certificate(&presented, &from)?;
        let id = match self.admit(&from, first.to)? {
            Ok(id) => id,
            Err(refused) => return Ok(Response::new(MessagesResponse { refused })),
        };
        let pulse = first.pulse;
        let contact = Member {
            id: id.0,
            data_id: from.data_id,
            peer_address: from.peer_address.clone(),
            ..Member::default()
        };
        self.core.send(CoreInput::Contact(contact)).await.map_err(|_| stopping())?;
        let announced = Input::PeerAnnounced { peer: id, state_version: from.state_version };
        self.core.send(CoreInput::Replica(announced)).await.map_err(|_| stopping())?;
        let reader = Reader {
            from,
            stream: (!pulse).then(|| self.book.begin_stream(id)),
            book: Arc::clone(&self.book),
            core: self.core.clone(),
            logger: self.logger.clone(),
        };
        // A task of its own: the handler's future is dropped when the connection breaks, and that is just when
        // the core must be told.
        let read = tokio::spawn(reader.run(first.messages, frames));
        let refused = read.await.map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(MessagesResponse { refused }))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotResponse>, Status> {
        let (presented, _under_way, mut chunks) = parts(request)?;
        let first = first(chunks.message()).await?;
        let from = first.from.unwrap_or_default();
        self.check_certificate(&presented, &from)?;
        let id = match self.admit(&from, first.to)? {
            Ok(id) => id,
            Err(refused) => return Ok(Response::new(SnapshotResponse { refused })),
        };
        let permit = self.snapshots.try_acquire();
        let _permit = permit.map_err(|_| Status::resource_exhausted("snapshots are being taken already"))?;
        info!(self.logger, "taking a snapshot from {id}");
        let state = match receive(self.book.me().cell_id, first.data, chunks).await? {
            Ok(state) => Box::new(state),
            Err(refused) => {
                warn!(self.logger, "refused a snapshot from {id}: {refused}");
                return Ok(Response::new(SnapshotResponse { refused }));
            }
        };
        let arrived = Input::SnapshotArrived { from: id, message: first.message, state };
        self.core.send(CoreInput::Replica(arrived)).await.map_err(|_| stopping())?;
        Ok(Response::new(SnapshotResponse::default()))
    }
}

/// Reads one stream of messages.
struct Reader {
    from: Identity,
    /// Its number; `None` if it is a pulse.
    stream: Option<u64>,
    book: Arc<PeerBook>,
    core: mpsc::Sender<CoreInput>,
    logger: Logger,
}

impl Reader {
    /// Reads until the stream breaks, or its sender is no longer welcome; then says why, and else nothing.
    async fn run(self, messages: Vec<Bytes>, frames: Streaming<PeerFrame>) -> String {
        let peer = ReplicaId(self.from.replica);
        let end = tokio::select! {
            reason = self.unwelcome() => {
                warn!(self.logger, "refused {peer} from now on: {reason}");
                return reason;
            }
            end = self.read(messages, frames) => end,
        };
        // The peer may have come back meanwhile, and be well.
        if self.stream.is_some_and(|stream| self.book.is_newest(peer, stream)) {
            info!(self.logger, "the connection from {peer} broke: {end}");
            // Fails only when the core is gone.
            let _ = self.core.send(CoreInput::Replica(Input::PeerReset { peer })).await;
        }
        String::new()
    }

    /// Waits until the sender is no longer welcome, and says why. A replica that is removed would not learn it
    /// otherwise: the others stop talking to it as soon as it is.
    async fn unwelcome(&self) -> String {
        let mut changes = self.book.member_changes();
        loop {
            if let Err(Denial::Never(reason)) = self.book.admit(&self.from, self.book.me().replica) {
                return reason;
            }
            changes.changed().await.expect("the book holds the sender");
        }
    }

    /// Reads until the stream breaks, and says how it did.
    async fn read(&self, mut messages: Vec<Bytes>, mut frames: Streaming<PeerFrame>) -> String {
        let from = ReplicaId(self.from.replica);
        loop {
            if !messages.is_empty()
                && self.core.send(CoreInput::Replica(Input::Peer { from, messages })).await.is_err()
            {
                return "this replica is stopping".to_owned();
            }
            match frames.message().await {
                Ok(Some(frame)) => messages = frame.messages,
                Ok(None) => return "it ended".to_owned(),
                Err(status) => return status.message().to_owned(),
            }
        }
    }
}

/// What whoever made the connection has proved, that it is in use, and what came by it.
fn parts<M>(request: Request<M>) -> Result<(Presented, UnderWay, M), Status> {
    // Every connection that comes by a door has the extension.
    let caller = request.extensions().get::<Caller>().cloned();
    let Caller { presented, visit, .. } =
        caller.ok_or_else(|| Status::internal("the connection does not say who made it"))?;
    Ok((presented, visit.begin(), request.into_inner()))
}

/// The first message of a stream, which says who sends.
async fn first<M>(message: impl Future<Output = Result<Option<M>, Status>>) -> Result<M, Status> {
    let first = tokio::time::timeout(FIRST_FRAME_TIMEOUT, message).await;
    let first = first.map_err(|_| Status::deadline_exceeded("nobody said who sends"))??;
    first.ok_or_else(|| Status::invalid_argument("the stream ended before it said who sends"))
}

fn stopping() -> Status {
    Status::unavailable("this replica is stopping")
}
