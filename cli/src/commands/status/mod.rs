//! `holdfast status`: the cell as its replicas see it, each of them asked.
//!
//! One misspelt address once cut a cell's tolerance from two failures to one without a word (L§7). So every
//! address is asked, the given ones and those that the cell knows, and each that does not answer, or that answers
//! for another cell, has a line of its own.

mod compare;
mod survey;

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use holdfast_types::escaped;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use crate::client::Client;
use crate::failure::{Failure, Kind};
use crate::output;
use compare::Comparison;
use survey::{Replica, Survey, state_version};

/// Show the cell: its master, its replicas, how far each is behind, and who you are for its access control lists.
///
/// Every replica is asked itself, each for at most a fifth of --timeout. Exit status 5 if none answers, or none
/// of them is master.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Also have each replica hash its whole state, and compare: replicas that have applied the same entry must have the
    /// same. Asks again until all have, for as long as --timeout. Exit status 1 if two differ, or if they could not be
    /// compared. For administrators of the cell
    #[arg(long)]
    state_hash: bool,
}

/// So long after replicas were asked that had not applied the same, they are asked again.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Before the last column, in which sentences stand.
const HASH_COLUMN: usize = 6;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document {
    cell: String,
    /// Hexadecimal: not every reader of JSON keeps 64 bits.
    cell_id: String,
    /// Null if no replica says that it is the master.
    master: Option<u64>,
    term: u64,
    revision: u64,
    /// Which rules the replicated state follows: it rises when all replicas can follow.
    state_version: u32,
    nodes: u64,
    sessions: u64,
    attached: u64,
    /// Who the caller is, for the access control lists.
    principal: String,
    /// Whether the states are the same; null if it was not asked for.
    states: Option<&'static str>,
    replicas: Vec<Replica>,
    /// Addresses that were given and are no replica's of the cell.
    strangers: Vec<Stranger>,
    /// Addresses that were given, are not those that the cell has for its replicas, and do not answer.
    silent: Vec<Stranger>,
}

/// An address that stands for no replica of the cell, or does not show that it does.
#[derive(Debug, Serialize)]
struct Stranger {
    address: String,
    problem: String,
}

impl Status {
    pub(crate) async fn run(&self, client: &Client) -> Result<u8> {
        let (survey, comparison) = match self.state_hash {
            true => compared(client).await?,
            false => (Survey::make(client, false).await?, None),
        };
        let states = comparison.as_ref().map(Comparison::name);
        let document = Document { states, ..Document::from(survey) };
        client.output.print(&document, text)?;
        if document.master.is_none() {
            let message = "no replica that answers is master; the cell serves nobody at the moment";
            return Err(Failure::error(Kind::Unreachable, message));
        }
        match comparison {
            Some(Comparison::Differ(who)) => Err(Failure::error(Kind::Failed, who)),
            Some(Comparison::NotCompared(why)) => Err(Failure::error(
                Kind::Failed,
                format!("the replicas' states could not be compared: {why}"),
            )),
            Some(Comparison::Same) | None => Ok(0),
        }
    }
}

/// Asks for states, again and again while they cannot be compared and there is time.
async fn compared(client: &Client) -> Result<(Survey, Option<Comparison>)> {
    let until = Instant::now() + client.timeout;
    loop {
        let survey = Survey::make(client, true).await?;
        let comparison = Comparison::of(&survey.replicas);
        let again = Instant::now() + ASK_AGAIN;
        if !matches!(comparison, Comparison::NotCompared(_)) || again >= until {
            return Ok((survey, Some(comparison)));
        }
        sleep_until(again).await;
    }
}

impl From<Survey> for Document {
    fn from(survey: Survey) -> Self {
        let best = survey.best;
        let listed = |addresses: Vec<(String, String)>| -> Vec<Stranger> {
            addresses.into_iter().map(|(address, problem)| Stranger { address, problem }).collect()
        };
        Self {
            cell: best.cell,
            cell_id: format!("{:016x}", best.cell_id),
            master: survey
                .replicas
                .iter()
                .find(|replica| replica.role == Some("master"))
                .map(|replica| replica.id),
            term: best.term,
            revision: best.revision,
            state_version: state_version(best.state_version),
            nodes: best.nodes,
            sessions: best.sessions,
            attached: best.attached,
            principal: best.principal,
            states: None,
            replicas: survey.replicas,
            strangers: listed(survey.strangers),
            silent: listed(survey.silent),
        }
    }
}

fn text(document: &Document) -> String {
    let master = document.replicas.iter().find(|replica| Some(replica.id) == document.master);
    let master = master.map_or_else(
        || "none that answers".to_owned(),
        |master| format!("replica {} at {}, term {}", master.id, master.client_address, document.term),
    );
    let mut text = output::fields(vec![
        ("cell", format!("{} ({})", document.cell, document.cell_id)),
        ("master", master),
        ("revision", document.revision.to_string()),
        ("state", format!("version {}", document.state_version)),
        ("nodes", document.nodes.to_string()),
        ("sessions", format!("{}, of which {} attached", document.sessions, document.attached)),
        ("you", document.principal.clone()),
    ]);
    text.push('\n');
    let mut heading = vec!["REPLICA", "ROLE", "CLIENTS AT", "APPLIED", "LAG", "VERSION", "STATE"];
    let mut rows: Vec<_> = document.replicas.iter().map(row).collect();
    if document.replicas.iter().any(|replica| replica.state_hash.is_some()) {
        heading.insert(HASH_COLUMN, "STATE HASH");
        for (row, replica) in rows.iter_mut().zip(&document.replicas) {
            row.insert(HASH_COLUMN, replica.state_hash.clone().unwrap_or_else(|| "-".to_owned()));
        }
    }
    text.push_str(&output::table(&heading, &[3, 4], rows));
    for (heading, addresses) in [
        ("Addresses given that are no replica's of this cell", &document.strangers),
        (
            "Addresses given that do not answer, and that the cell does not have for its replicas",
            &document.silent,
        ),
    ] {
        if !addresses.is_empty() {
            text.push_str(&format!("\n{heading}:\n"));
        }
        for Stranger { address, problem } in addresses {
            text.push_str(&format!("  {}: {}\n", escaped(address), escaped(problem)));
        }
    }
    text
}

fn row(replica: &Replica) -> Vec<String> {
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    vec![
        replica.id.to_string(),
        replica.role.unwrap_or("-").to_owned(),
        replica.client_address.clone(),
        number(replica.applied),
        number(replica.lag),
        replica.version.clone().unwrap_or_else(|| "-".to_owned()),
        replica.state(),
    ]
}
