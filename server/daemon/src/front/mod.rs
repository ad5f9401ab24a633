//! The gRPC front: what clients of this replica talk to.
//!
//! It moves frames and calls to the core and answers back, and nothing more: it knows no session, no lock and no
//! raft. Every limit that protects the replica from its clients stands here. The trip of a frame: [`session`]
//! (one task reads a stream), the core, the connection's [`Outbox`](crate::outbox::Outbox), the stream.
//!
//! Invariant: a client that does not read, sends too much or goes away costs itself its stream, never the core
//! its time.

mod admin;
mod burden;
pub(crate) mod calls;
mod conform;
mod fields;
mod framing;
mod inbound;
pub(crate) mod intake;
pub(crate) mod leases;
pub(crate) mod refusal;
pub(crate) mod serving;
mod session;
mod spare;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_proto::client::v1::admin_server::AdminServer;
use holdfast_proto::client::v1::cell_server::CellServer;
use holdfast_proto::client::v1::{Refusal, RefusalCode};
use holdfast_proto::peer::v1::peer_server::PeerServer;
use holdfast_state::refusal::limit_facts;
use holdfast_types::{ConnectionId, Duration};
use slog::Logger;
use tokio::sync::{Semaphore, mpsc, watch};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::service::Routes;
use tower::Layer as _;
use tower::util::MapResponseLayer;

use crate::driver::CoreInput;
use crate::outbox::Budget;
use crate::peers::Greeter;
use crate::socket::Socket;
use crate::wrong_port::WrongPort;
use burden::{ADMIN_CALL_LIMITS, Burden, CALL_LIMITS, LEDGER_LIMITS, Places};
use conform::Conform;
use intake::Intake;
use refusal::{refused, status_of};
use spare::Spares;

/// The most bytes of one message from a client: the largest contents that settings allow, four times, since a
/// frame may carry several requests. What gRPC itself takes by default.
const MESSAGE_BYTES_MAX: usize = 4 << 20;
/// The most session streams at a time: as many as a cell has sessions by default.
const STREAMS_MAX: usize = 200_000;
/// The most callers that ask for the state's hash, of whom one is served at a time.
const HASHES_MAX: usize = 8;
/// The most KeepAlives past their streams that have no answer yet. Not more: when a replica is slow, all come at once.
const SPARES_MAX: usize = 1_024;
/// And the most of one connection, so that nobody has all of these. They are answered within one round.
pub(crate) const SPARES_PER_CONNECTION_MAX: usize = 128;
/// The most bytes of frames that session streams have not read yet.
const UNREAD_BYTES_MAX: usize = 64 << 20;
/// The most streams of one connection, over which a client may spread its sessions.
const STREAMS_PER_CONNECTION_MAX: u32 = 8_192;
/// What a stream may send before any of it is taken. What HTTP/2 holds of a stream is no more than that.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// And a connection: as much as HTTP/2 knows. What it holds is bounded by the streams' windows and counted in the ledger
/// ([`intake`]), so that no stream's bytes take room from its neighbours. HTTP/2's library counts 256 bytes for each
/// smaller frame that waits, and closes the connection when that comes to half of this.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// A connection may cancel as many calls before any of them is looked at as it may have streams. Callers that share a
/// connection do so together when whatever they wait for is slow.
const CANCELLED_MAX: usize = STREAMS_PER_CONNECTION_MAX as usize;
/// HTTP/2's library would close a connection after so many streams of it that broke a rule, however long it lives: those
/// that go on for a moment after the replica has ended them count among these. Each costs what any other frame does.
const BROKEN_STREAMS_MAX: Option<usize> = None;
/// Generous, so that it takes minutes of bad luck to lose a live connection that loses every fifth packet, and
/// a dead client still goes within the minute.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// What every answer passes on its way out.
type Tie = MapResponseLayer<fn(http::Response<Body>) -> http::Response<Body>>;

