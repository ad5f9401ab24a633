//! What only a master knows: leases, leadership rounds, timers, streams, calls, who caches what (design.md §4 to §6).
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
//! The other rule: **nothing is proposed while an older copy may be read from a cache.** A change waits for those who
//! may have one, and for nobody else (`changes`); where nobody caches anything, it costs one question.
//!
//! Its place in the flow of an Acquire: `front` → `driver` → `Replica::handle` → [`Master::handle`] (here:
//! `requests`, `changes`) → raft → `State::apply` → [`Master::handle`] again (here: `applied`) → `front`.
//!
//! Caveats: a lease is granted from the time of the input that confirmed it, which is earlier than the sending
//! of the reply; that is on the safe side. Delays restart at full length with each master, so a lock-delay can
//! last longer than asked for, never shorter.

#![forbid(unsafe_code)]

mod acknowledged;
mod applied;
mod bars;
mod caches;
mod calls;
mod changes;
mod connections;
mod delays;
mod endings;
mod fair_queue;
mod fingerprint;
mod held;
mod held_calls;
mod hello;
mod interface;
mod keep_alives;
mod lateness;
mod leases;
mod lists;
mod load;
mod memory;
mod misuse;
mod notices;
mod pace;
mod past_stream;
mod pending_events;
mod requests;
mod rounds;
mod sessions;
mod unary;
mod unreaped;
mod untold;
mod work;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use holdfast_proto::client::v1 as client;
use holdfast_proto::log::v1::{Command, EndLockDelay, LowerLeasePromise, ReapNode, command::Kind};
use holdfast_state::State;
use holdfast_state::refusal::limit_facts;
use holdfast_types::ledger::{Charge, LedgerFull};
use holdfast_types::{ConnectionId, Duration, NodePath, Principal, Revision, SessionId, Term, Time, planted};

pub use interface::{Input, Output, RoundId};
pub use lists::List;
pub use memory::{frame_bytes, request_bytes};
pub use past_stream::{Asked, PastStream};
pub use unary::{CallAnswer, CallId, CallRequest, Joiner};

use bars::Bars;
use caches::Caches;
use calls::Calls;
use connections::Connections;
use delays::Delays;
use endings::Kills;
use fair_queue::FairQueue;
use held::{Change, HeldChanges};
use hello::Opening;
use leases::Leases;
use load::PromiseTimer;
use pace::Pace;
use rounds::Rounds;
use sessions::{End, Sessions};
use unary::Caller;
use unreaped::Unreaped;
use untold::Untold;
use work::{Budget, Party, Room, Work};

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
    /// How many KeepAlives this master can answer. If more would come, leases are lengthened, as far as the cell's
    /// settings allow it. Per second; default 20,000.
    pub keep_alives_per_s: u32,
    /// How much a turn may cost: bytes of answers and changes, and about 200 more for each. Default 256 KiB, which is about
    /// three milliseconds of work where the answers are long lists, with what it takes to encode and send them. A write of
    /// others takes some five turns.
    pub turn_work: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            drift_per_mille: 10,
            lease_floor_ms: 5_000,
            gap_ms: 200,
            keep_alives_per_s: 20_000,
            turn_work: 256 << 10,
        }
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
    /// For how long this master was awake: as `now`, less what gaps in its life were longer than `Config::gap_ms`. What a
    /// client does in time is measured by it, because its frames lie unread while the master does not run.
    awake: Time,
    leases: Leases,
    delays: Delays,
    rounds: Rounds<Waiter>,
    sessions: Sessions,
    connections: Connections,
    /// Sessions whose opening is proposed, by the command's tag.
    openings: BTreeMap<u64, Opening>,
    /// Unary calls whose command is proposed.
    calls: Calls,
    /// Calls that wait for the end of a session.
    kills: Kills,
    /// Nodes that are about to change.
    bars: Bars,
    /// Who may be caching what.
    caches: Caches,
    /// Changes that cannot be proposed yet.
    held: HeldChanges,
    /// Replies to closes, until the nodes are gone that they left behind.
    unreaped: Unreaped,
    /// What clients have asked for, and waits for its turn.
    queue: FairQueue<Party, Work>,
    /// Whose work each call is that stands in the queue and has not been looked at.
    queued_calls: BTreeMap<CallId, Party>,
    /// How much may be done in this turn.
    budget: Budget,
    /// What keeps changes from being proposed.
    room: Room,
    /// Who sends much, and has to pause for others.
    pace: Pace,
    /// Changes of watched nodes that have yet to be told.
    untold: Untold,
    /// The command that was applied last of those that have something told, and what that costs.
    telling: (u64, u64),
    /// Sessions with events that can be sent.
    eventful: BTreeSet<SessionId>,
    /// The last of these that was sent some.
    last_told: SessionId,
    /// Frames that came since then may not be handed in yet; `None`: all are.
    unheard_since: Option<Time>,
    /// When the cell's promise of the longest lease can be lowered.
    promise: PromiseTimer,
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
    Attach {
        connection: ConnectionId,
        principal: Principal,
        attach: client::AttachSession,
        /// What the hello counts for.
        _charge: Charge,
    },
    /// A unary call that needs no command.
    Call { call: CallId, caller: Caller, request: CallRequest },
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
    /// What was decided of calls and not said yet: it holds, whoever is master by now.
    pub answers: Vec<(CallId, Result<CallAnswer, client::Refusal>)>,
}

