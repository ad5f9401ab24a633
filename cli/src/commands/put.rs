//! `holdfast put`: writes a file whole.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use holdfast::{OpenOptions, WriteOptions};
use serde::Serialize;

use super::acl::{self, NewAcl};
use crate::client::Client;
use crate::name::Name;
use crate::units;

/// No cell allows more, so a longer input is not even read to its end.
const CONTENTS_BYTES_MAX: u64 = 1 << 20;

/// Write a file whole and atomically; create it if it does not exist.
///
/// A write without --if-generation is sent once. If its answer is lost, the exit status is 6, and whether it took
/// effect is for the caller to find out.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast put /config --file config.toml
  date | holdfast put /beat
  holdfast put /flag on --if-generation 0             # only if there is none
  printf '%s\\n' alice @admin | holdfast put /acl/team  # an access control list")]
pub(crate) struct Put {
    /// The file.
    path: Name,
    /// The contents, byte for byte; '-', or nothing, for standard input.
    #[arg(conflicts_with = "file", allow_hyphen_values = true)]
    contents: Option<OsString>,
    /// Take the contents from this file; '-' for standard input.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write only if this is the file's content generation. 0: only if there is no such file.
    #[arg(long, value_name = "GENERATION", value_parser = units::parse_generation, conflicts_with_all = NewAcl::IDS)]
    if_generation: Option<u64>,
    /// Write an access control list even if you do not administer the cell any more afterwards.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    acl: NewAcl,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document {
    path: String,
    content_generation: u64,
    created: bool,
    /// Access control lists that were named and do not exist.
    missing: Vec<String>,
}

impl Put {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        let contents = self.contents()?;
        let groups = self.path.acl().map(|_| acl::groups(&contents)).unwrap_or_default();
        let (content_generation, created) = if self.acl.is_given() {
            let options = OpenOptions::new().file().contents(contents);
            // What it was created with is its first content.
            (self.acl.create(client, &self.path, options).await?, true)
        } else {
            let options = match self.if_generation {
                Some(generation) => WriteOptions::new().if_generation(generation),
                None => WriteOptions::new().create(),
            };
            let written =
                client.cell(self.force).set_contents(&client.path(&self.path), contents, options).await?;
            (written.content_generation, written.created)
        };
        let named = groups.iter().map(|group| Some(group.as_str())).chain(self.acl.given());
        let missing = client.missing_lists(&named.collect::<Vec<_>>()).await;
        client.warn_of_missing(&missing);
        let document = Document { path: self.path.as_str().to_owned(), content_generation, created, missing };
        client.output.print(&document, |Document { path, content_generation, created, .. }| {
            let done = if *created { "created" } else { "written" };
            format!("{path} {done}, content generation {content_generation}")
        })
    }

    fn contents(&self) -> Result<Vec<u8>> {
        match (&self.file, &self.contents) {
            (Some(path), _) if path != Path::new("-") => {
                let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
                read(file, path)
            }
            (None, Some(contents)) if contents != "-" => Ok(contents.clone().into_vec()),
            _ => read(std::io::stdin().lock(), Path::new("standard input")),
        }
    }
}

/// Reads an input to its end.
fn read(input: impl Read, path: &Path) -> Result<Vec<u8>> {
    let mut contents = Vec::new();
    let read = input.take(CONTENTS_BYTES_MAX + 1).read_to_end(&mut contents);
    read.with_context(|| format!("cannot read {}", path.display()))?;
    if contents.len() as u64 > CONTENTS_BYTES_MAX {
        bail!("{} has more than 1 MiB, and no cell takes larger files", path.display());
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_that_no_cell_takes_is_not_read_to_its_end() {
        let path = Path::new("standard input");
        assert!(read(std::io::repeat(7), path).unwrap_err().to_string().contains("1 MiB"));
        let largest = read(std::io::repeat(7).take(CONTENTS_BYTES_MAX), path).unwrap();
        assert_eq!(largest.len() as u64, CONTENTS_BYTES_MAX);
    }
}
