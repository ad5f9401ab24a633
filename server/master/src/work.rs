//! What clients ask for, worked off by turns under a budget (ADR 0012).
//!
//! The master takes up at once what costs nothing and must not wait: KeepAlives, acknowledgements, hellos. Everything
//! else stands in a queue, a FIFO for each session and each caller of unary calls, and is worked off by shares. A turn
//! does so much of it that heartbeats and KeepAlives never wait for long; what is left is done in the turns after it,
//! which the master asks for by its time-out. Reads that a round has confirmed stand in the same queue: each is
//! answered with the state of the turn that sends the answer (I5). Invariant: a turn works off one item beyond its
//! budget at the most, and a session's requests are taken up in their order.

use holdfast_proto::client::v1::{self as client, RefusalCode, request::Operation};
use holdfast_state::{Recorded, State};
use holdfast_types::ledger::Charge;
use holdfast_types::{
    ConnectionId, FRAME_REQUESTS_MAX, Principal, RequestNumber, SessionId, SocketId, planted,
};
use prost::Message as _;

use crate::fingerprint::Fingerprint;
use crate::memory;
use crate::misuse::misuse;
use crate::requests::{gives_back, is_read};
use crate::sessions::Waiting;
use crate::unary::{CallId, CallRequest, Caller};
use crate::{Master, ledger_full, limited};

/// What it costs to look at a request, whatever comes of it.
const COST_TAKEN_UP: u64 = 64;
/// What it costs to answer a read, or to have a change ordered and applied, beside its bytes.
const COST_DONE: u64 = 192;
/// What each entry of a list costs beside its bytes: it is put together, encoded and let go like a small request and its answer.
pub(crate) const COST_ENTRY: u64 = COST_TAKEN_UP + COST_DONE;
/// A change of more bytes than this is large.
const LARGE_BYTES: u64 = 1 << 10;
/// No large change is proposed while so many bytes of changes are on their way through the log: whatever is proposed
/// next waits for all of them to be written and sent.
const LOG_BYTES_LARGE_MAX: u64 = 256 << 10;
/// And none at all while there are so many: thousands of small ones are as long a wait as a few large ones. It is more than
/// large ones come to with the one that goes beyond their bound, so that small ones find room beside them. (raft drops proposals
/// beyond 64 MiB.)
const LOG_BYTES_MAX: u64 = 768 << 10;

/// A turn has one in so many parts of its budget for telling what has changed: neither that nor requests wait for all of the
/// other. No more of it is told where there are no requests: those that come should find a short turn before them.
const TELLING_ONE_IN: u64 = 4;

/// Whose work it is: each has its share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    /// A session.
    Session(SessionId),
    /// All who make unary calls as one.
    Caller(Caller),
}

impl Party {
    /// Whoever calls by a connection.
    pub(crate) fn caller(principal: Principal, socket: SocketId) -> Self {
        let is_anonymous = principal == Principal::anonymous();
        Self::Caller(if is_anonymous { Caller::Anonymous(socket) } else { Caller::Named(principal) })
    }
}

/// Something to be done for a party.
#[derive(Debug)]
pub(crate) enum Work {
    /// A request that has not been looked at.
    Request(client::Request),
    /// The session's close, behind its requests.
    Close,
    /// A read of a session that a round has confirmed.
    Read(client::Request),
    /// A unary call that has not been looked at.
    Call(CallId, CallRequest),
    /// A unary call that a round has confirmed.
    ConfirmedCall(CallId, CallRequest),
}

/// How much a turn may do.
#[derive(Debug)]
pub(crate) struct Budget {
    /// What a turn may cost.
    whole: u64,
    /// What is left of it in this turn.
    left: u64,
    /// What may be spent in this turn on telling what has changed.
    telling: u64,
    /// What this turn has cost: never less than what was taken off the budget.
    done: u64,
}

impl Budget {
    pub(crate) fn new(whole: u64) -> Self {
        Self { whole, left: whole, telling: whole / TELLING_ONE_IN, done: 0 }
    }

    pub(crate) fn renew(&mut self) {
        *self = Self::new(self.whole);
    }

    /// What this turn has cost.
    pub(crate) fn done(&self) -> u64 {
        self.done
    }

    /// Whether something can be told in this turn.
    pub(crate) fn may_tell(&self) -> bool {
        self.left > 0 && self.telling > 0
    }

    pub(crate) fn spend_telling(&mut self, cost: u64) {
        self.telling = self.telling.saturating_sub(cost);
        self.spend(cost);
    }

    fn spend(&mut self, cost: u64) {
        self.left = self.left.saturating_sub(cost);
        self.done += cost;
    }

    /// Notes what was done without taking it off the budget: a fault that is planted.
    fn overlook(&mut self, cost: u64) {
        self.done += cost;
    }
}

