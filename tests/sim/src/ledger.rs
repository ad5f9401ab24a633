//! Owns what clients make each replica hold, as the daemon's front counts it: frames by the stream that they come by, calls until
//! they are answered. In some runs there is so little room that much is refused.
//!
//! The door itself refuses no frame here, and has none wait: it is the core's part that the runs are about. Invariant: what a
//! process holds is forgotten with it.

use std::collections::BTreeMap;
use std::fmt;

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{ClientFrame, Refusal, RefusalCode, Request, Role, ServerFrame, outcome};
use holdfast_replica::{CallId, CallRequest, Input, Replica, frame_bytes, request_bytes};
use holdfast_types::ledger::{Account, Charge, Ledger, LedgerLimits};
use holdfast_types::{ConnectionId, Principal, SocketId, Time};

use crate::checker::room::{Asked, Reading};
use crate::client::principal;
use crate::rng::Rng;
use crate::verdict::Violation;
use crate::world::World;

/// How much room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room(LedgerLimits);

impl Room {
    /// More than a run's clients ever ask for.
    pub const AMPLE: Self = Self(LedgerLimits::NONE);

    /// So little that a dozen requests of a client fill it, or two dozen of all. There is room for the hellos of a run, though not
    /// for all at once.
    const SCARCE: Self = Self(LedgerLimits {
        connection_bytes_max: 3 << 10,
        principal_bytes_max: 3 << 10,
        total_bytes_max: 4 << 10,
    });

    pub(crate) fn draw(rng: &mut Rng) -> Self {
        [Self::AMPLE, Self::AMPLE, Self::SCARCE][rng.index(3)]
    }
}

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::AMPLE => f.write_str("room for any number of bytes"),
            Self(limits) => write!(f, "room for {} bytes", limits.total_bytes_max),
        }
    }
}

/// One process's ledger, and what is in it that is not with the replica.
#[derive(Debug)]
pub(crate) struct Books {
    ledger: Ledger,
    limits: LedgerLimits,
    /// Of the streams from which something came, with their clients.
    accounts: BTreeMap<ConnectionId, (usize, Account)>,
    /// Calls without an answer, and whether what they hold is kept.
    calls: BTreeMap<CallId, (Charge, bool)>,
}

impl Books {
    /// Nothing is held.
    pub(crate) fn new(room: Room) -> Self {
        Self {
            ledger: Ledger::new(room.0),
            limits: room.0,
            accounts: BTreeMap::new(),
            calls: BTreeMap::new(),
        }
    }

    /// A stream is gone.
    pub(crate) fn disconnected(&mut self, connection: ConnectionId) {
        self.accounts.remove(&connection);
    }

    /// A call is answered.
    pub(crate) fn answered(&mut self, call: CallId) {
        self.calls.remove(&call);
    }

    fn charge(
        &mut self,
        connection: ConnectionId,
        client: usize,
        principal: &Principal,
        frame: &ClientFrame,
    ) -> Charge {
        let ledger = &self.ledger;
        let (_, account) =
            self.accounts.entry(connection).or_insert_with(|| (client, ledger.account(principal)));
        account.charge_anyway(frame_bytes(frame))
    }

    /// What is held although it has been taken up, and nobody waits for it any more; `waiting` inputs are not taken up.
    pub(crate) fn left(&self, waiting: &[Input]) -> usize {
        let unheard = |input: &Input| match input {
            Input::Frame { charge, .. } => charge.bytes(),
            _ => 0,
        };
        self.ledger.held() - waiting.iter().map(unheard).sum::<usize>()
    }

    /// What the ledger says now that a turn of `replica` is over.
    pub(crate) fn reading(&self, waiting: &[Input], replica: &Replica, now: Time) -> Reading {
        let small: usize =
            self.calls.values().filter(|(_, is_kept)| !is_kept).map(|(charge, _)| charge.bytes()).sum();
        let is_parked = replica.status().master == 0 || replica.status().role() == Role::Master;
        Reading {
            held: self.left(waiting) - small,
            kept: self.ledger.kept(),
            kept_of: self.accounts.values().map(|(client, account)| (*client, account.kept())).collect(),
            // Where something is left for the next turn, that may be word for those who waited for a master.
            serves_nobody: !replica.is_master()
                && !is_parked
                && replica.poll_timeout().is_none_or(|timeout| timeout > now),
        }
    }
}

impl World {
    /// A frame of a client reaches a replica.
    pub(crate) fn hand_in_frame(
        &mut self,
        index: usize,
        connection: ConnectionId,
        client: usize,
        frame: ClientFrame,
    ) {
        let principal = principal(client);
        let charge = self.servers[index].books.charge(connection, client, &principal, &frame);
        if let Some(stream) = self.streams.get(connection) {
            let owner = (stream.client.index, stream.client.life);
            if frame.hello.is_some() {
                self.checkers.room.attached(index, owner);
            }
            for request in &frame.requests {
                let asked = Asked { bytes: request_bytes(request), gives_back: gives_back(request) };
                self.checkers.room.asked(index, owner, request.number, asked);
            }
        }
        self.hand_in(index, Input::Frame { connection, principal, frame, charge });
    }

    /// A call of a client reaches a replica. If there is no room for it, that is the answer.
    ///
    /// # Errors
    ///
    /// The refusal.
    pub(crate) fn hand_in_call(
        &mut self,
        index: usize,
        call: CallId,
        client: usize,
        request: CallRequest,
    ) -> Result<(), Refusal> {
        let (principal, socket) = (principal(client), SocketId(client as u64));
        let books = &mut self.servers[index].books;
        let account = books.ledger.account(&principal);
        let is_kept = matches!(request, CallRequest::SetContents(_));
        let charge = match &request {
            CallRequest::SetContents(write) => {
                let bytes = size_of::<CallRequest>() + write.path.len() + write.contents.len();
                account.charge(bytes).and_then(|mut charge| charge.keep().map(|()| charge))
            }
            // What is small is counted, and not refused.
            _ => Ok(account.charge_anyway(size_of::<CallRequest>())),
        };
        let charge = charge.map_err(|full| {
            let message = full.to_string();
            Refusal { code: RefusalCode::Overloaded.into(), message, ..Refusal::default() }
        })?;
        books.calls.insert(call, (charge, is_kept));
        self.checkers.unary.asked(call, index, &request);
        self.hand_in(index, Input::Call { call, principal, socket, request });
        Ok(())
    }

    /// A replica sends a frame to a client: what it answers it keeps no longer.
    pub(crate) fn check_answered(
        &mut self,
        index: usize,
        connection: ConnectionId,
        frame: &ServerFrame,
    ) -> Result<(), Violation> {
        let Some(stream) = self.streams.get(connection) else { return Ok(()) };
        let owner = (stream.client.index, stream.client.life);
        for reply in &frame.replies {
            let result = reply.outcome.as_ref().and_then(|outcome| outcome.result.as_ref());
            let is_refused = matches!(result, Some(outcome::Result::Refusal(_)) | None);
            self.checkers.room.answered(index, owner, reply.number, is_refused)?;
        }
        Ok(())
    }

    /// A turn of a replica is over: it keeps what it holds, and no more than it may.
    pub(crate) fn check_room(&mut self, index: usize, replica: &Replica, now: Time) -> Result<(), Violation> {
        let server = &self.servers[index];
        let reading = server.books.reading(server.inbox(), replica, now);
        self.checkers.room.turn_over(index, &server.books.limits, &reading)
    }
}

fn gives_back(request: &Request) -> bool {
    matches!(request.operation, Some(Operation::Release(_) | Operation::Close(_) | Operation::Cancel(_)))
}
