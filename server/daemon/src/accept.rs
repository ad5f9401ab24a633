//! Connections that come to a replica: counted, taken through their handshakes, and handed to gRPC.
//!
//! Handshakes run side by side, and each has a limited time, so that one that dawdles holds up nobody. Whoever
//! speaks TLS where there is none, or the other way round, is told so in words before the connection is closed.
//!
//! Invariant: the connections that are open through a [`Door`], those in their handshakes among them, are never more
//! than its [`Places`], so that the log never lacks a file descriptor. Who makes room is decided in
//! [`guests`](crate::guests).

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use holdfast_io::tcp;
use holdfast_types::Duration;
use slog::{Logger, debug, warn};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use crate::guests::{Full, Guests, Places, Seat};
use crate::socket::{Socket, Stream};
use crate::system::advice;
use crate::tls::{Presented, Side, Tls};

/// How long to wait when nothing can be accepted, such as for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// A connection must say something, and be through its handshake, within this time.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// Whoever is turned away gets so long to read why.
const LINGER_MAX: Duration = Duration::from_secs(1);
/// Things that a stranger can cause at will are logged this often at most.
const LOG_PAUSE: Duration = Duration::from_secs(1);
/// What goes on until somebody changes the system is logged this often.
const REFUSED_LOG_PAUSE: Duration = Duration::from_secs(10);

/// The first byte of a TLS connection: a handshake record.
const TLS_HANDSHAKE: u8 = 0x16;
/// HTTP/2's error code for a connection that is not secure enough.
const INADEQUATE_SECURITY: u32 = 0xc;
const NEEDS_TLS: &str = "this replica speaks TLS only: give certificates, or configure [tls] on all replicas";
const HAS_NO_TLS: &str =
    "this replica runs without TLS: leave certificates out, or configure [tls] on all replicas\n";

/// How connections come in by one listener.
pub(crate) struct Door {
    side: Side,
    tls: Option<Arc<Tls>>,
    guests: Arc<Guests>,
    /// Of connections that say nothing and had to make room for others. Each kind is said by itself, so that one that
    /// comes all the while keeps no other from being said.
    silent: Throttle,
    /// Of idle ones that had to.
    idle: Throttle,
    /// Of those that found no room.
    full: Throttle,
    /// Of connections that did not get through.
    failures: Throttle,
    /// Of those that the system would not give.
    refused: Throttle,
    logger: Logger,
}

impl Door {
    /// A door with so many places; with `tls`, only those that prove themselves come in.
    pub(crate) fn new(side: Side, tls: Option<Arc<Tls>>, places: Places, logger: Logger) -> Arc<Self> {
        Arc::new(Self {
            side,
            tls,
            guests: Guests::new(places),
            silent: Throttle::default(),
            idle: Throttle::default(),
            full: Throttle::default(),
            failures: Throttle::default(),
            refused: Throttle::every(REFUSED_LOG_PAUSE),
            logger,
        })
    }