impl Master {
    /// Takes office in `term`. `state` has applied an entry of that term, so it holds everything that any
    /// earlier master acknowledged.
    #[must_use]
    pub fn new(now: Time, term: Term, config: Config, state: &State) -> Self {
        let mut master = Self {
            term,
            now,
            awake: now,
            leases: Leases::new(now, config.drift_per_mille),
            delays: Delays::new(config.drift_per_mille),
            rounds: Rounds::new(),
            sessions: Sessions::default(),
            connections: Connections::default(),
            openings: BTreeMap::new(),
            calls: Calls::default(),
            kills: Kills::default(),
            bars: Bars::default(),
            caches: Caches::default(),
            held: HeldChanges::default(),
            unreaped: Unreaped::default(),
            queue: FairQueue::new(config.turn_work),
            queued_calls: BTreeMap::new(),
            budget: Budget::new(config.turn_work),
            room: Room::default(),
            pace: Pace::new(now),
            untold: Untold::default(),
            telling: (0, 0),
            eventful: BTreeSet::new(),
            last_told: SessionId(0),
            unheard_since: None,
            promise: PromiseTimer::default(),
            last_tag: 0,
            outputs: VecDeque::new(),
            config,
        };
        master.set_promise_timer(state);
        for (id, session) in state.sessions() {
            // No earlier master can have granted more.
            let promised_ms = if planted!(PromiseForgotten) { 0 } else { state.lease_promised_ms() };
            let granted_ms = session.lease_ms().max(promised_ms);
            let length_ms = granted_ms.max(master.config.lease_floor_ms);
            let [granted, length] = [granted_ms, length_ms].map(|ms| Duration::from_millis(ms.into()));
            master.leases.inherit(id, granted, length);
            if session.caches() {
                master.caches.inherit(id);
            }
        }
        for mut delay in state.delays() {
            if planted!(DelayRestartsAtZero) {
                delay.delay_ms = 0;
            }
            master.delays.start(now, delay);
        }
        for (path, instance) in state.orphans() {
            master.reap(state, &path, instance);
        }
        master
    }

