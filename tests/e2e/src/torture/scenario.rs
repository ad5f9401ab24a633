//! What a run does, and how it is told to. Each scenario is a module of its own.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use holdfast_greedy::Kind as Greedy;

use super::schedule::Kind;
use super::{run, sessions};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// All kinds of faults, drawn from the seed, while clients of all kinds work; judged by what they saw
    Torture,
    /// Sessions while one in five packets is lost
    Loss,
    /// Sessions while the master is cut off for ten seconds
    Partition,
    /// Thousands of sessions, locks and watches, and a kill of the master a minute
    Soak,
    /// Honest sessions with locks beside one greedy client after another, which share the time
    Greedy,
}

/// How to do it.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How long faults happen
    #[arg(long, default_value = "5", value_parser = parse_minutes)]
    pub minutes: f64,
    /// What the faults and the clients' choices are drawn from; by default from the clock. Only of `torture`: the other
    /// scenarios do the same every time
    #[arg(long)]
    pub seed: Option<u64>,
    /// Do only these kinds of faults, separated by commas; only of `torture`
    #[arg(long, value_name = "KINDS", value_enum, value_delimiter = ',')]
    pub faults: Vec<Kind>,
    /// How many replicas found the cell
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=7))]
    pub replicas: u8,
    /// How many client processes `torture` has; 5 by default
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=30))]
    pub clients: Option<u8>,
    /// How many sessions `soak` has; 10,000 by default
    #[arg(long)]
    pub sessions: Option<usize>,
    /// Only these kinds of greedy clients, separated by commas; only of `greedy`. By default all
    #[arg(long, value_name = "KINDS", value_enum, value_delimiter = ',')]
    pub greedy: Vec<Greedy>,
    /// How much of what a greedy client's kind stands for it wants, in hundredths; only of `greedy`. 100 by default
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub greedy_percent: Option<u32>,
    /// Make no network namespaces: everything on the loopback device, and no faults of the network but those of a relay
    #[arg(long)]
    pub no_namespaces: bool,
    /// Keep data, logs and history here, whatever comes of it; by default in a temporary directory that stays only if
    /// something is wrong
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

impl Options {
    /// The kinds of greedy clients, in order.
    #[must_use]
    pub fn greedy_kinds(&self) -> Vec<Greedy> {
        if self.greedy.is_empty() { Greedy::ALL.to_vec() } else { self.greedy.clone() }
    }

    /// How much they want, in hundredths.
    #[must_use]
    pub fn greedy_percent(&self) -> u32 {
        self.greedy_percent.unwrap_or(100)
    }
}

fn parse_minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes <= 7.0 * 24.0 * 60.0 => Ok(minutes),
        _ => Err("write a number of minutes, more than none and at most a week's".to_owned()),
    }
}

impl Scenario {
    /// Whether an option that was given would have no effect.
    ///
    /// # Errors
    ///
    /// Which, and why.
    pub fn check(self, options: &Options) -> Result<(), String> {
        let is_torture = self == Self::Torture;
        let what = match options {
            Options { seed: Some(_), .. } if !is_torture => {
                "--seed: this scenario draws nothing from a seed. It does the same every time, and what packets and \
                 processes make of it no seed decides"
            }
            Options { faults, .. } if !is_torture && !faults.is_empty() => {
                "--faults: this scenario has a fault of its own"
            }
            Options { clients: Some(_), .. } if !is_torture => {
                "--clients: this scenario has a number of processes of its own"
            }
            Options { sessions: Some(_), .. } if self != Self::Soak => {
                "--sessions: only soak has as many as one wishes"
            }
            Options { greedy, .. } if self != Self::Greedy && !greedy.is_empty() => {
                "--greedy: only the scenario greedy has greedy clients"
            }
            Options { greedy_percent: Some(_), .. } if self != Self::Greedy => {
                "--greedy-percent: only the scenario greedy has greedy clients"
            }
            _ => return Ok(()),
        };
        Err(what.to_owned())
    }

    /// Runs it, and says the exit status: 0 if nothing was wrong; 3, 4 and 5 as the simulator's program has it.
    ///
    /// # Errors
    ///
    /// If it cannot be run: that says nothing about the cell.
    pub async fn run(self, options: &Options) -> anyhow::Result<u8> {
        match self {
            Self::Torture => run::run(options).await,
            Self::Loss => sessions::loss(options).await,
            Self::Partition => sessions::partition(options).await,
            Self::Soak => sessions::soak(options).await,
            Self::Greedy => sessions::greedy(options).await,
        }
    }
}
