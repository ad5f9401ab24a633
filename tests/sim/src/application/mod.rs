//! Owns the applications: what they want done, and what they learn of it.
//!
//! - `told`: what they are told is shown to the checkers at that very moment, with what anybody had been told when they
//!   asked
//! - `cached`: an application reads through a handle's slot first, exactly as the client library does, and asks the cell
//!   only if that has nothing

mod cached;
mod told;

use std::sync::Arc;

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{EventKind, HandleEvent, Open, outcome};
use holdfast_session::{Completion, Input, Slot, Token};
use holdfast_types::{HandleId, RequestNumber, Revision};
use prost::Message;

use crate::clock::TrueTime;
use crate::event::Event;
use crate::network::Process;
use crate::trace::Kind;
use crate::verdict::{Invariant, Violation};
use crate::workload::{Action, App, CallResult, Workload};
use crate::world::{Phase, World};

/// A call that has not ended.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    /// The node of the handle that it names: the handle may be closed before the call ends.
    node: Option<(String, u64)>,
    /// What applications had been told when it began.
    pub(crate) floor: Revision,
    /// Its place in the history.
    pub(crate) began: u64,
    pub(crate) since: TrueTime,
}

impl Call {
    /// The path of the node of the handle that it names.
    pub(crate) fn path(&self) -> Option<&str> {
        self.node.as_ref().map(|(path, _)| path.as_str())
    }
}

/// What an application knows of a handle of its own.
#[derive(Clone, Debug)]
pub(crate) struct OpenHandle {
    pub(crate) path: String,
    pub(crate) instance: u64,
    slot: Option<Arc<Slot>>,
}

impl OpenHandle {
    /// It is read through a cache.
    pub(crate) fn is_cached(&self) -> bool {
        self.slot.is_some()
    }
}

impl World {
    /// An application learns what came of its call. Returns what it does next.
    pub(crate) fn complete(
        &mut self,
        index: usize,
        token: Token,
        result: &CallResult,
    ) -> Result<Vec<Input>, Violation> {
        self.trace.event(self.now, Kind::Told, index as u64, token.0, &bytes_of(result));
        let Some(call) = self.clients[index].calls.remove(&token) else {
            let what = format!("client {} was told of {token:?} twice, or after it was withdrawn", index + 1);
            return Err(Violation::new(Invariant::ExactlyOnce, what));
        };
        self.trace.say(self.now, || format!("client {}: {:?} -> {result:?}", index + 1, call.operation));
        match result {
            Ok(completion) => {
                self.stats.ok += 1;
                self.check_told(index, &call, completion)?;
                self.take_handle(index, &call, completion);
            }
            Err(error) => {
                self.stats.refused += 1;
                self.check_refused(index, &call, error)?;
            }
        }
        self.let_act(index, |workload, app| workload.completed(app, token, result))
    }

    /// An application hears of an event. Returns what it does next.
    pub(crate) fn hear(&mut self, index: usize, event: &HandleEvent) -> Result<Vec<Input>, Violation> {
        self.trace.say(self.now, || format!("client {} hears {event:?}", index + 1));
        self.trace.event(self.now, Kind::Told, index as u64, 0, &event.encode_to_vec());
        self.stats.events_told += 1;
        self.sights.heard(event.kinds());
        if let Some(session) = self.clients[index].session_id {
            // Whatever anybody reads from here on is not older than what was told.
            let newest = self.checkers.watches.told(session, event)?;
            self.checkers.reads.raise(newest);
            if event.kinds().any(|kind| kind == EventKind::ConflictingRequest) {
                self.checkers.wishes.told(session, HandleId(event.handle));
            }
        }
        self.let_act(index, |workload, app| workload.hear(app, event))
    }

    /// The path that an Open means, if the directory that it is relative to is still known.
    fn absolute(&self, index: usize, open: &Open) -> Option<String> {
        if open.directory == 0 {
            return Some(open.path.clone());
        }
        let directory = self.clients[index].handles.get(&HandleId(open.directory))?;
        let base = directory.path.trim_end_matches('/');
        Some(if open.path.is_empty() { directory.path.clone() } else { format!("{base}/{}", open.path) })
    }

    fn take_handle(&mut self, index: usize, call: &Call, completion: &Completion) {
        let (Operation::Open(open), outcome::Result::Opened(opened)) = (&call.operation, &completion.result)
        else {
            return;
        };
        let Some(path) = self.absolute(index, open) else { return };
        let instance = opened.stat.as_ref().map_or(0, |stat| stat.instance);
        let slot = completion.slot.clone();
        let client = &mut self.clients[index];
        let first_slot = slot.is_some() && client.handles.values().all(|handle| handle.slot.is_none());
        client.handles.insert(completion.handle, OpenHandle { path, instance, slot });
        if first_slot {
            self.plan_peek(index);
        }
    }

