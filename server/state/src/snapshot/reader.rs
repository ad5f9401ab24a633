//! Reading a snapshot: a state out of chunks, or a reason why they are none.
//!
//! Nothing in the input is trusted: it comes from a disk or from another replica. Memory grows with what has
//! arrived, never with what a length claims. Invariant: a state that comes out passes
//! [`State::check_invariants`], so it can be applied to.

use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use holdfast_proto::client::v1::NodeKind;
use holdfast_proto::log::v1::snapshot_record::Record;
use holdfast_proto::log::v1::{
    HandleRecord, NodeRecord, SessionRecord, SnapshotEnd, SnapshotHeader, SnapshotRecord,
};
use holdfast_types::{HandleId, NodePath, Principal, RequestNumber, Revision, SessionId, check_cell_name};
use imbl::{OrdMap, OrdSet};
use prost::Message;

use super::recorded_mode;
use crate::events::EventSet;
use crate::exactly_once::Window;
use crate::lock::{Delay, Holder, Lock, Waiter};
use crate::node::{Kind, Node};
use crate::sequencer::CellSequencer;
use crate::session::{Claim, Handle, Session, Sessions};
use crate::tree::{NodeKey, Tree};
use crate::usage::Usage;
use crate::watchers::Watchers;
use crate::{Recorded, State, VERSION_MAX, acl, settings};

/// The longest record. No state that fits into memory has one as long; a damaged length mostly is longer.
const RECORD_BYTES_MAX: u64 = 1 << 30;
/// So far from the end of all numbers that no cell ever counts on to it.
const REVISION_MAX: u64 = u64::MAX / 2;

/// Why a snapshot cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SnapshotError {
    /// The bytes are not records.
    #[error("the snapshot is damaged: record {record} cannot be decoded ({why})")]
    Undecodable {
        /// The record, counted from 0.
        record: u64,
        /// What the decoder says.
        why: String,
    },
    /// A record that cannot be where it is, or as it is.
    #[error("the snapshot is damaged: record {record}: {why}")]
    Impossible {
        /// The record, counted from 0.
        record: u64,
        /// What is wrong.
        why: String,
    },
    /// It ends too early.
    #[error("the snapshot is cut off after record {records}: the end is missing")]
    Truncated {
        /// How many whole records there were.
        records: u64,
    },
    /// Each record is possible, and all of them together are not.
    #[error("the snapshot is damaged: {0}")]
    Inconsistent(String),
    /// A newer version of Holdfast wrote it.
    #[error(
        "the snapshot has state version {version}, and this version of holdfast ends at {version_max}: upgrade this replica"
    )]
    UnknownVersion {
        /// The snapshot's version.
        version: u32,
        /// The greatest that this program knows.
        version_max: u32,
    },
}

/// Reads a snapshot from chunks that begin and end anywhere.
#[derive(Debug, Default)]
pub struct SnapshotReader {
    /// What has arrived of the next record.
    pending: BytesMut,
    /// How many records were read.
    records: u64,
    /// There from the header on.
    state: Option<State>,
    /// The node read last.
    last_node: Option<NodeKey>,
    /// The session read last: handles are its own.
    last_session: Option<SessionId>,
    handles: u64,
    ended: bool,
}

