//! `holdfast acl show`: an access control list, and everybody whom it lets in.
//!
//! The files are read one after the other, so the whole is not one moment's view.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use anyhow::{Context as _, Result};
use clap::Args;
use holdfast::{Error, RefusalCode};
use serde::Serialize;

use super::list::{self, Entry};
use crate::client::Client;
use crate::failure::{Failure, Kind};
use crate::name::{self, Name};
use crate::output;

/// Show an access control list: its entries, and all whom it lets in, groups resolved.
///
/// Exit status 3 if there is no such list. A group that does not exist counts as empty, and is named.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast acl show admin
  holdfast cat /acl/admin                 # the file as it is, comments included
  holdfast ls /acl                        # all lists")]
pub(crate) struct Show {
    /// The list: a file in the directory /acl, or '*'.
    #[arg(value_parser = name::parse_acl_name)]
    name: String,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document {
    name: String,
    /// The list lets everyone in, whatever else it says.
    everyone: bool,
    /// The file's entries, in order. Null for `*`, which has no file.
    entries: Option<Vec<String>>,
    /// By name.
    principals: Vec<PrincipalDocument>,
    /// Groups that are named and do not exist.
    missing: Vec<String>,
}

/// Somebody whom the list lets in.
#[derive(Debug, Serialize)]
struct PrincipalDocument {
    principal: String,
    /// The lists that have the principal as an entry of their own.
    lists: Vec<String>,
}

/// What was found in the files.
#[derive(Debug, Default)]
struct Found {
    entries: Vec<Entry>,
    everyone: bool,
    principals: BTreeMap<String, BTreeSet<String>>,
    missing: Vec<String>,
}

impl Show {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        let found = if self.name == "*" {
            Found { everyone: true, ..Found::default() }
        } else {
            Found::read(client, &self.name).await?
        };
        let principals = found
            .principals
            .into_iter()
            .map(|(principal, lists)| PrincipalDocument { principal, lists: lists.into_iter().collect() });
        let document = Document {
            name: self.name.clone(),
            everyone: found.everyone,
            entries: (self.name != "*").then(|| found.entries.iter().map(Entry::text).collect()),
            principals: principals.collect(),
            missing: found.missing,
        };
        client.output.print(&document, text)
    }
}

impl Found {
    /// Reads the list called `name`, and those that it names, each once.
    async fn read(client: &Client, name: &str) -> Result<Self> {
        let Some(entries) = read_list(client, name).await? else {
            let message = format!("there is no list {name:?} (no file /acl/{name}), so it lets nobody in");
            return Err(Failure::error(Kind::NotFound, message));
        };
        let mut found = Self { entries: entries.clone(), ..Self::default() };
        let mut seen = BTreeSet::from([name.to_owned()]);
        let mut unread = VecDeque::from([(name.to_owned(), entries)]);
        while let Some((list, entries)) = unread.pop_front() {
            for entry in entries {
                match entry {
                    Entry::Everyone => found.everyone = true,
                    Entry::Principal(principal) => {
                        found.principals.entry(principal).or_default().insert(list.clone());
                    }
                    Entry::Group(group) if seen.insert(group.clone()) => {
                        match read_list(client, &group).await? {
                            Some(entries) => unread.push_back((group, entries)),
                            None => found.missing.push(group),
                        }
                    }
                    Entry::Group(_) => {}
                }
            }
        }
        Ok(found)
    }
}

/// The entries of one file; `None` if there is no such file.
async fn read_list(client: &Client, name: &str) -> Result<Option<Vec<Entry>>> {
    let path = client.path(&Name::of_acl(name));
    match client.cell.contents(&path).await {
        Ok(contents) => Ok(Some(list::parse(&contents.bytes))),
        Err(Error::Refused { code: RefusalCode::NotFound, .. }) => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read the list {name:?}")),
    }
}

fn text(document: &Document) -> String {
    let mut text = String::new();
    if document.everyone {
        text.push_str("lets everyone in\n");
    } else if document.principals.is_empty() {
        text.push_str("lets nobody in\n");
    }
    if !document.principals.is_empty() {
        let rows = document.principals.iter();
        let rows = rows.map(|found| vec![found.principal.clone(), found.lists.join(", ")]);
        text.push_str(&output::table(&["PRINCIPAL", "LISTED BY"], &[], rows.collect()));
    }
    if !document.missing.is_empty() {
        text.push_str(&format!("groups that do not exist: {}\n", document.missing.join(", ")));
    }
    text
}
