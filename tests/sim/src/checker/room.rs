//! I10, for the bytes that clients make a replica hold (ADR 0013): all that the core holds it keeps in the ledger, and no more
//! of it than the ledger's limits let it; beside that it keeps what is never refused, which this checker counts for itself.
//!
//! The checker is told what comes in for a replica, what leaves it, and what its ledger says after each turn. It knows nothing
//! of the core's queues, so it finds a queue that goes past the ledger by its shadow: a request that is answered in a later turn
//! than the one that it came for was somewhere meanwhile, and the ledger must have counted it.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_types::ledger::LedgerLimits;

use crate::verdict::{Invariant, Violation};

/// The checker follows no more requests of a process than this at a time, or floods would make runs slow.
const FOLLOWED_MAX: usize = 64;

/// A client's session: which client, in which of its lives.
pub type Owner = (usize, u64);

/// A request that has come in.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// What the ledger counts for it.
    pub bytes: usize,
    /// It gives something back: it finds room in any case.
    pub gives_back: bool,
}

/// What a replica's ledger says when a turn is over.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// What the replica holds, without what has come since the turn began, and without calls that are never refused.
    pub held: usize,
    /// What the core keeps, in all.
    pub kept: usize,
    /// What it keeps of single streams, with their clients.
    pub kept_of: Vec<(usize, usize)>,
    /// The core has no use for clients' bytes: another replica is master, and this one knows that.
    pub serves_nobody: bool,
}

/// The checker.
#[derive(Debug, Default)]
pub struct Room {
    processes: BTreeMap<usize, Process>,
    /// The requests that ever came in anywhere: a request that comes again may be recorded, and is not refused then.
    seen: BTreeSet<(Owner, u64)>,
}

/// What is known of a replica's process.
#[derive(Debug, Default)]
struct Process {
    /// Requests that are never refused and have no answer, with what the ledger counts for them.
    exempt: BTreeMap<(Owner, u64), usize>,
    /// Requests that have no answer, with what the ledger counts for them, and the least that it has counted for all since.
    followed: BTreeMap<(Owner, u64), (usize, usize)>,
}

impl Room {
    /// A request comes in for a replica.
    pub fn asked(&mut self, replica: usize, owner: Owner, number: u64, asked: Asked) {
        let process = self.processes.entry(replica).or_default();
        let is_new = self.seen.insert((owner, number));
        if asked.gives_back || !is_new {
            process.exempt.insert((owner, number), asked.bytes);
        }
        // The answer to a Close may wait for more than for the Close.
        if !asked.gives_back {
            process.follow((owner, number), asked.bytes);
        }
    }

    /// A client attaches to a replica anew: the replica answers what the client asked before only if it asks again.
    pub fn attached(&mut self, replica: usize, owner: Owner) {
        if let Some(process) = self.processes.get_mut(&replica) {
            process.followed.retain(|(of, _), _| *of != owner);
        }
    }

    /// A replica answers a request.
    ///
    /// # Errors
    ///
    /// The ledger did not count it while it waited.
    pub fn answered(
        &mut self,
        replica: usize,
        owner: Owner,
        number: u64,
        is_refused: bool,
    ) -> Result<(), Violation> {
        let Some(process) = self.processes.get_mut(&replica) else { return Ok(()) };
        process.exempt.remove(&(owner, number));
        match process.followed.remove(&(owner, number)) {
            Some((bytes, least)) if least < bytes && !is_refused => {
                let what = format!(
                    "replica {} had request {number} of client {} under way, of {bytes} bytes, and kept {least} in its ledger",
                    replica + 1,
                    owner.0 + 1
                );
                Err(Violation::new(Invariant::Progress, what))
            }
            _ => Ok(()),
        }
    }

    /// A replica's process is over.
    pub fn stopped(&mut self, replica: usize) {
        self.processes.remove(&replica);
    }

    /// A turn of a replica is over.
    ///
    /// # Errors
    ///
    /// What it holds or keeps beyond what it may.
    pub fn turn_over(
        &mut self,
        replica: usize,
        limits: &LedgerLimits,
        reading: &Reading,
    ) -> Result<(), Violation> {
        let process = self.processes.entry(replica).or_default();
        let broken = |what: String| {
            Err(Violation::new(Invariant::Progress, format!("replica {} {what}", replica + 1)))
        };
        let Reading { held, kept, kept_of, serves_nobody } = reading;
        for (_, least) in process.followed.values_mut() {
            *least = (*least).min(*kept);
        }
        if held != kept {
            return broken(format!(
                "holds {held} bytes of clients between its turns, and keeps {kept} of them"
            ));
        }
        if *serves_nobody && *kept > 0 {
            return broken(format!("serves nobody, and keeps {kept} bytes of clients"));
        }
        // Half of the whole, and a quarter for those that keep little.
        let most = limits.total_bytes_max / 2 + limits.total_bytes_max / 4;
        if *kept > most + process.exempt_bytes(|_| true) {
            return broken(format!("keeps {kept} bytes of clients, and may keep {most}"));
        }
        let most = limits.connection_bytes_max / 2;
        let over =
            |(client, kept): &&(usize, usize)| *kept > most + process.exempt_bytes(|whose| whose == *client);
        match kept_of.iter().filter(|(_, kept)| *kept > most).find(over) {
            Some((client, kept)) => broken(format!(
                "keeps {kept} bytes of a stream of client {}, and may keep {most}",
                client + 1
            )),
            None => Ok(()),
        }
    }
}

