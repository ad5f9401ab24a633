//! What comes in, before it is decoded: the outermost layer of the services.
//!
//! Takes bodies off HTTP/2 as they arrive, so that HTTP/2 holds nothing for long: its library closes a connection on which
//! too many small frames wait, and with it the streams of whoever shares it. Counts them in the ledger, so that a message
//! that stops half-way is counted too, and lets it stop for so long and no longer. A session's stream is read a little
//! ahead; then HTTP/2 may hold a window of it, which is reserved in the ledger. Where the ledger is full, a few streams of
//! a connection may wait so for room, and one more ends. Lets only so many unary calls of one connection be under way; more
//! wait for their turn, and are counted while they wait. Administrators' calls have turns of their own. Never decodes
//! anything. Invariant: a body is charged for exactly the bytes of it that no decoder has made a message of, and for what
//! HTTP/2 may hold of it while it is not read on.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use holdfast_proto::client::v1::RefusalCode;
use holdfast_types::Duration;
use holdfast_types::ledger::{Account, Charge};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Body as _;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::STREAM_WINDOW_BYTES;
use super::burden::{Burden, SMALL_BYTES};
use super::conform;
use super::fields::{FIELDS_MAX, Fields};
use super::refusal::{refused, told_late};
use crate::socket::Caller;

/// The most unary calls of one connection that are under way, not counting those of the service `Admin`.
pub(crate) const CALLS_PER_CONNECTION_MAX: usize = 64;
/// The most calls of the service `Admin`, likewise.
pub(crate) const ADMIN_CALLS_PER_CONNECTION_MAX: usize = 16;
/// So many session streams of one connection wait for room where the ledger is full, each with a window of bytes that no
/// charge stands for.
pub(crate) const WAITING_PER_CONNECTION_MAX: usize = 64;
/// So much of a session's stream is read ahead.
const AHEAD_BYTES_MAX: usize = 64 << 10;
/// A call waits no longer for its turn, and its message is there within as long again.
const CALL_MAX: Duration = Duration::from_secs(10);
/// A frame of a session's stream is there within this time. Longer, because much else may be before it on its connection.
const FRAME_MAX: Duration = Duration::from_secs(30);
/// Before each message stand a flag and its length.
const PREFIX_BYTES: usize = 5;

const SESSION_PATH: &str = "/holdfast.client.v1.Cell/Session";
/// It has limits of its own, and sessions live by it.
const EXTEND_LEASE_PATH: &str = "/holdfast.client.v1.Cell/ExtendLease";
const ADMIN_PATHS: &str = "/holdfast.client.v1.Admin/";

/// A call's turn on its connection: an extension of its request. It ends when nothing of the call is left.
#[derive(Clone, Debug)]
pub(crate) struct Turn {
    _permit: Arc<OwnedSemaphorePermit>,
}

/// Wraps services.
#[derive(Clone, Debug)]
pub(crate) struct Intake {
    /// What is counted, and where.
    pub(super) burden: Burden,
}

/// A service whose requests are counted.
#[derive(Clone, Debug)]
pub(crate) struct Counting<S> {
    inner: S,
    burden: Burden,
}

impl<S> Layer<S> for Intake {
    type Service = Counting<S>;

    fn layer(&self, inner: S) -> Counting<S> {
        Counting { inner, burden: self.burden.clone() }
    }
}

impl<S> Service<Request<Body>> for Counting<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // What is ready is this one and not its clone.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let caller = request.extensions().get::<Caller>().cloned();
        let account = caller.as_ref().and_then(|caller| self.burden.account_of(caller));
        // Whoever has not proved a name is refused by the handler, which reads nothing.
        let (Some(caller), Some(account)) = (caller, account) else { return Box::pin(inner.call(request)) };
        let until = conform::patience(request.headers()).map(|waits| Instant::now() + waits);
        let path = request.uri().path();
        let turns = match path {
            SESSION_PATH | EXTEND_LEASE_PATH => None,
            path if path.starts_with(ADMIN_PATHS) => Some(Arc::clone(&caller.admin_calls)),
            _ => Some(Arc::clone(&caller.calls)),
        };
        let kind = if path == SESSION_PATH { Kind::Frames } else { Kind::Call };
        let till = Till { account, room: self.burden.room(), waiting: Arc::clone(&caller.waiting) };
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            let body = Counted::new(body, kind, till);
            let is_call = turns.is_some();
            if let Some(turns) = turns {
                let turn = tokio::select! {
                    biased;
                    turn = turn(turns) => turn,
                    refused = body.overfull() => Err(refused),
                };
                match turn {
                    Ok(turn) => drop(parts.extensions.insert(turn)),
                    Err(refused) => return Ok(told_late(refused.into_http(), until).await),
                }
            }
            let answer = inner.call(Request::from_parts(parts, Body::new(body))).await?;
            Ok(if is_call { told_late(answer, until).await } else { answer })
        })
    }
}

