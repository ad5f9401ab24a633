//! The spare way for a KeepAlive that the session's stream is slow to answer: another connection.
//!
//! On a connection that loses packets, a KeepAlive waits behind what was sent before it, for seconds if that is large.
//! So one that has had no answer for half a second is sent once more, past the stream. It is the same KeepAlive, with
//! the same stamp; whichever answer comes first is handed on. Invariant: where answers come in time, nothing is sent; and
//! only grants are handed on, so that a stream on which nothing is granted is still found to be silent.

use crate::channels::{Channels, STALE};
use crate::heard::Heard;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use holdfast_proto::client::v1::{ClientFrame, ExtendLeaseRequest, KeepAlive, LeaseGranted};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Response, Status};

/// A KeepAlive without an answer goes the spare way after this, and again after as long if it is not granted.
const PATIENCE: Duration = Duration::from_millis(500);
/// At most so much more, by chance: a master that is slow for a moment is not to be dialled by everybody at once.
const PATIENCE_SPREAD: Duration = Duration::from_millis(250);
/// An answer that takes longer is not waited for: the same is asked again at once. Longer than [`STALE`], so that a
/// connection that is dead is found out by the first call on it.
const CALL_MAX: Duration = Duration::from_millis(1_100);
const _: () = assert!(CALL_MAX.as_millis() > STALE.as_millis());

/// The spare way of one stream.
pub(crate) struct Spare {
    /// The stream's name: random, known to this client and the replica. Without one there is no spare way, and everything
    /// else goes on.
    name: Option<String>,
    patience: Duration,
    /// The KeepAlive that has no answer yet, and when it goes this way.
    unanswered: Option<(KeepAlive, Instant)>,
    /// The last notice that the session has acted on. The word of that may wait on the stream too.
    notices_through: u64,
    call: Option<Call>,
}

/// A KeepAlive on its way.
struct Call {
    answer: BoxFuture<'static, Result<Response<LeaseGranted>, Status>>,
    until: Instant,
    /// On its connection.
    heard: Heard,
}

impl Spare {
    pub(crate) fn new() -> Self {
        let mut chance = [0_u8; 17];
        let name = getrandom::fill(&mut chance).ok().map(|()| {
            let name = &chance[..16];
            name.iter().map(|byte| format!("{byte:02x}")).collect()
        });
        let patience = PATIENCE + PATIENCE_SPREAD * u32::from(chance[16]) / 256;
        Self { name, patience, unanswered: None, notices_through: 0, call: None }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// A frame goes out by the stream.
    pub(crate) fn sent(&mut self, frame: &ClientFrame) {
        self.notices_through = self.notices_through.max(frame.notices_through);
        if let Some(keep_alive) = frame.keep_alive {
            self.call = None;
            self.unanswered = Some((keep_alive, Instant::now() + self.patience));
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
            let Some(call) = &mut self.call else {
                tokio::time::sleep_until(at).await;
                self.begin(address, channels, keep_alive);
                continue;
            };
            let answer = tokio::time::timeout_at(call.until, &mut call.answer).await;
            let mut again = Instant::now();
            match answer.map(|answer| answer.map(Response::into_inner)) {
                Ok(Ok(lease)) if lease.lease_ms > 0 && lease.number == keep_alive.number => {
                    self.stop();
                    return lease;
                }
                Ok(Ok(_)) => again += self.patience,
                Ok(Err(status)) => {
                    tracing::debug!(%status, "a KeepAlive past the stream had no grant");
                    again += self.patience;
                }
                // If nothing is heard, the connection is dead, and the next call makes another one.
                Err(_) => channels.forget_spare(&call.heard),
            }
            self.call = None;
            self.unanswered = Some((keep_alive, again));
        }
    }

    fn begin(&mut self, address: &str, channels: &Channels, keep_alive: KeepAlive) {
        let (Some(stream), Ok((mut client, heard))) = (self.name.clone(), channels.spare_line(address))
        else {
            return self.stop();
        };
        let request = ExtendLeaseRequest {
            stream,
            keep_alive: Some(keep_alive),
            notices_through: self.notices_through,
        };
        let answer = async move { client.extend_lease(request).await }.boxed();
        self.call = Some(Call { answer, until: Instant::now() + CALL_MAX, heard });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::time::timeout;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_spare_connection_on_which_nothing_is_heard_is_made_anew_for_the_same_keep_alive() {
        // Takes connections, and never says a word.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let (channels, mut spare) = (Channels::default(), Spare::new());
        let keep_alive = Some(KeepAlive { number: 7 });
        spare.sent(&ClientFrame { keep_alive, ..ClientFrame::default() });
        let two = async {
            let _first = silent.accept().await.unwrap();
            silent.accept().await.unwrap();
        };
        tokio::select! {
            lease = spare.answer(&address, &channels) => panic!("{lease:?}"),
            made = timeout(LIMIT, two) => made.expect("it is made anew"),
        }
        assert_eq!(spare.unanswered.map(|(keep_alive, _)| keep_alive), keep_alive);
    }

    #[test]
    fn clients_do_not_all_lose_their_patience_at_once() {
        let patience: std::collections::BTreeSet<_> = (0..64).map(|_| Spare::new().patience).collect();
        assert!(patience.len() > 8, "{patience:?}");
        assert!(patience.iter().all(|patience| (PATIENCE..PATIENCE + PATIENCE_SPREAD).contains(patience)));
    }
}
