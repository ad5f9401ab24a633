//! What replicas write: their logs and snapshots, on disks that take their time, and fail.
//!
//! A process whose disk has failed ends, as the daemon does.

use holdfast_replica::{Input, Persist, StateAt};

use super::{MICRO, MILLI};
use crate::coverage::Situation;
use crate::disk::Failure;
use crate::event::Event;
use crate::fault::Ending;
use crate::plan::Plan;
use crate::streams::Life;
use crate::trace::Kind;
use crate::world::{Phase, World};

impl World {
    pub(super) fn persist(&mut self, index: usize, persist: Persist) {
        let number = persist.number;
        self.trace.event(self.now, Kind::Durable, index as u64, number, &[u8::from(persist.sync)]);
        if let Some(at) = &persist.snapshot {
            self.stats.transfers += 1;
            if self.sights.is_anybody_waiting() {
                self.sights.reach(Situation::SnapshotWhileWaiting);
            }
            let at = at.index;
            self.trace.say(self.now, || format!("replica {} installs the snapshot at {at}", index + 1));
        }
        self.servers[index].disk.write(persist);
        self.begin_writing(index);
    }

    fn begin_writing(&mut self, index: usize) {
        let calm = self.phase > Phase::Faults;
        let server = &mut self.servers[index];
        let Some(sync) = server.disk.begin() else { return };
        let most =
            if calm { Plan::CALM_SYNC_NANOS } else { self.plan.sync_nanos_max.max(server.sync_nanos_max) };
        let nanos =
            if sync { server.rng.between(10 * MICRO, most) } else { server.rng.between(1, 10) * MICRO };
        let life = self.life_of(index);
        self.queue.push(self.leaving().after_nanos(nanos), Event::Written(life));
    }

    pub(crate) fn disk_written(&mut self, at: Life) {
        if !self.lives(at) {
            return;
        }
        match self.servers[at.index].disk.finish() {
            Ok(number) => {
                self.hand_in(at.index, Input::Persisted { number });
                self.begin_writing(at.index);
            }
            Err(failure) => self.disk_failed(at.index, failure),
        }
    }

    /// The disk has failed, and so the process ends. Whoever looks after it starts it again, for as long as it takes.
    fn disk_failed(&mut self, index: usize, failure: Failure) {
        if self.servers[index].was_master {
            self.sights.reach(Situation::MasterDiskFailed);
        }
        match failure {
            Failure::Sync => self.stats.syncs_failed += 1,
            Failure::Full => self.stats.disks_full += 1,
        }
        self.trace.event(self.now, Kind::Fault, index as u64, 0, b"disk");
        self.trace.say(self.now, || format!("replica {} ends: its disk fails ({failure:?})", index + 1));
        self.stop_replica(index, false);
        let at = self.now.after_nanos(self.servers[index].rng.between(1, 2_000) * MILLI);
        self.queue.push(at, Event::FaultEnds(Ending::Restart(index)));
    }

    pub(super) fn write_snapshot(&mut self, index: usize, state: Box<StateAt>) {
        self.stats.snapshots += 1;
        let nanos = self.servers[index].rng.between(MILLI, 500 * MILLI);
        let at = self.leaving().after_nanos(nanos);
        let server = &mut self.servers[index];
        let written = Event::SnapshotWritten(Life { index, life: server.life }, state.index);
        server.disk.write_snapshot(state);
        self.queue.push(at, written);
    }

    pub(crate) fn snapshot_written(&mut self, at: Life, index: u64) {
        if !self.lives(at) {
            return;
        }
        match self.servers[at.index].disk.finish_snapshot(index) {
            Ok(Some(index)) => self.hand_in(at.index, Input::SnapshotWritten { index }),
            Ok(None) => {}
            Err(Failure::Full) => {
                self.sights.reach(Situation::SnapshotFoundNoRoom);
                self.hand_in(at.index, Input::SnapshotFailed { why: "there is no room".to_owned() });
            }
            Err(failure) => self.disk_failed(at.index, failure),
        }
    }
}
