//! Calls without a session: they are carried to where the search says, and what comes back is judged for it.
//!
//! `holdfast_session::Search` decides whom to ask, and what may be sent twice. This file sends it, and says what each
//! answer amounts to; it keeps what was found out for the next call (`places`).

use crate::address::{self, Scheme};
use crate::channels::{Channels, MESSAGE_BYTES_MAX, unconnected, within_runtime};
use crate::clock;
use crate::error::Error;
use crate::places::Places;
use crate::refusal::RefusalFacts;
use crate::timer::Timer;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use holdfast_proto::client::v1::admin_client::AdminClient;
use holdfast_proto::client::v1::cell_client::CellClient;
use holdfast_proto::client::v1::{Refusal, RefusalCode, Role, StatusRequest, StatusResponse};
use holdfast_proto::client::{MASTER_KEY, REFUSAL_BIN_KEY, REFUSAL_KEY};
use holdfast_session::{Answer, AttemptId, Found, Obstacle, Problem, Search, SearchConfig, SearchOutput};
use prost::Message as _;
use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status};

pub(crate) use holdfast_session::Goal;

/// A connection whose calls say how long they are waited for: a replica withdraws what only waits a little earlier, and
/// says that it had no effect.
pub(crate) type Timed = InterceptedService<Channel, Deadline>;
/// The operators' service at one replica.
pub(crate) type Admin = AdminClient<Timed>;

/// When a call is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline(Instant);

impl Interceptor for Deadline {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.set_timeout(self.0.saturating_duration_since(Instant::now()));
        Ok(request)
    }
}

/// A session that begins waits so long to be told where the master is.
const FIND_TIME: Duration = Duration::from_secs(1);

/// Finds the master for single calls.
#[derive(Clone, Debug)]
pub(crate) struct Unary {
    /// The name of the cell that is meant; empty for whichever answers.
    cell: Arc<str>,
    places: Places,
    channels: Channels,
    timeout: Duration,
}

/// What a replica sent back.
enum Reply<T> {
    Status(Box<StatusResponse>),
    Value(T),
    Failed(Status),
    /// Nothing can be sent there.
    NoWay(String),
}

/// What a call came to, until it is known whether it stands.
type Outcome<T> = Result<Option<T>, Error>;

impl Unary {
    pub(crate) fn new(cell: Arc<str>, places: Places, channels: Channels, timeout: Duration) -> Self {
        Self { cell, places, channels, timeout }
    }

    pub(crate) fn places(&self) -> &Places {
        &self.places
    }

    /// The same for calls that take longer.
    pub(crate) fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Calls the cell's service at the master.
    pub(crate) async fn call<T, F, Fut>(&self, goal: Goal, call: F) -> Result<T, Error>
    where
        F: Fn(CellClient<Timed>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Deadline(Instant::now() + self.timeout);
        let client = |address: &str| {
            let client = CellClient::with_interceptor(self.channels.channel(address)?, deadline);
            Ok(call(
                client
                    .max_decoding_message_size(MESSAGE_BYTES_MAX)
                    .max_encoding_message_size(MESSAGE_BYTES_MAX),
            ))
        };
        self.search(goal, client).await
    }

