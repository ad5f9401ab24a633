//! Owns the replicas' processes: does for a [`Replica`] what the daemon does, and looks on.
//!
//! Inputs gather while the process does not run, as they do in the daemon's queue; then all are handed in, and
//! what comes out is done: writes go to the disk (`writes`), messages to the other replicas (`peers`), frames to the
//! clients. After each run the canonical log is told what was applied (`applied`).

mod applied;
mod peers;
mod writes;

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_replica::admission::Roster;
use holdfast_replica::{Config, Input, Output, Replica, StateAt, raftpb};
use holdfast_state::{SnapshotReader, State};
use holdfast_types::{ReplicaId, Time};
use prost::Message;

use crate::checker::determinism;
use crate::clock::{Clock, TrueTime};
use crate::coverage::Situation;
use crate::disk::Disk;
use crate::effort::Effort;
use crate::event::Event;
use crate::fault::{Ending, Nap};
use crate::genesis::{GENESIS_INDEX, data_id};
use crate::ledger::{Books, Room};
use crate::member::{CELL_ID, Standing, roster};
use crate::network::Process;
use crate::rng::Rng;
use crate::streams::{Direction, Item, Life};
use crate::trace::Kind;
use crate::upgrade::founder_version;
use crate::verdict::Violation;
use crate::world::{Phase, World, fault};

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;

/// A master that did not run for longer has a gap in its life, and lengthens all leases by it.
const MASTER_GAP_NANOS: u64 = 200 * MILLI;

/// Why a process stops of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// It was asked to, and has handed over.
    HandedOver,
    /// It belongs to the cell no longer.
    Removed,
}

/// A replica's process, its machine and its disk.
pub(crate) struct Server {
    /// Absent while the process is down.
    /// Boxed, because each turn takes it out and puts it back.
    pub(crate) replica: Option<Box<Replica>>,
    /// How many times it was started.
    pub(crate) life: u64,
    pub(crate) disk: Disk,
    /// Who it is, and whom it knows.
    pub(crate) roster: Roster,
    pub(crate) standing: Standing,
    /// What it acknowledged may be lost: perhaps it will never come back.
    pub(crate) lost: bool,
    /// How long a sync takes at the most while the disk is slow; 0 if it is not.
    pub(crate) sync_nanos_max: u64,
    /// When it runs next.
    pub(crate) run_at: Option<TrueTime>,
    /// It is stopped until then; the past if it is not.
    pub(crate) paused_until: TrueTime,
    /// It is stopped once it has asked the others whether it leads.
    pub(crate) nap: Option<Nap>,
    /// It runs no more often than this; 0 if it runs whenever there is something to do.
    pub(crate) runs_every_nanos: u64,
    /// Its turns take so many times as long as a real machine's.
    pub(crate) slowness: u64,
    /// Its last turn ends then.
    pub(crate) busy_until: TrueTime,
    /// When it ran last.
    pub(crate) ran_at: TrueTime,
    /// The last entry that it is known to have applied.
    pub(crate) applied: u64,
    /// If down: with its whole host, so that nobody is told that its connections are gone.
    pub(crate) silent: bool,
    clock: Clock,
    inbox: Vec<Input>,
    /// What its clients make it hold.
    pub(crate) books: Books,
    /// Raft had dropped a proposal when it ran last.
    pub(crate) dropped: bool,
    /// How often it had handed over for its disk's sake.
    pub(crate) handovers_for_disk: u64,
    /// It was master when it ran last.
    pub(crate) was_master: bool,
    pub(crate) rng: Rng,
}

impl Server {
    /// One of the founders.
    pub(crate) fn founding(seed: u64, index: usize, genesis: StateAt) -> Self {
        let mut roster = roster(index, data_id(index), CELL_ID);
        let mut rng = Rng::fork(seed, &format!("release {index}"));
        roster.me.state_version = founder_version(&mut rng, genesis.state.version());
        Self::new(seed, index, Disk::founded(genesis), roster, Standing::Member)
    }

    /// One that waits to be added.
    pub(crate) fn joining(seed: u64, index: usize) -> Self {
        Self::new(seed, index, Disk::empty(), roster(index, data_id(index), 0), Standing::Waiting)
    }

