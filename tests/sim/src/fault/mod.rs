//! What goes wrong in a run, apart from what the network and the disks do all the time: one closed enum, drawn by
//! a scheduler, each kind in a small file.
//!
//! Faults come at intervals around the plan's mean while the phase of faults lasts. Several may be on at once.
//! Each says when it ends; whatever still is on when the phase is over is mended then.
//!
//! Faults are numbered, from 1 on. Invariant: when fault `n` comes and what it draws depend on the seed and on `n`
//! alone, so that one can be left out (`--only`) and the others are drawn as before.

mod crash;
mod disk;
mod mix;
mod operator;
mod partition;
mod pause;
mod streams;

use std::fmt;

use crate::client::Client;
use crate::disk::{Damage, Failure};
use crate::event::Event;
use crate::network::{PartitionId, Process};
use crate::rng::Rng;
use crate::trace;
use crate::verdict::Violation;
use crate::world::{Phase, World};

pub use mix::{FaultMix, Kind};
pub(crate) use operator::call as operator_call;
pub use partition::Shape;
pub(crate) use pause::Nap;

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A replica's process is killed, or its whole host goes down.
    Crash {
        /// Which.
        replica: usize,
        /// The host goes down, so nobody's connection is reset.
        silent: bool,
    },
    /// All replicas go down at once.
    PowerFailure,
    /// The network falls apart.
    Partition(Shape),
    /// A process is stopped for a while, and goes on as if nothing had been.
    Pause(Process),
    /// A replica and some clients are cut off from everybody else, and the replica is stopped for so long that the
    /// others may end its clients' sessions. When it goes on it does not know, and its clients come to it first.
    Overslept {
        /// Which.
        replica: usize,
        /// Who reaches only it.
        clients: Vec<usize>,
    },
    /// A replica and some clients are cut off from everybody else, and the replica gets to run for a moment only, now
    /// and then: often enough for its clients, and so seldom that it is late to find itself deposed.
    Stutter {
        /// Which.
        replica: usize,
        /// Who reaches only it.
        clients: Vec<usize>,
    },
    /// Streams break while both ends live.
    Resets,
    /// A client's process is killed.
    ClientCrash(usize),
    /// A replica is asked to stop in the normal way.
    HandOver(usize),
    /// A client's library gets nothing done for a while, and its application goes on.
    Starve(usize),
    /// An operator ends a client's session.
    Kill(usize),
    /// An operator changes how long leases may be.
    ChangeLeases,
    /// A replica's disk fails for a while, and the replica with it.
    DiskFails(usize, Failure),
    /// A replica's disk is slow for a while.
    SlowDisk(usize),
    /// A replica dies, and something that was durable is damaged.
    Damage(usize, Damage),
    /// A replica dies, and its disk is empty when it comes back.
    Wipe(usize),
    /// An operator adds a replica.
    Grow,
    /// An operator removes a replica.
    Shrink(usize),
    /// An operator has another take a replica's place.
    Replace(usize),
    /// The master is to hand over and to go on, and the host of a replica goes down that may be its heir: then it stays
    /// in office.
    LoseHeir {
        /// Who is master.
        master: usize,
        /// Who goes down.
        heir: usize,
    },
}

/// What ends a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// A replica is started again.
    Restart(usize),
    /// A partition ends.
    Mend(PartitionId),
    /// A process is continued.
    Resume(Process),
    /// A replica's disk is in order again.
    DiskMended(usize),
}

