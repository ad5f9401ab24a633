//! The crowds of a scenario, as the rig sees them: processes with many sessions each, and how all of them fare.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::time::Instant;

use super::cell::Cluster;
use super::crowd::Status;
use crate::torture::net::{Host, Net};
use crate::torture::parts::{self, Part};

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// One process.
struct Crowd {
    part: Part,
    log: PathBuf,
}

/// All of them.
#[derive(Default)]
pub(super) struct Crowds {
    crowds: Vec<Crowd>,
    /// The least that was left of a lease, and the longest time that an answer took, so far.
    pub(super) lease_left_min_ms: Option<u64>,
    pub(super) answer_max_ms: u32,
}

/// How they fare together.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    pub(super) sessions: usize,
    pub(super) safe: usize,
    pub(super) ended: BTreeMap<String, u64>,
    pub(super) held: usize,
    pub(super) grants: u64,
    pub(super) violations: u64,
    pub(super) generations: u64,
    pub(super) seen_min: u64,
    pub(super) jeopardies: u64,
    pub(super) jeopardy_max_ms: u64,
    pub(super) fail_overs: u64,
    pub(super) terms: BTreeSet<u64>,
    pub(super) bulk_writes: u64,
}

impl Crowds {
    /// Starts a process with sessions on a host.
    pub(super) fn start(
        &mut self,
        net: &Net,
        host: Host,
        cluster: &Cluster,
        dir: &Path,
        flags: &[String],
    ) -> anyhow::Result<()> {
        let name = format!("crowd-{}", self.crowds.len());
        let log = dir.join(format!("{name}.log"));
        let arguments = [vec![cluster.addresses(), name], flags.to_vec()].concat();
        let part = Part::start(net, host, parts::CROWD, arguments, &log)?;
        self.crowds.push(Crowd { part, log });
        Ok(())
    }

    /// How all of them fare; `None` as long as one has not said so yet.
    ///
    /// # Errors
    ///
    /// If a process has ended.
    pub(super) fn look(&mut self) -> anyhow::Result<Option<Sum>> {
        let mut sum = Sum { seen_min: u64::MAX, ..Sum::default() };
        let mut missing = false;
        for crowd in &mut self.crowds {
            if let Some(status) = crowd.part.ended()? {
                let said = fs::read_to_string(&crowd.log).unwrap_or_default();
                bail!("a crowd ended with {status}: {}", said.lines().last().unwrap_or_default());
            }
            match last_status(&crowd.log)? {
                Some(status) => {
                    let left = status.lease_left_min_ms;
                    self.lease_left_min_ms = self.lease_left_min_ms.into_iter().chain(left).min();
                    self.answer_max_ms = self.answer_max_ms.max(status.answer_max_ms);
                    sum.add(status);
                }
                None => missing = true,
            }
        }
        Ok((!missing).then_some(sum))
    }

    /// Waits until all of them fare as wanted, and says how.
    ///
    /// # Errors
    ///
    /// How they fare, if they do not come to that within the limit.
    pub(super) async fn wait(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Sum) -> bool,
    ) -> anyhow::Result<Sum> {
        let deadline = Instant::now() + limit;
        loop {
            let sum = self.look()?;
            if let Some(sum) = sum.as_ref().filter(|sum| wanted(sum)) {
                return Ok(sum.clone());
            }
            ensure!(Instant::now() < deadline, "waited {limit:?} in vain: {what}; {sum:?}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

impl Sum {
    fn add(&mut self, status: Status) {
        self.sessions += status.sessions;
        self.safe += status.safe;
        for (why, count) in status.ended {
            *self.ended.entry(why).or_default() += count;
        }
        self.held += status.held;
        self.grants += status.grants;
        self.violations += status.violations;
        self.generations += status.generations;
        self.seen_min = self.seen_min.min(status.seen_min);
        self.jeopardies += status.jeopardies;
        self.jeopardy_max_ms = self.jeopardy_max_ms.max(status.jeopardy_max_ms);
        self.fail_overs += status.fail_overs;
        self.terms.extend(status.terms);
        self.bulk_writes += status.bulk_writes;
    }

    /// Whether every session holds its lease.
    pub(super) fn is_safe(&self) -> bool {
        self.safe == self.sessions
    }

    /// What is wrong, if anything is: a session that ended, or a lock that two had.
    pub(super) fn wrong(&self) -> Option<String> {
        let ended: u64 = self.ended.values().sum();
        (ended > 0 || self.violations > 0)
            .then(|| format!("{ended} sessions ended ({:?}), {} wrong grants", self.ended, self.violations))
    }
}

/// What a crowd said last. Only the end of its log is read.
fn last_status(log: &Path) -> anyhow::Result<Option<Status>> {
    use std::io::{Read, Seek, SeekFrom};
    const TAIL_BYTES: u64 = 16 << 10;
    let mut file = fs::File::open(log).context("cannot open a crowd's log")?;
    let bytes = file.metadata()?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    let tail = String::from_utf8_lossy(&tail);
    let whole = tail.rsplit_once('\n').map_or("", |(whole, _)| whole);
    Ok(whole.lines().rev().find_map(|line| serde_json::from_str(line).ok()))
}
