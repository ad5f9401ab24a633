//! One session stream: a task that reads frames into the core, and the stream of frames back.
//!
//! Losing the stream never ends the session (design.md §7). The task ends when the client goes, when the core
//! ends the connection, or when the client sends nothing at first; it tells the core so, once, in each case.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use holdfast_proto::client::REFUSAL_KEY;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::server_frame::Hello;
use holdfast_proto::client::v1::{
    ClientFrame, Refusal, RefusalCode, ServerFrame, StreamRefused, client_frame,
};
use holdfast_replica::{Input, frame_bytes};
use holdfast_types::ledger::{Account, Charge};
use holdfast_types::{ConnectionId, Duration, Principal};
use slog::{Logger, debug};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_stream::Stream;
use tonic::{Code, Response, Status, Streaming};

use super::burden::{Burden, SMALL_BYTES, Unread, copy, try_frame, watch};
use super::calls::Asker;
use super::conform::too_long_refusal;
use super::inbound::FRAME_MAX;
use super::leases::Leases;
use super::refusal::{refused, status_of};
use super::serving::StreamEnd;
use super::spare::Registered;
use super::{Front, MESSAGE_BYTES_MAX, STREAMS_MAX, overloaded};
use crate::driver::{CoreInput, Line, Outgoing};
use crate::guests::UnderWay;
use crate::outbox::{Outbox, OutboxLimits, Popped};

/// A stream must say hello within this time.
const FIRST_FRAME_TIMEOUT: Duration = Duration::from_secs(10);
/// What a client may leave unread, where others leave little. A client that has 60 of the largest reads in flight still fits.
const OUTBOX_LIMITS: OutboxLimits = OutboxLimits { items_max: 4_096, bytes_max: 16 << 20 };

impl Front {
    /// Takes up a stream: from here on its frames go to the core.
    pub(super) async fn begin_session(
        &self,
        asker: Asker,
        name: Option<String>,
        frames: Streaming<ClientFrame>,
    ) -> Result<Response<SessionFrames>, Status> {
        let account = self.account_of(&asker);
        let Asker { principal, visit, stream, .. } = asker;
        let core = self.core()?;
        // From the beginning: the core may have more to do than it can, and then this waits for it.
        let under_way = visit.begin();
        let permit = Arc::clone(&self.streams).try_acquire_owned();
        let permit = permit.map_err(|_| overloaded("session streams", STREAMS_MAX))?;
        let connection = self.next_connection();
        let outbox = Outbox::new(OUTBOX_LIMITS, Arc::clone(&self.unread));
        let (read, taken) = oneshot::channel();
        let leases = Leases::default();
        let line = Line { outbox: Arc::clone(&outbox), account: account.clone(), leases: leases.clone() };
        let connected = CoreInput::Connected { connection, line };
        core.send(connected).await.map_err(|_| super::stopping())?;
        let spare = name.map(|name| self.spares.register(name, connection, principal.clone(), leases));
        let reader = Reader {
            connection,
            principal,
            frames,
            core,
            outbox: Arc::clone(&outbox),
            burden: self.burden.clone(),
            account,
            taken,
            _permit: permit,
            _under_way: under_way,
            stream,
            _spare: spare,
        };
        tokio::spawn(reader.run(self.logger.clone()));
        let mut response = Response::new(SessionFrames { outbox, refused: None, sending: None, _read: read });
        response.extensions_mut().insert(Unread::frames());
        Ok(response)
    }
}

/// Reads one stream.
struct Reader {
    connection: ConnectionId,
    /// Who the client has proved to be.
    principal: Principal,
    frames: Streaming<ClientFrame>,
    core: mpsc::Sender<CoreInput>,
    outbox: Arc<Outbox<Outgoing>>,
    /// What frames that wait for the core count in.
    burden: Burden,
    /// Its connection's account there.
    account: Account,
    /// Ends when the stream is gone.
    taken: oneshot::Receiver<()>,
    /// Ends the stream.
    stream: StreamEnd,
    /// Held for as long as the stream counts.
    _permit: OwnedSemaphorePermit,
    /// So that the connection is not taken for an idle one.
    _under_way: UnderWay,
    /// For as long as it lives, the stream's KeepAlives may come elsewhere too.
    _spare: Option<Registered>,
}

