//! The stage of the smaller examples: which cell they talk to, and how they say what they saw. Nothing to copy.

#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, bail};
use holdfast::Cell;
use holdfast_server::config::{LogFormat, LogLevel};
use holdfast_server::dev::{DevCell, DevOptions};
use holdfast_server::logging::LogGuard;

/// Where the cell is.
#[derive(Debug, clap::Args)]
pub struct Addresses {
    /// Where the replicas of a cell serve clients: host:port, separated by commas. Without it, the example starts a cell
    /// of its own, in this process, and takes it down at the end.
    #[arg(long, env = "HOLDFAST_ADDRESSES")]
    addresses: Option<String>,
}

/// A cell to play with.
pub struct Stage {
    /// A client of the cell.
    pub cell: Cell,
    /// The cell itself, if it is our own.
    own: Option<(DevCell, LogGuard)>,
}

impl Stage {
    /// Finds the cell, or starts one.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub async fn set(addresses: &Addresses) -> Result<Self> {
        if let Some(addresses) = &addresses.addresses {
            return Ok(Self { cell: Cell::connect([addresses])?, own: None });
        }
        let (logger, guard) = holdfast_server::logging::start(LogFormat::Text, LogLevel::Warning);
        let own = DevCell::start(DevOptions::default(), logger).await.context("no cell")?;
        Ok(Self { cell: Cell::connect(own.addresses())?, own: Some((own, guard)) })
    }

    /// Takes the cell down, if it is our own.
    ///
    /// # Errors
    ///
    /// If a replica did not stop as it should.
    pub async fn strike(self) -> Result<()> {
        if let Some((own, _guard)) = self.own {
            own.stop().await?;
        }
        Ok(())
    }
}

/// Prints a claim, and whether it holds.
///
/// # Errors
///
/// If it does not.
pub fn claim(claim: &str, holds: bool) -> Result<()> {
    println!("{:>6}  {claim}", if holds { "ok" } else { "FAILED" });
    if !holds {
        bail!("this claim does not hold: {claim}");
    }
    Ok(())
}
