//! How a load is measured: clients that work in a closed loop, a window of time, and one histogram.
//!
//! What ends within the window counts, wherever it began; so neither the start of the clients nor their end is in
//! the figures. Invariant: in a closed loop the rate times the mean latency is the number of clients, which
//! [`Measured::in_flight`] lets a run check.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use holdfast::{CacheStats, Cell, Handle, OpenOptions, Session};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::cell::Target;
use crate::usage::Usage;

/// Clients share so many sessions, each with a connection of its own.
const SESSIONS_MAX: u32 = 8;
/// The longest latency that is told from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// How long a load runs before it is measured; less if the measurement itself is short.
const WARM_UP_MAX: Duration = Duration::from_secs(1);
/// How long clients may take to finish once the window is closed, beyond the slowest fail-over.
const FINISH_MAX: Duration = Duration::from_secs(30);

/// Sessions that are open for one measurement, and who works in them.
pub(crate) struct Clients {
    sessions: Vec<Session>,
    /// One for each client.
    pub(crate) handles: Vec<Handle>,
}

impl Clients {
    /// Opens sessions, and for each of `count` clients a file called `name` of its number, which is created with
    /// `contents`. Nothing is cached: what is measured through these handles asks the master.
    pub(crate) async fn open(
        target: &Target,
        count: u32,
        contents: &bytes::Bytes,
        name: impl Fn(u32) -> String,
    ) -> Result<Self> {
        let mut sessions = Vec::new();
        for number in 0..count.min(SESSIONS_MAX) {
            // A cell each: sessions of one cell would share its connections.
            let cell = Cell::connect([target.addresses()])?;
            let session = cell.session().client_name(format!("bench-{number}")).open().await;
            sessions.push(session.context("cannot open a session")?);
        }
        let openings = (0..count).zip(sessions.iter().cycle()).map(|(client, session)| {
            let (session, path) = (session.clone(), name(client));
            let options = OpenOptions::new().create().file().contents(contents.clone()).caching(false);
            async move { session.open(&path, options).await }
        });
        let mut opened: JoinSet<_> = openings.collect();
        let mut handles = Vec::new();
        while let Some(handle) = opened.join_next().await {
            handles.push(handle?.context("cannot open a file")?);
        }
        Ok(Self { sessions, handles })
    }

    /// How the caches of all sessions have done, together.
    pub(crate) fn cache_stats(&self) -> CacheStats {
        let mut sum = CacheStats::default();
        for stats in self.sessions.iter().map(Session::cache_stats) {
            sum.hits += stats.hits;
            sum.misses += stats.misses;
            sum.invalidations += stats.invalidations;
        }
        sum
    }

    /// The session that the client with this number shares.
    pub(crate) fn session(&self, client: u32) -> &Session {
        &self.sessions[client as usize % self.sessions.len()]
    }

    /// Ends the sessions.
    pub(crate) async fn close(self) {
        drop(self.handles);
        for session in self.sessions {
            session.close().await;
        }
    }
}

/// The window of a measurement, and what was seen in it.
pub(crate) struct Meter {
    opens: Instant,
    closes: Instant,
    /// Latencies in nanoseconds. All clients run on one thread, so nobody waits for the lock.
    latencies: Mutex<Histogram<u64>>,
}

impl Meter {
    /// A window of `length`, which opens after a warm-up.
    pub(crate) fn new(length: Duration) -> Result<Self> {
        let opens = Instant::now() + WARM_UP_MAX.min(length);
        let latencies = Histogram::new_with_max(nanos(LATENCY_MAX), 3).context("cannot make a histogram")?;
        Ok(Self { opens, closes: opens + length, latencies: Mutex::new(latencies) })
    }

    /// Whether clients are to stop.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.closes
    }

    /// Counts what took from `began` to `ended`, if it ended within the window.
    pub(crate) fn record(&self, began: Instant, ended: Instant) {
        if (self.opens..self.closes).contains(&ended) {
            let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
            latencies.saturating_record(nanos(ended - began));
        }
    }

    /// Counts a batch of `count` things, one after the other, that took from `began` to `ended` in all, if it ended
    /// within the window. Each counts as long as their mean.
    pub(crate) fn record_batch(&self, began: Instant, ended: Instant, count: u64) {
        if (self.opens..self.closes).contains(&ended) {
            let mut latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
            latencies.saturating_record_n(nanos(ended - began) / count, count);
        }
    }

    fn measured(&self) -> Measured {
        let latencies = self.latencies.lock().unwrap_or_else(PoisonError::into_inner);
        Measured { latencies: latencies.clone(), length: self.closes - self.opens, costs: None }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What a window has shown.
pub(crate) struct Measured {
    latencies: Histogram<u64>,
    length: Duration,
    /// Of a cell of our own.
    costs: Option<Costs>,
}

/// What was consumed in the window.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Costs {
    pub(crate) master: Usage,
    /// All of them together.
    pub(crate) followers: Usage,
    /// This process.
    pub(crate) load: Usage,
}

impl Measured {
    pub(crate) fn operations(&self) -> u64 {
        self.latencies.len()
    }