impl Reader {
    async fn run(mut self, logger: Logger) {
        let connection = self.connection;
        let outbox = Arc::clone(&self.outbox);
        let core = self.core.clone();
        tokio::select! {
            // First, so that a frame that has arrived is not preferred to the end that the core has decided.
            biased;
            () = outbox.ended() => {}
            end = self.read_all() => match end {
                Ok(()) => debug!(logger, "client closed its stream"; "connection" => %connection),
                Err(why) => {
                    debug!(logger, "client stream ends: {}", why.message; "connection" => %connection);
                    let refused = StreamRefused { refusal: Some(why), ..StreamRefused::default() };
                    let frame = ServerFrame { hello: Some(Hello::Refused(refused)), ..ServerFrame::default() };
                    let charge = self.account.charge_anyway(0);
                    // Whoever is gone need not be told why.
                    let _ = outbox.push(Outgoing { frame, charge }, 0);
                }
            },
        }
        outbox.finish();
        // Fails only when the core is gone, and then nobody need be told.
        let _ = core.send(CoreInput::Replica(Input::Disconnected { connection })).await;
        // What was sent before is still held for whoever does not read, though nothing more comes.
        watch(self.stream, self.taken);
    }

    /// Reads until the client closes its side. `Err` says why nothing more is read.
    async fn read_all(&mut self) -> Result<(), Refusal> {
        let first = tokio::time::timeout(FIRST_FRAME_TIMEOUT, self.frames.message()).await;
        let mut next = first.map_err(|_| {
            let seconds = FIRST_FRAME_TIMEOUT.as_secs();
            refusal(RefusalCode::Protocol, format!("no hello came within {seconds} s"))
        })?;
        // What follows on a stream that the core has ended is ignored there, so this is seen to here.
        if matches!(&next, Ok(Some(frame)) if frame.hello.is_none()) {
            let message = "the first frame of a stream must open or attach a session";
            return Err(refusal(RefusalCode::Protocol, message));
        }
        while let Some(frame) = next.map_err(|status| unreadable(&status))? {
            if self.hand_in(frame).await?.is_err() {
                return Err(refusal(RefusalCode::Overloaded, "this replica is stopping: try another one"));
            }
            next = self.frames.message().await;
        }
        Ok(())
    }
}

impl Reader {
    /// Hands a frame to the core, once there is room for it. `Err` inside says that the core is gone.
    async fn hand_in(&self, mut frame: ClientFrame) -> Result<Result<(), ()>, Refusal> {
        leave_buffer(&mut frame);
        let bytes = frame_bytes(&frame);
        let mut charge = match try_frame(&self.account, bytes) {
            Ok(charge) => charge,
            Err(_) => {
                self.send_lifted(&mut frame).await;
                // Its bytes count as they came until it is handed in: frames that waited for ever could keep each other waiting.
                let room = tokio::time::timeout(FRAME_MAX, self.burden.frame(&self.account, bytes)).await;
                let full =
                    |full: String| refusal(RefusalCode::Overloaded, format!("a frame finds no room: {full}"));
                room.map_err(|_| full(format!("there was none for {} s", FRAME_MAX.as_secs())))?
                    .map_err(|why| full(why.to_string()))?
            }
        };
        if bytes > SMALL_BYTES && charge.keep().is_err() {
            self.send_lifted(&mut frame).await;
            self.burden.keep(&mut charge).await;
        }
        Ok(self.send(frame, charge).await)
    }

    /// What keeps the session alive, and what others wait for, does not wait with the rest of its frame.
    async fn send_lifted(&self, frame: &mut ClientFrame) {
        if let Some(first) = lifted(frame) {
            // Where the core is gone, the rest finds that too.
            let _ = self.send(first, self.account.charge_anyway(size_of::<ClientFrame>())).await;
        }
    }

    async fn send(&self, frame: ClientFrame, charge: Charge) -> Result<(), ()> {
        let principal = self.principal.clone();
        let input = Input::Frame { connection: self.connection, principal, frame, charge };
        self.core.send(CoreInput::Replica(input)).await.map_err(drop)
    }
}

/// Copies what the decoder has left in the buffer that the frame came in. One byte that waits would keep megabytes in memory
/// which are counted nowhere.
fn leave_buffer(frame: &mut ClientFrame) {
    match &mut frame.hello {
        Some(client_frame::Hello::Open(open)) => copy(&mut open.secret),
        Some(client_frame::Hello::Attach(attach)) => copy(&mut attach.secret),
        None => {}
    }
    for request in &mut frame.requests {
        match &mut request.operation {
            Some(Operation::SetContents(write)) => copy(&mut write.contents),
            Some(Operation::Open(open)) => copy(&mut open.contents),
            _ => {}
        }
    }
}

