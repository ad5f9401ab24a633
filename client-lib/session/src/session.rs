//! The session itself: the control flow between its link, its lease, its requests and its holdings.
//!
//! Everything here happens in [`Session::handle`] and [`Session::poll_output`]; the leaves (`lease`, `link`,
//! `requests`, `route`, `holdings`) know nothing of each other. `frames` is what the cell says, `calls` what the
//! application asks for. The invariant: a frame that did not come on the present stream changes nothing.

mod calls;
mod frames;

use crate::counters::CacheCounters;
use crate::deadlines::Deadlines;
use crate::doors::{Config, Ended, Input, Output, State, StreamId, Token};
use crate::holdings::Holdings;
use crate::lease::Lease;
use crate::link::Link;
use crate::reach::{Problem, Reach};
use crate::requests::Requests;
use crate::route::Route;
use frames::Notices;
use holdfast_proto::client::v1::{
    AttachSession, CellInfo, ClientFrame, CloseSession, OpenSession, client_frame, request::Operation,
};
use holdfast_types::{Duration, HandleId, SessionId, Time, planted};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A connection and its hello get at least so long, however short the lease: a handshake takes round trips.
const GREETING_MIN: Duration = Duration::from_millis(500);

/// A client's session, from before it is opened until it is over. See the crate's page.
#[derive(Debug)]
pub struct Session {
    config: Config,
    /// The greatest time that was ever handed in.
    now: Time,
    /// When the session was made: the time for its opening counts from it.
    made_at: Time,
    state: State,
    /// Known once the cell has said that the session is open.
    id: Option<SessionId>,
    /// Who the cell takes this client for, as it said when it opened the session.
    principal: String,
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
    holdings: Holdings,
    /// Calls on handles that the application knows under an id of its own: under which.
    renamed: BTreeMap<Token, HandleId>,
    /// Calls that wait until a user of a shared node has a handle of its own: whose, and what they ask for.
    separating: BTreeMap<Token, (HandleId, Operation)>,
    /// Until when calls are waited for.
    deadlines: Deadlines,
    notices: Notices,
    /// The application is done with the session; the cell is to be told.
    closing: bool,
    /// It was told on the present attachment.
    close_sent: bool,
    /// Where the present stream goes.
    address: String,
    /// What is in the way of a lease.
    reach: Reach,
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
            principal: String::new(),
            cell: None,
            attachment: 0,
            stream: 0,
            link: Link::Idle { retry_at: now },
            route: Route::new(
                config.addresses.clone(),
                &config.known.addresses,
                config.known.master.clone(),
                config.seed,
            ),
            lease: Lease::new(config.lease, config.drift_per_mille, config.seed),
            requests: Requests::default(),
            holdings: Holdings::new(config.cache.clone()),
            renamed: BTreeMap::new(),
            separating: BTreeMap::new(),
            deadlines: Deadlines::default(),
            notices: Notices::default(),
            closing: false,
            close_sent: false,
            address: String::new(),
            reach: Reach::new(config.known.heard),
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
            Input::TimePassed => {
                self.pass_link_time();
                self.pass_call_time();
                self.holdings.close_idle(self.now);
            }
            Input::Connected { stream } => self.handle_connected(stream),
            Input::Disconnected { stream, problem } => {
                if self.link.stream() == Some(stream) {
                    self.leave(None, problem);
                }
            }
            Input::Frame { stream, frame } => self.handle_frame(stream, frame),
            Input::Call { token, operation } => self.handle_call(token, operation),
            Input::LimitCall { token, within } => self.limit_call(token, within),
            Input::CancelCall { token } => self.handle_cancel(token),
            // What was not sent before the close was dropped, so only the session's end can be told of.
            Input::Flush { .. } if self.closing => {}
            Input::Flush { token } => self.requests.flush(token),
            Input::KeepLocks { handle } => self.handle_keep_locks(handle),
            Input::Close => self.handle_close(),
            Input::Abandoned if !matches!(self.state, State::Ended(_)) => self.end(Ended::RuntimeGone),
            Input::Abandoned => {}
        }
        self.ask_for_holdings();
        self.outputs.extend(self.requests.flushed().into_iter().map(|token| Output::Flushed { token }));
        // Before any output: when the `close` goes out, nobody believes in the session any more.
        self.holdings.validity.publish(self.valid_until());
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
        let unanswered_since = self.requests.unanswered_since();
        let link = self.link.timeout().or_else(|| self.lease.timeout(unanswered_since));
        let calls = self.deadlines.first();
        state.into_iter().chain(link).chain(self.holdings.timeout()).chain(calls).min()
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

    /// Who the cell takes this client for (P§2.3); empty until the session is open.
    #[must_use]
    pub fn principal(&self) -> &str {
        &self.principal
    }

    /// The cell, as the newest attachment described it.
    #[must_use]
    pub fn cell(&self) -> Option<&CellInfo> {
        self.cell.as_ref()
    }

    /// How well the cache does. May be kept, and read from any thread.
    #[must_use]
    pub fn cache_counters(&self) -> Arc<CacheCounters> {
        Arc::clone(&self.holdings.counters)
    }

    /// Every address at which a replica may be: the application's own, then what the cell added.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.route.addresses().to_vec()
    }

    /// Where the present stream goes, or went last.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    // ---- Time.

    /// When a session that has no lease is given up.
    fn grace_end(&self) -> Time {
        match self.state {
            State::Opening => self.made_at + self.config.open_timeout,
            _ => self.lease.valid_until() + self.config.grace,
        }
    }

    /// Notices what has run out by the clock alone.
    fn pass_lease_time(&mut self) {
        if self.state == State::Safe && self.now >= self.lease.valid_until() {
            self.change_state(State::Jeopardy);
            // P§2.8: the cell may count the lease as over too, and wait for nobody's acknowledgement.
            if !planted!(CacheAfterLease) {
                self.holdings.void();
            }
        }
        if matches!(self.state, State::Opening | State::Jeopardy) && self.now >= self.grace_end() {
            let over = self.grace_over();
            self.end(over);
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
                self.drop_stream("did not answer", None, true);
            }
            Link::Attached { .. } if self.lease.silent_at().is_some_and(|at| self.now >= at) => {
                self.drop_stream("did not answer a KeepAlive", None, true);
            }
            _ => {}
        }
    }

    fn grace_over(&mut self) -> Ended {
        if matches!(self.link, Link::Connecting { .. } | Link::Greeting { .. }) {
            self.reach.silent(&self.address);
        }
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let last = self.reach.reason();
        match self.state {
            State::Opening => Ended::Unreachable {
                waited_ms: millis(self.now.since(self.made_at)),
                last,
                absent: self.reach.all_absent(self.route.addresses()),
            },
            _ => Ended::GraceOver { grace_ms: millis(self.config.grace), last },
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
        self.holdings.end();
    }

    // ---- The link.

    fn connect(&mut self) {
        let Some(address) = self.route.next_address() else {
            self.link = Link::Idle { retry_at: Time::MAX };
            return;
        };
        self.stream += 1;
        let stream = StreamId(self.stream);
        self.link = Link::Connecting { stream, give_up_at: self.now + self.greeting_time() };
        address.clone_into(&mut self.address);
        self.outputs.push_back(Output::Connect { stream, address });
    }

    fn greeting_time(&self) -> Duration {
        self.lease.silence().max(GREETING_MIN)
    }

    fn drop_stream(&mut self, why: &str, master: Option<String>, silent: bool) {
        if let Some(stream) = self.link.stream() {
            self.outputs.push_back(Output::Disconnect { stream, silent });
        }
        self.leave(master, Problem::unserved(why));
    }

    /// The stream is gone: to the named master, or the next replica, now or after a pause.
    fn leave(&mut self, master: Option<String>, problem: Problem) {
        self.reach.failed(self.now, &self.address, problem);
        if self.state == State::Opening && self.reach.is_hopeless(self.now, self.route.addresses()) {
            let over = self.grace_over();
            return self.end(over);
        }
        if planted!(LeaseFromDisconnect) && self.state == State::Safe {
            self.lease.renew(self.now);
        }
        self.lease.detached();
        let mut pause = self.route.failed(master);
        // Only a crowd that was attached comes back together.
        if self.link.attached().is_some() {
            let asked_for = self.cell.as_ref().map_or(0, |cell| u64::from(cell.reattach_spread_ms));
            let most = Duration::from_millis(asked_for).min(self.lease.pause_max());
            pause = pause.max(self.route.spread(most));
        }
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
        // The hello tells the cell that nothing is cached here.
        if !planted!(CacheKeptOnAttach) {
            self.holdings.void();
        }
        let hello = match self.id {
            None => client_frame::Hello::Open(OpenSession {
                cell: self.config.cell.clone(),
                secret: self.config.secret_bytes(),
                // More than a u32 holds is refused by the cell like all that is beyond its limit.
                lease_ms: u32::try_from(self.config.lease.as_millis()).unwrap_or(u32::MAX),
                client: self.config.client.clone(),
                attachment: self.attachment,
                keep_when_idle: !self.config.ends_when_idle,
            }),
            Some(SessionId(session)) => client_frame::Hello::Attach(AttachSession {
                cell: self.config.cell.clone(),
                session,
                secret: self.config.secret_bytes(),
                attachment: self.attachment,
                seen: self.holdings.watch.seen(),
                cell_id: self.cell.as_ref().map_or(0, |cell| cell.cell_id),
                keep_when_idle: !self.config.ends_when_idle,
            }),
        };
        let give_up_at = self.now + self.greeting_time();
        self.link = Link::Greeting { stream, sent_at: self.now, give_up_at };
        let frame = ClientFrame { hello: Some(hello), ..ClientFrame::default() };
        self.outputs.push_back(Output::Send { stream, frame });
    }

    /// The frame that is due, if any.
    fn poll_frame(&mut self) -> Option<Output> {
        let stream = self.link.attached()?;
        let unanswered_since = self.requests.unanswered_since();
        let mut frame = ClientFrame {
            keep_alive: self.lease.keep_alive(self.now, unanswered_since),
            notices_through: if planted!(NeverAcknowledged) { 0 } else { self.notices.take() },
            ..ClientFrame::default()
        };
        if self.requests.has_to_send() {
            self.requests.fill(self.now, &mut frame);
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
