//! The loop around a session's machine: it carries inputs in and outputs out, and decides nothing.
//!
//! One task owns the machine. It takes everything that is queued off its queue, then reads the clock, then hands
//! all of it to the machine, and only then performs the outputs: so calls that come together travel together,
//! and no input is judged by a time at which it had not been taken yet (design.md §4).

use crate::call::{Answer, Board, Command, Opening, Reply, SessionState};
use crate::channels::Channels;
use crate::clock;
use crate::error::Error;
use crate::events::SessionEvent;
use crate::link::{Arrival, Link, next_arrival};
use crate::places::Places;
use crate::poison::{changes_nodes, poisonable};
use crate::streams::EventHub;
use crate::timer::Timer;
use futures::FutureExt;
use holdfast_proto::client::v1::ClientFrame;
use holdfast_session::{CallError, Completion, Ended, Input, Operation, Output, State, StreamId, Token};
use holdfast_types::{Term, Time};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot, watch};

/// At most so many commands, and so many frames, are taken in one turn, so that a lease is never kept waiting.
const COMMANDS_PER_TURN: usize = 4096;
const FRAMES_PER_TURN: usize = 64;
/// Tokens of the driver's own calls have this bit; the application's count up from 0.
const BACKGROUND: u64 = 1 << 63;

/// Who waits for a call.
struct Waiter {
    reply: Reply,
    /// The handle that the call fails with if that is poisoned; 0 if none.
    handle: u64,
    /// Whether it may then have taken effect all the same.
    changes: bool,
    opening: Opening,
}

/// The task of one session.
pub(crate) struct Driver {
    machine: holdfast_session::Session,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Who waits for which call.
    waiters: HashMap<Token, Waiter>,
    /// Where the events of the open handles go, by handle; of those alone that asked for any.
    hubs: HashMap<u64, Arc<EventHub>>,
    /// Handles that are open and poisoned.
    poisoned: HashSet<u64>,
    /// Who waits until what was given back has reached the cell.
    flushes: HashMap<Token, oneshot::Sender<()>>,
    link: Option<Link>,
    channels: Channels,
    places: Places,
    board: Arc<Board>,
    state: watch::Sender<SessionState>,
    /// The next token of a call that nobody waits for.
    background: u64,
}

impl Driver {
    pub(crate) fn new(
        machine: holdfast_session::Session,
        commands: mpsc::UnboundedReceiver<Command>,
        (channels, places): (Channels, Places),
        board: Arc<Board>,
        state: watch::Sender<SessionState>,
    ) -> Self {
        Self {
            machine,
            commands,
            waiters: HashMap::new(),
            hubs: HashMap::new(),
            poisoned: HashSet::new(),
            flushes: HashMap::new(),
            link: None,
            channels,
            places,
            board,
            state,
            background: BACKGROUND,
        }
    }

    /// Runs until the session is over, and nobody has it any more.
    pub(crate) async fn run(mut self) {
        let mut commands = Vec::new();
        let mut arrivals = Vec::new();
        let mut abandoned = false;
        let mut timer = Timer::new();
        self.perform();
        while !self.is_over() {
            timer.set(self.machine.poll_timeout());
            tokio::select! {
                taken = self.commands.recv_many(&mut commands, COMMANDS_PER_TURN), if !abandoned => {
                    abandoned = taken == 0;
                    if abandoned {
                        commands.push(Command::Close);
                    }
                }
                arrival = next_arrival(&mut self.link) => arrivals.push(arrival),
                () = timer.wait() => {}
            }
            if !self.board.is_ours() {
                // A copy of this task runs in a process that was forked. Dropping its stream would end the parent's.
                std::mem::forget(self.link.take());
                return;
            }
            self.take_more(&mut commands, &mut arrivals);
            let now = clock::now();
            self.handle_arrivals(now, &mut arrivals);
            self.handle_commands(now, &mut commands);
            self.machine.handle(now, Input::TimePassed);
            self.perform();
        }
        self.refuse_the_rest().await;
    }

    /// What else has come in the meantime.
    fn take_more(&mut self, commands: &mut Vec<Command>, arrivals: &mut Vec<Arrival>) {
        while commands.len() < COMMANDS_PER_TURN {
            let Ok(command) = self.commands.try_recv() else { break };
            commands.push(command);
        }
        while arrivals.len() < FRAMES_PER_TURN {
            let Some(arrival) = next_arrival(&mut self.link).now_or_never() else { break };
            arrivals.push(arrival);
        }
    }

