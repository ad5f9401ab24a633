//! What every kind of greedy client works with: the cell, the counters, how much to want.

use std::time::Duration;

use anyhow::{Result, bail};
use holdfast_proto::client::v1::cell_client::CellClient;
use holdfast_proto::client::v1::{Role, StatusRequest};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Channel;

use crate::channel;
use crate::session::{Options, RawSession};
use crate::tally::Tally;

/// A replica says within this who it is.
const STATUS_WAIT: Duration = Duration::from_secs(5);
/// A master is found within this.
const MASTER_WAIT: Duration = Duration::from_secs(60);
/// A client that failed pauses so long before it begins again.
const PAUSE: Duration = Duration::from_millis(100);

/// The cell, the counters, and how much to want.
#[derive(Debug)]
pub struct Greed {
    /// Where the replicas are.
    addresses: Vec<String>,
    /// In hundredths of what the kind's name stands for.
    percent: u32,
    /// What the client has got.
    pub tally: Tally,
    /// Whether the attack is prepared.
    ready: watch::Sender<bool>,
}

impl Greed {
    /// A client of the cell at these addresses.
    #[must_use]
    pub fn new(addresses: &str, percent: u32) -> Self {
        let addresses = addresses.split(',').map(str::to_owned).collect();
        Self { addresses, percent, tally: Tally::default(), ready: watch::Sender::new(false) }
    }

    /// A share of a full count, at least one.
    #[must_use]
    pub fn count(&self, full: usize) -> usize {
        (full * self.percent as usize / 100).max(1)
    }

    /// Says that the attack begins now.
    pub fn ready(&self) {
        self.tally.ready();
        self.ready.send_replace(true);
    }

    /// Waits until the attack begins.
    pub async fn until_ready(&self) {
        // The sender is this very value's.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }

    /// A new connection to the master.
    ///
    /// # Errors
    ///
    /// If no replica is master for a minute.
    pub async fn connect(&self) -> Result<Channel> {
        let deadline = Instant::now() + MASTER_WAIT;
        loop {
            for address in &self.addresses {
                if let Some(channel) = connect_to_master(address).await {
                    return Ok(channel);
                }
            }
            if Instant::now() > deadline {
                bail!("no replica was master for {MASTER_WAIT:?}");
            }
            sleep(PAUSE).await;
        }
    }

    /// A new session over a connection of its own.
    ///
    /// # Errors
    ///
    /// If it is refused.
    pub async fn session(&self, options: Options) -> Result<RawSession<'_>> {
        RawSession::open(self.connect().await?, options, &self.tally).await
    }

    /// Does something over and over. What fails is counted, and begins again after a pause.
    pub async fn again(&self, mut what: impl AsyncFnMut() -> Result<()>) {
        loop {
            if let Err(error) = what().await {
                self.tally.broken(&format!("{error:#}"));
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connect_to_master(address: &str) -> Option<Channel> {
    let channel = channel::connect(address).await.ok()?;
    let mut client = CellClient::new(channel.clone());
    let status = timeout(STATUS_WAIT, client.status(StatusRequest::default())).await.ok()?.ok()?;
    (status.into_inner().role() == Role::Master).then_some(channel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_never_nothing() {
        let greed = Greed::new("h:1,h:2", 2);
        assert_eq!((greed.count(4_096), greed.count(8), greed.addresses.len()), (81, 1, 2));
    }
}
