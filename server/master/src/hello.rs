//! The first frame of a stream: a session is opened, or an attachment made (design.md §4, §5).
//!
//! Owns the decision who may attach: whoever knows the secret, as the principal that opened the session, under a number
//! that is newer than the last. Invariant: who attaches caches nothing, so all that waited for the session to drop
//! something goes on.

use holdfast_proto::client::v1::{self as client, EndReason, RefusalCode, client_frame, server_frame};
use holdfast_proto::log::v1::{OpenSession, command::Kind};
use holdfast_state::State;
use holdfast_types::ledger::Charge;
use holdfast_types::{CELL_LOCAL, ConnectionId, Duration, FRAME_REQUESTS_MAX, Principal, SessionId, planted};

use crate::connections::Stage;
use crate::sessions::End;
use crate::{Master, Waiter, frame_bytes, ledger_full, limited, load, refusal};

/// The lease length of a session that asks for none.
const LEASE_MS_DEFAULT: u32 = 12_000;

/// The greatest number of an attachment. A client that counts its attachments never comes near it; one that takes the
/// greatest number there is by mistake is told so, and has not locked itself out.
const ATTACHMENT_MAX: u64 = u64::MAX >> 1;

/// So many frames of a stream may follow its hello before that is answered.
const FRAMES_WAITING_MAX: usize = 64;

/// A session that is being opened.
#[derive(Debug)]
pub(crate) struct Opening {
    /// Where the answer goes.
    pub(crate) connection: ConnectionId,
    /// The number of the attachment that the stream will be.
    pub(crate) attachment: u64,
    /// Whether the client keeps the session although it is idle.
    pub(crate) keep_when_idle: bool,
    /// Who opens it. That it is not another's, if it was found, the state has seen to.
    pub(crate) principal: Principal,
    /// What the hello counts for.
    pub(crate) _charge: Charge,
}

impl Master {
    pub(crate) fn handle_frame(
        &mut self,
        state: &State,
        connection: ConnectionId,
        principal: Principal,
        mut frame: client::ClientFrame,
        mut charge: Charge,
    ) {
        let (hello, requests) = (frame.hello.take(), frame.requests.len());
        if requests > FRAME_REQUESTS_MAX && (hello.is_some() || self.connections.contains(connection)) {
            let message = format!("a frame has {requests} requests, and {FRAME_REQUESTS_MAX} is the most");
            if hello.is_some() && !self.connections.contains(connection) {
                // Or there would be no stream to refuse.
                self.connections.add(connection);
            }
            let (code, limit) = (RefusalCode::Limit, "frame_requests_max");
            self.refuse_stream(connection, limited(code, limit, FRAME_REQUESTS_MAX, requests, message));
            return;
        }
        match (self.connections.stage(connection), hello) {
            (None, Some(hello)) => {
                self.connections.add(connection);
                // The hello may wait for longer than its stream lives.
                let rest = charge.split(frame_bytes(&frame));
                match charge.keep() {
                    Ok(()) => {
                        self.wait_for_hello(connection, frame, rest);
                        self.handle_hello(state, connection, principal, hello, charge);
                    }
                    Err(full) => self.refuse_stream(connection, ledger_full(&full)),
                }
            }
            // What follows on a stream that was ended concerns nobody. That a stream begins with a hello is seen
            // to by the front.
            (None, None) => {}
            (Some(_), Some(_)) => self.refuse_stream(
                connection,
                refusal(
                    RefusalCode::Protocol,
                    "only the first frame of a stream may open or attach a session",
                ),
            ),
            (Some(Stage::Hello { frames }), None) if frames.len() < FRAMES_WAITING_MAX => {
                self.wait_for_hello(connection, frame, charge);
            }
            (Some(Stage::Hello { .. }), None) => self.refuse_stream(
                connection,
                refusal(RefusalCode::Protocol, "too many frames before the hello was answered"),
            ),
            (Some(Stage::Attached(session)), None) => {
                let session = *session;
                self.handle_session_frame(state, session, connection, frame, charge);
            }
        }
    }

    /// Keeps a frame, or the rest of the hello's own, until the hello is answered. Or refuses the stream, if there is no room.
    fn wait_for_hello(&mut self, connection: ConnectionId, frame: client::ClientFrame, mut charge: Charge) {
        if let Err(full) = charge.keep() {
            self.refuse_stream(connection, ledger_full(&full));
        } else if let Some(Stage::Hello { frames }) = self.connections.stage(connection) {
            frames.push((frame, charge));
        }
    }

    pub(crate) fn handle_disconnected(&mut self, connection: ConnectionId) {
        if let Some(session) = self.connections.session(connection) {
            self.sessions.detach(session, connection);
        }
        self.connections.remove(connection);
    }

