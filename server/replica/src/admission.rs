//! Who may talk to whom: the checks of a peer's identity, as values, without a socket. The daemon asks them when
//! connections are made, and whenever the members change; the simulator asks the same ones.
//!
//! A replica that has lost its data must never come back under its raft id (design.md §5): it could vote away
//! what it had acknowledged. So an id that the cell knows is welcome only with the data_id on record.
//!
//! Invariant: [`Denial::Never`] is said only of what no amount of waiting can change, because its receiver stops.

use std::collections::BTreeMap;

use holdfast_proto::log::v1::Member;
use holdfast_proto::peer::v1::Identity;
use holdfast_types::{ReplicaId, planted};

/// What this replica knows of itself and of the others.
#[derive(Clone, Debug)]
pub struct Roster {
    /// This replica. As long as its `cell_id` is 0 it belongs to no cell, and nobody is admitted.
    pub me: Identity,
    /// The cell's replicas, as far as this one has applied: there may be newer ones. Empty only at a replica that has
    /// joined and not caught up yet.
    pub members: BTreeMap<ReplicaId, Member>,
    /// Ids that were members and are no more.
    pub removed: Vec<ReplicaId>,
}

/// How to go on when a replica's data are gone or cannot be trusted.
#[derive(Clone, Copy, Debug)]
pub struct ReplaceAdvice(pub ReplicaId);

impl std::fmt::Display for ReplaceAdvice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let id = self.0.0;
        write!(
            f,
            "If replica {id} has been part of a cell, it must not come back under its id, because it could vote \
             away what it has acknowledged. Replace it: start a replica under a new id, on an empty directory, with \
             `holdfastd run --join`; then `holdfast member add NEW_ID --peer ADDRESS --client ADDRESS`, \
             `holdfast member promote NEW_ID` once it has caught up, and `holdfast member remove {id}`. That needs a \
             majority of the cell's voters up: if most of them are gone, stop, and read docs/operations.md"
        )
    }
}

/// Why a peer is not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denial {
    /// It may be later: this replica may not know yet what the peer knows.
    NotYet(String),
    /// It will never be.
    Never(String),
}

impl Denial {
    /// The reason, for people.
    #[must_use]
    pub fn reason(&self) -> &str {
        match self {
            Self::NotYet(reason) | Self::Never(reason) => reason,
        }
    }
}

impl Roster {
    /// Whether `from`, which means to talk to `to`, is a replica of the cell with all its data.
    ///
    /// # Errors
    ///
    /// Why it is not, or not yet.
    pub fn admit(&self, from: &Identity, to: u64) -> Result<ReplicaId, Denial> {
        check_cell(&self.me, from)?;
        self.check_data(from)?;
        if self.me.cell_id == 0 {
            return Err(Denial::NotYet(format!("replica {} belongs to no cell yet", self.me.replica)));
        }
        if from.cell_id != self.me.cell_id {
            return Err(Denial::NotYet(format!("replica {} has not joined the cell yet", from.replica)));
        }
        if to != self.me.replica {
            return Err(Denial::NotYet(format!(
                "this is replica {} of cell {}, and replica {to} was meant: is an address given twice?",
                self.me.replica, self.me.cell
            )));
        }
        // Whoever belongs to the cell was added by it, even if this replica has not heard of that yet. It must listen
        // all the same: the new replica may be the master, or need its vote (raft dissertation, §4.1).
        Ok(ReplicaId(from.replica))
    }

    /// Whether `from` is welcome to go on at all. Strangers are: they may become members.
    ///
    /// # Errors
    ///
    /// Why it is not.
    pub fn check_hello(&self, from: &Identity) -> Result<(), Denial> {
        check_cell(&self.me, from)?;
        self.check_data(from)
    }

    /// Why this replica must stop, if it must: `from`, a member of the cell, knows this one's id by other data than
    /// it has. 0 if `from` expects nobody in particular.
    ///
    /// Only who belongs to no cell believes that: whoever has data knows better.
    #[must_use]
    pub fn must_stop(&self, from: &Identity, expected_data_id: u64) -> Option<String> {
        let me = &self.me;
        let without_data =
            me.cell_id == 0 && expected_data_id != 0 && expected_data_id != me.data_id && from.cell_id != 0;
        (without_data && !planted!(WipedVotes) && self.check_hello(from).is_ok())
            .then(|| data_is_gone(ReplicaId(me.replica), &me.cell))
    }

    /// Whether `from`, who has the right to speak to `to`, tells a replica that waits to join which cell is its own:
    /// messages come only to those whom the cell has added.
    #[must_use]
    pub fn is_contact(&self, from: &Identity, to: u64) -> bool {
        let me = &self.me;
        me.cell_id == 0 && from.cell_id != 0 && to == me.replica && from.cell == me.cell
    }

