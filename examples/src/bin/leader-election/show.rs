//! The four acts. Each does something to the processes, waits for what must follow, and checks it.
//!
//! What is true is read off the resource: an order that it carried out is a fact, whatever any process believes
//! of itself.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::candidate::{LEADER, LEASE, LOCK_DELAY};
use crate::cell::Replicas;
use crate::process::Process;
use crate::resource::{History, Resource, Visit};
use crate::timeline::{Timeline, seconds};
use crate::wait;

const NAMES: [&str; 3] = ["ada", "bob", "cleo"];
/// What a takeover may cost beyond lease and lock-delay: the drift bound, the order's own way, a busy machine.
const TAKEOVER_SLACK: Duration = Duration::from_secs(2);

/// Everything on the stage.
struct Show<'d> {
    timeline: Timeline,
    dir: &'d Path,
    replicas: Replicas,
    history: watch::Receiver<History>,
    resource: Resource,
    /// In the order of [`NAMES`].
    candidates: Vec<Process>,
}

/// A primary, as the resource knows it.
struct Primary {
    /// Its place among [`NAMES`].
    place: usize,
    /// Under which lock generation it serves.
    generation: u64,
}

/// Runs the show.
///
/// # Errors
///
/// The first claim that does not hold, or what kept the show from going on.
pub(crate) async fn run() -> Result<()> {
    let dir = tempfile::tempdir().context("no temporary directory")?;
    let played = play(dir.path()).await;
    if played.is_err() {
        println!("\nThe logs of the processes are in {}", dir.keep().display());
    }
    played
}

async fn play(dir: &Path) -> Result<()> {
    let mut show = Show::open(dir).await?;
    show.elect().await?;
    show.kill_the_primary().await?;
    show.kill_the_master().await?;
    show.pause_the_primary().await?;
    let orderly = show.history.borrow().is_orderly();
    show.timeline.act("In the whole show");
    show.timeline.claim("the resource obeyed one primary after the other, never two at a time", orderly)?;
    println!("\nAll claims hold.");
    Ok(())
}

impl<'d> Show<'d> {
    async fn open(dir: &'d Path) -> Result<Self> {
        let timeline = Timeline::new();
        println!(
            "Three candidates elect a primary through the lock of {LEADER}. Whoever holds it gives orders to a"
        );
        println!(
            "resource, which refuses orders of an earlier lock generation than the greatest it has seen."
        );
        println!("Lease {}, lock-delay {}.", seconds(LEASE), seconds(LOCK_DELAY));
        timeline.act("Act 1: an election");
        let replicas = Replicas::start(timeline, dir).await?;
        let resource = Resource::serve(dir).await?;
        timeline.says("resource", format!("takes orders at {}", resource.address));
        let history = resource.history.clone();
        let mut show = Self { timeline, dir, replicas, history, resource, candidates: Vec::new() };
        for place in 0..NAMES.len() {
            let candidate = show.start_candidate(place)?;
            show.candidates.push(candidate);
        }
        Ok(show)
    }

    /// Act 1: the first primary is found where the file says.
    async fn elect(&mut self) -> Result<()> {
        let first = self.next_primary(0).await?;
        let primary = self.primary()?;
        self.timeline.says("resource", format!("carries out the first order of {}", first.order.from));
        self.others_wait().await?;
        let address = self.replicas.cell.contents(LEADER).await?.bytes;
        let address = String::from_utf8(address.to_vec()).context("the file holds no address")?;
        let greeting = greeting_at(&address).await?;
        self.timeline.claim(
            format!("the file says {address}, and who asks there hears: {greeting:?}"),
            greeting == format!("{} is primary", NAMES[primary.place]),
        )
    }

    /// Act 2: a primary dies.
    async fn kill_the_primary(&mut self) -> Result<()> {
        self.timeline.act("Act 2: the primary dies");
        let dead = self.primary()?;
        let killed_at = Instant::now();
        self.candidates.remove(dead.place).kill().await?;
        self.timeline
            .says(NAMES[dead.place], "is killed (SIGKILL), and started again: to the end of the queue");
        let reborn = self.start_candidate(dead.place)?;
        self.candidates.insert(dead.place, reborn);
        self.takeover(&dead, killed_at).await
    }

    /// Act 3: the master dies.
    async fn kill_the_master(&mut self) -> Result<()> {
        self.timeline.act("Act 3: the master replica dies");
        let before = self.primary()?;
        let old = self.replicas.master().await?;
        let killed_at = Instant::now();
        self.replicas.kill(old).await?;
        self.timeline.says(&format!("replica {old}"), "is master, and is killed (SIGKILL)");
        let cell = &self.replicas.cell;
        let stat = wait::until("the cell serves again", async || cell.stat(LEADER).await.ok()).await?;
        let outage = seconds(killed_at.elapsed());
        let new = self.replicas.master().await?;
        self.timeline
            .says(&format!("replica {new}"), format!("is master; the cell served nobody for {outage}"));
        self.timeline.claim("the lock is held as before", stat.lock.generation == before.generation)?;
        // Only a lease that the new master granted reaches so far.
        let renewed = killed_at + LEASE;
        let visit = self
            .visit("the primary's lease is extended", |visit| {
                visit.accepted && visit.order.held_until > renewed
            })
            .await?;
        self.timeline.claim(
            format!(
                "{} is still primary, in the same session; the new master extends its lease",
                visit.order.from
            ),
            visit.order.sequencer.generation == before.generation && visit.order.from == NAMES[before.place],
        )?;
        let gap = self.longest_gap(killed_at);
        self.timeline
            .claim(format!("its orders went on: the longest gap was {}", seconds(gap)), gap < LEASE)?;
        self.replicas.start_one(old)?;
        self.replicas.caught_up(old).await?;
        self.timeline.says(&format!("replica {old}"), "is started again, and has caught up");
        Ok(())
    }

