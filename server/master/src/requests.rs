//! What an attached session sends: requests, KeepAlives, acknowledgements, its close.
//!
//! Requests wait for their turn in `work`. Reads wait for a leadership round too and are answered here; changes go to
//! `changes`. What a client may keep of an answer is said with the answer. Invariant: an answer that may be kept was noted in `caches` before it is said, and none is
//! given for a node that a change is about to touch.

use holdfast_proto::client::v1::{self as client, Outcome, RefusalCode, outcome, request::Operation};
use holdfast_proto::log::v1::{SessionRequest, command::Kind};
use holdfast_state::{Recorded, State};
use holdfast_types::ledger::Charge;
use holdfast_types::{ConnectionId, HandleId, NodePath, RequestNumber, Revision, SessionId, planted};
use prost::Message as _;

use crate::held::{Change, HeldId};
use crate::misuse::misuse;
use crate::sessions::{End, InFlight, InFlightChange, Waiting};
use crate::unreaped::Unsent;
use crate::{Master, Waiter, refusal};

impl Master {
    pub(crate) fn handle_session_frame(
        &mut self,
        state: &State,
        session: SessionId,
        connection: ConnectionId,
        frame: client::ClientFrame,
        charge: Charge,
    ) {
        let Some(entry) = self.sessions.get(session) else { return };
        // Frames of any attachment but the newest are discarded.
        if entry.connection != Some(connection) {
            return;
        }
        let ranges_max = state.settings().requests_in_flight_max;
        let news = frame.acknowledged.as_ref();
        let heard = news.map_or(Ok(()), |news| entry.acknowledged.hear(news, ranges_max));
        if let Err(refusal) = heard.and_then(|()| entry.notices.check_acknowledgement(frame.notices_through))
        {
            return self.refuse_stream(connection, refusal);
        }
        if !frame.requests.is_empty() {
            entry.requested = Some(self.now);
            // Whoever asks for something is not idle: its end, which only that was the reason for, is taken back.
            if entry.end == End::Asked(client::EndReason::Idle) {
                entry.end = End::Open;
            }
        }
        if frame.notices_through > 0 {
            self.handle_acknowledgement(state, session, frame.notices_through);
            // What else the frame has, the client sends again.
            if self.sessions.connection(session) != Some(connection) {
                return;
            }
        }
        if let Some(client::KeepAlive { number }) = frame.keep_alive {
            self.handle_keep_alive(state, session, connection, number);
        }
        self.queue_requests(state, session, connection, frame.requests, charge);
        if frame.close.is_some() {
            self.queue_close(session);
        }
    }

    /// The client has acted on its notices up to this one.
    fn handle_acknowledgement(&mut self, state: &State, session: SessionId, through: u64) {
        let Some(entry) = self.sessions.get(session) else { return };
        let through = entry.notices.acknowledge(through);
        if entry.notices.has_events_to_send() {
            self.eventful.insert(session);
        }
        let answered = self.caches.acknowledged(session, through);
        if self.handle_answered(state, session, answered) {
            self.ask_to_attach_anew(session);
        }
    }

    fn handle_keep_alive(
        &mut self,
        state: &State,
        session: SessionId,
        connection: ConnectionId,
        number: u64,
    ) {
        // It waits for no round: it would put off the session's end without extending its lease.
        if self.answer_late(session, connection, number) {
            return;
        }
        self.sessions.entry(session).keep_alives += 1;
        if planted!(LeaseWithoutRound) {
            return self.answer_keep_alive(state, session, connection, number);
        }
        self.rounds.wait(Waiter::KeepAlive { session, connection, number });
    }

