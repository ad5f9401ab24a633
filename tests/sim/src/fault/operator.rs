//! What an operator does to a running cell: ends a session, changes how long leases may become, changes who belongs
//! to it.
//!
//! No fault of anybody's, and yet something that everything else must go on through. Nobody asks again if there is no
//! answer.

use holdfast_proto::client::v1::{ChangeSettingsRequest, KillSessionRequest, Settings};
use holdfast_replica::{CallAnswer, CallId, CallRequest, Replica};

use crate::member::{Step, id_of};
use crate::verdict::{Invariant, Violation};
use crate::world::World;

/// A client's session is ended from outside.
pub(super) fn kill(world: &mut World, client: usize) {
    let Some(session) = world.clients[client].session_id else { return };
    world.checkers.outcomes.kills(session);
    let call = call(world, CallRequest::KillSession(KillSessionRequest { session: session.0 }));
    world.kills.extend(call.map(|call| (call, session)));
}

/// One replica more, if there is room.
pub(super) fn grow(world: &mut World) {
    if world.may_grow() {
        world.grow();
    }
}

/// One replica less, if the cell can do without it.
pub(super) fn shrink(world: &mut World, replica: usize) {
    if world.may_shrink(replica) {
        world.stats.masters_removed += u64::from(world.servers[replica].was_master);
        world.change_members([Step::Remove(replica)]);
    }
}

/// Another takes the place of a replica that is well.
pub(super) fn replace(world: &mut World, replica: usize) {
    if world.may_lose(replica) {
        world.stats.masters_removed += u64::from(world.servers[replica].was_master);
        world.replace(replica);
    }
}

/// A master that is asked to remove itself hands over instead; nobody asks its successor.
pub(super) fn depose(world: &mut World, master: usize) {
    if world.servers[master].was_master {
        world.stats.heirs_lost += 1;
        ask(world, master, CallRequest::RemoveMember(id_of(master)));
    }
}

/// Masters may lengthen leases more, or less, from now on.
pub(super) fn change_leases(world: &mut World) {
    let lease_ms_max = [100, 2_000, 8_000, 20_000][world.fault_rng.index(4)];
    let settings = Some(Settings { lease_ms_max, ..Settings::default() });
    call(world, CallRequest::ChangeSettings(ChangeSettingsRequest { settings, force: false }));
}

/// Asks whoever believes himself master.
pub(crate) fn call(world: &mut World, request: CallRequest) -> Option<CallId> {
    let master = world.servers.iter().rposition(|server| server.was_master)?;
    Some(ask(world, master, request))
}

fn ask(world: &mut World, replica: usize, request: CallRequest) -> CallId {
    world.last_call += 1;
    let call = CallId(world.last_call);
    world.hand_in_call(replica, call, 0, request).expect("what is small is not refused");
    call
}

impl World {
    /// An operator's call is answered by `replica`.
    pub(crate) fn operator_told(&mut self, call: CallId, told: Option<&CallAnswer>, replica: &Replica) {
        self.membership_answered(call);
        let session = self.kills.remove(&call);
        if let (Some(session), Some(CallAnswer::KillSession(_))) = (session, told) {
            self.stats.killed += 1;
            if replica.state().session(session).is_some() {
                let what = format!("an operator was told that {session} is over, and it is not");
                self.broken = Some(Violation::new(Invariant::ExactlyOnce, what));
            }
        }
    }
}
