//! What clients make this replica hold: bytes that wait for the core, and answers that nobody has read.
//!
//! Each kind has a budget of its own, shared by all clients. A frame that finds none waits, and with it its stream; a
//! call that finds none is refused, as is a read whose answer finds none. An answer that is not taken in time costs its
//! client the connection: HTTP/2 lets a client ask for much and take nothing, and nothing else would end that.
//!
//! Invariant: whoever is given bytes gives them back when what they stand for is gone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use holdfast_proto::client::v1::{ClientFrame, NumberRange, Request, Seen, client_frame::Hello};
use holdfast_types::Duration;
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tonic::body::Body;
use tonic::{Response, Status};

use super::overloaded;
use crate::guests::Visit;

/// The most bytes of frames that wait for the core, and as many of calls that have no answer yet.
const WAITING_BYTES_MAX: usize = 256 << 20;
/// The most bytes of answers to calls that are not read yet.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// Answers that are shorter do not count: there are only so many calls of one connection.
const ANSWER_BYTES_LONG: usize = 4 << 10;
/// A client takes what it has asked for within this time.
pub(super) const UNREAD_MAX: Duration = Duration::from_secs(30);

/// The budgets.
#[derive(Clone)]
pub(super) struct Burden {
    frames: Arc<Semaphore>,
    calls: Arc<Semaphore>,
    answers: Arc<Semaphore>,
}

impl Burden {
    /// Nothing is held.
    pub(super) fn new() -> Self {
        let budget = |bytes| Arc::new(Semaphore::new(bytes));
        Self {
            frames: budget(WAITING_BYTES_MAX),
            calls: budget(WAITING_BYTES_MAX),
            answers: budget(ANSWER_BYTES_MAX),
        }
    }

    /// Waits until there is room for a frame.
    pub(super) async fn frame(&self, frame: &ClientFrame) -> OwnedSemaphorePermit {
        let bytes = permits(memory_bytes(frame));
        let permit = Arc::clone(&self.frames).acquire_many_owned(bytes).await;
        permit.expect("the budget is never closed")
    }

