//! What clients ask for, worked off by turns under a budget (ADR 0012).
//!
//! The master takes up at once what costs nothing and must not wait: KeepAlives, acknowledgements, hellos. Everything
//! else stands in a queue, a FIFO for each session and each caller of unary calls, and is worked off by shares. A turn
//! does so much of it that heartbeats and KeepAlives never wait for long; what is left is done in the turns after it,
//! which the master asks for by its time-out. Reads that a round has confirmed stand in the same queue: each is
//! answered with the state of the turn that sends the answer (I5). Invariant: a turn works off one item beyond its
//! budget at the most, and a session's requests are taken up in their order.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use holdfast_proto::client::v1::{self as client, HandleEvent, RefusalCode, request::Operation};
use holdfast_state::{Recorded, State};
use holdfast_types::ledger::Charge;
use holdfast_types::{
    ConnectionId, FRAME_REQUESTS_MAX, HandleId, Principal, RequestNumber, SessionId, SocketId, planted,
};
use prost::Message as _;

use crate::fingerprint::Fingerprint;
use crate::memory;
use crate::misuse::misuse;
use crate::notices::merged;
use crate::requests::{gives_back, is_read};
use crate::sessions::Waiting;
use crate::unary::{CallId, CallRequest};
use crate::{Master, ledger_full, limited};

/// What it costs to look at a request, whatever comes of it.
const COST_TAKEN_UP: u64 = 64;
/// What it costs to answer a read, or to have a change ordered and applied, beside its bytes.
const COST_DONE: u64 = 192;
/// What it costs to note an event for one handle.
const COST_NOTED: u64 = 16;
/// What it costs to send a notice, beside its bytes.
const COST_NOTICE: u64 = 128;
/// A change of more bytes than this is large.
const LARGE_BYTES: u64 = 4 << 10;
/// No large change is proposed while so many bytes of changes are on their way through the log: whatever is proposed
/// next waits for all of them to be written and sent.
const LOG_BYTES_LARGE_MAX: u64 = 1 << 20;
/// And none at all while there are so many: thousands of small ones are as long a wait as a few large ones. (raft drops
/// proposals beyond 64 MiB.)
const LOG_BYTES_MAX: u64 = 2 << 20;
/// No change is proposed while so many handles have yet to be told of earlier ones.
const UNTOLD_MAX: usize = 256 << 10;
/// Of one change so many handles of a session are noted before the turn's budget is looked at again.
const HANDLES_AT_ONCE_MAX: usize = 1_024;

/// Whose work it is: each has its share.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Party {
    /// A session.
    Session(SessionId),
    /// All who make unary calls as one.
    Caller(Caller),
}

/// Those who make unary calls as one principal; by one connection, where that is `anonymous`, which everybody is without TLS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Caller {
    /// By this connection.
    Anonymous(SocketId),
    /// Wherever they come from.
    Named(Principal),
}

impl Party {
    /// Whoever calls by a connection.
    pub(crate) fn caller(principal: Principal, socket: SocketId) -> Self {
        let is_anonymous = principal == Principal::anonymous();
        Self::Caller(if is_anonymous { Caller::Anonymous(socket) } else { Caller::Named(principal) })
    }
}

impl Caller {
    /// Who they have proved to be.
    pub(crate) fn principal(&self) -> Principal {
        match self {
            Self::Named(principal) => principal.clone(),
            Self::Anonymous(_) => Principal::anonymous(),
        }
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
    /// What this turn has cost: never less than what was taken off the budget.
    done: u64,
}

impl Budget {
    pub(crate) fn new(whole: u64) -> Self {
        Self { whole, left: whole, done: 0 }
    }

    pub(crate) fn renew(&mut self) {
        (self.left, self.done) = (self.whole, 0);
    }

    /// What this turn has cost.
    pub(crate) fn done(&self) -> u64 {
        self.done
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
    /// So many handles have yet to be told of changes.
    untold: usize,
}

impl Room {
    /// Whether the item can be worked off now. What gives something back always can.
    fn fits(self, work: &Work) -> bool {
        let bytes = match work {
            Work::Request(request) if is_read(request) || gives_back(request) => return true,
            Work::Request(request) => request_bytes(request),
            Work::Call(_, call) if is_write(call) => call_bytes(call),
            Work::Close | Work::Read(_) | Work::Call(..) | Work::ConfirmedCall(..) => return true,
        };
        let log_bytes_max = if bytes > LARGE_BYTES { LOG_BYTES_LARGE_MAX } else { LOG_BYTES_MAX };
        self.log_bytes < log_bytes_max && self.untold < UNTOLD_MAX
    }
}

/// Sessions that have yet to be told of changes of what they watch, in the order in which these were applied. Of what is
/// told to the same handles, the later joins what has not begun to be told: however often a node changes, no more waits
/// here than twice what watches it.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    changes: VecDeque<Change>,
    /// How many were taken out of the front.
    taken: u64,
    /// Where those stand that a later change may join, by their session and the first of their handles: as many places
    /// behind the first that ever was.
    joinable: BTreeMap<(SessionId, HandleId), u64>,
    /// How many handles the changes name.
    handles: usize,
    /// How many changes were ever noted here.
    noted: u64,
}

/// What a session has yet to be told.
#[derive(Debug)]
struct Change {
    session: SessionId,
    handles: Vec<HandleId>,
    event: Arc<HandleEvent>,
    /// So many changes were noted before the last of those that it is made of.
    before: u64,
}

impl Untold {
    pub(crate) fn push(&mut self, session: SessionId, handles: Vec<HandleId>, event: Arc<HandleEvent>) {
        let before = self.noted;
        self.noted += 1;
        let Some(first) = handles.first() else { return };
        let place = (session, *first);
        let known = self.joinable.get(&place).and_then(|at| usize::try_from(at - self.taken).ok());
        if let Some(known) =
            known.and_then(|at| self.changes.get_mut(at)).filter(|known| known.handles == handles)
        {
            known.event = Arc::new(merged(&known.event, &event));
            known.before = before;
            return;
        }
        self.joinable.insert(place, self.taken + self.changes.len() as u64);
        self.handles += handles.len();
        self.changes.push_back(Change { session, handles, event, before });
    }