    /// Lets the application act, and does what it wants done. Returns what its session has to hear of it.
    pub(crate) fn let_act(
        &mut self,
        index: usize,
        act: impl FnOnce(&mut Workload, &mut App<'_>),
    ) -> Result<Vec<Input>, Violation> {
        let client = &mut self.clients[index];
        let name = format!("c{}s{}", index + 1, client.life);
        let draining = self.phase == Phase::Draining;
        let mut app = App::new(&mut client.rng, draining, &mut client.last_token, &name);
        app.is_keeper = index == 0;
        app.sequencer = self.sequencer.clone();
        app.age_ms = (self.now.as_nanos() - client.opened_at.as_nanos()) / 1_000_000;
        app.lease_ms = self.plan.lease_ms;
        act(&mut client.workload, &mut app);
        let mut inputs = Vec::new();
        for action in app.into_actions() {
            inputs.extend(self.do_action(index, action)?);
        }
        while !self.clients[index].answered.is_empty() {
            let (token, result) = self.clients[index].answered.remove(0);
            inputs.extend(self.complete(index, token, &result)?);
        }
        Ok(inputs)
    }

    fn do_action(&mut self, index: usize, action: Action) -> Result<Option<Input>, Violation> {
        self.trace.say(self.now, || format!("client {}: {action:?}", index + 1));
        match action {
            Action::Call(token, operation) => return self.call(index, token, operation),
            Action::Cancel(token) => {
                self.stats.cancelled += 1;
                if let Some(call) = self.clients[index].calls.remove(&token) {
                    self.abandon(&call);
                }
                return Ok(Some(Input::CancelCall { token }));
            }
            Action::KeepLocks(handle) => return Ok(Some(Input::KeepLocks { handle: HandleId(handle) })),
            _ => {}
        }
        let life = self.client_life(index);
        let client = &mut self.clients[index];
        match action {
            Action::Guard { path, mode, generation } => client.guard = Some((path, mode, generation)),
            Action::Unguard => client.guard = None,
            Action::Close => {
                client.guard = None;
                client.closing = true;
                return Ok(Some(Input::Close));
            }
            Action::Wake(nanos) => self.plan_wake(index, nanos),
            Action::Busy(nanos) => {
                client.starved_until = self.now.after_nanos(nanos);
                self.queue.push(client.starved_until, Event::GoesOn(Process::Client(index)));
            }
            Action::Flood { handle, times, lists } => client.greed.flood(handle, times, lists),
            Action::Deafen => client.greed.deafen(),
            Action::Die => self.queue.push(self.now.after_nanos(1_000), Event::Die(life)),
            Action::Order { generation, nanos } => {
                self.queue.push(self.now.after_nanos(nanos), Event::Order { from: life, generation });
            }
            Action::CallByName { token, instance, request } => {
                self.call_by_name(index, token, instance, *request);
            }
            Action::Call(..) | Action::Cancel(_) | Action::KeepLocks(_) => {}
        }
        Ok(None)
    }

    /// The application wants to be woken after so long.
    fn plan_wake(&mut self, index: usize, nanos: u64) {
        let wanted = self.now.after_nanos(nanos);
        let draining = self.phase == Phase::Draining;
        let at = if draining { wanted } else { self.plan.rhythm.next(index, wanted) };
        self.clients[index].wake_at = Some(at);
    }

    /// A call: answered by a slot at once, or else for the session to make.
    fn call(&mut self, index: usize, token: Token, operation: Operation) -> Result<Option<Input>, Violation> {
        self.stats.calls += 1;
        let (floor, began) = (self.checkers.reads.floor(), self.checkers.histories.tick());
        let handle =
            handle_of(&operation).and_then(|handle| self.clients[index].handles.get(&HandleId(handle)));
        let node = handle.map(|handle| (handle.path.clone(), handle.instance));
        let call = Call { operation: operation.clone(), node, floor, began, since: self.now };
        let cached = self.read_slot(index, &operation)?;
        if let Operation::Close(close) = &operation {
            self.clients[index].handles.remove(&HandleId(close.handle));
        }
        self.clients[index].calls.insert(token, call);
        let Some(result) = cached else { return Ok(Some(Input::Call { token, operation })) };
        let handle = HandleId(handle_of(&operation).unwrap_or_default());
        let (number, revision) = (RequestNumber(0), Revision(0));
        let completion = Completion { number, handle, revision, result, slot: None, from_cache: true };
        self.clients[index].answered.push((token, Ok(completion)));
        Ok(None)
    }

    /// Nobody will be told what came of a call.
    fn abandon(&mut self, call: &Call) {
        self.note_uncounted(call);
        if let Some((path, instance)) = &call.node {
            self.checkers.histories.abandon(path, *instance, call.began, &call.operation);
        }
    }

    /// The application is gone, and its calls with it; what they did may yet take effect.
    pub(crate) fn forget_calls(&mut self, index: usize) {
        let calls = std::mem::take(&mut self.clients[index].calls);
        for call in calls.values() {
            self.abandon(call);
        }
    }
}

/// The handle that an operation names.
fn handle_of(operation: &Operation) -> Option<u64> {
    match operation {
        Operation::GetContents(read) => Some(read.handle),
        Operation::GetStat(read) => Some(read.handle),
        Operation::ReadDir(read) => Some(read.handle),
        Operation::SetContents(write) => Some(write.handle),
        Operation::Acquire(acquire) => Some(acquire.handle),
        Operation::Delete(delete) => Some(delete.handle),
        Operation::SetAcl(change) => Some(change.handle),
        _ => None,
    }
}

/// All that an application was told, for the trace.
fn bytes_of(result: &CallResult) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128);
    match result {
        Ok(Completion { number, handle, revision, result, from_cache, slot }) => {
            bytes.extend([u8::from(*from_cache), u8::from(slot.is_some())]);
            for number in [number.0, handle.0, revision.0] {
                bytes.extend(number.to_le_bytes());
            }
            result.encode(&mut bytes);
        }
        Err(error) => bytes.extend(format!("{error:?}").as_bytes()),
    }
    bytes
}