    fn new(seed: u64, index: usize, disk: Disk, roster: Roster, standing: Standing) -> Self {
        let mut rng = Rng::fork(seed, &format!("server {index}"));
        Self {
            replica: None,
            life: 0,
            disk,
            roster,
            standing,
            lost: false,
            sync_nanos_max: 0,
            run_at: None,
            paused_until: TrueTime::ZERO,
            nap: None,
            runs_every_nanos: 0,
            slowness: 1,
            busy_until: TrueTime::ZERO,
            ran_at: TrueTime::ZERO,
            applied: 0,
            silent: false,
            // Drawn anew at each start.
            clock: Clock::draw(&mut rng),
            inbox: Vec::new(),
            // Those of a life begin with it.
            books: Books::new(Room::AMPLE),
            dropped: false,
            handovers_for_disk: 0,
            was_master: false,
            rng,
        }
    }

    /// So many bytes of clients are held, and no input is left from which they could be.
    pub(crate) fn bytes_left(&self) -> usize {
        self.books.left(&self.inbox)
    }

    /// What has come since the last turn.
    pub(crate) fn inbox(&self) -> &[Input] {
        &self.inbox
    }
}

impl World {
    pub(crate) fn life_of(&self, index: usize) -> Life {
        Life { index, life: self.servers[index].life }
    }

    /// Whether the replica's process is up, in that life.
    pub(crate) fn lives(&self, at: Life) -> bool {
        let server = &self.servers[at.index];
        server.life == at.life && server.replica.is_some()
    }

    /// Starts a replica's process. What it does then depends on how it stands to the cell.
    pub(crate) fn start_replica(&mut self, index: usize) -> Result<(), Violation> {
        let server = &mut self.servers[index];
        server.life += 1;
        match server.standing {
            Standing::Member => self.start_member(index)?,
            Standing::Wiped(_) => self.queue.push(self.now, Event::Greet(self.life_of(index))),
            Standing::Waiting | Standing::Gone => {}
        }
        if std::mem::take(&mut self.servers[index].silent) {
            // Only now do the others' old connections prove dead.
            self.reset_peers(index);
        }
        Ok(())
    }

    /// Starts a replica from what its disk has.
    fn start_member(&mut self, index: usize) -> Result<(), Violation> {
        self.upgrade(index);
        let server = &mut self.servers[index];
        server.clock = Clock::draw_for(&mut server.rng, self.plan.clocks_beyond);
        server.inbox.clear();
        server.books = Books::new(self.plan.room);
        server.run_at = None;
        server.paused_until = TrueTime::ZERO;
        server.runs_every_nanos = 0;
        server.nap = None;
        server.busy_until = TrueTime::ZERO;
        server.slowness = self.plan.slowness.of_replica(&mut server.rng);
        if self.phase > Phase::Faults {
            server.slowness = 1;
        }
        let (torn, passed_over) = (server.disk.torn(), server.disk.passed_over());
        let boot = server.disk.boot();
        let (torn, passed_over) = (server.disk.torn() - torn, server.disk.passed_over() - passed_over);
        self.sight_boot(torn, passed_over);
        let server = &mut self.servers[index];
        let mut boot = match boot {
            Ok(boot) => boot,
            Err(why) if server.lost => {
                self.refused(index, &why);
                return Ok(());
            }
            Err(why) => return Err(fault(format_args!("the disk of replica {}", index + 1), why)),
        };
        server.lost = false;
        if let Some(at) = &mut boot.state {
            at.state = through_snapshot(&at.state)?;
        }
        if boot.state.as_ref().is_some_and(|at| at.index > GENESIS_INDEX) {
            self.sights.reach(Situation::RestartBehindSnapshot);
        }
        let mut config = Config::new(ReplicaId(index as u64 + 1), self.seed, server.life);
        config.snapshot_every_bytes = self.plan.snapshot_every_bytes;
        config.log_tail_bytes = self.plan.log_tail_bytes;
        config.state_version_max = server.roster.me.state_version;
        config.master.keep_alives_per_s = self.plan.keep_alives_per_s;
        config.master.turn_work = self.plan.turn_work;
        let logger = self.trace.logger(index);
        let replica = Replica::new(server.clock.local(self.now), config, boot, logger);
        let replica = replica.map_err(|error| fault(format_args!("replica {}", index + 1), error))?;
        server.applied = replica.applied_index();
        server.replica = Some(Box::new(replica));
        self.trace.event(self.now, Kind::Fault, index as u64, 0, b"start");
        self.trace.say(self.now, || format!("replica {} starts", index + 1));
        self.plan_run(Process::Replica(index), self.now);
        Ok(())
    }

