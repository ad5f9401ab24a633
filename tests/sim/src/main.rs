//! Runs seeds of the simulation and tells what came of them.
//!
//! Exit status: 0 if all passed, 3 if something got stuck after healing, 4 if a machine crashed, 5 if a safety
//! invariant broke (the greatest counts), 2 if the command line is wrong.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use holdfast_sim::{Options, Report, Verdict, catch_panics, run, sum};

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
    /// Print a timeline (with --seed)
    #[arg(long, requires = "seed")]
    log: bool,
    /// How many seeds to run at once; by default one a core
    #[arg(long)]
    jobs: Option<usize>,
}

impl Cli {
    fn options(&self) -> Options {
        let count = |given: Option<u64>| given.and_then(|count| usize::try_from(count).ok());
        Options {
            replicas: count(self.replicas),
            clients: count(self.clients),
            seconds: self.seconds,
            log: self.log,
        }
    }

    /// The command that runs a seed again.
    fn replay(&self, seed: u64) -> String {
        let mut command = format!("cargo run --release -p holdfast-sim -- --seed {seed}");
        if let Some(replicas) = self.replicas {
            command += &format!(" --replicas {replicas}");
        }
        if let Some(clients) = self.clients {
            command += &format!(" --clients {clients}");
        }
        if self.seconds != 30 {
            command += &format!(" --seconds {}", self.seconds);
        }
        command
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
            let reports = run_many(&cli, seeds.unwrap_or_default());
            tell_many(&reports, began);
            let worst = reports.iter().map(|report| report.verdict.exit_status()).max();
            ExitCode::from(worst.unwrap_or(0))
        }
    }
}

/// Runs seeds on several threads, each run on one. Failures are told as they come.
fn run_many(cli: &Cli, seeds: std::ops::Range<u64>) -> Vec<Report> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(seeds.start);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..cli.jobs.unwrap_or(cores).max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end {
                        break;
                    }
                    let report = run(seed, &cli.options());
                    if report.verdict != Verdict::Passed {
                        println!("seed {seed}: {}\n    replay: {}", report.verdict, cli.replay(seed));
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
        println!("replay: {} --log", cli.replay(report.seed));
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
