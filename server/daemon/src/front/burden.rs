//! What clients make this replica hold: bytes that wait for the core or in it, calls without an answer, and answers that
//! nobody has read. All of it is in one ledger, from the socket on; what the core takes up, its charge goes with.
//!
//! A frame that finds no room waits, and with it its stream; a call that finds none is refused, as is a read whose answer
//! finds none. What is small is counted and never refused: KeepAlives, acknowledgements and what gives back are. An
//! answer that is not taken in time costs its client the stream: HTTP/2 lets a client ask for much and take nothing,
//! and nothing else would end that.
//!
//! Invariant: a charge lives exactly as long as what it stands for.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::task::AtomicWaker;
use holdfast_proto::client::v1::{Refusal, RefusalCode};
use holdfast_state::refusal::limit_facts;
use holdfast_types::ledger::{Account, Charge, Ledger, LedgerFull, LedgerLimits};
use holdfast_types::{Duration, Principal};
use prost::Message;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tonic::body::Body;
use tonic::{Response, Status};

use super::overloaded;
use super::refusal::status_of;
use super::serving::StreamEnd;
use crate::socket::Caller;

/// What clients may make this replica hold. Of the total, the core may keep a half, and what sessions leave unread is counted in
/// it too. A replica holds up to 100 MiB of its log beside that, and all of it together should stay below 256 MiB beyond the
/// state (docs/performance.md). A connection's share is what one session may leave unread.
pub(super) const LEDGER_LIMITS: LedgerLimits =
    LedgerLimits { connection_bytes_max: 32 << 20, principal_bytes_max: 64 << 20, total_bytes_max: 96 << 20 };
/// A frame waits so long for room among what the core keeps. Not for longer: a KeepAlive may stand behind it.
const KEPT_WAIT_MAX: Duration = Duration::from_millis(100);
/// What is no longer than this is never refused.
pub(super) const SMALL_BYTES: usize = 4 << 10;
/// A client takes what it has asked for within this time.
pub(super) const UNREAD_MAX: Duration = Duration::from_secs(30);

/// How many unary calls may be without an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct CallLimits {
    /// Of all clients.
    pub(super) all_max: usize,
    /// Of one principal; `anonymous` has no such limit.
    pub(super) principal_max: usize,
}

/// Those of the service `Cell`, and those of the service `Admin`, which have places of their own.
pub(super) const CALL_LIMITS: CallLimits = CallLimits { all_max: 8_192, principal_max: 1_024 };
pub(super) const ADMIN_CALL_LIMITS: CallLimits = CallLimits { all_max: 256, principal_max: 64 };

/// Places for calls.
#[derive(Clone)]
pub(super) struct Places {
    limits: CallLimits,
    all: Arc<Semaphore>,
    /// Each principal's, while one of its calls has a place.
    principals: Arc<Mutex<BTreeMap<Principal, Weak<Semaphore>>>>,
}

/// A call's place among all that have no answer, and among its principal's.
#[derive(Debug)]
pub(crate) struct Place {
    _all: OwnedSemaphorePermit,
    _principal: Option<OwnedSemaphorePermit>,
}

impl Places {
    pub(super) fn new(limits: CallLimits) -> Self {
        Self { limits, all: Arc::new(Semaphore::new(limits.all_max)), principals: Arc::default() }
    }

    /// A place for a call of `principal`, if there is one.
    pub(super) fn take(&self, principal: &Principal) -> Result<Place, Status> {
        let own = (*principal != Principal::anonymous()).then(|| self.of(principal).try_acquire_owned());
        let max = self.limits.principal_max;
        let own = own.transpose().map_err(|_| overloaded("unanswered calls of this principal", max))?;
        let all = Arc::clone(&self.all).try_acquire_owned();
        let all = all.map_err(|_| overloaded("unanswered calls", self.limits.all_max))?;
        Ok(Place { _all: all, _principal: own })
    }

    fn of(&self, principal: &Principal) -> Arc<Semaphore> {
        // Nothing panics half-way under the lock, so a poisoned map is a sound one.
        let mut principals = self.principals.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(places) = principals.get(principal).and_then(Weak::upgrade) {
            return places;
        }
        principals.retain(|_, places| places.strong_count() > 0);
        let places = Arc::new(Semaphore::new(self.limits.principal_max));
        principals.insert(principal.clone(), Arc::downgrade(&places));
        places
    }

