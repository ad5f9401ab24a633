//! Runs seeds of the simulation and tells what came of them.
//!
//! Exit status: 0 if all passed, 3 if something got stuck after healing, 4 if a machine crashed, 5 if a safety
//! invariant broke (the greatest counts), 2 if the command line is wrong. With `--until-found`: 0 if a seed failed, 1
//! if none did.

use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use holdfast_sim::{Condition, Options, PLANTED_BUILD, Report, Verdict, catch_panics, replay, run, sum};
use holdfast_types::Planted;

/// Simulates Holdfast cells with their clients, under faults, and checks what must be true.
#[derive(Parser, Debug)]
#[command(name = "holdfast-sim", version)]
struct Cli {
    /// Run this seed and print all about it
    #[arg(long, conflicts_with = "seeds", required_unless_present = "seeds")]
    seed: Option<u64>,
    /// Run these seeds, the last one not included
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    seeds: Option<std::ops::Range<u64>>,
    /// How many replicas; by default drawn from the seed
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=9))]
    replicas: Option<u64>,
    /// How many clients; by default drawn from the seed
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    clients: Option<u64>,
    /// How long faults happen, in simulated seconds
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Of the faults only these happen, by their numbers in the timeline; or none (with --seed)
    #[arg(long, value_name = "N,N,..", requires = "seed", value_parser = parse_numbers)]
    only: Option<Numbers>,
    /// Conditions that are good, whatever the seed says: loss, doubles, late, flights, syncs
    #[arg(long, value_name = "NAME,NAME,..", value_delimiter = ',', value_parser = parse_condition)]
    calm: Vec<Condition>,
    /// Print a timeline (with --seed)
    #[arg(long, requires = "seed")]
    log: bool,
    /// How many seeds to run at once; by default one a core
    #[arg(long)]
    jobs: Option<usize>,
    /// Give the machines this fault, to see whether it is found; the program must be built for that
    #[arg(long, value_name = "NAME", value_parser = parse_fault)]
    planted: Option<Planted>,
    /// Stop at the first seed that fails, and tell how many it took
    #[arg(long, requires = "seeds")]
    until_found: bool,
}

/// The numbers of faults.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Numbers(BTreeSet<u32>);

impl Cli {
    fn options(&self) -> Options {
        let count = |given: Option<u64>| given.and_then(|count| usize::try_from(count).ok());
        Options {
            replicas: count(self.replicas),
            clients: count(self.clients),
            seconds: self.seconds,
            log: self.log,
            only: self.only.clone().map(|Numbers(numbers)| numbers),
            calm: self.calm.iter().copied().collect(),
            planted: self.planted,
        }
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    catch_panics();
    let began = Instant::now();
    match (cli.seed, cli.seeds.clone()) {
        (Some(seed), _) => {
            let report = run(seed, &cli.options());
            tell_one(&cli, &report, began);
            ExitCode::from(report.verdict.exit_status())
        }
        (None, seeds) => {
            let seeds = seeds.unwrap_or_default();
            let reports = run_many(&cli, seeds.clone());
            tell_many(&reports, began);
            if cli.until_found {
                return tell_found(&reports, seeds.start);
            }
            let worst = reports.iter().map(|report| report.verdict.exit_status()).max();
            ExitCode::from(worst.unwrap_or(0))
        }
    }
}

/// Runs seeds on several threads, each run on one. Failures are told as they come.
fn run_many(cli: &Cli, seeds: std::ops::Range<u64>) -> Vec<Report> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(seeds.start);
    // What was begun before a seed failed is finished: an earlier seed may fail too.
    let end = AtomicU64::new(seeds.end);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..cli.jobs.unwrap_or(cores).max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end.load(Ordering::Relaxed) {
                        break;
                    }
                    let report = run(seed, &cli.options());
                    if report.verdict != Verdict::Passed {
                        println!(
                            "seed {seed}: {}\n    replay: {}",
                            report.verdict,
                            replay(seed, &cli.options())
                        );
                        if cli.until_found {
                            end.fetch_min(seed, Ordering::Relaxed);
                        }
                    }
                    if let Ok(mut reports) = reports.lock() {
                        reports.push(report);
                    }
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap_or_default();
    reports.sort_by_key(|report: &Report| report.seed);
    reports
}

