//! Owns the network: who can reach whom, and how long what is sent takes, if it arrives.
//!
//! It carries nothing itself: the world asks it for a fate and puts the delivery into the queue. Partitions are
//! directed, so that a network which works in one direction only is one entry less.

use std::collections::{BTreeMap, BTreeSet};

use crate::plan::NetworkConditions;
use crate::rng::Rng;

/// A process: a replica or a client, by its place in the world's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    /// A replica.
    Replica(usize),
    /// A client.
    Client(usize),
}

/// A partition, of all of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PartitionId(u64);

/// What becomes of a message between replicas: when each of its copies arrives, in nanoseconds from now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It never arrives.
    Lost,
    /// It arrives.
    Once(u64),
    /// It arrives twice.
    Twice(u64, u64),
}

/// The network.
#[derive(Debug)]
pub struct Network {
    rng: Rng,
    conditions: NetworkConditions,
    /// What the first says does not reach the second, because of these partitions.
    blocked: BTreeMap<(Process, Process), BTreeSet<PartitionId>>,
    /// The last partition.
    last: PartitionId,
}

impl Network {
    /// A network without partitions.
    #[must_use]
    pub fn new(rng: Rng, conditions: NetworkConditions) -> Self {
        Self { rng, conditions, blocked: BTreeMap::new(), last: PartitionId(0) }
    }

    /// From now on the network is like this.
    pub fn set_conditions(&mut self, conditions: NetworkConditions) {
        self.conditions = conditions;
    }

    /// What the first of each pair says no longer reaches the second. There may be several partitions at once.
    pub fn block(&mut self, pairs: impl IntoIterator<Item = (Process, Process)>) -> PartitionId {
        self.last = PartitionId(self.last.0 + 1);
        for pair in pairs {
            self.blocked.entry(pair).or_default().insert(self.last);
        }
        self.last
    }

    /// Ends one partition.
    pub fn unblock(&mut self, partition: PartitionId) {
        self.blocked.retain(|_, because| {
            because.remove(&partition);
            !because.is_empty()
        });
    }

    /// Ends all partitions.
    pub fn unblock_all(&mut self) {
        self.blocked.clear();
    }

    /// Whether what `from` says reaches `to`.
    #[must_use]
    pub fn reaches(&self, from: Process, to: Process) -> bool {
        !self.blocked.contains_key(&(from, to))
    }

    /// Whether both hear each other.
    #[must_use]
    pub fn connects(&self, one: Process, other: Process) -> bool {
        self.reaches(one, other) && self.reaches(other, one)
    }

    /// Decides over a message between replicas.
    pub fn fate(&mut self, from: Process, to: Process) -> Fate {
        // Drawn whatever becomes of it, so that a partition does not move what is drawn for others.
        let (first, second) = (self.flight(), self.flight());
        let lost = self.rng.per_mille(self.conditions.lost_per_mille);
        let doubled = self.rng.per_mille(self.conditions.doubled_per_mille);
        match (lost || !self.reaches(from, to), doubled) {
            (true, _) => Fate::Lost,
            (false, false) => Fate::Once(first),
            (false, true) => Fate::Twice(first, second),
        }
    }

    /// How long a frame of a stream takes. A lost one is sent again after a while.
    pub fn stream_flight(&mut self) -> u64 {
        const AGAIN_NANOS: u64 = 200_000_000;
        let mut flight = self.flight();
        while self.rng.per_mille(self.conditions.lost_per_mille) {
            flight += AGAIN_NANOS;
        }
        flight
    }

    /// Whether a transfer that would take `nanos` is cut off, and after how long.
    pub fn cut_off(&mut self, nanos: u64) -> Option<u64> {
        let after = self.rng.below(nanos.max(1));
        self.rng.per_mille(self.conditions.cut_per_mille).then_some(after)
    }

    fn flight(&mut self) -> u64 {
        let conditions = &self.conditions;
        if self.rng.per_mille(conditions.late_per_mille) {
            return self.rng.between(conditions.flight_nanos_min, conditions.late_nanos_max);
        }
        self.rng.between(conditions.flight_nanos_min, conditions.flight_nanos_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(conditions: NetworkConditions) -> Network {
        Network::new(Rng::new(1), conditions)
    }

    #[test]
    fn a_one_way_partition_blocks_one_way() {
        let mut network = network(NetworkConditions::calm());
        let (one, other) = (Process::Replica(0), Process::Client(0));
        let first = network.block([(one, other)]);
        let second = network.block([(one, other), (other, one)]);
        network.unblock(second);
        assert_eq!(network.fate(one, other), Fate::Lost);
        assert!(matches!(network.fate(other, one), Fate::Once(_)));
        assert!(!network.connects(one, other));
        network.unblock(first);
        assert!(network.connects(one, other));
    }

    #[test]
    fn messages_are_lost_doubled_and_overtaken_as_often_as_the_conditions_say() {
        let conditions = NetworkConditions {
            lost_per_mille: 300,
            doubled_per_mille: 300,
            late_per_mille: 300,
            late_nanos_max: 1_000_000_000,
            ..NetworkConditions::calm()
        };
        let mut network = network(conditions);
        let (mut lost, mut doubled, mut late) = (0, 0, 0);
        for _ in 0..1_000 {
            match network.fate(Process::Replica(0), Process::Replica(1)) {
                Fate::Lost => lost += 1,
                Fate::Twice(..) => doubled += 1,
                Fate::Once(nanos) => late += u32::from(nanos > 500_000),
            }
        }
        assert!((200..400).contains(&lost), "{lost} lost");
        assert!((120..300).contains(&doubled), "{doubled} doubled");
        assert!((80..300).contains(&late), "{late} late");
    }
}
