//! Processes die: replicas, with or without their hosts, one or all; clients; and replicas that are asked to.

use holdfast_replica::Input;

use super::{Ending, pause};
use crate::disk::Damage;
use crate::network::Process;
use crate::streams::Direction;
use crate::world::World;

const MILLI: u64 = 1_000_000;

/// A replica dies and comes back.
pub(super) fn replica(world: &mut World, index: usize, silent: bool) {
    if world.servers[index].replica.is_some() {
        world.stats.crashes += 1;
        world.stop_replica(index, silent);
        world.end_after(Ending::Restart(index));
    }
}

/// A replica dies, and something of its disk is damaged, or all of it is gone, when it comes back.
pub(super) fn lose(world: &mut World, index: usize, damage: Option<Damage>) {
    if world.servers[index].replica.is_none() || !world.may_lose(index) {
        return;
    }
    replica(world, index, false);
    match damage {
        Some(damage) => world.damage(index, damage),
        None => {
            world.wipe(index);
            if world.fault_rng.per_mille(500) {
                stop_the_witness(world, index);
            }
        }
    }
}

/// Of those that are left the one that has applied most is stopped: if the wiped replica votes, those who have not all
/// that was acknowledged are a majority (I7).
fn stop_the_witness(world: &mut World, wiped: usize) {
    let others = world.members().into_iter().filter(|other| *other != wiped);
    if let Some(witness) = others.max_by_key(|other| world.servers[*other].applied) {
        let nanos = world.fault_rng.between(2_000, 20_000) * MILLI;
        pause::sleep(world, Process::Replica(witness), nanos);
    }
}

/// The power fails: what was acknowledged must be there when it is back (I7).
pub(super) fn all_replicas(world: &mut World) {
    world.stats.power_failures += 1;
    world.sight_power_failure();
    for index in 0..world.servers.len() {
        replica(world, index, true);
    }
}

/// A client dies, and with it its session; another process will come in its place.
pub(super) fn client(world: &mut World, index: usize) {
    if world.clients[index].session.is_none() {
        return;
    }
    world.stats.client_crashes += 1;
    world.client_dies(index);
}

impl World {
    /// A client's process is gone, whatever it was of.
    pub(crate) fn client_dies(&mut self, index: usize) {
        self.sight_client_crash(index);
        if let Some(session) = self.clients[index].session_id {
            self.checkers.patience.died(session, self.now);
        }
        let life = self.client_life(index);
        for connection in self.streams.select(|stream| stream.client == life) {
            self.reset(connection, Direction::Up);
            self.streams.close(connection, Direction::Down);
        }
        self.forget_session(index);
        self.plan_session(index);
    }
}

/// A replica is stopped in the normal way, and hands over first if it is master.
pub(super) fn hand_over(world: &mut World, index: usize) {
    if world.servers[index].replica.is_some() {
        world.stats.hand_overs += 1;
        world.hand_in(index, Input::HandOver);
    }
}
