//! Changes of the membership: one at a time, learners first (design.md §5; issue of the wiped replica).
//!
//! raft's configuration change carries the member's record in its context, so the state's table of members and
//! raft's configuration change in the same applied entry.

use holdfast_master::{CallId, Joiner};
use holdfast_proto::client::v1::{self as client, RefusalCode};
use holdfast_proto::log::v1::Member;
use holdfast_types::ReplicaId;
use prost::Message as _;
use raft::StateRole;
use slog::info;

use crate::office::refusal;
use crate::raftpb::{ConfChange, ConfChangeType, Entry, EntryType};
use crate::{CallAnswer, Fault, Output, Replica, raft_bytes};

/// A learner may be this many entries behind and still be promoted.
const PROMOTION_LAG_MAX: u64 = 128;

/// A change that is proposed.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Whom to answer.
    pub(crate) call: CallId,
    /// Whom it is about.
    id: ReplicaId,
}

impl Replica {
    pub(crate) fn add_member(&mut self, call: CallId, joiner: Joiner) -> Result<(), Fault> {
        let Joiner { mut member, state_version } = joiner;
        let id = ReplicaId(member.id);
        if id.0 == 0 {
            return self.refuse_membership(call, "a replica's id must be greater than 0".to_owned());
        }
        if self.state.member(id).is_some() {
            return self.refuse_membership(call, format!("{id} is a member already"));
        }
        if self.state.is_removed(id) {
            let message = format!("{id} was removed, and an id is never used again: take another");
            return self.refuse_membership(call, message);
        }
        let same = |other: &&Member| {
            other.peer_address == member.peer_address || other.client_address == member.client_address
        };
        let taken_by = self.state.members().find(same).map(|other| other.id);
        if let Some(other) = taken_by {
            let message = format!("replica {other} has the address already that {id} was to have");
            return self.refuse_membership(call, message);
        }
        if let Err(message) = self.check_joiner_version(id, state_version) {
            return self.refuse_membership(call, message);
        }
        member.learner = true;
        self.propose_membership(call, ConfChangeType::AddLearnerNode, &member)
    }

    pub(crate) fn promote_member(&mut self, call: CallId, id: ReplicaId) -> Result<(), Fault> {
        let Some(member) = self.state.member(id) else { return self.refuse_unknown(call, id) };
        if !member.learner {
            return self.refuse_membership(call, format!("{id} votes already"));
        }
        let member = Member { learner: false, ..member.clone() };
        let raft = &self.raw.raft;
        let matched = raft.prs().get(id.0).map_or(0, |progress| progress.matched);
        let committed = raft.raft_log.committed;
        if matched == 0 || matched + PROMOTION_LAG_MAX < committed {
            let message = format!("{id} has not caught up: it has {matched} of {committed} log entries");
            return self.refuse_membership(call, message);
        }
        if !self.reachable(id.0) {
            // It would count for the quorum at once, and might never answer.
            let message = format!("{id} has not been heard of lately: see that it runs, and try again");
            return self.refuse_membership(call, message);
        }
        self.propose_membership(call, ConfChangeType::AddNode, &member)
    }

    pub(crate) fn remove_member(&mut self, call: CallId, id: ReplicaId) -> Result<(), Fault> {
        let Some(member) = self.state.member(id).cloned() else { return self.refuse_unknown(call, id) };
        if !member.learner
            && let Err(message) = self.quorum_without(id)
        {
            return self.refuse_membership(call, message);
        }
        if id == self.config.id {
            // A master does not remove itself: it hands over, and the caller asks its successor. Not by an address
            // from here: we still lead, and ours would bring the caller straight back.
            self.raw.transfer_leader(self.best_heir());
            let message = format!("{id} is the master, and hands over before it is removed: try again");
            let answer = Err(refusal(RefusalCode::NotMaster, message));
            self.outputs.push_back(Output::Answer { call, answer, master_address: String::new() });
            return Ok(());
        }
        self.propose_membership(call, ConfChangeType::RemoveNode, &member)
    }

    /// Whether those who would remain could go on, as far as they are heard.
    fn quorum_without(&self, id: ReplicaId) -> Result<(), String> {
        let voters = self.raw.store().conf_state().get_voters();
        let remaining: Vec<u64> = voters.iter().copied().filter(|voter| *voter != id.0).collect();
        if remaining.is_empty() {
            return Err(format!("{id} is the last one that votes"));
        }
        // That a replica is heard says nothing of its disk: it counts if it has what is committed, too.
        let committed = self.raw.raft.raft_log.committed;
        let counts =
            |voter: &&u64| self.reachable(**voter) && self.matched(**voter) + PROMOTION_LAG_MAX >= committed;
        let reachable = remaining.iter().filter(counts).count();
        if reachable > remaining.len() / 2 {
            return Ok(());
        }
        Err(format!(
            "without {id} only {reachable} of the {} that vote would be reachable and have what is committed: the cell would stop",
            remaining.len()
        ))
    }

