//! A process is stopped (SIGSTOP, a slow virtual machine) and goes on: its clock has run on meanwhile, and its
//! connections stand.

use super::Ending;
use crate::network::Process;
use crate::world::World;

pub(super) fn begin(world: &mut World, process: Process) {
    world.stats.pauses += 1;
    let nanos = world.end_after(Ending::Resume(process));
    let until = world.now.after_nanos(nanos);
    match process {
        Process::Replica(index) => world.servers[index].paused_until = until,
        Process::Client(index) => world.clients[index].paused_until = until,
    }
}