    fn handle_arrivals(&mut self, now: Time, arrivals: &mut Vec<Arrival>) {
        for (stream, arrival) in arrivals.drain(..) {
            let input = match arrival {
                Ok(frame) => Input::Frame { stream, frame },
                Err(problem) => {
                    tracing::debug!(reason = %problem.text, "the session's stream broke");
                    Input::Disconnected { stream, problem }
                }
            };
            self.machine.handle(now, input);
        }
    }

    fn handle_commands(&mut self, now: Time, commands: &mut Vec<Command>) {
        for command in commands.drain(..) {
            match command {
                Command::Call { token, operation, opening, within, reply } => {
                    self.handle_call(now, token, operation, opening, reply);
                    if let Some(within) = within {
                        self.machine.handle(now, Input::LimitCall { token, within });
                    }
                }
                Command::Cancel(token) => {
                    self.waiters.remove(&token);
                    self.machine.handle(now, Input::CancelCall { token });
                }
                Command::Background(operation) => self.background_call(now, operation),
                Command::Poison(handle) => self.poison(now, handle.0),
                Command::Flush(reply) => self.flush(now, reply),
                Command::Close => self.machine.handle(now, Input::Close),
            }
        }
    }

    fn handle_call(&mut self, now: Time, token: Token, operation: Operation, opening: Opening, reply: Reply) {
        let handle = poisonable(&operation);
        if self.poisoned.contains(&handle) {
            // The call was made just before, and came just after.
            let _ = reply.send(Err(Error::Poisoned { maybe_applied: false }));
            return;
        }
        self.forget_closed(&operation);
        self.waiters.insert(token, Waiter { reply, handle, changes: changes_nodes(&operation), opening });
        self.machine.handle(now, Input::Call { token, operation });
    }

    fn background_call(&mut self, now: Time, operation: Operation) {
        let token = Token(self.background);
        self.background += 1;
        self.forget_closed(&operation);
        self.machine.handle(now, Input::Call { token, operation });
    }

    /// Nobody listens to a handle from its Close on, or from the withdrawal of its Open.
    fn forget_closed(&mut self, operation: &Operation) {
        let handle = match operation {
            Operation::Close(close) => close.handle,
            Operation::Cancel(cancel) if cancel.handle == 0 => cancel.number,
            _ => return,
        };
        self.hubs.remove(&handle);
        self.poisoned.remove(&handle);
    }

    fn poison(&mut self, now: Time, handle: u64) {
        self.poisoned.insert(handle);
        let pending = self.waiters.iter().filter(|(_, waiter)| waiter.handle == handle);
        let mut pending: Vec<Token> = pending.map(|(token, _)| *token).collect();
        pending.sort();
        for token in pending {
            self.machine.handle(now, Input::CancelCall { token });
            if let Some(waiter) = self.waiters.remove(&token) {
                let _ = waiter.reply.send(Err(Error::Poisoned { maybe_applied: waiter.changes }));
            }
        }
    }

    fn flush(&mut self, now: Time, reply: oneshot::Sender<()>) {
        // Whoever asks when the session is over is told that by the drop of `reply`.
        if !self.is_over() {
            let token = Token(self.background);
            self.background += 1;
            self.flushes.insert(token, reply);
            self.machine.handle(now, Input::Flush { token });
        }
    }

