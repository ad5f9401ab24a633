//! The scenario `torture`: all kinds of faults, drawn from the seed, while clients of all kinds work.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use holdfast::{NodeKind, WriteOptions};
use holdfast_sim::{Invariant, Verdict, Violation};
use nix::sys::signal::Signal;

use super::attack::Field;
use super::cell::{Cell, until};
use super::client::{COUNTERS, LOCKS, Orders, REGISTERS, ROOT};
use super::clock;
use super::crowd::Crowd;
use super::disk;
use super::history::{Event, History, Record};
use super::judge::{Evidence, RIG, are_told, judge};
use super::net::Net;
use super::report::{Seen, done, worst};
use super::resource::Resource;
use super::scenario::Options;
use super::schedule::{Powers, schedule};
use super::unmet::Unmet;

/// The clients' lease: short, so that many faults outlast it.
pub(super) const LEASE: Duration = Duration::from_secs(4);
const GRACE: Duration = Duration::from_secs(12);

/// How many clients there are if nobody says.
const CLIENTS: u8 = 5;

/// So often a replica can be replaced.
const SPARES: u8 = 3;

/// So many files at most does the rig itself change: half an hour has no more faults. In a longer run it begins again
/// with the first, and a change may be lost that a later one of the same file makes good.
const RARELY_MAX: usize = 500;

/// How long anything may take once all is well.
const LIMIT: Duration = Duration::from_secs(60);

/// Runs it, and says the exit status.
///
/// # Errors
///
/// If it cannot be run: that says nothing about the cell.
pub async fn run(options: &Options) -> anyhow::Result<u8> {
    let seed = options.seed.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        now.as_secs() % 1_000_000
    });
    disk::remove_leftovers();
    let dir = Directory::create(options)?;
    println!("seed {seed}; files in {}", dir.path().display());
    let mut signals = holdfast_server::StopSignals::listen()?;
    let evidence = tokio::select! {
        evidence = gather(options, seed, dir.path()) => evidence,
        () = signals.next() => anyhow::bail!("interrupted"),
    };
    let (evidence, mut violations) = match evidence {
        Ok(gathered) => gathered,
        Err(error) => {
            println!("files are kept in {}", dir.keep().display());
            return Err(error);
        }
    };
    violations.extend(judge(&evidence));
    println!("\n{}\n{}", done(&evidence), Seen::of(&evidence));
    violations.iter().for_each(|violation| println!("WRONG: {violation}"));
    let verdict = worst(violations);
    println!("{verdict}");
    if verdict != Verdict::Passed {
        println!("logs and histories are kept in {}", dir.keep().display());
    }
    Ok(verdict.exit_status())
}

/// Everything but the judgement.
async fn gather(options: &Options, seed: u64, dir: &Path) -> anyhow::Result<(Evidence, Vec<Violation>)> {
    let mut net = network(options);
    let cell = Cell::start(&mut net, dir, options.replicas, SPARES, true)?;
    cell.serving(&net, LIMIT).await?;
    let length = Duration::from_secs_f64(options.minutes * 60.0);
    let disk = cell.replicas.values().any(|replica| replica.disk.is_some());
    let faults = schedule(seed, length, Powers { wanted: &options.faults, net: net.can_cut(), disk });
    let rarely = changed_rarely(faults.len());
    plant(cell.admin(), rarely).await?;
    let (resource, address) = Resource::start(&net).await?;
    let orders = Orders {
        addresses: cell.addresses(),
        resource: address.to_string(),
        history: PathBuf::new(),
        name: String::new(),
        seed,
        lease: LEASE,
        grace: GRACE,
        rarely,
    };
    let clients = options.clients.unwrap_or(CLIENTS);
    let crowd = Crowd::start(&mut net, dir, clients, &orders)?;
    println!("{} replicas, {clients} clients, {} faults planned", options.replicas, faults.len());
    let mut field = Field::new(net, cell, crowd, rarely);
    field.attack(&faults, length).await?;
    field.say("all faults end");
    field.heal().await?;
    let last = settle(&mut field, rarely).await?;
    let mut histories = field.crowd.histories()?;
    histories.push(last);
    let (lease, grace) = (LEASE, GRACE);
    let troubles = std::mem::take(&mut field.troubles);
    let evidence = Evidence { histories, arrivals: resource.arrivals(), troubles, lease, grace };
    Ok((evidence, std::mem::take(&mut field.violations)))
}

fn network(options: &Options) -> Net {
    if options.no_namespaces {
        return Net::loopback();
    }
    match Net::namespaces() {
        Ok(net) => net,
        Err(error) => {
            println!("no network namespaces ({error:#}): no partitions and no packet loss in this run");
            Net::loopback()
        }
    }
}

/// Makes the files that clients work on.
async fn plant(cell: &holdfast::Cell, rarely: u32) -> anyhow::Result<()> {
    let directory = || WriteOptions::new().create().kind(NodeKind::Directory);
    let file = || WriteOptions::new().create();
    for path in [ROOT.to_owned(), format!("{ROOT}/members")] {
        cell.set_contents(&path, "", directory()).await.with_context(|| format!("cannot make {path}"))?;
    }
    let locks = (0..LOCKS).map(|number| format!("{ROOT}/lock-{number}"));
    for path in files().into_iter().chain(locks).chain((0..rarely).map(rarely_changed)) {
        cell.set_contents(&path, "0", file()).await.with_context(|| format!("cannot make {path}"))?;
    }
    Ok(())
}

/// How many files the rig changes itself in a run of so many faults: one at each.
fn changed_rarely(faults: usize) -> u32 {
    u32::try_from(faults.min(RARELY_MAX)).unwrap_or(u32::MAX)
}

