//! Does to a run what was planned for it, and undoes it.
//!
//! Knows how each fault is done; what is planned is the schedule's, what is right the judge's. Invariant: a replica or
//! client has one fault of its process or connections at a time; what is planned for one that is taken is left out.

mod alone;
mod pairs;
mod target;

use std::time::Duration;

use holdfast::WriteOptions;
use holdfast_sim::{Invariant, Violation};
use nix::sys::signal::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::cell::Cell;
use super::clock;
use super::crowd::Crowd;
use super::net::Net;
use super::run::rarely_changed;
use super::schedule::{Fault, Kind};
use super::troubles::Troubles;
use super::unmet::Unmet;
use target::Target;

/// How long the cell may take to serve once nothing is wrong any more.
pub(super) const HEALS: Duration = Duration::from_secs(30);

/// How often it is looked whether a process has ended that should not.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// A run under attack.
#[derive(Debug)]
pub struct Field {
    /// The replicas. First, as the clients: processes go before their network.
    pub cell: Cell,
    /// The clients.
    pub crowd: Crowd,
    /// The network.
    pub net: Net,
    /// What was done.
    pub troubles: Troubles,
    /// What is wrong, as far as it was seen at once.
    pub violations: Vec<Violation>,
    active: Vec<Active>,
    began: Instant,
    /// Changes of files that the rig itself makes, and how many it has begun.
    changes: JoinSet<()>,
    changes_begun: u32,
    /// How many files there are for that.
    rarely: u32,
}

/// A fault that goes on.
#[derive(Clone, Debug)]
struct Active {
    kind: Kind,
    /// Its place among the troubles.
    place: usize,
    until: Instant,
    target: Target,
    draw: u64,
}

impl Field {
    /// Everything is well so far. There are so many files that the rig is to change itself.
    #[must_use]
    pub fn new(net: Net, cell: Cell, crowd: Crowd, rarely: u32) -> Self {
        let (troubles, violations, active) = (Troubles::default(), Vec::new(), Vec::new());
        let (began, changes) = (Instant::now(), JoinSet::new());
        Self { net, cell, crowd, troubles, violations, active, began, changes, changes_begun: 0, rarely }
    }

    /// Does what was planned, until `length` is over: faults that are done by themselves take longer than planned.
    ///
    /// # Errors
    ///
    /// If the rig itself cannot do what it must.
    pub async fn attack(&mut self, faults: &[Fault], length: Duration) -> anyhow::Result<()> {
        self.began = Instant::now();
        for fault in faults {
            self.pass(self.began + fault.at).await?;
            if self.began.elapsed() >= length {
                break;
            }
            if !self.violations.is_empty() {
                self.say("something is wrong, so that the attack ends here");
                return Ok(());
            }
            self.change_a_file();
            if fault.kind.is_alone() {
                self.heal().await?;
            }
            let Some((target, place)) = self.aim(fault).await else { continue };
            if fault.kind.is_alone() {
                alone::perform(self, fault, target).await?;
                self.troubles.end(place, clock::now());
            } else {
                let begun = self.begin(fault, target, place).await;
                self.judge(&fault.kind.to_string(), begun)?;
            }
        }
        self.pass(self.began + length).await
    }

    /// Changes a file that nobody else changes, while a fault begins: the last change of it, for whoever watches it. As
    /// often as it takes, but no longer than the cell may take to heal.
    fn change_a_file(&mut self) {
        let (admin, path) =
            (self.cell.admin().clone(), rarely_changed(self.changes_begun % self.rarely.max(1)));
        self.changes_begun += 1;
        self.changes.spawn(async move {
            let deadline = Instant::now() + HEALS;
            while admin.set_contents(&path, "changed", WriteOptions::new()).await.is_err()
                && Instant::now() < deadline
            {
                sleep(LOOK_EVERY).await;
            }
        });
    }

    /// Waits until nothing more is changed.
    pub async fn await_changes(&mut self) {
        while self.changes.join_next().await.is_some() {}
    }