    /// Ends a replica's process. If `silent`, its host goes down with it.
    pub(crate) fn stop_replica(&mut self, index: usize, silent: bool) {
        let server = &mut self.servers[index];
        if server.replica.take().is_none() {
            return;
        }
        server.silent = silent;
        server.was_master = false;
        server.inbox.clear();
        server.books = Books::new(Room::AMPLE);
        self.checkers.unary.stopped(index);
        self.checkers.room.stopped(index);
        self.drop_sockets(Process::Replica(index));
        self.crash_disk(index, silent);
        if !silent {
            self.reset_peers(index);
            self.reset_streams_of(index);
        }
    }

    /// Hands something in; the process runs soon.
    pub(crate) fn hand_in(&mut self, index: usize, input: Input) {
        let server = &mut self.servers[index];
        server.inbox.push(input);
        let at = self.now.after_nanos(server.rng.between(2 * MICRO, 60 * MICRO));
        self.plan_run(Process::Replica(index), at);
    }

    pub(crate) fn run_replica(&mut self, index: usize, life: u64) -> Result<(), Violation> {
        let server = &mut self.servers[index];
        if server.life != life || server.run_at != Some(self.now) {
            return Ok(());
        }
        server.run_at = None;
        if server.paused_until > self.now {
            self.plan_run(Process::Replica(index), self.now);
            return Ok(());
        }
        server.ran_at = self.now;
        let now = server.clock.local(self.now);
        let Some(mut replica) = server.replica.take() else { return Ok(()) };
        let inputs = std::mem::take(&mut server.inbox);
        self.trace.event(self.now, Kind::ReplicaWake, index as u64, inputs.len() as u64, &[]);
        let stopped = self.drive(index, &mut replica, now, inputs);
        self.end_effort(index, replica.is_master());
        let stopped = stopped.map_err(|error| fault(format_args!("replica {}", index + 1), error))?;
        if let Some(timeout) = replica.poll_timeout() {
            let at = self.servers[index].clock.moment(timeout);
            self.plan_run(Process::Replica(index), at.max(self.now.after_nanos(1)));
        }
        self.check_turn(index, &replica)?;
        self.check_room(index, &replica, now)?;
        self.observe(index, &replica)?;
        self.sight_run(index, &replica);
        if let Some(broken) = self.broken.take() {
            return Err(broken);
        }
        self.servers[index].replica = Some(replica);
        if let Some(stop) = stopped {
            self.stop_replica(index, false);
            if stop == Stop::Removed {
                self.stats.left += 1;
                self.leave_for_good(index);
                return Ok(());
            }
            let at = self.now.after_nanos(self.servers[index].rng.between(1, 2_000) * MILLI);
            self.queue.push(at, Event::FaultEnds(Ending::Restart(index)));
        }
        Ok(())
    }