    /// How many calls there is room for.
    #[cfg(test)]
    pub(super) fn available(&self) -> usize {
        self.all.available_permits()
    }
}

/// The ledger, and who waits for room in it.
#[derive(Clone, Debug)]
pub(crate) struct Burden {
    ledger: Ledger,
    room: Arc<Notify>,
}

impl Burden {
    /// Nothing is held.
    pub(super) fn new(limits: LedgerLimits) -> Self {
        let (ledger, room) = (Ledger::new(limits), Arc::new(Notify::new()));
        let released = Arc::clone(&room);
        ledger.on_release(move || released.notify_waiters());
        Self { ledger, room }
    }

    /// Told whenever something is given back.
    pub(super) fn room(&self) -> Arc<Notify> {
        Arc::clone(&self.room)
    }

    /// The account of a connection, if its other end has proved who it is.
    pub(super) fn account_of(&self, caller: &Caller) -> Option<Account> {
        let principal = caller.presented.principal().ok()?;
        Some(caller.account.get_or_init(|| self.ledger.account(&principal)).clone())
    }

    /// An account that belongs to no connection.
    pub(super) fn account(&self, principal: &Principal) -> Account {
        self.ledger.account(principal)
    }

    /// Waits until there is room for a frame, which takes so many bytes.
    pub(super) async fn frame(&self, account: &Account, bytes: usize) -> Result<Charge, LedgerFull> {
        loop {
            // It listens before it looks, so that nothing is given back unheard.
            let mut released = std::pin::pin!(self.room.notified());
            released.as_mut().enable();
            match try_frame(account, bytes) {
                Ok(charge) => return Ok(charge),
                // It would wait for ever.
                Err(full @ LedgerFull::Connection(max)) if bytes > max => return Err(full),
                Err(_) => released.await,
            }
        }
    }

    /// Room for a frame among what the core keeps, if there is some within a while. The core refuses what it cannot keep, and
    /// a client that sends that again at once would be at it for as long as the replica can read: so it is not read on before.
    pub(super) async fn keep(&self, charge: &mut Charge) {
        let kept = async {
            loop {
                let mut released = std::pin::pin!(self.room.notified());
                released.as_mut().enable();
                if charge.keep().is_ok() {
                    break;
                }
                released.await;
            }
        };
        // If there is none, the core says so, to each request.
        let _ = tokio::time::timeout(KEPT_WAIT_MAX, kept).await;
    }

    /// Room for a call of so many bytes, which may have to wait in the core for long.
    pub(super) fn call(&self, account: &Account, bytes: usize) -> Result<Charge, Status> {
        let mut charge = try_frame(account, bytes).map_err(|full| refused_as_full(&full))?;
        if bytes <= SMALL_BYTES {
            charge.keep_anyway();
        } else {
            charge.keep().map_err(|full| refused_as_full(&full))?;
        }
        Ok(charge)
    }

    /// An answer on a stream. It counts until it is read, and is read in time or ends.
    pub(super) fn answer<M: Message>(
        &self,
        account: &Account,
        stream: &StreamEnd,
        answer: M,
    ) -> Result<Response<M>, Status> {
        let bytes = answer.encoded_len();
        let charge = try_frame(account, bytes).map_err(|full| refused_as_full(&full))?;
        let mut response = Response::new(answer);
        let watched = (bytes > SMALL_BYTES).then(|| stream.clone());
        let holds_end = watched.is_some();
        response.extensions_mut().insert(Unread { charge: Some(Arc::new(charge)), watched, holds_end });
        Ok(response)
    }
}

/// Room for what has so many bytes, if there is any; what is small always finds it.
pub(super) fn try_frame(account: &Account, bytes: usize) -> Result<Charge, LedgerFull> {
    if bytes <= SMALL_BYTES { Ok(account.charge_anyway(bytes)) } else { account.charge(bytes) }
}

fn refused_as_full(full: &LedgerFull) -> Status {
    let message = format!("{full}: read what was answered, and try later");
    let facts = Some(limit_facts(full.limit(), full.maximum() as u64, 0));
    status_of(&Refusal { code: RefusalCode::Overloaded.into(), message, facts }, "")
}