impl Fault {
    /// One of chance. What befalls a replica befalls the master every other time, if there is one: that is where
    /// it matters most.
    pub(crate) fn draw(
        rng: &mut Rng,
        mix: &FaultMix,
        master: Option<usize>,
        replicas: &[usize],
        clients: usize,
    ) -> Self {
        let (any, aimed) = (replicas[rng.index(replicas.len())], rng.per_mille(500));
        let replica = master.filter(|_| aimed).unwrap_or(any);
        let kind = mix.choose(rng);
        match kind {
            Kind::Crash => Self::Crash { replica, silent: rng.per_mille(300) },
            Kind::PowerFailure => Self::PowerFailure,
            Kind::Partition => Self::Partition(Shape::draw(rng, replica, replicas, clients)),
            Kind::ReplicaPause => Self::Pause(Process::Replica(replica)),
            Kind::ClientPause => Self::Pause(Process::Client(rng.index(clients))),
            Kind::Resets => Self::Resets,
            Kind::ClientCrash => Self::ClientCrash(rng.index(clients)),
            Kind::Overslept | Kind::Stutter => {
                let replica = master.unwrap_or(any);
                let clients = (0..clients).filter(|_| rng.per_mille(500)).collect();
                if kind == Kind::Overslept {
                    Self::Overslept { replica, clients }
                } else {
                    Self::Stutter { replica, clients }
                }
            }
            Kind::Starve => Self::Starve(rng.index(clients)),
            Kind::Kill => Self::Kill(rng.index(clients)),
            Kind::ChangeLeases => Self::ChangeLeases,
            Kind::HandOver => Self::HandOver(replica),
            Kind::SyncFails => Self::DiskFails(replica, Failure::Sync),
            Kind::DiskFull => Self::DiskFails(replica, Failure::Full),
            Kind::SlowDisk => Self::SlowDisk(replica),
            Kind::Damage if rng.per_mille(500) => Self::Damage(replica, Damage::Snapshot),
            Kind::Damage => Self::Damage(replica, Damage::Log),
            Kind::Wipe => Self::Wipe(replica),
            Kind::Grow => Self::Grow,
            Kind::Shrink => Self::Shrink(replica),
            Kind::Replace => Self::Replace(replica),
            Kind::LoseHeir => {
                let master = master.unwrap_or(any);
                let heirs: Vec<usize> = replicas.iter().copied().filter(|heir| *heir != master).collect();
                let heir = heirs.get(rng.index(heirs.len().max(1)));
                Self::LoseHeir { master, heir: heir.copied().unwrap_or(master) }
            }
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash { replica, silent: false } => write!(f, "replica {} is killed", replica + 1),
            Self::Crash { replica, silent: true } => {
                write!(f, "the host of replica {} goes down", replica + 1)
            }
            Self::PowerFailure => f.write_str("all replicas go down"),
            Self::Partition(shape) => shape.fmt(f),
            Self::Pause(Process::Replica(index)) => write!(f, "replica {} is stopped", index + 1),
            Self::Pause(Process::Client(index)) => write!(f, "client {} is stopped", index + 1),
            Self::Overslept { replica, clients } => {
                let clients: Vec<usize> = clients.iter().map(|index| index + 1).collect();
                write!(f, "replica {} is stopped, and cut off with the clients {clients:?}", replica + 1)
            }
            Self::Stutter { replica, clients } => {
                let clients: Vec<usize> = clients.iter().map(|index| index + 1).collect();
                write!(f, "replica {} hardly runs, and is cut off with the clients {clients:?}", replica + 1)
            }
            Self::Resets => f.write_str("streams break"),
            Self::ClientCrash(index) => write!(f, "client {} is killed", index + 1),
            Self::Starve(index) => write!(f, "the library of client {} is starved", index + 1),
            Self::Kill(index) => write!(f, "an operator ends the session of client {}", index + 1),
            Self::ChangeLeases => f.write_str("an operator changes how long leases may be"),
            Self::HandOver(index) => write!(f, "replica {} is asked to stop", index + 1),
            Self::DiskFails(index, Failure::Sync) => {
                write!(f, "syncs of the disk of replica {} fail", index + 1)
            }
            Self::DiskFails(index, Failure::Full) => write!(f, "the disk of replica {} is full", index + 1),
            Self::SlowDisk(index) => write!(f, "the disk of replica {} is slow", index + 1),
            Self::Damage(index, Damage::Snapshot) => {
                write!(f, "replica {} is killed, and its newest snapshot damaged", index + 1)
            }
            Self::Damage(index, Damage::Log) => {
                write!(f, "replica {} is killed, and its log damaged", index + 1)
            }
            Self::Wipe(index) => write!(f, "replica {} is killed, and its disk emptied", index + 1),
            Self::Grow => f.write_str("an operator adds a replica"),
            Self::Shrink(index) => write!(f, "an operator removes replica {}", index + 1),
            Self::Replace(index) => write!(f, "an operator replaces replica {}", index + 1),
            Self::LoseHeir { master, heir } => {
                write!(f, "replica {} is to hand over, and the host of {} goes down", master + 1, heir + 1)
            }
        }
    }
}

impl World {
    /// The next fault will come.
    pub(crate) fn plan_fault(&mut self) {
        let nanos = self.schedule_rng.between(1, 2 * self.plan.fault_every_nanos);
        self.queue.push(self.now.after_nanos(nanos), Event::Fault);
    }

    /// The number of the fault that begins now, unless it is to be left out.
    fn next_fault(&mut self) -> Option<u32> {
        self.faults += 1;
        let number = self.faults;
        self.fault_rng = Rng::fork(self.seed, &format!("fault {number}"));
        self.only.as_ref().is_none_or(|only| only.contains(&number)).then_some(number)
    }

