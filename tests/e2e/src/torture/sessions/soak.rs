//! Thousands of sessions with locks and watches, and a kill of the master a minute.
//!
//! After each kill everything is looked at: every session is alive, every lock is held by its holder at its generation,
//! every watcher is told of the last change. Then every lock is passed on. What a replica's memory comes to is looked
//! at all the while.

use std::time::Duration;

use tokio::time::Instant;

use super::cell::Cluster;
use super::crowd::ROUND;
use super::crowds::{Crowds, Sum};
use super::{BROKEN, HELD, Place, length, network, say};
use crate::torture::net::Net;
use crate::torture::scenario::Options;

/// How many sessions there are if nobody says.
const SESSIONS: usize = 10_000;
/// Of one process.
const SESSIONS_PER_PROCESS: usize = 1_000;
/// So many share a lock.
const GROUP: usize = 5;
/// So many files are watched.
const FILES: usize = 20;
/// From one kill to the next.
const KILL_EVERY: Duration = Duration::from_secs(60);
/// A replica that was killed is started again after this.
const DOWN_FOR: Duration = Duration::from_secs(5);
/// How often memory is looked at.
const MEMORY_EVERY: Duration = Duration::from_secs(10);
/// Opening the sessions takes no longer, and neither does coming back after a kill.
const PATIENCE: Duration = Duration::from_secs(180);
/// Memory is flat if it is no more than so much larger in the last third of the time than in the one before, in
/// hundredths.
const GROWTH_MAX: u64 = 10;

/// Runs it.
///
/// # Errors
///
/// If it cannot be run; or, with what was missing, if a kill is not got over.
pub(in crate::torture) async fn soak(options: &Options) -> anyhow::Result<u8> {
    let net = network(options, false)?;
    let place = Place::new(options)?;
    let mut soak = Soak::begin(net, options, &place).await?;
    let began = Instant::now();
    let mut wrong = None;
    while wrong.is_none() && began.elapsed() < length(options) {
        let round = Instant::now();
        wrong = soak.round().await?;
        let left = length(options).saturating_sub(began.elapsed());
        soak.rest(KILL_EVERY.saturating_sub(round.elapsed()).min(left)).await?;
    }
    let verdict = match wrong.or_else(|| soak.growth()) {
        Some(wrong) => {
            say(&format!("BROKEN: {wrong}"));
            BROKEN
        }
        None => {
            say(&format!("held: nothing was lost in {} kills of the master", soak.kills));
            HELD
        }
    };
    drop(soak);
    Ok(place.leave(verdict))
}

/// A run.
struct Soak {
    net: Net,
    cluster: Cluster,
    crowds: Crowds,
    /// The number that was last written to the watched files.
    number: u64,
    kills: u32,
    /// The memory of the largest replica, again and again.
    memory_kib: Vec<u64>,
    memory_at: Instant,
}

impl Soak {
    async fn begin(mut net: Net, options: &Options, place: &Place) -> anyhow::Result<Self> {
        let cluster = Cluster::start(&mut net, options.replicas, place.dir()).await?;
        cluster.write(FILES, 1).await?;
        let mut crowds = Crowds::default();
        let sessions = options.sessions.unwrap_or(SESSIONS);
        let began = Instant::now();
        for first in (0..sessions).step_by(SESSIONS_PER_PROCESS) {
            let host = net.add_host()?;
            let sessions = (sessions - first).min(SESSIONS_PER_PROCESS);
            let flags = format!("--sessions {sessions} --group {GROUP} --files {FILES}");
            let flags: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
            crowds.start(&net, host, &cluster, place.dir(), &flags)?;
        }
        let opened = crowds.wait("every session is open", PATIENCE, |sum| sum.is_safe()).await?;
        say(&format!(
            "{} sessions, {} locks held, {} files watched; opened in {} ms",
            opened.sessions,
            opened.held,
            FILES,
            began.elapsed().as_millis()
        ));
        let memory_at = Instant::now();
        Ok(Self { net, cluster, crowds, number: 1, kills: 0, memory_kib: Vec::new(), memory_at })
    }

