//! A body as it arrives: read ahead, charged for, and there in time.
//!
//! What arrives is charged to the ledger, and of a call's message what is still to come as well. A call that finds no room is refused; a
//! session's stream waits for room, and HTTP/2 then holds no more than a window of it. Never decodes anything. Invariant: a
//! body is charged for exactly the bytes of it that no decoder has made a message of, for those that are announced
//! and still to come of a call, and for what HTTP/2 may hold of it while it is not read on.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use holdfast_proto::client::v1::RefusalCode;
use holdfast_types::Duration;
use holdfast_types::ledger::{Account, Charge};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Body as _;

use super::STREAM_WINDOW_BYTES;
use super::burden::SMALL_BYTES;
use super::fields::{FIELDS_MAX, Fields};
use super::framing::Framing;
use super::refusal::refused;

/// So much of a body is read ahead.
const AHEAD_BYTES_MAX: usize = 64 << 10;
/// The message of a call is there within this time, from when it is asked for.
const CALL_MAX: Duration = Duration::from_secs(10);
/// A frame of a session's stream is there within this time. Longer, because much else may be before it on its connection.
pub(super) const FRAME_MAX: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One message. If there is no room for it, the call is refused.
    Call,
    /// Frames. If there is no room for one, the stream waits.
    Frames,
}

/// What a body is charged to.
pub(super) struct Till {
    pub(super) account: Account,
    /// Told when something was given back.
    pub(super) room: Arc<Notify>,
    /// Its connection's places for streams that wait for room.
    pub(super) waiting: Arc<Semaphore>,
}

/// A body, and what has arrived of it and was not asked for yet.
struct Inbound {
    kind: Kind,
    till: Till,
    /// `None` once it has ended, and when its reader is gone.
    body: Option<Body>,
    /// What has arrived.
    ahead: BytesMut,
    /// What comes after that: the last frame or an error, or nothing more.
    end: Option<Option<Result<http_body::Frame<Bytes>, Status>>>,
    /// For `ahead`, for what was asked for and is no whole message, for what is announced of a call, and
    /// for messages that are decoded while nothing more is asked for.
    charge: Charge,
    /// Of what was asked for.
    framing: Framing,
    /// Of what has arrived.
    arrived: Framing,
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
            arrived: Framing::default(),
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
            if self.is_far_ahead() {
                // What a call has is taken at once, unless it waits for its turn.
                if self.kind == Kind::Frames {
                    self.hold_back();
                }
                return;
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

    fn is_far_ahead(&self) -> bool {
        self.ahead.len() >= AHEAD_BYTES_MAX
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

    /// Takes what has arrived, if there is room for it and, of a call, for the rest of its message. If calls were charged for
    /// piece by piece, many that arrive at once would fill the ledger half-way, and none would be whole. A stream has more
    /// frames behind the one that is decoded: it reserves nothing for them while that waits for room.
    fn admit_stash(&mut self) -> bool {
        let Some(data) = &self.stash else { return true };
        let mut arrived = self.arrived;
        arrived.take(data);
        let more = (data.len() + self.announced(&arrived)).saturating_sub(self.announced(&self.arrived));
        if self.charge.bytes() + more <= SMALL_BYTES {
            self.charge.grow_anyway(more);
        } else if more > 0 && self.charge.grow(more).is_err() {
            return false;
        }
        self.arrived = arrived;
        if self.kind == Kind::Frames && self.fields.take(data).is_err() {
            let message = format!("a frame has more than {FIELDS_MAX} fields");
            self.finish(Some(Err(refused(RefusalCode::Limit, message))));
            return true;
        }
        self.ahead.extend_from_slice(data);
        self.stash = None;
        true
    }

    fn announced(&self, framing: &Framing) -> usize {
        if self.kind == Kind::Call { framing.announced() } else { 0 }
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
                let message = "this replica has no room now for what this connection sends, and enough of its streams \
                    wait for some already: try later";
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
        let undecoded = self.framing.partial + self.ahead.len() + self.announced(&self.arrived);
        let decoded = self.charge.bytes().saturating_sub(undecoded);
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
pub(super) struct Counted {
    inbound: Arc<Mutex<Inbound>>,
    kind: Kind,
    /// When the message that has begun must be whole, and how many were whole when that was set.
    deadline: Option<(Pin<Box<Sleep>>, u64)>,
}

impl Counted {
    pub(super) fn new(body: Body, kind: Kind, till: Till) -> Self {
        let inbound = Arc::new(Mutex::new(Inbound::new(body, kind, till)));
        if kind == Kind::Frames {
            // Whoever reads the frames may wait for the core between any two of them.
            tokio::spawn(pump(Arc::clone(&inbound)));
        }
        Self { inbound, kind, deadline: None }
    }

    /// Reads ahead, and ends once there is no room for more. For calls that wait for their turn.
    pub(super) async fn overfull(&self) -> Status {
        std::future::poll_fn(|context| {
            let mut inbound = lock(&self.inbound);
            inbound.read_ahead(context);
            if inbound.is_far_ahead() {
                inbound.hold_back();
            }
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

/// Reads a stream's body ahead of its reader.
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
        Poll::Ready(Some(Err(if inbound.stash.is_some() {
            refused(RefusalCode::Overloaded, "this replica has had no room for the message: try later")
        } else {
            Status::deadline_exceeded("the message did not arrive in time")
        })))
    }

    fn is_end_stream(&self) -> bool {
        let inbound = lock(&self.inbound);
        inbound.ahead.is_empty() && inbound.stash.is_none() && matches!(inbound.end, Some(None))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures::FutureExt as _;
    use holdfast_types::Principal;
    use holdfast_types::ledger::{Ledger, LedgerLimits};
    use tokio::time::Instant;

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
        assert_eq!(ledger.0.held(), 9_005, "and the rest has its room");
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
            match next(&mut body).await.unwrap() {
                Ok(_) => bodies.push(body),
                Err(refused) => break refused,
            }
        };
        assert!(refused.message().contains("no room"), "{refused}");
        assert_eq!((bodies.len(), ledger.0.peak()), (2, 2 * 9_005), "those that have begun have room to end");
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
        assert!(ended.message().contains("enough of its streams wait"), "{ended}");
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
}
