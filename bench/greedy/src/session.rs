//! A session word by word: frames as the client wants them, and replies that are counted.
//!
//! The session asks for its lease to be extended as an honest one does, so that it lives; everything else is up to the
//! kind. Invariant: a request counts once, when its reply comes.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use holdfast_proto::client::v1::cell_client::CellClient;
use holdfast_proto::client::v1::client_frame::Hello;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    Acknowledged, ClientFrame, KeepAlive, OpenSession, Outcome, Reply, Request, ServerFrame, server_frame,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::Streaming;
use tonic::transport::Channel;

use crate::tally::{Tally, code_name};

/// A frame's replies come within this, or the stream counts as broken.
const ANSWER_WAIT: Duration = Duration::from_secs(150);
/// The most bytes of a frame that a client may send; the rest of 4 MiB is for the frame's own fields.
const FRAME_BYTES_MAX: usize = (4 << 20) - 4_096;

/// How a session behaves.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The length of its lease.
    pub lease_ms: u32,
    /// Whether it acknowledges notices.
    pub heeds_notices: bool,
    /// Whether it acknowledges replies, so that the cell can forget the outcomes.
    pub heeds_replies: bool,
}

impl Options {
    /// A session that does what an honest one does.
    pub const HONEST: Self = Self { lease_ms: 12_000, heeds_notices: true, heeds_replies: true };
    /// A session that never acknowledges a notice. Its lease is the longest with which a cell lets a session cache.
    pub const DEAF: Self = Self { lease_ms: 12_000, heeds_notices: false, heeds_replies: true };
}

/// A session's stream.
#[derive(Debug)]
pub struct RawSession<'a> {
    frames: mpsc::UnboundedSender<ClientFrame>,
    inbound: Streaming<ServerFrame>,
    options: Options,
    tally: &'a Tally,
    /// The session's id.
    pub id: u64,
    /// The number of the last request.
    last: u64,
    /// All requests up to here are answered.
    answered_through: u64,
    /// And these, above it.
    answered: BTreeSet<u64>,
    /// All notices up to here have come.
    notices_through: u64,
    keep_alives: u64,
    ticks: Interval,
}

/// A session's opening, with a secret of its own.
pub(crate) fn opening(lease_ms: u32) -> Result<OpenSession> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    let secret = Bytes::copy_from_slice(&secret);
    Ok(OpenSession { secret, lease_ms, client: "greedy".to_owned(), ..OpenSession::default() })
}

/// Begins a stream with some frames.
pub(crate) async fn stream(
    channel: Channel,
    first: impl IntoIterator<Item = ClientFrame>,
) -> Result<(mpsc::UnboundedSender<ClientFrame>, Streaming<ServerFrame>), tonic::Status> {
    let (frames, outbound) = mpsc::unbounded_channel();
    for frame in first {
        // The other end is here.
        let _ = frames.send(frame);
    }
    let mut client = CellClient::new(channel).max_decoding_message_size(64 << 20);
    let inbound = client.session(UnboundedReceiverStream::new(outbound)).await?.into_inner();
    Ok((frames, inbound))
}

impl<'a> RawSession<'a> {
    /// Opens a session.
    ///
    /// # Errors
    ///
    /// If it is refused.
    pub async fn open(channel: Channel, options: Options, tally: &'a Tally) -> Result<Self> {
        let hello = Hello::Open(opening(options.lease_ms)?);
        let first = ClientFrame { hello: Some(hello), ..ClientFrame::default() };
        let opened = async {
            let (frames, mut inbound) = stream(channel, [first]).await?;
            let answer = inbound.message().await?.context("a stream ends without an answer")?;
            anyhow::Ok((frames, inbound, answer))
        };
        let (frames, inbound, answer) = timeout(ANSWER_WAIT, opened).await.context("no answer")??;
        let id = match answer.hello {
            Some(server_frame::Hello::Opened(opened)) => opened.session,
            Some(server_frame::Hello::Refused(refused)) => {
                bail!("refused: {}", code_name(refused.refusal.unwrap_or_default().code))
            }
            hello => bail!("{hello:?} answers an opening"),
        };
        let mut ticks = interval(Duration::from_millis(u64::from(options.lease_ms) / 3));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let session = Self {
            frames,
            inbound,
            options,
            tally,
            id,
            last: 0,
            answered_through: 0,
            answered: BTreeSet::new(),
            notices_through: 0,
            keep_alives: 0,
            ticks,
        };
        Ok(session)
    }

    /// Sends a frame with these requests, and gives the number of the first.
    pub fn send(&mut self, operations: impl IntoIterator<Item = Operation>) -> u64 {
        let first = self.last + 1;
        let mut requests = Vec::new();
        for operation in operations {
            self.last += 1;
            requests.push(Request { number: self.last, operation: Some(operation) });
        }
        let frame = ClientFrame { requests, ..self.says() };
        self.send_frame(frame);
        first
    }

    /// Sends a frame. If the stream has ended, the next frame tells.
    pub fn send_frame(&self, frame: ClientFrame) {
        let _ = self.frames.send(frame);
    }

