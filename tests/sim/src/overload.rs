//! Runs in which nothing goes wrong but that clients ask for too much of slow machines: what must not come of that is
//! looked for here, since no fault can be the reason.

use std::fmt;

use holdfast_proto::client::v1::request::Operation;
use holdfast_replica::Replica;

use crate::effort::Slowness;
use crate::fault::FaultMix;
use crate::ledger::Room;
use crate::plan::{NetworkConditions, Plan};
use crate::rng::Rng;
use crate::verdict::{Invariant, Violation};
use crate::world::{Phase, World};

const MILLI: u64 = 1_000_000;
/// A client that does not acknowledge what it was told is overdue after so long: the cell's setting, as it begins.
const NOTICE_OVERDUE_MS: u64 = 3_000;
/// No single thing that a client asks for costs more: the files and lists of a run are short.
const ITEM_WORK_MAX: u64 = 64 << 10;
/// How much longer a write may take on a slow machine than what it has to wait for.
const SLOW_WRITE_MS: u64 = 5_000;

/// Why machines are slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overload {
    /// Clients ask for more than their share. Others must not feel much of it.
    Greed,
    /// Every turn of the master takes longer than it may be silent, so that all leases are lengthened all the time. What has to
    /// end ends all the same.
    Dragging,
}

impl fmt::Display for Overload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greed => "no fault but greed: nobody else may lose anything by it",
            Self::Dragging => "no fault but that every turn is long: what has to end ends",
        })
    }
}

impl Plan {
    /// Everything is good, but machines are slow; clients die, and that is all.
    pub(crate) fn overload_machines(&mut self, rng: &mut Rng) {
        let overload = if rng.per_mille(600) { Overload::Greed } else { Overload::Dragging };
        self.overload = Some(overload);
        self.faults = FaultMix::of_dying_clients();
        self.fault_every_nanos = 3_000 * MILLI;
        self.network = NetworkConditions::calm();
        self.sync_nanos_max = Self::CALM_SYNC_NANOS;
        self.lease_ms_max = 100;
        self.keep_alives_per_s = 20_000;
        self.clocks_beyond = false;
        // Where there is little room, one client's greed is refused to all.
        self.room = Room::AMPLE;
        self.turn_work = 16 << 10;
        let turn_nanos = rng.between(210, 350) * MILLI;
        (self.slowness, self.lease_ms) = match overload {
            Overload::Greed => {
                let times_max = [20, 50, 100][rng.index(3)];
                let slowness = Slowness { times_max, turn_nanos: 0, slow_per_mille: 1_000 };
                (slowness, [3_000, 5_000, 12_000][rng.index(3)])
            }
            Overload::Dragging => {
                (Slowness { times_max: 1, turn_nanos, slow_per_mille: 0 }, [3_000, 5_000][rng.index(2)])
            }
        };
    }
}

impl World {
    /// A replica takes office. In such a run only the first has a reason to.
    pub(crate) fn check_office(&mut self) -> Result<(), Violation> {
        self.checkers.patience.office(self.now);
        if self.is_greed() && self.stats.masters > 1 {
            let what =
                "the master lost its office, and nothing was wrong but that clients asked for too much";
            return Err(Violation::new(Invariant::Progress, what));
        }
        Ok(())
    }

    /// A turn is over: it has done no more of what clients ask for than it may, and one thing beyond that.
    pub(crate) fn check_turn(&self, index: usize, replica: &Replica) -> Result<(), Violation> {
        let (done, most) = (replica.turn_work_done(), self.plan.turn_work);
        if done > most + ITEM_WORK_MAX {
            let what = format!("a turn of replica {} did work of {done}, and {most} is the most", index + 1);
            return Err(Violation::new(Invariant::Progress, what));
        }
        Ok(())
    }

    /// A client is in jeopardy.
    pub(crate) fn check_jeopardy(&self, client: usize) -> Result<(), Violation> {
        if self.is_greed() && !self.clients[client].workload.is_greedy() {
            let what = format!("client {} is in jeopardy because of what others ask for", client + 1);
            return Err(Violation::new(Invariant::Progress, what));
        }
        Ok(())
    }

    /// Looks whether anybody has waited for too long.
    pub(crate) fn check_patience(&self) -> Result<(), Violation> {
        if self.plan.overload.is_none() || self.phase != Phase::Faults {
            return Ok(());
        }
        self.checkers.patience.check(self.now, self.plan.lease_ms)?;
        if !self.is_greed() {
            return Ok(());
        }
        let bound_ms = NOTICE_OVERDUE_MS + self.plan.lease_ms * 102 / 100 + SLOW_WRITE_MS;
        for (index, client) in self.clients.iter().enumerate() {
            let greedy = client.workload.is_greedy();
            let write = client.calls.values().find(|call| {
                matches!(call.operation, Operation::SetContents(_))
                    && self.now > call.since.after_nanos(bound_ms * MILLI)
            });
            if let Some(call) = write.filter(|_| !greedy) {
                let what = format!(
                    "client {}'s {:?} since {} waits for more than {bound_ms} ms",
                    index + 1,
                    call.operation,
                    call.since
                );
                return Err(Violation::new(Invariant::Progress, what));
            }
        }
        Ok(())
    }

    fn is_greed(&self) -> bool {
        self.plan.overload == Some(Overload::Greed) && self.phase == Phase::Faults
    }
}
