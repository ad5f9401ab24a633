//! `holdfast session`: who is connected, and how one of them is ended.

use std::time::Duration;

use anyhow::Result;
use clap::{Args, Subcommand};
use holdfast::{Error, SessionInfo};
use serde::Serialize;

use crate::client::Client;
use crate::failure::{Failure, Kind};
use crate::{output, units};

/// List the cell's sessions, and end one.
///
/// For the bootstrap principal, and for those that the access control list 'admin' lists.
#[derive(Debug, Subcommand)]
pub(crate) enum Session {
    /// List the sessions, by id.
    Ls,
    Kill(Kill),
}

/// End a session, as if its client had died: its locks are lost, and their lock-delays run.
///
/// Returns when the session is over: at once if its client agrees, otherwise when its lease has run out, because
/// until then the client may rightly believe that it holds its locks.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast session ls
  holdfast stat /service/leader           # names the session that holds the lock
  holdfast session kill 4711")]
pub(crate) struct Kill {
    /// The session's id, as 'session ls' and 'stat' show it.
    #[arg(value_name = "ID", value_parser = units::parse_id)]
    id: u64,
    /// How long to wait for the end. After that the exit status is 6: the session is ending, and not over yet.
    #[arg(long, value_name = "SPAN", default_value = "75", value_parser = units::parse_span)]
    wait: Duration,
}

/// What `ls --json` prints. The field names are promised in docs/cli.md.
#[derive(Debug, Serialize)]
struct List {
    sessions: Vec<SessionDocument>,
}

#[derive(Debug, Serialize)]
struct SessionDocument {
    session: u64,
    client: String,
    principal: String,
    attached: bool,
    lease_ms: u32,
    lease_left_ms: u32,
    handles: u64,
    locks_held: u64,
    locks_waited_for: u64,
}

/// What `kill --json` prints.
#[derive(Debug, Serialize)]
struct Killed {
    session: u64,
    killed: bool,
}

impl Session {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        client.check_cell().await?;
        match self {
            Self::Ls => {
                let sessions = client.cell.list_sessions().await?;
                let list = List { sessions: sessions.into_iter().map(SessionDocument::from).collect() };
                client.output.print(&list, text)
            }
            Self::Kill(kill) => kill.run(client).await,
        }
    }
}

impl Kill {
    async fn run(&self, client: &Client) -> Result<()> {
        // The killing is patient, so whether there is a cell at all is found out before.
        client.cell.status().await?;
        match client.cell.kill_session(self.id, self.wait).await {
            Err(Error::OutcomeUnknown { message, .. }) => {
                let (id, waited) = (self.id, units::span(self.wait));
                let message = format!("session {id} is ending, and was not over after {waited} ({message})");
                return Err(Failure::error(Kind::Unknown, message));
            }
            killed => killed?,
        }
        let killed = Killed { session: self.id, killed: true };
        client.output.print(&killed, |killed| format!("session {} is over", killed.session))
    }
}

impl From<SessionInfo> for SessionDocument {
    fn from(info: SessionInfo) -> Self {
        Self {
            session: info.session,
            client: info.client,
            principal: info.principal,
            attached: info.attached,
            lease_ms: info.lease_ms,
            lease_left_ms: info.lease_left_ms,
            handles: info.handles,
            locks_held: info.locks_held,
            locks_waited_for: info.locks_waited_for,
        }
    }
}

fn text(list: &List) -> String {
    let span = |millis: u32| units::span(Duration::from_millis(millis.into()));
    let row = |session: &SessionDocument| {
        vec![
            session.session.to_string(),
            session.client.clone(),
            session.principal.clone(),
            if session.attached { "yes" } else { "NO" }.to_owned(),
            span(session.lease_ms),
            span(session.lease_left_ms),
            session.handles.to_string(),
            session.locks_held.to_string(),
            session.locks_waited_for.to_string(),
        ]
    };
    let heading =
        ["SESSION", "CLIENT", "PRINCIPAL", "ATTACHED", "LEASE", "LEFT", "HANDLES", "LOCKS", "WAITS"];
    output::table(&heading, &[0, 4, 5, 6, 7, 8], list.sessions.iter().map(row).collect())
}
