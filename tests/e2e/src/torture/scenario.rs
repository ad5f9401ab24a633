//! What a run does, and how it is told to. Each scenario is a module of its own.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

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
}

/// How to do it.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// How long faults happen
    #[arg(long, default_value = "5", value_parser = parse_minutes)]
    pub minutes: f64,
    /// What the faults are drawn from; by default from the clock
    #[arg(long)]
    pub seed: Option<u64>,
    /// How many replicas found the cell
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(3..=7))]
    pub replicas: u8,
    /// How many client processes there are
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=30))]
    pub clients: u8,
    /// How many sessions the soak has; 10,000 by default
    #[arg(long)]
    pub sessions: Option<usize>,
    /// Make no network namespaces: everything on the loopback device, and no faults of the network but those of a relay
    #[arg(long)]
    pub no_namespaces: bool,
    /// Keep data, logs and history here, whatever comes of it; by default in a temporary directory that stays only if
    /// something is wrong
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

fn parse_minutes(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(minutes) if minutes > 0.0 && minutes <= 7.0 * 24.0 * 60.0 => Ok(minutes),
        _ => Err("write a number of minutes, more than none and at most a week's".to_owned()),
    }
}

impl Scenario {
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
        }
    }
}
