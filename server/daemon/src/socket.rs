//! A connection that came, through its handshake, with who is at its other end.
//!
//! Invariant: one whose other end does not begin to speak HTTP/2 in time breaks. HTTP/2 itself waits for its first
//! bytes for ever, and its pings begin only after them: so whoever says nothing could hold a place for nothing. One that
//! is sent away ([`guests`](crate::guests)) breaks too.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use holdfast_types::Duration;
use holdfast_types::ledger::Account;

use crate::accept::Door;
use crate::front::SPARES_PER_CONNECTION_MAX;
use crate::front::intake::{
    ADMIN_CALLS_PER_CONNECTION_MAX, CALLS_PER_CONNECTION_MAX, WAITING_PER_CONNECTION_MAX,
};
use crate::guests::{Seat, Visit};
use crate::tls::Presented;

/// The length of what a client of HTTP/2 says first (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;
/// It must be there within this time.
const PREFACE_MAX: Duration = Duration::from_secs(10);

/// The connection. What its other end has proved is an extension of every request that comes by it.
pub(crate) struct Socket {
    stream: Stream,
    presented: Presented,
    /// Until HTTP/2 has begun.
    preface: Option<Preface>,
    door: Arc<Door>,
    /// Its place, for as long as it is open.
    seat: Seat,
}

/// Whom a request comes from: an extension of every request.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// What it has proved.
    pub(crate) presented: Presented,
    /// Its connection.
    pub(crate) visit: Visit,
    /// Its connection's turns at asking for a lease past a stream.
    pub(crate) past_streams: Arc<Semaphore>,
    /// Its connection's turns at unary calls.
    pub(crate) calls: Arc<Semaphore>,
    /// Those of administrators.
    pub(crate) admin_calls: Arc<Semaphore>,
    /// Its connection's places for session streams that wait for room.
    pub(crate) waiting: Arc<Semaphore>,
    /// What is held for its connection, once something is.
    pub(crate) account: Arc<OnceLock<Account>>,
}

/// How far the beginning of HTTP/2 has come.
#[derive(Debug)]
struct Preface {
    heard: usize,
    limit: Pin<Box<Sleep>>,
}

/// The bytes.
#[derive(Debug)]
pub(crate) enum Stream {
    /// As they are.
    Plain(TcpStream),
    /// Encrypted. Boxed, because it is many times larger.
    Tls(Box<TlsStream<TcpStream>>),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(stream)
    }
}

impl From<TlsStream<TcpStream>> for Stream {
    fn from(stream: TlsStream<TcpStream>) -> Self {
        Self::Tls(Box::new(stream))
    }
}

impl Socket {
    /// A connection after its handshake, which has proved so much.
    pub(crate) fn new(stream: Stream, presented: Presented, door: Arc<Door>, seat: Seat) -> Self {
        let preface = Some(Preface { heard: 0, limit: Box::pin(tokio::time::sleep(PREFACE_MAX)) });
        Self { stream, presented, preface, door, seat }
    }

    /// Fails once the connection was sent away.
    fn check_welcome(&self, context: &Context<'_>) -> io::Result<()> {
        match self.seat.poll_sent_away(context) {
            Poll::Ready(()) => Err(io::ErrorKind::ConnectionAborted.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl Connected for Socket {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        let turns = |max| Arc::new(Semaphore::new(max));
        Caller {
            presented: self.presented.clone(),
            visit: self.seat.visit(),
            past_streams: turns(SPARES_PER_CONNECTION_MAX),
            calls: turns(CALLS_PER_CONNECTION_MAX),
            admin_calls: turns(ADMIN_CALLS_PER_CONNECTION_MAX),
            waiting: turns(WAITING_PER_CONNECTION_MAX),
            account: Arc::default(),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.check_welcome(context)?;
        let before = buffer.filled().len();
        let read = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        let Some(preface) = &mut this.preface else { return read };
        preface.heard += buffer.filled().len() - before;
        if preface.heard >= PREFACE_BYTES {
            this.preface = None;
            if this.door.settle(&this.seat).is_err() {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
        } else if read.is_pending() && preface.limit.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_welcome(context)?;
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.check_welcome(context)?;
        match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Stream::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.stream {
            Stream::Plain(stream) => stream.is_write_vectored(),
            Stream::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
