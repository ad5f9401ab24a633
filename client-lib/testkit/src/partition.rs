//! Cutting replicas and clients off from each other.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use holdfast_types::ReplicaId;

use crate::cell::TestCell;
use crate::error::Error;
use crate::network::{Cut, Cuts, Side, lock};

/// A partition of the network. It is healed when this is dropped, or by [`Partition::heal`]. Several can overlap: who is
/// cut off by two of them is together again when both are healed.
#[must_use = "the partition is healed as soon as it is dropped"]
#[derive(Debug)]
pub struct Partition {
    cuts: Arc<Mutex<Cuts>>,
    number: u64,
}

impl Partition {
    /// Heals it. Connections that were not given up meanwhile go on where they stopped.
    pub fn heal(self) {
        drop(self);
    }
}

impl Drop for Partition {
    fn drop(&mut self) {
        lock(&self.cuts).heal(self.number);
    }
}

impl TestCell {
    /// Cuts the replicas of one side off from those of the other, in both directions. Replicas on no side, and clients, go
    /// on talking to everybody. Connections do not break: nothing comes through any more.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownReplica`], [`Error::Twice`], [`Error::EmptySide`].
    pub fn partition(&self, one: &[ReplicaId], other: &[ReplicaId]) -> Result<Partition, Error> {
        let (one, other) = self.sides(one, other)?;
        Ok(self.cut_both_ways(one, other))
    }

    /// Like [`TestCell::partition`], but in one direction: what `from` sends does not reach `to`, and what `to` sends
    /// reaches `from`.
    ///
    /// # Errors
    ///
    /// As for [`TestCell::partition`].
    pub fn partition_one_way(&self, from: &[ReplicaId], to: &[ReplicaId]) -> Result<Partition, Error> {
        let (from, to) = self.sides(from, to)?;
        Ok(self.cut(vec![Cut { from, to }]))
    }

    /// Cuts a replica off from everybody: the other replicas and all clients.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownReplica`].
    pub fn isolate(&self, replica: ReplicaId) -> Result<Partition, Error> {
        self.slot(replica)?;
        Ok(self.cut_both_ways(Side::Replicas(BTreeSet::from([replica])), Side::AllBut(replica)))
    }

    /// Cuts the master off from everybody, and says which replica that is. Waits for a master first, if there is none.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if there is no master.
    pub async fn isolate_master(&self) -> Result<(ReplicaId, Partition), Error> {
        let master = self.master().await?;
        Ok((master, self.isolate(master)?))
    }

    /// Cuts a client off from all replicas: those made by [`TestCell::client_named`] with this name.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownClient`].
    pub fn partition_client(&self, name: &str) -> Result<Partition, Error> {
        self.partition_client_from(name, &self.replicas())
    }

    /// Cuts a client off from some replicas.
    ///
    /// # Errors
    ///
    /// [`Error::UnknownClient`], [`Error::UnknownReplica`], [`Error::Twice`], [`Error::EmptySide`].
    pub fn partition_client_from(&self, name: &str, replicas: &[ReplicaId]) -> Result<Partition, Error> {
        let client = Side::Client(self.client_of(name)?);
        let replicas = self.side(replicas, &mut BTreeSet::new())?;
        Ok(self.cut_both_ways(client, replicas))
    }

    fn cut_both_ways(&self, one: Side, other: Side) -> Partition {
        let back = Cut { from: other.clone(), to: one.clone() };
        self.cut(vec![Cut { from: one, to: other }, back])
    }

    fn cut(&self, cuts: Vec<Cut>) -> Partition {
        Partition { number: self.network.cut(cuts), cuts: self.network.cuts() }
    }

    fn sides(&self, one: &[ReplicaId], other: &[ReplicaId]) -> Result<(Side, Side), Error> {
        let mut seen = BTreeSet::new();
        Ok((self.side(one, &mut seen)?, self.side(other, &mut seen)?))
    }

    /// A side of these replicas, none of which is in `seen` yet.
    fn side(&self, replicas: &[ReplicaId], seen: &mut BTreeSet<ReplicaId>) -> Result<Side, Error> {
        for id in replicas {
            self.slot(*id)?;
            if !seen.insert(*id) {
                return Err(Error::Twice { replica: *id });
            }
        }
        if replicas.is_empty() {
            return Err(Error::EmptySide);
        }
        Ok(Side::Replicas(replicas.iter().copied().collect()))
    }
}
