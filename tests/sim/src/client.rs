//! Owns the clients' processes: does for a [`Session`] what the client library does, and is the application too.
//!
//! A client has one session at a time; each session is a life of its own. Whatever the application is told is
//! shown to the checkers at that moment, and so is what it believes.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{LockMode, outcome};
use holdfast_session::{Completion, Config, Input, Output, Session, State, Token};
use holdfast_types::{Duration, HandleId, Revision, SessionId, Time};
use prost::Message;

use crate::canon::Canon;
use crate::checker::guards::{self, Guard};
use crate::checker::progress::Leftovers;
use crate::clock::{Clock, TrueTime};
use crate::network::Process;
use crate::rng::Rng;
use crate::streams::Life;
use crate::trace::Kind;
use crate::verdict::{Invariant, Violation};
use crate::workload::{Action, App, CallResult, Workload};
use crate::world::{CELL, Phase, World, address};

const MILLI: u64 = 1_000_000;
/// How much the library believes clocks to differ; the masters believe the same.
const DRIFT_PER_MILLE: u32 = 10;

/// A client's process.
pub(crate) struct Client {
    index: usize,
    /// How many sessions it has had, this one included.
    pub(crate) life: u64,
    pub(crate) session: Option<Session>,
    /// Known once the cell has said it.
    pub(crate) session_id: Option<SessionId>,
    /// When it runs next.
    pub(crate) run_at: Option<TrueTime>,
    /// It is stopped until then; the past if it is not.
    pub(crate) paused_until: TrueTime,
    /// When the application wants to be woken.
    pub(crate) wake_at: Option<TrueTime>,
    clock: Clock,
    inbox: Vec<Input>,
    workload: Workload,
    /// What the application acts as the holder of.
    guard: Option<(String, LockMode, u64)>,
    /// Calls that have not ended.
    calls: BTreeMap<Token, Call>,
    last_token: u64,
    /// The application has asked for the session's end.
    closing: bool,
    was_jeopardy: bool,
    rng: Rng,
}

/// A call that has not ended.
struct Call {
    operation: Operation,
    /// What applications had been told when it began.
    floor: Revision,
    since: TrueTime,
}

impl Client {
    pub(crate) fn new(seed: u64, index: usize) -> Self {
        let mut rng = Rng::fork(seed, &format!("client {index}"));
        Self {
            index,
            life: 0,
            session: None,
            session_id: None,
            run_at: None,
            paused_until: TrueTime::ZERO,
            wake_at: None,
            clock: Clock::draw(&mut rng),
            inbox: Vec::new(),
            workload: Workload::draw(&mut rng),
            guard: None,
            calls: BTreeMap::new(),
            last_token: 0,
            closing: false,
            was_jeopardy: false,
            rng,
        }
    }

    /// Until when the client believes that its session is valid; the past if it does not.
    fn believes_until(&self) -> TrueTime {
        match &self.session {
            Some(session) => match session.valid_until() {
                Time::ZERO => TrueTime::ZERO,
                until => self.clock.moment(until),
            },
            None => TrueTime::ZERO,
        }
    }

    fn guard(&self) -> Option<Guard> {
        let (path, mode, generation) = self.guard.clone()?;
        Some(Guard { client: self.index, path, mode, generation, until: self.believes_until() })
    }

    /// Adds what has not ended.
    pub(crate) fn leftovers(&self, canon: &Canon, leftovers: &mut Leftovers) {
        let name = format!("client {}", self.index + 1);
        let told = |call: &Call| format!("{name}'s {:?} since {}", call.operation, call.since);
        leftovers.calls.extend(self.calls.values().map(told));
        let Some(session) = &self.session else { return };
        if *session.state() != State::Safe || self.closing {
            leftovers.sessions.push(format!(
                "{name}'s session is {:?}, closing: {}",
                session.state(),
                self.closing
            ));
        }
        let locks = self.session_id.map(|id| canon.state().locks_of(id)).unwrap_or_default();
        leftovers.locks.extend(locks.iter().map(|lock| format!("{name} holds {lock:?}")));
    }
}

impl World {
    /// A client will open a session soon.
    pub(crate) fn plan_session(&mut self, index: usize) {
        let nanos = self.clients[index].rng.between(1, 500) * MILLI;
        self.plan_run(Process::Client(index), self.now.after_nanos(nanos));
    }

    /// Hands something in; the process runs soon.
    pub(crate) fn hand_to_client(&mut self, index: usize, input: Input) {
        let client = &mut self.clients[index];
        client.inbox.push(input);
        let at = self.now.after_nanos(client.rng.between(2_000, 60_000));
        self.plan_run(Process::Client(index), at);
    }

