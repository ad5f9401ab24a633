//! How a replica comes to a cell: founding one with others, or joining one that exists.
//!
//! A new cell is founded only once every founding member has been heard from: each of them then knows the data
//! directory of each, which is what later tells a replica that has lost its data from one that has not. Nothing
//! is voted on before that, so a founding that fails loses nothing. A founder that has not heard one of them waits for
//! it, even where others have founded already: why it does not believe those is told in
//! docs/adr/0004-founding.md.
//!
//! Invariant: raft starts only after the stage is durable. Never here: what happens to a cell that exists.

use std::collections::BTreeMap;

use futures::future::try_join_all;
use holdfast_proto::client::v1::Settings;
use holdfast_proto::log::v1::Member;
use holdfast_proto::peer::v1::{Founding, FoundingMember, HelloResponse, Identity};
use holdfast_types::{Duration, ReplicaId};
use prost::Message;
use slog::{Logger, info, warn};
use tokio::sync::watch;

use crate::config::Config;
use crate::front::Phase;
use crate::identity::{DataDir, IdentityError, Stage, cell_id};
use crate::peers::{PeerBook, greet};

/// How long to wait before asking again who did not answer.
const RETRY: Duration = Duration::from_millis(100);

/// Why a replica cannot come to a cell.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FoundingError {
    /// Another replica says that this one must not go on.
    #[error("{by} at {address} refuses this replica: {reason}")]
    Refused {
        /// Who says it.
        by: ReplicaId,
        /// Where it is.
        address: String,
        /// What it says.
        reason: String,
    },
    /// Somebody else is where another founding replica should be.
    #[error(
        "at {address}, where {expected} of cell {cell:?} is configured to be, is {found}: correct the addresses"
    )]
    Stranger {
        /// Where.
        address: String,
        /// Who should be there.
        expected: ReplicaId,
        /// This replica's cell.
        cell: String,
        /// Who is there.
        found: String,
    },
    /// The founding replicas are not configured alike.
    #[error(
        "{other} at {address} is configured otherwise: {difference}. All founding replicas must be configured alike"
    )]
    Differs {
        /// The other replica.
        other: ReplicaId,
        /// Where it is.
        address: String,
        /// What differs.
        difference: String,
    },
    /// Another founding replica founded the cell with other data directories than those that are there now.
    #[error(
        "{other} has founded the cell already, and with another data directory of one of its replicas: the data of \
         that one are gone. Replace it as it says itself; or, if the cell has never served anybody, stop all its \
         replicas, empty all data directories and start them again"
    )]
    FoundedOtherwise {
        /// The other replica.
        other: ReplicaId,
    },
    /// The data directory failed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Comes to a cell, if the replica belongs to none yet, and returns once that is durable. Waits for as long as it
/// takes; `phase` tells clients what for. Dropping the future leaves the replica as it was.
///
/// # Errors
///
/// What must be put right before the replica can come to a cell.
pub(crate) async fn come_to_cell(
    config: &Config,
    dir: &mut DataDir,
    book: &PeerBook,
    phase: &watch::Sender<Phase>,
    logger: &Logger,
) -> Result<(), FoundingError> {
    if dir.identity().stage == Stage::Fresh {
        match config.founding() {
            Some(founding) => {
                let members = Founder { config, founding, book, phase, logger }.hear_everybody().await?;
                dir.found(members, config.settings.clone())?;
                info!(logger, "the cell is founded"; "cell_id" => format!("{:016x}", dir.identity().cell_id()));
            }
            None => {
                let waiting = "it waits to be added to its cell: run `holdfast member add`";
                info!(logger, "waiting to join: {waiting}");
                phase.send_replace(Phase::Starting(waiting.to_owned()));
                let cell_id = book.contacted().await;
                dir.join(cell_id)?;
                info!(logger, "joined the cell"; "cell_id" => format!("{cell_id:016x}"));
            }
        }
    }
    book.belong_to(dir.identity().cell_id());
    Ok(())
}

/// How the cell was founded, or is to be, as other replicas are told; `None` where it was joined.
pub(crate) fn founding_of(dir: &DataDir, config: &Config) -> Option<Founding> {
    match &dir.identity().stage {
        Stage::Fresh => config.founding(),
        Stage::Joined { .. } => None,
        Stage::Founded(founded) => {
            let member = |member: &Member| FoundingMember {
                id: member.id,
                peer_address: member.peer_address.clone(),
                client_address: member.client_address.clone(),
            };
            let members = founded.members.iter().map(member).collect();
            let settings = founded.settings.encode_to_vec().into();
            Some(Founding { members, settings, state_version: founded.state_version })
        }
    }
}