    fn check_data(&self, from: &Identity) -> Result<(), Denial> {
        let id = ReplicaId(from.replica);
        if self.removed.contains(&id) {
            return Err(Denial::Never(format!(
                "{id} was removed from cell {}; its id is never used again: start with an empty data directory, \
                 a new id and --join, and run `holdfast member add`",
                self.me.cell
            )));
        }
        match self.members.get(&id) {
            Some(member) if member.data_id != from.data_id && !planted!(WipedVotes) => {
                Err(Denial::Never(data_is_gone(id, &self.me.cell)))
            }
            _ => Ok(()),
        }
    }
}

/// What to say of, and to, a replica that came back without the data it began with.
#[must_use]
pub fn data_is_gone(id: ReplicaId, cell: &str) -> String {
    format!(
        "the data of {id} are gone: the cell {cell} knows {id} by another data directory. If that is only not mounted, \
         mount it and start the replica again. {}",
        ReplaceAdvice(id)
    )
}

/// Whether `from` is of the same cell, as far as the two know their cell.
///
/// # Errors
///
/// Why it is not.
pub fn check_cell(me: &Identity, from: &Identity) -> Result<(), Denial> {
    if from.cell != me.cell {
        return Err(Denial::Never(format!(
            "this is replica {} of cell {:?}, and replica {} of cell {:?} has come: the address belongs to another \
             cell",
            me.replica, me.cell, from.replica, from.cell
        )));
    }
    if from.cell_id != 0 && me.cell_id != 0 && from.cell_id != me.cell_id {
        return Err(Denial::Never(format!(
            "this is replica {} of the cell {} with the id {:016x}, and replica {} of another cell of that name has \
             come, with the id {:016x}",
            me.replica, me.cell, me.cell_id, from.replica, from.cell_id
        )));
    }
    if from.replica == me.replica && from.data_id != me.data_id {
        return Err(Denial::Never(format!(
            "two replicas are configured as replica {} of cell {}: give each an id and addresses of its own",
            me.replica, me.cell
        )));
    }
    Ok(())
}

