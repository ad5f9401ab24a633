//! Snapshots on their way between replicas, in the format of the snapshot files.
//!
//! A snapshot has a connection of its own, so that raft's messages do not queue behind it, and is encoded and
//! decoded by blocking threads, so that the core does not either. Invariant: the core hears exactly once how each
//! sending ended, and of an arrival only when the snapshot is whole and its checksums hold.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use holdfast_proto::log::v1::Member;
use holdfast_proto::peer::v1::SnapshotChunk;
use holdfast_replica::{Input, StateAt};
use holdfast_types::{Duration, ReplicaId};
use slog::{Logger, info, warn};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Status, Streaming};

use super::PeerBook;
use super::dial::connect_member;
use crate::driver::CoreInput;
use crate::storage::snapshot::{SnapshotDecoder, SnapshotEncoder};

/// So many chunks wait between a blocking thread and the connection.
const CHUNKS_WAITING_MAX: usize = 16;
/// A transfer that does not move at all for this long has failed.
const STALL_TIMEOUT: Duration = Duration::from_secs(30);

/// A snapshot to send.
pub(super) struct Sending {
    /// To whom.
    pub(super) to: ReplicaId,
    /// Who that is, if it is still a member.
    pub(super) member: Option<Member>,
    /// The raft message that the snapshot belongs to.
    pub(super) message: Bytes,
    /// The snapshot.
    pub(super) state: Box<StateAt>,
    /// Introduces this replica.
    pub(super) book: Arc<PeerBook>,
}

impl Sending {
    /// Sends the snapshot and tells the core how that ended.
    pub(super) async fn run(self, core: mpsc::Sender<CoreInput>, logger: Logger) {
        let (to, index) = (self.to, self.state.index);
        let sent = self.send().await;
        match &sent {
            Ok(()) => info!(logger, "sent a snapshot to {to}"; "index" => index),
            Err(reason) => warn!(logger, "could not send a snapshot to {to}: {reason}"; "index" => index),
        }
        // Fails only when the core is gone.
        let _ = core.send(CoreInput::Replica(Input::SnapshotSent { to, index, ok: sent.is_ok() })).await;
    }

    async fn send(self) -> Result<(), String> {
        let member = self.member.as_ref().ok_or("it is not a member any more")?;
        let mut connection = connect_member(&self.book, member).await?;
        let first = SnapshotChunk {
            from: Some(self.book.me()),
            to: self.to.0,
            message: self.message,
            data: Bytes::new(),
        };
        let taken = Arc::new(AtomicU64::new(0));
        let chunks = chunks(first, self.state, Arc::clone(&taken));
        let mut call = std::pin::pin!(connection.snapshot(chunks));
        let mut taken_before = 0;
        let ended = loop {
            match tokio::time::timeout(STALL_TIMEOUT, &mut call).await {
                Ok(ended) => break ended,
                Err(_) if taken.load(Ordering::Relaxed) == taken_before => {
                    return Err(format!("it took nothing for {} s", STALL_TIMEOUT.as_secs()));
                }
                Err(_) => taken_before = taken.load(Ordering::Relaxed),
            }
        };
        let refused = ended.map_err(|status| status.message().to_owned())?.into_inner().refused;
        if refused.is_empty() { Ok(()) } else { Err(refused) }
    }
}

/// The chunks of a snapshot, encoded by a thread as they are taken, and counted in `taken`.
fn chunks(
    first: SnapshotChunk,
    state: Box<StateAt>,
    taken: Arc<AtomicU64>,
) -> impl Stream<Item = SnapshotChunk> + Send + 'static {
    let (sender, receiver) = mpsc::channel(CHUNKS_WAITING_MAX);
    tokio::task::spawn_blocking(move || {
        for data in SnapshotEncoder::new(&state) {
            // The transfer failed, and whoever waited for it knows.
            if sender.blocking_send(data).is_err() {
                return;
            }
        }
    });
    let rest = ReceiverStream::new(receiver).map(move |data| {
        taken.fetch_add(1, Ordering::Relaxed);
        SnapshotChunk { data, ..SnapshotChunk::default() }
    });
    tokio_stream::once(first).chain(rest)
}

/// Takes a snapshot of the cell `cell_id`, of which `first` is the first piece. `Err` of the inner kind says what
/// is wrong with the snapshot, of the outer kind that it did not come whole.
pub(super) async fn receive(
    cell_id: u64,
    first: Bytes,
    mut rest: Streaming<SnapshotChunk>,
) -> Result<Result<StateAt, String>, Status> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(CHUNKS_WAITING_MAX);
    let decoding = tokio::task::spawn_blocking(move || {
        let mut decoder = SnapshotDecoder::new(cell_id);
        while let Some(data) = receiver.blocking_recv() {
            decoder.push(&data)?;
        }
        decoder.finish()
    });
    let mut data = first;
    loop {
        // The decoder has found something wrong: it will say what.
        if sender.send(data).await.is_err() {
            break;
        }
        match rest.message().await? {
            Some(chunk) => data = chunk.data,
            None => break,
        }
    }
    drop(sender);
    let decoded = decoding.await.map_err(|error| Status::internal(error.to_string()))?;
    Ok(decoded.map_err(|error| format!("the snapshot cannot be used: {error}")))
}
