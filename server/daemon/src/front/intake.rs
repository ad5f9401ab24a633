//! What comes in, before it is decoded: the outermost layer of the services.
//!
//! Counts bodies in the ledger as they arrive, so that a message that stops half-way is counted too, and lets it stop for so
//! long and no longer. Lets only so many unary calls of one connection be under way; more wait for their turn before a
//! byte of them is taken. Administrators' calls have turns of their own. Never decodes anything. Invariant: a body is
//! charged for exactly the bytes of it that no decoder has made a message of.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use holdfast_proto::client::v1::RefusalCode;
use holdfast_types::Duration;
use holdfast_types::ledger::{Account, Charge};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tower::{Layer, Service};

use super::burden::{Burden, SMALL_BYTES};
use super::refusal::refused;
use crate::socket::Caller;

/// The most unary calls of one connection that are under way, not counting those of the service `Admin`.
pub(crate) const CALLS_PER_CONNECTION_MAX: usize = 64;
/// The most calls of the service `Admin`, likewise.
pub(crate) const ADMIN_CALLS_PER_CONNECTION_MAX: usize = 16;
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // What is ready is this one and not its clone.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let caller = request.extensions().get::<Caller>().cloned();
        let account = caller.as_ref().and_then(|caller| self.burden.account_of(caller));
        // Whoever has not proved a name is refused by the handler, which reads nothing.
        let (Some(caller), Some(account)) = (caller, account) else { return Box::pin(inner.call(request)) };
        let path = request.uri().path();
        let turns = match path {
            SESSION_PATH | EXTEND_LEASE_PATH => None,
            path if path.starts_with(ADMIN_PATHS) => Some(Arc::clone(&caller.admin_calls)),
            _ => Some(Arc::clone(&caller.calls)),
        };
        let kind = if path == SESSION_PATH { Kind::Frames } else { Kind::Call };
        let room = self.burden.room();
        Box::pin(async move {
            if let Some(turns) = turns {
                match turn(turns).await {
                    Ok(turn) => drop(request.extensions_mut().insert(turn)),
                    Err(refused) => return Ok(refused.into_http()),
                }
            }
            let request = request.map(|body| Body::new(Counted::new(body, kind, &account, room)));
            inner.call(request).await
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

/// A body that is charged for.
struct Counted {
    body: Body,
    kind: Kind,
    /// For what has arrived and is no whole message, and for messages that are decoded while this is not asked for more.
    charge: Charge,
    framing: Framing,
    /// What has arrived and finds no room.
    stash: Option<Bytes>,
    /// When the message that has begun must be whole.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Told when something was given back.
    room: Arc<Notify>,
    /// Waits for that.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Counted {
    fn new(body: Body, kind: Kind, account: &Account, room: Arc<Notify>) -> Self {
        let (charge, framing) = (account.charge_anyway(0), Framing::default());
        let deadline = (kind == Kind::Call).then(|| Box::pin(tokio::time::sleep(CALL_MAX)));
        Self { body, kind, charge, framing, stash: None, deadline, room, waiting: None }
    }

    /// Takes what has arrived, if there is room for it.
    fn take(&mut self, data: Bytes) -> Result<Bytes, Bytes> {
        if self.charge.bytes() + data.len() <= SMALL_BYTES {
            self.charge.grow_anyway(data.len());
        } else if self.charge.grow(data.len()).is_err() {
            return Err(data);
        }
        self.framing.take(&data);
        Ok(data)
    }

    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        if self.kind == Kind::Frames && self.framing.partial == 0 && self.stash.is_none() {
            self.deadline = None;
            return Poll::Pending;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(FRAME_MAX)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Status::deadline_exceeded("the message did not arrive in time"))
    }

    /// Waits until something is given back, and tries again.
    fn poll_stash(&mut self, context: &mut Context<'_>) -> Poll<Bytes> {
        loop {
            let Some(data) = self.stash.take() else { return Poll::Pending };
            // It listens before it looks, so that nothing is given back unheard.
            let mut waiting = self.waiting.take().unwrap_or_else(|| {
                let room = Arc::clone(&self.room);
                let mut told = Box::pin(room.notified_owned());
                told.as_mut().enable();
                told
            });
            match self.take(data) {
                Ok(data) => return Poll::Ready(data),
                Err(data) => self.stash = Some(data),
            }
            if waiting.as_mut().poll(context).is_pending() {
                self.waiting = Some(waiting);
                return Poll::Pending;
            }
        }
    }
}

impl tonic::codegen::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        // Whoever asks for more has made messages of what was whole, and counts those himself.
        let whole = self.charge.bytes().saturating_sub(self.framing.partial);
        drop(self.charge.split(whole));
        if self.stash.is_some() {
            if let Poll::Ready(data) = self.poll_stash(context) {
                return Poll::Ready(Some(Ok(http_body::Frame::data(data))));
            }
            return self.poll_deadline(context).map(|status| Some(Err(status)));
        }
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(context) else {
            return self.poll_deadline(context).map(|status| Some(Err(status)));
        };
        let Some(frame) = frame.transpose()? else { return Poll::Ready(None) };
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
        };
        match (self.take(data), self.kind) {
            (Ok(data), _) => Poll::Ready(Some(Ok(http_body::Frame::data(data)))),
            (Err(_), Kind::Call) => {
                let message = "this replica has no room for so long a call now: try later";
                Poll::Ready(Some(Err(refused(RefusalCode::Overloaded, message))))
            }
            (Err(data), Kind::Frames) => {
                self.stash = Some(data);
                // Registers with whatever it waits for.
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.stash.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
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
    use tonic::codegen::Body as _;

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
        let limits =
            LedgerLimits { connection_bytes_max: MAX, principal_bytes_max: MAX, total_bytes_max: MAX };
        let (ledger, room) = (Ledger::new(limits), Arc::new(Notify::new()));
        let released = Arc::clone(&room);
        ledger.on_release(move || released.notify_waiters());
        (ledger, room)
    }

    fn message(bytes: usize) -> Vec<u8> {
        let length = u32::try_from(bytes).unwrap().to_be_bytes();
        [&[0][..], &length[..], &vec![7; bytes][..]].concat()
    }

    fn counted(kind: Kind, bytes: &[u8], ledger: &(Ledger, Arc<Notify>)) -> Counted {
        let chunks = bytes.chunks(1_000).map(Bytes::copy_from_slice).collect();
        let account = ledger.0.account(&Principal::anonymous());
        Counted::new(Body::new(Chunks(chunks, false)), kind, &account, Arc::clone(&ledger.1))
    }

    async fn next(body: &mut Counted) -> Option<Result<http_body::Frame<Bytes>, Status>> {
        std::future::poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_stops_half_way_counts_and_ends_in_time() {
        let ledger = ledger();
        let mut body = counted(Kind::Call, &message(9_000)[..8_000], &ledger);
        for _ in 0..8 {
            assert!(next(&mut body).await.unwrap().is_ok());
        }
        assert_eq!(ledger.0.held(), 8_000);
        let before = tokio::time::Instant::now();
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
            let mut ends = (0..8).map(|_| next(&mut body).now_or_never().unwrap().unwrap());
            if let Some(refused) = ends.find_map(Result::err) {
                break refused;
            }
            bodies.push(body);
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
        let mut read = 0;
        while let Some(Some(Ok(frame))) = next(&mut body).now_or_never() {
            read += frame.into_data().unwrap().len();
        }
        assert_eq!(read, 4_000, "so much of a frame is always taken");
        let waits = tokio::spawn(async move {
            while read < 9_020 {
                read += next(&mut body).await.unwrap().unwrap().into_data().unwrap().len();
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
    async fn a_connection_has_so_many_turns_and_a_call_waits_for_one_in_vain_only_so_long() {
        let turns = Arc::new(Semaphore::new(1));
        let first = turn(Arc::clone(&turns)).await.unwrap();
        let refused = turn(Arc::clone(&turns)).await.unwrap_err();
        assert!(refused.message().contains("this connection"), "{refused}");
        let (second, ()) = tokio::join!(turn(turns), async { drop(first) });
        assert!(second.is_ok());
    }
}