    /// Calls the operators' service at the master.
    pub(crate) async fn call_admin<T, F, Fut>(&self, goal: Goal, call: F) -> Result<T, Error>
    where
        F: Fn(Admin) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let deadline = Deadline(Instant::now() + self.timeout);
        let client = |address: &str| {
            Ok(call(AdminClient::with_interceptor(self.channels.channel(address)?, deadline)))
        };
        self.search(goal, client).await
    }

    /// The master's view, or else anybody's.
    pub(crate) async fn status(&self) -> Result<StatusResponse, Error> {
        // Each replica gets a fifth of the time.
        self.with_timeout(self.timeout / 5).find().await
    }

    /// The same, within the whole time-out.
    async fn find(&self) -> Result<StatusResponse, Error> {
        let mut anybody = None;
        let never = |_: &str| -> Result<std::future::Pending<Result<Response<()>, Status>>, _> {
            Ok(std::future::pending())
        };
        match self.search_with(Goal::Find, never, &mut anybody).await {
            Ok(_) => anybody.ok_or_else(|| Error::protocol("an answer without a status")),
            Err(error) => anybody.ok_or(error),
        }
    }

    /// Finds out where the master is, for a session that begins, if that is not known: a session asks one replica after
    /// another, and must not begin with one that hangs.
    pub(crate) async fn find_master(&self, limit: Duration) {
        let is_known = self.places.master().is_some_and(|(_, is_fresh)| is_fresh);
        if !is_known && self.places.in_order().len() > 1 {
            // Whoever does not find it in so long leaves it to the session.
            let _ = self.with_timeout(FIND_TIME.min(limit)).find().await;
        }
    }

    async fn search<T, F, Fut>(&self, goal: Goal, call: F) -> Result<T, Error>
    where
        F: Fn(&str) -> Result<Fut, crate::error::ConnectError>,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let value = self.search_with(goal, call, &mut None).await?;
        if self.places.take_stale() {
            let unary = self.clone();
            // A task without a handle: it ends by itself, and whatever comes of it is of no consequence.
            tokio::spawn(async move { unary.status().await.map(drop) });
        }
        value.ok_or_else(|| Error::protocol("an answer without a result"))
    }

    /// Performs a search. Gives the call's result, if there was a call; and in `status` what the master said of
    /// itself, or what anybody said.
    async fn search_with<T, F, Fut>(
        &self,
        goal: Goal,
        call: F,
        status: &mut Option<StatusResponse>,
    ) -> Result<Option<T>, Error>
    where
        F: Fn(&str) -> Result<Fut, crate::error::ConnectError>,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        within_runtime()?;
        let (master, master_is_fresh) = self.places.master().unzip();
        let config = SearchConfig {
            goal,
            addresses: self.places.in_order(),
            master,
            master_is_fresh: master_is_fresh == Some(true),
            heard: self.places.has_heard(),
            timeout: self.timeout,
        };
        let mut search = Search::new(clock::now(), config);
        let mut asked = FuturesUnordered::new();
        // What the search has been told of, and may still choose.
        let mut results: BTreeMap<AttemptId, Outcome<T>> = BTreeMap::new();
        let mut timer = Timer::new();
        let send = async |attempt: AttemptId, address: String, looks: bool| {
            let reply = if looks { self.look(&address).await } else { send(&call, &address).await };
            (attempt, address, looks, reply)
        };
        loop {
            while let Some(output) = search.poll_output() {
                match output {
                    SearchOutput::Look { attempt, address } => asked.push(send(attempt, address, true)),
                    SearchOutput::Call { attempt, address } => asked.push(send(attempt, address, false)),
                    SearchOutput::Over(found) => return self.take(goal, found, &mut results),
                }
            }
            timer.set(search.poll_timeout());
            tokio::select! {
                biased;
                Some((attempt, address, looks, reply)) = asked.next() => {
                    let (answer, result) = self.judge_reply(&address, reply, looks, status);
                    results.extend(result.map(|result| (attempt, result)));
                    search.handle(clock::now(), attempt, answer);
                }
                () = timer.wait() => search.pass_time(clock::now()),
            }
        }
    }

    async fn look<T>(&self, address: &str) -> Reply<T> {
        match self.channels.cell_client(address) {
            Ok(mut client) => match client.status(StatusRequest::default()).await {
                Ok(status) => Reply::Status(Box::new(status.into_inner())),
                Err(status) => Reply::Failed(status),
            },
            Err(error) => Reply::NoWay(error.to_string()),
        }
    }

    /// The search is over.
    fn take<T>(
        &self,
        goal: Goal,
        found: Found,
        results: &mut BTreeMap<AttemptId, Outcome<T>>,
    ) -> Result<Option<T>, Error> {
        match found {
            Found::Answer { attempt, address, ambiguous } => {
                if goal != Goal::Find {
                    self.places.found_master(&address);
                }
                let result = results.remove(&attempt);
                match (
                    result.unwrap_or_else(|| Err(Error::protocol("an answer without a result"))),
                    ambiguous,
                ) {
                    (Err(error), Some(lost)) => Err(Error::OutcomeUnknown {
                        message: format!("an earlier attempt got no answer ({lost}), and then: {error}"),
                    }),
                    (result, _) => result,
                }
            }
            Found::Nothing { maybe_applied: true, reason, .. } => {
                Err(Error::OutcomeUnknown { message: reason })
            }
            Found::Nothing { waited, reason, absent, .. } => {
                Err(Error::Unavailable { waited: rounded(waited), last: reason, absent })
            }
        }
    }

    /// What a reply amounts to, and the call's result should it stand; a `status` is kept if it is the first, or the master's.
    fn judge_reply<T>(
        &self,
        address: &str,
        reply: Reply<T>,
        looks: bool,
        status: &mut Option<StatusResponse>,
    ) -> (Answer, Option<Outcome<T>>) {
        match reply {
            Reply::Status(told) => {
                let answer = self.judge_status(address, &told);
                let is_master = answer == Answer::Done;
                if is_master || status.is_none() {
                    *status = Some(*told);
                }
                (answer, is_master.then_some(Ok(None)))
            }
            Reply::Value(value) => (Answer::Done, Some(Ok(Some(value)))),
            Reply::NoWay(text) => {
                let problem = Problem { obstacle: Obstacle::Lasting, text };
                (Answer::Elsewhere { master: None, problem }, None)
            }
            Reply::Failed(failed) => {
                let (answer, error) = self.judge(address, &failed, looks);
                (answer, error.map(Err))
            }
        }
    }

    /// What a replica's word on itself amounts to, where the master is looked for.
    fn judge_status(&self, address: &str, status: &StatusResponse) -> Answer {
        if !self.cell.is_empty() && *self.cell != *status.cell {
            let text = format!("it is a replica of the cell {:?}, not of {:?}", status.cell, self.cell);
            return Answer::Elsewhere {
                master: None,
                problem: Problem { obstacle: Obstacle::Lasting, text },
            };
        }
        if status.role() == Role::Master {
            self.places.learn(status.members.iter().map(|member| member.client_address.clone()));
            self.places.found_master(address);
            return Answer::Done;
        }
        self.places.not_master(address);
        let master = address::parse(&status.master_address, Scheme::Any).ok();
        let text = match &master {
            Some(master) => format!("it takes {master} for the master"),
            None => "it knows no master".to_owned(),
        };
        Answer::Elsewhere { master, problem: Problem::unserved(text) }
    }

    /// What a failure amounts to; and the error for the application, should it stand.
    fn judge(&self, address: &str, status: &Status, looks: bool) -> (Answer, Option<Error>) {
        match refusal_code(status) {
            Some(code @ (RefusalCode::NotMaster | RefusalCode::Overloaded)) => {
                // A master that has no room is the master still.
                if code == RefusalCode::NotMaster {
                    self.places.not_master(address);
                }
                let problem = Problem::unserved(status.message());
                (Answer::Elsewhere { master: named_master(status), problem }, None)
            }
            Some(RefusalCode::OutcomeUnknown) => (Answer::Lost(Problem::unserved(status.message())), None),
            Some(code) => {
                let facts = refusal_facts(status);
                let error = Error::Refused { code, message: status.message().to_owned(), facts };
                (Answer::Refused, Some(error))
            }
            None => {
                let problem = self.channels.problem(address, status);
                // Whatever else is wrong there by now: only what had no connection, or does not know the call, took nothing.
                let unsent = unconnected(status).is_some() || status.code() == Code::Unimplemented;
                self.places.failed(address);
                if unsent || looks {
                    (Answer::Elsewhere { master: None, problem }, None)
                } else {
                    (Answer::Lost(problem), None)
                }
            }
        }
    }

    /// The view of one replica.
    pub(crate) async fn status_of(&self, address: &str) -> Result<StatusResponse, Error> {
        self.ask_status_of(address, StatusRequest::default(), self.timeout / 5).await
    }

    /// The view of one replica, with a hash of the state that it has. A large state takes a while to read.
    pub(crate) async fn status_with_hash_of(&self, address: &str) -> Result<StatusResponse, Error> {
        self.ask_status_of(address, StatusRequest { state_hash: true }, self.timeout).await
    }

    async fn ask_status_of(
        &self,
        address: &str,
        request: StatusRequest,
        limit: Duration,
    ) -> Result<StatusResponse, Error> {
        within_runtime()?;
        let scheme = self.channels.scheme();
        let address =
            address::parse(address, scheme).map_err(|error| Error::unavailable(error.to_string()))?;
        let client = self.channels.cell_client(&address);
        let mut client = client.map_err(|error| Error::unavailable(error.to_string()))?;
        let started = Instant::now();
        let problem = match tokio::time::timeout(limit, client.status(request)).await {
            Ok(Ok(status)) => return Ok(status.into_inner()),
            Ok(Err(status)) => self.channels.problem(&address, &status),
            Err(_) => Problem::unserved("did not answer in time"),
        };
        Err(Error::Unavailable {
            waited: rounded(started.elapsed()),
            last: format!("{address}: {}", problem.text),
            absent: problem.obstacle == Obstacle::Absent,
        })
    }
}

