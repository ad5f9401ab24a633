//! Owns the replicas' processes: does for a [`Replica`] what the daemon does, and looks on.
//!
//! Inputs gather while the process does not run, as they do in the daemon's queue; then all are handed in, and
//! what comes out is done: writes go to the disk, messages and frames to the network. After each run the
//! canonical log is told what was applied.

use std::collections::BTreeMap;

use bytes::Bytes;
use holdfast_replica::admission::Roster;
use holdfast_replica::raftpb::{Entry, EntryType};
use holdfast_replica::{Config, Input, Output, Persist, Replica, StateAt};
use holdfast_state::{SnapshotReader, State};
use holdfast_types::{ReplicaId, Time};
use prost::Message;

use crate::checker::{determinism, onlooker};
use crate::clock::{Clock, TrueTime};
use crate::coverage::Situation;
use crate::disk::{Disk, Failure};
use crate::event::Event;
use crate::fault::Ending;
use crate::member::{CELL_ID, Standing, id_of, roster};
use crate::network::{Fate, Process};
use crate::plan::Plan;
use crate::rng::Rng;
use crate::streams::{Direction, Item, Life};
use crate::trace::Kind;
use crate::verdict::{Invariant, Violation};
use crate::world::{GENESIS_INDEX, Phase, World, data_id, fault};

const MICRO: u64 = 1_000;
const MILLI: u64 = 1_000_000;
/// One look in so many compares a replica's state by hash, which reads all of it.
const COMPARE_ONE_IN: u64 = 500;

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
    /// It runs no more often than this; 0 if it runs whenever there is something to do.
    pub(crate) runs_every_nanos: u64,
    /// When it ran last.
    pub(crate) ran_at: TrueTime,
    /// The last entry that it is known to have applied.
    pub(crate) applied: u64,
    /// If down: with its whole host, so that nobody is told that its connections are gone.
    pub(crate) silent: bool,
    clock: Clock,
    inbox: Vec<Input>,
    /// Raft had dropped a proposal when it ran last.
    pub(crate) dropped: bool,
    /// It was master when it ran last.
    pub(crate) was_master: bool,
    pub(crate) rng: Rng,
}

