//! Writing a snapshot: an iterator of chunks over a clone of the state.
//!
//! It holds no more of the encoding than a chunk and the record that overflows it, so that it can run beside the
//! live state for as long as it takes.

use bytes::{Bytes, BytesMut};
use holdfast_proto::client::v1::NodeKind;
use holdfast_proto::log::v1::snapshot_record::Record;
use holdfast_proto::log::v1::{
    DelayRecord, HandleRecord, HolderRecord, NodeRecord, OutcomeRecord, SessionRecord, SnapshotEnd,
    SnapshotHeader, SnapshotRecord, WaiterRecord,
};
use holdfast_types::{HandleId, SessionId, planted};
use prost::Message;

use crate::State;
use crate::locking::wire_mode;
use crate::node::Node;
use crate::session::{Handle, Session};
use crate::tree::NodeKey;

const CHUNK_BYTES: usize = 64 * 1024;

/// A state's snapshot, chunk by chunk. Where chunks end means nothing.
#[derive(Debug)]
pub struct SnapshotWriter {
    state: State,
    next: Next,
    /// Encoded, and not yet given out.
    pending: BytesMut,
    /// Of the sessions so far, for the end.
    handles: u64,
}

/// What comes next.
#[derive(Debug)]
enum Next {
    Header,
    /// The node after this one.
    Node(Option<NodeKey>),
    /// The session after this one.
    Session(Option<SessionId>),
    Nothing,
}

impl SnapshotWriter {
    pub(crate) fn new(state: State) -> Self {
        Self { state, next: Next::Header, pending: BytesMut::new(), handles: 0 }
    }

    /// Encodes on until there is a chunk, or the kind of record changes.
    fn encode_some(&mut self) {
        self.next = match &self.next {
            Next::Header => {
                encode(&mut self.pending, Record::Header(header(&self.state)));
                Next::Node(None)
            }
            Next::Node(after) => {
                let mut last = None;
                for (key, node) in self.state.tree.iter_after(after.as_ref()) {
                    encode(&mut self.pending, Record::Node(node_record(key, node)));
                    last = Some(key);
                    if self.pending.len() >= CHUNK_BYTES {
                        break;
                    }
                }
                last.map_or(Next::Session(None), |key| Next::Node(Some(key.clone())))
            }
            Next::Session(after) => match self.state.sessions.iter_after(*after).next() {
                Some((id, session)) => {
                    encode(&mut self.pending, Record::Session(session_record(id, session)));
                    for (id, handle) in session.handles() {
                        encode(&mut self.pending, Record::Handle(handle_record(id, handle)));
                        self.handles += 1;
                    }
                    Next::Session(Some(id))
                }
                None => {
                    let (nodes, sessions) =
                        (self.state.node_count() as u64, self.state.session_count() as u64);
                    encode(
                        &mut self.pending,
                        Record::End(SnapshotEnd { nodes, sessions, handles: self.handles }),
                    );
                    Next::Nothing
                }
            },
            Next::Nothing => Next::Nothing,
        };
    }
}

impl Iterator for SnapshotWriter {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while self.pending.len() < CHUNK_BYTES && !matches!(self.next, Next::Nothing) {
            self.encode_some();
        }
        let bytes = self.pending.len().min(CHUNK_BYTES);
        (bytes > 0).then(|| self.pending.split_to(bytes).freeze())
    }
}

fn encode(pending: &mut BytesMut, record: Record) {
    SnapshotRecord { record: Some(record) }
        .encode_length_delimited(pending)
        .expect("a growing buffer has room for every record");
}

fn header(state: &State) -> SnapshotHeader {
    SnapshotHeader {
        version: state.version,
        cell: state.cell.to_string(),
        cell_id: state.cell_id,
        revision: state.revision.0,
        settings: Some(state.settings.clone()),
        members: state.members().cloned().collect(),
        removed: state.removed.iter().copied().collect(),
        lease_promised_ms: state.lease_promised_ms,
    }
}

fn node_record(key: &NodeKey, node: &Node) -> NodeRecord {
    let lock = &node.lock;
    let mode = lock.mode().map_or(0, |mode| wire_mode(mode).into());
    let holder = |holder: crate::lock::Holder| HolderRecord {
        session: holder.session.0,
        handle: holder.handle.0,
        mode,
    };
    let waiters = lock.waiters().map(|(ticket, waiter)| WaiterRecord {
        ticket: ticket.0,
        session: waiter.holder.session.0,
        handle: waiter.holder.handle.0,
        mode: wire_mode(waiter.mode).into(),
    });
    let delays = lock.delays().map(|(loss, delay)| DelayRecord {
        loss: loss.0,
        mode: wire_mode(delay.mode).into(),
        delay_ms: delay.delay_ms,
    });
    NodeRecord {
        path: key.path().as_str().to_owned(),
        kind: NodeKind::from(node.kind).into(),
        ephemeral: node.ephemeral,
        instance: node.instance.0,
        content_generation: node.content_generation.0,
        lock_generation: if planted!(FenceNotReplicated) { node.instance.0 } else { lock.generation().0 },
        acl_generation: node.acl_generation.0,
        children_generation: node.children_generation.0,
        contents: node.contents.clone(),
        checksum: node.checksum,
        holders: lock.holders().map(holder).collect(),
        waiters: waiters.collect(),
        delays: delays.collect(),
        acl: Some((*node.acl).clone()),
        owner: node.owner.as_ref().map_or_else(String::new, |owner| owner.as_str().to_owned()),
    }
}

fn session_record(id: SessionId, session: &Session) -> SessionRecord {
    let outcomes = session.window.outcomes().filter(|_| !planted!(WindowNotReplicated));
    SessionRecord {
        id: id.0,
        secret: session.secret().clone(),
        lease_ms: session.lease_ms(),
        client: session.client().to_owned(),
        acknowledged: Some(session.window.acknowledged()),
        outcomes: outcomes
            .map(|(number, outcome)| OutcomeRecord { number: number.0, outcome: Some(outcome.clone()) })
            .collect(),
        principal: session.principal().as_str().to_owned(),
    }
}

fn handle_record(id: HandleId, handle: &Handle) -> HandleRecord {
    HandleRecord {
        id: id.0,
        path: handle.key.path().as_str().to_owned(),
        instance: handle.instance.0,
        lock_delay_ms: handle.lock_delay_ms,
        acquire: handle.claim.map_or(0, |claim| claim.acquire.0),
        ticket: handle.claim.and_then(|claim| claim.ticket).map_or(0, |ticket| ticket.0),
        uses: Some(handle.uses),
        events: handle.events.kinds().map(i32::from).collect(),
        caching: handle.caching,
        sequencer: handle.sequencer.as_ref().map_or_else(String::new, |sequencer| sequencer.text.to_string()),
    }
}
