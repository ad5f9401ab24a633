//! When the cell's state version rises: once every member has announced that it can apply the next one.
//!
//! The daemon hears the announcements with each connection from another replica, and nothing is believed of a replica
//! that has announced nothing: it counts as 1. The master proposes the rise, once a term, and adds no replica that could
//! not follow. Invariant: no version is proposed that a member cannot apply, as far as it has said since this replica
//! started.

use std::collections::BTreeMap;

use holdfast_proto::log::v1::{Command, RaiseVersion, command::Kind};
use holdfast_types::{ReplicaId, Term, planted};
use slog::info;

use crate::Replica;

/// What the members can apply.
#[derive(Debug, Default)]
pub(crate) struct Upgrade {
    /// The state version that each replica has announced last, of those that have since this replica started: one that is
    /// replaced by an older release says so when it connects again.
    announced: BTreeMap<ReplicaId, u32>,
    /// The term in which this master proposed a rise last, and to which version.
    proposed: Option<(Term, u32)>,
}

impl Upgrade {
    /// The version that the cell goes on to now from `present`: the greatest that all `members` can apply, of which `own`
    /// is this replica's id and the greatest that it can apply itself. `None` if there is no greater one, or if it has been
    /// proposed in this term.
    fn rise(
        &mut self,
        term: Term,
        present: u32,
        own: (ReplicaId, u32),
        members: impl Iterator<Item = ReplicaId>,
    ) -> Option<u32> {
        let unheard = if planted!(VersionUnheard) { own.1 } else { 1 };
        let of_member =
            |id| if id == own.0 { own.1 } else { self.announced.get(&id).copied().unwrap_or(unheard) };
        let version = members.map(of_member).min()?.min(own.1);
        let proposal = Some((term, version));
        if version <= present || self.proposed == proposal {
            return None;
        }
        self.proposed = proposal;
        Some(version)
    }

    /// The version that a replica must be able to apply to be added in this term: what is proposed counts as applied, for
    /// it will be before the replica is a member.
    fn needed(&self, term: Term, present: u32) -> u32 {
        self.proposed
            .filter(|proposed| proposed.0 == term)
            .map_or(present, |(_, version)| version.max(present))
    }
}

impl Replica {
    /// Another replica says which state versions it can apply: up to this one.
    pub(crate) fn handle_announced(&mut self, peer: ReplicaId, state_version: u32) {
        self.upgrade.announced.insert(peer, state_version);
    }

    /// The rise of the state version that the master proposes now, if all members can follow. None is proposed while the
    /// membership changes: who is being added counts, and is no member yet.
    pub(crate) fn propose_version(&mut self, term: Term) -> Option<Command> {
        let present = self.state.version();
        let able = self.config.state_version_max;
        if present >= able || self.is_changing_members() {
            return None;
        }
        let members = self.state.members().map(|member| ReplicaId(member.id));
        let version = self.upgrade.rise(term, present, (self.config.id, able), members)?;
        info!(self.logger, "all members can apply state version {version}: the cell goes on to it"; "from" => present);
        Some(Command { kind: Some(Kind::RaiseVersion(RaiseVersion { version })), ..Command::default() })
    }

    /// Whether a replica that can apply state versions up to `state_version` may be added.
    pub(crate) fn check_joiner_version(&self, id: ReplicaId, state_version: u32) -> Result<(), String> {
        let (able, needed) = (state_version.max(1), self.upgrade.needed(self.term(), self.state.version()));
        if able >= needed {
            return Ok(());
        }
        Err(format!(
            "{id} is of a release that can apply state versions up to {able}, and the cell's is {needed}: start it with \
             the release that the other replicas run, and add it again"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: ReplicaId = ReplicaId(1);

    fn upgrade(announced: &[(u64, u32)]) -> Upgrade {
        let announced = announced.iter().map(|&(id, version)| (ReplicaId(id), version)).collect();
        Upgrade { announced, proposed: None }
    }

    /// Of a cell with three replicas, at state version 1.
    fn rise(upgrade: &mut Upgrade, term: u64, able: u32) -> Option<u32> {
        upgrade.rise(Term(term), 1, (ME, able), (1..=3).map(ReplicaId))
    }

    #[test]
    fn a_version_rises_when_the_last_member_has_announced_it() {
        assert_eq!(rise(&mut upgrade(&[]), 7, 2), None);
        assert_eq!(rise(&mut upgrade(&[(2, 2)]), 7, 2), None, "nothing is believed of replica 3");
        assert_eq!(rise(&mut upgrade(&[(2, 2), (3, 1)]), 7, 2), None);
        assert_eq!(rise(&mut upgrade(&[(2, 2), (3, 0)]), 7, 2), None, "0 counts as 1");
        assert_eq!(rise(&mut upgrade(&[(2, 2), (3, 2)]), 7, 2), Some(2));
    }

    #[test]
    fn what_strangers_announce_does_not_count() {
        assert_eq!(rise(&mut upgrade(&[(2, 2), (4, 2)]), 7, 2), None);
        assert_eq!(rise(&mut upgrade(&[(2, 2), (3, 2), (4, 1)]), 7, 2), Some(2));
    }

    #[test]
    fn the_version_is_the_greatest_that_all_can_apply_this_replica_too() {
        assert_eq!(rise(&mut upgrade(&[(2, 5), (3, 4)]), 7, 6), Some(4));
        assert_eq!(rise(&mut upgrade(&[(2, 5), (3, 4)]), 7, 3), Some(3));
        assert_eq!(rise(&mut upgrade(&[(1, 9), (2, 5), (3, 4)]), 7, 1), None, "it knows better of itself");
        let only_others = [ReplicaId(2), ReplicaId(3)].into_iter();
        let removed = upgrade(&[(2, 5), (3, 4)]).rise(Term(7), 1, (ME, 2), only_others);
        assert_eq!(removed, Some(2), "a master that is no member any more must follow all the same");
    }

    #[test]
    fn a_rise_is_proposed_once_a_term_and_again_by_the_next_master() {
        let mut upgrade = upgrade(&[(2, 2), (3, 2)]);
        assert_eq!(rise(&mut upgrade, 7, 3), Some(2));
        assert_eq!(rise(&mut upgrade, 7, 3), None);
        assert_eq!(rise(&mut upgrade, 8, 3), Some(2));
        upgrade.announced = [(ReplicaId(2), 3), (ReplicaId(3), 3)].into();
        assert_eq!(rise(&mut upgrade, 8, 3), Some(3), "another version is another rise");
    }

    #[test]
    fn who_joins_must_be_able_to_apply_what_is_proposed() {
        let mut upgrade = upgrade(&[(2, 2), (3, 2)]);
        assert_eq!(upgrade.needed(Term(7), 1), 1);
        rise(&mut upgrade, 7, 2);
        assert_eq!(upgrade.needed(Term(7), 1), 2);
        assert_eq!(
            upgrade.needed(Term(8), 1),
            1,
            "the next master has not proposed it, and found it not applied"
        );
        assert_eq!(upgrade.needed(Term(8), 3), 3);
    }
}
