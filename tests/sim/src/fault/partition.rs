//! The network falls apart, whole or in one direction only.

use std::fmt;

use super::Ending;
use crate::network::Process;
use crate::rng::Rng;
use crate::world::World;

/// Who does not reach whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The replicas of one side do not hear those of the other. Clients reach all.
    Replicas(Vec<usize>),
    /// A replica is cut off from everybody.
    Alone(usize),
    /// What a replica says reaches nobody, and it hears everything.
    Mute(usize),
    /// A replica hears nothing, and is heard.
    Deaf(usize),
    /// Some clients reach only some replicas: by client and replica.
    Clients(Vec<(usize, usize)>),
    /// One replica no longer reaches another, and still hears it.
    OneWay(usize, usize),
    /// The world has two halves, each with replicas and clients of its own: what an old master tells its half
    /// must agree with what a new one tells the other.
    Split {
        /// The replicas of one half.
        replicas: Vec<usize>,
        /// Its clients.
        clients: Vec<usize>,
    },
}

impl Shape {
    /// One of chance, around the given replica where there is one in its middle.
    pub(super) fn draw(rng: &mut Rng, replica: usize, replicas: &[usize], clients: usize) -> Self {
        let some_clients = |rng: &mut Rng| (0..clients).filter(|_| rng.per_mille(500)).collect();
        match rng.below(9) {
            0 => Self::Replicas(replicas.iter().copied().filter(|_| rng.per_mille(500)).collect()),
            1 => Self::Alone(replica),
            2 => Self::Mute(replica),
            3 => Self::Deaf(replica),
            4 => {
                let pairs =
                    (0..clients).flat_map(|client| replicas.iter().map(move |replica| (client, *replica)));
                Self::Clients(pairs.filter(|_| rng.per_mille(400)).collect())
            }
            5 if replicas.len() > 1 => Self::OneWay(replica, another(rng, replica, replicas)),
            _ => {
                let mut half = vec![replica];
                // Still a minority, and sometimes the greatest there can be.
                if replicas.len() >= 5 && rng.per_mille(500) {
                    half.push(another(rng, replica, replicas));
                }
                Self::Split { replicas: half, clients: some_clients(rng) }
            }
        }
    }
}

/// Another of `replicas`, of which there are more than one.
fn another(rng: &mut Rng, replica: usize, replicas: &[usize]) -> usize {
    let others: Vec<usize> = replicas.iter().copied().filter(|other| *other != replica).collect();
    others[rng.index(others.len())]
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Replicas(side) => {
                let side: Vec<usize> = side.iter().map(|index| index + 1).collect();
                write!(f, "the replicas {side:?} and the others no longer hear each other")
            }
            Self::Alone(replica) => write!(f, "replica {} is cut off", replica + 1),
            Self::Mute(replica) => write!(f, "replica {} is no longer heard", replica + 1),
            Self::Deaf(replica) => write!(f, "replica {} no longer hears", replica + 1),
            Self::Clients(pairs) => write!(f, "{} pairs of a client and a replica are cut off", pairs.len()),
            Self::Split { replicas, clients } => {
                let one_up = |side: &[usize]| side.iter().map(|index| index + 1).collect::<Vec<_>>();
                let (replicas, clients) = (one_up(replicas), one_up(clients));
                write!(f, "the replicas {replicas:?} and the clients {clients:?} are cut off from all others")
            }
            Self::OneWay(from, to) => write!(f, "replica {} no longer reaches replica {}", from + 1, to + 1),
        }
    }
}

pub(super) fn begin(world: &mut World, shape: &Shape) {
    let ending = cut(world, shape);
    world.end_after(ending);
}

/// Returns what ends it.
pub(super) fn cut(world: &mut World, shape: &Shape) -> Ending {
    world.stats.partitions += 1;
    Ending::Mend(world.network.block(blocked(shape, world.servers.len(), world.plan.clients)))
}

/// All directed pairs that a partition cuts.
fn blocked(shape: &Shape, replicas: usize, clients: usize) -> Vec<(Process, Process)> {
    let all = || (0..replicas).map(Process::Replica).chain((0..clients).map(Process::Client));
    let mut pairs = Vec::new();
    match shape {
        Shape::Replicas(side) => {
            for one in side {
                for other in (0..replicas).filter(|other| !side.contains(other)) {
                    pairs.push((Process::Replica(*one), Process::Replica(other)));
                    pairs.push((Process::Replica(other), Process::Replica(*one)));
                }
            }
        }
        Shape::Alone(replica) => {
            for other in all() {
                pairs.push((Process::Replica(*replica), other));
                pairs.push((other, Process::Replica(*replica)));
            }
        }
        Shape::Mute(replica) => pairs.extend(all().map(|other| (Process::Replica(*replica), other))),
        Shape::Deaf(replica) => pairs.extend(all().map(|other| (other, Process::Replica(*replica)))),
        Shape::Clients(cut) => {
            for (client, replica) in cut {
                pairs.push((Process::Client(*client), Process::Replica(*replica)));
                pairs.push((Process::Replica(*replica), Process::Client(*client)));
            }
        }
        Shape::Split { replicas: side, clients: with } => {
            let inside = |process: &Process| match process {
                Process::Replica(index) => side.contains(index),
                Process::Client(index) => with.contains(index),
            };
            for one in all().filter(inside) {
                for other in all().filter(|other| !inside(other)) {
                    pairs.extend([(one, other), (other, one)]);
                }
            }
        }
        Shape::OneWay(from, to) => pairs.push((Process::Replica(*from), Process::Replica(*to))),
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_is_cut_off_from_the_other_and_not_from_itself() {
        let pairs = blocked(&Shape::Replicas(vec![0, 1]), 3, 2);
        assert_eq!(pairs.len(), 4);
        assert!(!pairs.contains(&(Process::Replica(0), Process::Replica(1))));
        assert!(pairs.contains(&(Process::Replica(2), Process::Replica(1))));
    }

    #[test]
    fn a_split_leaves_each_half_whole() {
        let pairs = blocked(&Shape::Split { replicas: vec![0], clients: vec![1] }, 3, 2);
        let cut = |one, other| pairs.contains(&(one, other)) && pairs.contains(&(other, one));
        assert!(cut(Process::Replica(0), Process::Client(0)));
        assert!(cut(Process::Client(1), Process::Replica(2)));
        assert!(!cut(Process::Replica(0), Process::Client(1)));
        assert!(!cut(Process::Replica(1), Process::Replica(2)));
    }

    #[test]
    fn the_mute_still_hear() {
        let pairs = blocked(&Shape::Mute(0), 3, 1);
        assert!(pairs.iter().all(|(from, _)| *from == Process::Replica(0)));
        assert!(pairs.contains(&(Process::Replica(0), Process::Client(0))));
    }
}