    /// Act 4: a primary stands still, and goes on without knowing that it is primary no more.
    async fn pause_the_primary(&mut self) -> Result<()> {
        self.timeline.act("Act 4: the primary stands still, and wakes up too late");
        let paused = self.primary()?;
        let name = NAMES[paused.place];
        self.candidates[paused.place].signal(Signal::SIGSTOP)?;
        let paused_at = Instant::now();
        self.timeline.says(name, "is stopped (SIGSTOP), with orders on their way");
        self.takeover(&paused, paused_at).await?;
        self.candidates[paused.place].signal(Signal::SIGCONT)?;
        let woken_at = Instant::now();
        self.timeline.says(name, "goes on (SIGCONT)");
        let is_late =
            |visit: &Visit| visit.at > woken_at && visit.order.sequencer.generation == paused.generation;
        let late = self.visit("a late order comes to the resource", is_late).await?;
        self.timeline.claim(format!("the resource refuses the late order of {name}"), !late.accepted)?;
        self.others_wait().await?;
        let history = self.history.borrow();
        let harmless = !history.visits.iter().any(|visit| is_late(visit) && visit.accepted);
        self.timeline.claim(format!("no late order of {name} was carried out"), harmless)
    }

    /// Waits for the successor of a primary that fell silent, and checks when it came.
    async fn takeover(&mut self, old: &Primary, silent_since: Instant) -> Result<()> {
        let first = self.next_primary(old.generation).await?;
        let took = first.at - silent_since;
        let new = &first.order.from;
        self.timeline.says("resource", format!("carries out the first order of {new}"));
        let held_until = self.held_until(old.generation).context("the old primary gave no order")?;
        let lease_left = seconds(held_until.saturating_duration_since(silent_since));
        let lock_delay = seconds(LOCK_DELAY);
        self.timeline.claim(
            format!(
                "{new} waited for the rest of the lease ({lease_left}) and the lock-delay ({lock_delay})"
            ),
            first.at >= held_until + LOCK_DELAY && new != NAMES[old.place],
        )?;
        let took_max = LEASE + LOCK_DELAY + TAKEOVER_SLACK;
        self.timeline.claim(
            format!("{new} took over after {}, in less than {}", seconds(took), seconds(took_max)),
            took < took_max,
        )
    }

    /// Waits until both that are not primary stand in the queue.
    async fn others_wait(&self) -> Result<()> {
        let cell = &self.replicas.cell;
        wait::until("the others wait for the lock", async || {
            cell.stat(LEADER).await.ok().filter(|stat| stat.lock.waiting == NAMES.len() as u64 - 1)
        })
        .await?;
        self.timeline.says("cell", "two candidates wait for the lock");
        Ok(())
    }

    /// Starts a candidate.
    fn start_candidate(&self, place: usize) -> Result<Process> {
        let name = NAMES[place];
        let log = File::options().create(true).append(true).open(self.dir.join(format!("{name}.log")));
        let arguments = [
            format!("--name={name}"),
            format!("--addresses={}", self.replicas.addresses()),
            format!("--resource={}", self.resource.address),
        ];
        Process::start(self.timeline, name, "candidate", &arguments, log.context("no log file")?)
    }

    /// Waits for the first order carried out under a greater generation.
    async fn next_primary(&mut self, generation: u64) -> Result<Visit> {
        self.visit("somebody else is primary", |visit| {
            visit.accepted && visit.order.sequencer.generation > generation
        })
        .await
    }

    /// Waits for an order.
    async fn visit(&mut self, what: &str, is_it: impl Fn(&Visit) -> bool) -> Result<Visit> {
        let mut history = self.history.clone();
        let found = history.wait_for(|history| history.visits.iter().any(&is_it));
        let found = timeout(wait::LIMIT, found).await;
        let found =
            found.with_context(|| format!("waited {} s in vain until {what}", wait::LIMIT.as_secs()))??;
        found.visits.iter().find(|visit| is_it(visit)).cloned().context("it was there")
    }

    /// Who is primary in the eyes of the resource.
    fn primary(&self) -> Result<Primary> {
        let history = self.history.borrow();
        let order = &history.last_accepted().context("nobody is primary yet")?.order;
        let place = NAMES.iter().position(|name| *name == order.from).context("a stranger is primary")?;
        Ok(Primary { place, generation: order.sequencer.generation })
    }

    /// Until when the primary of `generation` was sure of its lock, by its own word.
    fn held_until(&self, generation: u64) -> Option<Instant> {
        let history = self.history.borrow();
        let orders = history.visits.iter().map(|visit| &visit.order);
        orders.filter(|order| order.sequencer.generation == generation).map(|order| order.held_until).max()
    }

    /// The longest time without an order since `since`.
    fn longest_gap(&self, since: Instant) -> Duration {
        let history = self.history.borrow();
        let accepted = history.visits.iter().filter(|visit| visit.accepted && visit.at >= since);
        let moments: Vec<Instant> = std::iter::once(since).chain(accepted.map(|visit| visit.at)).collect();
        moments.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

/// What whoever listens at `address` says.
async fn greeting_at(address: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await.context("nobody is where the file says")?;
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).await?;
    Ok(greeting.trim_end().to_owned())
}