    /// Takes a connection up.
    async fn next(&self, listener: &TcpListener) -> (TcpStream, SocketAddr, Seat) {
        loop {
            self.guests.room().await;
            match listener.accept().await {
                Ok((stream, from)) => {
                    let (seat, gone) = self.guests.arrive(from);
                    if let Some(gone) = gone {
                        self.silent.pass(|more| {
                            warn!(self.logger, "{} arrive and say nothing: closed the oldest such connection of {}, \
                                the most there may be", self.side, self.guests.places().arriving;
                                "from" => gone, "unsaid" => more);
                        });
                    }
                    return (stream, from, seat);
                }
                Err(error) => {
                    self.refused.pass(|more| {
                        warn!(self.logger, "cannot accept {}: {error}{}", self.side, advice(&error); "unsaid" => more);
                    });
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    /// A connection has begun to speak HTTP/2. `Err`: there is no room for it.
    pub(crate) fn settle(&self, seat: &Seat) -> Result<(), Full> {
        let most = self.guests.places().settled;
        let settled = seat.settle();
        match &settled {
            Ok(None) => {}
            Ok(Some(gone)) => self.idle.pass(|more| {
                warn!(self.logger, "closed the connection of {} that had been idle for longest: {most} are open, the \
                    most there may be", self.side; "from" => gone, "unsaid" => more);
            }),
            Err(Full) => self.full.pass(|more| {
                warn!(self.logger, "turned away {}: {most} connections are open and in use, the most there may be",
                    self.side; "unsaid" => more);
            }),
        }
        settled.map(drop)
    }

    /// Takes one connection through its handshake; `None` if it does not get through.
    async fn admit(self: Arc<Self>, stream: TcpStream, from: SocketAddr, seat: Seat) -> Option<Socket> {
        tcp::set_up(&stream);
        let handshake = tokio::time::timeout(HANDSHAKE_MAX, self.handshake(stream));
        let admitted = tokio::select! {
            biased;
            // It is said already.
            () = std::future::poll_fn(|context| seat.poll_sent_away(context)) => return None,
            admitted = handshake => admitted,
        };
        let why = match admitted {
            Ok(Ok((stream, presented))) => {
                return Some(Socket::new(stream, presented, Arc::clone(&self), seat));
            }
            Ok(Err(Some(why))) => why,
            Ok(Err(None)) => {
                debug!(self.logger, "{} connected and said nothing", self.side; "from" => from);
                return None;
            }
            Err(_) => format!("its handshake took longer than {} s", HANDSHAKE_MAX.as_secs()),
        };
        self.failures.pass(|more| {
            warn!(self.logger, "turned away {}: {why}", self.side; "from" => from, "unsaid" => more);
        });
        None
    }

    /// `Err` says why it failed; without words, if there is nothing to say of it.
    async fn handshake(&self, stream: TcpStream) -> Result<(Stream, Presented), Option<String>> {
        let mut first = [0];
        if !matches!(stream.peek(&mut first).await, Ok(1)) {
            return Err(None);
        }
        match (&self.tls, first[0] == TLS_HANDSHAKE) {
            (None, false) => Ok((stream.into(), Presented::Open)),
            (None, true) => {
                turn_away(stream, HAS_NO_TLS.as_bytes()).await;
                Err(Some(
                    "it speaks TLS, and this replica runs without: configure [tls] here, or not there".into(),
                ))
            }
            (Some(_), false) => {
                turn_away(stream, &go_away(NEEDS_TLS)).await;
                Err(Some("it does not speak TLS, and this replica speaks nothing else".into()))
            }
            (Some(tls), true) => match tls.accept(self.side, stream).await {
                Ok(stream) => {
                    let presented = Presented::of(stream.get_ref().1.peer_certificates());
                    match tls.check_side(self.side, &presented) {
                        Ok(()) => Ok((stream.into(), presented)),
                        Err(why) => {
                            turn_away(stream, &go_away(&format!("this port is for replicas: {why}"))).await;
                            Err(Some(why))
                        }
                    }
                }
                Err((why, stream)) => {
                    // The alert that says why is on its way, and must not be overtaken by a reset.
                    turn_away(stream, &[]).await;
                    Err(Some(why))
                }
            },
        }
    }
}

/// Says the last words to a connection, and waits a little for it to hear them: closing one that has sent more than
/// was read would discard what it was told.
async fn turn_away(mut stream: impl AsyncRead + AsyncWrite + Unpin, words: &[u8]) {
    let last = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut scratch = [0; 1024];
        while stream.read(&mut scratch).await? > 0 {}
        io::Result::Ok(())
    };
    // Whoever does not listen need not.
    let _ = tokio::time::timeout(LINGER_MAX, last).await;
}

/// The HTTP/2 frames that end a connection before it has begun, with a text for whoever made it: empty SETTINGS and
/// a GOAWAY (RFC 9113 §6.5, §6.8).
fn go_away(text: &str) -> Vec<u8> {
    let length = (8 + text.len()) as u32;
    let mut frames = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    frames.extend(&length.to_be_bytes()[1..]);
    frames.extend([7, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    frames.extend(INADEQUATE_SECURITY.to_be_bytes());
    frames.extend(text.as_bytes());
    frames
}

/// Lets something be said now and then, and counts what was not.
struct Throttle {
    pause: Duration,
    state: Mutex<(Option<Instant>, u64)>,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::every(LOG_PAUSE)
    }
}

impl Throttle {
    fn every(pause: Duration) -> Self {
        Self { pause, state: Mutex::default() }
    }

    /// Calls `say` with the number of times that it was not called since, unless it was called just now.
    fn pass(&self, say: impl FnOnce(u64)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.0.is_some_and(|last| last.elapsed() < self.pause) {
            state.1 += 1;
            return;
        }
        let unsaid = std::mem::take(&mut state.1);
        state.0 = Some(Instant::now());
        drop(state);
        say(unsaid);
    }
}

/// The connections that come to `listener` by `door`. Never ends, and never spins: a failed accept is waited out.
/// Dropping the stream closes the listener and ends the handshakes.
pub(crate) fn connections(
    listener: TcpListener,
    door: Arc<Door>,
) -> Pin<Box<dyn tokio_stream::Stream<Item = io::Result<Socket>> + Send>> {
    let handshakes = FuturesUnordered::new();
    Box::pin(futures::stream::unfold(
        (listener, door, handshakes),
        |(listener, door, mut handshakes)| async move {
            loop {
                tokio::select! {
                    (stream, from, seat) = door.next(&listener) => {
                        handshakes.push(Arc::clone(&door).admit(stream, from, seat));
                    }
                    Some(admitted) = handshakes.next(), if !handshakes.is_empty() => {
                        if let Some(socket) = admitted {
                            return Some((Ok(socket), (listener, door, handshakes)));
                        }
                    }
                }
            }
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logging::testing::Lines;

    const LIMIT: Duration = Duration::from_secs(30);

    async fn listening(
        door: Arc<Door>,
    ) -> (SocketAddr, impl tokio_stream::Stream<Item = io::Result<Socket>> + Unpin) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        (listener.local_addr().unwrap(), connections(listener, door))
    }

    const PLACES: Places = Places { arriving: 2, settled: 2 };
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    /// A connection that speaks HTTP/2, from both its ends.
    async fn settled(
        address: SocketAddr,
        sockets: &mut (impl tokio_stream::Stream<Item = io::Result<Socket>> + Unpin),
    ) -> (TcpStream, Socket) {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(PREFACE).await.unwrap();
        let mut socket = sockets.next().await.unwrap().unwrap();
        let mut preface = [0; PREFACE.len()];
        socket.read_exact(&mut preface).await.unwrap();
        (client, socket)
    }

    #[tokio::test]
    async fn connections_that_say_nothing_keep_nobody_out() {
        let lines = Lines::default();
        let (address, mut sockets) = listening(Door::new(Side::Clients, None, PLACES, lines.logger())).await;
        let mut silent = Vec::new();
        for _ in 0..5 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let spoken = settled(address, &mut sockets);
        tokio::time::timeout(LIMIT, spoken).await.expect("there is room");
        let first = silent[0].read_u8();
        tokio::select! {
            closed = first => assert!(closed.is_err(), "it was there for longest"),
            _ = sockets.next() => panic!("nobody else speaks"),
        }
        assert_eq!(lines.containing("arrive and say nothing"), 1, "not once for each");
    }

    #[tokio::test]
    async fn the_connection_that_is_idle_for_longest_makes_room_and_one_in_use_does_not() {
        let lines = Lines::default();
        let (address, mut sockets) = listening(Door::new(Side::Clients, None, PLACES, lines.logger())).await;
        let (_, used) = &mut settled(address, &mut sockets).await;
        let _session = tonic::transport::server::Connected::connect_info(used).visit.begin();
        let (_idle_client, mut idle) = settled(address, &mut sockets).await;
        let _third = settled(address, &mut sockets).await;
        let mut scratch = [0; 8];
        let error = idle.read(&mut scratch).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionAborted);
        assert!(futures::poll!(std::pin::pin!(used.read(&mut scratch))).is_pending());
        assert_eq!(lines.containing("had been idle for longest: 2 are open"), 1);
    }

    #[tokio::test]
    async fn whoever_says_nothing_keeps_nothing_else_from_being_logged() {
        let lines = Lines::default();
        let (address, mut sockets) = listening(Door::new(Side::Clients, None, PLACES, lines.logger())).await;
        let mut silent = Vec::new();
        for _ in 0..5 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        let mut spoken = Vec::new();
        for _ in 0..3 {
            spoken.push(settled(address, &mut sockets).await);
        }
        assert_eq!(lines.containing("arrive and say nothing"), 1);
        assert_eq!(lines.containing("had been idle for longest"), 1, "though the other was said just now");
    }

    #[tokio::test]
    async fn a_connection_that_says_nothing_more_breaks() {
        let door = Door::new(Side::Clients, None, PLACES, Lines::default().logger());
        let (address, mut sockets) = listening(door).await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"P").await.unwrap();
        let mut socket = sockets.next().await.unwrap().unwrap();
        let mut heard = [0; 64];
        assert_eq!(socket.read(&mut heard).await.unwrap(), 1);
        tokio::time::pause();
        let error = socket.read(&mut heard).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        tokio::time::resume();

        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut socket = sockets.next().await.unwrap().unwrap();
        let mut preface = [0; 24];
        socket.read_exact(&mut preface).await.unwrap();
        tokio::time::pause();
        let silent = tokio::time::timeout(2 * LIMIT, socket.read(&mut heard)).await;
        assert!(silent.is_err(), "what comes later is for HTTP/2 to see to");
    }

    #[tokio::test]
    async fn tls_where_there_is_none_is_answered_in_words() {
        let lines = Lines::default();
        let (address, mut sockets) = listening(Door::new(Side::Peers, None, PLACES, lines.logger())).await;
        let client = async {
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(&[TLS_HANDSHAKE, 3, 1]).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = tokio::select! {
            answer = client => answer,
            _ = sockets.next() => panic!("it cannot get through"),
        };
        assert_eq!(answer, HAS_NO_TLS);
    }

    #[test]
    fn go_away_is_settings_and_a_goaway_with_the_text() {
        let frames = go_away("no");
        assert_eq!(frames[..9], [0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(frames[9..18], [0, 0, 10, 7, 0, 0, 0, 0, 0]);
        assert_eq!(frames[18..], [0, 0, 0, 0, 0, 0, 0, 0xc, b'n', b'o']);
    }
}