/// What keeps changes from being proposed now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Room {
    /// So many bytes of changes are proposed and not applied.
    log_bytes: u64,
    /// Too much of earlier changes has yet to be told.
    untold_is_full: bool,
}

impl Room {
    /// Whether the item can be worked off now. What gives something back always can. `pauses`: its party has sent much.
    fn fits(self, work: &Work, pauses: impl Fn() -> bool) -> bool {
        let bytes = match work {
            Work::Request(request) if is_read(request) || gives_back(request) => return true,
            Work::Request(request) => request_bytes(request),
            Work::Call(_, call) if is_write(call) => call_bytes(call),
            Work::Close | Work::Read(_) | Work::Call(..) | Work::ConfirmedCall(..) => return true,
        };
        let is_large = bytes > LARGE_BYTES;
        let log_bytes_max = if is_large { LOG_BYTES_LARGE_MAX } else { LOG_BYTES_MAX };
        self.log_bytes < log_bytes_max && !self.untold_is_full && !(is_large && pauses())
    }
}

impl Master {
    /// Queues what a frame asks for. What is under way already is answered when it is done, and what is beyond the
    /// session's limit now.
    pub(crate) fn queue_requests(
        &mut self,
        state: &State,
        session: SessionId,
        connection: ConnectionId,
        requests: Vec<client::Request>,
        mut charge: Charge,
    ) {
        let most = state.settings().requests_in_flight_max as usize;
        for request in requests {
            let entry = self.sessions.entry(session);
            let (number, under_way) = (request.number, entry.under_way());
            let recorded = state.session(session).map(|open| open.recorded(RequestNumber(number)));
            let is_new = matches!(recorded, None | Some(Recorded::New));
            if let Some(refusal) = misuse(entry, recorded.unwrap_or(Recorded::New), &request) {
                self.refuse_request(state, session, number, refusal);
                continue;
            }
            if entry.fingerprint_under_way(number).is_some() {
                continue;
            }
            let giving_back_most = 2 * most + FRAME_REQUESTS_MAX;
            if under_way >= giving_back_most {
                let message = format!(
                    "{under_way} requests of the session wait: send no more before they are answered"
                );
                let (code, limit) = (RefusalCode::Overloaded, "requests_waiting_max");
                let full = limited(code, limit, giving_back_most, under_way + 1, message);
                return self.refuse_stream(connection, full);
            }
            let counts = !(planted!(ReadNotCounted) && is_read(&request));
            // What gives something back, and what is known already, is never refused without a trace (I6).
            if counts && under_way >= most && is_new && !gives_back(&request) {
                let message = format!("the session has {most} requests in flight, and that is the most");
                let (code, limit) = (RefusalCode::Limit, "requests_in_flight_max");
                let full = limited(code, limit, most, under_way + 1, message);
                self.refuse_request(state, session, number, full);
                continue;
            }
            let mut charge = charge.split(memory::request_bytes(&request));
            if let Err(full) = charge.keep() {
                if is_new && !gives_back(&request) && !planted!(LedgerOverdrawn) {
                    self.refuse_request(state, session, number, ledger_full(&full));
                    continue;
                }
                charge.keep_anyway();
            }
            if planted!(LedgerBypassed) {
                drop(charge.split(usize::MAX));
            }
            if let Some(operation) = request.operation.as_ref().filter(|_| counts) {
                let waiting = Waiting { fingerprint: Fingerprint::of(operation), charge: Some(charge) };
                entry.waiting.insert(number, waiting);
            }
            self.queue.push(&Party::Session(session), Work::Request(request));
        }
    }

    /// Queues a call behind the others of its caller.
    pub(crate) fn queue_call(&mut self, call: CallId, party: Party, request: CallRequest) {
        self.queue.push(&party, Work::Call(call, request));
        self.queued_calls.insert(call, party);
    }

    /// Takes a call out of the queue. False if the master has looked at it already, or does not know it.
    pub(crate) fn unqueue_call(&mut self, call: CallId) -> bool {
        let Some(party) = self.queued_calls.remove(&call) else { return false };
        let is_this = |work: &Work| matches!(work, Work::Call(queued, _) if *queued == call);
        self.queue.remove(&party, is_this).is_some()
    }

    /// Queues the session's close behind its requests, once.
    pub(crate) fn queue_close(&mut self, session: SessionId) {
        if !std::mem::replace(&mut self.sessions.entry(session).close_queued, true) {
            self.queue.push(&Party::Session(session), Work::Close);
        }
    }

