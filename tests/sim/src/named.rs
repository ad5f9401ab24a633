//! Owns the calls by name that are under way: unary calls of applications, which name a node by its path and need no
//! session. What the command line does is done here: another replica is asked where one is not master, or does not
//! answer; but a change that may have taken effect is not asked for again.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, NodeKind, Refusal, RefusalCode, outcome};
use holdfast_replica::{CallAnswer, CallId, CallRequest, Input as ReplicaInput};
use holdfast_session::{Input, Token};
use holdfast_types::Revision;

use crate::checker::answers::{self, Read};
use crate::checker::is_valid;
use crate::checker::register::Op;
use crate::clock::TrueTime;
use crate::coverage::Situation;
use crate::event::Event;
use crate::genesis::replica_at;
use crate::network::Process;
use crate::streams::Life;
use crate::trace::Kind;
use crate::verdict::{Invariant, Violation};
use crate::workload::NamedResult;
use crate::world::World;

const MILLI: u64 = 1_000_000;
/// How long an answer is waited for; after so long in all a call is not made again.
const PATIENCE_NANOS: u64 = 5_000 * MILLI;
/// A replica withdraws a call so long before its caller gives it up.
const WAY_BACK_NANOS: u64 = 200 * MILLI;
/// How often another replica is asked.
const TRIES_MAX: u32 = 20;

/// A call that is under way.
#[derive(Clone, Debug)]
pub(crate) struct Named {
    pub(crate) client: Life,
    token: Token,
    request: CallRequest,
    /// The instance of the node that it means, if the caller knows it.
    instance: Option<u64>,
    /// What applications had been told when it began.
    floor: Revision,
    /// Its place in the history.
    began: u64,
    pub(crate) replica: usize,
    tries: u32,
    /// When the application made it: its time-out counts from then.
    made_at: TrueTime,
}

/// The answer to a call, on its way back.
pub(crate) type Answer = (Result<CallAnswer, Refusal>, String);

impl World {
    /// An application makes a call by name.
    pub(crate) fn call_by_name(
        &mut self,
        index: usize,
        token: Token,
        instance: Option<u64>,
        request: CallRequest,
    ) {
        self.stats.named += 1;
        let (client, replica) = (self.client_life(index), self.clients[index].rng.index(self.plan.replicas));
        let made_at = self.now;
        let (floor, began) = (self.checkers.reads.floor(), self.checkers.histories.tick());
        self.ask_by_name(
            Named { client, token, request, instance, floor, began, replica, tries: 0, made_at },
            0,
        );
    }

    fn ask_by_name(&mut self, call: Named, wait_nanos: u64) {
        self.last_call += 1;
        let id = CallId(self.last_call);
        self.named.insert(id, call);
        let at = self.now.after_nanos(wait_nanos + self.network.stream_flight());
        self.queue.push(at, Event::NamedArrives(id));
        self.queue.push(at.after_nanos(PATIENCE_NANOS - WAY_BACK_NANOS), Event::NamedWithdraws(id));
        self.queue.push(at.after_nanos(PATIENCE_NANOS), Event::NamedGivesUp(id));
    }

    pub(crate) fn named_arrives(&mut self, id: CallId) -> Result<(), Violation> {
        let Some(Named { client, replica, request, .. }) = self.named.get(&id).cloned() else {
            return Ok(());
        };
        if !self.network.reaches(Process::Client(client.index), Process::Replica(replica)) {
            return Ok(());
        }
        if self.servers[replica].replica.is_none() {
            return self.named_elsewhere(id, None);
        }
        match self.hand_in_call(replica, id, client.index, request) {
            Ok(()) => Ok(()),
            Err(refusal) => self.named_told(id, (Err(refusal), String::new())),
        }
    }

    /// A replica answers. Returns whether it was a call by name.
    pub(crate) fn named_answered(&mut self, id: CallId, answer: Answer) -> Option<Answer> {
        self.checkers.unary.answered(id);
        let Some(call) = self.named.get(&id) else { return Some(answer) };
        let (from, to) = (Process::Replica(call.replica), Process::Client(call.client.index));
        if self.network.reaches(from, to) {
            let at = self.leaving().after_nanos(self.network.stream_flight());
            self.queue.push(at, Event::NamedTold(id, Box::new(answer)));
        }
        None
    }