    /// Lets time pass, in which faults come to their ends.
    async fn pass(&mut self, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            sleep_until(until.min(Instant::now() + LOOK_EVERY)).await;
            let now = Instant::now();
            let (over, active) = std::mem::take(&mut self.active).into_iter().partition(|a| a.until <= now);
            self.active = active;
            self.end(over)?;
            self.look_after()?;
        }
        Ok(())
    }

    /// Notices who has ended and should not have.
    ///
    /// # Errors
    ///
    /// If the system does not tell.
    pub fn look_after(&mut self) -> anyhow::Result<()> {
        let fallen = [self.cell.fallen()?, self.crowd.fallen()?].concat();
        for what in fallen {
            self.note(Violation::new(Invariant::Survival, what));
        }
        Ok(())
    }

    /// Notes what is wrong.
    pub(super) fn note(&mut self, violation: Violation) {
        self.say(&violation.what);
        self.violations.push(violation);
    }

    /// Notes what the cell or a client has not done that it should have.
    ///
    /// # Errors
    ///
    /// What the rig itself could not do.
    pub(super) fn judge(&mut self, when: &str, done: anyhow::Result<()>) -> anyhow::Result<()> {
        if let Err(error) = done {
            let violation = Unmet::judge(when, error)?;
            self.note(violation);
        }
        Ok(())
    }

    /// Ends all faults, and waits until the cell serves.
    ///
    /// # Errors
    ///
    /// If the rig itself cannot do what it must.
    pub async fn heal(&mut self) -> anyhow::Result<()> {
        let all = std::mem::take(&mut self.active);
        self.end(all)?;
        self.expect_service("after healing").await?;
        self.look_after()
    }

    /// Notices if the cell does not serve in time.
    async fn expect_service(&mut self, when: &str) -> anyhow::Result<()> {
        let served = self.cell.serving(&self.net, HEALS).await;
        self.judge(when, served)
    }

    async fn begin(&mut self, fault: &Fault, target: Target, place: usize) -> anyhow::Result<()> {
        let Fault { kind, draw, .. } = *fault;
        self.active.push(Active { kind, place, until: Instant::now() + fault.lasts, target, draw });
        match (kind, target) {
            (Kind::Kill | Kind::KillMaster, Target::Replica(id)) => self.kill(id).await?,
            (Kind::Pause | Kind::PauseMaster, Target::Replica(id)) => self.signal(id, Signal::SIGSTOP),
            (Kind::Delay | Kind::Stall | Kind::HalfClose, Target::Replica(id)) => self.meddle(id, kind, draw),
            (Kind::KillClient, Target::Client(place)) => self.crowd.kill(place).await?,
            (Kind::PauseClient, Target::Client(place)) => self.crowd.signal(place, Signal::SIGSTOP),
            _ => self.shape_net()?,
        }
        Ok(())
    }

    fn end(&mut self, over: Vec<Active>) -> anyhow::Result<()> {
        for Active { kind, place, target, .. } in over {
            match (kind, target) {
                (Kind::Kill | Kind::KillMaster, Target::Replica(id)) => {
                    if let Some(replica) = self.cell.replicas.get_mut(&id) {
                        replica.start(&self.net)?;
                    }
                }
                (Kind::Pause | Kind::PauseMaster, Target::Replica(id)) => self.signal(id, Signal::SIGCONT),
                (Kind::Delay | Kind::Stall | Kind::HalfClose, Target::Replica(id)) => {
                    let replica = self.cell.replicas.get(&id);
                    replica.into_iter().flat_map(|replica| &replica.relays).for_each(|relay| relay.heal());
                }
                (Kind::KillClient, Target::Client(seat)) => self.crowd.seat(&self.net, seat)?,
                (Kind::PauseClient, Target::Client(seat)) => self.crowd.signal(seat, Signal::SIGCONT),
                _ => {}
            }
            self.troubles.end(place, clock::now());
        }
        self.shape_net()
    }

    async fn kill(&mut self, id: u64) -> anyhow::Result<()> {
        match self.cell.replicas.get_mut(&id) {
            Some(replica) => replica.stop(Signal::SIGKILL, HEALS).await,
            None => Ok(()),
        }
    }

    fn signal(&self, id: u64, signal: Signal) {
        self.cell.replicas.get(&id).into_iter().for_each(|replica| replica.signal(signal));
    }

    fn meddle(&self, id: u64, kind: Kind, draw: u64) {
        let Some(replica) = self.cell.replicas.get(&id) else { return };
        // Towards clients, towards replicas, or both.
        for (relay, _) in replica.relays.iter().zip(1..).filter(|(_, bit)| (1 + draw % 3) & bit != 0) {
            match kind {
                Kind::Delay => relay.delay(Duration::from_millis(20 + draw % 800)),
                Kind::Stall => relay.stall(),
                _ => relay.half_close(),
            }
        }
    }

    /// Makes the network what all faults of it together make of it.
    fn shape_net(&mut self) -> anyhow::Result<()> {
        self.net.heal();
        let hosts: Vec<(u64, super::net::Host)> =
            self.cell.replicas.values().map(|replica| (replica.id, replica.host)).collect();
        let others: Vec<_> = (0..self.crowd.len()).map(|place| self.crowd.host(place)).collect();
        for Active { kind, target, draw, .. } in &self.active {
            let at = |id: &u64| hosts.iter().find(|(other, _)| other == id).map(|(_, host)| *host);
            let everybody = hosts.iter().map(|(_, host)| *host).chain(others.iter().copied());
            match (kind, target) {
                (Kind::Loss, _) => self.net.lose_everywhere(u8::try_from(5 + draw % 36).unwrap_or(5)),
                (Kind::Ring, _) => ring(&mut self.net, &hosts),
                (Kind::Isolate | Kind::IsolateMaster, Target::Replica(id)) => {
                    at(id).into_iter().for_each(|host| self.net.isolate(host));
                }
                (Kind::SplitMaster, Target::Replica(id)) => {
                    let with: Vec<_> = self.split(*draw).into_iter().map(|place| others[place]).collect();
                    let Some(master) = at(id) else { continue };
                    let inside: Vec<_> = with.into_iter().chain([master]).collect();
                    split(&mut self.net, &inside, &everybody.collect::<Vec<_>>());
                }
                (Kind::DeafMaster | Kind::MuteMaster, Target::Replica(id)) => {
                    let Some(master) = at(id) else { continue };
                    for other in everybody.filter(|other| *other != master) {
                        match kind {
                            Kind::DeafMaster => self.net.cut_one_way(other, master),
                            _ => self.net.cut_one_way(master, other),
                        }
                    }
                }
                (Kind::CutClient, Target::Client(place)) => self.net.isolate(self.crowd.host(*place)),
                _ => {}
            }
        }
        self.net.apply()
    }

    /// Tells what happens, with the time since the attack began.
    pub(super) fn say(&self, what: &str) {
        println!("{:7.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// Lets things be for a while.
    async fn rest(&self, time: Duration) {
        sleep(time).await;
    }
}

impl Active {
    /// The replica whose process or connections it has.
    fn replica(&self) -> Option<u64> {
        match self.target {
            Target::Replica(id) => Some(id),
            _ => None,
        }
    }
}

/// Some and all others hear nothing of each other.
fn split(net: &mut Net, inside: &[super::net::Host], everybody: &[super::net::Host]) {
    for one in inside {
        for other in everybody.iter().filter(|other| !inside.contains(other)) {
            net.cut(*one, *other);
        }
    }
}

/// Each replica hears its neighbours alone.
fn ring(net: &mut Net, replicas: &[(u64, super::net::Host)]) {
    let count = replicas.len();
    for one in 0..count {
        for other in one + 1..count {
            // Of three, all are neighbours: there the ring is a chain.
            let neighbours = other == one + 1 || (one == 0 && other == count - 1 && count > 3);
            if !neighbours {
                net.cut(replicas[one].1, replicas[other].1);
            }
        }
    }
}
