//! A link: the streams of raft messages to one other replica, kept up until the link is dropped.
//!
//! Each stream connects, says Hello, checks the answer, streams until the connection breaks, and begins again. One is
//! the main stream; when it breaks, the core is told, once, and never of one that could not be made. The others, the
//! pulses, take turns with what is urgent: on the main stream it would wait behind megabytes of log when packets are
//! lost, and the master would be taken for dead. They are two, because even a packet a second can be stuck for a
//! second if it is lost again and again. Messages are dropped while there is no connection, and when the other end
//! does not keep up.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use holdfast_proto::log::v1::Member;
use holdfast_proto::peer::v1::PeerFrame;
use holdfast_replica::Input;
use holdfast_types::{Duration, ReplicaId};
use slog::{Logger, debug, info, warn};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::Code;

use super::PeerBook;
use super::backoff::Backoff;
use super::dial::{Connection, connect_member};
use crate::driver::CoreInput;
use crate::outbox::{Budget, Outbox, OutboxLimits, Popped};

/// What may wait for a peer that is slow: more is of no use to it, raft will send it anew.
const OUTBOX_LIMITS: OutboxLimits = OutboxLimits { items_max: 8_192, bytes_max: 32 << 20 };
/// Messages go into a frame until it has so much. A frame is taken whole or not at all: on a line that loses packets, a
/// connection that breaks after a few hundred kilobytes must have brought something.
const FRAME_MESSAGES_MAX: usize = 1_024;
const FRAME_BYTES_MAX: usize = 64 << 10;
/// A stream that lasted less than this is no success that would justify to try again at once.
const LASTING: Duration = Duration::from_secs(1);

/// How many streams a link has for what is urgent.
const PULSES: usize = 2;

/// The core's end of a link. Dropping it ends the link.
pub(super) struct Link {
    member: Member,
    main: Lane,
    pulses: [Lane; PULSES],
    /// The pulse whose turn it is.
    turn: AtomicUsize,
}

/// One stream of a link, and the task that keeps it up.
struct Lane {
    standing: Standing,
    task: AbortHandle,
}

/// The queue of the connection that stands, if one does. Each connection has a queue of its own: the stream of one
/// that broke may live on for a while, and would take messages away, and the wake-up with them.
type Standing = Arc<Mutex<Option<Arc<Outbox<Bytes>>>>>;

fn lock(standing: &Standing) -> MutexGuard<'_, Option<Arc<Outbox<Bytes>>>> {
    // Nothing that can panic runs under the lock.
    standing.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Link {
    /// Starts a link to `member`.
    pub(super) fn start(
        member: Member,
        book: Arc<PeerBook>,
        core: mpsc::Sender<CoreInput>,
        logger: Logger,
    ) -> Self {
        let lane = |pulse| {
            let standing = Standing::default();
            let (member, book, core) = (member.clone(), Arc::clone(&book), core.clone());
            let logger = logger.clone();
            let dialer = Dialer { member, pulse, book, core, standing: Arc::clone(&standing), logger };
            Lane { standing, task: tokio::spawn(dialer.run()).abort_handle() }
        };
        let (main, pulses) = (lane(false), [(); PULSES].map(|()| lane(true)));
        Self { member, main, pulses, turn: AtomicUsize::new(0) }
    }

    /// The replica at the other end.
    pub(super) fn member(&self) -> &Member {
        &self.member
    }

    /// Whether the link would be made the same way to `member`.
    pub(super) fn leads_to(&self, member: &Member) -> bool {
        self.member.data_id == member.data_id && self.member.peer_address == member.peer_address
    }

    /// Queues a message, or drops it: raft copes, and a message that waited for a connection would be stale.
    pub(super) fn send(&self, message: Bytes, urgent: bool) {
        if urgent {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            for pulse in 0..PULSES {
                if self.pulses[(turn + pulse) % PULSES].send(&message) {
                    return;
                }
            }
        }
        self.main.send(&message);
    }
}