    /// Performs what the machine wants, and shows what it believes.
    fn perform(&mut self) {
        // Before any completion is delivered: a new lock must find its lease.
        self.publish();
        let mut learned = false;
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Connect { stream, address } => self.connect(stream, address),
                Output::Disconnect { silent, .. } => self.disconnect(silent),
                Output::Send { stream, frame } => self.send(stream, frame),
                Output::Complete { token, result } => self.complete(token, result),
                Output::Event(event) => {
                    if let Some(hub) = self.hubs.get(&event.handle) {
                        hub.put(event);
                    }
                }
                Output::Flushed { token } => {
                    if let Some(reply) = self.flushes.remove(&token) {
                        let _ = reply.send(());
                    }
                }
                Output::FailedOver { term: Term(term) } => {
                    tracing::debug!(term, "another master serves the session");
                    self.board.events.put(SessionEvent::FailedOver { term });
                }
                Output::StateChanged(state) => {
                    learned |= state == State::Safe;
                    self.announce(state);
                }
            }
        }
        if learned {
            self.places.learn(self.machine.cell().map(|cell| cell.addresses.clone()).unwrap_or_default());
            self.places.found_master(self.machine.address());
            self.channels.warm(&self.machine.addresses());
        }
    }

    fn publish(&self) {
        if let (Some(id), Some(cell)) = (self.machine.id(), self.machine.cell()) {
            self.board.publish_identity(id, &cell.name, self.machine.principal());
        }
        self.board.publish_validity(self.machine.valid_until());
    }

    fn announce(&self, state: State) {
        let state = match state {
            State::Opening => return,
            State::Safe => SessionState::Safe,
            State::Jeopardy => SessionState::Jeopardy,
            State::Ended(ended) => SessionState::Ended(ended),
        };
        let id = self.board.identity().id;
        match &state {
            SessionState::Safe => tracing::debug!(%id, "the session is safe"),
            SessionState::Jeopardy => {
                tracing::warn!(%id, "the session is in jeopardy: its lease ran out here")
            }
            SessionState::Ended(ended) => tracing::info!(%id, %ended, "the session is over"),
        }
        let event = match &state {
            SessionState::Safe => SessionEvent::Safe,
            SessionState::Jeopardy => SessionEvent::Jeopardy,
            SessionState::Ended(ended) => SessionEvent::Ended(ended.clone()),
        };
        self.state.send_replace(state);
        self.board.events.put(event);
    }

    fn connect(&mut self, stream: StreamId, address: String) {
        self.link = Some(Link::open(stream, address, &self.channels));
        // Frames may be queued from now on: a replica need not answer before it has read the first.
        self.machine.handle(clock::now(), Input::Connected { stream });
    }

    fn disconnect(&mut self, silent: bool) {
        let Some(link) = self.link.take() else { return };
        if silent {
            link.abandon();
        } else {
            link.finish();
        }
    }

    fn send(&mut self, stream: StreamId, frame: ClientFrame) {
        if let Some(link) = self.link.as_mut().filter(|link| link.stream == stream) {
            link.send(frame);
        }
    }

    fn complete(&mut self, token: Token, result: Result<Completion, CallError>) {
        let Some(waiter) = self.waiters.remove(&token) else {
            if let Err(error) = result {
                tracing::debug!(%error, "a release, close or withdrawal in the background failed");
            }
            return;
        };
        let answer = match result {
            Ok(completion) => Ok(self.answer(completion, waiter.opening)),
            Err(error) => Err(error.into()),
        };
        // Nobody takes it: the future was dropped, and the word of that is still on its way.
        if let Err(Ok(answer)) = waiter.reply.send(answer)
            && let Some(undo) = answer.completion.undo()
        {
            self.background_call(clock::now(), undo);
        }
    }

    /// What belongs to a new handle is in place before the application, or the next event, gets to it.
    fn answer(&mut self, completion: Completion, opening: Opening) -> Answer {
        let handle = completion.handle;
        if opening.keep_lock {
            self.machine.handle(clock::now(), Input::KeepLocks { handle });
        }
        let hub = (!opening.events.is_empty()).then(|| Arc::new(EventHub::new(opening.events)));
        if let Some(hub) = &hub {
            self.hubs.insert(handle.0, Arc::clone(hub));
        }
        Answer { completion, hub }
    }

    fn is_over(&self) -> bool {
        matches!(self.machine.state(), State::Ended(_))
    }

    /// Answers later calls until the last clone of the session is dropped, so that each fails in the same way.
    async fn refuse_the_rest(mut self) {
        self.link = None;
        self.hubs.clear();
        self.flushes.clear();
        while let Some(command) = self.commands.recv().await {
            self.handle_commands(clock::now(), &mut vec![command]);
            self.perform();
        }
    }
}

impl Drop for Driver {
    /// If it is dropped with its runtime, nobody else says that the session is over, and to those who wait.
    fn drop(&mut self) {
        if !self.is_over() && !std::thread::panicking() {
            let now = clock::now();
            self.machine.handle(now, Input::Abandoned);
            self.publish();
            self.commands.close();
            while let Ok(command) = self.commands.try_recv() {
                self.handle_commands(now, &mut vec![command]);
            }
            while let Some(output) = self.machine.poll_output() {
                match output {
                    Output::Complete { token, result } => self.complete(token, result),
                    Output::StateChanged(state) => self.announce(state),
                    // Nothing is sent any more.
                    _ => {}
                }
            }
        }
        // Also after a panic, when the machine is not to be asked.
        self.board.publish_validity(Time::ZERO);
        let ended = match self.machine.state() {
            State::Ended(ended) => ended.clone(),
            _ => Ended::RuntimeGone,
        };
        self.board.events.put(SessionEvent::Ended(ended.clone()));
        self.state.send_if_modified(|state| {
            let is_over = matches!(state, SessionState::Ended(_));
            if !is_over {
                *state = SessionState::Ended(ended);
            }
            !is_over
        });
    }
}
