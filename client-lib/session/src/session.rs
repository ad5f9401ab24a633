//! The session itself: the control flow between its link, its lease and its requests.
//!
//! Everything here happens in [`Session::handle`] and [`Session::poll_output`]; the leaves (`lease`, `link`,
//! `requests`, `route`) know nothing of each other. The invariant: a frame that did not come on the present
//! stream changes nothing.

use crate::counters::CacheCounters;
use crate::doors::{CallError, Config, Ended, Input, Output, State, StreamId, Token};
use crate::lease::Lease;
use crate::link::Link;
use crate::requests::{Completed, Requests};
use crate::route::Route;
use holdfast_proto::client::v1::{
    AttachSession, CellInfo, ClientFrame, CloseSession, EndReason, OpenSession, RefusalCode, Reply,
    ServerFrame, SessionAttached, SessionOpened, StreamRefused, client_frame, event, outcome,
    request::Operation, server_frame,
};
use holdfast_types::{Duration, SessionId, Time};
use std::collections::VecDeque;
use std::sync::Arc;

/// A connection and its hello get at least so long, however short the lease: a handshake takes round trips.
const GREETING_MIN: Duration = Duration::from_millis(500);

/// A client's session, from before it is opened until it is over. See the crate's page.
#[derive(Debug)]
pub struct Session {
    config: Config,
    /// The greatest time that was ever handed in.
    now: Time,
    /// When the session was made: the grace period of the opening counts from it.
    made_at: Time,
    state: State,
    /// Known once the cell has said that the session is open.
    id: Option<SessionId>,
    /// As of the newest attachment.
    cell: Option<CellInfo>,
    /// The last attachment's number. Only rises.
    attachment: u64,
    /// The last stream's name. Only rises.
    stream: u64,
    link: Link,
    route: Route,
    lease: Lease,
    requests: Requests,
    counters: Arc<CacheCounters>,
    /// The application is done with the session; the cell is to be told.
    closing: bool,
    /// It was told on the present attachment.
    close_sent: bool,
    /// What was in the way last, for people.
    last_problem: String,
    outputs: VecDeque<Output>,
}

impl Session {
    /// A session that is about to be opened: the first output says where to connect.
    #[must_use]
    pub fn new(now: Time, config: Config) -> Self {
        let mut session = Self {
            now,
            made_at: now,
            state: State::Opening,
            id: None,
            cell: None,
            attachment: 0,
            stream: 0,
            link: Link::Idle { retry_at: now },
            route: Route::new(config.addresses.clone(), config.seed),
            lease: Lease::new(config.lease, config.drift_per_mille),
            requests: Requests::default(),
            counters: Arc::default(),
            closing: false,
            close_sent: false,
            last_problem: "no replica was reached".to_owned(),
            outputs: VecDeque::new(),
            config,
        };
        session.pass_link_time();
        session
    }

