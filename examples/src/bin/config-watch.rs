//! A service whose configuration is a file of the cell: read at every request, fresh at every read, at no cost.
//!
//! `cargo run --release --bin config-watch` starts a cell, an operator who changes the configuration, and the service.
//! What to copy is [`follow`] and [`serve`]. There is no polling and no stale value: a write of the file takes effect
//! only when every client that caches it has dropped what it cached. Whoever reads a new value can rely on it that
//! nobody reads the old one any more.

#![forbid(unsafe_code)]

use anyhow::{Context as _, Result};
use clap::Parser;
use holdfast::{Cell, EventKind, Handle, OpenOptions, WriteOptions};
use holdfast_examples::{Addresses, Stage, claim};
use tokio::sync::watch;

const PATH: &str = "/ls/local/requests-per-second";
const VERSIONS: [&str; 3] = ["100", "250", "40"];
const REQUESTS: u32 = 100_000;

/// Shows a configuration that changes while it is used. Exits with status 1 if anything that it claims does not hold.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    addresses: Addresses,
}

/// Acts on every change of the configuration, for as long as the session lasts. The first version counts as a change.
async fn follow(config: &Handle, mut act: impl FnMut(u32)) -> Result<()> {
    let mut events = config.events()?;
    loop {
        // Read on hearing of a change, a file is as new as the change, or newer. Changes in quick succession may come
        // as one; the last is never missed, fail-overs included.
        act(limit(config).await?);
        let Some(event) = events.next().await else { return Ok(()) };
        // The session is over: open a new one, and follow again.
        event?;
    }
}

/// A request of a customer: looks at the configuration as it is at this moment. Once it is cached, this sends nothing
/// and waits for nothing.
async fn serve(config: &Handle, request: u32) -> Result<bool> {
    Ok(request < limit(config).await?)
}

async fn limit(config: &Handle) -> Result<u32> {
    let text = config.contents().await?.bytes;
    std::str::from_utf8(&text)?.trim().parse().context("the configuration is no number")
}

#[tokio::main]
async fn main() -> Result<()> {
    let stage = Stage::set(&Arguments::parse().addresses).await?;
    let shown = show(&stage.cell).await;
    stage.strike().await?;
    shown
}

async fn show(cell: &Cell) -> Result<()> {
    cell.set_contents(PATH, VERSIONS[0], WriteOptions::new().create()).await?;
    let session = cell.session().client_name("service").open().await?;
    let watched = OpenOptions::new().read_only().events([EventKind::ContentsModified]);
    let config = session.open(PATH, watched).await?;
    let (seen, mut last_seen) = watch::channel(0);
    let act = |limit| {
        println!("        the service allows {limit} requests per second from now on");
        seen.send_replace(limit);
    };
    let operator = async {
        for version in VERSIONS {
            cell.set_contents(PATH, version, WriteOptions::new()).await?;
            let written: u32 = version.parse()?;
            // The write has returned: from here on nobody reads anything older.
            let read = limit(&config).await?;
            claim("what the service reads is what the operator has just written", read == written)?;
            last_seen.wait_for(|seen| *seen == written).await?;
        }
        let before = session.cache_stats();
        let mut served = 0;
        for request in 0..REQUESTS {
            served += u32::from(serve(&config, request).await?);
        }
        let after = session.cache_stats();
        println!(
            "        the service has looked at its configuration {REQUESTS} times, and served {served} requests"
        );
        claim("that took no message to the cell", after.misses == before.misses)?;
        claim("and each look was at the last version", served == *last_seen.borrow())
    };
    tokio::select! {
        followed = follow(&config, act) => followed.context("the service stopped following"),
        shown = operator => shown,
    }?;
    session.close().await;
    println!("All claims hold.");
    Ok(())
}