/// Whether `there`, who answered where `member` is expected, is that member with its data.
///
/// # Errors
///
/// Why it cannot be talked to now.
pub fn check_answer(me: &Identity, member: &Member, there: &Identity) -> Result<(), String> {
    if there.cell != me.cell || there.replica != member.id {
        return Err(format!(
            "replica {} of cell {:?} answers there, where replica {} of cell {:?} is expected: correct the address",
            there.replica, there.cell, member.id, me.cell
        ));
    }
    // A contact of a replica that has just joined comes without a data_id on record.
    if member.data_id != 0 && there.data_id != member.data_id && !planted!(WipedVotes) {
        return Err(data_is_gone(ReplicaId(member.id), &me.cell));
    }
    if there.cell_id != 0 && there.cell_id != me.cell_id {
        return Err(format!("the replica there belongs to another cell called {:?}", me.cell));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message as _;

    fn identity(replica: u64, data_id: u64) -> Identity {
        Identity {
            cell: "dev".into(),
            cell_id: 9,
            replica,
            data_id,
            peer_address: String::new(),
            state_version: 2,
            client_address: String::new(),
        }
    }

    fn roster(data_ids: &[(u64, u64)]) -> Roster {
        let member =
            |&(id, data_id): &(u64, u64)| (ReplicaId(id), Member { id, data_id, ..Member::default() });
        Roster {
            me: identity(1, 11),
            members: data_ids.iter().map(member).collect(),
            removed: vec![ReplicaId(7)],
        }
    }

    fn never(denial: Denial, words: &str) {
        assert!(matches!(&denial, Denial::Never(reason) if reason.contains(words)), "{denial:?}");
    }

    fn not_yet(denial: Denial, words: &str) {
        assert!(matches!(&denial, Denial::NotYet(reason) if reason.contains(words)), "{denial:?}");
    }

    #[test]
    fn a_member_with_its_data_is_admitted() {
        let roster = roster(&[(1, 11), (2, 22)]);
        assert_eq!(roster.admit(&identity(2, 22), 1), Ok(ReplicaId(2)));
        assert_eq!(roster.check_hello(&identity(2, 22)), Ok(()));
    }

    #[test]
    fn a_member_without_its_data_never_comes_back() {
        let roster = roster(&[(1, 11), (2, 22)]);
        never(roster.admit(&identity(2, 23), 1).unwrap_err(), "member remove 2");
        let fresh = Identity { cell_id: 0, ..identity(2, 23) };
        never(roster.check_hello(&fresh).unwrap_err(), "are gone");
    }

    #[test]
    fn a_removed_replica_never_comes_back() {
        never(roster(&[(1, 11)]).admit(&identity(7, 77), 1).unwrap_err(), "was removed");
    }

    #[test]
    fn a_stranger_may_become_a_member() {
        let roster = roster(&[(1, 11), (2, 22)]);
        let stranger = Identity { cell_id: 0, ..identity(3, 33) };
        not_yet(roster.admit(&stranger, 1).unwrap_err(), "has not joined");
        assert_eq!(roster.check_hello(&stranger), Ok(()));
    }

    #[test]
    fn who_has_joined_the_cell_is_heard_by_those_who_do_not_know_it_yet() {
        assert_eq!(roster(&[(1, 11), (2, 22)]).admit(&identity(3, 33), 1), Ok(ReplicaId(3)));
    }

    #[test]
    fn foreign_cells_are_told_apart_by_name_and_by_id() {
        let roster = roster(&[(1, 11), (2, 22)]);
        let other_name = Identity { cell: "prod".into(), ..identity(2, 22) };
        never(roster.admit(&other_name, 1).unwrap_err(), "\"prod\"");
        let other_cell = Identity { cell_id: 8, ..identity(2, 22) };
        never(roster.admit(&other_cell, 1).unwrap_err(), "another cell of that name");
    }

    #[test]
    fn two_replicas_with_one_id_are_told_so() {
        never(roster(&[(1, 11)]).check_hello(&identity(1, 12)).unwrap_err(), "two replicas");
    }

    #[test]
    fn a_message_for_somebody_else_is_not_taken() {
        not_yet(roster(&[(1, 11), (2, 22)]).admit(&identity(2, 22), 3).unwrap_err(), "replica 3 was meant");
    }

    #[test]
    fn before_the_cell_is_founded_nobody_is_admitted_and_everybody_is_answered() {
        let mut roster = roster(&[]);
        roster.me.cell_id = 0;
        not_yet(roster.admit(&identity(2, 22), 1).unwrap_err(), "no cell yet");
        assert_eq!(roster.check_hello(&identity(2, 22)), Ok(()));
    }

    #[test]
    fn a_replica_that_has_just_joined_believes_its_cell() {
        assert_eq!(roster(&[]).admit(&identity(2, 22), 1), Ok(ReplicaId(2)));
    }

    #[test]
    fn only_the_member_with_its_data_is_talked_to() {
        let me = Identity { cell: "dev".into(), cell_id: 9, replica: 1, data_id: 11, ..Identity::default() };
        let member = Member { id: 2, data_id: 22, ..Member::default() };
        let there = Identity { replica: 2, data_id: 22, ..me.clone() };
        let check = |there: Identity| check_answer(&me, &member, &there);
        assert_eq!(check(there.clone()), Ok(()));
        assert_eq!(check(Identity { cell_id: 0, ..there.clone() }), Ok(()), "it may not have founded yet");
        assert!(check(Identity { replica: 3, ..there.clone() }).unwrap_err().contains("correct the address"));
        assert!(check(Identity { cell: "prod".into(), ..there.clone() }).unwrap_err().contains("\"prod\""));
        assert!(check(Identity { data_id: 23, ..there.clone() }).unwrap_err().contains("are gone"));
        assert!(check(Identity { cell_id: 8, ..there }).unwrap_err().contains("another cell"));
    }

    #[test]
    fn only_who_belongs_to_no_cell_believes_that_its_data_are_gone() {
        let mut roster = roster(&[]);
        assert_eq!(roster.must_stop(&identity(2, 22), 99), None, "it has its data");
        roster.me.cell_id = 0;
        let reason = roster.must_stop(&identity(2, 22), 99).unwrap();
        assert!(reason.contains("the data of replica 1 are gone"), "{reason}");
        assert_eq!(roster.must_stop(&identity(2, 22), 11), None, "it is the one that was expected");
        assert_eq!(roster.must_stop(&identity(2, 22), 0), None, "nobody was");
        assert_eq!(roster.must_stop(&Identity { cell_id: 0, ..identity(2, 22) }, 99), None);
    }

    /// Identities that mostly are almost right.
    fn any_identity() -> impl Strategy<Value = Identity> {
        let cell = prop_oneof![6 => Just("dev".to_owned()), 1 => ".{0,9}"];
        let data_id = prop_oneof![Just(11_u64), Just(22), Just(77), any::<u64>()];
        (cell, prop_oneof![4 => Just(9_u64), 1 => 0..11_u64], 0..9_u64, data_id, ".{0,9}").prop_map(
            |(cell, cell_id, replica, data_id, peer_address)| Identity {
                cell,
                cell_id,
                replica,
                data_id,
                peer_address,
                state_version: 2,
                client_address: String::new(),
            },
        )
    }

    proptest! {
        #[test]
        fn nobody_is_admitted_but_replicas_of_the_cell_with_their_data(
            from in any_identity(), to in 0..4_u64, bytes in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let roster = roster(&[(1, 11), (2, 22)]);
            // What is no identity at all is one with nothing in it, or does not get here.
            let decoded = Identity::decode(bytes.as_slice()).unwrap_or_default();
            for from in [from, decoded] {
                if let Ok(id) = roster.admit(&from, to) {
                    prop_assert_eq!((from.cell.as_str(), from.cell_id, to), ("dev", 9, 1));
                    prop_assert!(!roster.removed.contains(&id));
                    let on_record = roster.members.get(&id).map_or(from.data_id, |member| member.data_id);
                    prop_assert_eq!(on_record, from.data_id);
                }
            }
        }
    }
}