async fn turn(turns: Arc<Semaphore>) -> Result<Turn, Status> {
    let permit = tokio::time::timeout(CALL_MAX, turns.acquire_owned()).await;
    let overloaded = |_| {
        let message =
            "too many calls of this connection are under way already, and none of them ended: try later";
        refused(RefusalCode::Overloaded, message)
    };
    // The turns of a connection are never closed.
    let permit = permit.map_err(overloaded)?.map_err(|_| Status::internal("the connection is gone"))?;
    Ok(Turn { _permit: Arc::new(permit) })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One message. If there is no room for it, the call is refused.
    Call,
    /// Frames. If there is no room for one, the stream waits.
    Frames,
}

/// What a body is charged to.
struct Till {
    account: Account,
    /// Told when something was given back.
    room: Arc<Notify>,
    /// Its connection's places for streams that wait for room.
    waiting: Arc<Semaphore>,
}

/// A body, and what has arrived of it and was not asked for yet.
struct Inbound {
    kind: Kind,
    till: Till,
    /// `None` once it has ended, and when whoever asks is gone.
    body: Option<Body>,
    /// What has arrived.
    ahead: BytesMut,
    /// What comes after that: the last frame or an error, or nothing more.
    end: Option<Option<Result<http_body::Frame<Bytes>, Status>>>,
    /// For `ahead`, for what was asked for and is no whole message, and for messages that are decoded while nothing more
    /// is asked for.
    charge: Charge,
    /// Of what was asked for.
    framing: Framing,
    /// Of what has arrived of a stream.
    fields: Fields,
    /// What has arrived and finds no room.
    stash: Option<Bytes>,
    /// For what HTTP/2 may hold of the stream while it is not read on.
    held_back: Option<HeldBack>,
    /// Waits for room.
    told: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    /// Whoever asks.
    reader: Option<Waker>,
    /// Whoever reads ahead.
    pump: Option<Waker>,
}

/// What a stream has while it is not read on.
enum HeldBack {
    /// Its window is charged for.
    Window { _charge: Charge },
    /// The ledger is full, and it is one of the few that wait for room.
    Place { _permit: OwnedSemaphorePermit },
}

impl Inbound {
    fn new(body: Body, kind: Kind, till: Till) -> Self {
        Self {
            kind,
            body: Some(body),
            ahead: BytesMut::new(),
            end: None,
            charge: till.account.charge_anyway(0),
            till,
            framing: Framing::default(),
            fields: Fields::default(),
            stash: None,
            held_back: None,
            told: None,
            reader: None,
            pump: None,
        }
    }

    /// Takes what has arrived, and goes on until there is no more, or no room for more.
    fn read_ahead(&mut self, context: &mut Context<'_>) {
        while self.end.is_none() {
            if self.stash.is_some() && !self.has_room_for_stash(context) {
                return self.hold_back();
            }
            if self.kind == Kind::Frames && self.ahead.len() >= AHEAD_BYTES_MAX {
                return self.hold_back();
            }
            self.held_back = None;
            let Some(body) = &mut self.body else { return };
            let Poll::Ready(frame) = Pin::new(body).poll_frame(context) else { return };
            match frame.map(|frame| frame.map(http_body::Frame::into_data)) {
                Some(Ok(Ok(data))) => self.stash = Some(data),
                Some(Ok(Err(trailers))) => self.finish(Some(Ok(trailers))),
                Some(Err(status)) => self.finish(Some(Err(status))),
                None => self.finish(None),
            }
        }
    }

