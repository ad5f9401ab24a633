//! A connection to a replica: TCP, and TLS over it if the cell is to be talked to so.
//!
//! Owns nothing but the bytes on their way, and what was last wrong with them. Its own stream type is there for the
//! sake of that: what is wrong with a certificate is often known only when the first bytes are read, long after the
//! handshake, and HTTP/2 does not tell it to a call that has not begun by then.

use super::Credentials;
use super::explain;
use crate::heard::Heard;
use holdfast_io::tcp;
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The first byte of every TLS alert record. No HTTP/2 server begins with it: its first frame would be too long.
const TLS_ALERT: u8 = 0x15;

/// What was wrong with the present connection to a replica, or the last attempt at one, for people.
#[derive(Clone, Debug, Default)]
pub(crate) struct Problem(Arc<Mutex<Option<Trouble>>>);

#[derive(Clone, Debug)]
struct Trouble {
    text: String,
    /// Trying again cannot help.
    is_lasting: bool,
}

impl Problem {
    pub(crate) fn text(&self) -> Option<String> {
        self.get().map(|trouble| trouble.text)
    }

    /// Whether the replica said nothing, and will say nothing before certificates or configurations change.
    pub(crate) fn is_lasting(&self) -> bool {
        self.get().is_some_and(|trouble| trouble.is_lasting)
    }

    fn get(&self) -> Option<Trouble> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, trouble: Option<Trouble>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }

    /// Notes what was wrong, if there is more to say than the error does.
    fn note(&self, error: io::Error, text: Option<String>) -> io::Error {
        let Some(text) = text else { return error };
        let is_lasting = explain::is_lasting(&error) || text == explain::TLS_EXPECTED;
        self.set(Some(Trouble { text: text.clone(), is_lasting }));
        io::Error::new(error.kind(), text)
    }
}

/// A connection that stands.
pub(crate) struct Connection {
    bytes: Bytes,
    problem: Problem,
    heard: Heard,
}

enum Bytes {
    Plain {
        tcp: TcpStream,
        /// Something was read from it.
        heard: bool,
    },
    Tls {
        stream: Box<TlsStream<TcpStream>>,
        /// This client has a certificate: the texts of errors differ.
        has_identity: bool,
    },
}

/// Connects to the replica at `host:port`. Dropping the future gives the connection up.
pub(crate) async fn connect(
    address: String,
    credentials: Option<Arc<Credentials>>,
    problem: Problem,
    heard: Heard,
) -> io::Result<TokioIo<Connection>> {
    problem.set(None);
    heard.note();
    let tcp = tcp::connect(&address).await?;
    let Some(credentials) = credentials else {
        return Ok(TokioIo::new(Connection { bytes: Bytes::Plain { tcp, heard: false }, problem, heard }));
    };
    let name = credentials.server_name(&address).map_err(io::Error::other)?;
    let has_identity = credentials.has_identity();
    match TlsConnector::from(credentials.current()).connect(name, tcp).await {
        Ok(stream) => {
            let bytes = Bytes::Tls { stream: Box::new(stream), has_identity };
            Ok(TokioIo::new(Connection { bytes, problem, heard }))
        }
        Err(error) => {
            let text = explain::handshake(&error, has_identity);
            Err(problem.note(error, text))
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let heard = self.heard.clone();
        let read = self.get_mut().poll_bytes(context, buffer);
        if buffer.filled().len() > before {
            heard.note();
        }
        read
    }
}

impl Connection {
    fn poll_bytes(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { bytes, problem, .. } = self;
        match bytes {
            Bytes::Plain { tcp, heard: true } => Pin::new(tcp).poll_read(context, buffer),
            Bytes::Plain { tcp, heard } => {
                let before = buffer.filled().len();
                let Poll::Ready(read) = Pin::new(tcp).poll_read(context, buffer) else {
                    return Poll::Pending;
                };
                *heard = true;
                let said = &buffer.filled()[before..];
                Poll::Ready(match (read, said.first()) {
                    (Ok(()), Some(_)) if !wants_tls(said) => Ok(()),
                    (Ok(()), Some(_)) => Err(problem.note(aborted(), Some(explain::TLS_EXPECTED.to_owned()))),
                    (Ok(()), None) => Err(problem.note(aborted(), Some(explain::CLOSED_AT_ONCE.to_owned()))),
                    (Err(error), _) => Err(problem.note(error, Some(explain::CLOSED_AT_ONCE.to_owned()))),
                })
            }
            Bytes::Tls { stream, has_identity } => {
                Pin::new(stream).poll_read(context, buffer).map_err(|error| {
                    let text = explain::connection(&error, *has_identity);
                    problem.note(error, text)
                })
            }
        }
    }

    /// A write failed. What the replica said before it closed the connection says more, if it was not read yet.
    fn write_error(&mut self, error: io::Error) -> io::Error {
        let Bytes::Plain { tcp, heard: false } = &self.bytes else { return error };
        let mut first = [0];
        let text = match tcp.try_read(&mut first) {
            Ok(1) if first == [TLS_ALERT] => explain::TLS_EXPECTED,
            _ => explain::CLOSED_AT_ONCE,
        };
        self.problem.note(error, Some(text.to_owned()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.bytes {
            Bytes::Plain { tcp, .. } => Pin::new(tcp).poll_write(context, bytes),
            Bytes::Tls { stream, .. } => Pin::new(stream).poll_write(context, bytes),
        };
        written.map_err(|error| this.write_error(error))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.bytes {
            Bytes::Plain { tcp, .. } => Pin::new(tcp).poll_write_vectored(context, slices),
            Bytes::Tls { stream, .. } => Pin::new(stream).poll_write_vectored(context, slices),
        };
        written.map_err(|error| this.write_error(error))
    }

    fn is_write_vectored(&self) -> bool {
        match &self.bytes {
            Bytes::Plain { tcp, .. } => tcp.is_write_vectored(),
            Bytes::Tls { stream, .. } => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().bytes {
            Bytes::Plain { tcp, .. } => Pin::new(tcp).poll_flush(context),
            Bytes::Tls { stream, .. } => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().bytes {
            Bytes::Plain { tcp, .. } => Pin::new(tcp).poll_shutdown(context),
            Bytes::Tls { stream, .. } => Pin::new(stream).poll_shutdown(context),
        }
    }
}

/// Whether the first bytes of an answer to plain text ask for TLS: an alert, or, as Holdfast says it, empty SETTINGS
/// and a GOAWAY with the error INADEQUATE_SECURITY (RFC 9113 §6.5, §6.8, §7).
fn wants_tls(said: &[u8]) -> bool {
    let is_go_away = said.starts_with(&[0, 0, 0, 4]) && said.get(12) == Some(&7);
    said.first() == Some(&TLS_ALERT) || is_go_away && said.get(22..26) == Some(&[0, 0, 0, 0xc])
}

/// Not `UnexpectedEof`, which is no error to HTTP/2.
fn aborted() -> io::Error {
    io::ErrorKind::ConnectionAborted.into()
}
