//! A cell under test: its replicas, each of which runs, stands still or is down, and its clients.
//!
//! The replicas are the real ones, each on threads of its own, with real files and real sockets; between them is the
//! kit's network. What can be done to them is in `faults` and `partition`, what can be waited for in `waiting`.
//!
//! Invariant: when the cell has been dropped, nothing of it is left, neither threads nor sockets nor files.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast::{Cell, CellBuilder};
use holdfast_proto::peer::v1::FoundingMember;
use holdfast_server::config::Config;
use holdfast_server::{Server, Standstill};
use holdfast_types::ReplicaId;
use tempfile::TempDir;

use crate::builder::TestCellBuilder;
use crate::error::Error;
use crate::logs::Logs;
use crate::network::{End, Listening, Network, Port, lock};

/// Replicas are driven in steps of so long.
const TICK: Duration = Duration::from_millis(10);
/// So many heartbeats of a master can be lost before anybody campaigns.
const HEARTBEATS_PER_ELECTION: u32 = 10;
/// Any port that is free: others come by way of the network.
const ANY_PORT: &str = "127.0.0.1:0";

/// A real cell within this process, for tests. Started by [`TestCell::start`]; dropping it ends everything that belongs to
/// it, and blocks for the moment that this takes.
///
/// Its methods can be called from several tasks; the cell can be used by tests on any kind of tokio runtime, since its own
/// threads do not depend on it.
pub struct TestCell {
    setup: TestCellBuilder,
    /// By rising id, from 1.
    slots: Vec<Mutex<Slot>>,
    /// Where clients without a name reach the replicas, by rising id.
    addresses: Vec<String>,
    /// Where clients with names do.
    clients: Mutex<BTreeMap<Arc<str>, Vec<String>>>,
    /// Where each replica reaches each.
    routes: BTreeMap<ReplicaId, BTreeMap<ReplicaId, String>>,
    pub(crate) logs: Logs,
    pub(crate) network: Network,
    dir: TempDir,
}

/// A replica.
#[derive(Debug)]
pub(crate) enum Slot {
    Running(Server),
    Standing(Server, Standstill),
    Down,
    /// Something is being done to it by a call that has not returned.
    Changing,
}

impl Slot {
    /// For sentences that say why something cannot be done.
    fn state(&self) -> &'static str {
        match self {
            Self::Running(_) => "runs",
            Self::Standing(..) => "stands still: it was paused",
            Self::Down => "is down",
            Self::Changing => "is being started, stopped or paused by another call",
        }
    }
}

/// A replica that is being changed. Unless it is settled it becomes again what it was.
pub(crate) struct Change<'c> {
    slot: &'c Mutex<Slot>,
    next: Slot,
}

impl Change<'_> {
    /// What the replica is when the change is done, or given up.
    pub(crate) fn set(&mut self, next: Slot) {
        self.next = next;
    }

    pub(crate) fn take(&mut self) -> Slot {
        std::mem::replace(&mut self.next, Slot::Down)
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        *lock(self.slot) = self.take();
    }
}

impl TestCell {
    /// Starts a cell of three replicas with everything as tests want it. Returns once it serves, which takes a fraction of
    /// a second. Dropping the future stops what has been started.
    ///
    /// # Errors
    ///
    /// Why it cannot run.
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// A cell with something to say about it.
    pub fn builder() -> TestCellBuilder {
        TestCellBuilder::default()
    }

    /// A cell all of whose replicas are down.
    pub(crate) fn new(setup: TestCellBuilder) -> Result<Self, Error> {
        let network = Network::start(setup.ids())?;
        let way = |from: &End, id| network.way(from, id, Port::Clients);
        let addresses = setup.ids().map(|id| way(&End::Clients, id)).collect::<Result<_, _>>()?;
        let mut routes = BTreeMap::new();
        for from in setup.ids() {
            // Also to itself: who founds a cell asks everybody.
            let ways = setup.ids().map(|to| Ok((to, network.way(&End::Replica(from), to, Port::Peers)?)));
            routes.insert(from, ways.collect::<Result<_, Error>>()?);
        }
        let cell = Self {
            slots: setup.ids().map(|_| Mutex::new(Slot::Down)).collect(),
            addresses,
            clients: Mutex::default(),
            routes,
            logs: Logs::new(setup.level()),
            network,
            dir: tempfile::Builder::new().prefix("holdfast-testkit-").tempdir()?,
            setup,
        };
        // What clients cannot be made with is wrong now, and not when the first one is made.
        cell.builder_of_clients().connect()?;
        Ok(cell)
    }

