//! The program `holdfast`: a cell's nodes, locks and members from the command line.
//!
//! Owns nothing of the cell's behaviour: every subcommand is a page of calls to the client library, in a file of
//! its own under `commands/`. Here is only what is common: parse, run, and turn a failure into a line on
//! standard error and an exit status.

#![forbid(unsafe_code)]

mod arguments;
mod client;
mod commands;
mod failure;
mod name;
mod output;
mod signals;
mod units;
mod variables;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;

use crate::arguments::{Arguments, Command};
use crate::client::Client;
use crate::failure::Kind;

fn main() -> ExitCode {
    let Arguments { common, command } = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let as_json = common.json;
    let around_a_command = command.is_around_a_command();
    let status = match command {
        // Before there is a runtime: the command is to inherit nothing of ours.
        Command::ExecGuarded(guarded) => guarded.run(),
        Command::GuardCommand(guard) => guard.run(),
        command => run(&common, command),
    };
    status.map_or_else(
        |error| {
            // If standard error cannot be written, there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "{}", failure::describe(&error, as_json, around_a_command));
            ExitCode::from(Kind::of(&error).exit_status(around_a_command))
        },
        ExitCode::from,
    )
}

/// Says what is wrong with the command line, which scripts make of what others chose: so the message is escaped. What
/// was asked for, help or the version, is clap's to show.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        error.exit();
    }
    let message = error.render().to_string();
    // If standard error cannot be written, there is nobody to tell.
    let _ = write!(std::io::stderr(), "{}", holdfast_types::escaped_lines(&message));
    if let Some(hint) = arguments::hint(error, &std::env::args_os().collect::<Vec<_>>()) {
        let _ = writeln!(std::io::stderr(), "\n  hint: {hint}");
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Runs a subcommand, which gives the exit status where it did what it was asked to.
fn run(common: &arguments::Common, command: Command) -> anyhow::Result<u8> {
    variables::warn_of_unknown(common.json);
    let client = Client::new(common)?;
    // One thread: the session's task runs while a subcommand waits, and they only ever wait.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the asynchronous runtime")?;
    let ran = runtime.block_on(commands::run(&client, command));
    // A read of standard input that still hangs must not hold up the exit.
    runtime.shutdown_background();
    ran.map_err(|error| client.explain(error))
}