    /// Charges for what finds no room yet. If there still is none, a stream is woken when something is given back, and a
    /// call is refused.
    fn has_room_for_stash(&mut self, context: &mut Context<'_>) -> bool {
        if self.admit_stash() {
            return true;
        }
        if self.kind == Kind::Call {
            let message = "this replica has no room for so long a call now: try later";
            self.finish(Some(Err(refused(RefusalCode::Overloaded, message))));
            return false;
        }
        loop {
            // It listens before it looks again, so that nothing is given back unheard.
            let told = self.told.get_or_insert_with(|| {
                let mut told = Box::pin(Arc::clone(&self.till.room).notified_owned());
                told.as_mut().enable();
                told
            });
            let is_told = told.as_mut().poll(context).is_ready();
            if self.admit_stash() {
                self.told = None;
                return true;
            }
            if !is_told {
                return false;
            }
            self.told = None;
        }
    }

    fn admit_stash(&mut self) -> bool {
        let Some(data) = &self.stash else { return true };
        if self.charge.bytes() + data.len() <= SMALL_BYTES {
            self.charge.grow_anyway(data.len());
        } else if self.charge.grow(data.len()).is_err() {
            return false;
        }
        if self.kind == Kind::Frames && self.fields.take(data).is_err() {
            let message = format!("a frame has more than {FIELDS_MAX} fields");
            self.finish(Some(Err(refused(RefusalCode::Limit, message))));
            return true;
        }
        self.ahead.extend_from_slice(data);
        self.stash = None;
        true
    }

    /// HTTP/2 holds what comes now, as much as a window has: the stream has that reserved, or it ends.
    fn hold_back(&mut self) {
        if self.held_back.is_some() || self.end.is_some() {
            return;
        }
        let window = self.till.account.charge(STREAM_WINDOW_BYTES as usize);
        let held_back = window.map(|charge| HeldBack::Window { _charge: charge }).or_else(|_| {
            let permit = Arc::clone(&self.till.waiting).try_acquire_owned();
            permit.map(|permit| HeldBack::Place { _permit: permit })
        });
        match held_back {
            Ok(held_back) => self.held_back = Some(held_back),
            Err(_) => {
                let message = "this replica has no room for frames now, and enough of this connection's streams wait \
                    for some already: try later";
                self.finish(Some(Err(refused(RefusalCode::Overloaded, message))));
            }
        }
    }

    fn finish(&mut self, end: Option<Result<http_body::Frame<Bytes>, Status>>) {
        (self.body, self.stash, self.held_back) = (None, None, None);
        self.end = Some(end);
    }

    /// Whoever asks for more has made messages of what was whole, and counts those himself.
    fn give_back_decoded(&mut self) {
        let decoded = self.charge.bytes().saturating_sub(self.framing.partial + self.ahead.len());
        drop(self.charge.split(decoded));
    }

    /// What has arrived, all of it at once.
    fn take_ahead(&mut self) -> Option<Bytes> {
        if self.ahead.is_empty() {
            return None;
        }
        let data = self.ahead.split().freeze();
        self.framing.take(&data);
        if self.held_back.is_some()
            && let Some(pump) = self.pump.take()
        {
            pump.wake();
        }
        Some(data)
    }

    /// Whether a message has begun that is not whole.
    fn is_due(&self) -> bool {
        self.kind == Kind::Call || self.framing.partial > 0 || self.stash.is_some()
    }
}

/// A body that is charged for.
struct Counted {
    inbound: Arc<Mutex<Inbound>>,
    kind: Kind,
    /// When the message that has begun must be whole, and how many were whole when that was set.
    deadline: Option<(Pin<Box<Sleep>>, u64)>,
}

impl Counted {
    fn new(body: Body, kind: Kind, till: Till) -> Self {
        let inbound = Arc::new(Mutex::new(Inbound::new(body, kind, till)));
        if kind == Kind::Frames {
            // Whoever reads the frames may wait for the core between any two of them.
            tokio::spawn(pump(Arc::clone(&inbound)));
        }
        Self { inbound, kind, deadline: None }
    }

    /// Reads ahead until there is no room for more. For calls that wait for their turn.
    async fn overfull(&self) -> Status {
        std::future::poll_fn(|context| {
            let mut inbound = lock(&self.inbound);
            inbound.read_ahead(context);
            match &inbound.end {
                Some(Some(Err(status))) => Poll::Ready(status.clone()),
                _ => Poll::Pending,
            }
        })
        .await
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut inbound = lock(&self.inbound);
        inbound.finish(None);
        if let Some(pump) = inbound.pump.take() {
            pump.wake();
        }
    }
}