    pub(crate) fn per_second(&self) -> f64 {
        self.operations() as f64 / self.length.as_secs_f64()
    }

    /// A quantile of the latencies, in microseconds.
    pub(crate) fn quantile_us(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1e3
    }

    /// How many operations were under way on average: in a closed loop, as many as there are clients.
    pub(crate) fn in_flight(&self) -> f64 {
        self.latencies.mean() / 1e9 * self.per_second()
    }

    pub(crate) fn length(&self) -> Duration {
        self.length
    }

    pub(crate) fn costs(&self) -> Option<Costs> {
        self.costs
    }
}

/// Runs one task for each client until the meter's window is closed, and tells what it saw.
pub(crate) async fn measure<F>(
    target: &mut Target,
    meter: &Arc<Meter>,
    clients: impl IntoIterator<Item = F>,
) -> Result<Measured>
where
    F: Future<Output = Result<()>> + Send + 'static,
{
    let mut tasks: JoinSet<_> = clients.into_iter().collect();
    let watched = watch(target, meter, &mut tasks).await?;
    let finished = tokio::time::timeout(FINISH_MAX, async {
        while let Some(client) = tasks.join_next().await {
            client??;
        }
        anyhow::Ok(())
    });
    finished.await.context("some clients wait for ever")??;
    target.check()?;
    let measured = Measured { costs: watched, ..meter.measured() };
    if measured.operations() == 0 {
        bail!("no operation ended within {:?}", measured.length);
    }
    Ok(measured)
}

/// Waits for the end of the window, or for the first client that fails.
async fn watch(target: &Target, meter: &Meter, tasks: &mut JoinSet<Result<()>>) -> Result<Option<Costs>> {
    let window = async {
        sleep_until(meter.opens.into()).await;
        let master = target.master_index().await?;
        let before = usages(target)?;
        sleep_until(meter.closes.into()).await;
        let after = usages(target)?;
        anyhow::Ok(master.map(|master| costs(master, &before, &after)))
    };
    let failed = async {
        loop {
            match tasks.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return error,
                Some(Err(error)) => return error.into(),
                // All are done, which is no failure.
                None => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        costs = window => costs,
        error = failed => Err(error),
    }
}

/// Of the replicas, and last of this process.
fn usages(target: &Target) -> Result<Vec<Usage>> {
    let mut usages = target.usages()?;
    usages.push(Usage::of(std::process::id())?);
    Ok(usages)
}

fn costs(master: usize, before: &[Usage], after: &[Usage]) -> Costs {
    let mut costs = Costs { master: Usage::default(), followers: Usage::default(), load: Usage::default() };
    let last = before.len() - 1;
    for (index, usage) in before.iter().zip(after).map(|(before, after)| *after - *before).enumerate() {
        match index {
            index if index == last => costs.load = usage,
            index if index == master => costs.master = usage,
            _ => {
                costs.followers.cpu += usage.cpu;
                costs.followers.waits += usage.waits;
            }
        }
    }
    costs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ends_within_the_window_counts() {
        let meter = Meter::new(Duration::from_secs(10)).unwrap();
        let at = |ms| meter.opens + Duration::from_millis(ms);
        let before = meter.opens - Duration::from_millis(1);
        meter.record(before, before);
        meter.record(before, at(1));
        meter.record(at(1), at(9_999));
        meter.record(at(1), at(10_000));
        let measured = meter.measured();
        assert_eq!(measured.operations(), 2);
        assert!((measured.per_second() - 0.2).abs() < 1e-9);
        assert!(!meter.is_over(at(9_999)) && meter.is_over(at(10_000)));
    }

    #[test]
    fn a_batch_counts_as_many_as_it_has() {
        let meter = Meter::new(Duration::from_secs(1)).unwrap();
        meter.record_batch(meter.opens, meter.opens + Duration::from_micros(500), 1_000);
        meter.record_batch(meter.opens, meter.closes, 1_000);
        let measured = meter.measured();
        assert_eq!(measured.operations(), 1_000);
        assert!((measured.quantile_us(0.5) - 0.5).abs() < 0.01);
    }

    #[test]
    fn rate_times_latency_is_the_number_of_clients() {
        let meter = Meter::new(Duration::from_secs(1)).unwrap();
        for client in 0..4 {
            for step in 0..100 {
                let began = meter.opens + Duration::from_micros(9_990 * step + client);
                meter.record(began, began + Duration::from_micros(9_990));
            }
        }
        let measured = meter.measured();
        assert!((measured.in_flight() - 4.0).abs() < 0.05, "{}", measured.in_flight());
        assert!((measured.quantile_us(0.5) - 9_990.0).abs() < 15.0);
    }

    #[test]
    fn costs_are_told_apart_by_who_is_master() {
        let usage = |ms| Usage { cpu: Duration::from_millis(ms), waits: ms };
        let before = [usage(1), usage(1), usage(1), usage(1)];
        let costs = costs(1, &before, &[usage(11), usage(101), usage(21), usage(5)]);
        assert_eq!((costs.master, costs.followers, costs.load), (usage(100), usage(30), usage(4)));
    }
}