    pub(crate) fn named_told(&mut self, id: CallId, (answer, master): Answer) -> Result<(), Violation> {
        let code = answer.as_ref().err().map(Refusal::code);
        match code {
            Some(RefusalCode::NotMaster | RefusalCode::Overloaded) => {
                self.named_elsewhere(id, replica_at(&master))
            }
            Some(RefusalCode::OutcomeUnknown) => {
                self.sights.reach(Situation::CallByNameInDoubt);
                self.named_gives_up(id)
            }
            _ => {
                let Some(call) = self.named.remove(&id) else { return Ok(()) };
                self.check_named(&call, &answer)?;
                self.tell_named(&call, &answer.map_err(Some))
            }
        }
    }

    /// Nothing came of a try, and nothing ever will: another replica is asked.
    fn named_elsewhere(&mut self, id: CallId, hint: Option<usize>) -> Result<(), Violation> {
        let Some(mut call) = self.named.remove(&id) else { return Ok(()) };
        call.tries += 1;
        if call.tries > TRIES_MAX || self.now >= call.made_at.after_nanos(PATIENCE_NANOS) {
            return self.tell_named(&call, &Err(None));
        }
        self.stats.named_again += 1;
        let next = (call.replica + 1) % self.plan.replicas;
        call.replica = hint.filter(|replica| *replica < self.plan.replicas).unwrap_or(next);
        let wait_nanos = u64::from(call.tries) * 10 * MILLI;
        self.ask_by_name(call, wait_nanos);
        Ok(())
    }

    /// The replica that has a call sees its deadline come.
    pub(crate) fn named_withdraws(&mut self, id: CallId) {
        if let Some(call) = self.named.get(&id)
            && self.servers[call.replica].replica.is_some()
        {
            self.hand_in(call.replica, ReplicaInput::Withdraw { call: id });
        }
    }

    /// No answer came in time, or one that does not know. A change may have taken effect, or may still do so.
    pub(crate) fn named_gives_up(&mut self, id: CallId) -> Result<(), Violation> {
        let Some(call) = self.named.get(&id) else { return Ok(()) };
        let (path, contents, if_generation) = match &call.request {
            CallRequest::SetContents(write) => (&write.path, &write.contents, write.if_generation),
            CallRequest::Delete(_) | CallRequest::SetAcl(_) => {
                let Some(call) = self.named.remove(&id) else { return Ok(()) };
                return self.tell_named(&call, &Err(None));
            }
            _ => return self.named_elsewhere(id, None),
        };
        if let Some(instance) = call.instance {
            let (handle, contents) = (0, contents.clone());
            let write = Operation::SetContents(wire::SetContents { handle, contents, if_generation });
            self.checkers.histories.abandon(path, instance, call.began, &write);
        }
        let Some(call) = self.named.remove(&id) else { return Ok(()) };
        self.tell_named(&call, &Err(None))
    }

    fn tell_named(&mut self, call: &Named, result: &NamedResult) -> Result<(), Violation> {
        let (index, token) = (call.client.index, call.token);
        self.trace.event(self.now, Kind::Told, index as u64, token.0, format!("{result:?}").as_bytes());
        self.trace
            .say(self.now, || format!("client {}: by name, {:?} -> {result:?}", index + 1, call.request));
        if self.client_life(index) != call.client || self.clients[index].session.is_none() {
            return Ok(());
        }
        let inputs: Vec<Input> =
            self.let_act(index, |workload, app| workload.answered(app, token, result))?;
        inputs.into_iter().for_each(|input| self.hand_to_client(index, input));
        Ok(())
    }

