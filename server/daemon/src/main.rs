//! The program `holdfastd`: one replica of a cell, or a whole cell for development.
//!
//! Only the command line is here: what is run is in the library.

#![forbid(unsafe_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, Subcommand};
use holdfast_server::certs::{self, CertsError, CertsOptions, Issued, Made};
use holdfast_server::config::{self, Config, ConfigError, ConfigFlags, LogFormat, LogLevel};
use holdfast_server::dev::{DevCell, DevError, DevOptions};
use holdfast_server::{ServerError, StopSignals, keep_files_private, logging, run_replica_blocking};
use holdfast_types::{Principal, ReplicaId, escaped};
use mimalloc::MiMalloc;
use slog::Logger;

/// Gives back what a replica needed only while it was the master, and lets the next time need no more than the last
/// (`docs/adr/0011-an-allocator-that-gives-memory-back.md`).
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

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
  3  the replica must not come back under its id: it was removed from its cell, or its data are gone,
     damaged, or older than what it has acknowledged
A failing disk, or a broken invariant, ends the process with SIGABRT.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve one replica until SIGTERM or SIGINT; a second signal stops it at once.
    Run(Box<RunFlags>),
    /// Serve a whole cell on this machine, to try Holdfast out.
    Dev(DevFlags),
    /// Make a CA and certificates, for development or for a small cell.
    Certs(CertsFlags),
}

#[derive(Debug, clap::Args)]
struct RunFlags {
    #[command(flatten)]
    config: ConfigFlags,
    /// For operators who are locked out: make this principal the cell's bootstrap principal, whatever the cell says. The first
    /// master among the replicas that were started so, within ten minutes of its start, has it put into the log, once. No
    /// file and no variable sets it.
    #[arg(long, value_name = "NAME", value_parser = |text: &str| Principal::parse_printable(text))]
    override_bootstrap_principal: Option<Principal>,
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
    /// Speak TLS, with certificates that are made for the cell.
    #[arg(long)]
    tls: bool,
    /// Show what the replicas log, and not only what goes wrong.
    #[arg(long)]
    verbose: bool,
}

#[derive(Debug, clap::Args)]
struct CertsFlags {
    /// Where the files go. The CA that is there already is used again.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The cell's name.
    #[arg(long, value_name = "NAME")]
    cell: String,
    /// A replica, with the hosts (names or IP addresses) where clients find it. May be repeated.
    #[arg(long = "replica", value_name = "ID=HOST[,HOST...]", value_parser = parse_replica)]
    replicas: Vec<(ReplicaId, Vec<String>)>,
    /// A client's principal, such as admin. May be repeated.
    #[arg(long = "client", value_name = "PRINCIPAL", value_parser = |text: &str| Principal::of_certificate(text))]
    clients: Vec<Principal>,
    /// For how long the certificates are valid.
    #[arg(long, default_value_t = 365, value_name = "N")]
    days: u32,
    /// Make certificates and keys anew that are there already. Never the CA's.
    #[arg(long)]
    force: bool,
}

fn parse_replica(text: &str) -> Result<(ReplicaId, Vec<String>), String> {
    let parsed = text.split_once('=').and_then(|(id, hosts)| {
        let hosts: Vec<String> = hosts.split(',').map(|host| host.trim().to_owned()).collect();
        let usable = !hosts.iter().any(String::is_empty);
        Some((ReplicaId(id.parse().ok()?), hosts)).filter(|_| usable)
    });
    parsed.ok_or_else(|| "write ID=HOST or ID=HOST,HOST, such as 1=replica1.example,10.0.0.1".to_owned())
}

pub(crate) fn main() -> ExitCode {
    let ended = match Arguments::parse().command {
        Command::Run(flags) => run(&flags),
        Command::Dev(flags) => dev(flags),
        Command::Certs(flags) => make_certs(flags),
    };
    let Err(error) = ended else { return ExitCode::SUCCESS };
    // The log may be off, or JSON: whoever started the program by hand reads this.
    logging::say_last(&format!("holdfastd: {}", escaped(&sentence(&error))));
    ExitCode::from(exit_code(&error))
}

/// The error with those of its causes that it does not name itself.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().skip(1).map(ToString::to_string).fold(error.to_string(), |said, cause| {
        if said.contains(&cause) { said } else { format!("{said}: {cause}") }
    })
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<ConfigError>() || matches!(error.downcast_ref(), Some(CertsError::Option(_))) {
        return EXIT_USAGE;
    }
    match error.downcast_ref::<ServerError>() {
        Some(error) if error.is_final() => EXIT_FINAL,
        _ => EXIT_FAILURE,
    }
}