    pub(crate) fn run_client(&mut self, index: usize, life: u64) -> Result<(), Violation> {
        let client = &mut self.clients[index];
        if client.life != life || client.run_at != Some(self.now) {
            return Ok(());
        }
        client.run_at = None;
        if client.paused_until > self.now {
            self.plan_run(Process::Client(index), self.now);
            return Ok(());
        }
        let mut session = match client.session.take() {
            Some(session) => session,
            None if self.phase < Phase::Draining => self.open_session(index),
            None => return Ok(()),
        };
        self.drive_client(index, &mut session)?;
        self.end_turn(index, session)
    }

    /// A new session, and with it a new life and something to do.
    fn open_session(&mut self, index: usize) -> Session {
        let client = &mut self.clients[index];
        client.session_id = None;
        client.inbox.clear();
        client.calls.clear();
        client.guard = None;
        client.closing = false;
        client.was_jeopardy = false;
        client.workload = Workload::draw(&mut client.rng);
        let config = Config {
            addresses: (0..self.plan.replicas).map(address).collect(),
            cell: CELL.to_owned(),
            client: format!("client {} life {}", index + 1, client.life),
            secret: client.rng.bytes(),
            lease: Duration::from_millis(self.plan.lease_ms),
            grace: Duration::from_millis(self.plan.grace_ms),
            drift_per_mille: DRIFT_PER_MILLE,
            seed: client.rng.any(),
        };
        let session = Session::new(client.clock.local(self.now), config);
        // Calls wait until the session is open.
        client.wake_at = None;
        let inputs = self.let_act(index, |workload, app| workload.start(app));
        self.clients[index].inbox = inputs;
        session
    }

    /// One turn of the driver: all inputs, then all outputs, and what the application makes of them.
    fn drive_client(&mut self, index: usize, session: &mut Session) -> Result<(), Violation> {
        let client = &mut self.clients[index];
        let now = client.clock.local(self.now);
        let mut inputs = std::mem::take(&mut client.inbox);
        self.trace.event(self.now, Kind::ClientWake, index as u64, inputs.len() as u64, &[]);
        if client.wake_at.is_some_and(|at| at <= self.now) {
            client.wake_at = None;
            inputs.extend(self.let_act(index, |workload, app| workload.wake(app)));
        }
        if session.poll_timeout().is_some_and(|timeout| timeout <= now) {
            session.handle(now, Input::TimePassed);
        }
        loop {
            for input in inputs.drain(..) {
                session.handle(now, input);
            }
            let Some(output) = session.poll_output() else { return Ok(()) };
            self.clients[index].session_id = session.id();
            match output {
                Output::Connect { stream, address } => self.connect(index, stream, &address),
                Output::Disconnect { stream, .. } => self.client_disconnects(index, stream),
                Output::Send { stream, frame } => {
                    let bytes: Bytes = frame.encode_to_vec().into();
                    self.trace.event(self.now, Kind::ClientFrame, index as u64, stream.0, &bytes);
                    self.client_sends(index, stream, bytes);
                }
                Output::Complete { token, result } => inputs = self.complete(index, token, &result)?,
                Output::StateChanged(state) => self.state_changed(index, &state),
            }
        }
    }

    /// After a turn: plans the next, lets go of a session that is over, and checks what the client believes.
    fn end_turn(&mut self, index: usize, session: Session) -> Result<(), Violation> {
        let timeout = session.poll_timeout();
        let over = matches!(session.state(), State::Ended(_));
        let client = &mut self.clients[index];
        client.session = Some(session);
        if over {
            if let Some((token, call)) = client.calls.first_key_value() {
                let what = format!("the session is over, and {token:?} {:?} was never told", call.operation);
                return Err(Violation::new(Invariant::Progress, what));
            }
            self.forget_session(index);
            self.plan_session(index);
            return Ok(());
        }
        let wake_at = client.wake_at;
        let timeout_at = timeout.map(|timeout| client.clock.moment(timeout).max(self.now.after_nanos(1)));
        for at in [timeout_at, wake_at].into_iter().flatten() {
            self.plan_run(Process::Client(index), at);
        }
        self.check_beliefs(index)
    }

    /// The session is over, or its process dead: nothing of it is left on the client's side.
    pub(crate) fn forget_session(&mut self, index: usize) {
        let client = &mut self.clients[index];
        client.session = None;
        client.session_id = None;
        client.guard = None;
        client.calls.clear();
        client.inbox.clear();
        client.wake_at = None;
        client.run_at = None;
        // A life ends here, so that nothing that is still on its way finds the next one.
        client.life += 1;
    }

    fn check_beliefs(&self, index: usize) -> Result<(), Violation> {
        let client = &self.clients[index];
        if let Some(session) = client.session_id {
            self.checkers.lease_safety.believes(session, client.believes_until(), self.now)?;
        }
        if client.guard.is_none() {
            return Ok(());
        }
        let all: Vec<Guard> = self.clients.iter().filter_map(Client::guard).collect();
        guards::check(&all, self.now)
    }

