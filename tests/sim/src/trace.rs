//! Owns the trace of a run: a running hash over everything that happened, and the timeline for people.
//!
//! The hash takes in every event with its moment and its bytes, so two runs with equal hashes did the same. The
//! timeline is text that is built only when somebody reads it, and never enters the hash.

use slog::{Drain, Logger, OwnedKVList, Record, o};
use xxhash_rust::xxh3::Xxh3Default;

use crate::clock::TrueTime;

/// What an event was, in the hash. The numbers are part of the hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A replica took in its inputs.
    ReplicaWake = 1,
    /// A replica said something to another.
    PeerSent = 2,
    /// A replica sent a frame to a client.
    ServerFrame = 3,
    /// A client sent a frame to a replica.
    ClientFrame = 4,
    /// A client took in its inputs.
    ClientWake = 5,
    /// Something became durable.
    Durable = 6,
    /// A fault began or ended.
    Fault = 7,
    /// An entry of the canonical log was applied for the first time.
    Applied = 8,
    /// An application was told what came of its call.
    Told = 9,
}

/// The trace of a run.
pub struct Trace {
    hash: Xxh3Default,
    /// How many events the hash has taken in.
    events: u64,
    /// Print the timeline.
    log: bool,
}

impl Trace {
    /// An empty trace, with a timeline on the standard output if `log`.
    #[must_use]
    pub fn new(log: bool) -> Self {
        Self { hash: Xxh3Default::new(), events: 0, log }
    }

    /// Takes in an event: who did it, with what number, and its bytes.
    pub fn event(&mut self, at: TrueTime, kind: Kind, who: u64, number: u64, bytes: &[u8]) {
        let mut head = [0; 33];
        head[0] = kind as u8;
        head[1..9].copy_from_slice(&at.as_nanos().to_le_bytes());
        head[9..17].copy_from_slice(&who.to_le_bytes());
        head[17..25].copy_from_slice(&number.to_le_bytes());
        head[25..33].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.hash.update(&head);
        self.hash.update(bytes);
        self.events += 1;
    }

    /// Adds a line to the timeline, if anybody reads it.
    pub fn say(&self, at: TrueTime, line: impl FnOnce() -> String) {
        if self.log {
            println!("{at}  {}", line());
        }
    }

    /// What a replica logs to: the timeline, if anybody reads it.
    pub fn logger(&self, replica: usize) -> Logger {
        if self.log {
            Logger::root(Timeline { replica: replica + 1 }, o!())
        } else {
            Logger::root(slog::Discard, o!())
        }
    }

    /// The hash of all so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash.digest()
    }

    /// How many events there were so far.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }
}

/// Puts what a replica logs between the lines of the timeline.
struct Timeline {
    replica: usize,
}

impl Drain for Timeline {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _values: &OwnedKVList) -> Result<(), slog::Never> {
        if record.level().is_at_least(slog::Level::Info) {
            println!("             replica {} logs: {}", self.replica, record.msg());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_an_event_counts() {
        let hash = |at, kind, who, number, bytes: &[u8]| {
            let mut trace = Trace::new(false);
            trace.event(TrueTime::from_nanos(at), kind, who, number, bytes);
            trace.hash()
        };
        let first = hash(1, Kind::Fault, 2, 3, b"x");
        assert_eq!(first, hash(1, Kind::Fault, 2, 3, b"x"));
        for other in [
            hash(9, Kind::Fault, 2, 3, b"x"),
            hash(1, Kind::Told, 2, 3, b"x"),
            hash(1, Kind::Fault, 9, 3, b"x"),
            hash(1, Kind::Fault, 2, 9, b"x"),
            hash(1, Kind::Fault, 2, 3, b"y"),
        ] {
            assert_ne!(first, other);
        }
    }
}
