//! A cell of three replicas, each a process of its own on this machine.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use holdfast::{Cell, CellStatus, Role};
use holdfast_server::config::{Config, ConfigFlags, LogFormat, LogLevel};

use crate::candidate::LEASE;
use crate::process::{Parent, Process};
use crate::timeline::Timeline;
use crate::wait;

/// What the cell is called.
const NAME: &str = "show";
const REPLICAS: u64 = 3;
/// A replica that has so few entries to go counts as caught up, in a log that grows all the time.
const LAG_MAX: u64 = 10;

/// The hidden subcommand that makes this program a replica.
pub(crate) const ROLE: &str = "replica";

/// The replicas.
#[derive(Debug)]
pub(crate) struct Replicas {
    timeline: Timeline,
    /// Those that run, by id.
    running: BTreeMap<u64, Process>,
    /// Where each is to be found: peer and client address.
    places: BTreeMap<u64, (String, String)>,
    dir: PathBuf,
    /// A client of theirs.
    pub(crate) cell: Cell,
}

/// What makes a process a replica.
#[derive(Debug, clap::Args)]
pub(crate) struct Replica {
    #[command(flatten)]
    parent: Parent,
    #[command(flatten)]
    config: ConfigFlags,
}

impl Replica {
    /// Serves until it is killed.
    pub(crate) fn run(&self) -> Result<()> {
        self.parent.tie()?;
        let config = Config::load(&self.config, [])?;
        let (logger, _guard) = holdfast_server::logging::start(LogFormat::Text, LogLevel::Info);
        Ok(holdfast_server::run_replica_blocking(config, logger)?)
    }
}

impl Replicas {
    /// Starts all replicas, with their data and logs in `dir`, and waits until they have a master.
    pub(crate) async fn start(timeline: Timeline, dir: &Path) -> Result<Self> {
        let places = free_places()?;
        let cell = Cell::connect(places.values().map(|(_, client)| client))?;
        let mut replicas = Self { timeline, running: BTreeMap::new(), places, dir: dir.to_owned(), cell };
        for id in 1..=REPLICAS {
            replicas.start_one(id)?;
        }
        let master = replicas.master().await?;
        timeline.says("cell", format!("replicas 1, 2 and 3 are up; replica {master} is master"));
        Ok(replicas)
    }

    /// Starts a replica that does not run.
    pub(crate) fn start_one(&mut self, id: u64) -> Result<()> {
        let (peer, client) = &self.places[&id];
        let members = self.places.iter().map(|(id, (peer, client))| format!("{id}={peer}/{client}"));
        let members: Vec<String> = members.collect();
        let data_dir = self.dir.join(format!("replica-{id}"));
        let flags = [
            ("cell", NAME.to_owned()),
            ("replica", id.to_string()),
            ("data-dir", data_dir.to_str().context("a directory that is not UTF-8")?.to_owned()),
            ("peer-listen", peer.clone()),
            ("client-listen", client.clone()),
            ("members", members.join(",")),
            // By default a new master gives every session 5 s, which would only make the last act longer.
            ("lease-floor-ms", LEASE.as_millis().to_string()),
        ];
        let arguments = flags.map(|(flag, value)| format!("--{flag}={value}"));
        let log = self.dir.join(format!("replica-{id}.log"));
        let log = OpenOptions::new().create(true).append(true).open(log).context("no log file")?;
        let process = Process::start(self.timeline, &format!("replica {id}"), ROLE, &arguments, log)?;
        self.running.insert(id, process);
        Ok(())
    }

    /// Kills a replica.
    pub(crate) async fn kill(&mut self, id: u64) -> Result<()> {
        self.running.remove(&id).context("it does not run")?.kill().await
    }

    /// Where clients reach the replicas, as one text.
    pub(crate) fn addresses(&self) -> String {
        let addresses: Vec<&str> = self.places.values().map(|(_, client)| client.as_str()).collect();
        addresses.join(",")
    }

    /// Waits for a master, and says which replica it is.
    pub(crate) async fn master(&self) -> Result<u64> {
        let cell = &self.cell;
        wait::until("the cell has a master", async || {
            let status = cell.status().await.ok()?;
            (status.role() == Role::Master).then_some(status.replica)
        })
        .await
    }

    /// Waits until the master finds a replica caught up.
    pub(crate) async fn caught_up(&self, id: u64) -> Result<()> {
        let cell = &self.cell;
        wait::until("the replica has caught up", async || {
            let status = cell.status().await.ok()?;
            (status.role() == Role::Master && is_caught_up(&status, id)).then_some(())
        })
        .await
    }
}

fn is_caught_up(status: &CellStatus, id: u64) -> bool {
    let member = status.members.iter().find(|member| member.id == id);
    member.is_some_and(|member| member.reachable && member.matched_index + LAG_MAX >= status.commit_index)
}

/// Ports that are free now, two for each replica.
fn free_places() -> Result<BTreeMap<u64, (String, String)>> {
    // All are bound at the same time, so that no port is given twice.
    let mut bound = Vec::new();
    let mut places = BTreeMap::new();
    for id in 1..=REPLICAS {
        let mut place = || -> Result<String> {
            let listener = TcpListener::bind("127.0.0.1:0").context("no free port")?;
            let address = listener.local_addr()?.to_string();
            bound.push(listener);
            Ok(address)
        };
        places.insert(id, (place()?, place()?));
    }
    Ok(places)
}