    /// Holds an answer against what the cell was like at the revision that it names.
    fn check_named(&mut self, call: &Named, answer: &Result<CallAnswer, Refusal>) -> Result<(), Violation> {
        let Ok(answer) = answer else { return Ok(()) };
        let read_dir = |read: &wire::ReadDirRequest| {
            let (after, limit) = (read.after.clone(), read.limit);
            Operation::ReadDir(wire::ReadDir { handle: 0, after, limit })
        };
        match (&call.request, answer) {
            (CallRequest::GetContents(read), CallAnswer::GetContents(told)) => {
                let contents = told.contents.clone().unwrap_or_default();
                let stat = contents.stat.clone().unwrap_or_default();
                let op =
                    Op::Read { contents: contents.contents.clone(), generation: stat.content_generation };
                let answer = outcome::Result::Contents(Box::new(contents));
                let operation = Operation::GetContents(wire::GetContents { handle: 0 });
                self.check_named_read(call, &read.path, stat.instance, &operation, &answer, told.revision)?;
                self.checkers.histories.add(&read.path, stat.instance, call.began, op);
            }
            (CallRequest::GetStat(read), CallAnswer::GetStat(told)) => {
                let stat = told.stat.clone().unwrap_or_default();
                let (instance, answer) = (stat.instance, outcome::Result::Stat(Box::new(stat)));
                let operation = Operation::GetStat(wire::GetStat { handle: 0 });
                self.check_named_read(call, &read.path, instance, &operation, &answer, told.revision)?;
            }
            (CallRequest::ReadDir(read), CallAnswer::ReadDir(told)) => {
                let directory = told.directory.clone().unwrap_or_default();
                let instance = directory.stat.as_ref().map_or(0, |stat| stat.instance);
                let answer = outcome::Result::Directory(Box::new(directory));
                self.check_named_read(call, &read.path, instance, &read_dir(read), &answer, told.revision)?;
            }
            (CallRequest::SetContents(write), CallAnswer::SetContents(told)) => {
                self.check_named_write(call, write, told)?;
            }
            (CallRequest::SetAcl(_), CallAnswer::SetAcl(told)) => {
                self.checkers.reads.told(Revision(told.revision), call.floor, false)?;
            }
            (CallRequest::Delete(_), CallAnswer::Delete(told)) => {
                self.checkers.reads.told(Revision(told.revision), call.floor, false)?;
            }
            (CallRequest::CheckSequencer(check), CallAnswer::CheckSequencer(told)) => {
                self.checkers.reads.told(Revision(told.revision), call.floor, true)?;
                let state = self.checkers.past.at(Revision(told.revision));
                if state.is_some_and(|state| is_valid(state, &check.sequencer) != told.valid) {
                    let what = format!("{:?} was said to be valid: {}", check.sequencer, told.valid);
                    return Err(Violation::new(Invariant::Fencing, what));
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A write by name goes into the history of the instance that it was of.
    fn check_named_write(
        &mut self,
        call: &Named,
        write: &wire::SetContentsRequest,
        told: &wire::SetContentsResponse,
    ) -> Result<(), Violation> {
        self.checkers.reads.told(Revision(told.revision), call.floor, false)?;
        // A directory has no contents.
        if write.kind() == NodeKind::Directory {
            return Ok(());
        }
        let generation = told.written.as_ref().map(|written| written.content_generation);
        let made = self.checkers.past.at(Revision(told.revision));
        let made = made.and_then(|state| state.read_stat(&crate::checker::onlooker(), &write.path).ok());
        if let Some(instance) = call.instance.or(made.map(|stat| stat.instance)) {
            let if_generation = write.if_generation.filter(|generation| *generation > 0);
            let op = Op::Write { contents: write.contents.clone(), if_generation, generation };
            self.checkers.histories.add(&write.path, instance, call.began, op);
        }
        Ok(())
    }

    fn check_named_read(
        &mut self,
        call: &Named,
        path: &str,
        instance: u64,
        operation: &Operation,
        answer: &outcome::Result,
        revision: u64,
    ) -> Result<(), Violation> {
        self.checkers.reads.told(Revision(revision), call.floor, true)?;
        answers::check_at(
            &self.checkers.past,
            &Read { path, instance, operation, answer },
            Revision(revision),
        )
    }
}
