//! When the cell's state version rises: once every member has announced that it can apply the next one.
//!
//! The daemon hears the announcements with each connection from another replica, and nothing is believed of a replica
//! that has announced nothing: it counts as 1. The master proposes the rise, once a term. Invariant: no version is
//! proposed that a member cannot apply, as far as it has said since this replica started.

use std::collections::BTreeMap;

use holdfast_proto::log::v1::{Command, RaiseVersion, command::Kind};
use holdfast_state::VERSION_MAX;
use holdfast_types::{ReplicaId, Term};
use slog::info;

use crate::Replica;

/// What the members can apply.
#[derive(Debug, Default)]
pub(crate) struct Upgrade {
    /// The greatest state version of each replica that has announced one since this replica started.
    announced: BTreeMap<ReplicaId, u32>,
    /// The term in which this master proposed a rise last, and to which version.
    proposed: Option<(Term, u32)>,
}

impl Replica {
    /// Another replica says which state versions it can apply: up to this one.
    pub(crate) fn handle_announced(&mut self, peer: ReplicaId, state_version: u32) {
        self.upgrade.announced.insert(peer, state_version);
    }

    /// The rise of the state version that the master proposes now, if all members can follow.
    pub(crate) fn propose_version(&mut self, term: Term) -> Option<Command> {
        let present = self.state.version();
        if present >= VERSION_MAX {
            return None;
        }
        let own = self.config.id;
        let of_member = |id| {
            if id == own { VERSION_MAX } else { self.upgrade.announced.get(&id).copied().unwrap_or(1) }
        };
        let all = self.state.members().map(|member| of_member(ReplicaId(member.id))).min()?;
        let version = all.min(VERSION_MAX);
        let proposal = (term, version);
        if version <= present || self.upgrade.proposed == Some(proposal) {
            return None;
        }
        info!(self.logger, "all members can apply state version {version}: the cell goes on to it"; "from" => present);
        self.upgrade.proposed = Some(proposal);
        Some(Command { kind: Some(Kind::RaiseVersion(RaiseVersion { version })), ..Command::default() })
    }
}
