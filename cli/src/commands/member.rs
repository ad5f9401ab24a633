//! `holdfast member`: the replicas of the cell, and how one is replaced.

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use holdfast::{CellStatus, Role};
use serde::Serialize;

use crate::client::{self, Client};
use crate::failure::{Failure, Kind};
use crate::{output, units};

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
    #[arg(long = "peer", value_name = "ADDRESS", value_parser = client::parse_address)]
    peer_address: String,
    /// Where clients reach it: host:port.
    #[arg(long = "client", value_name = "ADDRESS", value_parser = client::parse_address)]
    client_address: String,
}

/// Which replica.
#[derive(Debug, Args)]
pub(crate) struct Id {
    /// The replica's id: greater than 0; a new replica needs one that the cell has never had.
    #[arg(value_name = "ID", value_parser = units::parse_id)]
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
    /// What the cell stands now; null if the master does not answer any more.
    standing: Option<Standing>,
}

/// How many replicas vote, and how many of them may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Standing {
    voters: usize,
    tolerates: usize,
    learners: usize,
}

impl Standing {
    fn of(status: &CellStatus) -> Option<Self> {
        let learners = status.members.iter().filter(|member| member.learner).count();
        let voters = status.members.len() - learners;
        (status.role() == Role::Master && voters > 0).then(|| Self { learners, ..Self::with_voters(voters) })
    }

    fn with_voters(voters: usize) -> Self {
        Self { voters, tolerates: (voters - 1) / 2, learners: 0 }
    }

    /// What it means, for people.
    fn said(self) -> String {
        let Self { voters, tolerates, .. } = self;
        let stands = match (voters, tolerates) {
            (1, _) => return "one replica votes, and without it the cell stops".to_owned(),
            (_, 0) => format!("{voters} replicas vote, and the cell stops when any of them fails"),
            (_, 1) => format!("{voters} replicas vote, and the cell goes on when one of them fails"),
            _ => format!("{voters} replicas vote, and the cell goes on when {tolerates} of them fail"),
        };
        match voters % 2 {
            0 => format!("{stands}: no better than {}, so add one more, or remove one", voters - 1),
            _ => stands,
        }
    }
}

impl Member {
    pub(crate) async fn run(&self, client: &Client) -> Result<()> {
        client.check_cell().await?;
        let cell = &client.cell;
        let (id, done) = match self {
            Self::Ls => return list(client).await,
            Self::Add(Add { id: Id { id }, peer_address, client_address }) => {
                cell.add_member(*id, peer_address, client_address).await?;
                (*id, "added")
            }
            Self::Promote(Id { id }) => {
                cell.promote_member(*id).await?;
                (*id, "promoted")
            }
            Self::Remove(Id { id }) => {
                cell.remove_member(*id).await?;
                (*id, "removed")
            }
        };
        // The master has done it. If a replica says how many vote now, the user is told what that is good for.
        let standing = cell.status().await.ok().and_then(|status| Standing::of(&status));
        client.output.print(&Change { id, done, standing }, said)
    }
}

fn said(change: &Change) -> String {
    let Change { id, done, standing } = change;
    match (*done, standing) {
        ("added", standing) => {
            let then = standing.map_or_else(String::new, |now| {
                format!(". With it, {}", Standing::with_voters(now.voters + 1).said())
            });
            format!(
                "replica {id} added as a learner, which does not vote; once `holdfast member ls` shows little lag: holdfast \
                 member promote {id}{then}"
            )
        }
        (done, Some(standing)) => format!("replica {id} {done}: {}", standing.said()),
        (done, None) => format!("replica {id} {done}"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_number_of_voters_stands_is_said() {
        for (voters, words) in [
            (1, "without it the cell stops"),
            (2, "stops when any of them fails: no better than 1"),
            (3, "goes on when one of them fails"),
            (4, "goes on when one of them fails: no better than 3"),
            (5, "goes on when 2 of them fail"),
            (6, "goes on when 2 of them fail: no better than 5"),
        ] {
            let said = Standing::with_voters(voters).said();
            assert!(said.contains(words), "{said}");
            assert_eq!(said.contains("no better"), voters % 2 == 0, "{said}");
        }
    }

    #[test]
    fn who_adds_a_fourth_is_told_what_it_is_good_for() {
        let standing = Some(Standing { learners: 1, ..Standing::with_voters(3) });
        let added = said(&Change { id: 4, done: "added", standing });
        assert!(
            added.contains("promote 4. With it, 4 replicas vote") && added.contains("no better than 3"),
            "{added}"
        );
        let removed = said(&Change { id: 4, done: "removed", standing: Some(Standing::with_voters(2)) });
        assert!(removed.starts_with("replica 4 removed: 2 replicas vote"), "{removed}");
        assert_eq!(said(&Change { id: 4, done: "removed", standing: None }), "replica 4 removed");
    }
}