impl Server {
    /// One of the founders.
    pub(crate) fn founding(seed: u64, index: usize, genesis: StateAt) -> Self {
        let roster = roster(index, data_id(index), CELL_ID);
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
            runs_every_nanos: 0,
            ran_at: TrueTime::ZERO,
            applied: 0,
            silent: false,
            // Drawn anew at each start.
            clock: Clock::draw(&mut rng),
            inbox: Vec::new(),
            dropped: false,
            was_master: false,
            rng,
        }
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
        let server = &mut self.servers[index];
        server.clock = Clock::draw_for(&mut server.rng, self.plan.clocks_beyond);
        server.inbox.clear();
        server.run_at = None;
        server.paused_until = TrueTime::ZERO;
        server.runs_every_nanos = 0;
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
        config.master.keep_alives_per_s = self.plan.keep_alives_per_s;
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
        self.checkers.unary.stopped(index);
        self.crash_disk(index, silent);
        if !silent {
            self.reset_peers(index);
            self.reset_streams_of(index);
        }
    }

    /// Tells all others that their connections with a replica are gone, where word of it gets through.
    fn reset_peers(&mut self, index: usize) {
        for other in 0..self.servers.len() {
            let reached = self.network.reaches(Process::Replica(index), Process::Replica(other));
            if other != index && self.servers[other].replica.is_some() && reached {
                let at = self.now.after_nanos(self.network.stream_flight());
                self.queue.push(at, Event::PeerReset { at: self.life_of(other), peer: index });
            }
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
        let stopped = stopped.map_err(|error| fault(format_args!("replica {}", index + 1), error))?;
        if let Some(timeout) = replica.poll_timeout() {
            let at = self.servers[index].clock.moment(timeout);
            self.plan_run(Process::Replica(index), at.max(self.now.after_nanos(1)));
        }
        self.observe(index, &replica)?;
        self.sight_proposals(index, &replica);
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
        for input in inputs {
            replica.handle(now, input)?;
        }
        if replica.poll_timeout().is_some_and(|timeout| timeout <= now) {
            replica.handle(now, Input::TimePassed)?;
        }
        let mut messages: BTreeMap<usize, Vec<Bytes>> = BTreeMap::new();
        let mut stopped = None;
        while let Some(output) = replica.poll_output()? {
            match output {
                Output::Persist(persist) => self.persist(index, persist),
                Output::Peer { to, message, .. } => {
                    messages.entry(to.0 as usize - 1).or_default().push(message)
                }
                Output::SendSnapshot { to, message, state } => {
                    self.send_snapshot(index, to.0 as usize - 1, message, state);
                }
                Output::WriteSnapshot(state) => self.write_snapshot(index, state),
                Output::Frame { connection, frame } => {
                    self.sight_sent(index, connection, replica.term().0, &frame);
                    let bytes: Bytes = frame.encode_to_vec().into();
                    self.trace.event(self.now, Kind::ServerFrame, index as u64, connection.0, &bytes);
                    self.send(connection, Direction::Down, Item::Frame(bytes));
                }
                Output::Disconnect { connection } => self.replica_disconnects(connection),
                Output::Leadership { master, term } => self.trace.say(self.now, || {
                    let master = master.map_or_else(|| "nobody".to_owned(), |id| id.to_string());
                    format!("replica {}: the master is {master}, {term}", index + 1)
                }),
                Output::HandedOver => stopped = Some(Stop::HandedOver),
                Output::Removed => stopped = Some(Stop::Removed),
                Output::Answer { call, answer, master_address } => {
                    if let Some((answer, _)) = self.named_answered(call, (answer, master_address)) {
                        self.operator_told(call, answer.as_ref().ok(), replica);
                    }
                }
                Output::Members(members) => self.members_told(index, members, replica),
            }
        }
        for (to, messages) in messages {
            self.send_messages(index, to, messages);
        }
        Ok(stopped)
    }

    fn persist(&mut self, index: usize, persist: Persist) {
        let number = persist.number;
        self.trace.event(self.now, Kind::Durable, index as u64, number, &[u8::from(persist.sync)]);
        if let Some(at) = &persist.snapshot {
            self.stats.transfers += 1;
            if self.sights.is_anybody_waiting() {
                self.sights.reach(Situation::SnapshotWhileWaiting);
            }
            let at = at.index;
            self.trace.say(self.now, || format!("replica {} installs the snapshot at {at}", index + 1));
        }
        self.servers[index].disk.write(persist);
        self.begin_writing(index);
    }

    fn begin_writing(&mut self, index: usize) {
        let calm = self.phase > Phase::Faults;
        let server = &mut self.servers[index];
        let Some(sync) = server.disk.begin() else { return };
        let most =
            if calm { Plan::CALM_SYNC_NANOS } else { self.plan.sync_nanos_max.max(server.sync_nanos_max) };
        let nanos =
            if sync { server.rng.between(10 * MICRO, most) } else { server.rng.between(1, 10) * MICRO };
        let life = self.life_of(index);
        self.queue.push(self.now.after_nanos(nanos), Event::Written(life));
    }

    pub(crate) fn disk_written(&mut self, at: Life) {
        if !self.lives(at) {
            return;
        }
        match self.servers[at.index].disk.finish() {
            Ok(number) => {
                self.hand_in(at.index, Input::Persisted { number });
                self.begin_writing(at.index);
            }
            Err(failure) => self.disk_failed(at.index, failure),
        }
    }

    /// The disk has failed, and so the process ends. Whoever looks after it starts it again, for as long as it takes.
    fn disk_failed(&mut self, index: usize, failure: Failure) {
        if self.servers[index].was_master {
            self.sights.reach(Situation::MasterDiskFailed);
        }
        match failure {
            Failure::Sync => self.stats.syncs_failed += 1,
            Failure::Full => self.stats.disks_full += 1,
        }
        self.trace.event(self.now, Kind::Fault, index as u64, 0, b"disk");
        self.trace.say(self.now, || format!("replica {} ends: its disk fails ({failure:?})", index + 1));
        self.stop_replica(index, false);
        let at = self.now.after_nanos(self.servers[index].rng.between(1, 2_000) * MILLI);
        self.queue.push(at, Event::FaultEnds(Ending::Restart(index)));
    }

    fn write_snapshot(&mut self, index: usize, state: Box<StateAt>) {
        self.stats.snapshots += 1;
        let server = &mut self.servers[index];
        let at = self.now.after_nanos(server.rng.between(MILLI, 500 * MILLI));
        let written = Event::SnapshotWritten(Life { index, life: server.life }, state.index);
        server.disk.write_snapshot(state);
        self.queue.push(at, written);
    }

    pub(crate) fn snapshot_written(&mut self, at: Life, index: u64) {
        if !self.lives(at) {
            return;
        }
        match self.servers[at.index].disk.finish_snapshot(index) {
            Ok(Some(index)) => self.hand_in(at.index, Input::SnapshotWritten { index }),
            Ok(None) => {}
            Err(failure) => self.disk_failed(at.index, failure),
        }
    }

    fn send_messages(&mut self, from: usize, to: usize, messages: Vec<Bytes>) {
        for message in &messages {
            self.trace.event(self.now, Kind::PeerSent, from as u64, to as u64, message);
        }
        let life = self.life_of(to);
        let fate = self.network.fate(Process::Replica(from), Process::Replica(to));
        let mut push = |nanos, messages| {
            self.queue.push(self.now.after_nanos(nanos), Event::Peer { from, to: life, messages });
        };
        match fate {
            Fate::Lost => {}
            Fate::Once(nanos) => push(nanos, messages),
            Fate::Twice(first, second) => {
                push(first, messages.clone());
                push(second, messages);
            }
        }
    }

    pub(crate) fn peer_arrives(
        &mut self,
        from: usize,
        to: Life,
        messages: Vec<Bytes>,
    ) -> Result<(), Violation> {
        let server = &self.servers[to.index];
        let listens = self.lives(to) || (server.standing == Standing::Waiting && server.life == to.life);
        if listens && self.admits(from, to.index)? {
            self.hand_in(to.index, Input::Peer { from: id_of(from), messages });
        }
        Ok(())
    }

    pub(crate) fn peer_reset(&mut self, at: Life, peer: usize) {
        if self.lives(at) {
            self.hand_in(at.index, Input::PeerReset { peer: ReplicaId(peer as u64 + 1) });
        }
    }

    fn send_snapshot(&mut self, from: usize, to: usize, message: Bytes, state: Box<StateAt>) {
        self.trace.say(self.now, || format!("replica {} sends the snapshot at {}", from + 1, state.index));
        let nanos = self.servers[from].rng.between(MILLI, 500 * MILLI) + self.network.stream_flight();
        let (at, peer) = (self.life_of(from), self.life_of(to));
        if let Some(nanos) = self.network.cut_off(nanos) {
            self.stats.transfers_cut += 1;
            let index = state.index;
            let end = self.now.after_nanos(nanos);
            return self.queue.push(end, Event::SnapshotSent { at, to, index, ok: false });
        }
        self.queue.push(self.now.after_nanos(nanos), Event::Snapshot { from: at, to: peer, message, state });
    }

    pub(crate) fn snapshot_arrives(
        &mut self,
        from: Life,
        to: Life,
        message: Bytes,
        mut state: Box<StateAt>,
    ) -> Result<(), Violation> {
        let connected = self.network.connects(Process::Replica(from.index), Process::Replica(to.index));
        let ok = connected && self.lives(to) && self.admits(from.index, to.index)?;
        let index = state.index;
        if ok {
            state.state = through_snapshot(&state.state)?;
            let from = ReplicaId(from.index as u64 + 1);
            self.hand_in(to.index, Input::SnapshotArrived { from, message, state });
        }
        let wait = if ok { self.network.stream_flight() } else { 1_000 * MILLI };
        self.queue
            .push(self.now.after_nanos(wait), Event::SnapshotSent { at: from, to: to.index, index, ok });
        Ok(())
    }

    pub(crate) fn snapshot_sent(&mut self, at: Life, to: usize, index: u64, ok: bool) {
        if self.lives(at) {
            self.hand_in(at.index, Input::SnapshotSent { to: ReplicaId(to as u64 + 1), index, ok });
        }
    }

    /// Takes in what a replica has applied.
    fn observe(&mut self, index: usize, replica: &Replica) -> Result<(), Violation> {
        if replica.is_master() != self.servers[index].was_master {
            let others = self.servers.iter().filter(|server| server.was_master).count();
            self.servers[index].was_master = replica.is_master();
            self.stats.masters += u64::from(replica.is_master());
            self.stats.overlaps += u64::from(replica.is_master() && others > 0);
            if replica.is_master() {
                self.sight_office(replica.term().0);
                // One that was stopped while it won may find that out when others have long been in office. It has
                // what was acknowledged before its term, and can tell nobody anything.
                if replica.term() > self.newest_office {
                    self.newest_office = replica.term();
                    self.check_durable(replica.state())?;
                }
            }
            let verb = if replica.is_master() { "takes office" } else { "leaves office" };
            self.trace.say(self.now, || format!("replica {} {verb}, {}", index + 1, replica.term()));
        }
        let (applied, reached) = (self.servers[index].applied, replica.applied_index());
        for entry_index in applied + 1..=reached {
            // Behind a snapshot there are no entries.
            let Some(entry) = self.servers[index].disk.entry(entry_index).cloned() else { continue };
            if entry_index <= self.canon.index() {
                self.canon.check(&entry)?;
            } else if entry_index == self.canon.index() + 1 {
                if entry.term < replica.term().0 && !entry.data.is_empty() {
                    self.sights.reach(Situation::CommittedBySuccessor);
                }
                self.extend_canon(&entry)?;
            }
        }
        self.servers[index].applied = reached;
        if reached > self.canon.index() {
            let what = format!("replica {} applied {reached}, which nobody had written", index + 1);
            return Err(Violation::new(Invariant::Durability, what));
        }
        let revision = replica.state().revision();
        if self.canon.revision_at(reached).is_some_and(|canonical| canonical != revision) {
            let what = format!("at index {reached} replica {} is at {revision}", index + 1);
            return Err(Violation::new(Invariant::Determinism, what));
        }
        if reached > applied && self.servers[index].rng.below(COMPARE_ONE_IN) == 0 {
            self.compare(index, reached, replica.state().hash())?;
        }
        Ok(())
    }

    fn extend_canon(&mut self, entry: &Entry) -> Result<(), Violation> {
        self.trace.event(self.now, Kind::Applied, 0, entry.index, &entry.data);
        let Self { canon, checkers, sights, stats, now, .. } = self;
        let mut ended = Vec::new();
        stats.entries += 1;
        let of_members = entry.entry_type == EntryType::EntryConfChange;
        canon.extend(entry, |step| {
            stats.commands += 1;
            ended.extend(checkers.see(&step, *now, stats)?);
            sights.see(&step, entry.term);
            Ok(())
        })?;
        for session in ended {
            self.session_ended(session)?;
        }
        self.sight_ends();
        if of_members {
            self.sight_members();
        }
        Ok(())
    }

    /// A state that is in office, or is the last one, has all that clients were told of.
    pub(crate) fn check_durable(&self, state: &State) -> Result<(), Violation> {
        const MAY_VANISH: [&str; 4] = ["/tree/", "/registry/", "/named/", "/queue/"];
        self.checkers.durability.check(
            |path| state.read_stat(&onlooker(), path).ok(),
            |path| MAY_VANISH.iter().any(|directory| path.starts_with(directory)),
        )
    }

    /// Compares the whole state of a replica that has caught up.
    pub(crate) fn compare_state(&mut self, index: usize) -> Result<(), Violation> {
        let Some(replica) = &self.servers[index].replica else { return Ok(()) };
        // Whoever was removed while it was down may not have heard of it, nor of anything since.
        if self.members().contains(&index) {
            self.check_durable(replica.state())?;
        }
        let (reached, hash) = (replica.applied_index(), replica.state().hash());
        self.compare(index, reached, hash)
    }

    fn compare(&mut self, index: usize, reached: u64, hash: u64) -> Result<(), Violation> {
        let Some(canonical) = self.canon.hash_at(reached) else { return Ok(()) };
        self.stats.compared += 1;
        determinism::compare(index, reached, canonical, hash)
    }
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
