//! Asking every replica, and putting the answers together.
//!
//! The view of the master with the highest term counts for the whole; each replica's own answer for itself.

use anyhow::Result;
use holdfast::{CellStatus, Error, MemberStatus, Role};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::client::Client;

/// What was found out.
#[derive(Debug)]
pub(super) struct Survey {
    /// The view that counts for the whole cell.
    pub(super) best: CellStatus,
    /// By rising id.
    pub(super) replicas: Vec<Replica>,
    /// Addresses that were given and belong to no replica of the cell, with why they do not count.
    pub(super) strangers: Vec<(String, String)>,
    /// Addresses that were given, that no member is known to have and that do not answer: a member may well be there, under
    /// another name than the cell has for it.
    pub(super) silent: Vec<(String, String)>,
}

/// A replica, as `--json` prints it. The field names are promised in docs/cli.md.
#[derive(Debug, Serialize)]
pub(super) struct Replica {
    pub(super) id: u64,
    /// As it says itself; null if it does not answer.
    pub(super) role: Option<&'static str>,
    pub(super) voter: bool,
    pub(super) client_address: String,
    pub(super) peer_address: String,
    /// Whether it answered us.
    answers: bool,
    /// Whether the master has heard from it lately; null without a master.
    reachable: Option<bool>,
    /// So many log entries the master has and it has not; null without a master.
    pub(super) lag: Option<u64>,
    pub(super) applied: Option<u64>,
    /// Of the state after `applied`, hexadecimal; null if it was not asked for.
    pub(super) state_hash: Option<String>,
    pub(super) version: Option<String>,
    /// The version of its state.
    state_version: Option<u32>,
    /// What is wrong with it, for people.
    problem: Option<String>,
}

/// An address and what came from there.
type Answer = (String, Result<CellStatus>);

impl Survey {
    /// Asks the given addresses, and then those that they name.
    pub(super) async fn make(client: &Client, state_hash: bool) -> Result<Self> {
        let mut answers = ask(client, client.cell.addresses(), state_hash).await;
        let known = |answers: &[Answer]| -> Vec<String> {
            let statuses = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
            statuses.flat_map(|status| &status.members).map(|member| member.client_address.clone()).collect()
        };
        let mut unasked = known(&answers);
        unasked.sort();
        unasked.dedup();
        unasked.retain(|address| !answers.iter().any(|(asked, _)| asked == address));
        answers.extend(ask(client, unasked, state_hash).await);
        Self::of(answers, &client.cell.addresses(), client.wanted_cell())
    }

    /// Puts the answers together. `given` are the addresses that the user named.
    fn of(mut answers: Vec<Answer>, given: &[String], wanted_cell: Option<&str>) -> Result<Self> {
        let counting = || {
            let statuses = answers.iter().filter_map(|(_, answer)| answer.as_ref().ok());
            statuses.filter(|status| wanted_cell.is_none_or(|wanted| status.cell == wanted))
        };
        // If the addresses belong to several cells, the one that most belong to is meant.
        let votes = |cell_id| counting().filter(|status| status.cell_id == cell_id).count();
        let best = counting().max_by_key(|status| {
            (votes(status.cell_id), status.role() == Role::Master, status.term, status.applied_index)
        });
        let best = best.cloned();
        let Some(best) = best else { return Err(no_answer(answers, wanted_cell)) };
        let mut replicas: Vec<Replica> =
            best.members.iter().map(|member| Replica::of(member, &best, &mut answers)).collect();
        replicas.sort_by_key(|replica| replica.id);
        // What is left belongs to no member, or says nothing.
        let (mut strangers, mut silent) = (Vec::new(), Vec::new());
        for (address, answer) in answers.into_iter().filter(|(address, _)| given.contains(address)) {
            match answer {
                Err(error) => silent.push((address.clone(), reason(&address, &error))),
                Ok(status) => strangers.extend(stranger(&best, &status).map(|problem| (address, problem))),
            }
        }
        Ok(Self { best, replicas, strangers, silent })
    }
}