    /// One turn of the driver: all inputs, then all outputs. Returns why the process stops, if it does.
    fn drive(
        &mut self,
        index: usize,
        replica: &mut Replica,
        now: Time,
        inputs: Vec<Input>,
    ) -> Result<Option<Stop>, holdfast_replica::Fault> {
        let dragging = if replica.is_master() { self.plan.slowness.turn_nanos } else { 0 };
        let mut effort = Effort::new(self.servers[index].slowness, dragging);
        for input in inputs {
            effort.take_up(&input);
            replica.handle(now, input)?;
        }
        if replica.poll_timeout().is_some_and(|timeout| timeout <= now) {
            replica.handle(now, Input::TimePassed)?;
        }
        let mut messages: BTreeMap<(usize, bool), Vec<Bytes>> = BTreeMap::new();
        let mut stopped = None;
        let mut applied = (replica.applied_index(), replica.state().revision().0);
        while let Some(output) = replica.poll_output()? {
            let reached = (replica.applied_index(), replica.state().revision().0);
            effort.apply(reached.0.abs_diff(applied.0) + reached.1.abs_diff(applied.1));
            applied = reached;
            effort.perform(&output);
            self.spent_nanos = effort.nanos();
            match output {
                Output::Persist(persist) => self.persist(index, persist),
                Output::Peer { to, message, urgent } => {
                    messages.entry((to.0 as usize - 1, urgent)).or_default().push(message)
                }
                Output::SendSnapshot { to, message, state } => {
                    self.send_snapshot(index, to.0 as usize - 1, message, state);
                }
                Output::WriteSnapshot(state) => self.write_snapshot(index, state),
                Output::Frame { connection, frame } => {
                    self.sight_sent(index, connection, replica.term().0, &frame);
                    if let Err(violation) = self.check_answered(index, connection, &frame) {
                        self.broken.get_or_insert(violation);
                    }
                    let bytes: Bytes = frame.encode_to_vec().into();
                    effort.encode(bytes.len());
                    self.trace.event(self.now, Kind::ServerFrame, index as u64, connection.0, &bytes);
                    self.send(connection, Direction::Down, Item::Frame(bytes));
                    self.spare_granted(connection, &frame);
                }
                Output::Disconnect { connection } => self.replica_disconnects(index, connection),
                Output::Leadership { master, term } => self.trace.say(self.now, || {
                    let master = master.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
                    format!("replica {}: the master is {master}, {term}", index + 1)
                }),
                Output::HandedOver => stopped = Some(Stop::HandedOver),
                Output::Removed => stopped = Some(Stop::Removed),
                Output::List { call, list } => {
                    self.servers[index].books.answered(call);
                    if let Some((answer, _)) = self.named_answered(call, (list.answer(), String::new())) {
                        self.operator_told(call, answer.as_ref().ok(), replica);
                    }
                }
                Output::Answer { call, answer, master_address } => {
                    self.servers[index].books.answered(call);
                    if let Some((answer, _)) = self.named_answered(call, (answer, master_address)) {
                        self.operator_told(call, answer.as_ref().ok(), replica);
                    }
                }
                Output::Members(members) => self.members_told(index, members, replica),
            }
        }
        let asks = |messages: &Vec<Bytes>| messages.iter().any(is_round);
        let naps = self.servers[index].nap.is_some() && messages.values().any(asks);
        for ((to, urgent), messages) in messages {
            self.send_messages(index, to, urgent, messages);
        }
        self.spent_nanos = effort.nanos();
        if naps {
            self.asks_for_round(index);
        }
        Ok(stopped)
    }

    /// A turn is over: the next begins when its work is done.
    fn end_effort(&mut self, index: usize, is_master: bool) {
        let nanos = std::mem::take(&mut self.spent_nanos);
        self.servers[index].busy_until = self.now.after_nanos(nanos);
        if nanos > MASTER_GAP_NANOS {
            self.stats.long_turns += 1;
            if is_master {
                self.sights.reach(Situation::LongTurn);
            }
        }
    }
}

/// Whether a message asks another replica to confirm that its sender leads.
fn is_round(message: &Bytes) -> bool {
    let message = holdfast_replica::raft_bytes::parse::<raftpb::Message>(message);
    message.is_ok_and(|message| {
        message.get_msg_type() == raftpb::MessageType::MsgHeartbeat && !message.get_context().is_empty()
    })
}

/// A state as it is after it went to a file or to another replica.
fn through_snapshot(state: &State) -> Result<State, Violation> {
    let mut reader = SnapshotReader::new();
    for chunk in state.snapshot_records() {
        reader.push(&chunk).map_err(|error| fault("a snapshot", error))?;
    }
    let read = reader.finish().map_err(|error| fault("a snapshot", error))?;
    determinism::compare(0, 0, state.hash(), read.hash())?;
    Ok(read)
}
