//! One greedy client after another, of each kind, beside honest sessions with locks.
//!
//! Nothing else goes wrong. So no honest session ends or comes into jeopardy, no master changes, the honest clients'
//! writes and locks go on, and no replica takes much more memory than what it is given to keep.
//!
//! - `beside`: what was seen beside one kind, and the judgement
//!
//! The honest sessions live through all kinds, in one cell. What a kind took stays when its client is killed, until the
//! leases of its sessions are over: the next kind begins while that is so.

mod beside;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use holdfast_greedy::{GreedyFlags, Kind, Status, last_status};
use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep, sleep_until};

use super::cell::Cluster;
use super::crowd::ROUND;
use super::crowds::{Crowds, Sum};
use super::{BROKEN, HELD, Place, length, network, say};
use crate::torture::net::{Host, Net};
use crate::torture::parts::{self, Part};
use crate::torture::scenario::Options;
use beside::{Beside, Memory, Standing, Writes};

/// Honest sessions, each with a connection of its own.
const SESSIONS: usize = 24;
/// So many of them share a lock.
const GROUP: usize = 3;
/// Their leases: shorter than by default, so that a master that stands still is noticed.
const LEASE_MS: u32 = 5_000;
/// The rig writes so often, once the write before is done.
const WRITE_EVERY: Duration = Duration::from_millis(200);
/// With each so-manieth write the locks are passed on.
const WRITES_PER_ROUND: u64 = 5;
/// How often memory is looked at, and the greedy client.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Opening the sessions takes no longer, and being told of the last change when the greedy client is gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// A greedy client is killed when its time is over, and attacks by itself for so much longer at most.
const SECONDS_MORE: u32 = 600;

/// Runs it.
///
/// # Errors
///
/// If it cannot be run.
pub(in crate::torture) async fn greedy(options: &Options) -> anyhow::Result<u8> {
    let net = network(options, false)?;
    let place = Place::new(options)?;
    let mut rig = Rig::begin(net, options, place.dir()).await?;
    let kinds = options.greedy_kinds();
    let each = length(options).div_f64(kinds.len() as f64);
    let mut wrong = Vec::new();
    for kind in &kinds {
        let beside = rig.beside(*kind, options.greedy_percent(), each).await?;
        say(&beside.to_string());
        wrong.extend(beside.wrong());
        if !beside.goes_on() {
            say("the rest is not tried: it would say nothing of the other kinds");
            break;
        }
    }
    drop(rig);
    let verdict = if wrong.is_empty() {
        say(&format!("held: nobody was harmed by any of {} kinds of greedy clients", kinds.len()));
        HELD
    } else {
        say(&format!("BROKEN: {}", wrong.join("; ")));
        BROKEN
    };
    Ok(place.leave(verdict))
}

/// A run.
struct Rig {
    net: Net,
    dir: PathBuf,
    cluster: Cluster,
    crowds: Crowds,
    /// Where the greedy clients are.
    host: Host,
    /// The number that was last written to the watched file.
    number: u64,
}

impl Rig {
    async fn begin(mut net: Net, options: &Options, dir: &Path) -> anyhow::Result<Self> {
        let cluster = Cluster::start(&mut net, options.replicas, dir).await?;
        cluster.write(1, 1).await?;
        let mut crowds = Crowds::default();
        let flags = format!(
            "--sessions {SESSIONS} --cells {SESSIONS} --group {GROUP} --ask-every-ms 500 --lease-ms {LEASE_MS}"
        );
        let flags: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
        let honest = net.add_host()?;
        crowds.start(&net, honest, &cluster, dir, &flags)?;
        let host = net.add_host()?;
        let opened = crowds.wait("every session is open", PATIENCE, Sum::is_safe).await?;
        say(&format!(
            "{} sessions of {LEASE_MS} ms; a greedy client of each kind comes and goes",
            opened.sessions
        ));
        Ok(Self { net, dir: dir.to_owned(), cluster, crowds, host, number: 1 })
    }

