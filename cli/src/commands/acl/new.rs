//! The lists of a node that is yet to be created, as `put` and `mkdir` take them.
//!
//! Written by name, a node takes over its parent's lists. To begin with others, and never be without them, it has to
//! be created through a session.

use anyhow::Result;
use clap::Args;
use holdfast::OpenOptions;
use tokio::time::timeout;

use super::names;
use crate::client::{self, Client, WRITE_ONLY};
use crate::failure::{Failure, Kind};
use crate::name::{self, Name};
use crate::units;

/// Options for access control lists that are not the parent's.
#[derive(Debug, Args)]
#[command(next_help_heading = "Access control lists")]
pub(crate) struct NewAcl {
    /// Create the node, which must not exist, with this list for reading: a file in /acl, or '*'. What is not given
    /// is the parent's.
    #[arg(long, value_name = "NAME", value_parser = name::parse_acl_name)]
    acl_read: Option<String>,
    /// The same, with this list for writing and locking. You must be on it.
    #[arg(long, value_name = "NAME", value_parser = name::parse_acl_name)]
    acl_write: Option<String>,
    /// The same, with this list for changing the names of the lists.
    #[arg(long, value_name = "NAME", value_parser = name::parse_acl_name)]
    acl_change: Option<String>,
}

impl NewAcl {
    /// What clap calls the options.
    pub(crate) const IDS: [&str; 3] = ["acl_read", "acl_write", "acl_change"];

    /// Whether any is given.
    pub(crate) fn is_given(&self) -> bool {
        self.acl_read.is_some() || self.acl_write.is_some() || self.acl_change.is_some()
    }

    /// The names that are given.
    pub(crate) fn given(&self) -> [Option<&str>; 3] {
        [self.acl_read.as_deref(), self.acl_write.as_deref(), self.acl_change.as_deref()]
    }

    /// Creates the node that `options` describe, exactly once or not at all, and returns its instance.
    ///
    /// # Errors
    ///
    /// If it exists, or may not be created; with an unknown outcome if no master answers in time.
    pub(crate) async fn create(&self, client: &Client, path: &Name, options: OpenOptions) -> Result<u64> {
        let names = names(self.acl_read.as_deref(), self.acl_write.as_deref(), self.acl_change.as_deref());
        let options = options.create_new().uses(WRITE_ONLY).caching(false).acl(names);
        let session = client.open_session(client.cell.session()).await?;
        let opened = timeout(client.timeout, session.open(&client.path(path), options)).await;
        let instance = match opened {
            Ok(opened) => opened.map(|handle| handle.instance()).map_err(anyhow::Error::new),
            Err(_) => {
                let waited = units::span(client.timeout);
                let message = format!("the outcome is unknown: no answer came within {waited}");
                Err(Failure::error(Kind::Unknown, message))
            }
        };
        client::close(session).await;
        instance
    }
}
