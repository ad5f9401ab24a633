//! The cell of a run: replicas as processes, each on a host of its own behind a relay.
//!
//! Owns what is running and what it is expected to do; decides nothing about faults. Invariant: a replica that ends
//! although nobody wanted it to is noticed ([`Cell::fallen`]).

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context, ensure};
use holdfast::{CellStatus, Role};
use holdfast_sim::Invariant;
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, timeout};

use super::agreement;
use super::disk::SmallDisk;
use super::net::{Host, Net};
use super::parts::{Part, REPLICA};
use super::relay::Relay;
use super::unmet::Unmet;

/// Where everybody finds a replica: its relays are there.
const CLIENT_PORT: u16 = 7101;
const PEER_PORT: u16 = 7102;
/// Where the replica itself is, on the same host.
const CLIENT_PORT_INSIDE: u16 = 7201;
const PEER_PORT_INSIDE: u16 = 7202;

/// So long a replica may take to answer a question about its state.
const STATUS_WAIT: Duration = Duration::from_secs(1);

/// And so long about a hash of all its state, which is small here.
const HASH_WAIT: Duration = Duration::from_secs(5);

/// The flags that all replicas of a run have. Much goes through snapshots, so that they matter.
const FLAGS: [&str; 4] =
    ["--lease-floor-ms=1000", "--snapshot-every-bytes=256KiB", "--log-tail-bytes=64KiB", "--log-format=text"];

/// A replica.
#[derive(Debug)]
pub struct Replica {
    /// Its raft id.
    pub id: u64,
    /// Where it is.
    pub host: Host,
    /// What is between it and everybody: for clients, and for other replicas.
    pub relays: [Relay; 2],
    /// Its disk, if that is a small one of its own.
    pub disk: Option<SmallDisk>,
    dir: PathBuf,
    log: PathBuf,
    arguments: Vec<String>,
    part: Option<Part>,
}

/// The cell. Its processes are killed when it is dropped.
#[derive(Debug)]
pub struct Cell {
    /// The replicas that are members of it.
    pub replicas: BTreeMap<u64, Replica>,
    admin: holdfast::Cell,
    dir: PathBuf,
    /// Hosts for replicas that do not exist yet.
    spare: Vec<Host>,
}

impl Cell {
    /// Starts a cell of so many replicas, with its data in `dir`. The last one gets a small disk of its own if that is
    /// wished for and permitted. `spares` more can be added later.
    ///
    /// # Errors
    ///
    /// If something cannot be made.
    pub fn start(net: &mut Net, dir: &Path, replicas: u8, spares: u8, disk: bool) -> anyhow::Result<Self> {
        let hosts = (0..replicas + spares).map(|_| net.add_host()).collect::<anyhow::Result<Vec<_>>>()?;
        let addresses =
            hosts.iter().map(|host| SocketAddr::from((net.address(*host), CLIENT_PORT)).to_string());
        let admin = holdfast::Cell::connect(addresses)?;
        let spare = hosts[usize::from(replicas)..].to_vec();
        let mut cell = Self { replicas: BTreeMap::new(), admin, dir: dir.to_owned(), spare };
        let founding: Vec<(u64, Host)> = (1..).zip(hosts).take(usize::from(replicas)).collect();
        let member = |(id, host): &(u64, Host)| {
            let at = |port| SocketAddr::from((net.address(*host), port));
            format!("{id}={}/{}", at(PEER_PORT), at(CLIENT_PORT))
        };
        let members: Vec<String> = founding.iter().map(member).collect();
        for (id, host) in founding {
            let disk = if disk && id == u64::from(replicas) { SmallDisk::mount(&cell.dir, id) } else { None };
            let mut replica = Replica::new(net, &cell.dir, id, host, disk)?;
            replica.arguments.push(format!("--members={}", members.join(",")));
            replica.start(net)?;
            cell.replicas.insert(id, replica);
        }
        Ok(cell)
    }

    /// The cell as the rig sees it.
    #[must_use]
    pub fn admin(&self) -> &holdfast::Cell {
        &self.admin
    }

