//! The command line: what is common to all subcommands, and the list of them.
//!
//! Each subcommand's own arguments stand beside what it does, in `commands/`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::commands::{
    acl, cat, check_sequencer, handles, lock, ls, member, mkdir, put, rm, session, settings, stat, status,
    usage, watch,
};
use crate::{failure, units};

/// Reads, writes and locks the nodes of a Holdfast cell, and looks after its replicas.
#[derive(Debug, Parser)]
#[command(name = "holdfast", version, after_help = failure::HELP, max_term_width = 110, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) common: Common,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What every subcommand takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Common options")]
pub(crate) struct Common {
    /// Where replicas of the cell serve clients: host:port, http://host:port or https://host:port, separated by
    /// commas. One that is up is enough, more are safer. [default: 127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103]
    #[arg(long, global = true, env = "HOLDFAST_ADDRESSES", value_name = "ADDRESSES")]
    pub(crate) addresses: Option<String>,
    /// The cell that is meant. Any other that answers at the addresses refuses.
    #[arg(long, global = true, env = "HOLDFAST_CELL", value_name = "NAME")]
    pub(crate) cell: Option<String>,
    /// Print one JSON document instead of text; a failure is a JSON object on standard error.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How long to look for a master and wait for its answer: seconds, or with a unit (ms, s, m, h).
    #[arg(long, global = true, value_name = "SPAN", default_value = "15", value_parser = units::parse_span)]
    pub(crate) timeout: Duration,
    #[command(flatten)]
    pub(crate) tls: TlsFiles,
}

/// How to talk TLS to the cell, if at all.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "TLS options")]
pub(crate) struct TlsFiles {
    /// Talk TLS, and trust replicas whose certificate this CA signed: a PEM file. 'holdfastd certs' makes one.
    #[arg(long, global = true, env = "HOLDFAST_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Who you are to the cell: the certificate, a PEM file. Its common name is your principal.
    #[arg(long, global = true, env = "HOLDFAST_CERT", value_name = "FILE")]
    pub(crate) cert: Option<PathBuf>,
    /// The key of --cert: a PEM file.
    #[arg(long, global = true, env = "HOLDFAST_KEY", value_name = "FILE")]
    pub(crate) key: Option<PathBuf>,
    /// The name that the replicas' certificates must be for, if it is not the host of their addresses.
    #[arg(long, global = true, env = "HOLDFAST_SERVER_NAME", value_name = "NAME")]
    pub(crate) server_name: Option<String>,
}

/// No shell lets a variable have such a name.
const NO_VARIABLE: &str = "a variable, which is empty";

/// An option that no variable sets. Its help names the variable all the same.
fn without_variable(argument: clap::Arg) -> clap::Arg {
    let Some(variable) = argument.get_env().filter(|variable| *variable != NO_VARIABLE) else {
        return argument;
    };
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let help = format!("{help} [env: {}=]", variable.to_string_lossy());
    argument.help(help).env(NO_VARIABLE).hide_env(true)
}

impl Arguments {
    /// What the command line and the environment say. A variable that is set to nothing counts as not set.
    ///
    /// # Errors
    ///
    /// What is wrong with them, or what was asked for instead: help, or the version.
    pub(crate) fn read() -> Result<Self, clap::Error> {
        let mut command = Self::command();
        let variables = command.get_arguments().filter_map(|argument| {
            std::env::var_os(argument.get_env()?).filter(|value| value.is_empty())?;
            Some(argument.get_id().clone())
        });
        for id in variables.collect::<Vec<_>>() {
            command = command.mut_arg(id, without_variable);
        }
        match command.clone().try_get_matches() {
            // Who asks for nothing is shown the help. To clap, a variable or an option that is set is something asked for.
            Err(error) if error.kind() == ErrorKind::MissingSubcommand => {
                let ids = command.get_arguments().filter(|argument| argument.get_env().is_some());
                for id in ids.map(|argument| argument.get_id().clone()).collect::<Vec<_>>() {
                    command = command.mut_arg(id, without_variable);
                }
                let words = subcommands(&command, std::env::args_os().skip(1));
                Err(command.try_get_matches_from(words).err().unwrap_or(error))
            }
            matches => Self::from_arg_matches(&matches?),
        }
    }
}

/// The program and the subcommands that `arguments` name, without any option.
fn subcommands(program: &clap::Command, arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let (mut words, mut last) = (vec![program.get_name().into()], program);
    for argument in arguments {
        if let Some(subcommand) = last.find_subcommand(&argument) {
            words.push(argument);
            last = subcommand;
        }
    }
    words
}

