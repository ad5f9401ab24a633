//! Owns a run: all processes, what is between them, and the loop that lets one event after the other happen.
//!
//! Single-threaded, and without any input but the seed and the options: no real clock, no real chance. The
//! machines are the real ones; what the daemon and the client library do around them is done here by `server`,
//! `client` and `wire`.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use holdfast_replica::CallId;
use holdfast_types::{SessionId, Term};

use crate::canon::Canon;
use crate::checker::Checkers;
use crate::checker::progress::Leftovers;
use crate::checker::resource::Resource;
use crate::client::Client;
use crate::clock::TrueTime;
use crate::coverage::{Coverage, Sights};
use crate::event::Event;
use crate::genesis::{GENESIS_INDEX, genesis};
use crate::member::Operator;
use crate::named::Named;
use crate::network::{Network, Process};
use crate::plan::{NetworkConditions, Options, Plan};
use crate::queue::Queue;
use crate::rng::Rng;
use crate::server::Server;
use crate::sockets::Sockets;
use crate::stats::Stats;
use crate::streams::Streams;
use crate::trace::{Kind, Trace};
use crate::upgrade::Announcements;
use crate::verdict::{Invariant, Violation};

const SECOND: u64 = 1_000_000_000;
/// How long clients go on working in the healed world before they come to an end.
const HEALED_NANOS: u64 = 10 * SECOND;
/// How long it may take after that until everything has ended. Sessions of dead clients have to expire, one after
/// the other gives its lock up, and lock-delays pass.
const DRAIN_NANOS: u64 = 120 * SECOND;
/// A run that has so many events, and so many more for each second of faults, goes round in circles.
const EVENTS_MAX: u64 = 10_000_000;
const EVENTS_PER_SECOND_MAX: u64 = 1_000_000;
/// How often one looks.
const LOOK_NANOS: u64 = SECOND / 4;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Faults happen.
    Faults,
    /// The world is good again, and clients work on.
    Healed,
    /// Clients begin nothing new.
    Draining,
    /// Over.
    Ended,
}

/// A world.
pub struct World {
    pub(crate) seed: u64,
    pub(crate) plan: Plan,
    pub(crate) now: TrueTime,
    pub(crate) phase: Phase,
    pub(crate) queue: Queue<Event>,
    pub(crate) network: Network,
    pub(crate) streams: Streams,
    /// What stopped processes have yet to read.
    pub(crate) sockets: Sockets,
    pub(crate) servers: Vec<Server>,
    pub(crate) clients: Vec<Client>,
    /// What the moments of faults are drawn from, and nothing else.
    pub(crate) schedule_rng: Rng,
    /// What the present fault draws from: each has chance of its own, by its number.
    pub(crate) fault_rng: Rng,
    /// The number of the last fault whose time came, left out or not.
    pub(crate) faults: u32,
    /// The faults that happen; all if absent.
    pub(crate) only: Option<BTreeSet<u32>>,
    /// What to fail with when the faults stop, though nothing was wrong.
    pretend: Option<Invariant>,
    pub(crate) canon: Canon,
    pub(crate) checkers: Checkers,
    /// What situations the run has come into.
    pub(crate) sights: Sights,
    pub(crate) trace: Trace,
    pub(crate) stats: Stats,
    /// Which processes have said what they can apply, and to whom.
    pub(crate) announcements: Announcements,
    /// What the operator changes in the membership.
    pub(crate) operator: Operator,
    /// The last call of the operator's.
    pub(crate) last_call: u64,
    /// The calls for the end of a session.
    pub(crate) kills: BTreeMap<CallId, SessionId>,
    /// The calls by name that are under way.
    pub(crate) named: BTreeMap<CallId, Named>,
    /// What the election's office protects.
    pub(crate) resource: Resource,
    /// The last sequencer that an application was given.
    pub(crate) sequencer: Rc<str>,
    /// The newest term that anybody was in office in.
    pub(crate) newest_office: Term,
    /// How far the turn has got whose outputs are done now, in nanoseconds; 0 outside of turns.
    pub(crate) spent_nanos: u64,
    /// Found broken where there was no way to say so.
    pub(crate) broken: Option<Violation>,
    /// When the draining must have come to its end.
    deadline: TrueTime,
}

