//! What only a master knows: leases, leadership rounds, timers, streams, calls (design.md §4).
//!
//! A [`Master`] exists from the moment its replica has applied an entry of its own term until it leaves office.
//! It decides: it turns what clients send into commands, and what was applied into answers. It never changes the
//! state, which it sees by shared reference only, and never sees raft: to have a command ordered it says
//! [`Output::Propose`], to know that it is still master it says [`Output::Confirm`].
//!
//! The rule that holds everything up: **nothing that only a master may say is said before a round confirms it.**
//! A lease, a read, "no such session": each waits for a quorum round that began after the question came. What
//! follows from an applied command needs no round, because it was committed in this term.
//!
//! Its place in the flow of an Acquire: `front` → `driver` → `Replica::handle` → [`Master::handle`] (here:
//! `requests`) → raft → `State::apply` → [`Master::handle`] again (here: `applied`) → `front`.
//!
//! Caveats: a lease is granted from the time of the input that confirmed it, which is earlier than the sending
//! of the reply; that is on the safe side. Delays restart at full length with each master, so a lock-delay can
//! last longer than asked for, never shorter.

mod applied;
mod calls;
mod connections;
mod delays;
mod hello;
mod interface;
mod leases;
mod requests;
mod rounds;
mod sessions;

use std::collections::{BTreeMap, VecDeque};

use holdfast_proto::client::v1 as client;
use holdfast_proto::log::v1::{Command, EndLockDelay, EndSession, ReapNode, command::Kind};
use holdfast_state::State;
use holdfast_types::{ConnectionId, Duration, HandleId, NodePath, Revision, SessionId, Term, Time};

pub use interface::{CallAnswer, CallId, CallRequest, Input, Output, RoundId};

use calls::Calls;
use connections::Connections;
use delays::Delays;
use hello::Opening;
use leases::Leases;
use rounds::Rounds;
use sessions::Sessions;

/// How a master is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// How much the rates of two clocks may differ, in thousandths. Default 10.
    pub drift_per_mille: u32,
    /// The shortest lease that a new master starts a session with, in milliseconds. Default 5,000.
    pub lease_floor_ms: u32,
    /// A master that was not scheduled for longer than this extends every lease by the gap before it decides an
    /// expiry. In milliseconds; default 200.
    pub gap_ms: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self { drift_per_mille: 10, lease_floor_ms: 5_000, gap_ms: 200 }
    }
}

/// The soft state of one master in one term. Dropped when the replica leaves office.
#[derive(Debug)]
pub struct Master {
    config: Config,
    /// The term of office; goes into nothing but what clients are told.
    term: Term,
    /// When something last happened. Only rises.
    now: Time,
    leases: Leases,
    delays: Delays,
    rounds: Rounds<Waiter>,
    sessions: Sessions,
    connections: Connections,
    /// Sessions whose opening is proposed, by the command's tag.
    openings: BTreeMap<u64, Opening>,
    /// Unary calls whose command is proposed.
    calls: Calls,
    /// The last tag given to a command.
    last_tag: u64,
    outputs: VecDeque<Output>,
}

/// Who waits for a leadership round.
#[derive(Debug)]
enum Waiter {
    /// A KeepAlive.
    KeepAlive { session: SessionId, connection: ConnectionId, number: u64 },
    /// A read of a session.
    Read { session: SessionId, request: client::Request },
    /// A hello for a session that this master does not know.
    Attach { connection: ConnectionId, attach: client::AttachSession },
    /// A unary read.
    Call { call: CallId, request: CallRequest },
}

/// What a master leaves behind when it leaves office.
#[derive(Debug, Default)]
pub struct Abandoned {
    /// Streams that must be told to go elsewhere.
    pub connections: Vec<ConnectionId>,
    /// Calls that changed nothing: they can be sent again.
    pub calls: Vec<CallId>,
    /// Calls that may yet take effect.
    pub calls_unknown: Vec<CallId>,
}

impl Master {
    /// Takes office in `term`. `state` has applied an entry of that term, so it holds everything that any
    /// earlier master acknowledged.
    #[must_use]
    pub fn new(now: Time, term: Term, config: Config, state: &State) -> Self {
        let mut master = Self {
            term,
            now,
            leases: Leases::new(now, config.drift_per_mille),
            delays: Delays::new(config.drift_per_mille),
            rounds: Rounds::new(),
            sessions: Sessions::default(),
            connections: Connections::default(),
            openings: BTreeMap::new(),
            calls: Calls::default(),
            last_tag: 0,
            outputs: VecDeque::new(),
            config,
        };
        for (id, session) in state.sessions() {
            let length_ms = session.lease_ms().max(master.config.lease_floor_ms);
            master.leases.inherit(id, Duration::from_millis(u64::from(length_ms)));
        }
        for delay in state.delays() {
            master.delays.start(now, delay);
        }
        for (path, instance) in state.orphans() {
            master.reap(&path, instance);
        }
        master
    }

    /// Takes up one input. `state` is as it is after everything applied so far.
    pub fn handle(&mut self, now: Time, state: &State, input: Input) {
        self.notice_gap(now);
        match input {
            Input::Frame { connection, frame, .. } => self.handle_frame(state, connection, frame),
            Input::Disconnected { connection } => self.handle_disconnected(connection),
            Input::Call { call, request, .. } => self.handle_call(call, request),
            Input::Applied(effect) => self.handle_applied(state, effect),
            Input::Confirmed(round) => self.handle_confirmed(state, round),
            Input::TimePassed => self.handle_time(),
        }
    }