    /// Takes up one input. `state` is as it is after everything applied so far.
    pub fn handle(&mut self, now: Time, state: &State, input: Input) {
        self.notice_gap(now);
        match input {
            Input::Frame { connection, principal, frame, charge } => {
                self.handle_frame(state, connection, principal, frame, charge);
            }
            Input::Disconnected { connection } => self.handle_disconnected(connection),
            Input::Call { call, principal, socket, request } => {
                self.queue_call(call, Party::caller(principal, socket), request);
            }
            Input::Withdraw(call) => self.withdraw(state, call),
            Input::OverrideBootstrap(principal) => self.override_bootstrap(state, &principal),
            Input::Applied(effect) => self.handle_applied(state, effect),
            Input::Confirmed(round) => self.handle_confirmed(state, round),
            Input::Unheard { since } => self.unheard_since = Some(since),
            Input::TimePassed => self.handle_time(state),
            Input::TurnBegins => {
                self.budget.renew();
                self.unheard_since = None;
            }
            Input::Work { log_bytes } => self.work(state, log_bytes),
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
        if self.has_work() {
            return Some(self.now);
        }
        let pulse = self.now + Duration::from_millis(u64::from(self.config.gap_ms)) / 2;
        let ends =
            [self.leases.next_end(), self.delays.next_end(), self.promise.next(), self.held.next_overdue()];
        let resumes = self.pace.resumes(self.now);
        ends.into_iter().flatten().chain(resumes).chain([pulse]).min()
    }

    /// The term of office.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// What this turn has cost so far, in the units of [`Config::turn_work`].
    #[must_use]
    pub fn turn_work_done(&self) -> u64 {
        self.budget.done()
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
    pub fn abandon(mut self) -> Abandoned {
        let mut abandoned = Abandoned { connections: self.connections.ids(), ..Abandoned::default() };
        for waiter in self.rounds.into_waiters() {
            if let Waiter::Call { call, .. } = waiter {
                abandoned.calls.push(call);
            }
        }
        abandoned.calls.extend(self.held.into_calls());
        for work in self.queue.into_items() {
            if let Work::Call(call, _) | Work::ConfirmedCall(call, _) = work {
                abandoned.calls.push(call);
            }
        }
        abandoned.calls_unknown = self.calls.into_ids();
        for output in self.outputs {
            match output {
                Output::Answer { call, answer } => abandoned.answers.push((call, answer)),
                // It will not be made.
                Output::List { call, .. } => abandoned.calls.push(call),
                // A command that was not taken yet: its call is among those above. Whoever has a stream is told to go.
                Output::Propose(_)
                | Output::Confirm(_)
                | Output::Frame { .. }
                | Output::Disconnect { .. } => {}
            }
        }
        for (session, call) in self.kills.into_calls() {
            let proposed = self.sessions.get(session).is_some_and(|entry| entry.end == End::Proposed);
            let calls = if proposed { &mut abandoned.calls_unknown } else { &mut abandoned.calls };
            calls.push(call);
        }
        abandoned
    }

    /// A master that was not scheduled for a while has heard no KeepAlive in that time. It must not let sessions
    /// pay for that (design.md §4, Clocks).
    fn notice_gap(&mut self, now: Time) {
        let gap = now.since(self.now);
        self.now = self.now.max(now);
        let gap_max = Duration::from_millis(u64::from(self.config.gap_ms));
        self.awake += gap.min(gap_max);
        if gap > gap_max && !planted!(StalledMasterEnds) {
            self.leases.extend_all(gap);
        }
    }

    fn handle_time(&mut self, state: &State) {
        let heard = self.unheard_since.map_or(self.now, |since| since.min(self.now));
        for session in self.leases.expired(heard) {
            self.handle_lease_end(state, session);
        }
        while let Some(session) = self.leases.pop_disbelief(self.now) {
            // It has its session still, and nothing cached: a write need not wait until that is over, too.
            if self.caches.is_unreturned(session) {
                let waited = self.caches.emptied(session).waited;
                self.release(state, waited);
            }
        }
        self.refuse_overdue_calls(state);
        if self.promise.pop_due(self.now) {
            let lease_ms = state.settings().lease_ms_max;
            self.propose(Kind::LowerLeasePromise(LowerLeasePromise { lease_ms }));
        }
        while let Some((path, loss)) = self.delays.pop_over(self.now) {
            let end = EndLockDelay { path: path.as_str().to_owned(), loss: loss.0 };
            self.propose(Kind::EndLockDelay(end));
        }
    }

    fn handle_confirmed(&mut self, state: &State, round: RoundId) {
        for waiter in self.rounds.confirmed(round) {
            match waiter {
                Waiter::KeepAlive { session, connection, number } => {
                    self.answer_keep_alive(state, session, connection, number);
                }
                Waiter::Read { session, request } => {
                    self.queue.push(&Party::Session(session), Work::Read(request));
                }
                Waiter::Attach { connection, principal, attach, _charge } => {
                    self.decide_attach(state, connection, &principal, &attach);
                }
                Waiter::Call { call, caller, request } => {
                    self.queue.push(&Party::Caller(caller), Work::ConfirmedCall(call, request));
                }
            }
        }
    }

    /// An ephemeral node has nobody any more. The command is void if that is no longer so.
    fn reap(&mut self, state: &State, path: &NodePath, instance: Revision) {
        let reap = ReapNode { path: path.as_str().to_owned(), instance: instance.0 };
        self.plan(state, Change::of_master(Kind::ReapNode(reap)));
    }

    /// Reckons anew when the promise of the longest lease can be lowered to the setting. No longer lease is granted from
    /// now on; those that are out may be as long as was promised.
    fn set_promise_timer(&mut self, state: &State) {
        let (promised_ms, lease_ms_max) = (state.lease_promised_ms(), state.settings().lease_ms_max);
        self.promise.set(self.now, self.config.drift_per_mille, promised_ms, lease_ms_max);
    }

    /// Has a command ordered; gives its tag.
    fn propose(&mut self, kind: Kind) -> u64 {
        self.last_tag += 1;
        self.outputs.push_back(Output::Propose(Command {
            tag: self.last_tag,
            kind: Some(kind),
            ..Command::default()
        }));
        self.last_tag
    }
}

/// The refusal of what the ledger of bytes has no room for.
fn ledger_full(full: &LedgerFull) -> client::Refusal {
    let message = format!("{full}: try again later");
    limited(client::RefusalCode::Overloaded, full.limit(), full.maximum(), 0, message)
}

/// A refusal because of a limit; `wanted` is 0 where it is not known.
fn limited(
    code: client::RefusalCode,
    limit: &str,
    max: usize,
    wanted: usize,
    message: String,
) -> client::Refusal {
    client::Refusal { facts: Some(limit_facts(limit, max as u64, wanted as u64)), ..refusal(code, message) }
}

/// A refusal.
fn refusal(code: client::RefusalCode, message: impl Into<String>) -> client::Refusal {
    client::Refusal { code: code.into(), message: message.into(), ..Default::default() }
}