/// Reads a stream's body ahead, for whoever asks for it.
async fn pump(inbound: Arc<Mutex<Inbound>>) {
    std::future::poll_fn(|context| {
        let mut inbound = lock(&inbound);
        inbound.read_ahead(context);
        let is_news = !inbound.ahead.is_empty() || inbound.end.is_some() || inbound.stash.is_some();
        if is_news && let Some(reader) = inbound.reader.take() {
            reader.wake();
        }
        if inbound.end.is_some() {
            return Poll::Ready(());
        }
        inbound.pump = Some(context.waker().clone());
        Poll::Pending
    })
    .await;
}

fn lock(inbound: &Mutex<Inbound>) -> MutexGuard<'_, Inbound> {
    // Nothing panics half-way under the lock, so a poisoned body is a sound one.
    inbound.lock().unwrap_or_else(PoisonError::into_inner)
}

impl tonic::codegen::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let this = &mut *self;
        let mut inbound = lock(&this.inbound);
        inbound.give_back_decoded();
        if this.kind == Kind::Call {
            inbound.read_ahead(context);
        }
        if let Some(data) = inbound.take_ahead() {
            return Poll::Ready(Some(Ok(http_body::Frame::data(data))));
        }
        if let Some(end) = &mut inbound.end {
            return Poll::Ready(end.take());
        }
        inbound.reader = Some(context.waker().clone());
        if !inbound.is_due() {
            this.deadline = None;
            return Poll::Pending;
        }
        let whole = inbound.framing.whole;
        if this.deadline.as_ref().is_some_and(|(_, before)| *before < whole) {
            this.deadline = None;
        }
        let limit = if this.kind == Kind::Call { CALL_MAX } else { FRAME_MAX };
        let (deadline, _) = this.deadline.get_or_insert_with(|| (Box::pin(tokio::time::sleep(limit)), whole));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Some(Err(Status::deadline_exceeded("the message did not arrive in time"))))
    }

    fn is_end_stream(&self) -> bool {
        let inbound = lock(&self.inbound);
        inbound.ahead.is_empty() && inbound.stash.is_none() && matches!(inbound.end, Some(None))
    }
}

/// Where in the bytes of a stream its messages end.
#[derive(Debug, Default)]
struct Framing {
    /// The prefix of the next message, as far as it has come.
    prefix: Vec<u8>,
    /// So many bytes of the message are still to come.
    left: usize,
    /// So many bytes have come of the message that is not whole, with its prefix.
    partial: usize,
    /// So many messages are whole.
    whole: u64,
}

impl Framing {
    fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let missing = PREFIX_BYTES - self.prefix.len();
            let part = if missing > 0 { missing } else { self.left };
            let (now, later) = data.split_at(part.min(data.len()));
            data = later;
            self.partial += now.len();
            if missing == 0 {
                self.left -= now.len();
            } else {
                self.prefix.extend_from_slice(now);
                if let [_, length @ ..] = self.prefix.as_slice()
                    && let Ok(length) = <[u8; 4]>::try_from(length)
                {
                    self.left = u32::from_be_bytes(length) as usize;
                }
            }
            if self.prefix.len() == PREFIX_BYTES && self.left == 0 {
                self.prefix.clear();
                self.partial = 0;
                self.whole += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::FutureExt as _;
    use holdfast_types::Principal;
    use holdfast_types::ledger::{Ledger, LedgerLimits};

    use super::*;

    /// The most of the small ledger.
    const MAX: usize = 20_000;

    /// A body of chunks that ends, or stops half-way.
    struct Chunks(VecDeque<Bytes>, bool);

    impl tonic::codegen::Body for Chunks {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
            match self.0.pop_front() {
                Some(chunk) => Poll::Ready(Some(Ok(http_body::Frame::data(chunk)))),
                None if self.1 => Poll::Ready(None),
                None => Poll::Pending,
            }
        }
    }

    fn ledger() -> (Ledger, Arc<Notify>) {
        ledger_of(MAX)
    }

    fn ledger_of(max: usize) -> (Ledger, Arc<Notify>) {
        let limits =
            LedgerLimits { connection_bytes_max: max, principal_bytes_max: max, total_bytes_max: max };
        let (ledger, room) = (Ledger::new(limits), Arc::new(Notify::new()));
        let released = Arc::clone(&room);
        ledger.on_release(move || released.notify_waiters());
        (ledger, room)
    }

    fn message(bytes: usize) -> Vec<u8> {
        let length = u32::try_from(bytes).unwrap().to_be_bytes();
        [&[0][..], &length[..], &vec![7; bytes][..]].concat()
    }