    /// Lets a client of one kind attack for so long once it is prepared, and tells what came of it.
    async fn beside(&mut self, kind: Kind, percent: u32, time: Duration) -> anyhow::Result<Beside> {
        let before = self.settled().await?;
        let mut memory = Memory::new(self.cluster.memory_kib());
        let mut writes = Writes::new(Instant::now());
        let mut client = GreedyClient::start(self, kind, percent, time)?;
        let got = tokio::select! {
            never = write_on(&self.cluster, &mut self.number, &mut writes) => match never {},
            got = client.attack(time, &self.cluster, &mut memory) => got?,
        };
        writes.end(Instant::now());
        client.end().await?;
        // What does not come to rest now is the greedy client's doing, and no failure of the rig.
        let after = self.settled().await.map_err(|error| format!("{error:#}"));
        Ok(Beside { kind, before, after, writes, memory, got })
    }

    /// Passes all locks on, and waits until everybody is safe, has seen that, and has its lock.
    async fn settled(&mut self) -> anyhow::Result<Standing> {
        self.number = next_round(self.number);
        let number = self.number;
        self.cluster.write(1, number).await?;
        let at_rest = self.crowds.wait("all are safe and have seen the last change", PATIENCE, |sum| {
            sum.wrong().is_some()
                || sum.is_safe() && sum.seen_min >= number && sum.held == SESSIONS.div_ceil(GROUP)
        });
        let sum = at_rest.await?;
        let (_, term) = self.cluster.master().await?;
        Ok(Standing { sum, term })
    }
}

/// The number by which everybody who holds a lock knows that it is to be passed on.
fn next_round(number: u64) -> u64 {
    (number / ROUND + 1) * ROUND
}

/// Writes to the watched file now and then, and has the locks passed on.
async fn write_on(cluster: &Cluster, number: &mut u64, writes: &mut Writes) -> Infallible {
    loop {
        let next = Instant::now() + WRITE_EVERY;
        *number =
            if writes.taken.is_multiple_of(WRITES_PER_ROUND) { next_round(*number) } else { *number + 1 };
        // One that is not taken for long is seen in the time from one to the next.
        if cluster.write(1, *number).await.is_ok() {
            writes.take(Instant::now());
        }
        sleep_until(next).await;
    }
}

/// The process of a greedy client. Killed when dropped.
struct GreedyClient {
    part: Part,
    log: PathBuf,
}

impl GreedyClient {
    fn start(rig: &Rig, kind: Kind, percent: u32, time: Duration) -> anyhow::Result<Self> {
        let flags = GreedyFlags {
            addresses: rig.cluster.addresses(),
            kind,
            seconds: u32::try_from(time.as_secs())?.saturating_add(SECONDS_MORE),
            percent,
        };
        let log = rig.dir.join(format!("greedy-{}.log", kind.name()));
        let part = Part::start(&rig.net, rig.host, parts::GREEDY, flags.arguments(), &log)?;
        Ok(Self { part, log })
    }

    /// Lets it prepare and attack, looks at the replicas' memory meanwhile, and tells what it said last.
    async fn attack(
        &mut self,
        time: Duration,
        cluster: &Cluster,
        memory: &mut Memory,
    ) -> anyhow::Result<Status> {
        let mut until = None;
        loop {
            sleep(LOOK_EVERY).await;
            if let Some(status) = self.part.ended()? {
                bail!("the greedy client ended with {status}: see {}", self.log.display());
            }
            let said = last_status(&self.log)?.unwrap_or_default();
            memory.look(&cluster.memory_kib(), said.stored_bytes);
            if said.ready && Instant::now() >= *until.get_or_insert_with(|| Instant::now() + time) {
                return Ok(said);
            }
        }
    }

    async fn end(mut self) -> anyhow::Result<()> {
        self.part.signal(Signal::SIGKILL);
        self.part.end().await?;
        Ok(())
    }
}