impl Replica {
    /// Takes the replica's own answer out of `answers`.
    fn of(member: &MemberStatus, best: &CellStatus, answers: &mut Vec<Answer>) -> Self {
        let is_its_own = |(address, answer): &Answer| match answer {
            Ok(status) => status.cell_id == best.cell_id && status.replica == member.id,
            Err(_) => *address == member.client_address,
        };
        // An address that reaches it counts more than one that does not.
        let place = answers
            .iter()
            .position(|answer| answer.1.is_ok() && is_its_own(answer))
            .or_else(|| answers.iter().position(is_its_own));
        let answer = place.map(|place| answers.remove(place));
        let by_master = best.role() == Role::Master;
        let mut replica = Self {
            id: member.id,
            role: None,
            voter: !member.learner,
            client_address: member.client_address.clone(),
            peer_address: member.peer_address.clone(),
            answers: false,
            reachable: by_master.then_some(member.reachable || member.id == best.replica),
            lag: by_master.then(|| best.commit_index.saturating_sub(member.matched_index)),
            applied: None,
            state_hash: None,
            version: None,
            state_version: None,
            problem: None,
        };
        match answer {
            Some((_, Ok(own))) => {
                replica.role = Some(role_name(own.role()));
                replica.answers = true;
                replica.applied = Some(own.applied_index);
                replica.state_hash = own.state_hash.map(|hash| format!("{hash:016x}"));
                replica.version = Some(own.version);
                replica.state_version = Some(state_version(own.state_version));
            }
            Some((address, Err(error))) => replica.problem = Some(reason(&address, &error)),
            None => replica.problem = Some("another replica answers at its address".to_owned()),
        }
        replica
    }

    /// One word if all is well, or what is not.
    pub(super) fn state(&self) -> String {
        let heard = match self.reachable {
            Some(true) => "the master hears it",
            Some(false) => "the master does not hear it",
            None => "",
        };
        match (&self.problem, heard) {
            (Some(problem), "") => format!("does not answer: {problem}"),
            (Some(problem), heard) => format!("does not answer: {problem}; {heard}"),
            (None, heard) if self.reachable == Some(false) => heard.to_owned(),
            (None, _) => "ok".to_owned(),
        }
    }
}

/// The state version that a replica says. One that says none is of a release that had version 1 only.
pub(super) fn state_version(said: u32) -> u32 {
    said.max(1)
}

/// What a role is called.
fn role_name(role: Role) -> &'static str {
    match role {
        Role::Master => "master",
        Role::Follower => "follower",
        Role::Candidate => "candidate",
        Role::Learner => "learner",
        Role::Unspecified => "unknown",
    }
}

/// Asks all at once, so that one that hangs holds up nothing.
async fn ask(client: &Client, addresses: Vec<String>, state_hash: bool) -> Vec<Answer> {
    let mut asking = JoinSet::new();
    for address in addresses {
        let cell = client.cell.clone();
        asking.spawn(async move {
            let answer = match state_hash {
                true => cell.status_with_hash_of(&address).await,
                false => cell.status_of(&address).await,
            };
            (address, answer.map_err(anyhow::Error::new))
        });
    }
    let mut answers = asking.join_all().await;
    answers.sort_by(|(one, _), (other, _)| one.cmp(other));
    answers
}

/// Why who answers at an address that was given is no replica of the cell; `None` if it is another way to one.
fn stranger(best: &CellStatus, status: &CellStatus) -> Option<String> {
    if status.cell_id != best.cell_id {
        return Some(format!("is a replica of another cell: {:?} ({:016x})", status.cell, status.cell_id));
    }
    let is_member = best.members.iter().any(|member| member.id == status.replica);
    (!is_member).then(|| format!("is replica {}, which is not a member", status.replica))
}

/// The part of an error that differs from address to address, without the address, which stands beside it.
fn reason(address: &str, error: &anyhow::Error) -> String {
    let reason = match error.downcast_ref() {
        Some(Error::Unavailable { last, .. }) => last.clone(),
        _ => error.to_string(),
    };
    reason.strip_prefix(&format!("{address}: ")).map_or(reason.clone(), str::to_owned)
}

/// Nobody answered who counts.
fn no_answer(answers: Vec<Answer>, wanted_cell: Option<&str>) -> anyhow::Error {
    let mut failed = None;
    for (address, answer) in answers {
        match (answer, wanted_cell) {
            (Ok(status), Some(wanted)) => {
                let found = status.cell;
                return anyhow::anyhow!(
                    "the cell at {address} is called {found:?}, and --cell says {wanted:?}"
                );
            }
            (Err(error), _) => failed = failed.or(Some(error)),
            // An answer that counts is no reason to be here.
            (Ok(_), None) => {}
        }
    }
    failed.unwrap_or_else(|| anyhow::anyhow!("no address to ask"))
}

#[cfg(test)]
mod tests {
    use super::super::compare::Comparison;
    use super::*;

    fn member(id: u64) -> MemberStatus {
        MemberStatus {
            id,
            peer_address: format!("p{id}:1"),
            client_address: format!("c{id}:1"),
            learner: false,
            matched_index: 90,
            reachable: id != 3,
        }
    }

    fn status(replica: u64, role: Role, cell_id: u64) -> CellStatus {
        CellStatus {
            cell: "dev".to_owned(),
            cell_id,
            replica,
            role: role.into(),
            term: 4,
            commit_index: 100,
            applied_index: 100,
            members: (1..=3).map(member).collect(),
            ..CellStatus::default()
        }
    }

