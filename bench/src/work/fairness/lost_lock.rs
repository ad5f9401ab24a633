//! A lock whose holder has died: how long it is not granted to the next.
//!
//! The holder is a session of two seconds that stops in the moment in which the window opens. The lock is due when its
//! lease is over, and a master that lengthens leases because it is slow must not do so for ever.

use std::time::Duration;

use anyhow::{Context as _, Result};
use holdfast::{Cell, Handle, Mode, OpenOptions, Session};
use tokio::time::{Instant, timeout};

/// The lease of the session that dies.
const LEASE: Duration = Duration::from_secs(2);
/// The next waits no longer.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// The lock, with its holder alive.
pub(super) struct LostLock {
    /// The holder's process.
    holder: super::companion::Holder,
    /// The session of the next, and its handle on the lock's node.
    waiter: (Session, Handle),
}

impl LostLock {
    /// Starts the holder.
    pub(super) async fn prepare(addresses: &str, waiter: (Session, Handle)) -> Result<Self> {
        let holder = super::companion::Holder::start(addresses).await?;
        Ok(Self { holder, waiter })
    }

    /// Has the holder die, waits for the lock, and tells how long that took.
    pub(super) async fn run(self) -> Result<Duration> {
        let Self { holder, waiter: (session, handle) } = self;
        holder.kill()?;
        let began = Instant::now();
        let lock = timeout(WAIT_MAX, handle.acquire(Mode::Exclusive)).await;
        let lock = lock.context("was not granted within a minute")??;
        let took = began.elapsed();
        lock.release().await?;
        session.close().await;
        Ok(took)
    }
}

/// Holds the lock until the process is killed.
pub(crate) async fn hold(addresses: &str) -> Result<()> {
    let session = Cell::connect([addresses])?.session().client_name("holder").lease(LEASE).open().await?;
    // What is measured is when the cell notices, and not how long it then waits.
    let options = OpenOptions::new().caching(false).lock_delay(Duration::ZERO);
    let handle = session.open("/honest-waits", options).await?;
    let _lock = handle.acquire(Mode::Exclusive).await?;
    super::companion::say_ready()?;
    Err(session.expired().await.into())
}
