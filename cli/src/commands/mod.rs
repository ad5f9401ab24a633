//! The subcommands, one file each. Every one turns its arguments into calls to the client library, and the
//! answers into a document, which [`Output`](crate::output::Output) prints as text or JSON.

pub(crate) mod acl;
pub(crate) mod cat;
pub(crate) mod check_sequencer;
pub(crate) mod handles;
pub(crate) mod lock;
pub(crate) mod ls;
pub(crate) mod member;
pub(crate) mod mkdir;
pub(crate) mod put;
pub(crate) mod rm;
pub(crate) mod session;
pub(crate) mod settings;
pub(crate) mod stat;
pub(crate) mod status;
pub(crate) mod usage;
pub(crate) mod watch;

use anyhow::Result;

use crate::arguments::Command;
use crate::client::Client;

/// Runs a subcommand. What it gives back is the exit status.
///
/// # Errors
///
/// Whatever keeps it from doing what it was asked to.
pub(crate) async fn run(client: &Client, command: Command) -> Result<u8> {
    match command {
        Command::Status(status) => status.run(client).await,
        Command::Ls(ls) => ls.run(client).await.map(|()| 0),
        Command::Stat(stat) => stat.run(client).await.map(|()| 0),
        Command::Cat(cat) => cat.run(client).await.map(|()| 0),
        Command::Watch(watch) => watch.run(client).await,
        Command::Put(put) => put.run(client).await.map(|()| 0),
        Command::Mkdir(mkdir) => mkdir.run(client).await.map(|()| 0),
        Command::Rm(rm) => rm.run(client).await.map(|()| 0),
        Command::Acl(acl) => acl.run(client).await.map(|()| 0),
        Command::Lock(lock) => lock.run(client).await,
        Command::CheckSequencer(check) => check.run(client).await,
        Command::Session(session) => session.run(client).await.map(|()| 0),
        Command::Handles(handles) => handles.run(client).await.map(|()| 0),
        Command::Member(member) => member.run(client).await.map(|()| 0),
        Command::Usage(usage) => usage.run(client).await.map(|()| 0),
        Command::Settings(settings) => settings.run(client).await.map(|()| 0),
        Command::ExecGuarded(guarded) => guarded.run(),
        Command::GuardCommand(guard) => guard.run(),
    }
}
