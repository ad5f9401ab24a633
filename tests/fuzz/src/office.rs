//! A replica with a master in office: a cell of one, whose disk is done at once and whose clock is set by hand.
//!
//! Invariant, asserted at every output: a call is answered once, and nothing is said to a stream that never spoke.

use std::collections::BTreeSet;

use holdfast_proto::client::v1::ClientFrame;
use holdfast_proto::log::v1::Member;
use holdfast_replica::{
    Boot, CallId, CallRequest, Config, Fault, Input, Output, Replica, StateAt, frame_bytes,
};
use holdfast_state::{Genesis, State, settings};
use holdfast_types::ledger::{Ledger, LedgerLimits};
use holdfast_types::{ConnectionId, Duration, Principal, ReplicaId, SocketId, Term, Time};
use slog::{Discard, Logger, o};

/// One input leads to no more outputs than this: there is one session for each of a few streams.
const OUTPUTS_MAX: usize = 100_000;

/// So much is kept that inputs now and then go beyond it.
const LEDGER_LIMITS: LedgerLimits =
    LedgerLimits { connection_bytes_max: 8 << 10, principal_bytes_max: 16 << 10, total_bytes_max: 16 << 10 };

/// A cell's beginning, of this many replicas.
pub(crate) fn genesis(replicas: u64) -> StateAt {
    let member = |id| Member {
        id,
        data_id: id,
        peer_address: format!("p{id}:1"),
        client_address: format!("c{id}:1"),
        learner: false,
    };
    let members = (1..=replicas).map(member).collect();
    let genesis = Genesis { cell: "dev".to_owned(), cell_id: 7, members, settings: settings::defaults() };
    let state = State::genesis(genesis);
    StateAt { index: 1, term: Term(1), voters: (1..=replicas).collect(), learners: Vec::new(), state }
}

/// A log that keeps nothing.
fn silence() -> Logger {
    Logger::root(Discard, o!())
}

/// A replica, and what it has said.
pub struct Office {
    /// The replica.
    pub replica: Replica,
    now: Time,
    /// What frames count in: little, so that some find no room.
    ledger: Ledger,
    spoken: BTreeSet<ConnectionId>,
    open_calls: BTreeSet<CallId>,
    last_call: u64,
    /// The streams that were told something.
    pub told: BTreeSet<ConnectionId>,
    /// It was removed from its cell.
    pub removed: bool,
}

impl Office {
    /// A replica of a cell of one that is in office.
    ///
    /// # Panics
    ///
    /// If it does not come into office.
    #[must_use]
    pub fn of_one() -> Self {
        let boot = Boot { state: Some(genesis(1)), ..Boot::default() };
        let mut office = Self::boot(boot).expect("a genesis is whole");
        while !office.replica.is_master() {
            office.pass(Duration::from_millis(10)).expect("nothing has gone wrong yet");
        }
        office
    }

    /// A replica with this on its disk.
    ///
    /// # Errors
    ///
    /// A fault, if that is not whole.
    pub fn boot(boot: Boot) -> Result<Self, Fault> {
        let replica = Replica::new(Time::ZERO, Config::new(ReplicaId(1), 42, 1), boot, silence())?;
        let mut office = Self {
            replica,
            now: Time::ZERO,
            ledger: Ledger::new(LEDGER_LIMITS),
            spoken: BTreeSet::new(),
            open_calls: BTreeSet::new(),
            last_call: 0,
            told: BTreeSet::new(),
            removed: false,
        };
        office.settle()?;
        Ok(office)
    }

    /// Hands something in, and performs what follows from it.
    ///
    /// # Errors
    ///
    /// A fault.
    pub fn input(&mut self, input: Input) -> Result<(), Fault> {
        self.replica.handle(self.now, input)?;
        self.settle()
    }

    /// A client's frame.
    ///
    /// # Errors
    ///
    /// A fault.
    pub fn frame(&mut self, connection: u64, frame: ClientFrame) -> Result<(), Fault> {
        let connection = ConnectionId(connection);
        self.spoken.insert(connection);
        let principal = Principal::anonymous();
        let charge = self.ledger.account(&principal).charge_anyway(frame_bytes(&frame));
        self.input(Input::Frame { connection, principal, frame, charge })
    }

    /// A client's call.
    ///
    /// # Errors
    ///
    /// A fault.
    pub fn call(&mut self, request: CallRequest) -> Result<CallId, Fault> {
        self.last_call += 1;
        let call = CallId(self.last_call);
        self.open_calls.insert(call);
        self.input(Input::Call { call, principal: Principal::anonymous(), socket: SocketId(1), request })?;
        Ok(call)
    }

    /// Whether a call was answered. Others that were made before it may have their answers later.
    #[must_use]
    pub fn is_answered(&self, call: CallId) -> bool {
        !self.open_calls.contains(&call)
    }

    /// Time passes, and wakes the replica whenever it wants to be woken.
    ///
    /// # Errors
    ///
    /// A fault.
    pub fn pass(&mut self, span: Duration) -> Result<(), Fault> {
        let until = self.now + span;
        while let Some(next) = self.replica.poll_timeout().filter(|next| *next <= until) {
            // However often it wants to be woken, time goes on.
            self.now = self.now.max(next) + Duration::from_micros(100);
            self.input(Input::TimePassed)?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Fault> {
        for _ in 0..OUTPUTS_MAX {
            let Some(output) = self.replica.poll_output()? else { return Ok(()) };
            match output {
                Output::Persist(persist) => {
                    self.replica.handle(self.now, Input::Persisted { number: persist.number })?;
                }
                Output::SendSnapshot { to, state, .. } => {
                    let sent = Input::SnapshotSent { to, index: state.index, ok: false };
                    self.replica.handle(self.now, sent)?;
                }
                Output::WriteSnapshot(state) => {
                    self.replica.handle(self.now, Input::SnapshotWritten { index: state.index })?;
                }
                Output::Frame { connection, .. } => {
                    assert!(self.spoken.contains(&connection), "a frame to {connection}, which never spoke");
                    self.told.insert(connection);
                }
                Output::Answer { call, .. } | Output::List { call, .. } => {
                    assert!(self.open_calls.remove(&call), "{call:?} was answered twice");
                }
                Output::Removed => self.removed = true,
                Output::Peer { .. }
                | Output::Disconnect { .. }
                | Output::Members(_)
                | Output::Leadership { .. }
                | Output::HandedOver => {}
            }
        }
        panic!("there is no end to what the replica wants done");
    }
}
