//! One ready of raft-rs after another: what it wants sent, stored and applied (design.md §9).
//!
//! The order, which raft-rs leaves to us: append to our own log first, then `advance_append_async`; a leader's
//! messages go out at once, a follower's after the sync, but for those that promise nothing; `on_persist_ready` in order; then `advance_apply`. A
//! ready that needs no sync still queues behind those that do.

use bytes::Bytes;
use holdfast_master::Master;
use holdfast_state::Effect;
use holdfast_types::{Duration, ReplicaId, Term, planted};
use protobuf::Message as _;
use raft::{Ready, StateRole};
use slog::info;

use crate::log::{Position, check_place, conf_state, entry_bytes};
use crate::raftpb::{Entry, EntryType, Message, MessageType, Snapshot};
use crate::{Fault, Output, Persist, Replica, StateAt};

/// A turn that has applied so many bytes of the log applies no more of it: a replica that is behind must hear and send
/// heartbeats meanwhile. What raft gives out at a time has no more bytes than this either, or is one entry that is larger. What
/// is left is applied in the turns after it.
pub(crate) const APPLY_BYTES_MAX: u64 = 1 << 20;
/// What a command brings about counts as so many bytes more, by its weight: small commands take as long as large ones, and
/// some of them do much.
const EFFECT_BYTES: u64 = 256;

/// What a turn has done: all inputs that are handed in together, and all outputs that come of them.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// So many bytes of the log were applied, with what counts as bytes.
    applied_bytes: u64,
}

impl Turn {
    /// Whether it has applied its part.
    fn is_over(&self) -> bool {
        self.applied_bytes >= APPLY_BYTES_MAX
    }
}

/// A ready whose messages wait until it, and all before it, are durable.
#[derive(Debug)]
pub(crate) struct Unpersisted {
    number: u64,
    /// Whether the disk was asked to write it.
    on_disk: bool,
    /// Where the snapshot stands that came with it; 0 if none did.
    snapshot: u64,
    /// Of its entries.
    bytes: u64,
    messages: Vec<Message>,
}

/// While so many bytes of entries, or so many readies, wait for the disk, a leader's heartbeats are answered at once only
/// once an interval of theirs: each answer has raft send more, and nothing else would hold it back.
const UNPERSISTED_BYTES_MAX: u64 = 32 << 20;
const UNPERSISTED_MAX: usize = 256;

impl Replica {
    /// A turn begins with its first input.
    pub(crate) fn begin_turn(&mut self) {
        if self.turn.is_some() {
            return;
        }
        self.turn = Some(Turn::default());
        if let Some(master) = &mut self.master {
            master.handle(self.now, &self.state, holdfast_master::Input::TurnBegins);
        }
    }

    /// Does all there is to do until nothing is left but to wait, or the turn has done its part.
    pub(crate) fn work(&mut self) -> Result<(), Fault> {
        loop {
            self.take_decisions()?;
            let (has_ready, has_committed) = (self.raw.has_ready(), !self.committed.is_empty());
            self.is_behind = self.turn_is_over() && (has_ready || has_committed);
            if self.is_behind {
                break;
            }
            // What raft wants sent goes before what was left to be applied.
            if has_ready {
                let ready = self.raw.ready();
                self.take_ready(ready)?;
            } else if has_committed {
                self.apply()?;
            } else if !self.settle_parked()? {
                break;
            }
        }
        self.tell_leadership();
        Ok(())
    }

    fn take_ready(&mut self, mut ready: Ready) -> Result<(), Fault> {
        let number = ready.number();
        for read in ready.take_read_states() {
            self.round_confirmed(&read.request_ctx, read.index);
        }
        let messages = ready.take_messages();
        self.send_all(messages)?;
        let snapshot = self.install(ready.snapshot())?;
        let entries = ready.take_entries();
        let bytes = entries.iter().map(|entry| entry.data.len() as u64).sum();
        self.raw.mut_store().append(&entries);
        let hard_state = ready.hs().cloned();
        if let Some(hard_state) = &hard_state {
            self.raw.mut_store().set_hard_state(hard_state.clone());
        }
        // A commit index alone is not worth a write: it is found again after a restart.
        let on_disk = ready.must_sync() || snapshot.is_some() || !entries.is_empty();
        let installed = snapshot.as_ref().map_or(0, |at| at.index);
        if on_disk {
            let compact_to = self.snapshots.compact_to.take();
            let sync = ready.must_sync() && !planted!(ForgottenSync);
            let hard_state = hard_state.or_else(|| Some(self.raw.raft.hard_state()));
            let persist = Persist { number, snapshot, hard_state, entries, sync, compact_to };
            self.disk.begins(self.now, &persist);
            self.outputs.push_back(Output::Persist(persist));
        }
        let is_prompt = self.is_prompt();
        let needs_no_disk = |message: &Message| is_prompt && needs_no_disk(message);
        let (prompt, mut messages): (Vec<_>, _) =
            ready.take_persisted_messages().into_iter().partition(needs_no_disk);
        if !prompt.is_empty() {
            self.prompt_at = self.now;
        }
        self.send_all(prompt)?;
        if planted!(PromiseBeforeSync) {
            self.send_all(std::mem::take(&mut messages))?;
        }
        let committed = ready.take_committed_entries();
        self.raw.advance_append_async(ready);
        self.unpersisted.push_back(Unpersisted { number, on_disk, snapshot: installed, bytes, messages });
        self.unpersisted_bytes += bytes;
        self.settle_persisted(0)?;
        self.committed.extend(committed);
        self.apply()
    }