    fn till(ledger: &(Ledger, Arc<Notify>), waiting: &Arc<Semaphore>) -> Till {
        let account = ledger.0.account(&Principal::anonymous());
        Till { account, room: Arc::clone(&ledger.1), waiting: Arc::clone(waiting) }
    }

    fn counted(kind: Kind, bytes: &[u8], ledger: &(Ledger, Arc<Notify>)) -> Counted {
        let chunks = bytes.chunks(1_000).map(Bytes::copy_from_slice).collect();
        Counted::new(Body::new(Chunks(chunks, false)), kind, till(ledger, &Arc::new(Semaphore::new(1))))
    }

    /// A body of what is sent.
    struct Sent(tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>);

    impl tonic::codegen::Body for Sent {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            context: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
            self.0.poll_recv(context).map(|chunk| chunk.map(|chunk| Ok(http_body::Frame::data(chunk.into()))))
        }
    }

    fn length(frame: Option<Result<http_body::Frame<Bytes>, Status>>) -> usize {
        frame.unwrap().unwrap().into_data().unwrap().len()
    }

    async fn next(body: &mut Counted) -> Option<Result<http_body::Frame<Bytes>, Status>> {
        std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_stops_half_way_counts_and_ends_in_time() {
        let ledger = ledger();
        let mut body = counted(Kind::Call, &message(9_000)[..8_000], &ledger);
        assert_eq!(length(next(&mut body).await), 8_000, "what has arrived comes at once");
        assert_eq!(ledger.0.held(), 8_000);
        let before = Instant::now();
        let status = next(&mut body).await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        assert_eq!(before.elapsed(), CALL_MAX);
        drop(body);
        assert_eq!(ledger.0.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_find_no_room_are_refused_and_short_ones_are_not() {
        let ledger = ledger();
        let mut bodies = Vec::new();
        let refused = loop {
            let mut body = counted(Kind::Call, &message(9_000)[..8_000], &ledger);
            next(&mut body).await.unwrap().unwrap();
            match next(&mut body).now_or_never() {
                Some(refused) => break refused.unwrap().unwrap_err(),
                None => bodies.push(body),
            }
        };
        assert!(refused.message().contains("no room"), "{refused}");
        assert!(ledger.0.peak() <= MAX + SMALL_BYTES);
        let mut short = counted(Kind::Call, &message(900), &ledger);
        assert!(next(&mut short).await.unwrap().is_ok());
        drop((bodies, short));
        assert_eq!(ledger.0.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_waits_for_room_and_goes_on_and_its_whole_frames_count_no_more() {
        let ledger = ledger();
        let others = ledger.0.account(&Principal::anonymous()).charge(MAX).unwrap();
        let mut body = counted(Kind::Frames, &[message(9_000), message(10)].concat(), &ledger);
        let mut read = length(next(&mut body).await);
        assert!(next(&mut body).now_or_never().is_none());
        assert_eq!(read, 4_000, "so much of a frame is always taken");
        let waits = tokio::spawn(async move {
            while read < 9_020 {
                read += length(next(&mut body).await);
            }
            assert!(next(&mut body).now_or_never().is_none(), "nothing more has come");
            body
        });
        tokio::task::yield_now().await;
        drop(others);
        let body = waits.await.unwrap();
        assert_eq!(ledger.0.held(), 0, "all frames are whole");
        drop(body);
        assert_eq!(ledger.0.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_read_ahead_so_far_and_a_window_more_is_reserved_until_it_is_asked_for() {
        let limits = LedgerLimits {
            connection_bytes_max: 4 * AHEAD_BYTES_MAX,
            principal_bytes_max: usize::MAX,
            total_bytes_max: usize::MAX,
        };
        let ledger = (Ledger::new(limits), Arc::new(Notify::new()));
        let frames = message(995).repeat(100);
        let mut body = counted(Kind::Frames, &frames, &ledger);
        let all_read = async {
            while ledger.0.held() <= AHEAD_BYTES_MAX + 1_000 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(FRAME_MAX, all_read).await.expect("it is read ahead");
        assert_eq!(ledger.0.held(), 66_000 + STREAM_WINDOW_BYTES as usize);
        let mut read = 0;
        while read < frames.len() {
            read += length(next(&mut body).await);
        }
        assert!(next(&mut body).now_or_never().is_none(), "nothing more has come");
        assert_eq!(ledger.0.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_streams_of_a_connection_wait_where_there_is_no_room_and_one_more_ends() {
        let ledger = ledger();
        let others = ledger.0.account(&Principal::anonymous()).charge(MAX).unwrap();
        let waiting = Arc::new(Semaphore::new(1));
        let stream = || {
            let chunks = message(9_000).chunks(1_000).map(Bytes::copy_from_slice).collect();
            Counted::new(Body::new(Chunks(chunks, false)), Kind::Frames, till(&ledger, &waiting))
        };
        let (mut first, mut second) = (stream(), stream());
        assert_eq!(length(next(&mut first).await), 4_000);
        assert_eq!(length(next(&mut second).await), 4_000);
        let ended = next(&mut second).await.unwrap().unwrap_err();
        assert!(ended.message().contains("enough of this connection's streams"), "{ended}");
        drop((others, second));
        ledger.1.notify_waiters();
        assert_eq!(length(next(&mut first).await), 5_005, "and goes on");
        assert_eq!(waiting.available_permits(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_wants_any_more_is_let_go_at_once() {
        let ledger = ledger();
        let body = counted(Kind::Frames, &message(9_000), &ledger);
        let inbound = Arc::downgrade(&body.inbound);
        tokio::task::yield_now().await;
        assert_eq!(ledger.0.held(), 9_005);
        drop(body);
        while inbound.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ledger.0.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_of_too_many_fields_ends_its_stream_before_it_is_whole() {
        let ledger = ledger_of(1 << 20);
        // Acknowledged ranges of nothing: two bytes each. The reader takes what is ahead, and never the whole frame.
        let ranges: usize = 2 * FIELDS_MAX + 8;
        let frame = [&[0x22, 0x88, 0x80, 0x10][..], &[0x12, 0x00].repeat(ranges / 2)].concat();
        let length = u32::try_from(frame.len()).unwrap().to_be_bytes();
        let bytes = [&message(100)[..], &[0], &length, &frame].concat();
        let mut body = counted(Kind::Frames, &bytes, &ledger);
        let mut read = 0;
        let status = loop {
            match next(&mut body).await.unwrap() {
                Ok(frame) => read += frame.into_data().unwrap().len(),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
        assert!(
            status.message().contains("131072 fields")
                && status.metadata().get("holdfast-refusal").unwrap() == "LIMIT"
        );
        assert!(read < bytes.len(), "{read} bytes of {}", bytes.len());
        drop(body);
        assert_eq!(ledger.0.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_that_stops_half_way_ends_its_stream_and_silence_between_frames_does_not() {
        let ledger = ledger();
        let mut whole = counted(Kind::Frames, &message(100), &ledger);
        next(&mut whole).await.unwrap().unwrap();
        let mut half = counted(Kind::Frames, &message(100)[..50], &ledger);
        next(&mut half).await.unwrap().unwrap();
        let silence = tokio::time::timeout(FRAME_MAX * 2, next(&mut whole)).await;
        assert!(silence.is_err(), "a client may say nothing");
        assert!(next(&mut half).await.unwrap().is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn each_frame_has_a_deadline_of_its_own() {
        let ledger = ledger();
        let (sent, chunks) = tokio::sync::mpsc::unbounded_channel();
        let body = Body::new(Sent(chunks));
        let mut body = Counted::new(body, Kind::Frames, till(&ledger, &Arc::new(Semaphore::new(1))));
        let frame = message(10);
        sent.send(frame[..7].to_vec()).unwrap();
        for _ in 0..10 {
            next(&mut body).await.unwrap().unwrap();
            assert!(
                tokio::time::timeout(FRAME_MAX / 2, next(&mut body)).await.is_err(),
                "half of it is missing"
            );
            // The end of a frame and the beginning of the next one.
            sent.send([&frame[7..], &frame[..7]].concat()).unwrap();
        }
        next(&mut body).await.unwrap().unwrap();
        assert!(next(&mut body).await.unwrap().is_err(), "nothing more comes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_so_many_turns_and_a_call_waits_for_one_in_vain_only_so_long() {
        let turns = Arc::new(Semaphore::new(1));
        let first = turn(Arc::clone(&turns)).await.unwrap();
        let refused = turn(Arc::clone(&turns)).await.unwrap_err();
        assert!(refused.message().contains("this connection"), "{refused}");
        let (second, ()) = tokio::join!(turn(turns), async { drop(first) });
        assert!(second.is_ok());
    }
}
