//! From the master's decisions to raft: commands become entries, rounds become read-index requests.

use std::collections::VecDeque;

use bytes::Bytes;
use holdfast_master::{Master, RoundId};
use holdfast_proto::log::v1::{Batch, Command, command::Kind};
use holdfast_types::planted;
use prost::Message as _;

use crate::{Fault, Output, Replica};

/// An entry carries no more commands than this.
const COMMANDS_MAX: usize = 4096;
/// An entry is closed once its commands take so many bytes.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// raft drops what is proposed while more than this is not committed.
pub(crate) const UNCOMMITTED_BYTES_MAX: u64 = 64 << 20;

/// What raft has not taken yet.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    /// Commands of the present turn.
    commands: Vec<Command>,
    /// Encoded batches, oldest first. raft drops proposals while it hands over or has too much uncommitted;
    /// what it drops stays here until the term ends.
    batches: VecDeque<Bytes>,
    /// How many bytes these have, and those of this term that raft has taken and that are not applied yet.
    bytes: u64,
}

impl Proposals {
    /// The term is over, and with it every decision that is not in the log.
    pub(crate) fn clear(&mut self) {
        self.commands.clear();
        self.batches.clear();
        self.bytes = 0;
    }

    /// An entry of this term is applied that was proposed here.
    pub(crate) fn applied(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }

    /// How many batches raft has not taken.
    pub(crate) fn waiting(&self) -> usize {
        self.batches.len()
    }

    /// By a fault that is planted: what a master had decided is proposed after its office, and so forwarded.
    pub(crate) fn outlive(&mut self, master: &mut Master) {
        while let Some(output) = master.poll_output() {
            let holdfast_master::Output::Propose(command) = output else { continue };
            if !planted!(StalledMasterEnds) || matches!(command.kind, Some(Kind::EndSession(_))) {
                self.commands.push(command);
            }
        }
        self.seal(master.term().0);
    }

    /// Makes batches of the turn's commands.
    fn seal(&mut self, term: u64) {
        let mut batch = Batch { term, commands: Vec::new() };
        let mut bytes = 0;
        for command in std::mem::take(&mut self.commands) {
            bytes += command.encoded_len();
            batch.commands.push(command);
            if bytes >= BATCH_BYTES_MAX || batch.commands.len() >= COMMANDS_MAX {
                self.push(&batch);
                batch.commands.clear();
                bytes = 0;
            }
        }
        if !batch.commands.is_empty() {
            self.push(&batch);
        }
    }

    fn push(&mut self, batch: &Batch) {
        let batch = Bytes::from(batch.encode_to_vec());
        self.bytes += batch.len() as u64;
        self.batches.push_back(batch);
    }
}

/// Whether, by a fault that is planted, decisions outlive the office of the master that took them.
pub(crate) fn outlives_office() -> bool {
    planted!(DeposedBatchCommitted) || planted!(StalledMasterEnds)
}

impl Replica {
    /// Takes what the master has decided in this turn, and gives raft its part.
    pub(crate) fn take_decisions(&mut self) -> Result<(), Fault> {
        if self.master.is_none() && outlives_office() {
            return self.propose_batches();
        }
        let Some(master) = &mut self.master else { return Ok(()) };
        let term = master.term();
        let work = holdfast_master::Input::Work { log_bytes: self.proposals.bytes };
        master.handle(self.now, &self.state, work);
        let mut round = None;
        while let Some(output) = master.poll_output() {
            match output {
                holdfast_master::Output::Propose(command) => self.proposals.commands.push(command),
                holdfast_master::Output::Confirm(id) => round = Some(id),
                holdfast_master::Output::Frame { connection, frame } => {
                    self.outputs.push_back(Output::Frame { connection, frame });
                }
                holdfast_master::Output::Disconnect { connection } => {
                    self.outputs.push_back(Output::Disconnect { connection });
                }
                holdfast_master::Output::List { call, list } => {
                    self.outputs.push_back(Output::List { call, list });
                }
                holdfast_master::Output::Answer { call, answer } => {
                    let master_address = String::new();
                    self.outputs.push_back(Output::Answer { call, answer, master_address });
                }
            }
        }
        let rise = self.propose_version(term);
        self.proposals.commands.extend(rise);
        self.proposals.seal(term.0);
        self.propose_batches()?;
        if let Some(round) = round {
            self.begin_round(round);
        }
        Ok(())
    }

    fn propose_batches(&mut self) -> Result<(), Fault> {
        while let Some(batch) = self.proposals.batches.front()
            && (self.takes_proposal(batch.len()) || planted!(DroppedForgotten) || outlives_office())
        {
            match self.raw.propose(Vec::new(), batch.to_vec()) {
                Ok(()) => {
                    self.proposals.batches.pop_front();
                }
                Err(raft::Error::ProposalDropped) if planted!(DroppedForgotten) => {
                    self.proposals.batches.pop_front();
                }
                Err(raft::Error::ProposalDropped) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Whether raft would take a proposal now. It copies what it is given, and drops the copy: asked again each turn, it
    /// would copy megabytes for nothing.
    fn takes_proposal(&self, bytes: usize) -> bool {
        let raft = &self.raw.raft;
        let uncommitted = raft.uncommitted_size();
        raft.lead_transferee.is_none()
            && (uncommitted == 0 || (uncommitted + bytes) as u64 <= UNCOMMITTED_BYTES_MAX)
    }

    /// Asks raft to confirm that we lead. The context is never used again: not by this replica, not after a
    /// restart, not by another (design.md §4).
    fn begin_round(&mut self, round: RoundId) {
        self.last_context += u64::from(self.last_context == 0 || !planted!(SharedRoundContext));
        self.rounds.insert(self.last_context, round);
        let context = [self.config.id.0, self.config.boot, self.last_context];
        let context = context.iter().flat_map(|number| number.to_be_bytes()).collect();
        self.raw.read_index(context);
    }

    /// raft has confirmed a round: it counts once everything up to `index` is applied.
    pub(crate) fn round_confirmed(&mut self, context: &[u8], index: u64) {
        let Some(number) = context.get(16..24).and_then(|bytes| bytes.try_into().ok()) else { return };
        if let Some(round) = self.rounds.remove(&u64::from_be_bytes(number)) {
            self.confirmed.push_back((index, round));
        }
    }

    /// Tells the master of the rounds that are confirmed and applied far enough.
    pub(crate) fn settle_rounds(&mut self) {
        let applied = self.applied_index();
        while let Some((index, round)) = self.confirmed.front().copied() {
            if index > applied {
                break;
            }
            self.confirmed.pop_front();
            if let Some(master) = &mut self.master {
                master.handle(self.now, &self.state, holdfast_master::Input::Confirmed(round));
            }
        }
    }
}