    /// It is the request's turn.
    pub(crate) fn handle_request(&mut self, state: &State, session: SessionId, request: client::Request) {
        let number = request.number;
        // What is not under way any more counts for nothing from here on.
        let queued = self.sessions.entry(session).waiting.remove(&number);
        let Some(replicated) = state.session(session) else {
            let gone = refusal(RefusalCode::UnknownSession, format!("session {} has ended", session.0));
            return self.refuse_request(state, session, number, gone);
        };
        let recorded = replicated.recorded(RequestNumber(number));
        if let Some(refusal) = misuse(self.sessions.entry(session), recorded, &request) {
            return self.refuse_request(state, session, number, refusal);
        }
        match recorded {
            Recorded::Outcome(Outcome { result: Some(outcome::Result::Written(_)), .. })
                if planted!(RetryDecidedAgain) =>
            {
                self.handle_change(state, session, request, queued);
            }
            Recorded::Outcome(outcome) => {
                let outcome = outcome.clone();
                self.repeat_reply(state, session, &request, outcome);
            }
            Recorded::Acknowledged => {
                let message = format!("request {number} was acknowledged: its outcome is no longer kept");
                self.refuse_request(state, session, number, refusal(RefusalCode::Acknowledged, message));
            }
            Recorded::New if is_read(&request) => self.handle_read(state, session, request, queued),
            Recorded::New => self.handle_change(state, session, request, queued),
        }
    }

    /// A read waits for a round; and if its handle is only now being opened, for that first.
    fn handle_read(
        &mut self,
        state: &State,
        session: SessionId,
        request: client::Request,
        queued: Option<Waiting>,
    ) {
        let Some(operation) = &request.operation else { return };
        let waiting = queued.unwrap_or_else(|| Waiting::uncharged(operation));
        let entry = self.sessions.entry(session);
        entry.waiting.insert(request.number, waiting);
        let handle = read_handle(&request).filter(|handle| entry.in_flight.contains_key(&handle.0));
        if let Some(handle) = handle {
            entry.held_reads.entry(handle.0).or_default().push(request);
        } else if planted!(ReadWithoutRound) {
            let _ = self.answer_read(state, session, &request);
        } else {
            self.rounds.wait(Waiter::Read { session, request });
        }
    }

    /// A change goes into the log. That none is under way under its number was seen to when it was queued.
    fn handle_change(
        &mut self,
        state: &State,
        session: SessionId,
        request: client::Request,
        queued: Option<Waiting>,
    ) {
        let number = request.number;
        let Some(operation) = &request.operation else { return };
        let Waiting { fingerprint, charge } = queued.unwrap_or_else(|| Waiting::uncharged(operation));
        let in_flight =
            InFlight { fingerprint, change: in_flight(state, session, operation), _charge: charge };
        self.sessions.entry(session).in_flight.insert(number, in_flight);
        let request = SessionRequest { session: session.0, request: Some(request), acknowledged: None };
        self.plan(state, Change::of_master(Kind::Request(request)));
    }

    /// A round has confirmed the read, and it is its turn: the state is as new as it must be. Gives how many entries the
    /// answer has, if it is a list.
    pub(crate) fn answer_read(
        &mut self,
        state: &State,
        session: SessionId,
        request: &client::Request,
    ) -> usize {
        let Some(entry) = self.sessions.get(session) else { return 0 };
        entry.waiting.remove(&request.number);
        // No answer is made for a session without a stream: its client asks again when it attaches.
        if entry.connection.is_none() {
            return 0;
        }
        let Some(operation) = &request.operation else { return 0 };
        let outcome = state.read(session, operation);
        let entries = match &outcome.result {
            Some(outcome::Result::Directory(directory)) => directory.entries.len(),
            _ => 0,
        };
        let cacheable = is_of_node(operation)
            && !matches!(outcome.result, Some(outcome::Result::Refusal(_)))
            && read_handle(request)
                .and_then(|handle| state.cacheable(session, handle))
                .is_some_and(|path| self.may_keep(state, session, &path));
        self.reply(
            session,
            client::Reply { number: request.number, outcome: Some(outcome), cacheable },
            None,
        );
        entries
    }

    /// Whether the session may keep what it is being told of a node. From here on it counts as doing so. Of no more
    /// nodes than it has handles: a client that closes handles while they are being opened gets no further with that.
    fn may_keep(&mut self, state: &State, session: SessionId, path: &NodePath) -> bool {
        let nodes_max = state.session(session).map_or(0, holdfast_state::Session::handle_count);
        !self.bars.is_barred(path)
            && self.may_cache(state, session)
            && self.caches.keep(session, path, nodes_max)
    }

