//! Runs seeds of the simulation and tells what came of them.
//!
//! Exit status: 0 if all passed, 3 if something got stuck after healing, 4 if a machine crashed, 5 if a safety
//! invariant broke (the greatest counts), 2 if the command line is wrong. With `--until-found`: 0 if a seed failed, 1
//! if none did. With `--strength`: 0 if every planted fault was found, 1 if not.

#![forbid(unsafe_code)]

mod cli;
mod interrupt;
mod many;
mod strength;
mod tally;

use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use holdfast_sim::plan::Plan;
use holdfast_sim::{COMMIT, Options, PLANTED_BUILD, Report, Search, Verdict, catch_panics, replay, run};
use holdfast_types::Planted;

use cli::Cli;
use many::Batch;
use tally::{Tally, pace};

fn main() -> ExitCode {
    let cli = Cli::parse();
    catch_panics();
    let status = match (cli.seed, cli.seeds.clone(), cli.forever) {
        (Some(seed), _, _) => run_one(seed, &cli),
        (None, Some(seeds), _) if cli.strength => tell_strength(seeds, &cli),
        (None, Some(seeds), _) => run_range(seeds, &cli),
        (None, None, first) => run_on(first.flatten().unwrap_or_else(seed_of_now), &cli),
    };
    ExitCode::from(status)
}

/// Runs one seed and tells all about it.
fn run_one(seed: u64, cli: &Cli) -> u8 {
    let (began, options) = (Instant::now(), cli.options());
    let report = run(seed, &options);
    println!("seed {seed}: {}", report.plan);
    println!("commit {COMMIT}, {} faults", report.faults);
    println!("trace hash {:016x}", report.trace_hash);
    println!("{}", report.stats);
    println!("{}", report.coverage);
    println!("{}", pace(report.ended.as_nanos(), began));
    println!("{}", report.verdict);
    if report.verdict != Verdict::Passed {
        println!("replay: {} --log", replay(seed, &options));
        if cli.shrink {
            shrink(&report, options);
        }
    }
    report.verdict.exit_status()
}

/// Looks for a smaller run that fails in the same way, and tells how to run it.
fn shrink(report: &Report, options: Options) {
    let Some(wanted) = report.verdict.violation().map(|violation| violation.invariant) else { return };
    let mut tries = 0;
    let fails = |options: &Options| {
        tries += 1;
        let smaller = run(report.seed, options);
        let same = smaller.verdict.violation().is_some_and(|violation| violation.invariant == wanted);
        if same {
            println!("try {tries} still fails: {}", summary(report, options));
        }
        same
    };
    let clients = Plan::draw(report.seed, &options).clients;
    let smallest = Search::new(options, report.faults, clients, fails).smallest();
    println!("after {tries} tries the smallest that fails has {}", summary(report, &smallest));
    println!("{}", run(report.seed, &smallest).verdict);
    println!("replay: {} --log", replay(report.seed, &smallest));
}

/// What is left of a run.
fn summary(report: &Report, options: &Options) -> String {
    let calm: Vec<String> = options.calm.iter().map(ToString::to_string).collect();
    format!(
        "{} of {} faults, {} clients, {} s{}{}",
        options.only.as_ref().map_or(report.faults as usize, |only| only.len()),
        report.faults,
        Plan::draw(report.seed, options).clients,
        options.seconds,
        if calm.is_empty() { "" } else { ", calm: " },
        calm.join(", ")
    )
}

/// Runs a range of seeds.
fn run_range(seeds: std::ops::Range<u64>, cli: &Cli) -> u8 {
    let first = seeds.start;
    let batch = whole(seeds, cli);
    let batch = if cli.until_found { Batch { failures_max: 1, ..batch } } else { batch };
    let began = Instant::now();
    let tally = batch.run(|| false, |_| {});
    println!("{tally}\n{}", tally.pace(began));
    if cli.until_found { tell_found(&tally, first) } else { tally.worst_status() }
}

/// Every seed of a range, however many fail.
fn whole(seeds: std::ops::Range<u64>, cli: &Cli) -> Batch {
    Batch { seeds, options: cli.options(), threads: cli.threads(), failures_max: u64::MAX, quiet: false }
}

/// Plants one fault after the other and tells how each is found.
fn tell_strength(seeds: std::ops::Range<u64>, cli: &Cli) -> u8 {
    if !Planted::POSSIBLE {
        println!("this build cannot plant faults: {PLANTED_BUILD} -- --strength ...");
        return 2;
    }
    let all = || Planted::ALL.iter().map(|(_, fault)| *fault).collect();
    let faults: Vec<Planted> = cli.planted.map_or_else(all, |fault| vec![fault]);
    let batch = Batch { quiet: true, ..whole(seeds.clone(), cli) };
    let (table, missing) = strength::table(&strength::measure(&faults, &batch), &seeds);
    println!("At commit {COMMIT}:\n\n{table}");
    u8::from(missing > 0)
}

/// Runs one seed after the other until interrupted, or until enough have failed.
fn run_on(first: u64, cli: &Cli) -> u8 {
    let interrupted = interrupt::watch();
    let (seeds, threads) = (first..u64::MAX, cli.threads());
    let batch = Batch { seeds, options: cli.options(), threads, failures_max: cli.failures, quiet: false };
    println!("from seed {first} on, at commit {COMMIT}");
    let began = Instant::now();
    let mut told = Instant::now();
    let tally = batch.run(interrupted, |tally| {
        if told.elapsed().as_secs() >= PROGRESS_SECONDS {
            told = Instant::now();
            println!("{} seeds, {} failed, {}", tally.runs(), tally.failures(), tally.pace(began));
        }
    });
    println!("{tally}\n{}", tally.pace(began));
    tally.worst_status()
}

/// How often a run without an end says how far it is.
const PROGRESS_SECONDS: u64 = 10;

/// A seed that nobody has chosen.
fn seed_of_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64 * 1_000)
}

/// Tells within how many seeds something was found.
fn tell_found(tally: &Tally, first_seed: u64) -> u8 {
    match tally.first_failure() {
        Some((seed, invariant)) => {
            println!("found by seed {seed}, the {}. one, as {invariant}", seed - first_seed + 1);
            0
        }
        None => {
            println!("not found within {} seeds", tally.runs());
            1
        }
    }
}