/// The KeepAlive and the acknowledgement of notices of a frame that has to wait. What comes with a hello waits with it.
fn lifted(frame: &mut ClientFrame) -> Option<ClientFrame> {
    if frame.hello.is_some() || (frame.keep_alive.is_none() && frame.notices_through == 0) {
        return None;
    }
    let keep_alive = frame.keep_alive.take();
    let notices_through = std::mem::take(&mut frame.notices_through);
    Some(ClientFrame { keep_alive, notices_through, ..ClientFrame::default() })
}

/// Why a frame could not be read: it is too long, it is none, or the client is gone.
fn unreadable(status: &Status) -> Refusal {
    match status.code() {
        Code::OutOfRange => too_long_refusal("a frame", MESSAGE_BYTES_MAX),
        // The intake says so, and why.
        Code::ResourceExhausted => {
            let is_limit = status.metadata().get(REFUSAL_KEY).is_some_and(|name| name == "LIMIT");
            let code = if is_limit { RefusalCode::Limit } else { RefusalCode::Overloaded };
            refusal(code, status.message())
        }
        _ => refusal(RefusalCode::Protocol, format!("a frame cannot be read: {}", status.message())),
    }
}

fn refusal(code: RefusalCode, message: impl Into<String>) -> Refusal {
    Refusal { code: code.into(), message: message.into(), ..Default::default() }
}

/// The frames of one stream, on their way to the client.
pub(crate) struct SessionFrames {
    outbox: Arc<Outbox<Outgoing>>,
    /// The status that the stream ends with, once a frame has refused it.
    refused: Option<Status>,
    /// What the last frame counts for: it is being sent until the next one is asked for.
    sending: Option<Charge>,
    /// Tells the reader when this is gone.
    _read: oneshot::Sender<()>,
}

impl Stream for SessionFrames {
    type Item = Result<ServerFrame, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.sending = None;
        Poll::Ready(match ready!(self.outbox.poll_pop(context)) {
            Popped::Item(Outgoing { frame, charge }) => {
                self.sending = Some(charge);
                if let Some(Hello::Refused(StreamRefused { refusal: Some(why), master_address })) =
                    &frame.hello
                {
                    self.refused = Some(status_of(why, master_address));
                }
                Some(Ok(frame))
            }
            Popped::Finished => self.refused.take().map(Err),
            Popped::Cut => Some(Err(refused(
                RefusalCode::Overloaded,
                "the client did not read what it was sent; its session goes on: attach again",
            ))),
        })
    }
}

