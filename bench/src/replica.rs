//! This program as a replica: `cargo run -p holdfast-bench` builds no `holdfastd`, so the bench starts itself again
//! and does what `holdfastd run` does, by the same library.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use holdfast_server::config::{Config, ConfigFlags};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

/// The hidden subcommand's name.
pub(crate) const COMMAND: &str = "replica";

/// How a replica is started by [`crate::cell`].
#[derive(Debug, Args)]
pub(crate) struct ReplicaFlags {
    /// The process that started it, and without which it is of no use.
    #[arg(long, value_name = "PID")]
    parent: i32,
    #[command(flatten)]
    config: ConfigFlags,
}

/// Serves until it is killed, at the latest by its parent's end.
pub(crate) fn serve(flags: &ReplicaFlags) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("cannot tie the replica's life to the bench's")?;
    // The parent may have died before the line above.
    if getppid() != Pid::from_raw(flags.parent) {
        bail!("process {} is gone, which this replica was started for", flags.parent);
    }
    // The variables in the environment are for the user's own replicas.
    let config = Config::load(&flags.config, [])?;
    let (logger, _guard) = holdfast_server::logging::start(config.log_format, config.log_level);
    Ok(holdfast_server::run_replica_blocking(config, logger)?)
}