    /// Where clients look for it: where replicas are, or will be.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.admin.addresses()
    }

    /// What a replica says of itself, if it answers soon.
    pub async fn status(&self, net: &Net, id: u64) -> Option<CellStatus> {
        let replica = self.replicas.get(&id)?;
        let address = replica.client_address(net);
        timeout(STATUS_WAIT, self.admin.status_of(&address)).await.ok()?.ok()
    }

    /// The replica that is master, if one answers: that of the latest term, should an older one not know better.
    pub async fn master(&self, net: &Net) -> Option<u64> {
        let mut newest: Option<CellStatus> = None;
        for id in self.replicas.keys() {
            let status = self.status(net, *id).await.filter(|status| status.role() == Role::Master);
            newest = status.into_iter().chain(newest).max_by_key(|status| status.term);
        }
        newest.map(|status| status.replica)
    }

    /// Waits until every replica answers and knows a master.
    ///
    /// # Errors
    ///
    /// If that takes longer than `limit`.
    pub async fn serving(&self, net: &Net, limit: Duration) -> anyhow::Result<()> {
        for id in self.replicas.keys() {
            until(limit, &format!("replica {id} serves"), async || {
                self.status(net, *id).await.filter(|status| status.master != 0).map(drop)
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until all replicas have applied the same entries, and says what state that has left them in, by a hash of
    /// all of it: each state once, and with it who has it. There should be one.
    ///
    /// # Errors
    ///
    /// If that takes longer than `limit`, or one says nothing of its state, with what they said last.
    pub async fn agreed(&self, net: &Net, limit: Duration) -> anyhow::Result<Vec<String>> {
        let mut last = String::new();
        let statuses = until(limit, "all replicas have applied the same and hash it", async || {
            let mut statuses = Vec::new();
            for replica in self.replicas.values() {
                let address = replica.client_address(net);
                let asked = timeout(HASH_WAIT, self.admin.status_with_hash_of(&address)).await;
                statuses.push(asked.ok().and_then(Result::ok));
            }
            let told = |status: &CellStatus| (status.replica, status.applied_index, status.state_hash);
            last =
                format!("{:?}", statuses.iter().map(|status| status.as_ref().map(told)).collect::<Vec<_>>());
            agreement::comparable(statuses)
        })
        .await
        .map_err(|error| error.context(last))?;
        Ok(agreement::distinct(&statuses))
    }

    /// Replicas that have ended although nobody wanted them to, and how. Each is named once, and is not running then.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn fallen(&mut self) -> anyhow::Result<Vec<String>> {
        let mut fallen = Vec::new();
        for replica in self.replicas.values_mut() {
            if let Some(part) = &mut replica.part
                && let Some(status) = part.ended()?
            {
                replica.part = None;
                fallen.push(format!("replica {} ended, {status}: {}", replica.id, replica.last_words()));
            }
        }
        Ok(fallen)
    }

    /// Whether another replica can be added.
    #[must_use]
    pub fn has_spare(&self) -> bool {
        !self.spare.is_empty()
    }

    /// Puts a new replica in the place of one that is down for good, as an operator would.
    ///
    /// # Errors
    ///
    /// If it does not come to that within `limit`.
    pub async fn replace(&mut self, net: &Net, gone: u64, limit: Duration) -> anyhow::Result<u64> {
        let host = self.spare.pop().context("no host is left for another replica")?;
        let id = self.replicas.keys().max().copied().unwrap_or_default() + 1;
        let mut replica = Replica::new(net, &self.dir, id, host, None)?;
        replica.arguments.push("--join=true".to_owned());
        replica.start(net)?;
        let (peer, client) = (replica.peer_address(net), replica.client_address(net));
        self.replicas.insert(id, replica);
        let Self { admin, .. } = &*self;
        // A call whose reply was lost may have done what the next one is refused for.
        let members = async || admin.status().await.ok().map(|status| status.members);
        until(limit, "the new replica is added", async || {
            let added = admin.add_member(id, &peer, &client).await.is_ok();
            (added || members().await?.iter().any(|member| member.id == id)).then_some(())
        })
        .await?;
        until(limit, "the new replica votes", async || {
            let promoted = admin.promote_member(id).await.is_ok();
            (promoted || members().await?.iter().any(|member| member.id == id && !member.learner))
                .then_some(())
        })
        .await?;
        until(limit, "the old replica is removed", async || {
            let removed = admin.remove_member(gone).await.is_ok();
            (removed || members().await?.iter().all(|member| member.id != gone)).then_some(())
        })
        .await?;
        self.replicas.remove(&gone);
        Ok(id)
    }
}

impl Replica {
    fn new(net: &Net, dir: &Path, id: u64, host: Host, disk: Option<SmallDisk>) -> anyhow::Result<Self> {
        let at = |port| SocketAddr::from((net.address(host), port));
        let relay = |outside, inside| Relay::start(net, host, at(outside), at(inside));
        let relays = [relay(CLIENT_PORT, CLIENT_PORT_INSIDE)?, relay(PEER_PORT, PEER_PORT_INSIDE)?];
        let log = dir.join(format!("replica-{id}.log"));
        let dir = disk.as_ref().map_or(dir, SmallDisk::path).join(format!("replica-{id}"));
        let mut arguments: Vec<String> = vec!["run".to_owned(), "--cell=torture".to_owned()];
        arguments.extend(FLAGS.map(str::to_owned));
        arguments.extend([
            format!("--replica={id}"),
            format!("--data-dir={}", dir.display()),
            format!("--client-listen={}", at(CLIENT_PORT_INSIDE)),
            format!("--client-advertise={}", at(CLIENT_PORT)),
            format!("--peer-listen={}", at(PEER_PORT_INSIDE)),
            format!("--peer-advertise={}", at(PEER_PORT)),
        ]);
        Ok(Self { id, host, relays, disk, dir, log, arguments, part: None })
    }

    fn client_address(&self, net: &Net) -> String {
        SocketAddr::from((net.address(self.host), CLIENT_PORT)).to_string()
    }

    fn peer_address(&self, net: &Net) -> String {
        SocketAddr::from((net.address(self.host), PEER_PORT)).to_string()
    }

    /// Starts its process, if it is not running.
    ///
    /// # Errors
    ///
    /// If it cannot be started.
    pub fn start(&mut self, net: &Net) -> anyhow::Result<()> {
        if self.part.is_none() {
            self.part = Some(Part::start(net, self.host, REPLICA, self.arguments.clone(), &self.log)?);
        }
        Ok(())
    }

    /// Whether its process is there, as far as is known.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.part.is_some()
    }

    /// Its process, while it runs: for a look at its memory.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.part.as_ref()?.id()
    }

    /// Sends it a signal, if it is running.
    pub fn signal(&self, signal: Signal) {
        if let Some(part) = &self.part {
            part.signal(signal);
        }
    }

    /// Sends it a signal, and waits until it has ended, if it is running.
    ///
    /// # Errors
    ///
    /// If it has not ended after `limit`, or has ended in another way than by `expected`.
    pub async fn stop(&mut self, signal: Signal, limit: Duration) -> anyhow::Result<()> {
        self.signal(signal);
        let Some(status) = self.ended(limit).await? else { return Ok(()) };
        let expected = match signal {
            Signal::SIGKILL => status.signal() == Some(Signal::SIGKILL as i32),
            _ => status.success(),
        };
        ensure!(
            expected,
            Unmet::new(
                Invariant::Survival,
                format!("replica {} ended by {signal}, {status}: {}", self.id, self.last_words())
            )
        );
        Ok(())
    }

    /// Waits until it has ended by itself, and says how; `None` if it was not running.
    ///
    /// # Errors
    ///
    /// If it has not ended after `limit`.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let Some(part) = &mut self.part else { return Ok(None) };
        let Ok(ended) = timeout(limit, part.end()).await else {
            let what = format!("replica {} has not ended after {limit:?}", self.id);
            return Err(Unmet::new(Invariant::Progress, what).into());
        };
        self.part = None;
        ended.map(Some)
    }

    /// Deletes all its data. It must not be running.
    ///
    /// # Errors
    ///
    /// If they cannot be deleted.
    pub fn wipe(&self) -> anyhow::Result<()> {
        fs::remove_dir_all(&self.dir).context("cannot wipe a replica")
    }

    /// What it has said last: the error that it ended with.
    #[must_use]
    pub fn last_words(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        log.lines().last().unwrap_or_default().to_owned()
    }
}

/// Asks `probe` over and over until it gives something.
///
/// # Errors
///
/// If it gives nothing within `limit`; `what` says what was waited for.
pub async fn until<T>(
    limit: Duration,
    what: &str,
    mut probe: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = probe().await {
            return Ok(found);
        }
        ensure!(
            Instant::now() < deadline,
            Unmet::new(Invariant::Progress, format!("waited {limit:?} in vain: {what}"))
        );
        sleep(Duration::from_millis(50)).await;
    }
}
