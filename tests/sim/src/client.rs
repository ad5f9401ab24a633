//! Owns the clients' processes: does for a [`Session`] what the client library does.
//!
//! A client has one session at a time; each session is a life of its own. The application that uses it is in
//! `application`; what either believes is shown to the checkers after each turn.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_proto::client::v1::LockMode;
use holdfast_session::{CacheConfig, Config, Input, Known, Output, Session, State, Token};
use holdfast_types::{Duration, HandleId, Principal, SessionId, Time};
use prost::Message;

use crate::application::{Call, OpenHandle};
use crate::canon::Canon;
use crate::checker::guards::{self, Guard};
use crate::checker::progress::Leftovers;
use crate::clock::{Clock, TrueTime};
use crate::coverage::Situation;
use crate::genesis::{CELL, address};
use crate::greed::Greed;
use crate::network::Process;
use crate::rng::Rng;
use crate::streams::Life;
use crate::trace::Kind;
use crate::verdict::{Invariant, Violation};
use crate::workload::{CallResult, Workload};
use crate::world::{Phase, World};

const MILLI: u64 = 1_000_000;
/// How much the library believes clocks to differ; the masters believe the same.
const DRIFT_PER_MILLE: u32 = 10;

/// A client's process.
pub(crate) struct Client {
    index: usize,
    /// How many sessions it has had, this one included.
    pub(crate) life: u64,
    /// Boxed, because each turn takes it out and puts it back.
    pub(crate) session: Option<Box<Session>>,
    /// Known once the cell has said it.
    pub(crate) session_id: Option<SessionId>,
    /// When it runs next.
    pub(crate) run_at: Option<TrueTime>,
    /// It is stopped until then; the past if it is not.
    pub(crate) paused_until: TrueTime,
    /// When the application wants to be woken.
    pub(crate) wake_at: Option<TrueTime>,
    /// The library gets nothing done until then, and the application still reads what it has cached.
    pub(crate) starved_until: TrueTime,
    pub(crate) clock: Clock,
    inbox: Vec<Input>,
    pub(crate) workload: Workload,
    /// What the application acts as the holder of.
    pub(crate) guard: Option<(String, LockMode, u64)>,
    /// Calls that have not ended.
    pub(crate) calls: BTreeMap<Token, Call>,
    /// Calls that a slot answered, and that the application is yet to be told of.
    pub(crate) answered: Vec<(Token, CallResult)>,
    /// What the application has open.
    pub(crate) handles: BTreeMap<HandleId, OpenHandle>,
    pub(crate) last_token: u64,
    /// The application has asked for the session's end.
    pub(crate) closing: bool,
    /// The cell may end its session for being idle.
    ends_when_idle: bool,
    was_jeopardy: bool,
    /// What it asks for past its library; see `greed`.
    pub(crate) greed: Greed,
    /// It has asked to be attached anew, and not been answered.
    pub(crate) greets: bool,
    /// When its session was opened, or went over to the present master.
    pub(crate) opened_at: TrueTime,
    pub(crate) rng: Rng,
}