fn tell_one(cli: &Cli, report: &Report, began: Instant) {
    println!("seed {}: {}", report.seed, report.plan);
    println!("trace hash {:016x}", report.trace_hash);
    println!("{}", report.stats);
    println!("{}", pace(report.ended.as_nanos(), began));
    println!("{}", report.verdict);
    if report.verdict != Verdict::Passed {
        println!("replay: {} --log", replay(report.seed, &cli.options()));
    }
}

fn tell_many(reports: &[Report], began: Instant) {
    let count = |wanted: u8| reports.iter().filter(|report| report.verdict.exit_status() == wanted).count();
    let stats = sum(reports);
    println!("{stats}");
    if !stats.missing().is_empty() {
        println!("never happened: {}", stats.missing().join(", "));
    }
    println!("{}", pace(reports.iter().map(|report| report.ended.as_nanos()).sum(), began));
    println!(
        "{} seeds: {} passed, {} unsafe, {} stuck, {} crashed",
        reports.len(),
        count(0),
        count(5),
        count(3),
        count(4)
    );
    let mut by_invariant: BTreeMap<_, u64> = BTreeMap::new();
    for violation in reports.iter().filter_map(|report| report.verdict.violation()) {
        *by_invariant.entry(violation.invariant).or_default() += 1;
    }
    for (invariant, seeds) in by_invariant {
        println!("{invariant}: {seeds} seeds");
    }
}

/// Tells within how many seeds something was found.
fn tell_found(reports: &[Report], first_seed: u64) -> ExitCode {
    match reports.iter().find_map(|report| Some((report.seed, report.verdict.violation()?))) {
        Some((seed, violation)) => {
            println!("found by seed {seed}, the {}. one, as {}", seed - first_seed + 1, violation.invariant);
            ExitCode::SUCCESS
        }
        None => {
            println!("not found within {} seeds", reports.len());
            ExitCode::FAILURE
        }
    }
}

/// How fast that went.
fn pace(simulated_nanos: u64, began: Instant) -> String {
    let simulated = simulated_nanos as f64 / 1e9;
    let real = began.elapsed().as_secs_f64();
    format!("{simulated:.1} s simulated in {real:.2} s, {:.0} times real time", simulated / real.max(1e-9))
}

fn parse_range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let wrong = || format!("{text:?} is no range of seeds: write A..B, for example 0..1000");
    let (first, end) = text.split_once("..").ok_or_else(wrong)?;
    let (first, end) = (first.parse().map_err(|_| wrong())?, end.parse().map_err(|_| wrong())?);
    if first < end {
        Ok(first..end)
    } else {
        Err(format!("{text:?} holds no seed: the end comes after the first"))
    }
}

fn parse_numbers(text: &str) -> Result<Numbers, String> {
    if text == "none" {
        return Ok(Numbers(BTreeSet::new()));
    }
    let numbers: Result<_, _> = text.split(',').map(str::parse).collect();
    let wrong = |_| format!("{text:?} is no list of faults: write numbers, for example 3,7,12, or none");
    numbers.map(Numbers).map_err(wrong)
}

fn parse_condition(name: &str) -> Result<Condition, String> {
    let names: Vec<&str> = Condition::ALL.iter().map(|(name, _)| *name).collect();
    Condition::named(name).ok_or_else(|| format!("there is no such condition: {}", names.join(", ")))
}

fn parse_fault(name: &str) -> Result<Planted, String> {
    let names: Vec<&str> = Planted::ALL.iter().map(|(name, _)| *name).collect();
    let fault =
        Planted::named(name).ok_or_else(|| format!("there is no such fault: {}", names.join(", ")))?;
    if !Planted::POSSIBLE {
        return Err(format!("this build cannot plant faults: {PLANTED_BUILD} -- --planted {name} ..."));
    }
    Ok(fault)
}
