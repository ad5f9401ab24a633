//! A candidate: the part of this example to copy.
//!
//! It waits in the queue of a lock; once it has the lock it is primary, says in the file where it is to be found,
//! and gives orders to the shared resource, each with the lock's sequencer. `lock.run` stops the service as soon as
//! the lock is in doubt, which is before anybody else can have it. What must not be copied without thought: it stops
//! what awaits in this process; an order that is on its way is beyond its reach, and only the resource, by looking at
//! the sequencer, can refuse it.

use std::net::SocketAddr;
use std::time::Duration;

use holdfast::{Cell, Lock, Mode, OpenOptions};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::time::{interval, sleep};

use crate::orders::Orders;

/// The file whose lock is the office, and whose contents say where the primary is.
pub(crate) const LEADER: &str = "/ls/local/leader";
/// A primary that dies or is cut off loses its office after so long. Services ask for 12 s, the default; this is
/// short so that you need not wait for the show.
pub(crate) const LEASE: Duration = Duration::from_secs(2);
/// And so much later another may have it, for the sake of orders that are still on their way.
pub(crate) const LOCK_DELAY: Duration = Duration::from_secs(1);

const ORDER_EVERY: Duration = Duration::from_millis(20);
const STAND_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Stands for primary, again and again, until the process ends.
pub(crate) async fn run(name: &str, cell: &Cell, resource: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let orders = Orders::connect(name, resource).await?;
    loop {
        // A session that is lost takes its handles and locks with it, and one that is in doubt is given up: so everything
        // begins anew.
        if let Err(error) = stand(name, cell, &listener, &orders).await {
            println!("is not primary: {error:#}");
            sleep(STAND_AGAIN_AFTER).await;
        }
    }
}

/// One candidature: ends with an error when the session or the lock is lost or in doubt.
async fn stand(name: &str, cell: &Cell, listener: &TcpListener, orders: &Orders) -> anyhow::Result<()> {
    let session = cell.session().lease(LEASE).client_name(name).open().await?;
    let leader = session.open(LEADER, OpenOptions::new().create().lock_delay(LOCK_DELAY)).await?;
    println!("waits for the lock");
    let lock = leader.acquire(Mode::Exclusive).await?;
    let address = listener.local_addr()?.to_string();
    leader.set_contents(address.clone()).await?;
    println!("is primary at {address}, lock generation {}", lock.generation());
    lock.run(serve(name, &lock, listener, orders)).await?
}

/// What a primary does, for as long as it is one.
async fn serve(name: &str, lock: &Lock, listener: &TcpListener, orders: &Orders) -> anyhow::Result<()> {
    let mut ticks = interval(ORDER_EVERY);
    loop {
        tokio::select! {
            _ = ticks.tick() => orders.give(lock).await?,
            client = listener.accept() => {
                // A client that has gone away again is no reason to resign.
                let _ = client?.0.write_all(format!("{name} is primary\n").as_bytes()).await;
            }
        }
    }
}
