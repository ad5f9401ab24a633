//! Calls without a session: finding the master, and when to try again.
//!
//! Owns the address of the master as last heard. The invariant: a call that must not be repeated is repeated
//! only after an attempt that certainly had no effect, because nothing was sent or because it was refused.

use crate::address::{self, Scheme};
use crate::channels::{Channels, within_runtime};
use crate::error::Error;
use crate::refusal::RefusalFacts;
use holdfast_proto::client::v1::admin_client::AdminClient;
use holdfast_proto::client::v1::cell_client::CellClient;
use holdfast_proto::client::v1::{Refusal, RefusalCode, Role, StatusRequest, StatusResponse};
use holdfast_proto::client::{MASTER_KEY, REFUSAL_BIN_KEY, REFUSAL_KEY};
use prost::Message as _;
use std::error::Error as _;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::transport::Channel;
use tonic::{ConnectError, Response, Status};

/// The operators' service at one replica.
pub(crate) type Admin = AdminClient<Channel>;

/// Between two laps around the replicas, at first and at most.
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// Whether a call may be sent again although an earlier attempt may have taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It changes nothing, or the same again.
    Always,
    /// It takes effect at most once, by its condition. But a mismatch after a lost reply may be its own doing.
    Conditional,
    /// Neither.
    Never,
}

/// Finds the master for single calls.
#[derive(Clone, Debug)]
pub(crate) struct Unary {
    addresses: Arc<[String]>,
    channels: Channels,
    timeout: Duration,
    /// Where the master was last.
    master: Arc<Mutex<Option<String>>>,
}

/// What an attempt came to.
enum Attempt<T> {
    Done(T),
    /// The cell refused the call itself.
    Refused(Error),
    /// This replica does not serve it; the call had no effect.
    Elsewhere {
        master: Option<String>,
        message: String,
    },
    /// The reply is lost, and the call may have taken effect.
    Lost {
        message: String,
    },
}

/// One call's way around the replicas.
struct Search<'u> {
    unary: &'u Unary,
    /// The next address of the list to try.
    next: usize,
    /// Attempts so far.
    attempts: u32,
    /// Whether an attempt may have taken effect.
    maybe_applied: bool,
    last: String,
}

impl Unary {
    pub(crate) fn new(addresses: Arc<[String]>, channels: Channels, timeout: Duration) -> Self {
        Self { addresses, channels, timeout, master: Arc::default() }
    }

    /// The same for calls that take longer.
    pub(crate) fn with_timeout(&self, timeout: Duration) -> Self {
        Self { timeout, ..self.clone() }
    }

    /// Calls the cell's service at the master.
    pub(crate) async fn call<T, F, Fut>(&self, repeat: Repeat, call: F) -> Result<T, Error>
    where
        F: Fn(CellClient<Channel>) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.search(repeat, |address| Ok(call(self.channels.cell_client(address)?))).await
    }

    /// Calls the operators' service at the master.
    pub(crate) async fn call_admin<T, F, Fut>(&self, repeat: Repeat, call: F) -> Result<T, Error>
    where
        F: Fn(Admin) -> Fut,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        self.search(repeat, |address| Ok(call(AdminClient::new(self.channels.channel(address)?)))).await
    }

    async fn search<T, F, Fut>(&self, repeat: Repeat, call: F) -> Result<T, Error>
    where
        F: Fn(&str) -> Result<Fut, crate::error::ConnectError>,
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        within_runtime()?;
        let started = Instant::now();
        let deadline = started + self.timeout;
        let mut search = Search {
            unary: self,
            next: 0,
            attempts: 0,
            maybe_applied: false,
            last: "nothing tried".to_owned(),
        };
        if repeat == Repeat::Never && self.master_hint().is_none() {
            // There is one attempt. It must not be spent on a replica that takes a request and never answers, or that
            // rejects this client's certificate, which in TLS 1.3 shows only after the request was sent.
            self.hear_from_anybody(deadline).await?;
        }
        let mut address = self.master_hint().unwrap_or_else(|| search.next_address());
        loop {
            let limit = match repeat {
                // A hanging replica is left early; what must not be repeated is waited for to the end.
                Repeat::Always | Repeat::Conditional => deadline.min(Instant::now() + self.timeout / 4),
                Repeat::Never => deadline,
            };
            let attempt = match call(&address) {
                Ok(call) => timeout_at(limit, call).await.map_or_else(
                    |_| Attempt::Lost { message: format!("{address} did not answer in time") },
                    |result| Attempt::from_result(&self.channels, &address, result),
                ),
                Err(error) => Attempt::Elsewhere { master: None, message: error.to_string() },
            };
            let barred = self.channels.is_barred(&address);
            let named = match attempt {
                Attempt::Done(value) => {
                    self.remember_master(Some(address));
                    return Ok(value);
                }
                Attempt::Refused(error) => return Err(search.refused(repeat, error)),
                Attempt::Elsewhere { master, message } => search.failed(master, message),
                Attempt::Lost { message } => {
                    search.maybe_applied |= repeat != Repeat::Always;
                    if repeat == Repeat::Never {
                        return Err(Error::OutcomeUnknown { message });
                    }
                    search.failed(None, message)
                }
            };
            self.remember_master(named.clone());
            if barred && self.all_are_barred() {
                return Err(search.given_up(rounded(started.elapsed())));
            }
            address = named.unwrap_or_else(|| search.next_address());
            let pause = search.pause();
            if Instant::now() + pause >= deadline {
                return Err(search.given_up(self.timeout));
            }
            sleep(pause).await;
        }
    }

    /// Waits until a replica answers at all.
    async fn hear_from_anybody(&self, deadline: Instant) -> Result<(), Error> {
        let started = Instant::now();
        let mut last = "no replica answered in time".to_owned();
        loop {
            match timeout_at(deadline, self.status()).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(Error::Unavailable { last: reason, .. })) => last = reason,
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(Error::Unavailable { waited: self.timeout, last }),
            }
            if self.all_are_barred() || Instant::now() + PAUSE_MAX >= deadline {
                return Err(Error::Unavailable { waited: rounded(started.elapsed()), last });
            }
            sleep(PAUSE_MAX).await;
        }
    }

    /// The master's view, or else anybody's.
    pub(crate) async fn status(&self) -> Result<StatusResponse, Error> {
        let mut anybody = None;
        let mut last = None;
        for address in self.master_hint().iter().chain(self.addresses.iter()) {
            let status = match self.status_of(address).await {
                Ok(status) => status,
                Err(error) => {
                    last = Some(error);
                    continue;
                }
            };
            if status.role() == Role::Master {
                self.remember_master(Some(address.clone()));
                return Ok(status);
            }
            if !status.master_address.is_empty()
                && let Ok(master) = self.status_of(&status.master_address).await
                && master.role() == Role::Master
            {
                self.remember_master(address::parse(&status.master_address, Scheme::Any).ok());
                return Ok(master);
            }
            anybody = Some(status);
        }
        anybody.ok_or_else(|| last.unwrap_or_else(|| Error::protocol("no replica to ask")))
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
        waited: Duration,
    ) -> Result<StatusResponse, Error> {
        within_runtime()?;
        let unavailable = |last: String| Error::Unavailable { waited, last };
        let scheme = self.channels.scheme();
        let address = address::parse(address, scheme).map_err(|error| unavailable(error.to_string()))?;
        let mut client =
            self.channels.cell_client(&address).map_err(|error| unavailable(error.to_string()))?;
        match tokio::time::timeout(waited, client.status(request)).await {
            Ok(Ok(status)) => Ok(status.into_inner()),
            Ok(Err(status)) => Err(unavailable(self.channels.describe(&address, &status))),
            Err(_) => Err(unavailable(format!("{address} did not answer in time"))),
        }
    }

    /// Whether no replica can be reached before certificates or configurations change: then waiting is in vain.
    fn all_are_barred(&self) -> bool {
        self.addresses.iter().all(|address| self.channels.is_barred(address))
    }

    fn master_hint(&self) -> Option<String> {
        self.master.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember_master(&self, address: Option<String>) {
        *self.master.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }
}

