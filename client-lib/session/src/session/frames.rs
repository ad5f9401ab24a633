//! What a session makes of the cell's frames.
//!
//! The order within a frame is the contract with the cell: the hello, replies, the lease, grants, notices. Replies go
//! before notices, so that what is filled into the cache and declared void in one frame is void. The invariant: a
//! notice is acknowledged only when all that it declares void is gone.

use super::Session;
use crate::doors::{Ended, Output, State, StreamId};
use crate::link::Link;
use crate::requests::Completed;
use holdfast_proto::client::v1::{
    CellInfo, ClientFrame, CloseSession, EndReason, Event, LockGrant, Notice, Refusal, RefusalCode, Reply,
    ServerFrame, SessionAttached, SessionOpened, StreamRefused, event, outcome, server_frame,
};
use holdfast_types::{HandleId, RequestNumber, SessionId, Term, planted};

/// How far the notices of the present stream are processed.
#[derive(Debug, Default)]
pub(super) struct Notices {
    /// All up to this number are.
    through: u64,
    /// The cell is to be told, in the next frame.
    acknowledge: bool,
}

impl Notices {
    /// For the next frame; 0 if there is nothing to be told.
    pub(super) fn take(&mut self) -> u64 {
        if std::mem::take(&mut self.acknowledge) { self.through } else { 0 }
    }
}

impl Session {
    pub(super) fn handle_frame(&mut self, stream: StreamId, frame: ServerFrame) {
        if self.link.stream() != Some(stream) {
            return;
        }
        self.reach.heard();
        let mut completed = Vec::new();
        if let Some(hello) = frame.hello {
            self.handle_hello(hello, &mut completed);
        }
        // After a refusal the stream is another one; before an attachment nothing else is to be believed.
        let mut over = frame.ended.map(|ended| ended.reason());
        let attached = self.link.attached() == Some(stream);
        if attached {
            if frame.replies.iter().any(tells_of_no_session) {
                over = over.or(Some(EndReason::Expired));
            }
            for reply in frame.replies.into_iter().filter(|reply| !tells_of_no_session(reply)) {
                self.handle_reply(reply, &mut completed);
            }
            if let Some(lease) = frame.lease
                && self.lease.granted(self.now, lease.number, lease.lease_ms)
            {
                self.route.succeeded();
                self.reach.served();
            }
            for event in frame.events {
                if let Event { event: Some(event::Event::LockGranted(grant)) } = event {
                    self.handle_grant(grant, &mut completed);
                }
            }
            self.become_safe();
        }
        self.complete(completed);
        if let Some(reason) = over {
            return self.end(self.ended_by(reason));
        }
        if attached {
            for notice in frame.notices {
                self.handle_notice(notice);
            }
            if let Some(ending) = frame.ending {
                self.handle_ending(ending.reason());
            }
        }
    }

    fn handle_hello(&mut self, hello: server_frame::Hello, completed: &mut Vec<Completed>) {
        match hello {
            server_frame::Hello::Opened(opened) => self.handle_opened(opened),
            server_frame::Hello::Attached(attached) => self.handle_attached(attached, completed),
            server_frame::Hello::Refused(refused) => self.handle_refused(refused),
        }
    }

    fn handle_opened(&mut self, opened: SessionOpened) {
        let Link::Greeting { stream, sent_at, .. } = self.link else { return };
        if self.id.is_some() {
            self.drop_stream("opened a session that is open", None, false);
            return;
        }
        self.id = Some(SessionId(opened.session));
        self.principal = opened.principal;
        self.lease.extend(sent_at, opened.lease_ms);
        self.attach(stream, opened.cell, &[]);
    }

    fn handle_attached(&mut self, attached: SessionAttached, completed: &mut Vec<Completed>) {
        let Link::Greeting { stream, .. } = self.link else { return };
        let cell_id = |cell: &Option<CellInfo>| cell.as_ref().map(|cell| cell.cell_id);
        if self.id.is_none() || attached.attachment != self.attachment {
            self.drop_stream("attached what was not asked for", None, false);
            return;
        }
        if cell_id(&attached.cell) != cell_id(&self.cell) {
            self.drop_stream("is a replica of another cell", None, false);
            return;
        }
        self.attach(stream, attached.cell, &attached.locks);
        if planted!(AttachIsLease) {
            self.lease.renew(self.now);
        }
        for grant in attached.locks {
            self.handle_grant(grant, completed);
        }
    }

