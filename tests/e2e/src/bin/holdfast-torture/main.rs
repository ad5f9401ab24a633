//! Attacks a cell of real processes while real clients work, and judges what they saw.
//!
//! The replicas and the clients are this same program, started again: see `holdfast_e2e::torture::parts`. Exit status:
//! 0 if nothing was wrong, 3 if something got stuck after healing, 4 if a process ended that had no reason to, 5 if a
//! safety invariant broke, 2 if the command line is wrong, 1 if the run itself was not possible.

#![forbid(unsafe_code)]

#[path = "../../../../../server/daemon/src/main.rs"]
mod daemon;

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser};
use holdfast_e2e::torture::scenario::{Options, Scenario};
use holdfast_e2e::torture::{client, parts, sessions};

/// Attacks a cell of real Holdfast processes, and judges what its clients saw.
#[derive(Debug, Parser)]
#[command(name = "holdfast-torture", version)]
struct Arguments {
    /// What to do
    #[arg(long, value_enum, default_value_t = Scenario::Torture)]
    scenario: Scenario,
    #[command(flatten)]
    options: Options,
}

fn main() -> ExitCode {
    #[cfg(holdfast_planted)]
    if let Some(parts::CLIENT | parts::CROWD) = parts::name().as_deref()
        && let Err(error) = holdfast_server::planted::take(std::env::vars_os())
    {
        return failed(&error);
    }
    let status = match parts::name().as_deref() {
        Some(parts::TIE) => parts::tie().map(|never| match never {}),
        Some(parts::CROWD) => sessions::crowd::run().map(|()| ExitCode::SUCCESS),
        Some(parts::GREEDY) => holdfast_greedy::run::process().map(|()| ExitCode::SUCCESS),
        Some(parts::REPLICA) => return daemon::main(),
        Some(parts::CLIENT) => client::run().map(|()| ExitCode::SUCCESS),
        _ => {
            let arguments = Arguments::parse();
            if let Err(why) =
                arguments.scenario.check(&arguments.options).and_then(|()| parts::check_planted())
            {
                Arguments::command().error(ErrorKind::ArgumentConflict, why).exit();
            }
            run(&arguments)
        }
    };
    status.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("holdfast-torture: {error:#}\n"));
    ExitCode::FAILURE
}

/// In one thread, which the parts of the run are tied to, and which moves between the networks of the run.
fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(arguments.scenario.run(&arguments.options))?;
    Ok(ExitCode::from(status))
}
