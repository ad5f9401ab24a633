//! The one stream that a session has at a time: frames out, frames in, and how it ends. Its KeepAlives also have a
//! spare way.
//!
//! Never decides where to connect or what to send. The invariant: after the first error nothing more comes out of it.

use crate::channels::Channels;
use crate::heard::Heard;
use crate::spare::Spare;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use holdfast_proto::client::STREAM_KEY;
use holdfast_proto::client::v1::{ClientFrame, ServerFrame};
use holdfast_session::{Problem, StreamId};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Status, Streaming};

/// A stream that carries the session's last word is kept for so long, so that it gets out.
const LAST_WORD_TIME: Duration = Duration::from_secs(1);

/// A frame, or the end of the stream and why.
pub(crate) type Arrival = (StreamId, Result<ServerFrame, Problem>);

/// A stream, from when it is asked for.
pub(crate) struct Link {
    pub(crate) stream: StreamId,
    address: String,
    /// On its connection; `None` if there is no way to make one.
    heard: Option<Heard>,
    channels: Channels,
    /// Bounded by the protocol: the machine never has more requests in flight than the cell allows, and one
    /// KeepAlive. `None` once the last frame was handed over.
    frames: Option<mpsc::UnboundedSender<ClientFrame>>,
    inbound: Inbound,
    spare: Spare,
    /// The session's `close` is on its way.
    close_sent: bool,
}

enum Inbound {
    /// The call is under way. Frames can be queued meanwhile.
    Opening(BoxFuture<'static, Result<Streaming<ServerFrame>, Status>>),
    Open(Box<Streaming<ServerFrame>>),
    /// Broken, and the machine has been told.
    Over,
}

impl Link {
    /// Begins to open a stream to the replica at `address`.
    pub(crate) fn open(stream: StreamId, address: String, channels: &Channels) -> Self {
        let (frames, outbound) = mpsc::unbounded_channel();
        let (client, heard) = match channels.line(&address) {
            Ok((client, heard)) => (Ok(client), Some(heard)),
            Err(error) => (Err(error), None),
        };
        let spare = Spare::new();
        let mut request = Request::new(UnboundedReceiverStream::new(outbound));
        if let Some(name) = spare.name().and_then(|name| name.parse().ok()) {
            request.metadata_mut().insert(STREAM_KEY, name);
        }
        let call = async move {
            let mut client = client.map_err(|error| Status::unavailable(error.to_string()))?;
            let opened = client.session(request).await?;
            Ok(opened.into_inner())
        };
        let inbound = Inbound::Opening(call.boxed());
        let channels = channels.clone();
        Self { stream, address, heard, channels, frames: Some(frames), inbound, spare, close_sent: false }
    }

    /// Gives the stream up as silent: what comes next makes another connection.
    pub(crate) fn abandon(self) {
        if let Some(heard) = &self.heard {
            self.channels.forget(heard);
        }
    }

    pub(crate) fn send(&mut self, frame: ClientFrame) {
        self.close_sent |= frame.close.is_some();
        self.spare.sent(&frame);
        if let Some(frames) = &self.frames {
            // It fails if the stream is broken, which `next` reports.
            let _ = frames.send(frame);
        }
    }

    /// Closes the stream, but not before the session's `close` was sent on it: otherwise the cell would wait for the
    /// end of the lease.
    pub(crate) fn finish(mut self) {
        if !self.close_sent {
            return;
        }
        // What is queued is sent, and then the stream half closed.
        self.frames = None;
        self.spare.stop();
        // A task without a handle: it ends by itself, and whatever comes of it is of no consequence.
        tokio::spawn(tokio::time::timeout(LAST_WORD_TIME, async move { while self.next().await.is_ok() {} }));
    }

    /// Waits for the next frame; an error means that the stream is over. Nothing is lost if it is dropped.
    pub(crate) async fn next(&mut self) -> Result<ServerFrame, Problem> {
        loop {
            match &mut self.inbound {
                Inbound::Opening(call) => match call.await {
                    Ok(stream) => self.inbound = Inbound::Open(Box::new(stream)),
                    Err(status) => return Err(self.over(&status)),
                },
                Inbound::Open(stream) => {
                    let message = tokio::select! {
                        biased;
                        message = stream.message() => message,
                        lease = self.spare.answer(&self.address, &self.channels) => {
                            return Ok(ServerFrame { lease: Some(lease), ..ServerFrame::default() });
                        }
                    };
                    match message {
                        Ok(Some(frame)) => {
                            if let Some(lease) = &frame.lease {
                                self.spare.answered(lease);
                            }
                            return Ok(frame);
                        }
                        Ok(None) => {
                            return Err(self.over(&Status::unavailable("the replica ended the stream")));
                        }
                        Err(status) => return Err(self.over(&status)),
                    }
                }
                Inbound::Over => std::future::pending().await,
            }
        }
    }

    fn over(&mut self, status: &Status) -> Problem {
        self.inbound = Inbound::Over;
        self.channels.problem(&self.address, status)
    }
}

/// Waits for the next arrival; for ever if there is no stream.
pub(crate) async fn next_arrival(link: &mut Option<Link>) -> Arrival {
    match link {
        Some(link) => (link.stream, link.next().await),
        None => std::future::pending().await,
    }
}
