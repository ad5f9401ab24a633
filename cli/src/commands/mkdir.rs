//! `holdfast mkdir`: creates a directory.

use anyhow::Result;
use clap::Args;
use holdfast::{NodeKind, WriteOptions};
use serde::Serialize;

use crate::client::Client;
use crate::name::Name;

/// Create a directory. Its parent must exist, and the directory must not.
#[derive(Debug, Args)]
pub(crate) struct Mkdir {
    /// The directory.
    path: Name,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document {
    path: String,
    created: bool,
}

impl Mkdir {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        let options = WriteOptions::new().kind(NodeKind::Directory);
        let written = client.cell.set_contents(&client.path(&self.path), Vec::new(), options).await?;
        let document = Document { path: self.path.as_str().to_owned(), created: written.created };
        client.output.print(&document, |document| format!("{} created", document.path))
    }
}
