//! A disk fails: a sync fails, or there is no room, and the process ends with it, as often as it tries (design.md §8);
//! or it takes its time.

use super::Ending;
use crate::disk::Failure;
use crate::event::Event;
use crate::world::World;

const MILLI: u64 = 1_000_000;

/// From now on the disk fails, until somebody has seen to it.
pub(super) fn fail(world: &mut World, index: usize, failure: Failure) {
    world.servers[index].disk.set_failure(Some(failure));
    mended_after(world, index, [500, 3_000, 12_000]);
}

/// Syncs take up to seconds for a while.
pub(super) fn slow(world: &mut World, index: usize) {
    world.stats.slow_disks += 1;
    let most = [200, 1_000, 4_000][world.fault_rng.index(3)];
    world.servers[index].sync_nanos_max = most * MILLI;
    mended_after(world, index, [1_000, 5_000, 20_000]);
}

fn mended_after(world: &mut World, index: usize, most_ms: [u64; 3]) {
    let most = most_ms[world.fault_rng.index(3)];
    let nanos = world.fault_rng.between(100, most) * MILLI;
    let ending = Event::FaultEnds(Ending::DiskMended(index));
    world.queue.push(world.now.after_nanos(nanos), ending);
}

impl World {
    /// A disk is in order again.
    pub(crate) fn mend_disk(&mut self, index: usize) {
        self.servers[index].disk.set_failure(None);
        self.servers[index].sync_nanos_max = 0;
    }
}
