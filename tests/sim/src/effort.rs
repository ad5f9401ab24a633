//! Owns what a replica's turn costs: virtual time by what it did, so that whoever gives a cell more to do than it can has
//! consequences in a run (leases, elections, gaps in a master's life).
//!
//! A turn begins when its clock is read, and so do its decisions; what it says leaves the process as the work is done,
//! and the next turn begins no earlier than when all of it is. How fast a machine is follows from the seed: most do
//! nearly as much as a real one, some are so slow that a few dozen requests keep them busy for longer than a master may
//! be silent. So a run has overload without the hundreds of thousands of requests that it takes in the world.
//!
//! Invariant: nothing here draws chance, and no fault lies in it: each run is one in which that machine was so slow.

use holdfast_replica::{Input, Output};

use crate::rng::Rng;

const MICRO: u64 = 1_000;
/// What a turn costs in which nothing is done.
const TURN_NANOS: u64 = 5 * MICRO;
/// What it costs to take up an input, a message or a request, to answer one, or to apply a command.
const THING_NANOS: u64 = 2 * MICRO;
/// What it costs to decode or encode so many bytes.
const KIB_NANOS: u64 = 2 * MICRO;

/// How slow machines are, in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slowness {
    /// A slow one takes so many times as long as a real one; 1 if none is slow.
    pub times_max: u64,
    /// Each turn of a master takes so much longer, in nanoseconds, whatever it does: others have the processor meanwhile.
    pub turn_nanos: u64,
    /// So many of a thousand replicas are slow.
    pub slow_per_mille: u32,
}

impl Slowness {
    /// One of chance: in half of the runs all machines are as fast as real ones.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let times_max = [1, 1, 1, 20, 200, 2_000][rng.index(6)];
        Self { times_max, turn_nanos: 0, slow_per_mille: [300, 1_000][rng.index(2)] }
    }

    /// How many times as long as a real one a replica takes.
    pub(crate) fn of_replica(self, rng: &mut Rng) -> u64 {
        let (slow, times) = (rng.per_mille(self.slow_per_mille), rng.between(1, self.times_max));
        if slow { times } else { 1 }
    }
}

/// What a turn has cost so far.
#[derive(Debug)]
pub(crate) struct Effort {
    times: u64,
    nanos: u64,
}

impl Effort {
    /// A turn of a machine that takes so many times as long as a real one, and so much longer.
    pub(crate) fn new(times: u64, turn_nanos: u64) -> Self {
        Self { times, nanos: TURN_NANOS * times + turn_nanos }
    }

    /// In nanoseconds.
    pub(crate) fn nanos(&self) -> u64 {
        self.nanos
    }

    /// An input is taken up.
    pub(crate) fn take_up(&mut self, input: &Input) {
        match input {
            Input::Frame { frame, .. } => self.spend(1 + frame.requests.len(), 0),
            Input::Peer { messages, .. } => {
                self.spend(messages.len(), messages.iter().map(|message| message.len()).sum());
            }
            Input::TimePassed
            | Input::PeerReset { .. }
            | Input::PeerAnnounced { .. }
            | Input::Persisted { .. }
            | Input::SnapshotArrived { .. }
            | Input::SnapshotSent { .. }
            | Input::SnapshotWritten { .. }
            | Input::SnapshotFailed { .. }
            | Input::Disconnected { .. }
            | Input::Call { .. }
            | Input::Withdraw { .. }
            | Input::Unheard { .. }
            | Input::HandOver => self.spend(1, 0),
        }
    }

    /// An output is performed; a frame's bytes are told apart.
    pub(crate) fn perform(&mut self, output: &Output) {
        match output {
            Output::Frame { frame, .. } => self.spend(1 + frame.replies.len() + frame.events.len(), 0),
            Output::Peer { message, .. } => self.spend(1, message.len()),
            Output::Persist(persist) => {
                self.spend(persist.entries.len(), persist.entries.iter().map(|entry| entry.data.len()).sum());
            }
            Output::SendSnapshot { .. }
            | Output::WriteSnapshot(_)
            | Output::Disconnect { .. }
            | Output::Leadership { .. }
            | Output::HandedOver
            | Output::Removed
            | Output::List { .. }
            | Output::Answer { .. }
            | Output::Members(_) => self.spend(1, 0),
        }
    }

    /// So many entries, or commands, were applied.
    pub(crate) fn apply(&mut self, commands: u64) {
        self.spend(usize::try_from(commands).unwrap_or(usize::MAX), 0);
    }

    /// So many bytes were encoded.
    pub(crate) fn encode(&mut self, bytes: usize) {
        self.spend(0, bytes);
    }

    fn spend(&mut self, things: usize, bytes: usize) {
        let nanos = things as u64 * THING_NANOS + bytes as u64 * KIB_NANOS / 1_024;
        self.nanos = self.nanos.saturating_add(nanos.saturating_mul(self.times));
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::client::v1::{ClientFrame, Request};
    use holdfast_types::ledger::{Ledger, LedgerLimits};
    use holdfast_types::{ConnectionId, Principal};

    use super::*;

    #[test]
    fn a_turn_costs_what_it_does_and_so_many_times_as_much_on_a_slow_machine() {
        let principal = Principal::parse("a").expect("a name");
        let requests = vec![Request::default(); 99];
        let frame = ClientFrame { requests, ..ClientFrame::default() };
        let charge = Ledger::new(LedgerLimits::NONE).account(&principal).charge_anyway(0);
        let input = Input::Frame { connection: ConnectionId(1), principal, frame, charge };
        let cost = |times| {
            let mut effort = Effort::new(times, 0);
            effort.take_up(&input);
            effort.encode(10_240);
            effort.nanos()
        };
        assert_eq!(cost(1), TURN_NANOS + 100 * THING_NANOS + 10 * KIB_NANOS);
        assert_eq!(cost(2_000), 2_000 * cost(1));
    }

    #[test]
    fn in_some_runs_a_few_dozen_requests_take_longer_than_a_master_may_be_silent() {
        let mut rng = Rng::new(1);
        let slownesses: Vec<u64> = (0..200).map(|_| Slowness::draw(&mut rng).of_replica(&mut rng)).collect();
        let silent = |times: &&u64| 60 * THING_NANOS * **times > 200_000 * MICRO;
        assert!(slownesses.iter().filter(silent).count() > 3, "{slownesses:?}");
        assert!(slownesses.iter().filter(|times| **times == 1).count() > 80, "{slownesses:?}");
    }
}