    /// The number of the last request.
    #[must_use]
    pub fn last_number(&self) -> u64 {
        self.last
    }

    /// How many requests have no reply.
    #[must_use]
    pub fn under_way(&self) -> u64 {
        self.last - self.answered_through - self.answered.len() as u64
    }

    /// The replies of the next frame, which are counted. Meanwhile the lease is kept.
    ///
    /// # Errors
    ///
    /// If the stream or the session ends, or nothing comes for long although replies are due.
    pub async fn next(&mut self) -> Result<Vec<Reply>> {
        let began = Instant::now();
        loop {
            tokio::select! {
                frame = self.inbound.message() => {
                    let frame = match frame {
                        Ok(Some(frame)) => frame,
                        Ok(None) => bail!("a stream ended"),
                        Err(status) => bail!("a stream ended: {:?}", status.code()),
                    };
                    return self.take(frame);
                }
                _ = self.ticks.tick() => {
                    self.keep_alives += 1;
                    let keep_alive = Some(KeepAlive { number: self.keep_alives });
                    self.send_frame(ClientFrame { keep_alive, ..self.says() });
                    ensure!(began.elapsed() < ANSWER_WAIT, "a stream is silent");
                }
            }
        }
    }

    /// Sends a request, and waits for its outcome.
    ///
    /// # Errors
    ///
    /// If the stream ends first.
    pub async fn call(&mut self, operation: Operation) -> Result<Outcome> {
        let number = self.send([operation]);
        Ok(self.reply(number).await?.outcome.unwrap_or_default())
    }

    /// Waits for the reply to a request that was sent last.
    ///
    /// # Errors
    ///
    /// If the stream ends first.
    pub async fn reply(&mut self, number: u64) -> Result<Reply> {
        loop {
            if let Some(reply) = self.next().await?.into_iter().find(|reply| reply.number == number) {
                return Ok(reply);
            }
        }
    }

    /// Waits until all requests are answered.
    ///
    /// # Errors
    ///
    /// If the stream ends first.
    pub async fn all_answered(&mut self) -> Result<()> {
        while self.under_way() > 0 {
            self.next().await?;
        }
        Ok(())
    }

    /// Keeps up to `width` requests under way, `batch` a frame, until the stream ends.
    ///
    /// # Errors
    ///
    /// If the stream ends.
    pub async fn flood(
        &mut self,
        width: usize,
        batch: usize,
        mut operation: impl FnMut(u64) -> Operation,
    ) -> Result<()> {
        loop {
            while self.under_way() as usize + batch <= width.max(batch) {
                let next = self.last + 1;
                self.send((0..batch as u64).map(|index| operation(next + index)));
            }
            self.next().await?;
        }
    }

    /// Sends many requests in frames as large as may be, `width` at a time, and waits for all replies.
    ///
    /// # Errors
    ///
    /// If the stream ends first.
    pub async fn do_all(
        &mut self,
        width: usize,
        operations: impl IntoIterator<Item = Operation>,
    ) -> Result<()> {
        let mut operations = operations.into_iter().peekable();
        while operations.peek().is_some() {
            let mut bytes = 0;
            let size = |operation: &Operation| {
                prost::Message::encoded_len(&Request {
                    operation: Some(operation.clone()),
                    ..Request::default()
                }) + 16
            };
            let mut frame = Vec::new();
            while let Some(operation) =
                operations.next_if(|next| frame.is_empty() || bytes + size(next) < FRAME_BYTES_MAX)
            {
                bytes += size(&operation);
                frame.push(operation);
                if frame.len() >= width.min(512) {
                    break;
                }
            }
            self.send(frame);
            while self.under_way() as usize >= width {
                self.next().await?;
            }
        }
        self.all_answered().await
    }

    /// What the session says in each frame, as it behaves.
    fn says(&self) -> ClientFrame {
        let acknowledged = self
            .options
            .heeds_replies
            .then_some(Acknowledged { through: self.answered_through, ..Acknowledged::default() });
        let notices_through = if self.options.heeds_notices { self.notices_through } else { 0 };
        ClientFrame { acknowledged, notices_through, ..ClientFrame::default() }
    }

    fn take(&mut self, frame: ServerFrame) -> Result<Vec<Reply>> {
        if let Some(server_frame::Hello::Refused(refused)) = frame.hello {
            let code = code_name(refused.refusal.unwrap_or_default().code);
            self.tally.refused(format!("stream: {code}"));
            bail!("a stream was refused: {code}");
        }
        if let Some(ended) = frame.ended {
            bail!("a session ended: {:?}", ended.reason());
        }
        if let Some(last) = frame.notices.last() {
            self.notices_through = last.number;
            if self.options.heeds_notices {
                self.send_frame(self.says());
            }
        }
        for reply in &frame.replies {
            self.tally.count(reply.outcome.as_ref());
            if reply.number > self.answered_through {
                self.answered.insert(reply.number);
            }
        }
        while self.answered.remove(&(self.answered_through + 1)) {
            self.answered_through += 1;
        }
        Ok(frame.replies)
    }
}
