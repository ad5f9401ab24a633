//! `holdfast member`: the replicas of the cell, and how one is replaced.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use holdfast::{CellStatus, Role};
use serde::Serialize;

use crate::client::Client;
use crate::failure::{Failure, Kind};
use crate::output;

/// List, add, promote and remove the replicas of the cell.
///
/// To replace a replica whose data is gone: start another under a new id with `holdfastd run --join`, add it,
/// promote it when it has caught up, and remove the old one. Changes are for the bootstrap principal, and for those
/// that the access control list 'admin' lists.
#[derive(Debug, Subcommand)]
pub(crate) enum Member {
    /// List the members as the master sees them.
    Ls,
    Add(Add),
    /// Make a learner that has caught up a voter.
    Promote(Id),
    /// Remove a replica. Its id is never used again.
    Remove(Id),
}

/// Add a replica as a learner. It must be running: `holdfastd run --join`.
#[derive(Debug, Args)]
pub(crate) struct Add {
    #[command(flatten)]
    id: Id,
    /// Where the other replicas reach it: host:port.
    #[arg(long = "peer", value_name = "ADDRESS")]
    peer_address: String,
    /// Where clients reach it: host:port.
    #[arg(long = "client", value_name = "ADDRESS")]
    client_address: String,
}

/// Which replica.
#[derive(Debug, Args)]
pub(crate) struct Id {
    /// The replica's id: greater than 0; a new replica needs one that the cell has never had.
    #[arg(value_name = "ID", value_parser = clap::value_parser!(u64).range(1..))]
    id: u64,
}

/// What `--json` prints for `ls`.
#[derive(Debug, Serialize)]
struct List {
    cell: String,
    master: u64,
    members: Vec<MemberDocument>,
}

#[derive(Debug, Serialize)]
struct MemberDocument {
    id: u64,
    voter: bool,
    peer_address: String,
    client_address: String,
    reachable: bool,
    lag: u64,
}

/// What `--json` prints for a change.
#[derive(Debug, Serialize)]
struct Change {
    id: u64,
    done: &'static str,
}

impl Member {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        client.check_cell().await?;
        let cell = &client.cell;
        let change = match self {
            Self::Ls => return list(client).await,
            Self::Add(Add { id: Id { id }, peer_address, client_address }) => {
                cell.add_member(*id, peer_address, client_address).await?;
                Change { id: *id, done: "added" }
            }
            Self::Promote(Id { id }) => {
                cell.promote_member(*id).await?;
                Change { id: *id, done: "promoted" }
            }
            Self::Remove(Id { id }) => {
                cell.remove_member(*id).await?;
                Change { id: *id, done: "removed" }
            }
        };
        client.output.print(&change, |Change { id, done }| match *done {
            "added" => format!(
                "replica {id} added as a learner; once `holdfast member ls` shows little lag: holdfast member \
                 promote {id}"
            ),
            done => format!("replica {id} {done}"),
        })
    }
}

async fn list(client: &Client) -> Result<()> {
    let status = client.cell.status().await?;
    if status.role() != Role::Master {
        let message =
            "no master answers, and only the master knows how its members fare; try `holdfast status`";
        return Err(Failure::error(Kind::Unreachable, message));
    }
    let list = List::of(status).context("the master's answer is incomplete")?;
    client.output.print(&list, text)
}

impl List {
    /// `None` if the master is not among its members.
    fn of(status: CellStatus) -> Option<Self> {
        let master = status.members.iter().find(|member| member.id == status.replica)?.id;
        let lag = |matched: u64| status.commit_index.saturating_sub(matched);
        let members = status.members.iter().map(|member| MemberDocument {
            id: member.id,
            voter: !member.learner,
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            reachable: member.reachable || member.id == master,
            lag: lag(member.matched_index),
        });
        Some(Self { master, members: members.collect(), cell: status.cell.clone() })
    }
}

fn text(list: &List) -> String {
    let row = |member: &MemberDocument| {
        let role = match member {
            member if member.id == list.master => "master",
            MemberDocument { voter: true, .. } => "voter",
            _ => "learner",
        };
        vec![
            member.id.to_string(),
            role.to_owned(),
            member.peer_address.clone(),
            member.client_address.clone(),
            if member.reachable { "yes" } else { "NO" }.to_owned(),
            member.lag.to_string(),
        ]
    };
    let heading = ["REPLICA", "ROLE", "PEERS AT", "CLIENTS AT", "REACHABLE", "LAG"];
    output::table(&heading, &[5], list.members.iter().map(row).collect())
}
