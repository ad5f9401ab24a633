//! A process is stopped (SIGSTOP, a slow virtual machine) and goes on: its clock has run on meanwhile, and its
//! connections stand.

use super::{Ending, Shape, partition};
use crate::clock::TrueTime;
use crate::coverage::Situation;
use crate::event::Event;
use crate::network::Process;
use crate::world::{Phase, World};

const MILLI: u64 = 1_000_000;

pub(super) fn begin(world: &mut World, process: Process) {
    if let Process::Replica(index) = process
        && world.servers[index].was_master
        && world.fault_rng.per_mille(500)
    {
        let nanos = world.fault_rng.between(500, 12_000) * MILLI;
        world.servers[index].nap = Some(Nap { nanos, cut_off: None });
        return;
    }
    let nanos = world.end_after(Ending::Resume(process));
    stop(world, process, nanos);
}

/// A process is stopped for so long.
pub(super) fn sleep(world: &mut World, process: Process, nanos: u64) {
    stop(world, process, nanos);
    world.queue.push(world.now.after_nanos(nanos), Event::FaultEnds(Ending::Resume(process)));
}

/// The master is stopped for longer than it takes the others to elect another and to end sessions, and still cut off
/// when it goes on: for a moment it has every reason to believe that it is in office (I3, I5).
pub(super) fn oversleep(world: &mut World, replica: usize, clients: &[usize]) {
    world.stats.overslept += 1;
    let asleep = world.fault_rng.between(1_000, 16_000) * MILLI;
    let after = world.fault_rng.between(100, 4_000) * MILLI;
    // Sometimes what others were about to tell it still comes, and is the first that it finds when it goes on.
    let cut_after = world.fault_rng.below(2) * world.fault_rng.between(1, 50) * MILLI;
    if world.fault_rng.per_mille(700) {
        // What the others say to its question arrives, and nothing that they say of its successor.
        let cut_after = world.fault_rng.between(2, 60) * MILLI;
        let nap = Nap { nanos: asleep, cut_off: Some((cut_after, after, clients.to_vec())) };
        world.servers[replica].nap = Some(nap);
    } else {
        let nap = Nap { nanos: asleep, cut_off: Some((cut_after, after, clients.to_vec())) };
        fall_asleep(world, replica, nap);
    }
}

/// A sleep that a master falls into once it has asked the others whether it leads: their answers come while it sleeps.
#[derive(Clone, Debug)]
pub(crate) struct Nap {
    /// How long it is.
    nanos: u64,
    /// The replica is cut off so long after it has fallen asleep, and for so long after its sleep, with these clients.
    cut_off: Option<(u64, u64, Vec<usize>)>,
}

fn fall_asleep(world: &mut World, replica: usize, nap: Nap) {
    sleep(world, Process::Replica(replica), nap.nanos);
    if let Some((cut_after, after, clients)) = nap.cut_off {
        let until = world.now.after_nanos(nap.nanos + after);
        world.queue.push(world.now.after_nanos(cut_after), Event::CutOff { replica, clients, until });
    }
}

impl World {
    /// A master that was to fall asleep with a leadership round under way has asked for one.
    pub(crate) fn asks_for_round(&mut self, index: usize) {
        if let Some(nap) = self.servers[index].nap.take() {
            self.trace
                .say(self.now, || format!("replica {} is stopped while it asks whether it leads", index + 1));
            self.sights.reach(Situation::AsleepInRound);
            fall_asleep(self, index, nap);
        }
    }

    /// A stopped replica is cut off with some clients, unless the faults are over by now.
    pub(crate) fn cut_off(&mut self, replica: usize, clients: Vec<usize>, until: TrueTime) {
        if self.phase == Phase::Faults {
            let mend = partition::cut(self, &Shape::Split { replicas: vec![replica], clients });
            self.queue.push(until, Event::FaultEnds(mend));
        }
    }
}

/// The master runs seldom, and is cut off. Raft counts time by how often it runs, and so this one is in office, as far
/// as it knows, for long after the others have elected another; its clients hear from it all the while (I3).
pub(super) fn stutter(world: &mut World, replica: usize, clients: &[usize]) {
    world.stats.stutters += 1;
    let mend = partition::cut(world, &Shape::Split { replicas: vec![replica], clients: clients.to_vec() });
    // A client takes a master for dead that says nothing for a quarter of its lease, within bounds.
    let silence_ms = (world.plan.lease_ms / 4).clamp(200, 3_000);
    let every = world.fault_rng.between(silence_ms / 2, silence_ms * 9 / 10) * MILLI;
    let nanos = world.fault_rng.between(7_000, 22_000) * MILLI;
    let after = world.fault_rng.between(1, 2_000) * MILLI;
    world.servers[replica].runs_every_nanos = every;
    let process = Process::Replica(replica);
    world.queue.push(world.now.after_nanos(nanos), Event::FaultEnds(Ending::Resume(process)));
    world.queue.push(world.now.after_nanos(nanos + after), Event::FaultEnds(mend));
}

/// A client's library does not get to run, and the application's other threads do: what they read from the cache must
/// be right none the less.
pub(super) fn starve(world: &mut World, client: usize) {
    world.stats.starved += 1;
    let nanos = world.end_after(Ending::Resume(Process::Client(client)));
    world.clients[client].starved_until = world.now.after_nanos(nanos);
}

fn stop(world: &mut World, process: Process, nanos: u64) {
    world.stats.pauses += 1;
    let until = world.now.after_nanos(nanos);
    match process {
        Process::Replica(index) => world.servers[index].paused_until = until,
        Process::Client(index) => world.clients[index].paused_until = until,
    }
}
