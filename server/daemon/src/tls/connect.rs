//! Connections to other replicas, with TLS or without.
//!
//! Invariant: with TLS, nothing is said to the other end before its certificate was found to be that of the replica
//! that is meant.

use std::io;
use std::sync::Arc;

use holdfast_io::tcp;
use holdfast_types::ReplicaId;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

use hyper_util::rt::TokioIo;
use tokio_rustls::client::TlsStream;

use super::{Presented, Tls, explain};

impl Tls {
    /// The client's side of a handshake with the replica `id`; if it fails, why.
    async fn dial(&self, id: ReplicaId, stream: TcpStream) -> Result<TlsStream<TcpStream>, String> {
        let connector = TlsConnector::from(Arc::clone(&self.material().dialing));
        // A replica is known by its certificate's URI, wherever it is: this name is only sent for form's sake.
        let name = ServerName::try_from("replica.holdfast.invalid").expect("it is a name");
        let stream = connector.connect(name, stream).await.map_err(|error| {
            let hung_up = error.kind() == io::ErrorKind::UnexpectedEof;
            explain(&error).unwrap_or_else(|| match hung_up {
                true => "it hung up in the handshake: does it run without TLS?".to_owned(),
                false => error.to_string(),
            })
        })?;
        Presented::of(stream.get_ref().1.peer_certificates()).check_replica(&self.own.cell, id)?;
        Ok(stream)
    }
}

/// Connects to the replica `id` as `endpoint` says. With TLS, the error that it may come to is an [`io::Error`] that
/// says why.
pub(crate) async fn connect(
    tls: Option<&Arc<Tls>>,
    id: ReplicaId,
    endpoint: &Endpoint,
) -> Result<Channel, tonic::transport::Error> {
    let Some(tls) = tls.cloned() else {
        let connector = service_fn(async |uri: Uri| dial(&uri).await.map(TokioIo::new));
        return endpoint.connect_with_connector(connector).await;
    };
    let connector = service_fn(move |uri: Uri| {
        let tls = Arc::clone(&tls);
        async move {
            let stream = tls.dial(id, dial(&uri).await?).await.map_err(io::Error::other)?;
            io::Result::Ok(TokioIo::new(stream))
        }
    });
    endpoint.connect_with_connector(connector).await
}

async fn dial(uri: &Uri) -> io::Result<TcpStream> {
    tcp::connect(uri.authority().map_or("", |authority| authority.as_str())).await
}
