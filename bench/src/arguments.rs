//! The command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use holdfast_greedy::Kind;

use crate::cacher::CacherFlags;
use crate::replica::ReplicaFlags;
use crate::work::Work;
use crate::work::fairness::CompanionFlags;

/// Measures Holdfast cells.
#[derive(Debug, Parser)]
#[command(name = "holdfast-bench", version, max_term_width = 110)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Run),
    /// Becomes one replica of the cell that `run` measures.
    #[command(name = crate::replica::COMMAND, hide = true)]
    Replica(Box<ReplicaFlags>),
    /// Becomes a client that does nothing but cache, until it is killed.
    #[command(name = crate::cacher::COMMAND, hide = true)]
    Cacher(CacherFlags),
    /// Becomes a process beside the honest client of `--work fairness`.
    #[command(name = crate::work::fairness::COMMAND, hide = true)]
    Companion(CompanionFlags),
}

/// Starts a cell of three replicas on loopback, its data in a temporary directory (of TMPDIR), and measures it. A
/// client is a task that begins its next operation when its last is done; clients share up to eight sessions, each
/// with a connection of its own. With dead-cacher, each has a session of its own, and its turn twice a second.
#[derive(Clone, Debug, Args)]
pub(crate) struct Run {
    /// Measure only this; can be repeated. By default everything but fairness.
    #[arg(long = "work", value_name = "NAME")]
    pub(crate) works: Vec<Work>,
    /// With so many clients; can be repeated. By default 1, 64 and 256, or what suits the work. A work that needs
    /// more is left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) clients: Vec<u32>,
    /// How long each measurement takes, after its warm-up.
    #[arg(long, value_name = "S", default_value = "5", value_parser = parse_seconds)]
    pub(crate) seconds: Duration,
    /// How often the master is killed.
    #[arg(long, value_name = "N", default_value = "9", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) trials: u32,
    /// Measure the cell that serves here (host:port, separated by commas) instead of starting one. No master is
    /// killed then.
    #[arg(long, value_name = "ADDRESSES")]
    pub(crate) addresses: Option<String>,
    /// Measure fairness only beside these kinds of greedy clients, separated by commas. By default beside each.
    #[arg(long, value_name = "KINDS", value_enum, value_delimiter = ',')]
    pub(crate) greedy: Vec<Kind>,
    /// How much of what a greedy client's kind stands for it wants: in hundredths.
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) greedy_percent: u32,
    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
    /// Print, on standard error, what processor time an operation costs, and what checks a measurement.
    #[arg(long)]
    pub(crate) verbose: bool,
}

impl Run {
    /// What to measure and with how many clients, in order.
    pub(crate) fn plan(&self) -> Vec<(Work, u32)> {
        let works = if self.works.is_empty() { self.default_works() } else { self.works.clone() };
        works
            .into_iter()
            .flat_map(|work| self.clients(work).into_iter().map(move |count| (work, count)))
            .collect()
    }

    /// Beside which kinds of greedy clients fairness is measured, in order.
    pub(crate) fn greedy_kinds(&self) -> Vec<Kind> {
        if self.greedy.is_empty() { Kind::ALL.to_vec() } else { self.greedy.clone() }
    }

    fn default_works(&self) -> Vec<Work> {
        // Without processes of our own there is none to kill.
        let possible = |work: &Work| self.addresses.is_none() || !work.needs_own_cell();
        Work::ALL.into_iter().filter(possible).collect()
    }

    fn clients(&self, work: Work) -> Vec<u32> {
        let clients = if self.clients.is_empty() { work.default_clients() } else { &self.clients };
        clients.iter().copied().filter(|count| *count >= work.clients_min()).collect()
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.1..=3600.0).contains(seconds));
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| "write a number of seconds from 0.1 to 3600".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn run(line: &str) -> Run {
        match Arguments::try_parse_from(line.split(' ')).unwrap().command {
            Command::Run(run) => run,
            Command::Replica(_) | Command::Cacher(_) | Command::Companion(_) => panic!("{line} is no run"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn without_a_choice_everything_is_measured_but_no_foreign_master_is_killed() {
        let plan = run("holdfast-bench run").plan();
        assert!(Work::ALL.iter().all(|work| plan.iter().any(|(planned, _)| planned == work)));
        let reads = plan.iter().filter(|(work, _)| *work == Work::Read).map(|(_, clients)| *clients);
        assert_eq!(reads.collect::<Vec<_>>(), [1, 64, 256]);
        let foreign = run("holdfast-bench run --addresses h:1,h:2").plan();
        let ours: Vec<_> = plan.into_iter().filter(|(work, _)| !work.needs_own_cell()).collect();
        assert_eq!(foreign, ours);
    }

    #[test]
    fn works_and_clients_can_be_chosen_and_repeated() {
        let run = run("holdfast-bench run --work read --work handoff --clients 3 --clients 1 --seconds 0.5");
        assert_eq!(
            run.plan(),
            [(Work::Read, 3), (Work::Read, 1), (Work::Handoff, 3)],
            "nobody hands over alone"
        );
        assert_eq!(run.seconds, Duration::from_millis(500));
    }

    #[test]
    fn kinds_of_greedy_clients_can_be_chosen() {
        let chosen =
            run("holdfast-bench run --work fairness --greedy held-calls,read-dir --greedy-percent 5");
        assert_eq!(chosen.plan(), [(Work::Fairness, 1)]);
        assert_eq!((chosen.greedy_kinds(), chosen.greedy_percent), (vec![Kind::HeldCalls, Kind::ReadDir], 5));
        let all = run("holdfast-bench run --work fairness");
        assert_eq!(all.greedy_kinds(), Kind::ALL);
        assert!(run("holdfast-bench run").plan().iter().all(|(work, _)| *work != Work::Fairness));
    }

    #[test]
    fn what_cannot_be_measured_is_a_usage_error() {
        for option in [
            "--clients 0",
            "--seconds 0",
            "--seconds nan",
            "--trials 0",
            "--work reading",
            "--greedy all",
            "--greedy-percent 0",
        ] {
            let line = format!("holdfast-bench run {option}");
            assert!(Arguments::try_parse_from(line.split(' ')).is_err(), "{option}");
        }
    }
}
