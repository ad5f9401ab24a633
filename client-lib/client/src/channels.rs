//! The connections to the replicas, one each, shared by all sessions and calls of a [`Cell`](crate::Cell) on one tokio
//! runtime; and one more for KeepAlives where the first is slow.
//!
//! Connections are made when first used and then kept, so that a fail-over does not begin with a TCP handshake.
//! Never decides where to go. The invariants: a broken connection is noticed, by its reset or by an unanswered
//! HTTP/2 ping, and made anew at the next use; and a connection is used on the runtime alone that drives it, because
//! it stands still with that runtime, and ends with it.

use crate::address::Scheme;
use crate::error::{ConnectError, Error};
use crate::heard::Heard;
use crate::tls::{self, Credentials, Problem};
use holdfast_proto::client::v1::StatusRequest;
use holdfast_proto::client::v1::cell_client::CellClient;
use holdfast_session::{self as session, Obstacle};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// A TCP handshake that takes longer is given up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How often an idle connection is pinged, and how long the answer may take. Together they bound how long a
/// connection to a host that vanished without a reset stays in use, if no session is on it that finds it silent. Not
/// shorter, because a ping waits behind what is queued, and a line that loses packets takes seconds for that.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Where one connection is found to be cut off, others on which nothing was heard for so long are not trusted either.
/// Much shorter than what is lost by keeping one that is cut off too, and what it costs to make one anew is little.
pub(crate) const STALE: Duration = Duration::from_secs(1);
/// A connection for KeepAlives that was not used for so long is closed.
const SPARE_IDLE_MAX: Duration = Duration::from_secs(60);
/// The most bytes of a message: some frames of a file each, and the protocol's overhead.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// One replica's connection.
#[derive(Clone, Debug)]
struct Replica {
    channel: Channel,
    problem: Problem,
    heard: Heard,
    /// When it was last asked for.
    used: Instant,
}

/// By the runtime that drives them, and their address.
type Replicas = HashMap<(runtime::Id, String), Replica>;

/// The runtimes that there are connections of, each with what ends the task that waits for the runtime's end.
type Runtimes = HashMap<runtime::Id, oneshot::Sender<Infallible>>;

/// The connections, by runtime and address.
#[derive(Clone, Debug, Default)]
pub(crate) struct Channels {
    maps: Arc<Maps>,
    /// `None`: plain text.
    credentials: Option<Arc<Credentials>>,
    /// Where to connect to instead, by address.
    routes: Arc<BTreeMap<String, String>>,
}

#[derive(Debug, Default)]
struct Maps {
    by_address: Mutex<Replicas>,
    /// The same for KeepAlives that must not wait behind other frames. Made when first needed, and closed when that was a
    /// minute ago.
    spare: Mutex<Replicas>,
    runtimes: Mutex<Runtimes>,
}

impl Channels {
    pub(crate) fn new(credentials: Option<Credentials>, routes: BTreeMap<String, String>) -> Self {
        Self { maps: Arc::default(), credentials: credentials.map(Arc::new), routes: Arc::new(routes) }
    }