/// Leaves the buffer that these bytes are a part of.
pub(super) fn copy(bytes: &mut Bytes) {
    *bytes = Bytes::copy_from_slice(bytes);
}

/// Goes with an answer to where it is sent: an extension of the response.
#[derive(Clone, Debug)]
pub(super) struct Unread {
    /// What it counts for; `None` if that is counted elsewhere.
    charge: Option<Arc<Charge>>,
    /// Its stream, which ends if the answer is not read in time; `None` for what is small.
    watched: Option<StreamEnd>,
    /// Its stream is open until its last byte is sent: HTTP/2 takes a stream that has said its last for finished, and
    /// nothing could end it any more.
    holds_end: bool,
}

impl Unread {
    /// Frames of a session's stream.
    pub(super) fn frames() -> Self {
        Self { charge: None, watched: None, holds_end: true }
    }
}

/// Ties what an answer counts for to its bytes. The innermost layer of the services.
pub(super) fn tie(response: tonic::codegen::http::Response<Body>) -> tonic::codegen::http::Response<Body> {
    let (mut parts, body) = response.into_parts();
    let Some(unread) = parts.extensions.remove::<Unread>() else {
        return tonic::codegen::http::Response::from_parts(parts, body);
    };
    let Unread { charge, watched, holds_end } = unread;
    let (read, taken) = oneshot::channel();
    if let Some(stream) = watched {
        watch(stream, taken);
    }
    let held = Held { _charge: charge, _read: read, chunks: AtomicUsize::new(0), sent: AtomicWaker::new() };
    let body = Body::new(Counted { body, held: Arc::new(held), holds_end, last: None });
    tonic::codegen::http::Response::from_parts(parts, body)
}

/// Ends the stream unless `taken` ends in time.
pub(super) fn watch(stream: StreamEnd, taken: oneshot::Receiver<()>) {
    tokio::spawn(async move {
        // Nothing is ever sent: it ends when the other end is dropped.
        if tokio::time::timeout(UNREAD_MAX, taken).await.is_err() {
            stream.end();
        }
    });
}

/// What an answer counts for.
struct Held {
    _charge: Option<Arc<Charge>>,
    _read: oneshot::Sender<()>,
    /// So many pieces of it has HTTP/2 and has not sent.
    chunks: AtomicUsize,
    /// Told when that is none.
    sent: AtomicWaker,
}

/// The bytes of an answer. HTTP/2 takes many of them at once, and holds them until the client does: so it is not this
/// that counts, but they do.
struct Counted {
    body: Body,
    held: Arc<Held>,
    holds_end: bool,
    /// The trailers, which go when all else is sent.
    last: Option<http_body::Frame<Bytes>>,
}