    /// Room for a call of so many bytes.
    pub(super) fn call(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Status> {
        let permit = Arc::clone(&self.calls).try_acquire_many_owned(permits(bytes));
        permit.map_err(|_| overloaded("bytes of unanswered calls", WAITING_BYTES_MAX))
    }

    /// An answer, to whoever visits. It counts until it is read.
    pub(super) fn answer<M: Message>(&self, visit: &Visit, answer: M) -> Result<Response<M>, Status> {
        let bytes = answer.encoded_len();
        let mut response = Response::new(answer);
        if bytes >= ANSWER_BYTES_LONG {
            let permit = Arc::clone(&self.answers).try_acquire_many_owned(permits(bytes));
            let permit = permit.map_err(|_| overloaded("bytes of unread answers", ANSWER_BYTES_MAX))?;
            response.extensions_mut().insert(Unread { permit: Arc::new(permit), visit: visit.clone() });
        }
        Ok(response)
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes.min(WAITING_BYTES_MAX)).expect("budgets are below 4 GiB")
}

/// What a frame takes when it is decoded: far more than its length where it is a list of things that are empty.
fn memory_bytes(frame: &ClientFrame) -> usize {
    let ranges = frame.acknowledged.as_ref().map_or(0, |acknowledged| acknowledged.ranges.len());
    let seen = match &frame.hello {
        Some(Hello::Attach(attach)) => attach.seen.len(),
        _ => 0,
    };
    frame.encoded_len()
        + frame.requests.len() * size_of::<Request>()
        + ranges * size_of::<NumberRange>()
        + seen * size_of::<Seen>()
}

/// Goes with an answer to where it is sent: an extension of the response.
#[derive(Clone, Debug)]
struct Unread {
    permit: Arc<OwnedSemaphorePermit>,
    visit: Visit,
}

/// Ties what an answer counts for to its bytes. The outermost layer of the services.
pub(super) fn tie(response: tonic::codegen::http::Response<Body>) -> tonic::codegen::http::Response<Body> {
    let (mut parts, body) = response.into_parts();
    let Some(unread) = parts.extensions.remove::<Unread>() else {
        return tonic::codegen::http::Response::from_parts(parts, body);
    };
    let Unread { permit, visit } = unread;
    let (read, taken) = oneshot::channel();
    watch(visit, taken);
    let body = Body::new(Counted { body, held: Arc::new(Held { _permit: permit, _read: read }) });
    tonic::codegen::http::Response::from_parts(parts, body)
}

/// Ends the visit unless `taken` ends in time.
pub(super) fn watch(visit: Visit, taken: oneshot::Receiver<()>) {
    tokio::spawn(async move {
        // Nothing is ever sent: it ends when the other end is dropped.
        if tokio::time::timeout(UNREAD_MAX, taken).await.is_err() {
            visit.send_away();
        }
    });
}

/// What an answer counts for.
struct Held {
    _permit: Arc<OwnedSemaphorePermit>,
    _read: oneshot::Sender<()>,
}

/// The bytes of an answer. HTTP/2 takes all of them at once, and holds them until the client does: so it is not this
/// that counts, but they do.
struct Counted {
    body: Body,
    held: Arc<Held>,
}

/// Some of the bytes.
struct Chunk {
    data: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl tonic::codegen::Body for Counted {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let count = |data| Bytes::from_owner(Chunk { data, _held: Arc::clone(&self.held) });
        Poll::Ready(frame.map(|frame| frame.map(|frame| frame.map_data(count))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guests::{Guests, Places};
    use futures::FutureExt as _;
    use holdfast_proto::client::v1::{Contents, GetContentsResponse};
    use tonic::codegen::Body as _;

    fn large() -> GetContentsResponse {
        let contents = Contents { contents: vec![7; ANSWER_BYTES_MAX / 4].into(), ..Contents::default() };
        GetContentsResponse { contents: Some(contents), ..GetContentsResponse::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn answers_count_until_they_are_read_and_who_does_not_read_has_to_go() {
        let guests = Guests::new(Places { arriving: 2, settled: 2 });
        let (seat, _) = guests.arrive("127.0.0.1:1".parse().unwrap());
        seat.settle().unwrap();
        let burden = Burden::new();
        let mut unread = Vec::new();
        for _ in 0..3 {
            let response = burden.answer(&seat.visit(), large()).unwrap();
            let mut sent = tonic::codegen::http::Response::new(Body::new("bytes".to_owned()));
            *sent.extensions_mut() = response.extensions().clone();
            let mut body = tie(sent).into_body();
            let frame = std::future::poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
            // The body is gone, and its bytes are not.
            unread.push(frame.unwrap().unwrap().into_data().unwrap());
        }
        assert!(burden.answer(&seat.visit(), large()).is_err(), "a little more than a quarter each");
        assert!(burden.answer(&seat.visit(), GetContentsResponse::default()).is_ok(), "short ones are free");
        let gone = std::future::poll_fn(|context| seat.poll_sent_away(context));
        assert!(gone.now_or_never().is_none());
        tokio::time::sleep(UNREAD_MAX).await;
        std::future::poll_fn(|context| seat.poll_sent_away(context)).await;
        drop(unread);
        assert!(burden.answer(&seat.visit(), large()).is_ok(), "what is gone counts no more");
    }

    #[tokio::test]
    async fn a_frame_of_empty_things_counts_for_what_they_take() {
        let frame = ClientFrame { requests: vec![Request::default(); 1_000], ..ClientFrame::default() };
        assert!(frame.encoded_len() < 3_000);
        let burden = Burden::new();
        let permit = burden.frame(&frame).await;
        assert!(permit.num_permits() >= 1_000 * size_of::<Request>());
    }
}