    /// How addresses may be written.
    pub(crate) fn scheme(&self) -> Scheme {
        if self.credentials.is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// The channel to a replica. Must be called within a tokio runtime.
    pub(crate) fn channel(&self, address: &str) -> Result<Channel, ConnectError> {
        Ok(self.replica_in(&self.maps.by_address, address)?.channel)
    }

    /// What `channels` has for a replica, made if there is nothing.
    fn replica_in(&self, channels: &Mutex<Replicas>, address: &str) -> Result<Replica, ConnectError> {
        self.meet_runtime();
        let place = place(address);
        let mut by_address = lock(channels);
        if let Some(replica) = by_address.get_mut(&place) {
            replica.used = Instant::now();
            return Ok(replica.clone());
        }
        let (problem, heard) = (Problem::default(), Heard::new());
        let target = self.routes.get(address).map_or(address, String::as_str).to_owned();
        let (credentials, noted, listening) = (self.credentials.clone(), problem.clone(), heard.clone());
        let connector = tower::service_fn(move |_| {
            tls::connect(target.clone(), credentials.clone(), noted.clone(), listening.clone())
        });
        let channel = endpoint(address)?.connect_with_connector_lazy(connector);
        let replica = Replica { channel, problem, heard, used: Instant::now() };
        by_address.insert(place, replica.clone());
        Ok(replica)
    }

    /// Sees to it that what is made on the present runtime is forgotten when that ends.
    fn meet_runtime(&self) {
        let runtime = runtime::Handle::current().id();
        let until_gone = {
            let mut runtimes = lock(&self.maps.runtimes);
            if runtimes.contains_key(&runtime) {
                return;
            }
            let (here, until_gone) = oneshot::channel();
            runtimes.insert(runtime, here);
            until_gone
        };
        let forget = ForgetRuntime { runtime, maps: Arc::downgrade(&self.maps) };
        // A task without a handle: it ends with its runtime, or with the last copy of these channels. No lock is held: on
        // a runtime that is just ending it is dropped here and now.
        tokio::spawn(async move {
            let _forget = forget;
            let _ = until_gone.await;
        });
    }

    /// What was in the way at an address where a call failed.
    pub(crate) fn problem(&self, address: &str, status: &Status) -> session::Problem {
        let known = lock(&self.maps.by_address).get(&place(address)).map(|replica| replica.problem.clone());
        if let Some(problem) = &known
            && let Some(text) = problem.text()
        {
            let obstacle = if problem.is_lasting() { Obstacle::Lasting } else { Obstacle::Unserved };
            return session::Problem { obstacle, text };
        }
        let (obstacle, text) = match unconnected(status) {
            Some(unconnected) => unconnected,
            // Whoever is asked for what it does not know says nothing more, or which port this is.
            None if status.code() == Code::Unimplemented && status.message().is_empty() => {
                (Obstacle::Lasting, NO_SUCH_CALL.to_owned())
            }
            None if status.code() == Code::Unimplemented => (Obstacle::Lasting, status.message().to_owned()),
            None => (Obstacle::Unserved, cause(status)),
        };
        session::Problem { obstacle, text }
    }

    /// The services of the replica at an address.
    pub(crate) fn cell_client(&self, address: &str) -> Result<CellClient<Channel>, ConnectError> {
        Ok(self.line(address)?.0)
    }

    /// The same, and what is heard on that connection.
    pub(crate) fn line(&self, address: &str) -> Result<(CellClient<Channel>, Heard), ConnectError> {
        let Replica { channel, heard, .. } = self.replica_in(&self.maps.by_address, address)?;
        let client = CellClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok((client.max_encoding_message_size(MESSAGE_BYTES_MAX), heard))
    }

    /// The same by a connection that carries KeepAlives only. Whoever uses it for longer than a minute asks again.
    pub(crate) fn spare_line(&self, address: &str) -> Result<(CellClient<Channel>, Heard), ConnectError> {
        let is_new = !lock(&self.maps.spare).contains_key(&place(address));
        let Replica { channel, heard, .. } = self.replica_in(&self.maps.spare, address)?;
        if is_new {
            // A task without a handle: it ends with the connection, or with the map.
            tokio::spawn(close_unused(Arc::downgrade(&self.maps), place(address), heard.clone()));
        }
        Ok((CellClient::new(channel), heard))
    }

    /// Forgets such a connection if nothing was heard on it, though there should have been.
    pub(crate) fn forget_spare(&self, silent: &Heard) {
        lock(&self.maps.spare)
            .retain(|_, replica| !(replica.heard.is(silent) && silent.is_silent_for(STALE)));
    }

    /// Forgets a connection on which nothing was heard for too long, so that the next use makes a new one; streams that
    /// are on it stay. What cut it off may have cut off the others, and TCP would find out that this is over seconds
    /// after a new connection does: so those that are silent too are forgotten with it. One that was made anew
    /// meanwhile, because another session has found out before, is not.
    pub(crate) fn forget(&self, silent: &Heard) {
        for channels in [&self.maps.by_address, &self.maps.spare] {
            lock(channels)
                .retain(|_, replica| !replica.heard.is(silent) && !replica.heard.is_silent_for(STALE));
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

/// Whether there is a tokio runtime here, which everything that waits or connects needs.
pub(crate) fn within_runtime() -> Result<(), Error> {
    runtime::Handle::try_current().map(drop).map_err(|_| Error::NoRuntime)
}

/// Where the present runtime's connection to an address is kept.
fn place(address: &str) -> (runtime::Id, String) {
    (runtime::Handle::current().id(), address.to_owned())
}

fn lock<T>(map: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave the map half-changed.
    map.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets a runtime's connections when it is dropped, with the last of the runtime's tasks.
struct ForgetRuntime {
    runtime: runtime::Id,
    maps: Weak<Maps>,
}

impl Drop for ForgetRuntime {
    fn drop(&mut self) {
        let Some(maps) = self.maps.upgrade() else { return };
        for channels in [&maps.by_address, &maps.spare] {
            lock(channels).retain(|(runtime, _), _| *runtime != self.runtime);
        }
        lock(&maps.runtimes).remove(&self.runtime);
    }
}

/// Closes a connection when it has not been used for a while. One that was forgotten is not there to be closed.
async fn close_unused(maps: Weak<Maps>, place: (runtime::Id, String), heard: Heard) {
    let mut until = Instant::now() + SPARE_IDLE_MAX;
    loop {
        tokio::time::sleep_until(until).await;
        let Some(maps) = maps.upgrade() else { return };
        let mut channels = lock(&maps.spare);
        let used =
            channels.get(&place).filter(|replica| replica.heard.is(&heard)).map(|replica| replica.used);
        let Some(used) = used else { return };
        until = used + SPARE_IDLE_MAX;
        if until <= Instant::now() {
            channels.remove(&place);
            return;
        }
    }
}

/// What a replica may send on a stream before any of it is read.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
/// And on a connection: as much as HTTP/2 knows, so that a session that is slow to read holds up no other. HTTP/2's library
/// counts 256 bytes for each smaller frame that is not read, also for streams that are over, and closes the connection when
/// that comes to half of this. Nor is it to count streams that a replica goes on with after they are over.
const CONNECTION_WINDOW_BYTES: u32 = (1 << 31) - 1;

fn endpoint(address: &str) -> Result<Endpoint, ConnectError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| ConnectError::Malformed { address: address.to_owned(), what: "it makes no URI" })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_max_local_error_reset_streams(None))
}

/// What answers so is not what a client is looking for.
const NO_SUCH_CALL: &str =
    "it knows no such call: it is no replica of Holdfast, or one of an earlier version";

/// Why no connection was made, if none was: then nothing was sent. `None` if one was.
pub(crate) fn unconnected(status: &Status) -> Option<(Obstacle, String)> {
    let (mut next, mut was_unconnected, mut kind) = (status.source(), false, None);
    let mut text = String::new();
    while let Some(error) = next {
        was_unconnected |= error.is::<tonic::ConnectError>();
        kind = error.downcast_ref::<io::Error>().map(io::Error::kind).or(kind);
        text = error.to_string();
        next = error.source();
    }
    if !was_unconnected {
        return None;
    }
    Some(match kind {
        Some(io::ErrorKind::ConnectionRefused) => (Obstacle::Absent, "connection refused".to_owned()),
        // The resolver's errors have no kind of their own.
        // One that fails for a while, as before there is a network, says so.
        _ if text.contains("failed to lookup address") && !text.contains("emporary failure") => {
            (Obstacle::Absent, "nobody knows a host of that name".to_owned())
        }
        Some(io::ErrorKind::TimedOut) => {
            (Obstacle::Unreached, format!("no connection within {CONNECT_TIMEOUT:?}"))
        }
        _ => (Obstacle::Unreached, text),
    })
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

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
        let spare = |address: &str| channels.spare_line(address).unwrap().1;
        let (spare_silent, spare_talking) = (spare("127.0.0.1:1"), spare("127.0.0.1:2"));
        spare_silent.age(STALE);
        channels.forget(&silent);
        assert!(heard("127.0.0.1:1").is(&anew) && !heard("127.0.0.1:2").is(&talking));
        assert!(!spare("127.0.0.1:1").is(&spare_silent) && spare("127.0.0.1:2").is(&spare_talking));
    }

    #[tokio::test]
    async fn a_spare_connection_is_forgotten_only_if_nothing_was_heard_on_it() {
        let channels = Channels::default();
        let spare = || channels.spare_line("127.0.0.1:1").unwrap().1;
        let heard = spare();
        channels.forget_spare(&heard);
        assert!(spare().is(&heard));
        heard.age(STALE);
        channels.forget_spare(&heard);
        let anew = spare();
        assert!(!anew.is(&heard));
        channels.forget_spare(&heard);
        assert!(spare().is(&anew), "it was made anew meanwhile");
    }

    #[test]
    fn each_runtime_has_connections_of_its_own_and_takes_them_with_it() {
        let runtime = || runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let channels = Channels::default();
        let heard = || channels.line("127.0.0.1:1").unwrap().1;
        let (first, second) = (runtime(), runtime());
        let of_first = first.block_on(async { heard() });
        let of_second = second.block_on(async { heard() });
        assert!(!of_first.is(&of_second));
        assert!(first.block_on(async { heard() }).is(&of_first));
        drop(first);
        assert!(second.block_on(async { heard() }).is(&of_second));
        assert_eq!((lock(&channels.maps.by_address).len(), lock(&channels.maps.runtimes).len()), (1, 1));
        assert!(!runtime().block_on(async { heard() }).is(&of_first));

        // And the task that waits for a runtime's end goes when nobody needs it any more.
        drop(channels);
        second.block_on(async {
            while runtime::Handle::current().metrics().num_alive_tasks() > 0 {
                tokio::task::yield_now().await;
            }
        });
    }

    /// A frame of HTTP/2 (RFC 9113 §4.1).
    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    /// Waits until a stream begins.
    async fn begun(socket: &mut TcpStream, stream: u32) {
        loop {
            let mut head = [0; 9];
            socket.read_exact(&mut head).await.unwrap();
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            socket.read_exact(&mut vec![0; length]).await.unwrap();
            if head[3] == HEADERS && head[5..] == stream.to_be_bytes() {
                return;
            }
        }
    }

    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const ACK: u8 = 1;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    const PREFACE_BYTES: usize = 24;
    /// A message that is empty.
    const MESSAGE: &[u8] = &[0; 5];

    #[tokio::test]
    async fn thousands_of_small_frames_that_a_session_does_not_read_cost_a_neighbour_nothing() {
        const FRAMES: usize = 40_000;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let replica = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.read_exact(&mut [0; PREFACE_BYTES]).await.unwrap();
            // HPACK (RFC 7541): 200 out of the table, and the others spelt out.
            let headers = b"\x88\x0f\x10\x10application/grpc";
            let trailers = b"\x00\x0bgrpc-status\x010";
            socket
                .write_all(&[frame(SETTINGS, 0, 0, &[]), frame(SETTINGS, ACK, 0, &[])].concat())
                .await
                .unwrap();
            begun(&mut socket, 1).await;
            let first = frame(HEADERS, END_HEADERS, 1, headers);
            socket.write_all(&[first, frame(DATA, 0, 1, MESSAGE).repeat(FRAMES)].concat()).await.unwrap();
            begun(&mut socket, 3).await;
            let [first, message] = [frame(HEADERS, END_HEADERS, 3, headers), frame(DATA, 0, 3, MESSAGE)];
            let last = frame(HEADERS, END_HEADERS | END_STREAM, 3, trailers);
            socket.write_all(&[first, message, last].concat()).await.unwrap();
            socket
        });
        let mut client = Channels::default().cell_client(&address).unwrap();
        let mut unread = client.session(tokio_stream::pending()).await.unwrap().into_inner();
        // All that was sent before it has arrived with it.
        client.status(StatusRequest::default()).await.expect("the connection lives");
        for _ in 0..FRAMES {
            assert!(unread.message().await.unwrap().is_some());
        }
        drop(replica.await.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn a_spare_connection_that_nobody_has_used_for_a_minute_is_closed() {
        let channels = Channels::default();
        let spare = || channels.spare_line("127.0.0.1:1").unwrap().1;
        let first = spare();
        tokio::time::sleep(SPARE_IDLE_MAX / 2).await;
        assert!(spare().is(&first));
        tokio::time::sleep(SPARE_IDLE_MAX * 3 / 4).await;
        assert_eq!(lock(&channels.maps.spare).len(), 1, "it was used since");
        tokio::time::sleep(SPARE_IDLE_MAX / 2).await;
        assert!(lock(&channels.maps.spare).is_empty());
        channels.line("127.0.0.1:1").unwrap();
        tokio::time::sleep(SPARE_IDLE_MAX * 2).await;
        assert_eq!(lock(&channels.maps.by_address).len(), 1, "the others are kept");
    }
}