fn run(flags: &RunFlags) -> anyhow::Result<()> {
    let variables = std::env::vars_os();
    #[cfg(holdfast_planted)]
    let variables = holdfast_server::planted::take(variables)?;
    let mut config = Config::load(&flags.config, variables)?;
    config.override_bootstrap_principal.clone_from(&flags.override_bootstrap_principal);
    let (logger, _guard) = logging::start(config.log_format, config.log_level);
    config::announce(&config.passed_over, &logger);
    keep_files_private();
    Ok(run_replica_blocking(config, logger)?)
}

fn make_certs(flags: CertsFlags) -> anyhow::Result<()> {
    let CertsFlags { dir, cell, replicas, clients, days, force } = flags;
    let options = CertsOptions { dir, cell, replicas, clients, days, force };
    let made = certs::make(&options)?;
    for warning in &made.warnings {
        let _ = writeln!(std::io::stderr(), "holdfastd: warning: {}", escaped(warning));
    }
    print!("{}", advice(&options, &made));
    Ok(())
}

/// What was made, and what to do with it.
fn advice(options: &CertsOptions, made: &Made) -> String {
    let mut said = String::new();
    for (word, issued) in [("made", &made.made), ("kept", &made.kept)] {
        for Issued { whose, certificate, key } in issued {
            said += &format!("{word} {whose}: {}, {}\n", certificate.display(), key.display());
        }
    }
    let ca = certs::ca_file(&options.dir);
    if let Some((id, _)) = options.replicas.first() {
        let (certificate, key) = certs::replica_files(&options.dir, *id);
        said += &format!(
            "\nA replica's configuration, here that of {id}; copy to its machine these files and no others:\n\n\
             [tls]\ncertificate = \"{}\"\nkey = \"{}\"\nca = \"{}\"\n",
            certificate.display(),
            key.display(),
            ca.display()
        );
    }
    if let Some(principal) = options.clients.first() {
        let (certificate, key) = certs::client_files(&options.dir, principal);
        said += &format!(
            "\nA client's environment, here that of {principal}:\n\n{}",
            client_environment(&ca, &certificate, &key)
        );
    }
    said + "\nWhoever has ca-key.pem can make himself anybody: keep it away from replicas and clients.\n"
}

/// What makes the command-line client speak TLS.
fn client_environment(ca: &Path, certificate: &Path, key: &Path) -> String {
    format!(
        "\x20 export HOLDFAST_CA={}\n\x20 export HOLDFAST_CERT={}\n\x20 export HOLDFAST_KEY={}\n",
        ca.display(),
        certificate.display(),
        key.display()
    )
}

fn dev(flags: DevFlags) -> anyhow::Result<()> {
    keep_files_private();
    let level = if flags.verbose { LogLevel::Info } else { LogLevel::Error };
    let (logger, _guard) = logging::start(LogFormat::Auto, level);
    let DevFlags { cell, data_dir, port_base, replicas, tls, .. } = flags;
    let options = DevOptions { cell, replicas, data_dir, port_base, tls };
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
    let is_new = options.data_dir.as_deref().is_none_or(|dir| !DevCell::is_in(dir));
    if options.port_base.is_none() && is_new {
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
    let tls = cell.client_files().map(|(ca, certificate, key)| client_environment(&ca, &certificate, &key));
    let open = match tls {
        Some(_) => "",
        None => "It is open: without TLS (--tls) everybody on this machine is the principal `anonymous`.\n",
    };
    let tls = tls.unwrap_or_default();
    format!(
        "The cell {name:?} serves with {replicas} replicas; its data are in {dir}.\n\
         {open}\
         Stop it with Ctrl-C. In another terminal:\n\
         \n\
         \x20 export HOLDFAST_ADDRESSES={addresses}\n\
         {tls}\
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

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn a_replica_s_certificate_needs_an_id_and_hosts() {
        let hosts = vec!["a.example".to_owned(), "::1".to_owned()];
        assert_eq!(parse_replica("2=a.example,::1"), Ok((ReplicaId(2), hosts)));
        for wrong in ["2", "2=", "x=a", "2=a,,b"] {
            assert!(parse_replica(wrong).unwrap_err().contains("ID=HOST"), "{wrong}");
        }
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
