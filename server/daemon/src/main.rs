//! The program `holdfastd`: one replica of a cell, or a whole cell for development.
//!
//! Only the command line is here: what is run is in the library.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use holdfast_server::config::{Config, ConfigError, ConfigFlags, LogFormat, LogLevel};
use holdfast_server::dev::{DevCell, DevError, DevOptions};
use holdfast_server::{ServerError, StopSignals, logging, run_replica_blocking};
use slog::Logger;

/// The first of the ports where the command-line client looks if it is not told where.
const PORT_BASE_USUAL: u16 = 7101;

const EXIT_FAILURE: u8 = 1;
const EXIT_USAGE: u8 = 2;
const EXIT_FINAL: u8 = 3;

/// A replica of a Holdfast cell: locks, sessions and small files that stay when machines go.
#[derive(Debug, Parser)]
#[command(name = "holdfastd", version, arg_required_else_help = true, after_help = EXIT_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_HELP: &str = "\
Exit status:
  0  stopped as asked, after handing over what it led
  1  could not run, or not run on; standard error says why
  2  the command line or the configuration is wrong
  3  the replica must not come back under its id: it was removed from its cell, or its data are gone or damaged
A failing disk, or a broken invariant, ends the process with SIGABRT.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve one replica until SIGTERM or SIGINT; a second signal stops it at once.
    Run(Box<ConfigFlags>),
    /// Serve a whole cell on this machine, to try Holdfast out.
    Dev(DevFlags),
}

#[derive(Debug, clap::Args)]
struct DevFlags {
    /// The cell's name.
    #[arg(long, default_value = "dev")]
    cell: String,
    /// Keep the data here, and find them again; without it they are temporary.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Serve clients at this port and the following ones [default: 7101, where `holdfast` looks by itself, if it is
    /// free, and else any that are].
    #[arg(long, value_name = "PORT")]
    port_base: Option<u16>,
    /// How many replicas the cell has.
    #[arg(long, default_value_t = 3)]
    replicas: u16,
    /// Show what the replicas log, and not only what goes wrong.
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::Run(flags) => run(&flags),
        Command::Dev(flags) => dev(flags),
    };
    let Err(error) = ended else { return ExitCode::SUCCESS };
    // The log may be off, or JSON: whoever started the program by hand reads this.
    let _ = writeln!(std::io::stderr(), "holdfastd: {}", sentence(&error));
    ExitCode::from(exit_code(&error))
}

/// The error with those of its causes that it does not name itself.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().skip(1).map(ToString::to_string).fold(error.to_string(), |said, cause| {
        if said.contains(&cause) { said } else { format!("{said}: {cause}") }
    })
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>() {
        return EXIT_USAGE;
    }
    match error.downcast_ref::<ServerError>() {
        Some(error) if error.is_final() => EXIT_FINAL,
        _ => EXIT_FAILURE,
    }
}

fn run(flags: &ConfigFlags) -> anyhow::Result<()> {
    let config = Config::load(flags, std::env::vars_os())?;
    let (logger, _guard) = logging::start(config.log_format, config.log_level);
    Ok(run_replica_blocking(config, logger)?)
}

fn dev(flags: DevFlags) -> anyhow::Result<()> {
    let level = if flags.verbose { LogLevel::Info } else { LogLevel::Error };
    let (logger, _guard) = logging::start(LogFormat::Auto, level);
    let DevFlags { cell, data_dir, port_base, replicas, .. } = flags;
    let options = DevOptions { cell, replicas, data_dir, port_base };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = StopSignals::listen()?;
        let mut cell = tokio::select! {
            started = start_dev_cell(options, logger) => started?,
            () = signals.next() => return Ok(()),
        };
        print!("{}", welcome(&cell));
        std::io::stdout().flush().context("cannot write to standard output")?;
        tokio::select! {
            () = signals.next() => println!("stopping; interrupt again to stop at once"),
            failed = cell.failed() => return Err(failed.into()),
        }
        tokio::select! {
            stopped = cell.stop() => Ok(stopped?),
            () = signals.next() => Ok(()),
        }
    })
}

/// Starts the cell where `holdfast` looks by itself, unless told otherwise, or unless the ports are taken.
async fn start_dev_cell(options: DevOptions, logger: Logger) -> Result<DevCell, DevError> {
    if options.port_base.is_none() && options.data_dir.is_none() {
        let usual = DevOptions { port_base: Some(PORT_BASE_USUAL), ..options.clone() };
        match DevCell::start(usual, logger.clone()).await {
            Err(DevError::Listen(_)) => {}
            started => return started,
        }
    }
    DevCell::start(options, logger).await
}

/// What to type next.
fn welcome(cell: &DevCell) -> String {
    let addresses = cell.addresses();
    let name = cell.name();
    format!(
        "The cell {name:?} serves with {replicas} replicas; its data are in {dir}.\n\
         Stop it with Ctrl-C. In another terminal:\n\
         \n\
         \x20 export HOLDFAST_ADDRESSES={addresses}\n\
         \x20 holdfast status\n\
         \x20 echo hello | holdfast put /ls/{name}/greeting\n\
         \x20 holdfast cat /ls/{name}/greeting\n\
         \x20 holdfast lock /ls/{name}/my-lock -- sh -c 'echo I hold $HOLDFAST_SEQUENCER; sleep 5'\n\
         \n",
        replicas = addresses.len(),
        dir = cell.data_dir().display(),
        addresses = addresses.join(","),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use holdfast_server::identity::IdentityError;
    use holdfast_types::ReplicaId;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_cause_is_told_once() {
        let source = || std::io::Error::other("the disk is gone");
        let named = IdentityError::Io { action: "open", path: "d".into(), source: source() };
        assert_eq!(sentence(&named.into()), "cannot open d: the disk is gone");
        assert_eq!(sentence(&anyhow::Error::new(source()).context("no")), "no: the disk is gone");
    }

    #[test]
    fn a_wrong_configuration_and_a_lost_replica_have_exit_codes_of_their_own() {
        let config = ConfigError::Wrong { place: "cell".into(), what: "no".into() };
        assert_eq!(exit_code(&config.into()), EXIT_USAGE);
        assert_eq!(exit_code(&ServerError::Refused("no".into()).into()), EXIT_FINAL);
        let gone = IdentityError::DataGone {
            path: "d/identity.toml".into(),
            missing: "d/log".into(),
            replica: ReplicaId(3),
        };
        assert_eq!(exit_code(&ServerError::Identity(gone).into()), EXIT_FINAL);
        let busy = IdentityError::InUse { path: "d".into() };
        assert_eq!(exit_code(&ServerError::Identity(busy).into()), EXIT_FAILURE);
        assert_eq!(exit_code(&anyhow::anyhow!("no")), EXIT_FAILURE);
    }
}
