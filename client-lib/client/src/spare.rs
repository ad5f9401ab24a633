//! The spare way for a KeepAlive that the session's stream is slow to answer: another connection.
//!
//! On a connection that loses packets, a KeepAlive waits behind what was sent before it, for seconds if that is large.
//! So one that has had no answer for half a second is sent once more, past the stream. It is the same KeepAlive, with
//! the same stamp; whichever answer comes first is handed on. Invariant: where answers come in time, nothing is sent; and
//! only grants are handed on, so that a stream on which nothing is granted is still found to be silent.

use crate::channels::Channels;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use holdfast_proto::client::v1::{ClientFrame, ExtendLeaseRequest, KeepAlive, LeaseGranted};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Response, Status};

/// A KeepAlive without an answer goes the spare way after this, and again after as long if that fails.
const PATIENCE: Duration = Duration::from_millis(500);

/// The spare way of one stream.
pub(crate) struct Spare {
    /// The stream's name: random, known to this client and the replica.
    name: String,
    /// The KeepAlive that has no answer yet, and when it goes this way.
    unanswered: Option<(KeepAlive, Instant)>,
    /// The last notice that the session has acted on. The word of that may wait on the stream too.
    notices_through: u64,
    call: Option<BoxFuture<'static, Result<Response<LeaseGranted>, Status>>>,
}

impl Spare {
    pub(crate) fn new() -> Self {
        let mut name = [0_u8; 16];
        // Without a name there is no spare way, and everything else goes on.
        let name = match getrandom::fill(&mut name) {
            Ok(()) => name.iter().map(|byte| format!("{byte:02x}")).collect(),
            Err(_) => String::new(),
        };
        Self { name, unanswered: None, notices_through: 0, call: None }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A frame goes out by the stream.
    pub(crate) fn sent(&mut self, frame: &ClientFrame) {
        self.notices_through = self.notices_through.max(frame.notices_through);
        if let Some(keep_alive) = frame.keep_alive
            && !self.name.is_empty()
        {
            self.call = None;
            self.unanswered = Some((keep_alive, Instant::now() + PATIENCE));
        }
    }

    /// Nothing is asked any more.
    pub(crate) fn stop(&mut self) {
        (self.unanswered, self.call) = (None, None);
    }

    /// The stream has brought an answer.
    pub(crate) fn answered(&mut self, lease: &LeaseGranted) {
        if self.unanswered.is_some_and(|(keep_alive, _)| keep_alive.number == lease.number) {
            self.stop();
        }
    }

    /// Waits until the spare way brings an answer. Nothing is lost if it is dropped.
    pub(crate) async fn answer(&mut self, address: &str, channels: &Channels) -> LeaseGranted {
        loop {
            let Some((keep_alive, at)) = self.unanswered else { std::future::pending().await };
            if let Some(call) = &mut self.call {
                let answer = call.await;
                self.call = None;
                match answer.map(Response::into_inner) {
                    Ok(lease) if lease.lease_ms > 0 && lease.number == keep_alive.number => {
                        self.unanswered = None;
                        return lease;
                    }
                    Ok(_) => {}
                    Err(status) => tracing::debug!(%status, "a KeepAlive past the stream had no grant"),
                }
                self.unanswered = Some((keep_alive, Instant::now() + PATIENCE));
                continue;
            }
            tokio::time::sleep_until(at).await;
            match channels.spare_client(address) {
                Ok(mut client) => {
                    let request = ExtendLeaseRequest {
                        stream: self.name.clone(),
                        keep_alive: Some(keep_alive),
                        notices_through: self.notices_through,
                    };
                    self.call = Some(async move { client.extend_lease(request).await }.boxed());
                }
                Err(_) => self.unanswered = None,
            }
        }
    }
}