    fn attach(&mut self, stream: StreamId, cell: Option<CellInfo>, locks: &[LockGrant]) {
        let cell = cell.unwrap_or_default();
        self.link = Link::Attached { stream };
        self.reach.served();
        self.close_sent = false;
        self.notices = Notices::default();
        self.route.learn(&cell.addresses);
        self.lease.attached(self.now);
        self.requests.attached(cell.requests_in_flight_max, cell.contents_bytes_max);
        if !self.closing {
            self.holdings.attach(&cell.name, locks);
        }
        if self.cell.as_ref().is_some_and(|earlier| cell.term > earlier.term) {
            self.outputs.push_back(Output::FailedOver { term: Term(cell.term) });
        }
        self.cell = Some(cell);
    }

    fn handle_refused(&mut self, refused: StreamRefused) {
        let refusal = refused.refusal.unwrap_or_default();
        match refusal.code() {
            RefusalCode::NotMaster => {
                let master = Some(refused.master_address).filter(|address| !address.is_empty());
                self.drop_stream(&refusal.message, master, false);
            }
            RefusalCode::Overloaded
            | RefusalCode::Superseded
            | RefusalCode::OutcomeUnknown
            | RefusalCode::Unspecified => self.drop_stream(&refusal.message, None, false),
            // The session is of a cell that this replica knows nothing of: an address has changed hands.
            RefusalCode::ForeignCell if self.id.is_some() => self.drop_stream(&refusal.message, None, false),
            // A close whose confirmation was lost.
            RefusalCode::UnknownSession if self.closing => self.end(Ended::Closed),
            RefusalCode::UnknownSession => self.end(Ended::Expired),
            _ => {
                let Refusal { code, message, facts } = refusal;
                self.end(Ended::Refused { code, message, facts });
            }
        }
    }

    fn handle_reply(&mut self, reply: Reply, completed: &mut Vec<Completed>) {
        let Some(asked) = self.requests.asked(reply.number) else { return };
        let slot = self.holdings.learn(&asked, &reply);
        self.requests.reply(reply.number, reply.outcome, slot, completed);
    }

    fn handle_grant(&mut self, grant: LockGrant, completed: &mut Vec<Completed>) {
        let (id, number) = (HandleId(grant.handle), RequestNumber(grant.number));
        let granted = grant.granted;
        let told = completed.len();
        self.requests.granted(grant, completed);
        if let Some(granted) = granted
            && completed.len() > told
        {
            self.holdings.kept.granted(id, number, &granted);
        }
    }

    fn handle_notice(&mut self, notice: Notice) {
        // Repeated until it is acknowledged: that it was processed is said again, and that is all.
        if notice.number > self.notices.through {
            self.notices.through = notice.number;
            for invalidation in &notice.invalidations {
                self.holdings.invalidate(invalidation);
            }
            for event in notice.events {
                let told = self.holdings.event(event);
                self.outputs.extend(told.map(Output::Event));
            }
        }
        self.notices.acknowledge = true;
    }

    /// The cell wants the session to end, and extends it no more.
    fn handle_ending(&mut self, reason: EndReason) {
        if self.closing {
            return;
        }
        match reason {
            EndReason::Killed => self.agree_to_end(Ended::Killed),
            // The lease is to be taken for run out: what comes with that, comes.
            EndReason::Expired => {
                if self.state == State::Safe {
                    self.change_state(State::Jeopardy);
                }
                self.agree_to_end(Ended::Expired);
            }
            EndReason::Idle => {
                // Handles that only the cache keeps do not count. They are gone at the cell first: ending an idle
                // session must not be what closes a handle.
                let closes = self.holdings.close_all_idle();
                if !closes && !self.holdings.handles.in_use() && self.requests.is_idle() {
                    self.agree_to_end(Ended::Idle);
                }
            }
            _ => {}
        }
    }

    /// The session is over from here on, and the cell need not wait for the end of the lease.
    fn agree_to_end(&mut self, ended: Ended) {
        if let Some(stream) = self.link.attached() {
            let frame = ClientFrame { close: Some(CloseSession {}), ..ClientFrame::default() };
            self.outputs.push_back(Output::Send { stream, frame });
        }
        self.end(ended);
    }

    fn ended_by(&self, reason: EndReason) -> Ended {
        match reason {
            _ if self.closing => Ended::Closed,
            EndReason::Closed => Ended::Closed,
            EndReason::Idle => Ended::Idle,
            EndReason::Killed => Ended::Killed,
            EndReason::Expired | EndReason::Unspecified => Ended::Expired,
        }
    }

    fn become_safe(&mut self) {
        if matches!(self.state, State::Opening | State::Jeopardy) && self.now < self.lease.valid_until() {
            self.change_state(State::Safe);
        }
    }
}

/// The master knows of the session's end, and its word of that is on its way.
fn tells_of_no_session(reply: &Reply) -> bool {
    let result = reply.outcome.as_ref().and_then(|outcome| outcome.result.as_ref());
    matches!(result, Some(outcome::Result::Refusal(refusal)) if refusal.code() == RefusalCode::UnknownSession)
}