    fn handle_hello(
        &mut self,
        state: &State,
        connection: ConnectionId,
        principal: Principal,
        hello: client_frame::Hello,
        charge: Charge,
    ) {
        let cell = match &hello {
            client_frame::Hello::Open(open) => &open.cell,
            client_frame::Hello::Attach(attach) => &attach.cell,
        };
        if !(cell.is_empty() || cell == CELL_LOCAL || cell == state.cell()) {
            let message = format!("the client means the cell {cell:?}, and this is {:?}", state.cell());
            self.refuse_stream(connection, refusal(RefusalCode::ForeignCell, message));
            return;
        }
        if let client_frame::Hello::Attach(attach) = &hello
            && ![0, state.cell_id()].contains(&attach.cell_id)
        {
            let (means, is) = (attach.cell_id, state.cell_id());
            let message =
                format!("the session is of the cell with id {means:016x}, and this one has {is:016x}");
            self.refuse_stream(connection, refusal(RefusalCode::ForeignCell, message));
            return;
        }
        let (attachment, least) = match &hello {
            client_frame::Hello::Open(open) => (open.attachment, 0),
            client_frame::Hello::Attach(attach) => (attach.attachment, 1),
        };
        if !(least..=ATTACHMENT_MAX).contains(&attachment) {
            let message = format!(
                "an attachment's number is {least} to {ATTACHMENT_MAX}, not {attachment}: it rises by one each time"
            );
            self.refuse_stream(connection, refusal(RefusalCode::Invalid, message));
            return;
        }
        match hello {
            client_frame::Hello::Open(open) => {
                self.handle_open_session(connection, principal, open, charge);
            }
            client_frame::Hello::Attach(attach) => {
                if state.session(SessionId(attach.session)).is_some() {
                    self.decide_attach(state, connection, &principal, &attach);
                } else {
                    // A master that was deposed and does not know it yet may not have heard of a session that
                    // is alive and well. Only a confirmed one may say that there is none.
                    self.rounds.wait(Waiter::Attach { connection, principal, attach, _charge: charge });
                }
            }
        }
    }

    fn handle_open_session(
        &mut self,
        connection: ConnectionId,
        principal: Principal,
        open: client::OpenSession,
        charge: Charge,
    ) {
        let lease_ms = if open.lease_ms == 0 { LEASE_MS_DEFAULT } else { open.lease_ms };
        let command = OpenSession {
            secret: open.secret,
            lease_ms,
            client: open.client,
            principal: principal.as_str().to_owned(),
        };
        let tag = self.propose(Kind::OpenSession(command));
        let (attachment, keep_when_idle) = (open.attachment, open.keep_when_idle);
        let opening = Opening { connection, attachment, keep_when_idle, principal, _charge: charge };
        self.openings.insert(tag, opening);
    }

    /// The opening was applied. Its commit in this term stands for a round, so the lease begins with it; a
    /// repeated opening found a session whose lease began earlier, and is told of no lease.
    pub(crate) fn handle_opened(&mut self, state: &State, tag: u64, session: SessionId, repeated: bool) {
        let opening = self.openings.remove(&tag);
        let Some(replicated) = state.session(session) else {
            // A session that was found again, and ended in the same batch.
            if let Some(Opening { connection, .. }) = opening {
                let message = "the session ended while it was being opened again: try once more";
                self.refuse_stream(connection, refusal(RefusalCode::Overloaded, message));
            }
            return;
        };
        let lease_ms = replicated.lease_ms();
        if !repeated {
            self.leases.begin(self.now, session, Duration::from_millis(u64::from(lease_ms)));
        }
        let Some(Opening { connection, attachment, keep_when_idle, principal, .. }) = opening else { return };
        // Whoever has no handle caches nothing, and what is under way of it is answered by the newer stream.
        let unused = replicated.handle_count() == 0 && self.sessions.entry(session).under_way() == 0;
        if !self.may_attach(connection, session, attachment, unused) {
            return;
        }
        let opened = client::SessionOpened {
            session: session.0,
            lease_ms: if repeated && !planted!(RepeatedOpeningLease) { 0 } else { lease_ms },
            lease_length_ms: lease_ms,
            cell: Some(self.cell_info(state)),
            principal: principal.as_str().to_owned(),
        };
        self.sessions.entry(session).keep_when_idle = keep_when_idle;
        self.attach(state, connection, session, attachment, server_frame::Hello::Opened(opened));
    }

    pub(crate) fn handle_open_refused(&mut self, tag: u64, refusal: client::Refusal) {
        if let Some(opening) = self.openings.remove(&tag) {
            self.refuse_stream(opening.connection, refusal);
        }
    }