impl Process {
    /// Follows a request from now on, also one that has come before. There is always room for one more: those that the
    /// ledger has counted least for while they were followed have no answer any more, or will be told of another time.
    fn follow(&mut self, request: (Owner, u64), bytes: usize) {
        self.followed.insert(request, (bytes, usize::MAX));
        if self.followed.len() > FOLLOWED_MAX {
            let least =
                self.followed.iter().min_by_key(|(_, (_, least))| *least).map(|(request, _)| *request);
            least.map(|request| self.followed.remove(&request));
        }
    }

    /// What the ledger counts for the requests of some clients that are never refused.
    fn exempt_bytes(&self, counts: impl Fn(usize) -> bool) -> usize {
        self.exempt.iter().filter(|(((client, _), _), _)| counts(*client)).map(|(_, bytes)| bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LedgerLimits =
        LedgerLimits { connection_bytes_max: 400, principal_bytes_max: 400, total_bytes_max: 1_000 };
    const OWNER: Owner = (3, 1);

    fn kept(kept: usize) -> Reading {
        Reading { held: kept, kept, kept_of: vec![(3, kept)], serves_nobody: false }
    }

    fn asked(bytes: usize) -> Asked {
        Asked { bytes, gives_back: false }
    }

    #[test]
    fn a_core_that_keeps_more_than_its_share_is_found_unless_what_it_keeps_is_never_refused() {
        let mut room = Room::default();
        room.asked(0, OWNER, 1, asked(200));
        assert_eq!(room.turn_over(0, &LIMITS, &kept(200)), Ok(()));
        assert!(
            room.turn_over(0, &LIMITS, &kept(201)).is_err(),
            "half of what a stream may hold is its share"
        );
        room.asked(0, OWNER, 2, Asked { bytes: 60, gives_back: true });
        assert_eq!(room.turn_over(0, &LIMITS, &kept(260)), Ok(()));
        room.asked(1, OWNER, 1, asked(200));
        assert_eq!(room.turn_over(1, &LIMITS, &kept(400)), Ok(()), "it may be recorded: it has come before");
        room.answered(0, OWNER, 2, false).unwrap();
        assert!(room.turn_over(0, &LIMITS, &kept(260)).is_err(), "it is answered");
        let in_all = |kept| Reading { held: kept, kept, kept_of: Vec::new(), serves_nobody: false };
        assert_eq!(room.turn_over(0, &LIMITS, &in_all(750)), Ok(()));
        assert!(room.turn_over(0, &LIMITS, &in_all(751)).is_err());
    }

    #[test]
    fn a_request_that_waits_where_the_ledger_does_not_count_it_is_found_when_it_is_answered() {
        let mut room = Room::default();
        room.asked(0, OWNER, 1, asked(50));
        room.turn_over(0, &LIMITS, &kept(50)).unwrap();
        assert_eq!(room.answered(0, OWNER, 1, false), Ok(()));
        for is_refused in [true, false] {
            room.asked(0, OWNER, 2, asked(50));
            room.turn_over(0, &LIMITS, &kept(49)).unwrap();
            let told = room.answered(0, OWNER, 2, is_refused);
            assert_eq!(told.is_ok(), is_refused, "what is refused at the door is kept nowhere");
        }
        room.asked(0, OWNER, 3, asked(50));
        assert_eq!(room.answered(0, OWNER, 3, false), Ok(()), "it was answered in the turn that it came for");
    }

    #[test]
    fn a_request_that_comes_again_is_followed_from_then_on_however_many_others_are() {
        let mut room = Room::default();
        let many = FOLLOWED_MAX as u64;
        (1..=many).for_each(|number| room.asked(0, OWNER, number, asked(50)));
        room.turn_over(0, &LIMITS, &kept(0)).unwrap();
        room.asked(0, OWNER, 1, asked(50));
        assert_eq!(
            room.answered(0, OWNER, 1, false),
            Ok(()),
            "it was answered in the turn that it came again for"
        );
        // There is room for another one, although none of those was answered.
        room.asked(0, (4, 1), 1, asked(50));
        room.turn_over(0, &LIMITS, &kept(49)).unwrap();
        assert!(room.answered(0, (4, 1), 1, false).is_err());
        room.attached(0, OWNER);
        assert_eq!(room.answered(0, OWNER, 2, false), Ok(()), "its client has not asked for it here");
    }

    #[test]
    fn what_is_held_and_not_kept_is_found_and_so_is_what_a_replica_keeps_for_nothing() {
        let mut room = Room::default();
        let reading = Reading { held: 90, ..kept(80) };
        assert!(room.turn_over(0, &LIMITS, &reading).is_err());
        let reading = Reading { serves_nobody: true, ..kept(80) };
        assert!(room.turn_over(0, &LIMITS, &reading).is_err());
        assert_eq!(room.turn_over(0, &LIMITS, &Reading { serves_nobody: true, ..kept(0) }), Ok(()));
    }
}