    /// Takes up what happened. `now` is the time at which the driver took the input off its queue.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.now = self.now.max(now);
        // First of all: what was true until now need not be true at the time of the input.
        self.pass_lease_time();
        match input {
            Input::TimePassed => self.pass_link_time(),
            Input::Connected { stream } => self.handle_connected(stream),
            Input::Disconnected { stream, reason } => {
                if self.link.stream() == Some(stream) {
                    self.last_problem = reason;
                    self.link = Link::Idle { retry_at: self.now };
                    self.leave(None);
                }
            }
            Input::Frame { stream, frame } => self.handle_frame(stream, frame),
            Input::Call { token, operation } => self.handle_call(token, operation),
            Input::CancelCall { token } => self.handle_cancel(token),
            Input::KeepLocks { .. } => {}
            Input::Close => self.handle_close(),
        }
    }

    /// The next thing that the session wants done; `None` if nothing more. Call it until then after each batch
    /// of inputs: what was called for in the batch is put in one frame.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front().or_else(|| self.poll_frame())
    }

    /// When to come back if nothing happens; `None` once the session is over.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Time> {
        let state = match self.state {
            State::Opening | State::Jeopardy => Some(self.grace_end()),
            State::Safe => Some(self.lease.valid_until()),
            State::Ended(_) => return None,
        };
        let link = self.link.timeout().or_else(|| self.lease.timeout());
        state.into_iter().chain(link).min()
    }

    /// How the session fares, as of the last input.
    #[must_use]
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The session is valid before this moment of the driver's clock. It never moves back, but for the end of the
    /// session, when it becomes [`Time::ZERO`]; and already when the session begins to close, for the cell may end it
    /// and grant its locks to others before its word of that is here.
    #[must_use]
    pub fn valid_until(&self) -> Time {
        let over = self.closing || matches!(self.state, State::Ended(_));
        if over { Time::ZERO } else { self.lease.valid_until() }
    }

    /// The session's id, once it is open.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.id
    }

    /// The cell, as the newest attachment described it.
    #[must_use]
    pub fn cell(&self) -> Option<&CellInfo> {
        self.cell.as_ref()
    }

    /// How well the cache does. May be kept, and read from any thread.
    #[must_use]
    pub fn cache_counters(&self) -> Arc<CacheCounters> {
        Arc::clone(&self.counters)
    }

    /// Every address at which a replica may be: the application's own, then what the cell added.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.route.addresses().to_vec()
    }

    // ---- Time.

    /// When a session that has no lease is given up.
    fn grace_end(&self) -> Time {
        let since = if self.state == State::Opening { self.made_at } else { self.lease.valid_until() };
        since + self.config.grace
    }

    /// Notices what has run out by the clock alone.
    fn pass_lease_time(&mut self) {
        if self.state == State::Safe && self.now >= self.lease.valid_until() {
            self.change_state(State::Jeopardy);
        }
        if matches!(self.state, State::Opening | State::Jeopardy) && self.now >= self.grace_end() {
            self.end(self.grace_over());
        }
    }

    /// Connects when it is time, and leaves whoever is silent. Only when the driver says that time has passed,
    /// which it does after everything else: after a pause of the whole process the answer may be among the inputs
    /// that are still to come.
    fn pass_link_time(&mut self) {
        if matches!(self.state, State::Ended(_)) {
            return;
        }
        match self.link {
            Link::Idle { retry_at } if self.now >= retry_at => self.connect(),
            Link::Connecting { give_up_at, .. } | Link::Greeting { give_up_at, .. }
                if self.now >= give_up_at =>
            {
                self.drop_stream("a replica did not answer", None, true);
            }
            Link::Attached { .. } if self.lease.silent_at().is_some_and(|at| self.now >= at) => {
                self.drop_stream("the master did not answer a KeepAlive", None, true);
            }
            _ => {}
        }
    }

    fn grace_over(&self) -> Ended {
        let grace_ms = u64::try_from(self.config.grace.as_millis()).unwrap_or(u64::MAX);
        let last = self.last_problem.clone();
        match self.state {
            State::Opening => Ended::Unreachable { waited_ms: grace_ms, last },
            _ => Ended::GraceOver { grace_ms, last },
        }
    }

    fn change_state(&mut self, state: State) {
        self.state = state.clone();
        self.outputs.push_back(Output::StateChanged(state));
    }

    /// The session is over, for ever.
    fn end(&mut self, ended: Ended) {
        if let Some(stream) = self.link.stream() {
            self.outputs.push_back(Output::Disconnect { stream, silent: false });
        }
        self.link = Link::Idle { retry_at: Time::MAX };
        self.lease.detached();
        // Before the completions, so that whoever gets one finds the session over.
        self.change_state(State::Ended(ended.clone()));
        let mut completed = Vec::new();
        self.requests.fail_all(&ended, &mut completed);
        self.complete(completed);
    }

    // ---- The link.

    fn connect(&mut self) {
        let Some(address) = self.route.next_address() else {
            "no address of a replica is known".clone_into(&mut self.last_problem);
            self.link = Link::Idle { retry_at: Time::MAX };
            return;
        };
        self.stream += 1;
        let stream = StreamId(self.stream);
        self.link = Link::Connecting { stream, give_up_at: self.now + self.greeting_time() };
        self.outputs.push_back(Output::Connect { stream, address });
    }

    fn greeting_time(&self) -> Duration {
        self.lease.silence().max(GREETING_MIN)
    }

    fn drop_stream(&mut self, why: &str, master: Option<String>, silent: bool) {
        if let Some(stream) = self.link.stream() {
            self.outputs.push_back(Output::Disconnect { stream, silent });
        }
        why.clone_into(&mut self.last_problem);
        self.leave(master);
    }

    /// The stream is gone: to the named master, or the next replica, now or after a pause.
    fn leave(&mut self, master: Option<String>) {
        self.lease.detached();
        let pause = self.route.failed(master);
        self.link = Link::Idle { retry_at: self.now + pause };
        if pause.is_zero() {
            self.connect();
        }
    }

    fn handle_connected(&mut self, connected: StreamId) {
        let Link::Connecting { stream, .. } = self.link else { return };
        if stream != connected {
            return;
        }
        self.attachment += 1;
        let hello = match self.id {
            None => client_frame::Hello::Open(OpenSession {
                cell: self.config.cell.clone(),
                secret: self.config.secret_bytes(),
                // More than a u32 holds is refused by the cell like all that is beyond its limit.
                lease_ms: u32::try_from(self.config.lease.as_millis()).unwrap_or(u32::MAX),
                client: self.config.client.clone(),
                attachment: self.attachment,
            }),
            Some(SessionId(session)) => client_frame::Hello::Attach(AttachSession {
                cell: self.config.cell.clone(),
                session,
                secret: self.config.secret_bytes(),
                attachment: self.attachment,
                seen: Vec::new(),
            }),
        };
        let give_up_at = self.now + self.greeting_time();
        self.link = Link::Greeting { stream, sent_at: self.now, give_up_at };
        let frame = ClientFrame { hello: Some(hello), ..ClientFrame::default() };
        self.outputs.push_back(Output::Send { stream, frame });
    }

    // ---- Frames.

    fn handle_frame(&mut self, stream: StreamId, frame: ServerFrame) {
        if self.link.stream() != Some(stream) {
            return;
        }
        let mut completed = Vec::new();
        if let Some(hello) = frame.hello {
            self.handle_hello(hello, &mut completed);
        }
        // After a refusal the stream is another one; before an attachment nothing else is to be believed.
        let mut over = frame.ended.map(|ended| ended.reason());
        if self.link.attached() == Some(stream) {
            if frame.replies.iter().any(tells_of_no_session) {
                over = over.or(Some(EndReason::Expired));
            }
            for reply in frame.replies.into_iter().filter(|reply| !tells_of_no_session(reply)) {
                self.requests.reply(reply.number, reply.outcome, &mut completed);
            }
            if let Some(lease) = frame.lease
                && self.lease.granted(lease.number, lease.lease_ms)
            {
                self.route.succeeded();
            }
            for event in frame.events {
                if let Some(event::Event::LockGranted(grant)) = event.event {
                    self.requests.granted(grant, &mut completed);
                }
            }
            self.become_safe();
        }
        self.complete(completed);
        if let Some(reason) = over {
            self.end(if self.closing || reason == EndReason::Closed {
                Ended::Closed
            } else {
                Ended::Expired
            });
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
            self.drop_stream("a replica opened a session that is open", None, false);
            return;
        }
        self.id = Some(SessionId(opened.session));
        self.lease.extend(sent_at, opened.lease_ms);
        self.attach(stream, opened.cell);
    }

    fn handle_attached(&mut self, attached: SessionAttached, completed: &mut Vec<Completed>) {
        let Link::Greeting { stream, .. } = self.link else { return };
        let cell_id = |cell: &Option<CellInfo>| cell.as_ref().map(|cell| cell.cell_id);
        if self.id.is_none() || attached.attachment != self.attachment {
            self.drop_stream("a replica attached what was not asked for", None, false);
            return;
        }
        if cell_id(&attached.cell) != cell_id(&self.cell) {
            self.drop_stream("a replica of another cell answered", None, false);
            return;
        }
        self.attach(stream, attached.cell);
        for grant in attached.locks {
            self.requests.granted(grant, completed);
        }
    }

    fn attach(&mut self, stream: StreamId, cell: Option<CellInfo>) {
        let cell = cell.unwrap_or_default();
        self.link = Link::Attached { stream };
        self.close_sent = false;
        self.route.learn(&cell.addresses);
        self.lease.attached(self.now);
        self.requests.attached(cell.requests_in_flight_max, cell.contents_bytes_max);
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
            // A close whose confirmation was lost.
            RefusalCode::UnknownSession if self.closing => self.end(Ended::Closed),
            RefusalCode::UnknownSession => self.end(Ended::Expired),
            _ => self.end(Ended::Refused { code: refusal.code, message: refusal.message }),
        }
    }

    fn become_safe(&mut self) {
        if matches!(self.state, State::Opening | State::Jeopardy) && self.now < self.lease.valid_until() {
            self.change_state(State::Safe);
        }
    }

    // ---- Calls.

    fn handle_call(&mut self, token: Token, operation: Operation) {
        let ended = match &self.state {
            State::Ended(ended) => ended.clone(),
            _ if self.closing => Ended::Closed,
            _ => {
                let mut completed = Vec::new();
                self.requests.call(token, operation, &mut completed);
                return self.complete(completed);
            }
        };
        self.complete(vec![(token, Err(CallError::Ended { ended, maybe_applied: false }))]);
    }

    fn handle_cancel(&mut self, token: Token) {
        if self.requests.cancel(token) {
            return;
        }
        // It may be complete, and not polled yet.
        let is_completion =
            |output: &Output| matches!(output, Output::Complete { token: t, .. } if *t == token);
        let Some(place) = self.outputs.iter().position(is_completion) else { return };
        let over = self.closing || matches!(self.state, State::Ended(_));
        if let Some(Output::Complete { result: Ok(completion), .. }) = self.outputs.remove(place)
            && let Some(undo) = completion.undo()
            && !over
        {
            self.requests.enqueue(None, undo);
        }
    }

    fn handle_close(&mut self) {
        if self.closing || matches!(self.state, State::Ended(_)) {
            return;
        }
        self.closing = true;
        let mut completed = Vec::new();
        self.requests.fail_unsent(&Ended::Closed, &mut completed);
        self.complete(completed);
        if self.attachment == 0 {
            // The cell has never heard of it.
            self.end(Ended::Closed);
        }
    }

    fn complete(&mut self, completed: Vec<Completed>) {
        let outputs = completed.into_iter().map(|(token, result)| Output::Complete { token, result });
        self.outputs.extend(outputs);
    }

    /// The frame that is due, if any.
    fn poll_frame(&mut self) -> Option<Output> {
        let stream = self.link.attached()?;
        let mut frame = ClientFrame { keep_alive: self.lease.keep_alive(self.now), ..ClientFrame::default() };
        if self.requests.has_to_send() {
            self.requests.fill(&mut frame);
        }
        if self.closing && !self.close_sent {
            self.close_sent = true;
            frame.close = Some(CloseSession {});
        }
        if frame == ClientFrame::default() {
            return None;
        }
        frame.acknowledged = self.requests.acknowledge();
        Some(Output::Send { stream, frame })
    }
}

/// The master knows of the session's end, and its word of that is on its way.
fn tells_of_no_session(reply: &Reply) -> bool {
    let result = reply.outcome.as_ref().and_then(|outcome| outcome.result.as_ref());
    matches!(result, Some(outcome::Result::Refusal(refusal)) if refusal.code() == RefusalCode::UnknownSession)
}
