//! Who belongs to the cell, as its replicas and its operator see it.
//!
//! Who may talk to whom is decided by the daemon's own [`holdfast_replica::admission`], here for each message instead
//! of once a connection and at each change of the members. A replica that has lost its data is refused, one that
//! was removed stops, one that waits to join learns of its cell when the first messages come.
//!
//! The operator adds, promotes and removes by calls, one step after the other, and asks again until he sees it done.
//! Whoever is refused for good is replaced under a new id. Invariant: he takes nobody from the cell, and no fault
//! takes anybody's data, unless a majority of those who vote would remain.

use std::collections::{BTreeMap, VecDeque};

use holdfast_proto::log::v1::Member;
use holdfast_proto::peer::v1::Identity;
use holdfast_replica::admission::{Denial, Roster, check_answer};
use holdfast_replica::{CallId, CallRequest, Joiner, Replica};
use holdfast_types::ReplicaId;

use crate::clock::TrueTime;
use crate::disk::{Crash, Damage, Disk};
use crate::event::Event;
use crate::fault::operator_call;
use crate::genesis::{CELL, address, genesis};
use crate::network::Process;
use crate::server::Server;
use crate::streams::Life;
use crate::trace::Kind;
use crate::verdict::Violation;
use crate::world::World;

const MILLI: u64 = 1_000_000;
/// The cell's id.
pub(crate) const CELL_ID: u64 = 7;
/// So many replicas there are at the most.
pub(crate) const REPLICAS_MAX: usize = 5;
/// A replica without data asks the others again after this, as the daemon does.
const GREET_NANOS: u64 = 100 * MILLI;
/// After so many times in vain the operator takes it that nobody will ever answer.
const GREETINGS_MAX: u32 = 100;
/// How often the operator looks how far a step is.
const OPERATE_NANOS: u64 = 200 * MILLI;
/// A call that was not answered by then is made again.
const CALL_NANOS: u64 = 2_000 * MILLI;

/// How a replica's process stands to the cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It belongs to the cell, as far as its disk says.
    Member,
    /// It waits to be added.
    Waiting,
    /// It was one of the founders, and its disk is empty: it asks the others, so many times by now.
    Wiped(u32),
    /// It must never come back.
    Gone,
}

/// One change of the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It becomes a learner.
    Add(usize),
    /// The learner votes.
    Promote(usize),
    /// It belongs to the cell no longer.
    Remove(usize),
}

/// What the operator has before him.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    /// One after the other.
    pub(crate) steps: VecDeque<Step>,
    /// The call for the first step, and when it is made again.
    call: Option<(CallId, TrueTime)>,
    /// He is going to look.
    looking: bool,
}

/// What is known of a founding replica that starts, or of one that waits to join.
pub(crate) fn roster(index: usize, data_id: u64, cell_id: u64) -> Roster {
    let me = Identity {
        cell: CELL.to_owned(),
        cell_id,
        replica: id_of(index).0,
        data_id,
        peer_address: address(index),
        state_version: holdfast_state::VERSION_MAX,
        client_address: String::new(),
    };
    Roster { me, members: BTreeMap::new(), removed: Vec::new() }
}

pub(crate) fn id_of(index: usize) -> ReplicaId {
    ReplicaId(index as u64 + 1)
}

impl World {
    /// The replicas that belong to the cell, by the newest that anybody has applied.
    pub(crate) fn members(&self) -> Vec<usize> {
        self.canon.state().members().map(|member| member.id as usize - 1).collect()
    }

    /// The members changed, as far as a replica has applied.
    pub(crate) fn members_told(&mut self, index: usize, members: Vec<Member>, replica: &Replica) {
        let roster = &mut self.servers[index].roster;
        roster.members = members.into_iter().map(|member| (ReplicaId(member.id), member)).collect();
        roster.removed = replica.state().removed_members().collect();
    }

    /// Whether `from` gets through to `to` with messages: both look at each other, as they do when they connect.
    pub(crate) fn admits(&mut self, from: usize, to: usize) -> Result<bool, Violation> {
        let (sender, receiver) = (&self.servers[from].roster, &self.servers[to].roster);
        let expected = sender.members.get(&id_of(to));
        let waits = self.servers[to].standing == Standing::Waiting;
        if let Some(why) =
            receiver.must_stop(&sender.me, expected.map_or(0, |member| member.data_id)).filter(|_| waits)
        {
            self.refused(to, &why);
            return Ok(false);
        }
        if let Some(why) = expected.and_then(|member| check_answer(&sender.me, member, &receiver.me).err()) {
            self.trace.say(self.now, || format!("replica {} does not talk to {}: {why}", from + 1, to + 1));
            return Ok(false);
        }
        let (me, contact) = (sender.me.clone(), receiver.is_contact(&sender.me, id_of(to).0));
        let admitted = receiver.admit(&me, id_of(to).0);
        if waits && contact {
            self.join(to)?;
        }
        match admitted {
            Ok(_) => return Ok(true),
            Err(Denial::NotYet(_)) => {}
            Err(Denial::Never(why)) => self.refused(from, &why),
        }
        Ok(false)
    }

