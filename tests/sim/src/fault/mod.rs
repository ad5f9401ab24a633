//! What goes wrong in a run, apart from what the network and the disks do all the time: one closed enum, drawn by
//! a scheduler, each kind in a small file.
//!
//! Faults come at intervals around the plan's mean while the phase of faults lasts. Several may be on at once.
//! Each says when it ends; whatever still is on when the phase is over is mended then.
//!
//! Faults are numbered, from 1 on. Invariant: when fault `n` comes and what it draws depend on the seed and on `n`
//! alone, so that one can be left out (`--only`) and the others are drawn as before.

mod crash;
mod operator;
mod partition;
mod pause;
mod streams;

use std::fmt;

use crate::event::Event;
use crate::network::{PartitionId, Process};
use crate::rng::Rng;
use crate::trace::Kind;
use crate::verdict::Violation;
use crate::world::{Phase, World};

pub use partition::Shape;

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
}

impl Fault {
    /// One of chance. What befalls a replica befalls the master every other time, if there is one: that is where
    /// it matters most.
    pub(crate) fn draw(rng: &mut Rng, master: Option<usize>, replicas: usize, clients: usize) -> Self {
        let (any, aimed) = (rng.index(replicas), rng.per_mille(500));
        let replica = master.filter(|_| aimed).unwrap_or(any);
        match rng.below(26) {
            0..=3 => Self::Crash { replica, silent: rng.per_mille(300) },
            4 => Self::PowerFailure,
            5..=10 => Self::Partition(Shape::draw(rng, replica, replicas, clients)),
            11 | 12 => Self::Pause(Process::Replica(replica)),
            13 => Self::Pause(Process::Client(rng.index(clients))),
            14..=16 => Self::Resets,
            17 => Self::ClientCrash(rng.index(clients)),
            number @ 18..=20 => {
                let replica = master.unwrap_or(any);
                let clients = (0..clients).filter(|_| rng.per_mille(500)).collect();
                if number == 18 {
                    Self::Overslept { replica, clients }
                } else {
                    Self::Stutter { replica, clients }
                }
            }
            21 => Self::Starve(rng.index(clients)),
            22 => Self::Kill(rng.index(clients)),
            23 => Self::ChangeLeases,
            _ => Self::HandOver(replica),
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
        self.plan_fault();
        let Some(number) = self.next_fault() else { return Ok(()) };
        let master = self.servers.iter().rposition(|server| server.was_master);
        let fault = Fault::draw(&mut self.fault_rng, master, self.plan.replicas, self.plan.clients);
        self.trace.event(self.now, Kind::Fault, 0, u64::from(number), format!("{fault:?}").as_bytes());
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
        }
        Ok(())
    }

    pub(crate) fn end_fault(&mut self, ending: Ending) -> Result<(), Violation> {
        match ending {
            Ending::Restart(index) if self.servers[index].replica.is_none() => self.start_replica(index)?,
            // It was started, or mended, with everything else.
            Ending::Restart(_) => {}
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
            let drawn = format!("{:?}", Fault::draw(&mut rng, Some(1), 3, 3));
            kinds.insert(drawn.split([' ', '(']).next().unwrap_or_default().to_owned());
        }
        assert_eq!(kinds.len(), 12, "{kinds:?}");
    }

    #[test]
    fn what_is_drawn_depends_on_the_master_in_nothing_but_whom_it_befalls() {
        for number in 0..500 {
            let draw = |master| {
                let mut rng = Rng::fork(1, &format!("fault {number}"));
                let fault = Fault::draw(&mut rng, master, 3, 3);
                (std::mem::discriminant(&fault), rng.any())
            };
            assert_eq!(draw(None), draw(Some(2)), "fault {number}");
        }
    }
}