    /// Whether a leader's heartbeat may be answered before the disk has what came before it.
    fn is_prompt(&self) -> bool {
        let interval = Duration::from_millis(self.config.tick_ms * self.config.heartbeat_ticks as u64);
        let is_within =
            self.unpersisted_bytes < UNPERSISTED_BYTES_MAX && self.unpersisted.len() < UNPERSISTED_MAX;
        is_within || self.now >= self.prompt_at + interval
    }

    pub(crate) fn handle_persisted(&mut self, number: u64) -> Result<(), Fault> {
        self.sync_ended(number);
        self.settle_persisted(number)?;
        self.settle_rounds();
        Ok(())
    }

    /// Everything up to `number` is durable, and so is what came after it without asking the disk.
    fn settle_persisted(&mut self, number: u64) -> Result<(), Fault> {
        let mut last = None;
        let mut snapshot = 0;
        while let Some(front) = self.unpersisted.front()
            && (front.number <= number || !front.on_disk)
        {
            let settled = self.unpersisted.pop_front().expect("front was there");
            last = Some(settled.number);
            snapshot = settled.snapshot.max(snapshot);
            self.unpersisted_bytes -= settled.bytes;
            self.send_all(settled.messages)?;
        }
        if let Some(last) = last {
            self.raw.on_persist_ready(last);
        }
        if snapshot > 0 {
            self.raw.advance_apply_to(snapshot);
        }
        Ok(())
    }

    /// Whether a snapshot was accepted that is not durable yet. Raft counts it as applied only then, and whoever
    /// campaigns before looks through entries that are not there any more.
    pub(crate) fn is_installing(&self) -> bool {
        self.unpersisted.iter().any(|ready| ready.snapshot > 0)
    }

    fn send_all(&mut self, messages: Vec<Message>) -> Result<(), Fault> {
        for message in messages {
            let to = ReplicaId(message.to);
            let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
            let at = message.get_snapshot().get_metadata().index;
            let urgent = is_urgent(message.get_msg_type());
            let encoded = message.write_to_bytes();
            let message: Bytes = encoded.map_err(|error| Fault::new(format!("raft: {error}")))?.into();
            if is_snapshot {
                self.send_snapshot(to, at, message);
            } else {
                self.outputs.push_back(Output::Peer { to, message, urgent });
            }
        }
        Ok(())
    }

    fn send_snapshot(&mut self, to: ReplicaId, at: u64, message: Bytes) {
        // A message that waits for the disk, because we were deposed meanwhile or because raft wrote it while a
        // ready was under way, may be sent when more is applied. The state then is another than it says.
        if at != self.applied_index() {
            self.raw.report_snapshot(to.0, raft::SnapshotStatus::Failure);
            return;
        }
        self.snapshots.sending.insert(to, at);
        info!(self.logger, "sending a snapshot"; "to" => to.0, "index" => at);
        let state = Box::new(self.state_at());
        self.outputs.push_back(Output::SendSnapshot { to, message, state });
    }

    /// A transfer is over. If it is not the latest to that replica, it concerns nobody: it is of an earlier office.
    pub(crate) fn handle_snapshot_sent(&mut self, to: ReplicaId, index: u64, ok: bool) {
        if self.snapshots.sending.get(&to) == Some(&index) {
            self.snapshots.sending.remove(&to);
            if planted!(TransferNotReported) && !ok {
                return;
            }
            let status = if ok { raft::SnapshotStatus::Finish } else { raft::SnapshotStatus::Failure };
            self.raw.report_snapshot(to.0, status);
        }
    }

    pub(crate) fn handle_snapshot_arrived(
        &mut self,
        from: ReplicaId,
        message: &Bytes,
        state: Box<StateAt>,
    ) -> Result<(), Fault> {
        let Some(message) = self.decode(from, message)? else { return Ok(()) };
        // The disk may have no room for the one before. Its sender sends again, until what it sends is of use.
        if self.is_installing() {
            slog::debug!(self.logger, "a snapshot came while another one is being installed"; "from" => from.0);
            return Ok(());
        }
        let metadata = message.get_snapshot().get_metadata();
        let agrees = message.get_msg_type() == MessageType::MsgSnapshot
            && (metadata.index, metadata.term) == (state.index, state.term.0);
        if !agrees {
            slog::warn!(self.logger, "a snapshot and its message do not agree"; "from" => from.0);
            return Ok(());
        }
        let told = metadata.get_conf_state();
        let agrees = told.voters == state.voters && told.learners == state.learners;
        if let Err(why) =
            check_place(&state).and_then(|()| agrees.then_some(()).ok_or("its members differ".into()))
        {
            slog::warn!(self.logger, "a snapshot that came cannot be: {}", why; "from" => from.0);
            return Ok(());
        }
        self.incoming = Some(state);
        self.step(message)?;
        // Taken at once or never: raft may well refuse it, having moved on.
        if self.raw.has_ready() {
            let ready = self.raw.ready();
            self.take_ready(ready)?;
        }
        self.incoming = None;
        Ok(())
    }

