//! Scenarios of sessions: many that live for long, and what must not end them.
//!
//! - [`crowd`]: the client process, with many sessions
//! - `loss`: one in five packets is lost; `partition`: the master is cut off; `soak`: thousands of sessions, and the
//!   master is killed again and again; `greedy`: clients that want all of the cell for themselves
//! - `cell`, `crowds`: the replicas and the crowds, as the rig sees them
//!
//! In all of them every client process runs all the time, and has a way to a master for long enough. So no session has
//! a reason to end, and one that does is a violation, as is a lock that two hold or a change that a watcher misses.

mod cell;
pub mod crowd;
mod crowds;
mod greedy;
mod loss;
mod partition;
mod soak;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::net::Net;
use super::scenario::Options;
pub(super) use greedy::greedy;
pub(super) use loss::loss;
pub(super) use partition::partition;
pub(super) use soak::soak;

/// Nothing was wrong.
const HELD: u8 = 0;
/// The promise was broken.
const BROKEN: u8 = 5;

/// Where a run keeps its files.
struct Place {
    dir: PathBuf,
    temporary: Option<TempDir>,
}

impl Place {
    fn new(options: &Options) -> anyhow::Result<Self> {
        if let Some(dir) = &options.dir {
            std::fs::create_dir_all(dir)?;
            return Ok(Self { dir: dir.clone(), temporary: None });
        }
        let temporary = TempDir::with_prefix("holdfast-torture-")?;
        Ok(Self { dir: temporary.path().to_owned(), temporary: Some(temporary) })
    }

    fn dir(&self) -> &Path {
        &self.dir
    }

    /// The run is over: its files stay if something was wrong, and it is said where.
    fn leave(self, verdict: u8) -> u8 {
        if let (Some(temporary), true) = (self.temporary, verdict != HELD) {
            say(&format!("the logs are in {}", temporary.keep().display()));
        }
        verdict
    }
}

/// The network of a run, with namespaces if they are needed: then, where they are not permitted, there is no run.
fn network(options: &Options, needed: bool) -> anyhow::Result<Net> {
    match Net::namespaces() {
        Ok(net) if !options.no_namespaces => Ok(net),
        Err(error) if needed => Err(error.context("this scenario needs network namespaces: run it as root")),
        _ if needed => anyhow::bail!("this scenario needs network namespaces"),
        _ => Ok(Net::loopback()),
    }
}

fn length(options: &Options) -> Duration {
    Duration::from_secs_f64(options.minutes * 60.0)
}

fn say(line: &str) {
    // Whoever does not read it any more need not.
    let _ = writeln!(std::io::stdout(), "{line}");
}