/// Whether there is a core to talk to.
#[derive(Clone, Debug)]
pub(crate) enum Phase {
    /// Not yet; the text says what the replica is waiting for.
    Starting(String),
    /// Yes, by this queue.
    Serving(mpsc::Sender<CoreInput>),
    /// No more.
    Stopping,
}

/// What all handlers share.
#[derive(Clone)]
pub(crate) struct Front {
    phase: watch::Receiver<Phase>,
    /// Dials a replica that is to be added.
    greeter: Arc<Greeter>,
    connections: Arc<AtomicU64>,
    streams: Arc<Semaphore>,
    calls: Places,
    /// For the calls of the service `Admin`.
    admin_calls: Places,
    /// For those who want the state hashed.
    hashes: Arc<Semaphore>,
    /// Of one: whoever has it may have the state hashed.
    hashing: Arc<Semaphore>,
    burden: Burden,
    /// Shared by what is on its way to all clients.
    unread: Arc<Budget>,
    spares: Arc<Spares>,
    logger: Logger,
}

impl Front {
    /// A front that follows `phase`.
    pub(crate) fn new(phase: watch::Receiver<Phase>, greeter: Arc<Greeter>, logger: Logger) -> Self {
        Self {
            phase,
            greeter,
            connections: Arc::new(AtomicU64::new(1)),
            streams: Arc::new(Semaphore::new(STREAMS_MAX)),
            calls: Places::new(CALL_LIMITS),
            admin_calls: Places::new(ADMIN_CALL_LIMITS),
            hashes: Arc::new(Semaphore::new(HASHES_MAX)),
            hashing: Arc::new(Semaphore::new(1)),
            burden: Burden::new(LEDGER_LIMITS),
            unread: Budget::new(UNREAD_BYTES_MAX),
            spares: Arc::default(),
            logger,
        }
    }

    /// Serves `connections` until `stop`, and then until their clients have read what they were answered.
    pub(crate) async fn serve(
        self,
        connections: impl tokio_stream::Stream<Item = io::Result<Socket>>,
        stop: impl Future<Output = ()>,
    ) {
        let intake = Intake { burden: self.burden.clone() };
        let cell = CellServer::new(self.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let admin = AdminServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let advice = || "this port is for clients: replicas of the cell use the peer address".to_owned();
        let peers = WrongPort::<PeerServer<()>>::new(advice);
        let services = Routes::new(cell).add_service(admin).add_service(peers).prepare();
        // A call comes in by the first of these first.
        let service = intake.layer(Conform.layer(Tie::new(burden::tie as fn(_) -> _).layer(services)));
        serving::serve(service, connections, stop).await;
    }

    /// The core's queue, or why there is none: a refusal, so that a caller knows that its call had no effect.
    fn core(&self) -> Result<mpsc::Sender<CoreInput>, Status> {
        match &*self.phase.borrow() {
            Phase::Serving(core) => Ok(core.clone()),
            Phase::Starting(waiting) => {
                let message = format!("this replica does not serve yet: {waiting}");
                Err(refused(RefusalCode::NotMaster, message))
            }
            Phase::Stopping => {
                Err(refused(RefusalCode::NotMaster, "this replica is stopping: try another one"))
            }
        }
    }

    fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.connections.fetch_add(1, Ordering::Relaxed))
    }
}

/// The core is gone, and has not heard of the call.
fn stopping() -> Status {
    refused(RefusalCode::NotMaster, "this replica is stopping: try another one")
}

/// The core has heard of the call, and is gone.
fn abandoned() -> Status {
    refused(RefusalCode::OutcomeUnknown, "this replica stopped before the call was decided")
}

fn overloaded(what: &str, max: usize) -> Status {
    let message = format!("this replica has {max} {what} already, the most it takes: try later");
    let facts = Some(limit_facts(what, max as u64, 0));
    status_of(&Refusal { code: RefusalCode::Overloaded.into(), message, facts }, "")
}