    /// The end of a session was applied, by the first replica that did.
    pub(crate) fn session_ended(&self, session: SessionId) -> Result<(), Violation> {
        let mine = self.clients.iter().find(|client| client.session_id == Some(session));
        let Some(client) = mine else { return Ok(()) };
        self.trace.say(self.now, || format!("the cell ends {session} of client {}", client.index + 1));
        self.checkers.lease_safety.believes(session, client.believes_until(), self.now)
    }

    fn state_changed(&mut self, index: usize, state: &State) {
        self.trace.say(self.now, || format!("client {}: {state:?}", index + 1));
        let jeopardy = *state == State::Jeopardy;
        let client = &mut self.clients[index];
        self.stats.jeopardies += u64::from(jeopardy);
        self.stats.rescued += u64::from(client.was_jeopardy && *state == State::Safe);
        client.was_jeopardy = jeopardy;
        if matches!(state, State::Ended(_)) {
            client.guard = None;
        }
    }

    /// An application learns what came of its call. Returns what it does next.
    fn complete(&mut self, index: usize, token: Token, result: &CallResult) -> Result<Vec<Input>, Violation> {
        let told = format!("{result:?}");
        self.trace.event(self.now, Kind::Told, index as u64, token.0, told.as_bytes());
        let Some(call) = self.clients[index].calls.remove(&token) else {
            let what = format!("client {} was told of {token:?} twice, or after it was withdrawn", index + 1);
            return Err(Violation::new(Invariant::ExactlyOnce, what));
        };
        self.trace.say(self.now, || format!("client {}: {:?} -> {told}", index + 1, call.operation));
        match result {
            Ok(completion) => {
                self.stats.ok += 1;
                self.check_told(index, &call, completion)?;
            }
            Err(_) => self.stats.refused += 1,
        }
        Ok(self.let_act(index, |workload, app| workload.completed(app, token, result)))
    }

    fn check_told(&mut self, index: usize, call: &Call, completion: &Completion) -> Result<(), Violation> {
        let Completion { number, revision, result, .. } = completion;
        let Some(session) = self.clients[index].session_id else {
            let what = format!("client {} has no session, and was told Ok", index + 1);
            return Err(Violation::new(Invariant::ExactlyOnce, what));
        };
        use Operation::{GetContents, GetStat, ReadDir};
        let is_read = matches!(call.operation, GetContents(_) | GetStat(_) | ReadDir(_));
        self.checkers.reads.told(*revision, call.floor, is_read)?;
        self.checkers.exactly_once.told(session, *number, &call.operation, result)?;
        match (&call.operation, result) {
            (GetContents(read), outcome::Result::Contents(contents)) => {
                self.checkers.reads.contents(session, HandleId(read.handle), *revision, contents)
            }
            (_, outcome::Result::Granted(_)) => {
                self.stats.granted += 1;
                self.stats.queued += u64::from(*revision == Revision(0));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Lets the application act, and does what it wants done. Returns what its session has to hear of it.
    fn let_act(&mut self, index: usize, act: impl FnOnce(&mut Workload, &mut App<'_>)) -> Vec<Input> {
        let client = &mut self.clients[index];
        let name = format!("c{}s{}", index + 1, client.life);
        let draining = self.phase == Phase::Draining;
        let mut app = App::new(&mut client.rng, draining, &mut client.last_token, &name);
        act(&mut client.workload, &mut app);
        let mut inputs = Vec::new();
        for action in app.into_actions() {
            inputs.extend(self.do_action(index, action));
        }
        inputs
    }

    fn do_action(&mut self, index: usize, action: Action) -> Option<Input> {
        self.trace.say(self.now, || format!("client {}: {action:?}", index + 1));
        let client = &mut self.clients[index];
        match action {
            Action::Call(token, operation) => {
                let floor = self.checkers.reads.floor();
                let call = Call { operation: operation.clone(), floor, since: self.now };
                client.calls.insert(token, call);
                self.stats.calls += 1;
                return Some(Input::Call { token, operation });
            }
            Action::Cancel(token) => {
                client.calls.remove(&token);
                self.stats.cancelled += 1;
                return Some(Input::CancelCall { token });
            }
            Action::Guard { path, mode, generation } => client.guard = Some((path, mode, generation)),
            Action::Unguard => client.guard = None,
            Action::Close => {
                client.guard = None;
                client.closing = true;
                return Some(Input::Close);
            }
            Action::Wake(nanos) => client.wake_at = Some(self.now.after_nanos(nanos)),
        }
        None
    }

    /// The client's process, in its present life.
    pub(crate) fn client_life(&self, index: usize) -> Life {
        Life { index, life: self.clients[index].life }
    }
}
