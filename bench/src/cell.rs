//! The cell that is measured: three replicas as processes on loopback, or one that was there before.
//!
//! Owns the processes and their data. Invariant: when a [`LocalCell`] is dropped, its processes and its directory
//! are gone; if this program is killed, the processes are gone too (`replica`).

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use holdfast::{Cell, CellStatus, Role};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::replica;
use crate::usage::Usage;

const NAME: &str = "bench";
const REPLICAS: usize = 3;
/// How long a cell may take until all its replicas are up to date.
const READY_MAX: Duration = Duration::from_secs(30);
/// How often to look whether they are.
const READY_POLL: Duration = Duration::from_millis(20);
/// So much of a dead replica's log is shown.
const LOG_LINES_SHOWN: usize = 12;

/// What is measured.
pub(crate) enum Target {
    /// A cell of our own.
    Local(LocalCell),
    /// Somebody else's, by its addresses.
    Foreign(String),
}

impl Target {
    /// The addresses for clients, separated by commas.
    pub(crate) fn addresses(&self) -> String {
        match self {
            Self::Local(cell) => cell.addresses(),
            Self::Foreign(addresses) => addresses.clone(),
        }
    }

    /// What each of the cell's processes has consumed so far, as far as we can know.
    pub(crate) fn usages(&self) -> Result<Vec<Usage>> {
        match self {
            Self::Local(cell) => cell.replicas.iter().map(|replica| Usage::of(replica.child.id())).collect(),
            Self::Foreign(_) => Ok(Vec::new()),
        }
    }

    /// Which of [`Target::usages`] is the master's.
    pub(crate) async fn master_index(&self) -> Result<Option<usize>> {
        match self {
            Self::Local(cell) => cell.master_index().await.map(Some),
            Self::Foreign(_) => Ok(None),
        }
    }

    /// Fails if a replica has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self {
            Self::Local(cell) => cell.check(),
            Self::Foreign(_) => Ok(()),
        }
    }
}

/// Three replicas of our own.
pub(crate) struct LocalCell {
    // Before the directory, so that nobody writes any more when that goes.
    replicas: Vec<ReplicaProcess>,
    client: Cell,
    dir: TempDir,
}

struct ReplicaProcess {
    child: Child,
    arguments: Vec<String>,
    client_address: String,
}

impl Drop for ReplicaProcess {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl LocalCell {
    /// Starts the replicas, and waits until all of them are up to date.
    pub(crate) async fn start() -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("holdfast-bench-").tempdir();
        let dir = dir.context("cannot make a directory for the replicas' data")?;
        let ports = free_ports(2 * REPLICAS)?;
        let address = |port: &u16| format!("127.0.0.1:{port}");
        let addresses: Vec<_> = ports.chunks(2).map(|pair| (address(&pair[0]), address(&pair[1]))).collect();
        let members: Vec<_> =
            addresses.iter().zip(1..).map(|((peer, client), id)| format!("{id}={peer}/{client}")).collect();
        let members = members.join(",");
        let mut replicas = Vec::with_capacity(REPLICAS);
        for ((peer, client_address), id) in addresses.into_iter().zip(1..) {
            let arguments = arguments(id, dir.path(), &peer, &client_address, &members);
            let child = spawn(&arguments, &log_path(dir.path(), id))?;
            replicas.push(ReplicaProcess { child, arguments, client_address });
        }
        let client = Cell::connect(replicas.iter().map(|replica| &replica.client_address))?;
        let mut cell = Self { replicas, client, dir };
        cell.wait_until_ready().await?;
        Ok(cell)
    }

    /// Kills the master's process, and returns when.
    pub(crate) async fn kill_master(&mut self) -> Result<(usize, Instant)> {
        let index = self.master_index().await?;
        let child = &mut self.replicas[index].child;
        let killed = Instant::now();
        child.kill().context("cannot kill the master")?;
        child.wait().context("cannot wait for the master's end")?;
        Ok((index, killed))
    }