/// One of them.
pub(super) fn rarely_changed(number: u32) -> String {
    format!("{ROOT}/rarely-{number}")
}

/// The files that are read and written.
fn files() -> Vec<String> {
    let registers = (0..REGISTERS).map(|number| format!("{ROOT}/register-{number}"));
    registers.chain((0..COUNTERS).map(|number| format!("{ROOT}/counter-{number}"))).collect()
}

/// Brings everything to an end, once all is well: calls end, replicas agree, watchers are told, who is gone is no
/// longer registered. What does not come to pass is noted. Returns what the rig reads itself at last.
async fn settle(field: &mut Field, rarely: u32) -> anyhow::Result<History> {
    let quiet = field.crowd.quiet(LIMIT).await;
    field.judge("once all is well", quiet)?;
    field.await_changes().await;
    let last = match final_reads(field.cell.admin(), rarely).await {
        Ok(last) => last,
        Err(error) => {
            stuck(field, format!("{error:#}"));
            History { client: RIG.to_owned(), records: Vec::new() }
        }
    };
    await_events(field, &last).await;
    for what in field.crowd.stop(LIMIT).await? {
        stuck(field, what);
    }
    let admin = field.cell.admin();
    let path = format!("{ROOT}/members");
    let left = async || admin.read_dir(&path).await.ok().filter(Vec::is_empty).map(drop);
    let gone = until(LIMIT, "nobody is registered who is gone", left).await;
    field.judge("once all have stopped", gone)?;
    let agreed = await_agreement(field).await;
    field.judge("once all have stopped", agreed)?;
    field.look_after()?;
    let ids: Vec<u64> = field.cell.replicas.keys().copied().collect();
    for id in ids {
        let Some(replica) = field.cell.replicas.get_mut(&id) else { continue };
        let stopped = replica.stop(Signal::SIGTERM, LIMIT).await;
        field.judge("at the end", stopped)?;
    }
    Ok(last)
}

/// Waits until all replicas have applied the same, and compares what has come of it.
async fn await_agreement(field: &Field) -> anyhow::Result<()> {
    let agreed = field.cell.agreed(&field.net, LIMIT).await?;
    let [state] = &*agreed else {
        let what = format!("replicas have applied the same and differ: {}", agreed.join("; "));
        return Err(Unmet::new(Invariant::Determinism, what).into());
    };
    field.say(&format!("all replicas agree: {state}"));
    Ok(())
}

/// Waits until every watcher has been told of the last change. That one has not within the limit is a lost change.
async fn await_events(field: &mut Field, last: &History) {
    let mut missing = None;
    let told = until(LIMIT, "all watchers are told of the last change", async || {
        let mut histories = field.crowd.histories_of_present().ok()?;
        histories.push(last.clone());
        missing = are_told(&histories).err();
        missing.is_none().then_some(())
    })
    .await;
    if let Err(error) = told {
        let what = missing.map_or_else(String::new, |violation| violation.what);
        field.note(Violation::new(Invariant::NoLostChange, format!("{error:#}: {what}")));
    }
}

fn stuck(field: &mut Field, what: String) {
    field.note(Violation::new(Invariant::Progress, what));
}

/// What the files hold when nobody writes any more.
async fn final_reads(cell: &holdfast::Cell, rarely: u32) -> anyhow::Result<History> {
    let name = cell.status().await?.cell;
    let mut records = Vec::new();
    for path in files() {
        let began = clock::now();
        let contents = cell.contents(&path).await.with_context(|| format!("cannot read {path}"))?;
        let event = Event::Read {
            path: format!("/ls/{name}{path}"),
            instance: contents.stat.instance,
            began,
            contents: String::from_utf8_lossy(&contents.bytes).into_owned(),
            generation: contents.stat.content_generation,
            cached: false,
        };
        records.push(Record { at: clock::now(), event });
    }
    for path in (0..rarely).map(rarely_changed) {
        let found = cell.stat(&path).await.with_context(|| format!("cannot read {path}"))?;
        let event =
            Event::Changed { path: format!("/ls/{name}{path}"), generation: found.stat.content_generation };
        records.push(Record { at: clock::now(), event });
    }
    Ok(History { client: RIG.to_owned(), records })
}

/// Where a run keeps its files.
enum Directory {
    Temporary(tempfile::TempDir),
    Kept(PathBuf),
}

impl Directory {
    fn create(options: &Options) -> anyhow::Result<Self> {
        match &options.dir {
            Some(dir) => {
                std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
                let dir = dir.canonicalize()?;
                let empty = std::fs::read_dir(&dir)?.next().is_none();
                anyhow::ensure!(
                    empty,
                    "{} is not empty: give each run a directory of its own",
                    dir.display()
                );
                Ok(Self::Kept(dir))
            }
            None => Ok(Self::Temporary(tempfile::TempDir::with_prefix("holdfast-torture-")?)),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Temporary(dir) => dir.path(),
            Self::Kept(dir) => dir,
        }
    }

    fn keep(self) -> PathBuf {
        match self {
            Self::Temporary(dir) => dir.keep(),
            Self::Kept(dir) => dir,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_of_half_an_hour_changes_a_file_that_none_changes_again() {
        let faults = |minutes: u64| {
            let all = Powers { wanted: &[], net: true, disk: true };
            (0..20).map(move |seed| schedule(seed, Duration::from_secs(60 * minutes), all).len())
        };
        for planned in faults(5).chain(faults(29)) {
            assert_eq!(changed_rarely(planned) as usize, planned);
        }
        assert!(
            faults(600).all(|planned| changed_rarely(planned) as usize == RARELY_MAX),
            "handles are dear"
        );
    }
}