    /// A snapshot that raft has accepted replaces log and state.
    fn install(&mut self, snapshot: &Snapshot) -> Result<Option<Box<StateAt>>, Fault> {
        if snapshot.is_empty() {
            return Ok(None);
        }
        let metadata = snapshot.get_metadata();
        let Some(at) = self.incoming.take().filter(|at| at.index == metadata.index) else {
            return Err(Fault::new(format!(
                "raft accepted a snapshot at {} that never came",
                metadata.index
            )));
        };
        info!(self.logger, "installing a snapshot"; "index" => at.index);
        let position = Position { index: at.index, term: at.term.0 };
        // All that was committed here is older.
        self.committed.clear();
        self.raw.mut_store().reset(position, conf_state(&at.voters, &at.learners));
        self.state = at.state.clone();
        self.snapshots.durable = at.index;
        self.snapshots.bytes_since = 0;
        self.tell_members();
        Ok(Some(at))
    }

    fn turn_is_over(&self) -> bool {
        self.turn.as_ref().is_some_and(Turn::is_over)
    }

    /// Applies what is committed, as far as the turn goes.
    fn apply(&mut self) -> Result<(), Fault> {
        let mut last = None;
        while !self.turn_is_over()
            && let Some(entry) = self.committed.pop_front()
        {
            last = Some(entry.index);
            let bytes = entry_bytes(&entry);
            let weight = self.apply_entry(entry)?;
            if let Some(turn) = &mut self.turn {
                turn.applied_bytes += bytes + EFFECT_BYTES * weight;
            }
        }
        if let Some(last) = last {
            self.raw.advance_apply_to(last);
            self.maybe_write_snapshot();
        }
        self.settle_rounds();
        Ok(())
    }

    /// Gives the weight of what it brought about.
    fn apply_entry(&mut self, entry: Entry) -> Result<u64, Fault> {
        let position = Position { index: entry.index, term: entry.term };
        let mut weight = 0;
        self.snapshots.bytes_since += entry_bytes(&entry);
        match entry.get_entry_type() {
            EntryType::EntryNormal if entry.data.is_empty() => {}
            EntryType::EntryNormal => {
                let mut effects = std::mem::take(&mut self.effects);
                if self.master.is_some() {
                    self.proposals.applied(entry.data.len());
                }
                self.state.apply_batch(Term(entry.term), entry.data, &mut effects)?;
                weight = effects.iter().map(Effect::weight).sum();
                if let Some(master) = &mut self.master {
                    for effect in effects.drain(..) {
                        master.handle(self.now, &self.state, holdfast_master::Input::Applied(effect));
                    }
                }
                effects.clear();
                self.effects = effects;
            }
            EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => self.apply_membership(&entry)?,
        }
        self.raw.mut_store().set_applied(position);
        self.maybe_take_office(position.term);
        self.see_to_override();
        Ok(weight)
    }

    /// In office from the first entry of our own term on.
    fn maybe_take_office(&mut self, entry_term: u64) {
        let raft = &self.raw.raft;
        if self.master.is_some() || raft.state != StateRole::Leader || raft.term != entry_term {
            return;
        }
        let term = Term(raft.term);
        info!(self.logger, "in office"; "term" => term.0);
        self.disk.takes_office(self.now);
        self.master = Some(Master::new(self.now, term, self.config.master.clone(), &self.state));
    }

    /// The state and where it stands.
    pub(crate) fn state_at(&self) -> StateAt {
        let Position { index, term } = self.raw.store().applied();
        let conf_state = self.raw.store().conf_state();
        let (voters, learners) = (conf_state.get_voters().to_vec(), conf_state.get_learners().to_vec());
        StateAt { index, term: Term(term), voters, learners, state: self.state.clone() }
    }
}

/// Whether a follower may say this before its disk has anything: that it heard a leader promises nothing that a crash could
/// take back. Who elected that leader has the term on its disk, so whoever has forgotten it cannot help another one of an
/// earlier term to a quorum, nor of this one; and a later one is elected after this answer. So a master stays master, and
/// its sessions are kept alive, however slow the others' disks are.
fn needs_no_disk(message: &Message) -> bool {
    message.get_msg_type() == MessageType::MsgHeartbeatResponse
}

/// Whether the cell's mastership hangs on a message of this kind. All of them are small, and none need be in order.
fn is_urgent(kind: MessageType) -> bool {
    use MessageType as M;
    matches!(
        kind,
        M::MsgHeartbeat
            | M::MsgHeartbeatResponse
            | M::MsgTimeoutNow
            | M::MsgRequestVote
            | M::MsgRequestVoteResponse
            | M::MsgRequestPreVote
            | M::MsgRequestPreVoteResponse
    )
}