    /// A cell has made contact with a replica that waits to join.
    fn join(&mut self, index: usize) -> Result<(), Violation> {
        let server = &mut self.servers[index];
        server.roster.me.cell_id = CELL_ID;
        server.standing = Standing::Member;
        self.start_replica(index)
    }

    /// A replica must not go on, or not start.
    pub(crate) fn refused(&mut self, index: usize, why: &str) {
        self.trace.event(self.now, Kind::Fault, index as u64, 0, b"refused");
        self.trace.say(self.now, || format!("replica {} must not go on: {why}", index + 1));
        self.stop_replica(index, false);
        self.stats.refused_replicas += 1;
        self.sight_refused(index);
        self.leave_for_good(index);
    }

    /// A replica never comes back. If it still belongs to the cell, it is replaced.
    pub(crate) fn leave_for_good(&mut self, index: usize) {
        self.servers[index].standing = Standing::Gone;
        let removed = self.operator.steps.contains(&Step::Remove(index));
        if self.canon.state().member(id_of(index)).is_some() && !removed {
            self.stats.replaced += 1;
            self.replace(index);
        }
    }

    /// A new replica takes the place of another.
    pub(crate) fn replace(&mut self, index: usize) {
        // A learner that cannot be promoted any more is in the way of nobody but of who wants to promote it.
        self.operator.steps.retain(|step| !matches!(step, Step::Promote(learner) if *learner == index));
        let new = self.new_replica();
        self.change_members([Step::Add(new), Step::Promote(new), Step::Remove(index)]);
    }

    /// One more replica.
    pub(crate) fn grow(&mut self) {
        let new = self.new_replica();
        self.change_members([Step::Add(new), Step::Promote(new)]);
    }

    /// A process that waits to be added.
    fn new_replica(&mut self) -> usize {
        let index = self.servers.len();
        self.servers.push(Server::joining(self.seed, index));
        index
    }

    pub(crate) fn change_members(&mut self, steps: impl IntoIterator<Item = Step>) {
        self.operator.steps.extend(steps);
        if !std::mem::replace(&mut self.operator.looking, true) {
            self.queue.push(self.now.after_nanos(OPERATE_NANOS), Event::Operate);
        }
    }

    /// The operator looks how far his first step is, and asks for it, or for the next.
    pub(crate) fn operate(&mut self) {
        while let Some(step) = self.operator.steps.front().copied().filter(|step| self.is_done(*step)) {
            self.trace.say(self.now, || format!("the operator sees that it is done: {step:?}"));
            match step {
                Step::Add(_) => self.stats.added += 1,
                Step::Promote(_) => self.stats.promoted += 1,
                Step::Remove(index) => {
                    self.stats.removed += 1;
                    self.sight_removed(index);
                }
            }
            self.operator.steps.pop_front();
            self.operator.call = None;
        }
        let Some(step) = self.operator.steps.front().copied() else {
            self.operator.looking = false;
            return;
        };
        if self.operator.call.is_none_or(|(_, until)| until <= self.now) {
            let again = self.now.after_nanos(CALL_NANOS);
            let request = self.request(step);
            self.operator.call = operator_call(self, request).map(|call| (call, again));
        }
        self.queue.push(self.now.after_nanos(OPERATE_NANOS), Event::Operate);
    }

    /// A call for a step was answered, however it was: what came of it is seen in the cell.
    pub(crate) fn membership_answered(&mut self, call: CallId) {
        self.operator.call.take_if(|(waiting, _)| *waiting == call);
    }

    fn is_done(&self, step: Step) -> bool {
        let member = |index| self.canon.state().member(id_of(index));
        match step {
            Step::Add(index) => member(index).is_some(),
            Step::Promote(index) => member(index).is_some_and(|member| !member.learner),
            Step::Remove(index) => member(index).is_none(),
        }
    }