/// Sends a call.
async fn send<T, F, Fut>(call: &F, address: &str) -> Reply<T>
where
    F: Fn(&str) -> Result<Fut, crate::error::ConnectError>,
    Fut: Future<Output = Result<Response<T>, Status>>,
{
    match call(address) {
        Ok(call) => match call.await {
            Ok(response) => Reply::Value(response.into_inner()),
            Err(status) => Reply::Failed(status),
        },
        Err(error) => Reply::NoWay(error.to_string()),
    }
}

/// A time that people read.
fn rounded(waited: Duration) -> Duration {
    Duration::from_millis(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX))
}

/// The refusal's code. Servers of a later version may have codes that this one does not know.
fn refusal_code(status: &Status) -> Option<RefusalCode> {
    let name = status.metadata().get(REFUSAL_KEY)?.to_str().ok()?;
    let full = format!("REFUSAL_CODE_{}", name.strip_prefix("REFUSAL_CODE_").unwrap_or(name));
    Some(RefusalCode::from_str_name(&full).unwrap_or(RefusalCode::Unspecified))
}

/// What the refusal says beyond its code. Hints only: what cannot be read is none.
fn refusal_facts(status: &Status) -> Option<RefusalFacts> {
    let encoded = status.metadata().get_bin(REFUSAL_BIN_KEY)?.to_bytes().ok()?;
    RefusalFacts::from_wire(Refusal::decode(encoded).ok()?.facts)
}

fn named_master(status: &Status) -> Option<String> {
    let text = status.metadata().get(MASTER_KEY)?.to_str().ok()?;
    address::parse(text, Scheme::Any).ok()
}