    /// Attaches a stream to a session, or refuses it. Reached with an unknown session only once a round has
    /// confirmed that this is the master.
    pub(crate) fn decide_attach(
        &mut self,
        state: &State,
        connection: ConnectionId,
        principal: &Principal,
        attach: &client::AttachSession,
    ) {
        let id = SessionId(attach.session);
        let Some(session) = state.session(id) else {
            let message = format!("there is no session {}: it has ended, or never was", attach.session);
            self.refuse_stream(connection, refusal(RefusalCode::UnknownSession, message));
            return;
        };
        if !same_secret(session.secret(), &attach.secret) {
            let message = format!("the secret is not that of session {}", attach.session);
            self.refuse_stream(connection, refusal(RefusalCode::WrongSecret, message));
            return;
        }
        if session.principal() != principal {
            let owner = session.principal();
            let message =
                format!("session {id} was opened by {owner}, not by {principal}: open a session of your own");
            self.refuse_stream(connection, refusal(RefusalCode::PermissionDenied, message));
            return;
        }
        if !self.may_attach(connection, id, attach.attachment, false) {
            return;
        }
        let attached = client::SessionAttached {
            attachment: attach.attachment,
            locks: state.locks_of(id),
            cell: Some(self.cell_info(state)),
        };
        self.sessions.entry(id).keep_when_idle = attach.keep_when_idle;
        self.attach(state, connection, id, attach.attachment, server_frame::Hello::Attached(attached));
        self.sessions.entry(id).told_before = self.untold.noted();
        if planted!(EventsLostAtFailOver) {
            return;
        }
        for event in state.changes_since(id, &attach.seen) {
            self.push_event(id, event);
        }
    }

    /// Whether the attachment is newer than what the session has; or, of a repeated opening, as new, if the session is
    /// `unused`: then its client may not know of the first one's answer. Refuses the stream if not.
    fn may_attach(
        &mut self,
        connection: ConnectionId,
        session: SessionId,
        attachment: u64,
        unused: bool,
    ) -> bool {
        if !self.connections.contains(connection) {
            return false;
        }
        let newest = self.sessions.entry(session).attachment;
        if attachment > newest || (unused && attachment == newest) {
            return true;
        }
        let message = format!("attachment {attachment} is not newer than {newest}, which the session has");
        self.refuse_stream(connection, refusal(RefusalCode::Superseded, message));
        false
    }

    fn attach(
        &mut self,
        state: &State,
        connection: ConnectionId,
        session: SessionId,
        attachment: u64,
        hello: server_frame::Hello,
    ) {
        if let Some(older) = self.sessions.attach(session, attachment, connection)
            && older != connection
        {
            let message = format!("attachment {attachment} of the session has taken over");
            self.refuse_stream(older, refusal(RefusalCode::Superseded, message));
        }
        self.leases.attached(self.now, session);
        let entry = self.sessions.entry(session);
        entry.requested.get_or_insert(self.now);
        if entry.keep_when_idle && entry.end == End::Asked(EndReason::Idle) {
            entry.end = End::Open;
        }
        self.connections.say(connection, 256, &mut self.outputs, |frame| frame.hello = Some(hello));
        self.say_ending(session);
        // Whoever attaches has emptied its cache before it asked to.
        let answered = self.caches.emptied(session);
        self.handle_answered(state, session, answered);
        self.sessions.entry(session).cache_is_empty();
        for (frame, charge) in self.connections.attach(connection, session) {
            self.handle_session_frame(state, session, connection, frame, charge);
        }
    }

    pub(crate) fn refuse_stream(&mut self, connection: ConnectionId, refusal: client::Refusal) {
        if let Some(session) = self.connections.session(connection) {
            self.sessions.detach(session, connection);
        }
        let refused = client::StreamRefused { refusal: Some(refusal), master_address: String::new() };
        self.connections.end(connection, &mut self.outputs, |frame| {
            frame.hello = Some(server_frame::Hello::Refused(refused));
        });
    }

    fn cell_info(&self, state: &State) -> client::CellInfo {
        let settings = state.settings();
        client::CellInfo {
            name: state.cell().to_owned(),
            cell_id: state.cell_id(),
            term: self.term.0,
            addresses: state.members().map(|member| member.client_address.clone()).collect(),
            requests_in_flight_max: settings.requests_in_flight_max,
            contents_bytes_max: settings.contents_bytes_max,
            reattach_spread_ms: load::reattach_spread_ms(state.session_count()),
        }
    }
}

/// Compares in a time that does not tell where the first difference is.
fn same_secret(ours: &[u8], theirs: &[u8]) -> bool {
    ours.len() == theirs.len() && ours.iter().zip(theirs).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}
