//! `holdfast watch`: what happens to a node, as it happens.
//!
//! A session with a handle that was opened with events, and a line for each change. That no change is lost, fail-overs
//! included, is the cell's promise and the library's; nothing is repeated or compared here.

mod changes;
mod kinds;

use anyhow::Result;
use clap::Args;
use holdfast::{Ended, Handle, NodeKind, OpenOptions, Session, SessionEvent, Uses};
use serde::Serialize;

use super::stat::MetaDocument;
use crate::client::{self, Client};
use crate::failure::{Failure, Kind};
use crate::name::Name;
use crate::signals::{self, Signals};
use crate::{output, units};
use changes::changes;
pub(crate) use kinds::kind_name;
use kinds::{Topic, wanted};

/// Print what happens to a node, as it happens: one line for each change.
///
/// Goes on through fail-overs, and misses nothing: several changes of the same thing may come as one line, none as
/// silence. Whoever reads the node after a line sees that change, or a newer one. Ends with exit status 3 when the
/// node is deleted. How the session with the cell fares is said on standard error; with --json, among the lines.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast watch /config                              # until it is deleted, or Ctrl-C
  holdfast watch /service --events added,removed      # who comes and goes
  holdfast watch /config --events contents --count 1 && holdfast cat /config
  holdfast --json watch /service --initial            # the children there are, then what changes")]
pub(crate) struct Watch {
    /// The node: a file or a directory.
    path: Name,
    /// What to watch for, separated by commas. That the node is deleted is always told.
    #[arg(long, value_name = "EVENTS", value_delimiter = ',', default_value = "all")]
    events: Vec<Topic>,
    /// End, with exit status 0, after so many lines. Those of --initial do not count.
    #[arg(long, value_name = "N", value_parser = units::parse_number)]
    count: Option<u64>,
    /// First print the node as it is: a line 'initial', and for each child there is a line 'child'. What changes
    /// after that is told, and nothing between is missed.
    #[arg(long)]
    initial: bool,
}

/// The line `initial`, for `--json`.
#[derive(Debug, Serialize)]
struct Initial {
    event: &'static str,
    path: String,
    /// As in the lines of changes: that of the contents, or of the children.
    generation: u64,
    #[serde(flatten)]
    stat: MetaDocument,
}

/// A line `child`, for `--json`.
#[derive(Debug, Serialize)]
struct Child {
    event: &'static str,
    path: String,
    child: String,
    #[serde(flatten)]
    stat: MetaDocument,
}

/// A line about the session, for `--json`.
#[derive(Debug, Serialize)]
struct SessionLine {
    event: &'static str,
    /// The epoch of the new master.
    #[serde(skip_serializing_if = "Option::is_none")]
    term: Option<u64>,
}

impl Watch {
    pub(crate) async fn run(&self, client: &Client) -> Result<u8> {
        let mut signals = Signals::that_stop()?;
        let session = tokio::select! {
            opened = client.open_session(client.cell.session()) => opened?,
            signal = signals.next() => return Ok(signals::status_of(signal)),
        };
        let watched = tokio::select! {
            watched = self.watch(client, &session) => watched.map(|()| 0),
            signal = signals.next() => Ok(signals::status_of(signal)),
        };
        client::close(session).await;
        watched
    }

    /// Comes back when enough was seen, or nobody reads any more.
    async fn watch(&self, client: &Client, session: &Session) -> Result<()> {
        // What is told is not read again, so there is nothing to keep, and no writer has to wait for us.
        let options = OpenOptions::new().uses(Uses::READ).events(wanted(&self.events)).caching(false);
        let handle = session.open(&client.path(&self.path), options).await?;
        let (mut events, mut session_events) = (handle.events()?, session.events());
        if self.initial && !self.print_initial(client, &handle).await? {
            return Ok(());
        }
        let path = self.path.as_str();
        let mut left = self.count.unwrap_or(u64::MAX);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                // Whatever ended the session, `events` tells it too.
                Some(event) = session_events.next() => {
                    tell(client, &event)?;
                    continue;
                }
            };
            let event = match event {
                Some(Ok(event)) => event,
                Some(Err(ended)) => return Err(self.over(ended)),
                None => return Err(self.over(session.expired().await)),
            };
            for change in changes(&event, path) {
                let is_read = client.output.print_line(&change, |change| change.text())?;
                left -= 1;
                if left == 0 || !is_read {
                    return Ok(());
                }
                if change.is_deletion() {
                    return Err(Failure::error(Kind::NotFound, format!("{path} was deleted")));
                }
            }
        }
    }

    /// The node as it is. Tells whether anybody still reads.
    async fn print_initial(&self, client: &Client, handle: &Handle) -> Result<bool> {
        let path = self.path.as_str();
        let stat = handle.stat().await?;
        let is_directory = stat.kind == NodeKind::Directory;
        let generation = if is_directory { stat.children_generation } else { stat.content_generation };
        let initial = Initial { event: "initial", path: path.to_owned(), generation, stat: stat.into() };
        let mut is_read = client.output.print_line(&initial, |initial| initial.text())?;
        if is_directory {
            for entry in handle.read_dir().await? {
                let stat = entry.stat.into();
                let child = Child { event: "child", path: path.to_owned(), child: entry.name, stat };
                is_read &= client.output.print_line(&child, |child| format!("child     {}", child.child))?;
            }
        }
        Ok(is_read)
    }

    /// Why there is nothing more to hear.
    fn over(&self, ended: Ended) -> anyhow::Error {
        Failure::error(Kind::of_end(&ended), format!("the watch of {} is over: {ended}", self.path.as_str()))
    }
}

impl Initial {
    fn text(&self) -> String {
        let what = match self.stat.kind() {
            NodeKind::File => format!("file, {}", units::size(self.stat.length)),
            NodeKind::Directory => format!("directory, children: {}", self.stat.children),
        };
        format!("initial   {what}  generation {}", self.generation)
    }
}

/// Says how the session fares. Nobody has to do anything about it.
fn tell(client: &Client, event: &SessionEvent) -> Result<()> {
    let (event, term, sentence) = match event {
        SessionEvent::Jeopardy => (
            "jeopardy",
            None,
            "no master extends the session's lease; what changes may be told late".to_owned(),
        ),
        SessionEvent::Safe => ("safe", None, "the session is safe again".to_owned()),
        SessionEvent::FailedOver { term } => {
            ("failed_over", Some(*term), format!("another master serves the session (term {term})"))
        }
        // Its end ends the watch.
        _ => return Ok(()),
    };
    if client.output.is_json() {
        client.output.print_line(&SessionLine { event, term }, |_| String::new())?;
    } else {
        output::tell(&sentence);
    }
    Ok(())
}
