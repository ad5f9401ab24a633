//! How a cell under test is set up, and its start.

use std::time::Duration;

use futures::future::try_join_all;
use holdfast::{Cell, CellBuilder};
use holdfast_types::{ReplicaId, check_cell_name};
use slog::Level;

use crate::cell::TestCell;
use crate::error::Error;

/// The most replicas: more are never of use.
const REPLICAS_MAX: u16 = 9;
/// The longest lease that a cell grants.
const LEASE_FLOOR_MAX: Duration = Duration::from_secs(60);
/// An election takes a few messages and two syncs of a disk.
const ELECTION_MIN: Duration = Duration::from_millis(100);

/// Sets a [`TestCell`] up; made by [`TestCell::builder`]. The defaults are for tests: everything that takes seconds in
/// production takes a fraction.
#[derive(Clone, Debug)]
#[must_use = "a builder starts nothing until `start` is called"]
pub struct TestCellBuilder {
    pub(crate) replicas: u16,
    pub(crate) name: String,
    /// What all clients of the cell are made with, but for the cell's name and addresses.
    pub(crate) clients: CellBuilder,
    pub(crate) lease_floor: Duration,
    pub(crate) election_timeout: Duration,
    pub(crate) verbose: bool,
}

impl Default for TestCellBuilder {
    fn default() -> Self {
        Self {
            replicas: 3,
            name: "test".to_owned(),
            clients: Cell::builder()
                .lease(Duration::from_secs(5))
                .grace(Duration::from_secs(10))
                .lock_delay(Duration::ZERO),
            lease_floor: Duration::ZERO,
            election_timeout: Duration::from_millis(500),
            verbose: false,
        }
    }
}

impl TestCellBuilder {
    /// How many replicas the cell has: 1 to 9; 3 by default.
    pub fn replicas(mut self, replicas: u16) -> Self {
        self.replicas = replicas;
        self
    }

    /// The cell's name; `test` by default.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The lease of sessions that ask for no other, of all clients that the cell makes: 100 ms to 60 s; 5 s by default. A
    /// client that is cut off is in jeopardy after that. Too short a lease makes tests fail on a busy machine.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.clients = self.clients.lease(lease);
        self
    }

    /// The grace period of sessions that ask for no other: 10 s by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.clients = self.clients.grace(grace);
        self
    }

    /// The lock-delay of handles that ask for no other: 0 by default, so that tests do not wait for it; 15 s in production.
    pub fn lock_delay(mut self, lock_delay: Duration) -> Self {
        self.clients = self.clients.lock_delay(lock_delay);
        self
    }

    /// The shortest lease that a new master starts a session with; 0 by default, which is to say: the session's own. After
    /// a fail-over, the locks of a client that is dead are held for so long at least.
    pub fn lease_floor(mut self, lease_floor: Duration) -> Self {
        self.lease_floor = lease_floor;
        self
    }

    /// After how long a silence of the master the others elect another: 100 ms at least; 500 ms by default, and up to
    /// twice that. It is so that a partition or a pause is noticed; a master that is killed is replaced at once.
    pub fn election_timeout(mut self, election_timeout: Duration) -> Self {
        self.election_timeout = election_timeout;
        self
    }

    /// Has the log of the replicas keep debug messages too.
    pub fn verbose(mut self) -> Self {
        self.verbose = true;
        self
    }

    /// Starts the cell. Returns once it serves and all its replicas follow. Dropping the future stops what has been started.
    ///
    /// # Errors
    ///
    /// Which option is wrong, or why the cell cannot run.
    pub async fn start(self) -> Result<TestCell, Error> {
        self.check()?;
        let cell = TestCell::new(self)?;
        try_join_all(cell.replicas().into_iter().map(|id| cell.restart(id))).await?;
        cell.wait_until_complete().await?;
        Ok(cell)
    }

    pub(crate) fn level(&self) -> Level {
        if self.verbose { Level::Debug } else { Level::Info }
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (1..=u64::from(self.replicas)).map(ReplicaId)
    }

    fn check(&self) -> Result<(), Error> {
        check_cell_name(&self.name).map_err(Error::Option)?;
        let wrong = if !(1..=REPLICAS_MAX).contains(&self.replicas) {
            format!("a cell has 1 to {REPLICAS_MAX} replicas, usually 3 or 5, not {}", self.replicas)
        } else if self.lease_floor > LEASE_FLOOR_MAX {
            format!("a lease floor is {LEASE_FLOOR_MAX:?} at the most, not {:?}", self.lease_floor)
        } else if self.election_timeout < ELECTION_MIN {
            format!("an election time-out is {ELECTION_MIN:?} at least, not {:?}", self.election_timeout)
        } else {
            return Ok(());
        };
        Err(Error::Option(wrong))
    }
}