impl<T> Attempt<T> {
    fn from_result(channels: &Channels, address: &str, result: Result<Response<T>, Status>) -> Self {
        let status = match result {
            Ok(response) => return Self::Done(response.into_inner()),
            Err(status) => status,
        };
        let message = channels.describe(address, &status);
        match refusal_code(&status) {
            Some(RefusalCode::NotMaster | RefusalCode::Overloaded) => {
                Self::Elsewhere { master: named_master(&status), message }
            }
            Some(RefusalCode::OutcomeUnknown) => Self::Lost { message },
            Some(code) => Self::Refused(Error::Refused {
                code,
                message: status.message().to_owned(),
                facts: refusal_facts(&status),
            }),
            None if never_sent(&status) => Self::Elsewhere { master: None, message },
            None if status.code() == tonic::Code::Unimplemented => {
                Self::Refused(Error::protocol(format!("{message}: is this a Holdfast replica?")))
            }
            None => Self::Lost { message },
        }
    }
}

impl Search<'_> {
    /// The list is gone through in order, over and over.
    fn next_address(&mut self) -> String {
        let address = self.unary.addresses[self.next % self.unary.addresses.len()].clone();
        self.next += 1;
        address
    }

    /// Notes a failure; the master that was named with it, if any, is next.
    fn failed(&mut self, master: Option<String>, message: String) -> Option<String> {
        tracing::debug!(%message, "a call is tried again elsewhere");
        self.attempts += 1;
        self.last = message;
        master
    }

    /// None during the first lap; then longer and longer.
    fn pause(&self) -> Duration {
        let lap = self.attempts / u32::try_from(self.unary.addresses.len()).unwrap_or(u32::MAX).max(2);
        match lap {
            0 => Duration::ZERO,
            _ => PAUSE_MAX.min(PAUSE_MIN * 2_u32.saturating_pow(lap - 1)),
        }
    }

    /// After a lost reply a mismatch does not say whose write it was.
    fn refused(self, repeat: Repeat, error: Error) -> Error {
        let ambiguous = matches!(
            error.refusal(),
            Some(
                RefusalCode::GenerationMismatch
                    | RefusalCode::NotFound
                    | RefusalCode::AlreadyExists
                    | RefusalCode::UnknownSession
            )
        );
        if repeat == Repeat::Conditional && self.maybe_applied && ambiguous {
            let message = format!("an earlier attempt got no answer ({}), and then: {error}", self.last);
            return Error::OutcomeUnknown { message };
        }
        error
    }

    fn given_up(self, waited: Duration) -> Error {
        if self.maybe_applied {
            return Error::OutcomeUnknown { message: self.last };
        }
        Error::Unavailable { waited, last: self.last }
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

/// Whether the connection was not even made.
fn never_sent(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}
