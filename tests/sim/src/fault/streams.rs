//! Streams break while both ends live: a middlebox forgets them, a cable is pulled for a moment.

use crate::streams::Direction;
use crate::world::World;

pub(super) fn begin(world: &mut World) {
    for connection in world.streams.select(|stream| stream.established) {
        if world.fault_rng.per_mille(500) {
            world.stats.resets += 1;
            world.reset(connection, Direction::Up);
            world.reset(connection, Direction::Down);
        }
    }
}
