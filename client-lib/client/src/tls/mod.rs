//! What a client needs to talk TLS to a cell: whom it trusts, and who it is.
//!
//! Owns the texts of everything that can be wrong with certificates, and never decides where to connect. The
//! invariant: every new connection uses what the files say then, or, while they are unreadable or do not fit
//! together, what they last said. (`connect` makes the connections, `explain` says what was wrong with one.)

mod connect;
mod credentials;
mod explain;

pub(crate) use connect::{Problem, connect};
pub(crate) use credentials::Credentials;

use std::fmt;
use std::path::PathBuf;

/// TLS with a cell: the certificates to trust, and optionally this client's own.
///
/// Each part is given either as PEM text or as a file. Files are read when the cell is made, and again for every new
/// connection, so that renewed certificates are used without a restart; connections that stand are not touched.
///
/// ```no_run
/// # fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use holdfast::{Cell, Tls};
///
/// let tls = Tls::new().ca_file("ca.pem").identity_files("worker-7.pem", "worker-7.key");
/// let cell = Cell::builder().addresses(["https://db1:7100", "https://db2:7100"]).tls(tls).connect()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "certificates do nothing until they are given to `CellBuilder::tls`"]
pub struct Tls {
    ca: Option<Source>,
    /// The certificate chain and its key.
    identity: Option<(Source, Source)>,
    server_name: Option<String>,
}

/// Where PEM text comes from.
#[derive(Clone)]
enum Source {
    Pem(Vec<u8>),
    File(PathBuf),
}

/// Why certificates or keys that were given cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Nobody is trusted.
    #[error("TLS needs the certificate of the CA that signed the replicas' certificates")]
    NoCa,
    /// A file cannot be read.
    #[error("the {what} cannot be read from {path}: {message}")]
    #[non_exhaustive]
    Unreadable {
        /// What is in it: `CA certificate`, `client certificate` or `client key`.
        what: &'static str,
        /// Which file.
        path: String,
        /// What the operating system says.
        message: String,
    },
    /// A text is not what it should be.
    #[error("the {what} ({place}) cannot be used: {message}")]
    #[non_exhaustive]
    Malformed {
        /// What it should be: `CA certificate`, `client certificate` or `client key`.
        what: &'static str,
        /// The file that it is in, or `given as text`.
        place: String,
        /// What is wrong with it.
        message: String,
    },
    /// The server's name is neither a host name nor an IP address.
    #[error("{0:?} is no name that a certificate can have")]
    ServerName(String),
}

impl Tls {
    /// Nobody is trusted yet, and the client proves nothing: to the access control lists it is `anonymous`.
    pub fn new() -> Self {
        Self::default()
    }

    /// The CA that signed the replicas' certificates: one or more certificates as PEM text.
    pub fn ca(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca = Some(Source::Pem(pem.into()));
        self
    }

    /// Like [`Tls::ca`], from a file.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Some(Source::File(path.into()));
        self
    }

    /// Who this client is: its certificate, followed by those between it and the CA, and its key, as PEM texts. The
    /// certificate's common name is the client's principal.
    pub fn identity(mut self, certificate: impl Into<Vec<u8>>, key: impl Into<Vec<u8>>) -> Self {
        self.identity = Some((Source::Pem(certificate.into()), Source::Pem(key.into())));
        self
    }

    /// Like [`Tls::identity`], from files.
    pub fn identity_files(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.identity = Some((Source::File(certificate.into()), Source::File(key.into())));
        self
    }

    /// The name that the replicas' certificates must be for. By default the host in each replica's address.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}

impl TlsError {
    /// Whether trying again may help: if a file was just being replaced.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unreadable { .. })
    }
}

impl fmt::Debug for Source {
    /// Never the text: it may be a key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pem(pem) => write!(f, "{} bytes of PEM", pem.len()),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}