    /// The cell's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.setup.name
    }

    /// The ids of all replicas, also of those that do not run, rising.
    #[must_use]
    pub fn replicas(&self) -> Vec<ReplicaId> {
        self.setup.ids().collect()
    }

    /// Where clients reach the replicas: for programs that are told addresses. They count as one of those that have no
    /// name, also if they are other processes.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.addresses.clone()
    }

    /// Where the replicas keep their data, each in a directory of its own, until the cell is dropped.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// A client of the cell, with connections of its own. Its sessions have the lease and the grace period of this cell's
    /// builder, unless they ask for others. To cut one client off and not the others, see [`TestCell::client_named`].
    #[must_use]
    pub fn client(&self) -> Cell {
        let client = self.builder_of_clients().connect();
        client.expect("the addresses are the kit's own")
    }

    /// A client that reaches the cell by ways of its own, so that
    /// [`TestCell::partition_client`] can cut it off. Clients of one name are cut off together.
    ///
    /// # Errors
    ///
    /// If the system has no more ports.
    pub fn client_named(&self, name: &str) -> Result<Cell, Error> {
        let mut clients = lock(&self.clients);
        let ways = match clients.get(name) {
            Some(ways) => ways.clone(),
            None => {
                let client = End::Client(name.into());
                let ways = self.setup.ids().map(|id| self.network.way(&client, id, Port::Clients));
                let ways: Vec<_> = ways.collect::<Result<_, _>>()?;
                clients.insert(name.into(), ways.clone());
                ways
            }
        };
        Ok(self.builder_of_clients().routes(self.addresses.iter().cloned().zip(ways)).connect()?)
    }

    /// What the replicas have logged, line by line: seconds since the start, level, message, values. When a test panics,
    /// the end of it is printed.
    #[must_use]
    pub fn logs(&self) -> Vec<String> {
        self.logs.all()
    }

    fn builder_of_clients(&self) -> CellBuilder {
        let Self { addresses, setup, .. } = self;
        setup.clients.clone().addresses(addresses).name(&setup.name)
    }

    pub(crate) fn client_of(&self, name: &str) -> Result<Arc<str>, Error> {
        let clients = lock(&self.clients);
        let client = clients.get_key_value(name).map(|(name, _)| Arc::clone(name));
        client.ok_or_else(|| Error::UnknownClient { name: name.to_owned() })
    }

    pub(crate) fn slot(&self, id: ReplicaId) -> Result<&Mutex<Slot>, Error> {
        let place = usize::try_from(id.0).ok().and_then(|id| id.checked_sub(1));
        let slot = place.and_then(|place| self.slots.get(place));
        slot.ok_or(Error::UnknownReplica { replica: id, replicas: self.slots.len() })
    }

    pub(crate) fn slots(&self) -> &[Mutex<Slot>] {
        &self.slots
    }

    /// Begins to change a replica, if it is as `fits` says. `wish` is what is to be done to it.
    pub(crate) fn change(
        &self,
        id: ReplicaId,
        wish: &'static str,
        fits: impl FnOnce(&Slot) -> bool,
    ) -> Result<Change<'_>, Error> {
        let slot = self.slot(id)?;
        let mut present = lock(slot);
        if !fits(&present) {
            return Err(Error::State { replica: id, wish, state: present.state() });
        }
        let next = std::mem::replace(&mut *present, Slot::Changing);
        Ok(Change { slot, next })
    }

    /// Starts a replica.
    pub(crate) async fn start_replica(&self, id: ReplicaId) -> Result<Server, Error> {
        let logger = self.logs.logger().new(slog::o!("replica" => id.0));
        let server = Server::start(self.config(id), logger).await;
        let server = server.map_err(|source| Error::Replica { replica: id, source })?;
        let listening = Listening { peers: server.peer_address(), clients: server.client_address() };
        self.network.set_listening(id, Some(listening));
        Ok(server)
    }

    fn config(&self, id: ReplicaId) -> Config {
        let members = self.setup.ids().zip(&self.addresses).map(|(id, client_address)| FoundingMember {
            id: id.0,
            // Nobody dials it: there are routes.
            peer_address: format!("replica-{}.invalid:1", id.0),
            client_address: client_address.clone(),
        });
        let dir = self.dir.path().join(format!("replica-{}", id.0));
        let config = Config::new(&self.setup.name, id, dir, members.collect());
        let whole_ticks = |duration: Duration| {
            let ticks = duration.as_millis().div_ceil(TICK.as_millis()).max(1);
            u64::try_from(ticks * TICK.as_millis()).unwrap_or(u64::MAX)
        };
        let election_ms = whole_ticks(self.setup.election_timeout);
        Config {
            peer_listen: ANY_PORT.to_owned(),
            client_listen: ANY_PORT.to_owned(),
            peer_routes: self.routes[&id].clone(),
            tick_ms: whole_ticks(TICK),
            heartbeat_ms: whole_ticks(self.setup.election_timeout / HEARTBEATS_PER_ELECTION),
            election_ms,
            lease_floor_ms: u64::try_from(self.setup.lease_floor.as_millis()).unwrap_or(u64::MAX),
            ..config
        }
    }
}

impl Drop for TestCell {
    /// Blocks until the replicas' threads have ended: a replica whose data vanished before would take that for a failing
    /// disk, and end the process.
    fn drop(&mut self) {
        for slot in &mut self.slots {
            match slot.get_mut().map(|slot| std::mem::replace(slot, Slot::Down)) {
                Ok(Slot::Running(server)) => server.kill(None),
                Ok(Slot::Standing(server, standstill)) => server.kill(Some(standstill)),
                Ok(Slot::Down | Slot::Changing) | Err(_) => {}
            }
        }
        if std::thread::panicking() {
            self.logs.print_last();
        }
    }
}

impl fmt::Debug for TestCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let states: Vec<_> = self.slots.iter().map(|slot| lock(slot).state()).collect();
        f.debug_struct("TestCell").field("name", &self.setup.name).field("replicas", &states).finish()
    }
}
