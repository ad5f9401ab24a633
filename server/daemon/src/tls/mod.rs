//! TLS, for clients and between replicas, and who is at the other end of a connection.
//!
//! - [`certificate`]: what a certificate says of its holder; no I/O
//! - [`material`]: the files of `[tls]`, checked and made ready; `validity` and `verifier` help it
//! - [`connect`]: connections to other replicas; those that come are taken up in [`crate::accept`]
//! - [`reload`]: files that change
//! - [`explain`]: failed handshakes in plain words
//!
//! Nothing here decides what anybody may do: it says who is there. Invariant: with TLS on, no byte of HTTP passes
//! before the other end has proved what it has to, and between replicas both always have to.

mod certificate;
mod connect;
mod explain;
mod material;
mod reload;
mod validity;
mod verifier;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_types::ReplicaId;
use slog::{Logger, info, warn};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::config::{Config, TlsConfig};
use crate::system::is_exposed;

pub(crate) use certificate::Presented;
pub(crate) use certificate::ReplicaName;
pub(crate) use connect::connect;
pub(crate) use explain::explain;
pub use material::TlsError;
use material::{Contents, Material};
pub(crate) use reload::Reloader;

/// Who comes by a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Clients.
    Clients,
    /// Other replicas.
    Peers,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clients => "a client",
            Self::Peers => "a replica",
        })
    }
}

/// The TLS of one replica: what new handshakes use. It changes when the files do.
pub(crate) struct Tls {
    files: TlsConfig,
    /// Whose certificate it must be.
    own: ReplicaName,
    /// Where clients are told to find the replica: its certificate should be for that host.
    client_advertise: String,
    material: Mutex<Arc<Material>>,
}

impl Tls {
    /// Reads and checks the files, if TLS is configured. Blocks.
    pub(crate) fn load(config: &Config) -> Result<Option<Arc<Self>>, TlsError> {
        let Some(files) = &config.tls else { return Ok(None) };
        let own = ReplicaName { cell: config.cell.clone(), replica: config.replica };
        let material = Material::new(files, Contents::read(files)?, &own)?;
        Ok(Some(Arc::new(Self {
            files: files.clone(),
            own,
            client_advertise: config.client_advertise.clone(),
            material: Mutex::new(Arc::new(material)),
        })))
    }

    /// Replaces what new handshakes use.
    fn replace(&self, material: Material) {
        *self.material.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(material);
    }

    fn material(&self) -> Arc<Material> {
        Arc::clone(&self.material.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The server's side of a handshake; if it fails, why, and what is left of the connection. Dropping the future
    /// drops the connection.
    pub(crate) async fn accept(
        &self,
        side: Side,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, (String, TcpStream)> {
        let material = self.material();
        let config = match side {
            Side::Clients => &material.clients,
            Side::Peers => &material.peers,
        };
        let accepted = TlsAcceptor::from(Arc::clone(config)).accept(stream).into_fallible().await;
        accepted.map_err(|(error, stream)| (explain(&error).unwrap_or_else(|| error.to_string()), stream))
    }

    /// Whether whoever came by `side` may come in. Between replicas a mere client may not, though its certificate is
    /// good, or clients could take up all the room that replicas have.
    pub(crate) fn check_side(&self, side: Side, presented: &Presented) -> Result<(), String> {
        match side {
            Side::Clients => Ok(()),
            Side::Peers => presented.check_cell(&self.own.cell).map(drop),
        }
    }

    /// Says what is in use, and what will soon be wrong with it.
    pub(crate) fn announce(&self, logger: &Logger) {
        let material = self.material();
        let validity = &material.validity;
        info!(logger, "TLS is on: clients and replicas prove who they are";
            "certificate" => self.files.certificate.display(), "until" => &validity.until);
        if validity.ends_soon {
            warn!(
                logger,
                "the certificate {} expires on {}: renew it; new files are taken up by themselves",
                self.files.certificate.display(),
                validity.until
            );
        }
        // If it cannot be looked at, it could not have been read.
        if is_exposed(&self.files.key).unwrap_or(false) {
            warn!(
                logger,
                "others on this machine can read the replica's key, and pose as it: `chmod go= {}`",
                self.files.key.display()
            );
        }
        let host = self.client_advertise.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        if let Err(hosts) = validity.check_host(host) {
            warn!(
                logger,
                "clients are told to find this replica at {host}, and its certificate is for {hosts}: those \
                who check the names of hosts will refuse it"
            );
        }
    }
}

impl fmt::Debug for Tls {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).field("own", &self.own).finish_non_exhaustive()
    }
}

/// Says loudly that anybody can be anybody.
pub(crate) fn announce_open(cell: &str, replica: ReplicaId, logger: &Logger) {
    warn!(
        logger,
        "THE CELL IS OPEN: {replica} of cell {cell} runs without TLS, so whoever reaches its ports is the \
        principal `anonymous`, and nothing keeps anybody from posing as a replica; see docs/security.md"
    );
}

#[cfg(test)]
mod tests;