/// A replica that founds a cell.
struct Founder<'r> {
    config: &'r Config,
    founding: Founding,
    book: &'r PeerBook,
    phase: &'r watch::Sender<Phase>,
    logger: &'r Logger,
}

/// What another founding replica has said.
struct Heard {
    data_id: u64,
    /// 0 if it has not founded the cell yet.
    cell_id: u64,
}

impl Founder<'_> {
    /// Asks every founding replica until all have answered, and gives them with their data ids.
    async fn hear_everybody(&self) -> Result<Vec<Member>, FoundingError> {
        let missing = watch::Sender::new(self.config.members.clone());
        let asked = self.config.members.iter().map(|member| self.hear(member, &missing));
        let heard: BTreeMap<u64, Heard> = try_join_all(asked).await?.into_iter().collect();
        let member = |member: &FoundingMember| Member {
            id: member.id,
            data_id: heard[&member.id].data_id,
            peer_address: member.peer_address.clone(),
            client_address: member.client_address.clone(),
            learner: false,
        };
        let pairs = heard.iter().map(|(id, heard)| (ReplicaId(*id), heard.data_id));
        let cell_id = cell_id(&self.config.cell, pairs);
        match heard.iter().find(|(_, heard)| heard.cell_id != 0 && heard.cell_id != cell_id) {
            Some((id, _)) => Err(FoundingError::FoundedOtherwise { other: ReplicaId(*id) }),
            None => Ok(self.config.members.iter().map(member).collect()),
        }
    }

    /// Asks one replica until it answers. The replica asks itself too, by the address that the others use: so it
    /// finds out if that leads to another one.
    async fn hear(
        &self,
        member: &FoundingMember,
        missing: &watch::Sender<Vec<FoundingMember>>,
    ) -> Result<(u64, Heard), FoundingError> {
        let mut last_problem = String::new();
        loop {
            match greet(self.book, ReplicaId(member.id), &member.peer_address, 0).await {
                Ok((_, answer)) => {
                    let heard = check(&self.book.me(), &self.founding, member, answer)?;
                    missing.send_modify(|missing| missing.retain(|other| other.id != member.id));
                    self.tell(&missing.borrow());
                    return Ok((member.id, heard));
                }
                Err(problem) if problem != last_problem => {
                    if member.id == self.config.replica.0 {
                        warn!(self.logger, "this replica does not reach itself where `members` says that it is, and the others \
                            will not either, so the cell is not founded: {problem}";
                            "address" => &member.peer_address, "listens" => &self.config.peer_listen);
                    } else {
                        warn!(self.logger, "{} does not answer yet: {problem}", ReplicaId(member.id);
                            "address" => &member.peer_address);
                    }
                    self.tell(&missing.borrow());
                    last_problem = problem;
                }
                Err(_) => {}
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Tells clients what is still waited for.
    fn tell(&self, missing: &[FoundingMember]) {
        let names: Vec<_> = missing
            .iter()
            .map(|member| format!("{} ({})", ReplicaId(member.id), member.peer_address))
            .collect();
        let waiting = format!("the cell is being founded, and waits for {}", names.join(", "));
        self.phase.send_replace(Phase::Starting(waiting));
    }
}

/// Whether the one who answered is `member`, and founds the same cell.
fn check(
    me: &Identity,
    founding: &Founding,
    member: &FoundingMember,
    answer: HelloResponse,
) -> Result<Heard, FoundingError> {
    let there = answer.identity.unwrap_or_default();
    let (id, address) = (ReplicaId(member.id), member.peer_address.clone());
    if there.cell != me.cell || there.replica != member.id {
        let found = format!("replica {} of cell {:?}", there.replica, there.cell);
        return Err(FoundingError::Stranger { address, expected: id, cell: me.cell.clone(), found });
    }
    if !answer.refused.is_empty() {
        return Err(FoundingError::Refused { by: id, address, reason: answer.refused });
    }
    if let Some(difference) = difference(founding, answer.founding.as_ref()) {
        return Err(FoundingError::Differs { other: id, address, difference });
    }
    Ok(Heard { data_id: there.data_id, cell_id: there.cell_id })
}

/// What differs between two ways to found a cell, if anything does.
fn difference(mine: &Founding, theirs: Option<&Founding>) -> Option<String> {
    let Some(theirs) = theirs else {
        return Some("it is configured to join a cell (--join), not to found one".to_owned());
    };
    let ids = |founding: &Founding| founding.members.iter().map(|member| member.id).collect::<Vec<_>>();
    if ids(mine) != ids(theirs) {
        return Some(format!("its members are {:?}, and here they are {:?}", ids(theirs), ids(mine)));
    }
    for (mine, theirs) in mine.members.iter().zip(&theirs.members) {
        if mine != theirs {
            return Some(format!(
                "there replica {} has the addresses {} and {}, and here {} and {}",
                mine.id, theirs.peer_address, theirs.client_address, mine.peer_address, mine.client_address
            ));
        }
    }
    // Releases that are older than the field found with version 1.
    let versions = [mine, theirs].map(|founding| founding.state_version.max(1));
    if versions[0] != versions[1] {
        return Some(format!(
            "it begins with state version {}, and this release with {}: run the same release on all founding replicas",
            versions[1], versions[0]
        ));
    }
    if mine.settings == theirs.settings {
        return None;
    }
    let read =
        |bytes: &[u8]| Settings::decode(bytes).map(|settings| format!("{settings:?}")).unwrap_or_default();
    Some(format!("its settings are {}, and here they are {}", read(&theirs.settings), read(&mine.settings)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, port: u16) -> FoundingMember {
        FoundingMember { id, peer_address: format!("h:{port}"), client_address: format!("h:{}", port + 1000) }
    }

    fn founding() -> Founding {
        Founding {
            members: vec![member(1, 1), member(2, 2)],
            settings: Settings::default().encode_to_vec().into(),
            state_version: 2,
        }
    }

    fn me() -> Identity {
        Identity { cell: "dev".into(), replica: 1, data_id: 11, ..Identity::default() }
    }

    fn answer() -> HelloResponse {
        let identity = Identity { replica: 2, data_id: 22, ..me() };
        HelloResponse { identity: Some(identity), founding: Some(founding()), refused: String::new() }
    }

    fn check_answer(answer: HelloResponse) -> Result<u64, String> {
        let heard = check(&me(), &founding(), &member(2, 2), answer);
        heard.map(|heard| heard.data_id).map_err(|error| error.to_string())
    }

    #[test]
    fn a_founder_that_is_configured_alike_counts_fresh_or_founded() {
        assert_eq!(check_answer(answer()), Ok(22));
        let mut founded = answer();
        founded.identity.as_mut().unwrap().cell_id = 9;
        assert_eq!(check_answer(founded), Ok(22));
    }

    #[test]
    fn what_differs_is_named() {
        let differing = |change: fn(&mut Founding)| {
            let mut answer = answer();
            change(answer.founding.as_mut().unwrap());
            check_answer(answer).unwrap_err()
        };
        let ids = differing(|founding| founding.members.push(member(3, 3)));
        assert!(ids.contains("its members are [1, 2, 3], and here they are [1, 2]"), "{ids}");
        let addresses = differing(|founding| founding.members[0] = member(1, 7));
        assert!(
            addresses.contains("replica 1 has the addresses h:7 and h:1007, and here h:1 and h:1001"),
            "{addresses}"
        );
        let settings = differing(|founding| {
            founding.settings = Settings { nodes_max: 5, ..Settings::default() }.encode_to_vec().into();
        });
        assert!(settings.contains("nodes_max: 5"), "{settings}");
        let version = differing(|founding| founding.state_version = 0);
        assert!(version.contains("it begins with state version 1, and this release with 2"), "{version}");
        let joins = check_answer(HelloResponse { founding: None, ..answer() }).unwrap_err();
        assert!(joins.contains("--join"), "{joins}");
    }

    #[test]
    fn who_is_somebody_else_or_refuses_ends_the_founding() {
        let mut stranger = answer();
        stranger.identity.as_mut().unwrap().replica = 3;
        assert!(check_answer(stranger).unwrap_err().contains("is replica 3 of cell"));
        let refusing = HelloResponse { refused: "its data are gone".into(), ..answer() };
        assert!(check_answer(refusing).unwrap_err().contains("refuses this replica: its data are gone"));
    }
}