    /// Kills the master, looks at everything, and passes the locks on. Says what is wrong.
    async fn round(&mut self) -> anyhow::Result<Option<String>> {
        let before = self.settled().await?;
        let (master, term) = self.cluster.master().await?;
        let killed = Instant::now();
        self.cluster.kill(master).await?;
        self.kills += 1;
        self.number += 1;
        self.cluster.write(FILES, self.number).await?;
        let written = killed.elapsed();
        let number = self.number;
        let back =
            self.crowds.wait("all have come to the new master and seen the last change", PATIENCE, |sum| {
                sum.wrong().is_some() || sum.is_safe() && sum.seen_min >= number && sum.held >= before.held
            });
        let after = back.await?;
        let all_back = killed.elapsed();
        let same =
            (after.held, after.grants, after.generations) == (before.held, before.grants, before.generations);
        say(&format!(
            "replica {master} was killed in term {term}: the next write was through after {} ms, all {} sessions were \
            back and had seen it after {} ms; {} of {} locks held as before; jeopardies {} (longest {} ms)",
            written.as_millis(),
            after.sessions,
            all_back.as_millis(),
            after.held,
            before.held,
            after.jeopardies,
            after.jeopardy_max_ms
        ));
        let wrong = after.wrong().or((!same).then(|| format!("locks changed: {before:?} {after:?}")));
        self.rest(DOWN_FOR.saturating_sub(all_back)).await?;
        self.cluster.start_replica(&self.net, master)?;
        self.pass_on().await?;
        Ok(wrong)
    }

    /// Has every lock passed on at least once.
    async fn pass_on(&mut self) -> anyhow::Result<()> {
        let before = self.settled().await?;
        self.number = (self.number / ROUND + 1) * ROUND;
        self.cluster.write(FILES, self.number).await?;
        let number = self.number;
        let passed = self.crowds.wait("every lock was passed on", PATIENCE, |sum| {
            let grants = before.grants + before.held as u64;
            sum.wrong().is_some() || sum.seen_min >= number && sum.grants >= grants && sum.held == before.held
        });
        passed.await?;
        self.settled().await?;
        Ok(())
    }

    /// Waits until no lock has changed hands for a while.
    async fn settled(&mut self) -> anyhow::Result<Sum> {
        const WHILE: Duration = Duration::from_secs(2);
        loop {
            let before = self
                .crowds
                .wait("all are safe", PATIENCE, |sum| sum.is_safe() || sum.wrong().is_some())
                .await?;
            self.rest(WHILE).await?;
            let after = self.crowds.look()?.unwrap_or_default();
            if after.grants == before.grants && after.held == before.held {
                return Ok(after);
            }
        }
    }

    /// Lets time pass, and looks at memory.
    async fn rest(&mut self, time: Duration) -> anyhow::Result<()> {
        let until = Instant::now() + time;
        loop {
            tokio::time::sleep_until(until.min(self.memory_at)).await;
            if Instant::now() >= self.memory_at {
                self.memory_at = Instant::now() + MEMORY_EVERY;
                let memory_kib = self.cluster.memory_kib();
                self.memory_kib.extend(memory_kib.iter().max());
                let sum = self.crowds.look()?.unwrap_or_default();
                say(&format!(
                    "memory of the replicas {memory_kib:?} KiB; {} of {} sessions safe",
                    sum.safe, sum.sessions
                ));
            }
            if Instant::now() >= until {
                return Ok(());
            }
        }
    }

    /// Whether memory has grown, and by how much, if it was looked at often enough to tell.
    fn growth(&self) -> Option<String> {
        let third = self.memory_kib.len() / 3;
        if third < 5 {
            say("too short to tell whether memory grows");
            return None;
        }
        let [middle, last] =
            [third..2 * third, 2 * third..3 * third].map(|span| median(&self.memory_kib[span]));
        say(&format!(
            "memory of the largest replica: {middle} KiB in the middle third of the time, {last} KiB in the last"
        ));
        (last * 100 > middle * (100 + GROWTH_MAX)).then(|| "memory grows".to_owned())
    }
}

fn median(samples: &[u64]) -> u64 {
    let mut samples = samples.to_vec();
    samples.sort_unstable();
    samples[samples.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_one_in_the_middle() {
        assert_eq!(median(&[9, 1, 5]), 5);
        assert_eq!(median(&[7]), 7);
    }
}
