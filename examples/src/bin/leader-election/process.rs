//! Replicas and candidates as processes, so that killing one is the real thing.
//!
//! Each is this very program with a hidden subcommand. None outlives the program: the kernel kills it when its
//! parent dies, and dropping a [`Process`] kills it too.

use std::fs::File;
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use nix::sys::prctl;
use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, getpid, getppid};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::timeline::Timeline;

/// One process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pid: Pid,
}

/// The argument that tells a process whose child it is to be.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Parent {
    /// The process that started this one.
    #[arg(long, value_name = "PID")]
    parent: i32,
}

impl Process {
    /// Starts this program as `role` with `arguments`. Its log, or its complaints, go to `log`; the lines that it
    /// prints go to the timeline.
    pub(crate) fn start(
        timeline: Timeline,
        name: &str,
        role: &str,
        arguments: &[String],
        log: File,
    ) -> Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg(role)
            .args(["--parent", &getpid().to_string()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).context("it ended at once")?;
        let stdout = child.stdout.take().context("it has no standard output")?;
        let name = name.to_owned();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                timeline.says(&name, line);
            }
        });
        Ok(Self { child, pid: Pid::from_raw(pid) })
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<()> {
        // Its id is not another's: it is reaped only by `kill`, which takes it away.
        signal::kill(self.pid, signal).with_context(|| format!("cannot send {signal}"))
    }

    /// Kills it with SIGKILL, and waits until it is gone.
    pub(crate) async fn kill(mut self) -> Result<()> {
        self.child.kill().await.context("cannot kill it")
    }
}

impl Parent {
    /// Ties this process's life to its parent's.
    pub(crate) fn tie(self) -> Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie this process to its parent")?;
        ensure!(getppid() == Pid::from_raw(self.parent), "the parent is gone already");
        Ok(())
    }
}
