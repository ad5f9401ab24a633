//! The connections to the replicas, one each, shared by all sessions and calls of a [`Cell`](crate::Cell); and one more
//! for KeepAlives where the first is slow.
//!
//! Connections are made when first used and then kept, so that a fail-over does not begin with a TCP handshake.
//! Never decides where to go. The invariant: a broken connection is noticed, by its reset or by an unanswered
//! HTTP/2 ping, and made anew at the next use.

use crate::address::Scheme;
use crate::error::ConnectError;
use crate::heard::Heard;
use crate::tls::{self, Credentials, Problem};
use holdfast_proto::client::v1::StatusRequest;
use holdfast_proto::client::v1::cell_client::CellClient;
use std::collections::BTreeMap;
use std::error::Error as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// A TCP handshake that takes longer is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often an idle connection is pinged, and how long the answer may take. Together they bound how long a
/// connection to a host that vanished without a reset stays in use, if no session is on it that finds it silent. Not
/// shorter, because a ping waits behind what is queued, and a line that loses packets takes seconds for that.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Where one connection is found to be cut off, others on which nothing was heard for so long are not trusted either.
/// Much shorter than what is lost by keeping one that is cut off too, and what it costs to make one anew is little.
const STALE: Duration = Duration::from_secs(1);
/// The most bytes of a message: some frames of a file each, and the protocol's overhead.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// One replica's connection.
#[derive(Clone, Debug)]
struct Replica {
    channel: Channel,
    problem: Problem,
    heard: Heard,
}

/// The connections, by address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Channels {
    by_address: Arc<Mutex<BTreeMap<String, Replica>>>,
    /// The same for KeepAlives that must not wait behind other frames. Made when first needed.
    spare: Arc<Mutex<BTreeMap<String, Replica>>>,
    /// `None`: plain text.
    credentials: Option<Arc<Credentials>>,
    /// Where to connect to instead, by address.
    routes: Arc<BTreeMap<String, String>>,
}

impl Channels {
    pub(crate) fn new(credentials: Option<Credentials>, routes: BTreeMap<String, String>) -> Self {
        Self {
            by_address: Arc::default(),
            spare: Arc::default(),
            credentials: credentials.map(Arc::new),
            routes: Arc::new(routes),
        }
    }

    /// How addresses may be written.
    pub(crate) fn scheme(&self) -> Scheme {
        if self.credentials.is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// The channel to a replica. Must be called within a tokio runtime.
    pub(crate) fn channel(&self, address: &str) -> Result<Channel, ConnectError> {
        Ok(self.replica_in(&self.by_address, address)?.channel)
    }

    /// What `channels` has for a replica, made if there is nothing.
    fn replica_in(
        &self,
        channels: &Mutex<BTreeMap<String, Replica>>,
        address: &str,
    ) -> Result<Replica, ConnectError> {
        let mut by_address = channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(replica) = by_address.get(address) {
            return Ok(replica.clone());
        }
        let (problem, heard) = (Problem::default(), Heard::new());
        let place = self.routes.get(address).map_or(address, String::as_str).to_owned();
        let (credentials, noted, listening) = (self.credentials.clone(), problem.clone(), heard.clone());
        let connector = tower::service_fn(move |_| {
            tls::connect(place.clone(), credentials.clone(), noted.clone(), listening.clone())
        });
        let channel = endpoint(address)?.connect_with_connector_lazy(connector);
        let replica = Replica { channel, problem, heard };
        by_address.insert(address.to_owned(), replica.clone());
        Ok(replica)
    }

    /// One line for people: who did not answer, and why.
    pub(crate) fn describe(&self, address: &str, status: &Status) -> String {
        let problem = self.lock().get(address).and_then(|replica| replica.problem.text());
        match problem {
            Some(problem) => format!("{address}: {problem}"),
            None => format!("{address}: {}", cause(status)),
        }
    }

    /// Whether the replica was last out of reach for a reason that trying again cannot cure, such as a certificate
    /// that is not trusted: then it has taken nothing that was sent to it.
    pub(crate) fn is_barred(&self, address: &str) -> bool {
        self.lock().get(address).is_some_and(|replica| replica.problem.is_lasting())
    }

    /// A panic elsewhere cannot leave the map half-changed.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Replica>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The services of the replica at an address.
    pub(crate) fn cell_client(&self, address: &str) -> Result<CellClient<Channel>, ConnectError> {
        Ok(self.line(address)?.0)
    }

    /// The same, and what is heard on that connection.
    pub(crate) fn line(&self, address: &str) -> Result<(CellClient<Channel>, Heard), ConnectError> {
        let Replica { channel, heard, .. } = self.replica_in(&self.by_address, address)?;
        let client = CellClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok((client.max_encoding_message_size(MESSAGE_BYTES_MAX), heard))
    }

    /// The same by a connection that carries KeepAlives only.
    pub(crate) fn spare_client(&self, address: &str) -> Result<CellClient<Channel>, ConnectError> {
        Ok(CellClient::new(self.replica_in(&self.spare, address)?.channel))
    }

    /// Forgets a connection on which nothing was heard for too long, so that the next use makes a new one; streams that
    /// are on it stay. What cut it off may have cut off the others, and TCP would find out that this is over seconds
    /// after a new connection does: so those that are silent too are forgotten with it. One that was made anew
    /// meanwhile, because another session has found out before, is not.
    pub(crate) fn forget(&self, silent: &Heard) {
        for channels in [&self.by_address, &self.spare] {
            let mut channels = channels.lock().unwrap_or_else(PoisonError::into_inner);
            channels.retain(|_, replica| !replica.heard.is(silent) && !replica.heard.is_silent_for(STALE));
        }
    }

    /// Connects to replicas that may become master, in the background.
    pub(crate) fn warm(&self, addresses: &[String]) {
        for address in addresses {
            let Ok(mut client) = self.cell_client(address) else { continue };
            // A task without a handle: it ends by itself, and whatever comes of it is of no consequence.
            tokio::spawn(async move {
                let _ = tokio::time::timeout(CONNECT_TIMEOUT, client.status(StatusRequest::default())).await;
            });
        }
    }
}

fn endpoint(address: &str) -> Result<Endpoint, ConnectError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| ConnectError::Malformed { address: address.to_owned(), what: "it makes no URI" })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20))
}

/// What a status says, with the innermost of its causes, which is the one that says something.
fn cause(status: &Status) -> String {
    let mut cause = status.source();
    while let Some(inner) = cause.and_then(|error| error.source()) {
        cause = Some(inner);
    }
    match cause {
        Some(cause) => format!("{} ({cause})", status.message()),
        // What knows no such call says nothing more.
        None if status.message().is_empty() => status.code().description().to_owned(),
        None => status.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_forgotten_is_the_silent_connection_and_those_that_are_silent_like_it() {
        let channels = Channels::default();
        let heard = |address: &str| channels.line(address).unwrap().1;
        let (silent, talking) = (heard("127.0.0.1:1"), heard("127.0.0.1:2"));
        channels.forget(&silent);
        assert!(!heard("127.0.0.1:1").is(&silent) && heard("127.0.0.1:2").is(&talking));

        // Another session says the same of the same connection.
        let anew = heard("127.0.0.1:1");
        channels.forget(&silent);
        assert!(heard("127.0.0.1:1").is(&anew));

        talking.age(STALE);
        channels.spare_client("127.0.0.1:1").unwrap();
        channels.forget(&silent);
        assert!(heard("127.0.0.1:1").is(&anew) && !heard("127.0.0.1:2").is(&talking));
        assert_eq!(channels.spare.lock().unwrap().len(), 1);
    }
}
