//! A connection to a replica: TCP, and TLS over it if the cell is to be talked to so.
//!
//! Owns nothing but the bytes on their way. Its own stream type is there for the sake of the error texts: what is
//! wrong with a certificate is often known only when the first bytes are read, long after the handshake.

use super::Credentials;
use super::explain;
use hyper_util::rt::TokioIo;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The first byte of every TLS alert record. No HTTP/2 server begins with it: its first frame would be too long.
const TLS_ALERT: u8 = 0x15;

/// A connection that stands.
pub(crate) enum Stream {
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
) -> io::Result<TokioIo<Stream>> {
    let tcp = TcpStream::connect(&address).await?;
    tcp.set_nodelay(true)?;
    let Some(credentials) = credentials else {
        return Ok(TokioIo::new(Stream::Plain { tcp, heard: false }));
    };
    let name = credentials.server_name(&address).map_err(io::Error::other)?;
    let has_identity = credentials.has_identity();
    let connected = TlsConnector::from(credentials.current()).connect(name, tcp).await;
    let stream = connected.map_err(|error| explain::handshake(error, has_identity))?;
    Ok(TokioIo::new(Stream::Tls { stream: Box::new(stream), has_identity }))
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { tcp, heard: true } => Pin::new(tcp).poll_read(context, buffer),
            Self::Plain { tcp, heard } => {
                let before = buffer.filled().len();
                let read = Pin::new(tcp).poll_read(context, buffer);
                if let Poll::Ready(Ok(())) = read {
                    *heard = true;
                    match buffer.filled().get(before) {
                        Some(&TLS_ALERT) => return Poll::Ready(Err(explain::tls_expected())),
                        Some(_) => {}
                        None => return Poll::Ready(Err(explain::closed_at_once())),
                    }
                }
                read
            }
            Self::Tls { stream, has_identity } => {
                let has_identity = *has_identity;
                Pin::new(stream)
                    .poll_read(context, buffer)
                    .map_err(|error| explain::connection(error, has_identity))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain { tcp, .. } => Pin::new(tcp).poll_write(context, bytes),
            Self::Tls { stream, .. } => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain { tcp, .. } => Pin::new(tcp).poll_write_vectored(context, slices),
            Self::Tls { stream, .. } => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain { tcp, .. } => tcp.is_write_vectored(),
            Self::Tls { stream, .. } => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { tcp, .. } => Pin::new(tcp).poll_flush(context),
            Self::Tls { stream, .. } => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain { tcp, .. } => Pin::new(tcp).poll_shutdown(context),
            Self::Tls { stream, .. } => Pin::new(stream).poll_shutdown(context),
        }
    }
}