    /// How many changes were ever noted here.
    pub(crate) fn noted(&self) -> u64 {
        self.noted
    }

    /// The oldest change, for some of its handles, and how many were noted before it.
    fn pop(&mut self) -> Option<(u64, SessionId, Vec<HandleId>, Arc<HandleEvent>)> {
        let change = self.changes.front_mut()?;
        // Whoever comes from now on is told to those again who have been told already.
        if let Some(first) = change.handles.first()
            && let Entry::Occupied(place) = self.joinable.entry((change.session, *first))
            && *place.get() == self.taken
        {
            place.remove();
        }
        let some = change.handles.split_off(change.handles.len().saturating_sub(HANDLES_AT_ONCE_MAX));
        let (before, session, event) = (change.before, change.session, Arc::clone(&change.event));
        if change.handles.is_empty() {
            self.changes.pop_front();
            self.taken += 1;
        }
        self.handles -= some.len();
        Some((before, session, some, event))
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
                if is_new && !gives_back(&request) {
                    self.refuse_request(state, session, number, ledger_full(&full));
                    continue;
                }
                charge.keep_anyway();
            }
            if let Some(operation) = request.operation.as_ref().filter(|_| counts) {
                let waiting = Waiting { fingerprint: Fingerprint::of(operation), charge: Some(charge) };
                entry.waiting.insert(number, waiting);
            }
            self.queue.push(&Party::Session(session), Work::Request(request));
        }
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
        self.room = Room { log_bytes, untold: self.untold.handles };
        if log_bytes < LOG_BYTES_LARGE_MAX && self.untold.handles < UNTOLD_MAX {
            self.queue.take_back();
        }
        // Half for events, so that neither they nor requests wait for all of the others.
        self.tell(state, self.budget.whole / 2);
        while self.budget.left > 0 {
            let room = self.room;
            let Some((party, work)) = self.queue.next(|work| room.fits(work)) else { break };
            let (said, is_read) = (self.connections.said(), matches!(work, Work::Read(_)));
            let cost = self.work_off(state, party, work) + self.connections.said() - said;
            if planted!(ReadNotCounted) && is_read {
                self.budget.overlook(cost);
                continue;
            }
            self.queue.charge(cost);
            self.budget.spend(cost);
        }
        self.tell(state, 0);
    }

    /// Whether there is something to do that only this turn's budget has kept from being done.
    pub(crate) fn has_work(&self) -> bool {
        self.queue.has_work() || !self.untold.changes.is_empty() || !self.eventful.is_empty()
    }

    /// Does one thing for a party. Gives what it has cost beside what was said to sessions.
    fn work_off(&mut self, state: &State, party: Party, work: Work) -> u64 {
        match (party, work) {
            (Party::Session(session), Work::Request(request)) => {
                let (bytes, is_change, tag) = (request_bytes(&request), !is_read(&request), self.last_tag);
                self.handle_request(state, session, request);
                self.fill_room(tag, bytes);
                COST_TAKEN_UP + if is_change { COST_DONE + bytes } else { 0 }
            }
            (Party::Session(session), Work::Close) => {
                self.sessions.entry(session).close_queued = false;
                self.handle_close(state, session);
                COST_DONE
            }
            (Party::Session(session), Work::Read(request)) => {
                self.answer_read(state, session, &request);
                COST_DONE
            }
            (Party::Caller(caller), Work::Call(call, request)) => {
                let (bytes, tag) = (call_bytes(&request), self.last_tag);
                self.handle_call(state, call, caller, request);
                self.fill_room(tag, bytes);
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

    /// Takes a change into account that was proposed, if one was since that tag. A change that is held fills no room.
    fn fill_room(&mut self, tag: u64, bytes: u64) {
        if self.last_tag != tag {
            self.room.log_bytes += bytes;
        }
    }

    /// Tells sessions of changes of what they watch, until only `keep` of the turn's budget is left.
    fn tell(&mut self, state: &State, keep: u64) {
        while self.budget.left > keep
            && let Some((before, session, handles, event)) = self.untold.pop()
        {
            self.budget.spend(COST_NOTED * (1 + handles.len() as u64));
            // A session that has come back since was told of all that is different from what it had seen.
            let is_told = self.sessions.get(session).is_none_or(|entry| before < entry.told_before);
            let Some(open) = state.session(session).filter(|_| !is_told) else { continue };
            for handle in handles.into_iter().filter(|handle| open.handle_path(*handle).is_some()) {
                self.push_event(session, HandleEvent { handle: handle.0, ..(*event).clone() });
            }
        }
        while self.budget.left > keep
            && let Some(session) = self.next_eventful()
        {
            let said = self.connections.said();
            self.send_events(session);
            self.budget.spend(COST_NOTICE + self.connections.said() - said);
        }
    }

    /// The next session that has events to be sent, in turn.
    fn next_eventful(&mut self) -> Option<SessionId> {
        let after = SessionId(self.last_told.0.saturating_add(1));
        let next = self.eventful.range(after..).next().or_else(|| self.eventful.first()).copied()?;
        self.eventful.remove(&next);
        self.last_told = next;
        Some(next)
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

#[cfg(test)]
mod tests {
    use holdfast_proto::client::v1::{ChildChange, EventKind};

    use super::*;

    fn handles(ids: impl IntoIterator<Item = u64>) -> Vec<HandleId> {
        ids.into_iter().map(HandleId).collect()
    }

    fn written(name: &str, generation: u64) -> Arc<HandleEvent> {
        let kind = EventKind::ChildModified.into();
        let children = vec![ChildChange { name: name.to_owned(), kind }];
        Arc::new(HandleEvent {
            kinds: vec![kind],
            children,
            children_generation: generation,
            ..HandleEvent::default()
        })
    }

    fn names(event: &HandleEvent) -> Vec<&str> {
        event.children.iter().map(|child| child.name.as_str()).collect()
    }

    #[test]
    fn what_is_told_to_the_same_handles_waits_once_and_nothing_of_it_is_lost() {
        let mut untold = Untold::default();
        for (name, generation) in [("a", 1), ("b", 2), ("a", 3)] {
            untold.push(SessionId(1), handles(1..=3_000), written(name, generation));
            untold.push(SessionId(2), handles([1]), written(name, generation));
        }
        assert_eq!((untold.handles, untold.noted()), (3_001, 6));
        // Of the first, a part is told; what comes now is told to all of its handles.
        let (before, session, some, event) = untold.pop().unwrap();
        assert_eq!((before, session, some.len()), (4, SessionId(1), HANDLES_AT_ONCE_MAX));
        assert_eq!((names(&event), event.children_generation), (vec!["a", "b"], 3));
        untold.push(SessionId(1), handles(1..=3_000), written("c", 4));
        untold.push(SessionId(1), handles(1..=3_000), written("d", 5));
        untold.push(SessionId(2), handles([1]), written("d", 5));
        let mut told = BTreeMap::new();
        while let Some((_, session, handles, event)) = untold.pop() {
            for handle in handles {
                let all: &mut Vec<String> = told.entry((session, handle)).or_default();
                all.extend(names(&event).into_iter().map(str::to_owned));
            }
        }
        assert_eq!(told[&(SessionId(1), HandleId(1))], ["a", "b", "c", "d"]);
        assert_eq!(told[&(SessionId(1), HandleId(3_000))], ["c", "d"], "it had been told the others");
        assert_eq!(told[&(SessionId(2), HandleId(1))], ["a", "b", "d"]);
        assert_eq!((untold.handles, untold.joinable.len()), (0, 0));
    }

    #[test]
    fn a_change_that_others_joined_is_as_new_as_the_last_of_them() {
        let mut untold = Untold::default();
        untold.push(SessionId(1), handles([1]), written("a", 1));
        // A session that comes back here has been told of the first.
        let told_before = untold.noted();
        untold.push(SessionId(1), handles([1]), written("b", 2));
        let (before, ..) = untold.pop().unwrap();
        assert!(before >= told_before, "the second is news to it");
    }

    #[test]
    fn other_handles_of_the_same_session_wait_by_themselves() {
        let mut untold = Untold::default();
        untold.push(SessionId(1), handles([1, 2]), written("a", 1));
        untold.push(SessionId(1), handles([1, 3]), written("b", 2));
        untold.push(SessionId(1), handles([1, 3]), written("c", 3));
        let (_, _, first, event) = untold.pop().unwrap();
        assert_eq!((first, names(&event)), (handles([1, 2]), vec!["a"]));
        let (_, _, second, event) = untold.pop().unwrap();
        assert_eq!((second, names(&event)), (handles([1, 3]), vec!["b", "c"]));
        assert!(untold.pop().is_none());
    }
}
