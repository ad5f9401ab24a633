//! A cell of replica processes on this machine.

use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};
use std::time::Duration;

use holdfast::{Cell, CellStatus, Role};
use tempfile::TempDir;

use crate::certs::Certs;
use crate::ports::Ports;
use crate::process::Programs;
use crate::replica::Replica;
use crate::wait::eventually;

/// The name of every cell here, unless a test says otherwise.
pub(crate) const CELL: &str = "e2e";

/// A cell. Its replicas are killed and its files deleted when it is dropped; if the test is failing, what the
/// replicas said is printed first.
#[derive(Debug)]
pub struct Cluster {
    /// First, so that the processes go before their files.
    replicas: BTreeMap<u64, Replica>,
    programs: Programs,
    ports: Ports,
    dir: TempDir,
    cell: Cell,
}

impl Cluster {
    /// A cell of three that serves.
    pub async fn start(programs: Programs) -> Self {
        Self::start_with(programs, &[]).await
    }

    /// A cell of three that serves, with these flags of `holdfastd run`.
    pub async fn start_with(programs: Programs, flags: &[(&str, &str)]) -> Self {
        let mut cluster = Self::configure(programs, flags);
        cluster.replicas_mut().for_each(Replica::start);
        cluster.serving().await;
        cluster
    }

    /// A cell of three that nobody has started yet.
    ///
    /// # Panics
    ///
    /// If the machine has no temporary directory or no free ports.
    #[must_use]
    pub fn configure(programs: Programs, flags: &[(&str, &str)]) -> Self {
        let ports = Ports::take();
        let dir = TempDir::with_prefix("holdfast-e2e-").expect("a temporary directory can be made");
        let ids = 1..=3;
        // Tests that are about lock-delays say so.
        let cell =
            Cell::builder().addresses(ids.clone().map(|id| ports.client(id))).lock_delay(Duration::ZERO);
        let cell = cell.connect().expect("the addresses are well-formed");
        let mut cluster = Self { replicas: BTreeMap::new(), programs, ports, dir, cell };
        let member = |id| format!("{id}={}/{}", cluster.ports.peer(id), cluster.ports.client(id));
        let members: Vec<String> = ids.clone().map(member).collect();
        for id in ids {
            let mut replica = cluster.describe(id);
            replica.set("members", members.join(","));
            flags.iter().for_each(|(flag, value)| replica.set(flag, *value));
            cluster.replicas.insert(id, replica);
        }
        cluster
    }

    /// A cell of three that talks TLS and serves. [`Cluster::cell`] is what `admin` sees.
    ///
    /// # Panics
    ///
    /// As [`Cluster::configure`]; or if there is no certificate of `admin`.
    pub async fn start_tls(programs: Programs, certs: &Certs) -> Self {
        let mut cluster = Self::configure(programs, &[]);
        cluster.cell = certs.cell(&cluster, &certs.tls("admin")).expect("the certificates can be used");
        for replica in cluster.replicas_mut() {
            certs.configure(replica);
            replica.start();
        }
        cluster.serving().await;
        cluster
    }

    /// A replica of this cell with an address and a directory of its own, that nobody has started and that is not
    /// told how it comes to the cell. It is the test's, not the cluster's, until it is given to
    /// [`Cluster::insert`].
    #[must_use]
    pub fn describe(&self, id: u64) -> Replica {
        let addresses = [self.ports.peer(id), self.ports.client(id)];
        let mut replica = Replica::new(self.programs, id, addresses, self.dir.path());
        replica.set("cell", CELL);
        replica
    }

    /// Takes a replica in.
    pub fn insert(&mut self, replica: Replica) {
        self.replicas.insert(replica.id(), replica);
    }

    /// Lets a replica go; its process dies with it.
    ///
    /// # Panics
    ///
    /// If there is none with this id.
    pub fn take(&mut self, id: u64) -> Replica {
        self.replicas.remove(&id).expect("the cluster has the replica")
    }

    /// The cell, as a client that knows the founding replicas sees it. All clones share connections.
    #[must_use]
    pub fn cell(&self) -> Cell {
        self.cell.clone()
    }

    /// Where the programs are.
    #[must_use]
    pub fn programs(&self) -> Programs {
        self.programs
    }

    /// Where tests keep files.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// The replicas, by their ids.
    pub fn replicas_mut(&mut self) -> impl Iterator<Item = &mut Replica> {
        self.replicas.values_mut()
    }

    /// What a replica says of itself, if it answers.
    pub async fn status(&self, id: u64) -> Option<CellStatus> {
        self.cell.status_of(self[id].client_address()).await.ok()
    }

    /// Waits until a replica is master, and says which: that of the latest term, if an older one does not know yet
    /// that it was deposed.
    pub async fn master(&self) -> u64 {
        eventually("a replica is master", async || {
            let mut masters = Vec::new();
            for id in self.replicas.keys() {
                let status = self.status(*id).await;
                masters.extend(status.filter(|status| status.role() == Role::Master));
            }
            masters.iter().max_by_key(|status| status.term).map(|status| status.replica)
        })
        .await
    }

    /// A replica that is not the master at this moment.
    pub async fn follower(&self) -> u64 {
        let master = self.master().await;
        let other = self.replicas.keys().find(|id| **id != master);
        *other.expect("a cell has more than one replica")
    }

    /// Waits until every replica answers and knows a master.
    pub async fn serving(&self) {
        for id in self.replicas.keys() {
            eventually(&format!("replica {id} knows a master"), async || {
                self.status(*id).await.filter(|status| status.master != 0)
            })
            .await;
        }
    }

    /// Waits until a replica has applied everything that the master had committed when this was called.
    pub async fn caught_up(&self, id: u64) {
        let master = self.master().await;
        let goal = eventually("the master answers", async || self.status(master).await).await.commit_index;
        eventually(&format!("replica {id} has applied entry {goal}"), async || {
            self.status(id).await.filter(|status| status.applied_index >= goal)
        })
        .await;
    }
}

impl Index<u64> for Cluster {
    type Output = Replica;

    fn index(&self, id: u64) -> &Replica {
        &self.replicas[&id]
    }
}

impl IndexMut<u64> for Cluster {
    fn index_mut(&mut self, id: u64) -> &mut Replica {
        self.replicas.get_mut(&id).expect("the cluster has the replica")
    }
}

impl Drop for Cluster {
    #[expect(clippy::print_stderr, reason = "a failing test is read on standard error")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            for replica in self.replicas.values() {
                eprintln!("--- what replica {} said ---\n{}", replica.id(), replica.log());
            }
        }
    }
}
