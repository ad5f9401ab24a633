//! The cell of a scenario of sessions: replicas on hosts of their own, and who is master.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use holdfast::{Cell, Role, WriteOptions};
use nix::sys::signal::Signal;
use tokio::time::Instant;

use crate::torture::net::{Host, Net};
use crate::torture::parts::{self, Part};

const PEER_PORT: u16 = 7_000;
const CLIENT_PORT: u16 = 7_001;
/// How long things may take that should take a second.
const PATIENCE: Duration = Duration::from_secs(60);

/// A replica.
struct Replica {
    id: u64,
    host: Host,
    arguments: Vec<String>,
    log: PathBuf,
    /// While it runs.
    part: Option<Part>,
}

/// The cell.
pub(super) struct Cluster {
    replicas: Vec<Replica>,
    /// As the rig sees it.
    pub(super) cell: Cell,
}

impl Cluster {
    /// Starts a cell of so many replicas, and waits until it serves.
    pub(super) async fn start(net: &mut Net, replicas: u8, dir: &Path) -> anyhow::Result<Self> {
        let hosts = (1..=u64::from(replicas)).map(|id| anyhow::Ok((id, net.add_host()?)));
        let hosts = hosts.collect::<anyhow::Result<Vec<_>>>()?;
        let at = |host, port| format!("{}:{port}", net.address(host));
        let member =
            |(id, host): &(u64, Host)| format!("{id}={}/{}", at(*host, PEER_PORT), at(*host, CLIENT_PORT));
        let members: Vec<String> = hosts.iter().map(member).collect();
        let cell = Cell::connect(hosts.iter().map(|(_, host)| at(*host, CLIENT_PORT)))?;
        let describe = |(id, host): (u64, Host)| Replica {
            id,
            host,
            arguments: vec![
                "run".to_owned(),
                "--cell=torture".to_owned(),
                format!("--replica={id}"),
                format!("--data-dir={}", dir.join(format!("replica-{id}")).display()),
                format!("--peer-listen={}", at(host, PEER_PORT)),
                format!("--client-listen={}", at(host, CLIENT_PORT)),
                format!("--members={}", members.join(",")),
                "--log-format=text".to_owned(),
            ],
            log: dir.join(format!("replica-{id}.log")),
            part: None,
        };
        let replicas: Vec<Replica> = hosts.iter().copied().map(describe).collect();
        let mut cluster = Self { replicas, cell };
        for id in 1..=cluster.replicas.len() as u64 {
            cluster.start_replica(net, id)?;
        }
        cluster.master().await?;
        Ok(cluster)
    }

    /// Where clients find it.
    pub(super) fn addresses(&self) -> String {
        self.cell.addresses().join(",")
    }

    /// Starts a replica that does not run.
    pub(super) fn start_replica(&mut self, net: &Net, id: u64) -> anyhow::Result<()> {
        let replica = self.replica(id)?;
        let arguments = replica.arguments.clone();
        replica.part = Some(Part::start(net, replica.host, parts::REPLICA, arguments, &replica.log)?);
        Ok(())
    }

    /// Kills a replica, by SIGKILL, and waits until it is gone.
    pub(super) async fn kill(&mut self, id: u64) -> anyhow::Result<()> {
        let mut part = self.replica(id)?.part.take().context("it does not run")?;
        part.signal(Signal::SIGKILL);
        part.end().await?;
        Ok(())
    }

    /// On which host a replica is.
    pub(super) fn host(&self, id: u64) -> anyhow::Result<Host> {
        let replica = self.replicas.iter().find(|replica| replica.id == id);
        Ok(replica.context("there is no such replica")?.host)
    }

    /// The hosts of all replicas.
    pub(super) fn hosts(&self) -> Vec<Host> {
        self.replicas.iter().map(|replica| replica.host).collect()
    }

    /// How many KiB of memory each replica has that runs.
    pub(super) fn memory_kib(&self) -> Vec<u64> {
        let ids = self.replicas.iter().filter_map(|replica| replica.part.as_ref()?.id());
        ids.filter_map(resident_kib).collect()
    }

    /// Waits until a replica is master, and says which, and in which term.
    pub(super) async fn master(&self) -> anyhow::Result<(u64, u64)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut masters = Vec::new();
            for address in self.cell.addresses() {
                let status =
                    tokio::time::timeout(Duration::from_secs(1), self.cell.status_of(&address)).await;
                let status = status.ok().and_then(Result::ok);
                masters.extend(status.filter(|status| status.role() == Role::Master));
            }
            if let Some(status) = masters.iter().max_by_key(|status| status.term) {
                return Ok((status.replica, status.term));
            }
            anyhow::ensure!(Instant::now() < deadline, "no replica is master within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Writes a number to every watched file.
    pub(super) async fn write(&self, files: usize, number: u64) -> anyhow::Result<()> {
        for file in 0..files {
            let path = format!("/watched-{file}");
            let deadline = Instant::now() + PATIENCE;
            // Not exactly once, and need not be: the number is what counts.
            while let Err(error) =
                self.cell.set_contents(&path, number.to_string(), WriteOptions::new().create()).await
            {
                anyhow::ensure!(Instant::now() < deadline, "{path} cannot be written: {error}");
            }
        }
        Ok(())
    }

    fn replica(&mut self, id: u64) -> anyhow::Result<&mut Replica> {
        self.replicas.iter_mut().find(|replica| replica.id == id).context("there is no such replica")
    }
}

/// The memory of a process that is its own, in KiB.
fn resident_kib(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}
