//! `holdfast ls`: a directory's children.

use anyhow::Result;
use clap::Args;
use holdfast::{Entry, NodeKind};
use serde::Serialize;

use super::stat::{StatDocument, lock_summary};
use crate::client::Client;
use crate::name::Name;
use crate::{output, units};

/// List the children of a directory.
///
/// Names of directories end in '/'. A directory of more than 1,000 children is read in several requests, and is
/// then not one moment's view.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// The directory.
    #[arg(default_value = "/")]
    pub(crate) path: Name,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document {
    path: String,
    entries: Vec<EntryDocument>,
}

#[derive(Debug, Serialize)]
struct EntryDocument {
    name: String,
    #[serde(flatten)]
    stat: StatDocument,
}

impl Ls {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        let entries = client.cell.read_dir(&client.path(&self.path)).await?;
        let document = Document {
            path: self.path.as_str().to_owned(),
            entries: entries.into_iter().map(EntryDocument::from).collect(),
        };
        client.output.print(&document, |document| text(&document.entries))
    }
}

impl From<Entry> for EntryDocument {
    fn from(entry: Entry) -> Self {
        Self { name: entry.name, stat: StatDocument::new(entry.stat, entry.lock.unwrap_or_default()) }
    }
}

fn text(entries: &[EntryDocument]) -> String {
    if entries.is_empty() {
        // As of `ls`: nothing to say about nothing.
        return String::new();
    }
    let row = |EntryDocument { name, stat }: &EntryDocument| {
        let meta = &stat.meta;
        let (name, size, generation) = match meta.kind() {
            NodeKind::Directory => (format!("{name}/"), children(meta.children), meta.children_generation),
            NodeKind::File => (name.clone(), units::size(meta.length), meta.content_generation),
        };
        let lifetime = if meta.ephemeral { "ephemeral" } else { "" };
        vec![name, size, generation.to_string(), lifetime.to_owned(), lock_summary(stat)]
    };
    output::table(&["NAME", "SIZE", "GENERATION", "", "LOCK"], &[1, 2], entries.iter().map(row).collect())
}

fn children(count: u64) -> String {
    if count == 1 { "1 child".to_owned() } else { format!("{count} children") }
}