    /// Works off what is queued, as far as the turn's budget goes. `log_bytes` of changes are on their way through
    /// the log.
    pub(crate) fn work(&mut self, state: &State, log_bytes: u64) {
        self.room = Room { log_bytes, untold_is_full: self.untold.is_full() };
        let has_room = log_bytes < LOG_BYTES_LARGE_MAX;
        self.pace.turn(self.now, has_room);
        if has_room && !self.room.untold_is_full {
            self.queue.take_back();
        }
        // First, so that requests do not use up what there is for it.
        self.tell(state);
        while self.budget.left > 0 {
            let (room, pace, now) = (self.room, &self.pace, self.now);
            let fits = |party: &Party, work: &Work| room.fits(work, || pace.pauses(now, party));
            let Some((party, work)) = self.queue.next(fits) else { break };
            let (said, is_read) = (self.connections.said(), matches!(work, Work::Read(_)));
            let cost = self.work_off(state, party, work) + self.connections.said() - said;
            if planted!(ReadNotCounted) && is_read {
                self.budget.overlook(cost);
                continue;
            }
            self.queue.charge(cost);
            self.budget.spend(cost);
        }
        self.tell(state);
    }

    /// Whether there is something to do that only this turn's budget has kept from being done.
    pub(crate) fn has_work(&self) -> bool {
        self.queue.has_work() || !self.untold.is_empty() || !self.eventful.is_empty()
    }

    /// Does one thing for a party. Gives what it has cost beside what was said to sessions.
    fn work_off(&mut self, state: &State, party: Party, work: Work) -> u64 {
        match (party, work) {
            (Party::Session(session), Work::Request(request)) => {
                let (bytes, is_change) = (request_bytes(&request), !is_read(&request));
                self.handle_request(state, session, request);
                COST_TAKEN_UP + if is_change { COST_DONE + bytes } else { 0 }
            }
            (Party::Session(session), Work::Close) => {
                self.sessions.entry(session).close_queued = false;
                self.handle_close(state, session);
                COST_DONE
            }
            (Party::Session(session), Work::Read(request)) => {
                let entries = self.answer_read(state, session, &request);
                COST_DONE + COST_ENTRY * entries as u64
            }
            (Party::Caller(caller), Work::Call(call, request)) => {
                self.queued_calls.remove(&call);
                let bytes = call_bytes(&request);
                self.handle_call(state, call, caller, request);
                COST_TAKEN_UP + COST_DONE + bytes
            }
            (Party::Caller(caller), Work::ConfirmedCall(call, request)) => {
                COST_DONE + self.answer_call(state, call, &caller.principal(), &request)
            }
            (Party::Session(_), Work::Call(..) | Work::ConfirmedCall(..))
            | (Party::Caller(_), Work::Request(_) | Work::Close | Work::Read(_)) => {
                unreachable!("sessions have requests, and callers have calls")
            }
        }
    }

    /// Takes a change into account that is proposed, whether it was held before or not.
    pub(crate) fn fill_room(&mut self, party: &Party, bytes: u64) {
        self.room.log_bytes += bytes;
        self.pace.proposed(self.now, party, bytes);
    }
}

/// About how large a request's command is.
fn request_bytes(request: &client::Request) -> u64 {
    let bytes = match &request.operation {
        Some(Operation::SetContents(write)) => write.contents.len(),
        Some(Operation::Open(open)) => open.encoded_len(),
        Some(operation) => size_of_val(operation),
        None => 0,
    };
    bytes as u64
}

/// About how large a call is.
fn call_bytes(call: &CallRequest) -> u64 {
    let bytes = match call {
        CallRequest::SetContents(write) => write.contents.len() + write.path.len(),
        CallRequest::GetContents(client::GetContentsRequest { path })
        | CallRequest::GetStat(client::GetStatRequest { path })
        | CallRequest::ReadDir(client::ReadDirRequest { path, .. })
        | CallRequest::Delete(client::DeleteRequest { path, .. })
        | CallRequest::ListHandles(client::ListHandlesRequest { path, .. }) => path.len(),
        CallRequest::CheckSequencer(check) => check.sequencer.len(),
        CallRequest::SetAcl(change) => change.encoded_len(),
        CallRequest::ChangeSettings(settings) => settings.encoded_len(),
        CallRequest::GetSettings
        | CallRequest::ListSessions(_)
        | CallRequest::KillSession(_)
        | CallRequest::ExpireSession(_)
        | CallRequest::AddMember(_)
        | CallRequest::PromoteMember(_)
        | CallRequest::RemoveMember(_) => 0,
        CallRequest::ListUsage(client::ListUsageRequest { after, .. }) => after.len(),
    };
    bytes as u64
}

/// Whether a call changes what clients write.
fn is_write(call: &CallRequest) -> bool {
    matches!(call, CallRequest::SetContents(_) | CallRequest::Delete(_) | CallRequest::SetAcl(_))
}
