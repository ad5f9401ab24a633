//! Cells that were founded by an older release, and whose replicas are upgraded one after the other, as they restart.
//!
//! An older release is one that says that it can apply the older state version alone; nothing else of it is simulated. Each
//! connection between two processes begins with what the one says, as the daemon's does. Invariant: the version rises no
//! earlier than every member has been upgraded.

use std::collections::BTreeSet;

use holdfast_replica::Input;
use holdfast_state::VERSION_MAX;

use crate::coverage::Situation;
use crate::member::id_of;
use crate::rng::Rng;
use crate::streams::Life;
use crate::verdict::{Invariant, Violation};
use crate::world::World;

/// So many of a thousand cells are of an older release to begin with.
const OLD_PER_MILLE: u32 = 150;
/// So many of a thousand starts of an older replica are those of its upgrade.
const UPGRADED_PER_MILLE: u32 = 400;

/// Between which processes it was said which state versions the one can apply.
pub(crate) type Announcements = BTreeSet<(usize, u64, usize, u64)>;

/// The state version that a cell is founded at.
pub(crate) fn founded_at(seed: u64) -> u32 {
    if Rng::fork(seed, "version").per_mille(OLD_PER_MILLE) { 1 } else { VERSION_MAX }
}

/// What a founder of such a cell can apply.
pub(crate) fn founder_version(rng: &mut Rng, founded_at: u32) -> u32 {
    if founded_at == VERSION_MAX || rng.per_mille(500) { VERSION_MAX } else { founded_at }
}

impl World {
    /// A replica starts, perhaps as a newer release.
    pub(crate) fn upgrade(&mut self, index: usize) {
        let server = &mut self.servers[index];
        if server.roster.me.state_version < VERSION_MAX && server.rng.per_mille(UPGRADED_PER_MILLE) {
            server.roster.me.state_version = VERSION_MAX;
            self.trace.say(self.now, || format!("replica {} is upgraded", index + 1));
        }
    }

    /// Something comes from another process: behind what that has said first on its connection.
    pub(crate) fn announce(&mut self, from: usize, to: Life) {
        if self.plan.founded_at == VERSION_MAX || !self.lives(to) {
            return;
        }
        let from_life = self.servers[from].life;
        if self.announcements.insert((from, from_life, to.index, to.life)) {
            let state_version = self.servers[from].roster.me.state_version;
            self.hand_in(to.index, Input::PeerAnnounced { peer: id_of(from), state_version });
        }
    }

    /// The state version has risen as far as `version`: every member must be able to follow.
    pub(crate) fn check_version(&mut self, before: u32) -> Result<(), Violation> {
        let version = self.canon.state().version();
        if version == before {
            return Ok(());
        }
        self.sights.reach(Situation::VersionRose);
        let left_behind =
            self.members().into_iter().find(|member| self.servers[*member].roster.me.state_version < version);
        left_behind.map_or(Ok(()), |member| {
            let what = format!(
                "the cell goes on to state version {version}, which replica {} cannot apply",
                member + 1
            );
            Err(Violation::new(Invariant::Determinism, what))
        })
    }
}
