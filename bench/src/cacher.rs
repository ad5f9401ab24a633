//! This program as a client that dies: it keeps files in its cache, says so, and does nothing more until it is killed.

use std::io::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use holdfast::{Cell, OpenOptions};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// The hidden subcommand's name.
pub(crate) const COMMAND: &str = "cacher";

/// What it says when everything is in its cache.
const READY: &str = "ready";

/// How a cacher is started by [`Cacher::start`].
#[derive(Debug, Args)]
pub(crate) struct CacherFlags {
    /// The process that started it: without that it ends.
    #[arg(long, value_name = "PID")]
    parent: i32,
    /// The cell.
    #[arg(long, value_name = "ADDRESSES")]
    addresses: String,
    /// The length of its lease.
    #[arg(long, value_name = "MS")]
    lease_ms: u64,
    /// What it caches.
    #[arg(long = "path", value_name = "PATH")]
    paths: Vec<String>,
}

/// Caches until it is killed, at the latest by its parent's end.
pub(crate) async fn cache(flags: &CacherFlags) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("cannot tie the client's life to the bench's")?;
    ensure!(nix::unistd::getppid().as_raw() == flags.parent, "the bench is gone");
    let cell = Cell::connect([&flags.addresses])?;
    let session = cell.session().lease(Duration::from_millis(flags.lease_ms)).open().await?;
    let mut handles = Vec::new();
    for path in &flags.paths {
        let handle = session.open(path, OpenOptions::new().create()).await?;
        while handle.cached_contents().is_none() {
            handle.contents().await?;
        }
        handles.push(handle);
    }
    writeln!(std::io::stdout(), "{READY}")?;
    Err(session.expired().await.into())
}

/// A cacher's process. Killed when dropped.
pub(crate) struct Cacher(Child);

impl Cacher {
    /// Starts one, and waits until it has everything in its cache. Must be called on the main thread: the process dies
    /// with the thread that starts it.
    pub(crate) async fn start(addresses: &str, lease: Duration, paths: &[&str]) -> Result<Self> {
        let program = std::env::current_exe().context("cannot find the program itself")?;
        let mut command = Command::new(program);
        command.args([COMMAND, "--parent", &std::process::id().to_string(), "--addresses", addresses]);
        command.args(["--lease-ms", &lease.as_millis().to_string()]);
        command.args(paths.iter().flat_map(|path| ["--path", path]));
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start a client")?;
        let output = child.stdout.take().context("its output is a pipe")?;
        let cacher = Self(child);
        let output = tokio::process::ChildStdout::from_std(output).context("cannot read from a client")?;
        let line = BufReader::new(output).lines().next_line().await.context("cannot read from a client")?;
        ensure!(line.as_deref() == Some(READY), "a client ended before it had anything in its cache");
        Ok(cacher)
    }

    /// Kills it.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.0.kill().context("cannot kill a client")?;
        self.0.wait().context("cannot wait for a client's end").map(drop)
    }
}

impl Drop for Cacher {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