impl Client {
    pub(crate) fn new(seed: u64, index: usize, clocks_beyond: bool) -> Self {
        let mut rng = Rng::fork(seed, &format!("client {index}"));
        Self {
            index,
            life: 0,
            session: None,
            session_id: None,
            run_at: None,
            paused_until: TrueTime::ZERO,
            wake_at: None,
            starved_until: TrueTime::ZERO,
            clock: Clock::draw_for(&mut rng, clocks_beyond),
            inbox: Vec::new(),
            workload: Workload::draw(&mut rng),
            guard: None,
            calls: BTreeMap::new(),
            answered: Vec::new(),
            handles: BTreeMap::new(),
            last_token: 0,
            closing: false,
            ends_when_idle: true,
            was_jeopardy: false,
            greed: Greed::default(),
            greets: false,
            opened_at: TrueTime::ZERO,
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

    /// Its lease has run out, as far as it knows, and its session is not over.
    pub(crate) fn is_in_jeopardy(&self) -> bool {
        self.session.as_ref().is_some_and(|session| *session.state() == State::Jeopardy)
    }

    /// Its application has handles that it reads through a cache.
    pub(crate) fn caches(&self) -> bool {
        self.handles.values().any(OpenHandle::is_cached)
    }

    /// What its application acts as the holder of.
    pub(crate) fn guard(&self) -> Option<Guard> {
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
        if let Workload::Idler(idler) = &self.workload
            && idler.is_waiting()
        {
            leftovers.sessions.push(format!("{name} is idle, and its session is not over"));
        }
        if self.workload.may_keep_lock() {
            return;
        }
        let locks = self.session_id.map(|id| canon.state().locks_of(id)).unwrap_or_default();
        leftovers.locks.extend(locks.iter().map(|lock| format!("{name} holds {lock:?}")));
    }
}

impl World {
    /// A client will open a session soon.
    pub(crate) fn plan_session(&mut self, index: usize) {
        let nanos = self.clients[index].rng.between(1, self.plan.theme.gap_ms_max()) * MILLI;
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
        if client.paused_until.max(client.starved_until) > self.now {
            self.plan_run(Process::Client(index), self.now);
            return Ok(());
        }
        let mut session = match client.session.take() {
            Some(session) => session,
            None if self.phase < Phase::Draining => Box::new(self.open_session(index)?),
            None => return Ok(()),
        };
        self.drive_client(index, &mut session)?;
        self.end_turn(index, session)
    }

    /// A new session, and with it a new life and something to do.
    fn open_session(&mut self, index: usize) -> Result<Session, Violation> {
        // Whoever configures a program knows who belongs to the cell now. Of later changes its session is told.
        let addresses = self.members().into_iter().map(address).collect();
        let client = &mut self.clients[index];
        client.closing = false;
        client.was_jeopardy = false;
        client.greed.begin();
        client.opened_at = self.now;
        client.workload = self.plan.theme.workload(&mut client.rng);
        // The first ones do: where nothing goes wrong an idle client has no other session.
        let ends_when_idle = client.life % 3 != 2;
        client.ends_when_idle = ends_when_idle;
        let config = Config {
            addresses,
            known: Known::default(),
            cell: CELL.to_owned(),
            client: format!("client {} life {}", index + 1, client.life),
            secret: client.rng.bytes(),
            lease: Duration::from_millis(self.plan.lease_ms),
            grace: Duration::from_millis(self.plan.grace_ms),
            open_timeout: Duration::from_millis(self.plan.grace_ms),
            ends_when_idle,
            drift_per_mille: DRIFT_PER_MILLE,
            seed: client.rng.any(),
            cache: draw_cache(&mut client.rng),
        };
        let session = Session::new(client.clock.local(self.now), config);
        // Calls wait until the session is open.
        client.wake_at = None;
        let inputs = self.let_act(index, |workload, app| workload.start(app))?;
        self.clients[index].inbox = inputs;
        Ok(session)
    }

    /// One turn of the driver: all inputs, then all outputs, and what the application makes of them.
    fn drive_client(&mut self, index: usize, session: &mut Session) -> Result<(), Violation> {
        let client = &mut self.clients[index];
        let now = client.clock.local(self.now);
        let mut inputs = std::mem::take(&mut client.inbox);
        self.trace.event(self.now, Kind::ClientWake, index as u64, inputs.len() as u64, &[]);
        if client.wake_at.is_some_and(|at| at <= self.now) {
            client.wake_at = None;
            let wanted = self.let_act(index, |workload, app| workload.wake(app))?;
            // Whatever came for the library meanwhile is taken in before it, or behind it.
            let place = if self.clients[index].rng.per_mille(500) { inputs.len() } else { 0 };
            inputs.splice(place..place, wanted);
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
                Output::Send { stream, mut frame } => {
                    self.clients[index].greed.spoil(&mut frame);
                    if let (Some(session), Some(_)) = (session.id(), &frame.close) {
                        self.checkers.outcomes.closes(session);
                    }
                    self.sight_client_sent(index, &frame);
                    let bytes: Bytes = frame.encode_to_vec().into();
                    self.trace.event(self.now, Kind::ClientFrame, index as u64, stream.0, &bytes);
                    self.client_sends(index, stream, bytes);
                    self.spare_sent(index, stream, &frame);
                }
                Output::Complete { token, result } => inputs = self.complete(index, token, &result)?,
                Output::StateChanged(state) => self.state_changed(index, &state)?,
                Output::Event(event) => inputs = self.hear(index, &event)?,
                // Nobody asks for it.
                Output::Flushed { .. } => {}
                Output::FailedOver { .. } => {
                    self.stats.failed_over += 1;
                    self.clients[index].opened_at = self.now;
                }
            }
        }
    }

    /// After a turn: plans the next, lets go of a session that is over, and checks what the client believes.
    fn end_turn(&mut self, index: usize, session: Box<Session>) -> Result<(), Violation> {
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
        self.forget_calls(index);
        let client = &mut self.clients[index];
        if let Some(session) = client.session_id {
            self.checkers.watches.end(session);
            self.checkers.wishes.end(session);
        }
        client.session = None;
        client.session_id = None;
        client.greets = false;
        client.guard = None;
        client.handles.clear();
        client.answered.clear();
        client.inbox.clear();
        client.wake_at = None;
        client.run_at = None;
        self.drop_sockets(Process::Client(index));
        let client = &mut self.clients[index];
        // A life ends here, so that nothing that is still on its way finds the next one.
        client.life += 1;
    }

    fn check_beliefs(&mut self, index: usize) -> Result<(), Violation> {
        let client = &self.clients[index];
        if let Some(session) = client.session_id {
            let checked = self.checkers.lease_safety.believes(session, client.believes_until(), self.now);
            self.by_the_clock(checked)?;
        }
        if self.clients[index].guard.is_none() {
            return Ok(());
        }
        let all: Vec<Guard> = self.clients.iter().filter_map(Client::guard).collect();
        self.by_the_clock(guards::check(&all, self.now))?;
        Ok(())
    }

    /// What is promised only as long as clocks differ by no more than the bound: where they do, its breach is counted
    /// and no violation. Gives what was found, if it holds.
    pub(crate) fn by_the_clock<T>(&mut self, checked: Result<T, Violation>) -> Result<Option<T>, Violation> {
        match checked {
            Ok(found) => Ok(Some(found)),
            Err(_) if self.plan.clocks_beyond => {
                self.stats.beyond += 1;
                self.sights.reach(Situation::WrongByClock);
                Ok(None)
            }
            Err(violation) => Err(violation),
        }
    }

    /// The end of a session was applied, by the first replica that did.
    pub(crate) fn session_ended(&mut self, session: SessionId) -> Result<(), Violation> {
        self.checkers.patience.ended(session);
        let mine = self.clients.iter().find(|client| client.session_id == Some(session));
        let Some(client) = mine else { return Ok(()) };
        self.trace.say(self.now, || format!("the cell ends {session} of client {}", client.index + 1));
        let checked = self.checkers.lease_safety.believes(session, client.believes_until(), self.now);
        self.by_the_clock(checked)?;
        Ok(())
    }

    fn state_changed(&mut self, index: usize, state: &State) -> Result<(), Violation> {
        self.trace.say(self.now, || format!("client {}: {state:?}", index + 1));
        let jeopardy = *state == State::Jeopardy;
        let client = &mut self.clients[index];
        self.stats.jeopardies += u64::from(jeopardy);
        let rescued = client.was_jeopardy && *state == State::Safe;
        self.stats.rescued += u64::from(rescued);
        if rescued {
            self.sights.reach(Situation::RescuedFromJeopardy);
        }
        if jeopardy {
            self.check_jeopardy(index)?;
        }
        let client = &mut self.clients[index];
        if *state == State::Safe && !client.was_jeopardy {
            client.opened_at = self.now;
        }
        client.was_jeopardy = jeopardy;
        let State::Ended(ended) = state else { return Ok(()) };
        client.guard = None;
        let Some(session) = client.session_id else { return Ok(()) };
        let lives = self.canon.state().session(session).is_some();
        let (closing, uses) = (client.closing, !client.handles.is_empty() || !client.ends_when_idle);
        self.checkers.outcomes.told(session, ended, lives, closing, uses)
    }

    /// Checks that whoever is waited for has been told, if he asked for that.
    pub(crate) fn check_wishes(&self) -> Result<(), Violation> {
        self.checkers.wishes.check(self.now, TrueTime::from_nanos(self.plan.faults_nanos))
    }

    /// A client's process dies of itself, if it has not died before.
    pub(crate) fn dies(&mut self, life: Life) {
        if self.client_life(life.index) == life {
            self.client_dies(life.index);
        }
    }

    /// The client's process, in its present life.
    pub(crate) fn client_life(&self, index: usize) -> Life {
        Life { index, life: self.clients[index].life }
    }
}

/// Who a client is, for the access control lists: the same in all of its lives.
pub(crate) fn principal(index: usize) -> Principal {
    Principal::parse(&format!("client-{}", index + 1)).expect("a principal's name")
}

/// How much a session keeps: sometimes so little that it has to make room all the time.
fn draw_cache(rng: &mut Rng) -> CacheConfig {
    CacheConfig {
        on: true,
        bytes_max: [64 << 20, 64 << 20, 400][rng.index(3)],
        idle_handles_max: [256, 2, 0][rng.index(3)],
        idle_handle_time: Duration::from_millis([30_000, 2_000, 100][rng.index(3)]),
    }
}
