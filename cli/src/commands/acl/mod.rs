//! `holdfast acl`: who may do what, as names of lists and as the principals behind them.
//!
//! A node carries three names; a name is a file in the cell's directory `/acl`. The two are looked at and changed by
//! different subcommands, because they are different things: `get` and `set` are about a node, `show` about a list.
//! Nothing is decided here: whether somebody may is for the cell to say, which reads the same files.

mod list;
mod new;
mod show;

use anyhow::Result;
use clap::{Args, Subcommand};
use holdfast::AclNames;
use serde::Serialize;

use crate::client::Client;
use crate::name::{self, Name};
use crate::output;
pub(crate) use new::NewAcl;
use show::Show;

/// Show and change who may read, write, and change the lists of a node.
///
/// A node has the names of three access control lists: for reading; for writing and locking; for changing these
/// names. A name is a file in the directory /acl, or '*', which is everyone. The file has a principal a line, or
/// '@NAME' for everybody whom the list NAME has, or '*'; empty lines and lines that begin with '#' do not count.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  printf '%s\\n' alice bob '@admin' | holdfast put /acl/team     # make the list 'team'
  holdfast acl show team                                        # whom it lets in, groups resolved
  holdfast acl set /service --read '*' --write team
  holdfast acl get /service")]
pub(crate) enum Acl {
    Get(Get),
    Set(Set),
    Show(Show),
}

/// Show the names of a node's access control lists.
#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The node.
    path: Name,
}

/// Change the names of a node's access control lists. What is not given stays.
///
/// A change without --if-generation is sent once. If its answer is lost, the exit status is 6. A list need not exist
/// yet; until it does, it lets nobody in, and a warning says so. A change that you could not undo is refused. Nodes below
/// keep their lists: they take over their parent's when they are created, not later.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  holdfast acl set /service --write team
  holdfast acl set /service --change admin --if-generation 17")]
pub(crate) struct Set {
    /// The node.
    path: Name,
    #[command(flatten)]
    names: Names,
    /// Change only if this is the node's ACL generation.
    #[arg(long, value_name = "GENERATION")]
    if_generation: Option<u64>,
    /// Change them even if you could not change them back.
    #[arg(long)]
    force: bool,
}

/// New names: at least one.
#[derive(Debug, Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Names {
    /// Who may read: contents, metadata, children.
    #[arg(long, value_name = "NAME", value_parser = name::parse_acl_name)]
    read: Option<String>,
    /// Who may write, create children, delete, and take the lock.
    #[arg(long, value_name = "NAME", value_parser = name::parse_acl_name)]
    write: Option<String>,
    /// Who may change these names.
    #[arg(long, value_name = "NAME", value_parser = name::parse_acl_name)]
    change: Option<String>,
}

/// The names of a node's lists, as `--json` prints them. The field names are promised in docs/cli.md.
#[derive(Debug, Serialize)]
pub(super) struct AclDocument {
    read: String,
    write: String,
    change: String,
}

/// What `get --json` prints.
#[derive(Debug, Serialize)]
struct GetDocument {
    path: String,
    #[serde(flatten)]
    names: AclDocument,
    acl_generation: u64,
}

/// What `set --json` prints.
#[derive(Debug, Serialize)]
struct SetDocument {
    path: String,
    acl_generation: u64,
    /// Lists that were named and do not exist.
    missing: Vec<String>,
}

impl Acl {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        match self {
            Self::Get(get) => get.run(client).await,
            Self::Set(set) => set.run(client).await,
            Self::Show(show) => show.run(client).await,
        }
    }
}

impl Get {
    async fn run(&self, client: &Client) -> Result<()> {
        let stat = client.cell.stat(&client.path(&self.path)).await?.stat;
        let document = GetDocument {
            path: self.path.as_str().to_owned(),
            names: stat.acl.into(),
            acl_generation: stat.acl_generation,
        };
        client.output.print(&document, |document| {
            output::fields(vec![
                ("read", document.names.read.clone()),
                ("write", document.names.write.clone()),
                ("change", document.names.change.clone()),
                ("acl generation", document.acl_generation.to_string()),
            ])
        })
    }
}

impl Set {
    async fn run(&self, client: &Client) -> Result<()> {
        let Names { read, write, change } = &self.names;
        let names = names(read.as_deref(), write.as_deref(), change.as_deref());
        let path = client.path(&self.path);
        let cell = client.cell(self.force);
        let acl_generation = match self.if_generation {
            Some(generation) => cell.set_acl_if(&path, generation, names).await?,
            None => cell.set_acl(&path, names).await?,
        };
        let missing = client.missing_lists(&[read.as_deref(), write.as_deref(), change.as_deref()]).await;
        client.warn_of_missing(&missing);
        let document = SetDocument { path: self.path.as_str().to_owned(), acl_generation, missing };
        client.output.print(&document, |SetDocument { path, acl_generation, .. }| {
            format!("{path}: access control lists changed, acl generation {acl_generation}")
        })
    }
}

/// The other lists that the text of a list names.
pub(super) fn groups(contents: &[u8]) -> Vec<String> {
    let groups = list::parse(contents).into_iter().filter_map(|entry| match entry {
        list::Entry::Group(name) => Some(name),
        list::Entry::Everyone | list::Entry::Principal(_) => None,
    });
    groups.collect()
}

impl AclDocument {
    /// All three in one line.
    pub(super) fn sentence(&self) -> String {
        format!("read {}, write {}, change {}", self.read, self.write, self.change)
    }
}

impl From<AclNames> for AclDocument {
    fn from(names: AclNames) -> Self {
        let [read, write, change] = [names.read, names.write, names.change].map(|name| name.to_string());
        Self { read, write, change }
    }
}

/// The names as a request says them: what is not given is empty.
pub(super) fn names(read: Option<&str>, write: Option<&str>, change: Option<&str>) -> AclNames {
    let [read, write, change] = [read, write, change].map(Option::unwrap_or_default);
    AclNames::new().read(read).write(write).change(change)
}