    /// A request of the session was applied.
    pub(crate) fn handle_replied(
        &mut self,
        state: &State,
        session: SessionId,
        number: RequestNumber,
        outcome: Outcome,
        orphaned: Option<(NodePath, Revision)>,
    ) {
        let (in_flight, changes) = self.no_longer_in_flight(session, number.0);
        let (mut cacheable, mut void) = (false, None);
        match in_flight.map(|in_flight| in_flight.change) {
            Some(InFlightChange::Open { path, .. }) if is_refusal(&outcome, RefusalCode::NotFound) => {
                let parent = path.and_then(|path| state.caches_parent(session, &path));
                cacheable = parent.is_some_and(|parent| self.may_keep(state, session, &parent));
            }
            Some(InFlightChange::Open { path, caching }) => {
                // A name in a directory that was itself being opened is known only now.
                let opened = || state.session(session)?.handle_path(HandleId(number.0)).cloned();
                let is_unproven = caching && !self.may_cache(state, session);
                // A change under way may void the very open that is told here. It was not asked about this one.
                void = path.or_else(opened).filter(|path| is_unproven || self.bars.is_open_barred(path));
            }
            Some(InFlightChange::Close { handle, cached }) => {
                self.handle_handle_closed(state, session, handle, cached);
            }
            Some(InFlightChange::Other) | None => {}
        }
        match orphaned.filter(|_| leaves_node_behind(&outcome)) {
            Some(orphan) => self.unreaped.wait(orphan, Unsent { session, number, outcome }),
            None => {
                let reply = client::Reply { number: number.0, outcome: Some(outcome), cacheable };
                self.reply(session, reply, void);
            }
        }
        self.release(state, changes);
    }

    /// A node was reaped, or was to be: whoever closed its last handle is answered.
    pub(crate) fn handle_reaped(&mut self, tag: u64) {
        for Unsent { session, number, outcome } in self.unreaped.reaped(tag) {
            let reply = client::Reply { number: number.0, outcome: Some(outcome), cacheable: false };
            self.reply(session, reply, None);
        }
    }

    /// A request is decided: the reads that waited for that go on. Gives what was known of it, and the changes that
    /// waited.
    pub(crate) fn no_longer_in_flight(
        &mut self,
        session: SessionId,
        number: u64,
    ) -> (Option<InFlight>, Vec<HeldId>) {
        let Some(entry) = self.sessions.get(session) else { return (None, Vec::new()) };
        let in_flight = entry.in_flight.remove(&number);
        let reads = if entry.held_reads.is_empty() { None } else { entry.held_reads.remove(&number) };
        for request in reads.into_iter().flatten() {
            self.rounds.wait(Waiter::Read { session, request });
        }
        let awaiting = &mut entry.awaiting_open;
        let changes = if awaiting.is_empty() { None } else { awaiting.remove(&number) };
        (in_flight, changes.unwrap_or_default())
    }

    /// A handle is closed. If it was the last through which the session could cache its node, nothing of that is cached
    /// any more: the client drops what it has before it sends the Close.
    fn handle_handle_closed(
        &mut self,
        state: &State,
        session: SessionId,
        handle: u64,
        cached: Option<NodePath>,
    ) {
        self.sessions.entry(session).notices.closed(handle);
        if let Some(path) = cached
            && !state.caches_node(session, &path)
        {
            let answered = self.caches.closed(session, &path);
            self.handle_answered(state, session, answered);
        }
    }

    /// Answers a retry from the record. The handle that an Open gave may have missed changes of its node, because its
    /// client did not know it yet; and that the node could be opened then is no proof for now.
    fn repeat_reply(
        &mut self,
        state: &State,
        session: SessionId,
        request: &client::Request,
        outcome: Outcome,
    ) {
        let number = request.number;
        let handle = HandleId(number);
        let is_caching = matches!(&request.operation, Some(Operation::Open(open)) if open.caching);
        if self.unreaped.waits(session, RequestNumber(number)) {
            return;
        }
        let (mut void, mut event) = (None, None);
        if let Some(outcome::Result::Opened(opened)) = &outcome.result
            && let Some(stat) = &opened.stat
        {
            let path = state.session(session).and_then(|session| session.handle_path(handle));
            void = path.filter(|_| is_caching && !planted!(RecordProvesOpen)).cloned();
            event = state.change_since_open(session, handle, stat);
        }
        self.reply(session, client::Reply { number, outcome: Some(outcome), cacheable: false }, void);
        if let Some(event) = event {
            self.push_event(session, event);
        }
    }