    fn request(&self, step: Step) -> CallRequest {
        match step {
            Step::Add(index) => {
                let me = &self.servers[index].roster.me;
                let member = Member {
                    id: id_of(index).0,
                    data_id: me.data_id,
                    peer_address: address(index),
                    client_address: address(index),
                    learner: true,
                };
                CallRequest::AddMember(Joiner { member, state_version: me.state_version })
            }
            Step::Promote(index) => CallRequest::PromoteMember(id_of(index)),
            Step::Remove(index) => CallRequest::RemoveMember(id_of(index)),
        }
    }

    /// Whether a majority of those who vote would remain if `index` went for good. Never while the membership is
    /// changing: it might change to one that has none. And never until those who would remain know of the last change
    /// for certain: after a power failure they may need the votes of those who belonged to the cell before it.
    pub(crate) fn may_lose(&self, index: usize) -> bool {
        let voting = self.canon.state().members().filter(|member| !member.learner);
        let voters: Vec<usize> = voting.map(|member| member.id as usize - 1).collect();
        let mut remaining = voters
            .iter()
            .filter(|voter| **voter != index)
            .map(|voter| &self.servers[*voter])
            .filter(|server| !server.lost);
        let enough = 2 * remaining.clone().count() > voters.len();
        let changed = self.canon.last_change();
        enough
            && self.operator.steps.is_empty()
            && remaining.all(|server| server.disk.durable_commit() >= changed)
    }

    /// Whether the cell could do without `index`.
    pub(crate) fn may_shrink(&self, index: usize) -> bool {
        self.members().len() > 3 && self.may_lose(index)
    }

    /// Whether there is room for one more.
    pub(crate) fn may_grow(&self) -> bool {
        self.operator.steps.is_empty() && self.members().len() < REPLICAS_MAX
    }

    /// A replica's host goes down, with what its cache held.
    pub(crate) fn crash_disk(&mut self, index: usize, silent: bool) {
        let crash = if silent && self.may_lose(index) { Crash::AnyOrder } else { Crash::InOrder };
        let server = &mut self.servers[index];
        let lost = server.disk.crash(&mut server.rng, crash);
        server.lost |= lost.ambiguous;
        self.sight_crash(lost);
    }

    /// A stopped replica's disk has lost something although it was durable.
    pub(crate) fn damage(&mut self, index: usize, damage: Damage) {
        let damaged = self.servers[index].disk.damage(damage);
        self.servers[index].lost |= damaged;
        self.stats.damaged += u64::from(damaged);
    }

    /// A stopped replica has an empty disk, and makes a new identity.
    pub(crate) fn wipe(&mut self, index: usize) {
        self.stats.wiped += 1;
        let founder = index < self.plan.replicas;
        let server = &mut self.servers[index];
        server.lost = true;
        server.disk = Disk::empty();
        server.roster = roster(index, server.rng.between(1, u64::MAX - 1), 0);
        server.standing = if founder { Standing::Wiped(0) } else { Standing::Waiting };
    }

    /// Nobody objects to a replica without data, which must never be: so it takes part, as who founds a cell does.
    fn found_again(&mut self, index: usize) -> Result<(), Violation> {
        self.trace.say(self.now, || format!("nobody objects to replica {}, which has no data", index + 1));
        let server = &mut self.servers[index];
        server.disk = Disk::founded(genesis(&self.plan));
        server.roster.me.cell_id = CELL_ID;
        server.standing = Standing::Member;
        self.start_replica(index)
    }

    /// A founding replica without data asks the others who they are, as the daemon does before it founds a cell.
    pub(crate) fn greet(&mut self, at: Life) -> Result<(), Violation> {
        let index = at.index;
        let Standing::Wiped(times) = self.servers[index].standing else { return Ok(()) };
        if self.servers[index].life != at.life {
            return Ok(());
        }
        let me = self.servers[index].roster.me.clone();
        let mut unheard = 0;
        for other in (0..self.plan.replicas).filter(|other| *other != index) {
            let connected = self.network.connects(Process::Replica(index), Process::Replica(other));
            let hears = self.servers[other].replica.is_some() && !self.is_stopped(Process::Replica(other));
            if !connected || !hears {
                unheard += 1;
            } else if let Err(denial) = self.servers[other].roster.check_hello(&me) {
                self.refused(index, denial.reason());
                return Ok(());
            }
        }
        if unheard == 0 {
            return self.found_again(index);
        }
        if times >= GREETINGS_MAX {
            self.refused(index, "nobody answers it");
            return Ok(());
        }
        self.servers[index].standing = Standing::Wiped(times + 1);
        self.queue.push(self.now.after_nanos(GREET_NANOS), Event::Greet(at));
        Ok(())
    }
}
