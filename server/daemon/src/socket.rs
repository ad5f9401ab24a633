//! A connection that came, through its handshake, with who is at its other end.
//!
//! Invariant: one whose other end does not begin to speak HTTP/2 in time breaks. HTTP/2 itself waits for its first
//! bytes for ever, and its pings begin only after them: so whoever says nothing could hold a place for nothing.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use holdfast_types::Duration;

use crate::tls::Presented;

/// The length of what a client of HTTP/2 says first (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;
/// It must be there within this time.
const PREFACE_MAX: Duration = Duration::from_secs(10);

/// The connection. What its other end has proved is an extension of every request that comes by it.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: Stream,
    presented: Presented,
    /// Until HTTP/2 has begun.
    preface: Option<Preface>,
    /// Counts the connection for as long as it is open.
    _permit: OwnedSemaphorePermit,
}

/// How far the beginning of HTTP/2 has come.
#[derive(Debug)]
struct Preface {
    heard: usize,
    limit: Pin<Box<Sleep>>,
}

impl Preface {
    fn new() -> Option<Self> {
        Some(Self { heard: 0, limit: Box::pin(tokio::time::sleep(PREFACE_MAX)) })
    }
}

#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    /// Boxed, because it is many times larger.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    /// A connection without TLS.
    pub(crate) fn plain(stream: TcpStream, permit: OwnedSemaphorePermit) -> Self {
        let (stream, presented) = (Stream::Plain(stream), Presented::Open);
        Self { stream, presented, preface: Preface::new(), _permit: permit }
    }

    /// A connection after its handshake, which has proved so much.
    pub(crate) fn tls(
        stream: TlsStream<TcpStream>,
        presented: Presented,
        permit: OwnedSemaphorePermit,
    ) -> Self {
        let stream = Stream::Tls(Box::new(stream));
        Self { stream, presented, preface: Preface::new(), _permit: permit }
    }
}

impl Connected for Socket {
    type ConnectInfo = Presented;

    fn connect_info(&self) -> Presented {
        self.presented.clone()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = match &mut this.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        };
        let Some(preface) = &mut this.preface else { return read };
        preface.heard += buffer.filled().len() - before;
        if preface.heard >= PREFACE_BYTES {
            this.preface = None;
        } else if read.is_pending() && preface.limit.as_mut().poll(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        read
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().stream {
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
