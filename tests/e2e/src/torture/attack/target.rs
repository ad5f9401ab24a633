//! Whom a fault hits.
//!
//! Invariant: it is found once, when the fault begins, so that who is hit is who was named and noted.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Field;
use crate::torture::cell::until;
use crate::torture::client::{LOCKS, ROOT};
use crate::torture::clock;
use crate::torture::history::{Event, History};
use crate::torture::schedule::{Fault, Kind};

/// How long it may take until somebody holds the lock that most want.
const HOLDS: Duration = Duration::from_secs(10);

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Everybody,
    Replica(u64),
    Client(usize),
}

impl Field {
    /// Finds whom a fault hits, says it, and notes it among the troubles, where it has the place that is returned. Says
    /// so too if nobody is there for it.
    pub(super) async fn aim(&mut self, fault: &Fault) -> Option<(Target, usize)> {
        let Fault { kind, lasts, draw, .. } = *fault;
        let Some(target) = self.target(kind, draw).await else {
            self.say(&format!("{kind}: nobody is there for it now"));
            return None;
        };
        let whom = match target {
            Target::Everybody => "all".to_owned(),
            Target::Replica(id) if matches!(kind, Kind::SplitMaster | Kind::SleepingMaster) => {
                self.split_name(id, draw)
            }
            Target::Replica(id) => format!("replica {id}"),
            Target::Client(place) => self.crowd.name(place).to_owned(),
        };
        let lasts = format!(", for {:.1} s", lasts.as_secs_f64());
        self.say(&format!("{kind} ({whom}){}", if kind.is_alone() { "" } else { &lasts }));
        Some((target, self.troubles.begin(kind, whom, clock::now())))
    }

    /// Whom a fault hits. `None` if all who could be are taken, or there is no master or holder.
    async fn target(&self, kind: Kind, draw: u64) -> Option<Target> {
        let taken: BTreeSet<u64> = self.active.iter().filter_map(|active| active.replica()).collect();
        match kind {
            Kind::KillMaster
            | Kind::PauseMaster
            | Kind::IsolateMaster
            | Kind::SplitMaster
            | Kind::SleepingMaster
            | Kind::DeafMaster
            | Kind::MuteMaster => {
                let master = self.cell.master(&self.net).await?;
                (!taken.contains(&master)).then_some(Target::Replica(master))
            }
            Kind::Ring | Kind::Loss | Kind::Rolling | Kind::KillAll => Some(Target::Everybody),
            Kind::KillClient | Kind::PauseClient | Kind::CutClient | Kind::LateAnswers => {
                let place = usize::try_from(draw % self.crowd.len().max(1) as u64).ok()?;
                let free = self.active.iter().all(|active| active.target != Target::Client(place));
                free.then_some(Target::Client(place))
            }
            Kind::KillHolder => {
                let held = until(HOLDS, "somebody holds the lock", async || self.holder()).await;
                held.ok().map(Target::Client)
            }
            Kind::FullDisk => self.replica_with_small_disk().map(Target::Replica),
            // Who has the small disk keeps it: whoever came in its place would have none that can be filled.
            Kind::Wipe if !self.cell.has_spare() => None,
            Kind::Wipe => self.drawn(draw, |id| Some(id) != self.replica_with_small_disk()),
            _ => self.drawn(draw, |id| !taken.contains(&id)),
        }
    }

    /// One of the replicas that may be.
    fn drawn(&self, draw: u64, may_be: impl Fn(u64) -> bool) -> Option<Target> {
        let free: Vec<u64> = self.cell.replicas.keys().copied().filter(|id| may_be(*id)).collect();
        let place = usize::try_from(draw % free.len().max(1) as u64).ok()?;
        free.get(place).copied().map(Target::Replica)
    }

    fn replica_with_small_disk(&self) -> Option<u64> {
        self.cell.replicas.values().find(|replica| replica.disk.is_some()).map(|replica| replica.id)
    }

    /// The client that believes to hold the lock that is held for long.
    fn holder(&self) -> Option<usize> {
        let histories = self.crowd.histories_of_present().ok()?;
        let name = histories.iter().find(|history| holds(history))?.client.as_str();
        (0..self.crowd.len()).find(|place| self.crowd.name(*place) == name)
    }

    /// The clients that are on the master's side of a split: one of them at least, and not all.
    pub(super) fn split(&self, draw: u64) -> Vec<usize> {
        let count = self.crowd.len();
        let with = 1 + usize::try_from(draw >> 8).unwrap_or(0) % (count / 2).max(1);
        let first = usize::try_from(draw & 255).unwrap_or(0);
        (0..with).map(|number| (first + number) % count.max(1)).collect()
    }

    /// The master, and who is on its side, in words.
    fn split_name(&self, master: u64, draw: u64) -> String {
        let with: Vec<&str> = self.split(draw).into_iter().map(|place| self.crowd.name(place)).collect();
        format!("replica {master} with {}", with.join(" "))
    }
}

/// Whether a client believes to hold the lock that is held for long, by what it wrote down last.
fn holds(history: &History) -> bool {
    let lock = format!("{ROOT}/lock-{}", LOCKS - 1);
    let last = history.records.iter().rev().find_map(|record| match &record.event {
        Event::Believes { path, .. } if path.ends_with(&lock) => Some(true),
        Event::LetsGo { path, .. } if path.ends_with(&lock) => Some(false),
        Event::Over { .. } => Some(false),
        _ => None,
    });
    last == Some(true)
}
