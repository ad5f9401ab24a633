//! `holdfast cat`: a file's contents.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use serde::Serialize;

use crate::client::Client;
use crate::name::Name;
use crate::output;

/// Write a file's contents to standard output: byte for byte, or, to a terminal, with what it would obey escaped.
#[derive(Debug, Args)]
pub(crate) struct Cat {
    /// The file.
    path: Name,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document {
    path: String,
    content_generation: u64,
    length: u64,
    /// The contents, if they are UTF-8.
    text: Option<String>,
    /// The contents, whatever they are.
    base64: String,
}

impl Cat {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        let contents = client.cell.contents(&client.path(&self.path)).await?;
        if !client.output.is_json() {
            return output::contents(&contents.bytes);
        }
        let document = Document {
            path: self.path.as_str().to_owned(),
            content_generation: contents.stat.content_generation,
            length: contents.stat.length,
            text: std::str::from_utf8(&contents.bytes).ok().map(str::to_owned),
            base64: STANDARD.encode(&contents.bytes),
        };
        client.output.print(&document, |_| String::new())
    }
}