impl World {
    /// The world of a seed, at its beginning.
    ///
    /// # Errors
    ///
    /// If a replica cannot start.
    pub fn new(seed: u64, options: &Options) -> Result<Self, Violation> {
        let plan = Plan::draw(seed, options);
        let genesis = genesis(&plan);
        let founder = |index| Server::founding(seed, index, genesis.clone());
        let mut world = Self {
            seed,
            now: TrueTime::ZERO,
            phase: Phase::Faults,
            queue: Queue::new(),
            network: Network::new(Rng::fork(seed, "network"), plan.network.clone()),
            streams: Streams::default(),
            sockets: Sockets::default(),
            servers: (0..plan.replicas).map(founder).collect(),
            clients: (0..plan.clients).map(|index| Client::new(seed, index, plan.clocks_beyond)).collect(),
            schedule_rng: Rng::fork(seed, "faults"),
            fault_rng: Rng::fork(seed, "fault 0"),
            faults: 0,
            only: options.only.clone(),
            pretend: options.pretend,
            canon: Canon::new(GENESIS_INDEX, genesis.state.clone()),
            checkers: Checkers { clocks_beyond: plan.clocks_beyond, ..Checkers::default() },
            sights: Sights::default(),
            trace: Trace::new(options.log),
            stats: Stats::default(),
            operator: Operator::default(),
            last_call: 0,
            announcements: Announcements::new(),
            kills: BTreeMap::new(),
            named: BTreeMap::new(),
            resource: Resource::default(),
            sequencer: Rc::from(""),
            newest_office: Term(0),
            spent_nanos: 0,
            broken: None,
            deadline: TrueTime::ZERO,
            plan,
        };
        for index in 0..world.plan.replicas {
            world.start_replica(index)?;
        }
        for index in 0..world.plan.clients {
            world.plan_session(index);
        }
        world.plan_fault();
        world.queue.push(world.now.after_nanos(world.plan.faults_nanos), Event::Heal);
        Ok(world)
    }

    /// Lets the run take its course.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong.
    pub fn run(&mut self) -> Result<(), Violation> {
        let events_max = EVENTS_MAX + self.plan.faults_nanos / SECOND * EVENTS_PER_SECOND_MAX;
        while self.phase != Phase::Ended {
            // Replicas tick, so there always is an event.
            let Some((at, event)) = self.queue.pop() else { break };
            self.now = at;
            if let Some(event) = self.buffer(event) {
                self.happen(event)?;
            }
            if self.trace.events() > events_max {
                let what = format!("after {events_max} events the run has not come to its end");
                return Err(Violation::new(Invariant::Progress, what));
            }
        }
        Ok(())
    }

    /// The moment of the run.
    #[must_use]
    pub fn now(&self) -> TrueTime {
        self.now
    }

    /// How the run is set up.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How many faults there were, those left out included.
    #[must_use]
    pub fn faults(&self) -> u32 {
        self.faults
    }

    /// The hash of all that has happened.
    #[must_use]
    pub fn trace_hash(&self) -> u64 {
        self.trace.hash()
    }

