//! The command line: what may be asked for, and what each wrong word is answered with.

use std::collections::BTreeSet;
use std::ops::Range;

use clap::{ArgGroup, Parser};
use holdfast_sim::{Condition, Invariant, Options, PLANTED_BUILD};
use holdfast_types::Planted;

/// Simulates Holdfast cells with their clients, under faults, and checks what must be true.
#[derive(Parser, Debug)]
#[command(name = "holdfast-sim", version)]
#[command(group = ArgGroup::new("what").required(true).args(["seed", "seeds", "forever"]))]
pub(crate) struct Cli {
    /// Run this seed and print all about it
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Run these seeds, the last one not included
    #[arg(long, value_name = "A..B", value_parser = parse_range)]
    pub(crate) seeds: Option<Range<u64>>,
    /// Run one seed after the other until interrupted, from this one on; without one, from one that the time gives
    #[arg(long, value_name = "SEED", num_args = 0..=1)]
    pub(crate) forever: Option<Option<u64>>,
    /// How many replicas; by default drawn from the seed
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=9))]
    replicas: Option<u64>,
    /// How many clients; by default drawn from the seed
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100))]
    clients: Option<u64>,
    /// How long faults happen, in simulated seconds
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    seconds: u64,
    /// Of the faults only these happen, by their numbers in the timeline; or none (with --seed)
    #[arg(long, value_name = "N,N,..", conflicts_with_all = ["seeds", "forever"], value_parser = parse_numbers)]
    only: Option<Numbers>,
    /// Conditions that are good, whatever the seed says: loss, doubles, late, flights, syncs
    #[arg(long, value_name = "NAME,NAME,..", value_delimiter = ',', value_parser = parse_condition)]
    calm: Vec<Condition>,
    /// Print a timeline (with --seed)
    #[arg(long, conflicts_with_all = ["seeds", "forever"])]
    log: bool,
    /// If the seed fails, look for a smaller run that fails in the same way (with --seed)
    #[arg(long, conflicts_with_all = ["seeds", "forever", "log"])]
    pub(crate) shrink: bool,
    /// How many seeds to run at once; by default one a core
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) jobs: Option<u16>,
    /// Stop after so many seeds that failed (with --forever)
    #[arg(long, conflicts_with_all = ["seed", "seeds"], value_name = "N", default_value_t = 10)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) failures: u64,
    /// Give the machines this fault, to see whether it is found; the program must be built for that
    #[arg(long, value_name = "NAME", value_parser = parse_fault)]
    pub(crate) planted: Option<Planted>,
    /// Plant every fault in turn, or only the one that is named, and print a table of how they are found (with --seeds)
    #[arg(long, conflicts_with_all = ["seed", "forever", "until_found"])]
    pub(crate) strength: bool,
    /// Stop at the first seed that fails, and tell how many it took
    #[arg(long, conflicts_with_all = ["seed", "forever"])]
    pub(crate) until_found: bool,
    /// Every run fails in this way when its faults stop, to try out what is done with failures: I1 to I10, survival
    #[arg(long, hide = true, value_parser = parse_invariant)]
    pretend: Option<Invariant>,
}

/// The numbers of faults.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Numbers(BTreeSet<u32>);

impl Cli {
    pub(crate) fn options(&self) -> Options {
        let count = |given: Option<u64>| given.and_then(|count| usize::try_from(count).ok());
        Options {
            replicas: count(self.replicas),
            clients: count(self.clients),
            seconds: self.seconds,
            log: self.log,
            only: self.only.clone().map(|Numbers(numbers)| numbers),
            calm: self.calm.iter().copied().collect(),
            pretend: self.pretend,
            planted: self.planted,
        }
    }

    /// How many seeds run at once.
    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        self.jobs.map_or_else(cores, usize::from)
    }
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
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

fn parse_invariant(code: &str) -> Result<Invariant, String> {
    let found = Invariant::ALL.into_iter().find(|invariant| invariant.code() == code);
    let codes = Invariant::ALL.map(Invariant::code).join(", ");
    found.ok_or_else(|| format!("there is no such invariant: {codes}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_replay_command_is_read_as_what_it_was_written_for() {
        let options = Options {
            replicas: Some(5),
            clients: Some(20),
            seconds: 9,
            only: Some(BTreeSet::from([3, 7])),
            calm: BTreeSet::from([Condition::Loss, Condition::Syncs]),
            pretend: Some(Invariant::Progress),
            ..Options::default()
        };
        for options in
            [Options { only: Some(BTreeSet::new()), ..options.clone() }, options, Options::default()]
        {
            let command = holdfast_sim::replay(7, &options);
            let (_, arguments) = command.split_once(" -- ").expect("arguments");
            let cli = Cli::try_parse_from(["holdfast-sim"].into_iter().chain(arguments.split(' '))).unwrap();
            assert_eq!((cli.seed, cli.options()), (Some(7), options));
        }
    }
}