/// Some of the bytes.
struct Chunk {
    data: Bytes,
    held: Arc<Held>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if self.held.chunks.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.held.sent.wake();
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
        let this = &mut *self;
        if this.last.is_none() {
            let Some(frame) = ready!(Pin::new(&mut this.body).poll_frame(context)).transpose()? else {
                return Poll::Ready(None);
            };
            match frame.into_data() {
                Ok(data) => {
                    this.held.chunks.fetch_add(1, Ordering::AcqRel);
                    let chunk = Bytes::from_owner(Chunk { data, held: Arc::clone(&this.held) });
                    return Poll::Ready(Some(Ok(http_body::Frame::data(chunk))));
                }
                Err(trailers) => this.last = Some(trailers),
            }
        }
        // It registers before it looks, so that no sending goes unheard.
        this.held.sent.register(context.waker());
        if this.holds_end && this.held.chunks.load(Ordering::Acquire) > 0 {
            return Poll::Pending;
        }
        Poll::Ready(this.last.take().map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.last.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use holdfast_proto::client::v1::{Contents, GetContentsResponse};
    use tonic::codegen::Body as _;

    const MAX: usize = 1 << 20;
    const LIMITS: LedgerLimits =
        LedgerLimits { connection_bytes_max: MAX, principal_bytes_max: MAX, total_bytes_max: MAX };

    fn large() -> GetContentsResponse {
        let contents = Contents { contents: vec![7; MAX / 4].into(), ..Contents::default() };
        GetContentsResponse { contents: Some(contents), ..GetContentsResponse::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_count_until_they_are_read_and_a_stream_that_does_not_read_has_to_go() {
        let stream = StreamEnd::default();
        let burden = Burden::new(LIMITS);
        let account = burden.account(&Principal::anonymous());
        let answer = |answer| burden.answer(&account, &stream, answer);
        let mut unread = Vec::new();
        for _ in 0..3 {
            let response = answer(large()).unwrap();
            let mut sent = tonic::codegen::http::Response::new(Body::new("bytes".to_owned()));
            *sent.extensions_mut() = response.extensions().clone();
            let mut body = tie(sent).into_body();
            let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
            // The body is gone, and its bytes are not.
            unread.push(frame.unwrap().unwrap().into_data().unwrap());
        }
        assert!(answer(large()).is_err(), "a little more than a quarter each");
        assert!(answer(GetContentsResponse::default()).is_ok(), "short ones are not refused");
        assert!(stream.ended().now_or_never().is_none());
        tokio::time::sleep(UNREAD_MAX).await;
        stream.ended().await;
        drop(unread);
        assert_eq!(burden.ledger.held(), 0, "what is gone counts no more");
        assert!(answer(large()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_waits_a_while_for_room_among_what_the_core_keeps() {
        let limits = LedgerLimits { connection_bytes_max: 64 << 10, ..LedgerLimits::NONE };
        let burden = Burden::new(limits);
        let account = burden.account(&Principal::anonymous());
        let mut first = account.charge(32 << 10).unwrap();
        first.keep().expect("half of the limit may be kept");
        let mut second = account.charge(8 << 10).unwrap();
        assert!(burden.keep(&mut second).now_or_never().is_none(), "it waits");
        let begun = tokio::time::Instant::now();
        burden.keep(&mut second).await;
        assert_eq!(begun.elapsed(), KEPT_WAIT_MAX);
        assert!(second.keep().is_err(), "it is handed in as it is, and the core refuses it");
        let waits = tokio::spawn({
            let burden = burden.clone();
            async move {
                burden.keep(&mut second).await;
                second
            }
        });
        tokio::task::yield_now().await;
        drop(first);
        let mut second = waits.await.unwrap();
        assert!(begun.elapsed() < 2 * KEPT_WAIT_MAX, "it goes on once there is room");
        second.keep().expect("it is kept");
        assert_eq!(burden.ledger.kept(), 8 << 10);
    }

    #[tokio::test]
    async fn frames_wait_for_room_small_ones_do_not_and_one_that_never_fits_is_refused() {
        let burden = Burden::new(LIMITS);
        let (first, second) =
            (burden.account(&Principal::anonymous()), burden.account(&Principal::anonymous()));
        let held = burden.frame(&first, MAX / 2).await.unwrap();
        let mut waits = Box::pin(burden.frame(&second, MAX));
        assert!(waits.as_mut().now_or_never().is_none());
        assert!(burden.frame(&second, SMALL_BYTES).now_or_never().is_some(), "a KeepAlive is not held up");
        drop(held);
        let held = waits.now_or_never().expect("there is room").unwrap();
        drop(held);
        assert_eq!(burden.frame(&first, MAX + 1).await.unwrap_err(), LedgerFull::Connection(MAX));
        assert_eq!((burden.ledger.held(), burden.ledger.peak()), (0, MAX));
    }

    #[test]
    fn calls_of_one_principal_leave_places_to_others_and_calls_of_all_leave_some_to_administrators() {
        let calls = Places::new(CallLimits { all_max: 6, principal_max: 2 });
        let admin = Places::new(CallLimits { all_max: 2, principal_max: 1 });
        let (alice, bob) = (Principal::parse("alice").unwrap(), Principal::parse("bob").unwrap());
        let taken: Vec<_> = (0..2).map(|_| calls.take(&alice).unwrap()).collect();
        assert!(calls.take(&alice).unwrap_err().message().contains("this principal"));
        let others: Vec<_> = (0..4).map(|_| calls.take(&Principal::anonymous()).unwrap()).collect();
        assert!(calls.take(&bob).is_err(), "all are taken");
        assert!(admin.take(&bob).is_ok(), "but not those of administrators");
        drop((taken, others));
        assert_eq!(calls.available(), 6);
    }
}