impl Lane {
    /// Whether the message is queued.
    fn send(&self, message: &Bytes) -> bool {
        let standing = lock(&self.standing);
        standing.as_ref().is_some_and(|outbox| outbox.push(message.clone(), message.len()).is_ok())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The task behind a stream of a link.
struct Dialer {
    member: Member,
    /// It is not the main stream.
    pulse: bool,
    book: Arc<PeerBook>,
    core: mpsc::Sender<CoreInput>,
    standing: Standing,
    logger: Logger,
}

impl Dialer {
    async fn run(self) {
        let id = ReplicaId(self.member.id);
        let mut backoff = Backoff::new();
        // What was logged last, so that an hour without a peer is one line and not ten thousand.
        let mut last_problem = String::new();
        loop {
            match connect_member(&self.book, &self.member).await {
                Ok(connection) => {
                    self.say_connected();
                    last_problem.clear();
                    let began = Instant::now();
                    self.stream(connection).await;
                    if began.elapsed() >= LASTING {
                        backoff.reset();
                    }
                }
                Err(problem) if problem != last_problem && !self.pulse => {
                    warn!(self.logger, "no connection to {id}: {problem}"; "address" => &self.member.peer_address);
                    last_problem = problem;
                }
                Err(_) => {}
            }
            tokio::time::sleep(backoff.next()).await;
        }
    }

    fn say_connected(&self) {
        let (id, address) = (ReplicaId(self.member.id), &self.member.peer_address);
        match self.pulse {
            true => debug!(self.logger, "connected to {id} once more"; "address" => address),
            false => info!(self.logger, "connected to {id}"; "address" => address),
        }
    }

    /// Streams messages until the connection breaks, and tells the core if it was the main stream's.
    async fn stream(&self, mut connection: Connection) {
        let id = ReplicaId(self.member.id);
        let outbox = Outbox::new(OUTBOX_LIMITS, Budget::new(usize::MAX));
        *lock(&self.standing) = Some(Arc::clone(&outbox));
        let first =
            PeerFrame { from: Some(self.book.me()), to: id.0, messages: Vec::new(), pulse: self.pulse };
        let ended = connection.messages(PeerFrames { first: Some(first), outbox: Arc::clone(&outbox) }).await;
        *lock(&self.standing) = None;
        outbox.cut();
        match ended {
            Ok(response) if response.get_ref().refused.is_empty() => {}
            Ok(response) => return self.book.stop(response.into_inner().refused),
            Err(status) if status.code() == Code::FailedPrecondition => {
                return debug!(self.logger, "{id} does not listen yet: {}", status.message());
            }
            Err(status) if self.pulse => debug!(self.logger, "a pulse to {id} broke: {}", status.message()),
            Err(status) => info!(self.logger, "the connection to {id} broke: {}", status.message()),
        }
        if !self.pulse {
            // Fails only when the core is gone.
            let _ = self.core.send(CoreInput::Replica(Input::PeerReset { peer: id })).await;
        }
    }
}

/// The frames of a link's stream: whatever is queued goes into one.
struct PeerFrames {
    /// Says who sends.
    first: Option<PeerFrame>,
    outbox: Arc<Outbox<Bytes>>,
}

impl Stream for PeerFrames {
    type Item = PeerFrame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<PeerFrame>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(first));
        }
        let Popped::Item(message) = ready!(self.outbox.poll_pop(context)) else { return Poll::Ready(None) };
        let mut bytes = message.len();
        let mut messages = vec![message];
        while bytes < FRAME_BYTES_MAX
            && messages.len() < FRAME_MESSAGES_MAX
            && let Some(message) = self.outbox.pop()
        {
            bytes += message.len();
            messages.push(message);
        }
        Poll::Ready(Some(PeerFrame { messages, ..PeerFrame::default() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt;

    #[tokio::test]
    async fn whatever_is_queued_goes_into_one_frame_in_order() {
        let outbox = Outbox::new(OUTBOX_LIMITS, Budget::new(usize::MAX));
        let first = PeerFrame { to: 2, ..PeerFrame::default() };
        let mut frames = PeerFrames { first: Some(first), outbox: Arc::clone(&outbox) };
        for text in ["a", "b", "c"] {
            outbox.push(Bytes::from(text), 1).unwrap();
        }
        assert_eq!(frames.next().await.unwrap().to, 2);
        assert_eq!(frames.next().await.unwrap().messages, ["a", "b", "c"]);
        outbox.push(Bytes::from(vec![0; FRAME_BYTES_MAX]), FRAME_BYTES_MAX).unwrap();
        outbox.push(Bytes::from("d"), 1).unwrap();
        assert_eq!(frames.next().await.unwrap().messages.len(), 1, "a full frame goes alone");
        assert_eq!(frames.next().await.unwrap().messages, ["d"]);
    }
}