/// Every variable that sets an option.
pub(crate) fn variables() -> Vec<String> {
    let command = Arguments::command();
    let variables = command.get_arguments().filter_map(|argument| argument.get_env());
    variables.map(|variable| variable.to_string_lossy().into_owned()).collect()
}

/// How the user sets these fields of [`Common`] together: by their flags, or by their variables.
pub(crate) fn options(fields: &[&str]) -> String {
    let command = Arguments::command();
    let arguments =
        || command.get_arguments().filter(|argument| fields.contains(&argument.get_id().as_str()));
    let flags = arguments().filter_map(clap::Arg::get_long).map(|flag| format!("--{flag}"));
    let variables =
        arguments().filter_map(clap::Arg::get_env).map(|name| name.to_string_lossy().into_owned());
    let (flags, variables): (Vec<_>, Vec<_>) = (flags.collect(), variables.collect());
    let comma = if fields.len() > 1 { "," } else { "" };
    format!("{}{comma} or {}", flags.join(" and "), variables.join(" and "))
}

/// What somebody who knows other programs may have meant.
pub(crate) fn hint(error: &clap::Error, arguments: &[OsString]) -> Option<&'static str> {
    let has = |word: &str| arguments.iter().any(|argument| argument == word);
    let is_unknown = error.kind() == ErrorKind::UnknownArgument;
    if is_unknown && has("lock") && !has("--") {
        return Some("put '--' before the command: holdfast lock /path -- COMMAND");
    }
    if is_unknown && has("ls") && has("-l") {
        return Some(
            "'holdfast ls' lists sizes, generations and locks without an option; 'holdfast stat' tells all of one node",
        );
    }
    None
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Status(status::Status),
    Ls(ls::Ls),
    Stat(stat::Stat),
    #[command(visible_alias = "get")]
    Cat(cat::Cat),
    Watch(watch::Watch),
    #[command(visible_alias = "set")]
    Put(put::Put),
    Mkdir(mkdir::Mkdir),
    #[command(visible_aliases = ["del", "delete"])]
    Rm(rm::Rm),
    #[command(subcommand)]
    Acl(acl::Acl),
    Lock(lock::Lock),
    CheckSequencer(check_sequencer::CheckSequencer),
    #[command(subcommand)]
    Session(session::Session),
    Handles(handles::Handles),
    Usage(usage::Usage),
    #[command(subcommand)]
    Member(member::Member),
    Settings(settings::Settings),
    /// Becomes the command that `lock` runs.
    #[command(name = lock::GUARDED, hide = true)]
    ExecGuarded(lock::Guarded),
    /// Stops the command that `lock` runs, if `lock` cannot.
    #[command(name = lock::GUARD, hide = true)]
    GuardCommand(lock::GuardCommand),
}

impl Command {
    /// Whether the exit status may be that of a command that the user gave.
    pub(crate) fn is_around_a_command(&self) -> bool {
        matches!(self, Self::Lock(_) | Self::ExecGuarded(_) | Self::GuardCommand(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn common_options_may_stand_before_and_after_the_subcommand() {
        for line in ["holdfast --json --timeout 500ms ls /", "holdfast ls --timeout 0.5 / --json"] {
            let arguments = Arguments::try_parse_from(line.split(' ')).unwrap();
            assert!(arguments.common.json, "{line}");
            assert_eq!(arguments.common.timeout, Duration::from_millis(500), "{line}");
        }
    }

    #[test]
    fn what_contradicts_itself_is_a_usage_error() {
        for line in [
            "holdfast",
            "holdfast ls relative",
            "holdfast lock /l",
            "holdfast lock /l --",
            "holdfast lock --try --wait 3 /l -- true",
            "holdfast lock --hold-until-asked",
            "holdfast watch",
            "holdfast watch /a --events sound",
            "holdfast watch /a --events",
            "holdfast watch /a --count 0",
            "holdfast acl get",
            "holdfast acl set /a",
            "holdfast acl set /a --read /acl/team",
            "holdfast acl show a/b",
            "holdfast session kill",
            "holdfast session kill 0",
            "holdfast handles --session 0",
            "holdfast put /f x --if-generation 1 --acl-read team",
            "holdfast mkdir /d --acl-read a/b",
            "holdfast lock --lock-delay 61 /l -- true",
            "holdfast lock --lease 50ms /l -- true",
            "holdfast put /f text --file f",
            "holdfast member add 0 --peer a:1 --client a:2",
            "holdfast settings nodes_max",
            "holdfast settings nodes=5",
            "holdfast settings bootstrap_principal=@ops",
        ] {
            let parsed = Arguments::try_parse_from(line.split(' ')).map(|_| ());
            let error = parsed.expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
