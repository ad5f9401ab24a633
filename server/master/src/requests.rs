//! What an attached session sends: requests, KeepAlives, its close.

use holdfast_proto::client::v1::{self as client, Outcome, RefusalCode, outcome, request::Operation};
use holdfast_proto::log::v1::{SessionRequest, command::Kind};
use holdfast_state::{Recorded, State};
use holdfast_types::{ConnectionId, HandleId, RequestNumber, SessionId};
use prost::Message as _;

use crate::{Master, Waiter, refusal};

impl Master {
    pub(crate) fn handle_session_frame(
        &mut self,
        state: &State,
        session: SessionId,
        connection: ConnectionId,
        frame: client::ClientFrame,
    ) {
        let Some(entry) = self.sessions.get(session) else { return };
        // Frames of any attachment but the newest are discarded.
        if entry.connection != Some(connection) {
            return;
        }
        if let Some(acknowledged) = frame.acknowledged {
            entry.acknowledged = Some(acknowledged);
        }
        if let Some(client::KeepAlive { number }) = frame.keep_alive {
            entry.keep_alives += 1;
            self.rounds.wait(Waiter::KeepAlive { session, connection, number });
        }
        for request in frame.requests {
            self.handle_request(state, session, request);
        }
        if frame.close.is_some() {
            self.end_session(session, client::EndReason::Closed);
        }
    }

    fn handle_request(&mut self, state: &State, session: SessionId, request: client::Request) {
        let number = request.number;
        let Some(replicated) = state.session(session) else {
            let gone = refusal(RefusalCode::UnknownSession, format!("session {} has ended", session.0));
            return self.refuse_request(state, session, number, gone);
        };
        match replicated.recorded(RequestNumber(number)) {
            Recorded::Outcome(outcome) => {
                let outcome = outcome.clone();
                self.reply(session, number, outcome);
            }
            Recorded::Acknowledged => {
                let message = format!("request {number} was acknowledged: its outcome is no longer kept");
                self.refuse_request(state, session, number, refusal(RefusalCode::Acknowledged, message));
            }
            Recorded::New => match read_handle(&request) {
                Some(handle) => self.handle_read(session, handle, request),
                None => self.handle_change(state, session, request),
            },
        }
    }

    /// A read waits for a round; and if its handle is only now being opened, for that first.
    fn handle_read(&mut self, session: SessionId, handle: HandleId, request: client::Request) {
        if self.opening_in_flight(session, handle) {
            self.sessions.entry(session).held_reads.entry(handle.0).or_default().push(request);
        } else {
            self.rounds.wait(Waiter::Read { session, request });
        }
    }

    /// A change goes into the log. A retry of one that is under way is answered when that is applied.
    fn handle_change(&mut self, state: &State, session: SessionId, request: client::Request) {
        let number = request.number;
        let in_flight_max = state.settings().requests_in_flight_max as usize;
        let entry = self.sessions.entry(session);
        if entry.in_flight.contains(&number) {
            return;
        }
        if entry.in_flight.len() >= in_flight_max {
            let message = format!("the session has {in_flight_max} requests in flight, and that is the most");
            return self.refuse_request(state, session, number, refusal(RefusalCode::Limit, message));
        }
        entry.in_flight.insert(number);
        let acknowledged = entry.acknowledged.take();
        self.propose(Kind::Request(SessionRequest {
            session: session.0,
            request: Some(request),
            acknowledged,
        }));
    }

    /// A round has confirmed the read: the state is as new as it must be.
    pub(crate) fn answer_read(&mut self, state: &State, session: SessionId, request: &client::Request) {
        let Some(connection) = self.sessions.connection(session) else { return };
        if self.connections.is_overfull(connection) {
            let message = "more was read at once than can wait for the client: keep fewer reads in flight";
            self.refuse_stream(connection, refusal(RefusalCode::Overloaded, message));
            return;
        }
        let Some(operation) = &request.operation else { return };
        let outcome = state.read(session, operation);
        self.reply(session, request.number, outcome);
    }

    /// A request of the session was applied.
    pub(crate) fn handle_replied(&mut self, session: SessionId, number: RequestNumber, outcome: Outcome) {
        let Some(entry) = self.sessions.get(session) else { return };
        entry.in_flight.remove(&number.0);
        if !entry.held_reads.is_empty()
            && let Some(reads) = entry.held_reads.remove(&number.0)
        {
            for request in reads {
                self.rounds.wait(Waiter::Read { session, request });
            }
        }
        self.reply(session, number.0, outcome);
    }

    fn refuse_request(&mut self, state: &State, session: SessionId, number: u64, refusal: client::Refusal) {
        let result = Some(outcome::Result::Refusal(refusal));
        self.reply(session, number, Outcome { revision: state.revision().0, result });
    }

    fn reply(&mut self, session: SessionId, number: u64, outcome: Outcome) {
        let Some(connection) = self.sessions.connection(session) else { return };
        let bytes = outcome.encoded_len();
        self.connections.say(connection, bytes, &mut self.outputs, |frame| {
            frame.replies.push(client::Reply { number, outcome: Some(outcome), ..client::Reply::default() });
        });
    }
}

/// The handle that a request reads through; `None` if it is no read.
fn read_handle(request: &client::Request) -> Option<HandleId> {
    match request.operation.as_ref()? {
        Operation::GetContents(read) => Some(HandleId(read.handle)),
        Operation::GetStat(read) => Some(HandleId(read.handle)),
        Operation::ReadDir(read) => Some(HandleId(read.handle)),
        _ => None,
    }
}