    pub(crate) fn begin_fault(&mut self) -> Result<(), Violation> {
        if self.phase != Phase::Faults {
            return Ok(());
        }
        self.check_patience()?;
        self.plan_fault();
        let Some(number) = self.next_fault() else { return Ok(()) };
        let master = self.servers.iter().rposition(|server| server.was_master);
        let fault = self.draw_fault(master);
        self.trace.event(self.now, trace::Kind::Fault, 0, u64::from(number), format!("{fault:?}").as_bytes());
        self.trace.say(self.now, || format!("!!! fault {number}: {fault}"));
        match &fault {
            Fault::Crash { replica, silent } => crash::replica(self, *replica, *silent),
            Fault::PowerFailure => crash::all_replicas(self),
            Fault::Partition(shape) => partition::begin(self, shape),
            Fault::Pause(process) => pause::begin(self, *process),
            Fault::Overslept { replica, clients } => pause::oversleep(self, *replica, clients),
            Fault::Stutter { replica, clients } => pause::stutter(self, *replica, clients),
            Fault::Resets => streams::begin(self),
            Fault::ClientCrash(client) => crash::client(self, *client),
            Fault::Starve(client) => pause::starve(self, *client),
            Fault::Kill(client) => operator::kill(self, *client),
            Fault::ChangeLeases => operator::change_leases(self),
            Fault::HandOver(replica) => crash::hand_over(self, *replica),
            Fault::DiskFails(replica, failure) => disk::fail(self, *replica, *failure),
            Fault::SlowDisk(replica) => disk::slow(self, *replica),
            Fault::Damage(replica, damage) => crash::lose(self, *replica, Some(*damage)),
            Fault::Wipe(replica) => crash::lose(self, *replica, None),
            Fault::Grow => operator::grow(self),
            Fault::Shrink(replica) => operator::shrink(self, *replica),
            Fault::Replace(replica) => operator::replace(self, *replica),
            Fault::LoseHeir { master, heir } => {
                operator::depose(self, *master);
                crash::replica(self, *heir, true);
            }
        }
        Ok(())
    }

    fn draw_fault(&mut self, master: Option<usize>) -> Fault {
        let replicas = self.members();
        let fault = Fault::draw(&mut self.fault_rng, &self.plan.faults, master, &replicas, self.plan.clients);
        if self.fault_rng.per_mille(500) { self.aim(fault) } else { fault }
    }

    /// The same fault, for a client to whom it matters, if there is one: the next of them.
    fn aim(&self, fault: Fault) -> Fault {
        let next = |from: usize, matters: fn(&Client) -> bool| {
            let (before, behind) = self.clients.split_at(from);
            let place = behind.iter().chain(before).position(matters).unwrap_or(0);
            (from + place) % self.clients.len()
        };
        match fault {
            Fault::Kill(client) => Fault::Kill(next(client, Client::is_in_jeopardy)),
            Fault::Starve(client) => Fault::Starve(next(client, Client::caches)),
            Fault::Pause(Process::Client(client)) => {
                Fault::Pause(Process::Client(next(client, |client| client.guard.is_some())))
            }
            fault => fault,
        }
    }

    pub(crate) fn end_fault(&mut self, ending: Ending) -> Result<(), Violation> {
        match ending {
            Ending::Restart(index) if self.servers[index].replica.is_none() => self.start_replica(index)?,
            // It was started, or mended, with everything else.
            Ending::Restart(_) => {}
            Ending::DiskMended(index) => {
                self.trace.say(self.now, || format!("the disk of replica {} is in order again", index + 1));
                self.mend_disk(index);
            }
            Ending::Mend(partition) => {
                self.trace.say(self.now, || format!("{partition:?} ends"));
                self.network.unblock(partition);
                self.deliver_held_up();
            }
            Ending::Resume(process) => {
                self.trace.say(self.now, || format!("{process:?} goes on"));
                self.resume(process);
            }
        }
        Ok(())
    }

    /// The fault that begins now ends after a while: mostly soon, sometimes late.
    fn end_after(&mut self, ending: Ending) -> u64 {
        const MILLI: u64 = 1_000_000;
        let most = [20, 500, 3_000, 8_000, 25_000][self.fault_rng.index(5)];
        let nanos = self.fault_rng.between(1, most * 1_000) * (MILLI / 1_000);
        self.queue.push(self.now.after_nanos(nanos), Event::FaultEnds(ending));
        nanos
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_fault_is_drawn() {
        let mut rng = Rng::new(1);
        let mut kinds = std::collections::BTreeSet::new();
        for _ in 0..1_000 {
            let drawn = format!("{:?}", Fault::draw(&mut rng, &FaultMix::even(), Some(1), &[0, 1, 2], 3));
            kinds.insert(drawn.split([' ', '(']).next().unwrap_or_default().to_owned());
        }
        assert_eq!(kinds.len(), 20, "{kinds:?}");
    }

    #[test]
    fn what_is_drawn_depends_on_the_master_in_nothing_but_whom_it_befalls() {
        for number in 0..500 {
            let draw = |master| {
                let mut rng = Rng::fork(1, &format!("fault {number}"));
                let fault = Fault::draw(&mut rng, &FaultMix::even(), master, &[0, 1, 2], 3);
                (std::mem::discriminant(&fault), rng.any())
            };
            assert_eq!(draw(None), draw(Some(2)), "fault {number}");
        }
    }
}