impl SnapshotReader {
    /// A reader that has read nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    ///
    /// The input is no snapshot. The reader is of no use any more.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        self.pending.extend_from_slice(chunk);
        while let Some(bytes) = self.take_record()? {
            let record = SnapshotRecord::decode(bytes).map_err(|error| SnapshotError::Undecodable {
                record: self.records,
                why: error.to_string(),
            })?;
            self.restore(record)?;
            self.records += 1;
        }
        Ok(())
    }

    /// The state, after the last chunk.
    ///
    /// # Errors
    ///
    /// The input is cut off, or its parts do not fit together.
    pub fn finish(mut self) -> Result<State, SnapshotError> {
        let truncated = SnapshotError::Truncated { records: self.records };
        if !self.ended {
            return Err(truncated);
        }
        let mut state = self.state.take().ok_or(truncated)?;
        state.tree.reindex_all();
        state.usage = Usage::of(&state);
        state.verify().map_err(SnapshotError::Inconsistent)?;
        Ok(state)
    }

    /// The bytes of the next record, if all of them are there.
    fn take_record(&mut self) -> Result<Option<Bytes>, SnapshotError> {
        let Some((length, prefix_bytes)) = self.length()? else { return Ok(None) };
        if self.pending.len() - prefix_bytes < length {
            return Ok(None);
        }
        self.pending.advance(prefix_bytes);
        Ok(Some(self.pending.split_to(length).freeze()))
    }

    /// The length of the next record and the bytes that it is written in, if they are there.
    fn length(&self) -> Result<Option<(usize, usize)>, SnapshotError> {
        let mut length = 0;
        for (at, byte) in self.pending.iter().take(5).enumerate() {
            length |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return match usize::try_from(length) {
                    Ok(bytes) if length <= RECORD_BYTES_MAX => Ok(Some((bytes, at + 1))),
                    _ => Err(self.impossible(format!("its length is {length} bytes"))),
                };
            }
        }
        if self.pending.len() < 5 { Ok(None) } else { Err(self.impossible("its length has no end")) }
    }

    fn impossible(&self, why: impl Into<String>) -> SnapshotError {
        SnapshotError::Impossible { record: self.records, why: why.into() }
    }

    fn restore(&mut self, record: SnapshotRecord) -> Result<(), SnapshotError> {
        if self.ended {
            return Err(self.impossible("it comes after the end"));
        }
        let result = match (record.record, &mut self.state) {
            (Some(Record::Header(header)), None) => {
                if header.version == 0 || header.version > VERSION_MAX {
                    let version = header.version;
                    return Err(SnapshotError::UnknownVersion { version, version_max: VERSION_MAX });
                }
                restore_header(header).map(|state| self.state = Some(state))
            }
            (Some(Record::Header(_)), Some(_)) => Err("a second header".to_owned()),
            (Some(_), None) => Err("there is no header before it".to_owned()),
            (Some(Record::Node(_)), Some(_)) if self.last_session.is_some() => {
                Err("a node after the sessions".to_owned())
            }
            (Some(Record::Node(node)), Some(state)) => restore_node(state, &mut self.last_node, &node)
                .map_err(|why| format!("node {:?}: {why}", node.path)),
            (Some(Record::Session(session)), Some(state)) => {
                let id = session.id;
                restore_session(state, &mut self.last_session, session)
                    .map_err(|why| format!("session s{id}: {why}"))
            }
            (Some(Record::Handle(handle)), Some(state)) => {
                self.handles += 1;
                restore_handle(state, self.last_session, &handle)
                    .map_err(|why| format!("handle h{}: {why}", handle.id))
            }
            (Some(Record::End(end)), Some(state)) => {
                self.ended = true;
                check_end(state, self.handles, end)
            }
            (None, _) => Err("it is of no known kind".to_owned()),
        };
        result.map_err(|why| self.impossible(why))
    }
}

fn restore_header(header: SnapshotHeader) -> Result<State, String> {
    check_cell_name(&header.cell)?;
    let settings = header.settings.ok_or("there are no settings")?;
    if settings::complete_at(header.version, settings.clone()).as_ref() != Ok(&settings) {
        return Err("the settings are not complete, or out of their ranges".to_owned());
    }
    let revision = generation(header.revision, Revision(REVISION_MAX), "revision")?;
    let member_ids: Vec<u64> = header.members.iter().map(|member| member.id).collect();
    if !rising(&member_ids) || !rising(&header.removed) {
        return Err("the members are not in the order of their ids".to_owned());
    }
    Ok(State {
        cell: Arc::from(header.cell),
        cell_id: header.cell_id,
        version: header.version,
        revision,
        settings,
        lease_promised_ms: header.lease_promised_ms,
        members: header.members.into_iter().map(|member| (member.id, member)).collect::<OrdMap<_, _>>(),
        removed: header.removed.into_iter().collect::<OrdSet<_>>(),
        tree: Tree::default(),
        sessions: Sessions::default(),
        usage: Usage::default(),
    })
}

