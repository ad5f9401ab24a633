//! `holdfast mkdir`: creates a directory.

use anyhow::Result;
use clap::Args;
use holdfast::{NodeKind, OpenOptions, WriteOptions};
use serde::Serialize;

use super::acl::NewAcl;
use crate::client::Client;
use crate::name::Name;

/// Create a directory. Its parent must exist, and the directory must not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast mkdir /service
  holdfast mkdir /service --acl-write team --acl-change admin")]
pub(crate) struct Mkdir {
    /// The directory.
    path: Name,
    #[command(flatten)]
    acl: NewAcl,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document {
    path: String,
    created: bool,
    /// Access control lists that were named and do not exist.
    missing: Vec<String>,
}

impl Mkdir {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        if self.acl.is_given() {
            self.acl.create(client, &self.path, OpenOptions::new().directory()).await?;
        } else {
            let options = WriteOptions::new().kind(NodeKind::Directory);
            client.cell.set_contents(&client.path(&self.path), Vec::new(), options).await?;
        }
        let missing = client.missing_lists(&self.acl.given()).await;
        client.warn_of_missing(&missing);
        let document = Document { path: self.path.as_str().to_owned(), created: true, missing };
        client.output.print(&document, |document| format!("{} created", document.path))
    }
}