    fn best_heir(&self) -> u64 {
        let voters = self.raw.store().conf_state().get_voters().iter().copied();
        let others = voters.filter(|voter| *voter != self.config.id.0 && self.reachable(*voter));
        others.max_by_key(|voter| self.matched(*voter)).unwrap_or(raft::INVALID_ID)
    }

    /// Whether a change of the membership is proposed and not applied yet.
    pub(crate) fn is_changing_members(&self) -> bool {
        self.raw.raft.has_pending_conf() || self.membership.is_some()
    }

    fn propose_membership(
        &mut self,
        call: CallId,
        change_type: ConfChangeType,
        member: &Member,
    ) -> Result<(), Fault> {
        // raft-rs would turn a second change into an empty entry and say nothing.
        if self.is_changing_members() {
            let message = "another change of the membership is under way: try again when it is through";
            return self.refuse_membership(call, message.to_owned());
        }
        let mut change = ConfChange::default();
        change.set_change_type(change_type);
        change.node_id = member.id;
        change.context = member.encode_to_vec().into();
        match self.raw.propose_conf_change(Vec::new(), change) {
            Ok(()) => self.membership = Some(Pending { call, id: ReplicaId(member.id) }),
            Err(raft::Error::ProposalDropped) => {
                let message = "the master is handing over, or has too much to do: try again";
                self.answer_refused(call, refusal(RefusalCode::Overloaded, message));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// A change is committed: raft's configuration and the state's table change together.
    pub(crate) fn apply_membership(&mut self, entry: &Entry) -> Result<(), Fault> {
        if entry.get_entry_type() != EntryType::EntryConfChange {
            return Err(Fault::new(format!(
                "entry {} is a membership change of an unknown kind",
                entry.index
            )));
        }
        let broken = |error: String| {
            Fault::new(format!("entry {} is a membership change that cannot be read: {error}", entry.index))
        };
        let change: ConfChange = raft_bytes::parse(&entry.data).map_err(|error| broken(error.to_string()))?;
        let member = Member::decode(&change.context[..]).map_err(|error| broken(error.to_string()))?;
        let id = ReplicaId(change.node_id);
        let conf_state = self.raw.apply_conf_change(&change)?;
        self.raw.mut_store().set_conf_state(conf_state);
        match change.get_change_type() {
            ConfChangeType::RemoveNode => {
                self.state.remove_member(id);
                self.snapshots.sending.remove(&id);
                if id == self.config.id {
                    self.outputs.push_back(Output::Removed);
                }
            }
            ConfChangeType::AddNode | ConfChangeType::AddLearnerNode => self.state.put_member(member),
        }
        info!(self.logger, "the membership has changed"; "replica" => id.0, "how" => ?change.get_change_type());
        if let Some(pending) = self.membership.take_if(|pending| pending.id == id) {
            let answer = Ok(CallAnswer::Membership);
            self.outputs.push_back(Output::Answer {
                call: pending.call,
                answer,
                master_address: String::new(),
            });
        }
        self.tell_members();
        Ok(())
    }

    pub(crate) fn tell_members(&mut self) {
        let members = self.state.members().cloned().collect();
        self.outputs.push_back(Output::Members(members));
    }

    /// The members, with what only a leader knows of them if we lead.
    pub(crate) fn member_statuses(&self) -> Vec<client::MemberStatus> {
        let leads = self.raw.raft.state == StateRole::Leader;
        let status = |member: &Member| client::MemberStatus {
            id: member.id,
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            learner: member.learner,
            matched_index: if leads { self.matched(member.id) } else { 0 },
            reachable: leads && self.reachable(member.id),
        };
        self.state.members().map(status).collect()
    }

    pub(crate) fn matched(&self, id: u64) -> u64 {
        self.raw.raft.prs().get(id).map_or(0, |progress| progress.matched)
    }

    /// Whether it has been heard within an election time-out.
    pub(crate) fn reachable(&self, id: u64) -> bool {
        id == self.config.id.0 || self.raw.raft.prs().get(id).is_some_and(|progress| progress.recent_active)
    }

    fn refuse_unknown(&mut self, call: CallId, id: ReplicaId) -> Result<(), Fault> {
        self.refuse_membership(call, format!("{id} is no member of the cell"))
    }

    fn refuse_membership(&mut self, call: CallId, message: String) -> Result<(), Fault> {
        self.answer_refused(call, refusal(RefusalCode::Membership, message));
        Ok(())
    }
}