    pub(crate) fn refuse_request(
        &mut self,
        state: &State,
        session: SessionId,
        number: u64,
        refusal: client::Refusal,
    ) {
        let result = Some(outcome::Result::Refusal(refusal));
        let outcome = Some(Outcome { revision: state.revision().0, result });
        self.reply(session, client::Reply { number, outcome, cacheable: false }, None);
    }

    /// Says what came of a request; and in the same frame, if so, that opens of `void` prove nothing.
    fn reply(&mut self, session: SessionId, reply: client::Reply, void: Option<NodePath>) {
        let Some(entry) = self.sessions.get(session) else { return };
        let (Some(connection), notices) = (entry.connection, &mut entry.notices) else { return };
        if void.is_some() && notices.is_overfull() {
            let message = "the client acknowledges no notices: attach anew, and do";
            return self.refuse_stream(connection, refusal(RefusalCode::Overloaded, message));
        }
        let (bytes, awake) = (reply.encoded_len(), self.awake);
        self.connections.say(connection, bytes, &mut self.outputs, |frame| {
            frame.replies.push(reply);
            if let Some(path) = void {
                let path = path.as_str().to_owned();
                notices.invalidate(awake, frame, client::Invalidation { path, opens: true });
            }
        });
    }
}

/// What must be known of a change when it is applied.
fn in_flight(state: &State, session: SessionId, operation: &Operation) -> InFlightChange {
    match operation {
        Operation::Open(open) if open.caching || caches(state, session) => {
            InFlightChange::Open { path: state.path_of_open(session, open), caching: open.caching }
        }
        Operation::Close(client::Close { handle }) => closing(state, session, *handle),
        // To withdraw an Open is to close what it opened.
        Operation::Cancel(client::Cancel { number, handle: 0 }) => closing(state, session, *number),
        _ => InFlightChange::Other,
    }
}

fn closing(state: &State, session: SessionId, handle: u64) -> InFlightChange {
    let cached = state.session(session).filter(|session| session.caches());
    let cached = cached.and_then(|session| session.handle_path(HandleId(handle))).cloned();
    InFlightChange::Close { handle, cached }
}

fn caches(state: &State, session: SessionId) -> bool {
    state.session(session).is_some_and(holdfast_state::Session::caches)
}

/// Whether an outcome is that of a request whose client takes the node for gone that it had open last.
fn leaves_node_behind(outcome: &Outcome) -> bool {
    matches!(outcome.result, Some(outcome::Result::Closed(_) | outcome::Result::Cancelled(_)))
}

fn is_refusal(outcome: &Outcome, code: RefusalCode) -> bool {
    matches!(&outcome.result, Some(outcome::Result::Refusal(refusal)) if refusal.code() == code)
}

/// Whether a request only reads: it is not recorded.
pub(crate) fn is_read(request: &client::Request) -> bool {
    match &request.operation {
        Some(Operation::GetSequencer(_) | Operation::CheckSequencer(_)) => true,
        Some(operation) => is_of_node(operation),
        None => false,
    }
}

/// Whether a request gives something back: it is never refused for want of room.
pub(crate) fn gives_back(request: &client::Request) -> bool {
    matches!(request.operation, Some(Operation::Release(_) | Operation::Close(_) | Operation::Cancel(_)))
}

/// Whether it reads what a client may keep.
fn is_of_node(operation: &Operation) -> bool {
    matches!(operation, Operation::GetContents(_) | Operation::GetStat(_) | Operation::ReadDir(_))
}

/// The handle that a request reads through; `None` if it is no read, or one through none.
fn read_handle(request: &client::Request) -> Option<HandleId> {
    match request.operation.as_ref()? {
        Operation::GetContents(read) => Some(HandleId(read.handle)),
        Operation::GetStat(read) => Some(HandleId(read.handle)),
        Operation::ReadDir(read) => Some(HandleId(read.handle)),
        Operation::GetSequencer(read) => Some(HandleId(read.handle)),
        _ => None,
    }
}