    fn silence(address: &str) -> Answer {
        (address.to_owned(), Err(anyhow::anyhow!("{address}: connection refused")))
    }

    fn survey(answers: Vec<Answer>) -> Survey {
        let given: Vec<String> = answers.iter().map(|(address, _)| address.clone()).collect();
        Survey::of(answers, &given, None).unwrap()
    }

    #[test]
    fn a_replica_that_does_not_answer_keeps_its_line_and_says_why() {
        let survey = survey(vec![
            ("c1:1".to_owned(), Ok(status(1, Role::Master, 7))),
            ("c2:1".to_owned(), Ok(status(2, Role::Follower, 7))),
            silence("c3:1"),
        ]);
        let states: Vec<String> = survey.replicas.iter().map(Replica::state).collect();
        assert_eq!(states[..2], ["ok", "ok"]);
        assert!(states[2].contains("refused") && states[2].contains("does not hear it"), "{states:?}");
        assert_eq!(survey.replicas[2].lag, Some(10));
        assert!(survey.strangers.is_empty(), "{:?}", survey.strangers);
    }

    #[test]
    fn replicas_that_have_applied_the_same_and_differ_are_told() {
        let compare = |states: [(u64, Option<u64>, &str); 3]| {
            let own = |(id, (applied_index, state_hash, version))| {
                let role = if id == 1 { Role::Master } else { Role::Follower };
                let version = str::to_owned(version);
                let status = CellStatus { applied_index, state_hash, version, ..status(id, role, 7) };
                (format!("c{id}:1"), Ok(status))
            };
            Comparison::of(&survey((1..).zip(states).map(own).collect()).replicas)
        };
        assert_eq!(compare([(9, Some(5), "1"); 3]), Comparison::Same);
        assert_eq!(compare([(9, Some(5), "1"), (9, Some(5), "1"), (9, None, "1")]), Comparison::Same);
        let one_differs = compare([(9, Some(5), "1"), (9, Some(6), "1"), (9, Some(5), "1")]);
        assert!(
            matches!(&one_differs, Comparison::Differ(who) if who.contains("entry 9") && who.contains("replace replica 2 ")),
            "{one_differs:?}"
        );
        let two_differ = compare([(9, Some(5), "1"), (8, Some(5), "1"), (9, Some(6), "1")]);
        assert!(
            matches!(&two_differ, Comparison::Differ(who) if who.contains("cannot be told")),
            "{two_differ:?}"
        );
        for not_alike in [
            [(9, Some(5), "1"), (8, Some(6), "1"), (9, Some(5), "1")],
            [(9, Some(5), "1"), (9, Some(6), "2"), (9, Some(5), "1")],
            [(9, None, "1"), (9, None, "1"), (9, Some(5), "1")],
        ] {
            let compared = compare(not_alike);
            assert!(matches!(compared, Comparison::NotCompared(_)), "{compared:?}");
        }
    }

    #[test]
    fn a_misspelt_address_and_one_of_another_cell_are_named() {
        let survey = survey(vec![
            ("c1:1".to_owned(), Ok(status(1, Role::Master, 7))),
            silence("c2:2"),
            ("x:1".to_owned(), Ok(status(2, Role::Master, 8))),
            ("c3.alias:1".to_owned(), Ok(status(3, Role::Follower, 7))),
        ]);
        assert_eq!(
            survey.silent,
            [("c2:2".to_owned(), "connection refused".to_owned())],
            "it may be a member"
        );
        assert_eq!(survey.strangers.len(), 1, "{:?}", survey.strangers);
        assert!(survey.strangers[0].1.contains("another cell"));
        // The alias reaches replica 3 all the same.
        assert_eq!(survey.replicas[2].role, Some("follower"));
    }

    #[test]
    fn without_a_master_lag_and_reachability_are_unknown() {
        let survey = survey(vec![("c1:1".to_owned(), Ok(status(1, Role::Candidate, 7)))]);
        assert_eq!(survey.replicas[0].lag, None);
        assert_eq!(survey.replicas[0].reachable, None);
        assert_eq!(survey.replicas[0].role, Some("candidate"));
    }

    #[test]
    fn a_cell_of_another_name_is_not_taken_for_the_one_that_was_meant() {
        let answers = vec![("c1:1".to_owned(), Ok(status(1, Role::Master, 7)))];
        let error = Survey::of(answers, &[], Some("prod")).unwrap_err().to_string();
        assert!(error.contains("\"dev\"") && error.contains("\"prod\""), "{error}");
    }
}