fn restore_node(state: &mut State, last: &mut Option<NodeKey>, record: &NodeRecord) -> Result<(), String> {
    let key = NodeKey::new(NodePath::from_canonical(&record.path).map_err(|error| error.to_string())?);
    if last.as_ref().is_some_and(|last| *last >= key) {
        return Err("it does not come after the node before it".to_owned());
    }
    let revision = state.revision;
    let kind = match NodeKind::try_from(record.kind) {
        Ok(NodeKind::File) => Kind::File,
        Ok(NodeKind::Directory) => Kind::Directory,
        _ => return Err(format!("kind {} is neither file nor directory", record.kind)),
    };
    if record.instance == 0 {
        return Err("its instance is 0".to_owned());
    }
    let acl = record.acl.clone().ok_or("it has no access control names")?;
    let node = Node {
        kind,
        ephemeral: record.ephemeral,
        instance: generation(record.instance, revision, "instance")?,
        content_generation: generation(record.content_generation, revision, "content generation")?,
        acl_generation: generation(record.acl_generation, revision, "ACL generation")?,
        children_generation: generation(record.children_generation, revision, "children generation")?,
        contents: Bytes::copy_from_slice(&record.contents),
        checksum: record.checksum,
        children: 0,
        open_handles: 0,
        lock: restore_lock(record, revision)?,
        acl: state.tree.shared_acl(&key, acl),
        watchers: Watchers::default(),
        cachers: OrdSet::new(),
        owner: restore_owner(state, &record.owner)?,
        list: acl::parsed(key.path(), &record.contents),
    };
    state.usage.add_node(&key, &node);
    state.tree.restore(key.clone(), node)?;
    *last = Some(key);
    Ok(())
}

/// Who created a node. The names of those who created nodes before it are shared.
fn restore_owner(state: &mut State, owner: &str) -> Result<Option<Principal>, String> {
    if owner.is_empty() {
        return Ok(None);
    }
    let owner = Principal::parse(owner).map_err(|error| error.to_string())?;
    Ok(Some(state.usage.interned(&owner)))
}

fn restore_lock(record: &NodeRecord, revision: Revision) -> Result<Lock, String> {
    let mode = |mode: i32| recorded_mode(mode).ok_or_else(|| format!("lock mode {mode} is unknown"));
    let mut lock = Lock::restore(generation(record.lock_generation, revision, "lock generation")?);
    for holder in &record.holders {
        let id = Holder { session: SessionId(holder.session), handle: HandleId(holder.handle) };
        if !lock.restore_holder(id, mode(holder.mode)?) {
            return Err(format!("two holders of its lock conflict; one is {}/{}", id.session, id.handle));
        }
    }
    let tickets: Vec<u64> = record.waiters.iter().map(|waiter| waiter.ticket).collect();
    let losses: Vec<u64> = record.delays.iter().map(|delay| delay.loss).collect();
    if !rising(&tickets) || !rising(&losses) {
        return Err("its waiters or delays are out of order".to_owned());
    }
    for waiter in &record.waiters {
        let holder = Holder { session: SessionId(waiter.session), handle: HandleId(waiter.handle) };
        let ticket = generation(waiter.ticket, revision, "ticket")?;
        lock.restore_waiter(ticket, Waiter { holder, mode: mode(waiter.mode)? });
    }
    for delay in &record.delays {
        let loss = generation(delay.loss, revision, "loss")?;
        lock.begin_delay(loss, Delay { mode: mode(delay.mode)?, delay_ms: delay.delay_ms });
    }
    Ok(lock)
}

