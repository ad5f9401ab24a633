//! `holdfast rm`: deletes a node.

use anyhow::Result;
use clap::Args;
use serde::Serialize;

use crate::client::Client;
use crate::name::Name;
use crate::units;

/// Delete a file, or a directory without children.
///
/// Refused while its lock is held, waited for or delayed. A deletion without --if-instance is sent once; if its
/// answer is lost, the exit status is 6.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// The node.
    path: Name,
    /// Delete only if the node is still this instance.
    #[arg(long, value_name = "INSTANCE", value_parser = units::parse_generation)]
    if_instance: Option<u64>,
    /// Delete an access control list even if you do not administer the cell any more afterwards.
    #[arg(long)]
    force: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document {
    path: String,
    deleted: bool,
}

impl Rm {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        let path = client.path(&self.path);
        match self.if_instance {
            Some(instance) => client.cell(self.force).delete_if(&path, instance).await?,
            None => client.cell(self.force).delete(&path).await?,
        }
        let document = Document { path: self.path.as_str().to_owned(), deleted: true };
        client.output.print(&document, |document| format!("{} deleted", document.path))
    }
}
