//! `holdfast handles`: what is open, by whom, and for what.

use anyhow::Result;
use clap::Args;
use holdfast::{HandleInfo, RefusalCode};
use serde::Serialize;

use super::watch::kind_name;
use crate::client::Client;
use crate::name::Name;
use crate::{output, units};

/// List open handles, by session.
///
/// For the bootstrap principal, and for those that the access control list 'admin' lists.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast handles /service/leader        # who has it open, holds its lock, or waits for it
  holdfast handles --session 4711")]
pub(crate) struct Handles {
    /// Only handles on this node.
    path: Option<Name>,
    /// Only those of this session.
    #[arg(long, value_name = "ID", value_parser = units::parse_id)]
    session: Option<u64>,
}

/// What `--json` prints. The field names are promised in docs/cli.md.
#[derive(Debug, Serialize)]
struct Document {
    handles: Vec<HandleDocument>,
}

#[derive(Debug, Serialize)]
struct HandleDocument {
    session: u64,
    handle: u64,
    client: String,
    path: String,
    instance: u64,
    gone: bool,
    uses: Vec<&'static str>,
    events: Vec<&'static str>,
    caching: bool,
    lock_delay_ms: u64,
    /// `exclusive`, `shared`, or null.
    holds: Option<String>,
    /// As `holds`.
    waits: Option<String>,
    /// The sequencer that the handle depends on, or null.
    sequencer: Option<String>,
}

impl Handles {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        client.check_cell().await?;
        let path = self.path.as_ref().map(|path| client.path(path));
        let handles = client.cell.list_handles(self.session, path.as_deref()).await?;
        if let (true, Some(path)) = (handles.is_empty(), &path) {
            // Nobody has opened it; but perhaps because it does not exist. Who may not read it is not told.
            match client.cell.stat(path).await {
                Err(error) if error.refusal() == Some(RefusalCode::NotFound) => return Err(error.into()),
                _ => {}
            }
        }
        let document = Document { handles: handles.into_iter().map(HandleDocument::from).collect() };
        client.output.print(&document, text)
    }
}

impl From<HandleInfo> for HandleDocument {
    fn from(info: HandleInfo) -> Self {
        let uses =
            [("read", info.uses.read), ("write", info.uses.write), ("change-acl", info.uses.change_acl)];
        Self {
            session: info.session,
            handle: info.handle,
            client: info.client,
            path: info.path,
            instance: info.instance,
            gone: info.gone,
            uses: uses.into_iter().filter(|(_, may)| *may).map(|(name, _)| name).collect(),
            events: info.events.iter().map(kind_name).collect(),
            caching: info.caching,
            lock_delay_ms: info.lock_delay.as_millis() as u64,
            holds: info.holds.map(|mode| mode.to_string()),
            waits: info.waits.map(|mode| mode.to_string()),
            sequencer: info.sequencer,
        }
    }
}

fn text(document: &Document) -> String {
    let row = |handle: &HandleDocument| {
        let gone = if handle.gone { " (deleted)" } else { "" };
        let lock = match (&handle.holds, &handle.waits) {
            (Some(mode), _) => mode.clone(),
            (None, Some(mode)) => format!("waits: {mode}"),
            (None, None) => String::new(),
        };
        let mut more = handle.events.clone();
        more.extend(handle.caching.then_some("caching"));
        more.extend(handle.sequencer.as_ref().map(|_| "sequencer"));
        vec![
            handle.session.to_string(),
            handle.handle.to_string(),
            handle.client.clone(),
            format!("{}{gone}", handle.path),
            handle.uses.join(","),
            lock,
            more.join(","),
        ]
    };
    let heading = ["SESSION", "HANDLE", "CLIENT", "NODE", "USES", "LOCK", "EVENTS AND MORE"];
    output::table(&heading, &[0, 1], document.handles.iter().map(row).collect())
}