impl Drop for SessionFrames {
    /// The client is gone: what was still meant for it is let go, and the reader ends.
    fn drop(&mut self) {
        self.outbox.cut();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::{FutureExt as _, StreamExt as _};
    use holdfast_proto::client::v1::cell_client::CellClient;
    use holdfast_proto::client::v1::client_frame::Hello;
    use holdfast_proto::client::v1::{self as client};
    use holdfast_types::ledger::{Ledger, LedgerLimits};
    use prost::Message as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::watch;

    use super::*;
    use crate::accept::{Door, connections};
    use crate::front::Phase;
    use crate::guests::Places;
    use crate::logging::testing::Lines;
    use crate::outbox::{Budget, PushError};
    use crate::peers::{Greeter, PeerBook};
    use crate::tls::Side;

    const LIMIT: Duration = Duration::from_secs(30);

    fn reply(bytes: usize) -> ServerFrame {
        let contents = client::Contents { contents: vec![7; bytes].into(), ..Default::default() };
        let result = Some(client::outcome::Result::Contents(Box::new(contents)));
        let outcome = Some(client::Outcome { revision: 1, result });
        let replies = vec![client::Reply { number: 1, outcome, cacheable: false }];
        ServerFrame { replies, ..ServerFrame::default() }
    }

    #[tokio::test]
    async fn what_a_client_leaves_unread_is_counted_until_it_is_sent() {
        const KIB: usize = 1 << 10;
        let limits = LedgerLimits { connection_bytes_max: KIB, ..LedgerLimits::NONE };
        let (ledger, budget) = (Ledger::new(limits), Budget::new(64 * KIB));
        let account = ledger.account(&Principal::anonymous());
        let outbox = Outbox::new(OUTBOX_LIMITS, budget);
        let line = Line { outbox: Arc::clone(&outbox), account: account.clone(), leases: Leases::default() };
        let mut frames = SessionFrames { outbox, refused: None, sending: None, _read: oneshot::channel().0 };
        for count in 1..=3 {
            assert_eq!(line.send(reply(4 * KIB)), Ok(()), "the ledger refuses no frame");
            assert!(ledger.held() >= count * 4 * KIB, "{ledger:?}");
        }
        assert!(account.charge(1).is_err(), "the connection has no room at the door");
        assert_eq!(line.send(reply(64 * KIB)), Err(PushError::Full));
        assert!(
            (12 * KIB..13 * KIB).contains(&ledger.held()),
            "what is not taken does not count: {ledger:?}"
        );
        let mut next = || frames.next().now_or_never();
        assert!(matches!(next(), Some(Some(Ok(_)))));
        assert!(ledger.held() >= 12 * KIB, "it is being sent");
        assert!(matches!(next(), Some(Some(Ok(_)))));
        assert!((8 * KIB..9 * KIB).contains(&ledger.held()), "the first is sent: {ledger:?}");
        assert!(matches!(next(), Some(Some(Ok(_)))) && next().is_none());
        assert_eq!(ledger.held(), 0, "all are");
        line.send(reply(KIB)).unwrap();
        drop(frames);
        assert_eq!(ledger.held(), 0, "the client is gone");
    }

    #[test]
    fn contents_that_wait_do_not_keep_their_frame_in_memory() {
        let secret: Bytes = vec![7; 16].into();
        let hellos = [
            Hello::Open(client::OpenSession { secret: secret.clone(), ..Default::default() }),
            Hello::Attach(client::AttachSession { secret, ..Default::default() }),
        ];
        let contents: Bytes = vec![7; 100].into();
        let operations = [
            Operation::SetContents(client::SetContents { contents: contents.clone(), ..Default::default() }),
            Operation::Open(Box::new(client::Open { contents, ..Default::default() })),
        ];
        let with = |hello, operation| {
            let requests = Vec::from_iter(operation)
                .into_iter()
                .map(|operation| client::Request { number: 1, operation: Some(operation) });
            ClientFrame { hello, requests: requests.collect(), ..ClientFrame::default() }
        };
        let hellos = hellos.map(|hello| with(Some(hello), None));
        let operations = operations.map(|operation| with(None, Some(operation)));
        for frame in hellos.into_iter().chain(operations) {
            let buffer = Bytes::from(frame.encode_to_vec());
            let mut decoded = ClientFrame::decode(buffer.clone()).unwrap();
            assert!(!buffer.is_unique(), "the decoder leaves bytes where they are");
            leave_buffer(&mut decoded);
            assert!(buffer.is_unique());
            assert_eq!(decoded, frame);
        }
    }

    #[tokio::test]
    async fn a_connection_whose_session_waits_for_the_core_makes_room_for_nobody() {
        let (core, mut inputs) = mpsc::channel(1);
        core.try_send(CoreInput::Status { with_state: false, reply: oneshot::channel().0 }).unwrap();
        let (_phase, phases) = watch::channel(Phase::Serving(core));
        let book = Arc::new(PeerBook::new(Default::default(), None, None));
        let front = Front::new(phases, Arc::new(Greeter(book)), Lines::default().logger());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let places = Places { arriving: 2, settled: 1 };
        let door = Door::new(Side::Clients, None, places, Lines::default().logger());
        tokio::spawn(front.clone().serve(connections(listener, door), std::future::pending()));

        let mut client = CellClient::connect(format!("http://{address}")).await.unwrap();
        let _session = tokio::spawn(async move { client.session(tokio_stream::pending()).await });
        let waits = async {
            while front.streams.available_permits() == STREAMS_MAX {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(LIMIT, waits).await.expect("the session's request arrives");
        let mut second = TcpStream::connect(address).await.unwrap();
        second.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let closed = async { while second.read_u8().await.is_ok() {} };
        tokio::time::timeout(LIMIT, closed).await.expect("there is no room for it");

        assert!(matches!(inputs.recv().await, Some(CoreInput::Status { .. })));
        assert!(matches!(inputs.recv().await, Some(CoreInput::Connected { .. })));
    }
}