    /// The next thing to be done. When this gives `None`, everything is said that the inputs so far called for.
    pub fn poll_output(&mut self) -> Option<Output> {
        if self.outputs.is_empty() {
            self.connections.flush(&mut self.outputs);
            if let Some(round) = self.rounds.begin() {
                self.outputs.push_back(Output::Confirm(round));
            }
        }
        self.outputs.pop_front()
    }

    /// When to come back with [`Input::TimePassed`] if nothing else happens. Never much later than now: a master
    /// that is not called notices that as a gap in its own life.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let pulse = self.now + Duration::from_millis(u64::from(self.config.gap_ms)) / 2;
        [Some(pulse), self.leases.next_end(), self.delays.next_end()].into_iter().flatten().min()
    }

    /// The term of office.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// How many sessions have a stream here.
    #[must_use]
    pub fn attached(&self) -> usize {
        self.sessions.attached()
    }

    /// How many streams are here.
    #[must_use]
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Leaves office. What was promised to nobody is forgotten; who waits is listed.
    #[must_use]
    pub fn abandon(self) -> Abandoned {
        let mut abandoned = Abandoned { connections: self.connections.ids(), ..Abandoned::default() };
        for waiter in self.rounds.into_waiters() {
            if let Waiter::Call { call, .. } = waiter {
                abandoned.calls.push(call);
            }
        }
        abandoned.calls_unknown = self.calls.into_ids();
        abandoned
    }

    /// A master that was not scheduled for a while has heard no KeepAlive in that time. It must not let sessions
    /// pay for that (design.md §4, Clocks).
    fn notice_gap(&mut self, now: Time) {
        let gap = now.since(self.now);
        self.now = self.now.max(now);
        if gap > Duration::from_millis(u64::from(self.config.gap_ms)) {
            self.leases.extend_all(gap);
        }
    }

    fn handle_time(&mut self) {
        for session in self.leases.expired(self.now) {
            self.handle_lease_end(session);
        }
        while let Some((path, loss)) = self.delays.pop_over(self.now) {
            let end = EndLockDelay { path: path.as_str().to_owned(), loss: loss.0 };
            self.propose(Kind::EndLockDelay(end));
        }
    }

    fn handle_lease_end(&mut self, session: SessionId) {
        /// How long to wait for the round that a KeepAlive is waiting for.
        const HEARD_WAIT: Duration = Duration::from_millis(50);
        if self.sessions.get(session).is_some_and(|session| session.keep_alives > 0) {
            self.leases.put_off(session, self.now + HEARD_WAIT);
            return;
        }
        self.end_session(session, client::EndReason::Expired);
    }

    /// Proposes a session's end. From here on it is granted nothing (design.md §4).
    fn end_session(&mut self, session: SessionId, reason: client::EndReason) {
        let entry = self.sessions.entry(session);
        if std::mem::replace(&mut entry.ending, true) {
            return;
        }
        self.leases.remove(session);
        self.propose(Kind::EndSession(EndSession { session: session.0, reason: reason.into() }));
    }

    fn handle_confirmed(&mut self, state: &State, round: RoundId) {
        for waiter in self.rounds.confirmed(round) {
            match waiter {
                Waiter::KeepAlive { session, connection, number } => {
                    self.grant_lease(state, session, connection, number);
                }
                Waiter::Read { session, request } => self.answer_read(state, session, &request),
                Waiter::Attach { connection, attach } => self.decide_attach(state, connection, &attach),
                Waiter::Call { call, request } => self.answer_call(state, call, &request),
            }
        }
    }

    /// A quorum has confirmed this master since the KeepAlive came: the lease is extended.
    fn grant_lease(&mut self, state: &State, session: SessionId, connection: ConnectionId, number: u64) {
        let Some(entry) = self.sessions.get(session) else { return };
        entry.keep_alives = entry.keep_alives.saturating_sub(1);
        // Only the newest attachment is granted anything, and nothing once the end is proposed.
        if entry.connection != Some(connection) || entry.ending {
            return;
        }
        let Some(lease_ms) = state.session(session).map(holdfast_state::Session::lease_ms) else { return };
        if self.leases.extend(self.now, session, Duration::from_millis(u64::from(lease_ms))) {
            let lease = client::LeaseGranted { number, lease_ms };
            self.connections.say(connection, 16, &mut self.outputs, |frame| frame.lease = Some(lease));
        }
    }

    /// An ephemeral node has nobody any more. The command is void if that is no longer so.
    fn reap(&mut self, path: &NodePath, instance: Revision) {
        self.propose(Kind::ReapNode(ReapNode { path: path.as_str().to_owned(), instance: instance.0 }));
    }

    /// Has a command ordered; gives its tag.
    fn propose(&mut self, kind: Kind) -> u64 {
        self.last_tag += 1;
        self.outputs.push_back(Output::Propose(Command { tag: self.last_tag, kind: Some(kind), ..Command::default() }));
        self.last_tag
    }

    /// Whether the opening of `handle` is under way in the session.
    fn opening_in_flight(&mut self, session: SessionId, handle: HandleId) -> bool {
        self.sessions.get(session).is_some_and(|entry| entry.in_flight.contains(&handle.0))
    }
}

/// A refusal.
fn refusal(code: client::RefusalCode, message: impl Into<String>) -> client::Refusal {
    client::Refusal { code: code.into(), message: message.into() }
}