fn restore_session(
    state: &mut State,
    last: &mut Option<SessionId>,
    record: SessionRecord,
) -> Result<(), String> {
    let id = SessionId(generation(record.id, state.revision, "id")?.0);
    if id.0 == 0 || last.is_some_and(|last| last >= id) {
        return Err("it does not come after the session before it".to_owned());
    }
    if state.sessions.by_secret(&record.secret).is_some() {
        return Err("another session has the same secret".to_owned());
    }
    let acknowledged = record.acknowledged.unwrap_or_default();
    let mut window = Window::default();
    window.acknowledge(&acknowledged, u32::MAX).map_err(|refusal| refusal.message)?;
    if window.acknowledged() != acknowledged {
        return Err("what it acknowledges is not in its shortest form".to_owned());
    }
    for record in record.outcomes {
        let number = RequestNumber(record.number);
        if number.0 == 0 || window.recorded(number) != Recorded::New {
            return Err(format!("request {number} cannot have an outcome"));
        }
        window.record(number, record.outcome.ok_or_else(|| format!("request {number} has no outcome"))?);
    }
    let principal = Principal::parse(&record.principal).map_err(|error| error.to_string())?;
    let session = Session::new(&record.secret, record.lease_ms, &record.client, principal, window);
    state.sessions.insert(id, session);
    *last = Some(id);
    Ok(())
}

fn restore_handle(
    state: &mut State,
    session: Option<SessionId>,
    record: &HandleRecord,
) -> Result<(), String> {
    let session = session.ok_or("there is no session before it")?;
    let key = NodeKey::new(NodePath::from_canonical(&record.path).map_err(|error| error.to_string())?);
    let instance = generation(record.instance, state.revision, "instance")?;
    let ticket = generation(record.ticket, state.revision, "ticket")?;
    let claim = match (record.acquire, ticket.0) {
        (0, 0) => None,
        (0, _) => return Err("it waits without an Acquire".to_owned()),
        (acquire, 0) => Some(Claim { acquire: RequestNumber(acquire), ticket: None }),
        (acquire, _) => Some(Claim { acquire: RequestNumber(acquire), ticket: Some(ticket) }),
    };
    let handle = Handle {
        key,
        instance,
        lock_delay_ms: record.lock_delay_ms,
        claim,
        uses: record.uses.ok_or("it has no uses")?,
        events: restore_events(&record.events)?,
        caching: record.caching,
        sequencer: restore_sequencer(state, &record.sequencer)?,
    };
    let last = state.sessions.get(session).ok_or("its session is not there")?.last_handle();
    if record.id == 0 || last.is_some_and(|last| last.0 >= record.id) {
        return Err("it does not come after the handle before it".to_owned());
    }
    state.add_handle(Holder { session, handle: HandleId(record.id) }, handle);
    Ok(())
}

fn restore_events(kinds: &[i32]) -> Result<EventSet, String> {
    if kinds.windows(2).any(|two| two[0] >= two[1]) {
        return Err("its events do not rise".to_owned());
    }
    EventSet::from_wire(kinds).map_err(|refusal| refusal.message)
}

fn restore_sequencer(state: &State, text: &str) -> Result<Option<Arc<CellSequencer>>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let sequencer =
        CellSequencer::parse(text, state.cell(), state.version).map_err(|refusal| refusal.message)?;
    Ok(Some(Arc::new(sequencer)))
}

fn check_end(state: &State, handles: u64, end: SnapshotEnd) -> Result<(), String> {
    let counted =
        SnapshotEnd { nodes: state.node_count() as u64, sessions: state.session_count() as u64, handles };
    if counted != end {
        return Err(format!("the end says {end:?}, and there were {counted:?}"));
    }
    Ok(())
}

/// A revision that is not beyond the cell's own.
fn generation(value: u64, max: Revision, what: &str) -> Result<Revision, String> {
    if value > max.0 {
        return Err(format!("its {what} is {value}, beyond {}", max.0));
    }
    Ok(Revision(value))
}

/// Whether numbers rise, and begin above 0.
fn rising(numbers: &[u64]) -> bool {
    numbers.first() != Some(&0) && numbers.windows(2).all(|two| two[0] < two[1])
}