    /// Starts a replica again, on its own data, and waits until all are up to date.
    pub(crate) async fn restart(&mut self, index: usize) -> Result<()> {
        let log = log_path(self.dir.path(), index + 1);
        let replica = &mut self.replicas[index];
        replica.child = spawn(&replica.arguments, &log)?;
        self.wait_until_ready().await
    }

    /// The term of the cell's master, which is asked for until there is one.
    pub(crate) async fn term(&self) -> Result<u64> {
        Ok(self.client.status().await.context("the cell does not say who is master")?.term)
    }

    /// The ids of the replicas' processes.
    pub(crate) fn processes(&self) -> Vec<u32> {
        self.replicas.iter().map(|replica| replica.child.id()).collect()
    }

    pub(crate) fn addresses(&self) -> String {
        let addresses: Vec<_> = self.replicas.iter().map(|replica| replica.client_address.as_str()).collect();
        addresses.join(",")
    }

    async fn master_index(&self) -> Result<usize> {
        let status = self.client.status().await.context("the cell does not say who is master")?;
        let id = usize::try_from(status.replica).unwrap_or(0);
        if status.role() != Role::Master || !(1..=self.replicas.len()).contains(&id) {
            bail!("no replica is master");
        }
        Ok(id - 1)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + READY_MAX;
        loop {
            self.check()?;
            if self.client.status().await.is_ok_and(|status| is_ready(&status)) {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!("the cell's replicas were not up to date within {READY_MAX:?}");
            }
            sleep(READY_POLL).await;
        }
    }

    /// Fails if a replica has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        for (index, replica) in self.replicas.iter_mut().enumerate() {
            if let Some(status) = replica.child.try_wait().context("cannot watch a replica")? {
                return Err(death(index + 1, status, self.dir.path()));
            }
        }
        Ok(())
    }
}

/// A master serves, and everybody has what it has.
fn is_ready(status: &CellStatus) -> bool {
    let up_to_date = |matched_index| matched_index >= status.commit_index;
    status.role() == Role::Master
        && status.members.len() == REPLICAS
        && status.members.iter().all(|member| {
            member.id == status.replica || (member.reachable && up_to_date(member.matched_index))
        })
}

fn arguments(id: usize, dir: &Path, peer: &str, client: &str, members: &str) -> Vec<String> {
    let data_dir = dir.join(format!("replica-{id}"));
    let pairs = [
        ("--parent", std::process::id().to_string()),
        ("--cell", NAME.to_owned()),
        ("--replica", id.to_string()),
        ("--data-dir", data_dir.display().to_string()),
        ("--peer-listen", peer.to_owned()),
        ("--client-listen", client.to_owned()),
        ("--members", members.to_owned()),
        ("--log-format", "text".to_owned()),
    ];
    let flags = pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]);
    std::iter::once(replica::COMMAND.to_owned()).chain(flags).collect()
}

/// Must be called on the main thread: the replica dies with the thread that starts it.
fn spawn(arguments: &[String], log: &Path) -> Result<Child> {
    let program = std::env::current_exe().context("cannot find the program itself")?;
    let log = File::options().create(true).append(true).open(log).context("cannot write a replica's log")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.spawn().context("cannot start a replica")
}

fn log_path(dir: &Path, id: usize) -> std::path::PathBuf {
    dir.join(format!("replica-{id}.log"))
}

/// The directory goes with the error, so what the replica had to say goes into it.
fn death(id: usize, status: ExitStatus, dir: &Path) -> anyhow::Error {
    let log = fs::read_to_string(log_path(dir, id)).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    let last = lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n");
    anyhow::anyhow!("replica {id} ended by itself ({status}); the last it said:\n{last}")
}

/// Ports that nobody listens on now. Somebody else may take one before the replica does, which then says so.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: std::io::Result<Vec<_>> =
        std::iter::repeat_with(|| TcpListener::bind("127.0.0.1:0")).take(count).collect();
    let ports: std::io::Result<Vec<_>> = listeners
        .context("no ports are free")?
        .iter()
        .map(|listener| Ok(listener.local_addr()?.port()))
        .collect();
    ports.context("no ports are free")
}