    /// What has happened, counted.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats { events: self.trace.events(), ..self.stats.clone() }
    }

    /// Which situations it came into.
    #[must_use]
    pub fn coverage(&self) -> Coverage {
        self.sights.coverage.clone()
    }

    pub(crate) fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Run(Process::Replica(index), life) => self.run_replica(index, life)?,
            Event::Run(Process::Client(index), life) => self.run_client(index, life)?,
            Event::Peer { from, to, messages, .. } => self.peer_arrives(from, to, messages)?,
            Event::PeerReset { at, peer } => self.peer_reset(at, peer),
            Event::Snapshot { from, to, message, state } => {
                self.snapshot_arrives(from, to, message, state)?
            }
            Event::SnapshotSent { at, to, index, ok } => self.snapshot_sent(at, to, index, ok),
            Event::Written(at) => self.disk_written(at),
            Event::SnapshotWritten(at, index) => self.snapshot_written(at, index),
            Event::Establish(connection) => self.establish(connection),
            Event::GaveUp(connection) => self.give_up(connection),
            Event::Arrival(connection, direction) => self.arrive(connection, direction)?,
            Event::Read(process, line) => self.read(process, line)?,
            Event::GoesOn(process) => self.read_sockets(process),
            Event::Peek(life) => self.peek(life)?,
            Event::Order { from, generation } => self.order_arrives(from, generation)?,
            Event::Spare(connection, leg) => self.spare(connection, leg),
            Event::Die(life) => self.dies(life),
            Event::NamedArrives(call) => self.named_arrives(call)?,
            Event::NamedTold(call, answer) => self.named_told(call, *answer)?,
            Event::NamedGivesUp(call) => self.named_gives_up(call)?,
            Event::NamedWithdraws(call) => self.named_withdraws(call),
            Event::Greet(at) => self.greet(at)?,
            Event::Operate => self.operate(),
            Event::Fault => self.begin_fault()?,
            Event::CutOff { replica, clients, until } => self.cut_off(replica, clients, until),
            Event::FaultEnds(ending) => self.end_fault(ending)?,
            Event::Heal => self.heal()?,
            Event::Drain => self.check_wishes().map(|()| self.drain())?,
            Event::Look => self.check_wishes().and_then(|()| self.look())?,
        }
        Ok(())
    }

    /// When what is done now leaves the process that does it: its turn takes its time.
    pub(crate) fn leaving(&self) -> TrueTime {
        self.now.after_nanos(self.spent_nanos)
    }

    /// A process will run at a moment, or earlier.
    pub(crate) fn plan_run(&mut self, process: Process, at: TrueTime) {
        let (run_at, life, paused_until) = match process {
            Process::Replica(index) => {
                let server = &mut self.servers[index];
                let rested = server.ran_at.after_nanos(server.runs_every_nanos).max(server.busy_until);
                (&mut server.run_at, server.life, server.paused_until.max(rested))
            }
            Process::Client(index) => {
                let client = &mut self.clients[index];
                (&mut client.run_at, client.life, client.paused_until.max(client.starved_until))
            }
        };
        let at = at.max(self.now).max(paused_until);
        if run_at.is_none_or(|planned| planned > at) {
            *run_at = Some(at);
            self.queue.push(at, Event::Run(process, life));
        }
    }

    /// The faults stop: everybody is up, and everybody hears everybody.
    fn heal(&mut self) -> Result<(), Violation> {
        self.check_patience()?;
        self.phase = Phase::Healed;
        self.trace.event(self.now, Kind::Fault, 0, 0, b"heal");
        self.trace.say(self.now, || "--- the faults stop; everything is mended".to_owned());
        match self.pretend {
            Some(Invariant::Survival) => panic!("pretended"),
            Some(invariant) => return Err(Violation::new(invariant, "pretended")),
            None => {}
        }
        self.plan.slowness.turn_nanos = 0;
        self.network.set_conditions(NetworkConditions::calm());
        self.mend_network();
        for index in 0..self.servers.len() {
            self.resume(Process::Replica(index));
            self.mend_disk(index);
            self.servers[index].slowness = 1;
            if self.servers[index].replica.is_none() {
                self.start_replica(index)?;
            }
        }
        for index in 0..self.clients.len() {
            self.resume(Process::Client(index));
        }
        self.queue.push(self.now.after_nanos(HEALED_NANOS), Event::Drain);
        Ok(())
    }

    /// Ends a pause.
    pub(crate) fn resume(&mut self, process: Process) {
        match process {
            Process::Replica(index) => {
                self.sight_resumed(index);
                self.servers[index].paused_until = TrueTime::ZERO;
                self.servers[index].runs_every_nanos = 0;
                self.servers[index].nap = None;
                self.servers[index].run_at = None;
            }
            Process::Client(index) => {
                self.clients[index].paused_until = TrueTime::ZERO;
                self.clients[index].starved_until = TrueTime::ZERO;
                self.clients[index].run_at = None;
            }
        }
        self.read_sockets(process);
    }

    fn drain(&mut self) {
        self.phase = Phase::Draining;
        self.trace.say(self.now, || "--- clients begin nothing new".to_owned());
        self.deadline = self.now.after_nanos(DRAIN_NANOS);
        for index in 0..self.clients.len() {
            self.clients[index].wake_at = Some(self.now);
            self.plan_run(Process::Client(index), self.now);
        }
        self.queue.push(self.now.after_nanos(LOOK_NANOS), Event::Look);
    }

    fn look(&mut self) -> Result<(), Violation> {
        let leftovers = self.leftovers();
        let waiting = !leftovers.is_empty() || self.checkers.watches.untold().next().is_some();
        if waiting && self.now < self.deadline {
            self.queue.push(self.now.after_nanos(LOOK_NANOS), Event::Look);
            return Ok(());
        }
        leftovers.check()?;
        self.checkers.watches.check().and_then(|()| self.check_counter())?;
        self.stats.histories += self.checkers.histories.check()?;
        self.phase = Phase::Ended;
        for index in 0..self.servers.len() {
            self.compare_state(index)?;
        }
        self.canon.state().check_invariants();
        Ok(())
    }

    fn leftovers(&self) -> Leftovers {
        let mut leftovers = Leftovers { calls: self.checkers.unary.left().collect(), ..Leftovers::default() };
        for client in &self.clients {
            client.leftovers(&self.canon, &mut leftovers);
        }
        let mine = |id| self.clients.iter().any(|client| client.session_id == Some(id));
        let strangers = self.canon.state().sessions().filter(|(id, _)| !mine(*id));
        leftovers.sessions.extend(strangers.map(|(id, _)| format!("{id} is open, and its client is gone")));
        // Who was removed, or may not come back, need not catch up with anybody.
        for index in self.members() {
            let server = &self.servers[index];
            if server.applied != self.canon.index() {
                let (applied, newest) = (server.applied, self.canon.index());
                leftovers.replicas.push(format!("replica {} has applied {applied} of {newest}", index + 1));
            }
        }
        for (index, server) in self.servers.iter().enumerate() {
            let bytes = server.bytes_left();
            if bytes > 0 {
                leftovers
                    .bytes
                    .push(format!("replica {} counts {bytes} bytes of clients as held", index + 1));
            }
        }
        leftovers.replicas.extend(self.operator.steps.front().map(|step| format!("{step:?} is not done")));
        leftovers
    }
}

/// A machine stopped, or did what it must not.
pub(crate) fn fault(who: impl std::fmt::Display, what: impl std::fmt::Display) -> Violation {
    Violation::new(Invariant::Survival, format!("{who}: {what}"))
}
