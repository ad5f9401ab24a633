//! `holdfast usage`: how much of the cell is in use, and by whom.

use anyhow::Result;
use clap::Args;
use holdfast::CellUsage;
use serde::Serialize;

use crate::client::Client;
use crate::{output, units};

/// Show how much of the cell is in use, in all and by principal: sessions, nodes, and bytes of contents and names.
///
/// For the bootstrap principal, and for those that the access control list 'admin' lists. A node is in the share of the
/// principal that created it; nodes from before state version 2 are in no share.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast usage
  holdfast settings total_bytes_max=2GiB  # what the bytes in all are limited to")]
pub(crate) struct Usage {}

/// What `--json` prints. The field names are promised in docs/cli.md.
#[derive(Debug, Serialize)]
struct Document {
    sessions: u64,
    nodes: u64,
    bytes: u64,
    principals: Vec<Share>,
}

#[derive(Debug, Serialize)]
struct Share {
    principal: String,
    sessions: u64,
    nodes: u64,
    bytes: u64,
}

impl Usage {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        client.check_cell().await?;
        let usage = client.cell.list_usage().await?;
        client.output.print(&Document::from(usage), text)
    }
}

impl From<CellUsage> for Document {
    fn from(usage: CellUsage) -> Self {
        let share = |usage: holdfast::PrincipalUsage| Share {
            principal: usage.principal,
            sessions: usage.sessions,
            nodes: usage.nodes,
            bytes: usage.bytes,
        };
        let principals = usage.principals.into_iter().map(share).collect();
        Self { sessions: usage.sessions, nodes: usage.nodes, bytes: usage.bytes, principals }
    }
}

fn text(document: &Document) -> String {
    let row = |name: &str, sessions: u64, nodes: u64, bytes: u64| {
        vec![name.to_owned(), sessions.to_string(), nodes.to_string(), units::size(bytes)]
    };
    let mut rows: Vec<_> = document
        .principals
        .iter()
        .map(|share| row(&share.principal, share.sessions, share.nodes, share.bytes))
        .collect();
    rows.push(row("(all)", document.sessions, document.nodes, document.bytes));
    output::table(&["PRINCIPAL", "SESSIONS", "NODES", "BYTES"], &[1, 2, 3], rows)
}
