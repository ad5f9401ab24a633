//! The three files of `[tls]`, read and checked as a whole, and the TLS configurations made of them.
//!
//! Invariant: a [`Material`] that exists can be used: its certificate is this replica's, in time, signed by the CA,
//! made for both directions, and the key fits. Everything that others would otherwise find out in a failed handshake
//! is found out here, where the file is known and can be named.
//!
//! No session is ever resumed: each handshake shows and checks certificates anew, so that one that has expired, or
//! whose CA was taken away, opens nothing.

use std::path::Path;
use std::sync::Arc;

use holdfast_io::small_file;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};

use super::certificate::{Holder, ReplicaName};
use super::explain::explain;
use super::validity::Validity;
use super::verifier::ChainVerifier;
use crate::config::{ClientCertificates, TlsConfig};

/// What HTTP/2 is called in a handshake.
const HTTP2: &[u8] = b"h2";

/// Why the files of `[tls]` cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}, which `tls.{key}` is set to: {source}")]
    Unreadable {
        /// The configuration key within `[tls]`.
        key: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file is not what it has to be.
    #[error("{path}, which `tls.{key}` is set to, cannot be used: {what}")]
    Wrong {
        /// The configuration key within `[tls]`.
        key: &'static str,
        /// The file.
        path: String,
        /// What is wrong, and what would be right.
        what: String,
    },
}

/// The files' contents. Equal ones make equal material, but for the time that passes.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Vec<u8>,
    ca: Vec<u8>,
}

impl Contents {
    /// Reads the files. Blocks.
    pub(super) fn read(files: &TlsConfig) -> Result<Self, TlsError> {
        let read = |key, path: &Path| {
            small_file::read(path).map_err(|source| TlsError::Unreadable {
                key,
                path: path.display().to_string(),
                source,
            })
        };
        Ok(Self {
            certificate: read("certificate", &files.certificate)?,
            key: read("key", &files.key)?,
            ca: read("ca", &files.ca)?,
        })
    }
}

/// What a handshake needs.
pub(super) struct Material {
    /// What it was made of.
    pub(super) contents: Contents,
    /// For connections from clients.
    pub(super) clients: Arc<ServerConfig>,
    /// For connections from replicas: mutual, whatever is configured for clients.
    pub(super) peers: Arc<ServerConfig>,
    /// For connections to replicas. Does not check the names of hosts: see [`ChainVerifier`].
    pub(super) dialing: Arc<ClientConfig>,
    /// When the replica's certificate is valid, and which hosts it is for.
    pub(super) validity: Validity,
}

impl Material {
    /// Checks everything, and makes the configurations.
    pub(super) fn new(files: &TlsConfig, contents: Contents, own: &ReplicaName) -> Result<Self, TlsError> {
        let wrong =
            |key, path: &Path, what: String| TlsError::Wrong { key, path: path.display().to_string(), what };
        let not_ca = |what: String| wrong("ca", &files.ca, what);
        let not_certificate = |what: String| wrong("certificate", &files.certificate, what);
        let not_key = |what: String| wrong("key", &files.key, what);

        let roots = Arc::new(roots(&contents.ca).map_err(not_ca)?);
        let chain = certificates(&contents.certificate).map_err(not_certificate)?;
        let key = PrivateKeyDer::from_pem_slice(&contents.key);
        let key = key.map_err(|error| not_key(format!("it holds no private key in PEM form: {error}")))?;
        let validity = Validity::of(&chain[0]).map_err(not_certificate)?;
        check_owner(&chain[0], own).map_err(not_certificate)?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifiers = Verifiers::new(&roots, &provider, files.client_certificates).map_err(not_ca)?;
        verifiers.check_own(&chain).map_err(not_certificate)?;
        let server = |verifier, versions| {
            server(&provider, versions, verifier, chain.clone(), key.clone_key()).map_err(not_key)
        };
        Ok(Self {
            clients: server(Arc::clone(&verifiers.clients), &[&TLS12, &TLS13])?,
            peers: server(Arc::clone(&verifiers.peers), &[&TLS13])?,
            dialing: dialing(&provider, verifiers.chain, chain.clone(), key.clone_key()).map_err(not_key)?,
            validity,
            contents,
        })
    }
}

/// Who checks the other end's certificate.
struct Verifiers {
    clients: Arc<dyn ClientCertVerifier>,
    peers: Arc<dyn ClientCertVerifier>,
    chain: Arc<ChainVerifier>,
}

impl Verifiers {
    fn new(
        roots: &Arc<RootCertStore>,
        provider: &Arc<CryptoProvider>,
        client_certificates: ClientCertificates,
    ) -> Result<Self, String> {
        let builder = || WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider));
        let peers = builder().build().map_err(|error| error.to_string())?;
        let clients = match client_certificates {
            ClientCertificates::Required => Arc::clone(&peers),
            ClientCertificates::Optional => {
                builder().allow_unauthenticated().build().map_err(|error| error.to_string())?
            }
        };
        Ok(Self { clients, peers, chain: Arc::new(ChainVerifier::new(roots, provider)) })
    }

    /// Whether the others will accept this replica's own certificate, as a server's and as a client's.
    fn check_own(&self, chain: &[CertificateDer<'static>]) -> Result<(), String> {
        let (own, intermediates) = (&chain[0], &chain[1..]);
        // The verifier looks at no name.
        let anybody = ServerName::try_from("localhost").expect("localhost is a name");
        let now = UnixTime::now();
        let as_server = self.chain.verify_server_cert(own, intermediates, &anybody, &[], now).map(drop);
        let as_client = self.peers.verify_client_cert(own, intermediates, now).map(drop);
        as_server.and(as_client).map_err(|error| {
            let why = explain(&error).unwrap_or_else(|| error.to_string());
            format!("the other replicas would refuse it: {why} (the trusted CA is the one in `tls.ca`)")
        })
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem)? {
        roots.add(certificate).map_err(|error| format!("one of its certificates is no CA's: {error}"))?;
    }
    Ok(roots)
}

/// The certificates in a file; at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| format!("it is not in PEM form: {error}"))?;
    if certificates.is_empty() {
        return Err("it holds no certificate in PEM form".to_owned());
    }
    Ok(certificates)
}

fn check_owner(certificate: &CertificateDer<'_>, own: &ReplicaName) -> Result<(), String> {
    let holder = Holder::read(certificate);
    let right = format!("this replica needs one with the URI {own}");
    match holder.replica() {
        Ok(named) if named == own => Ok(()),
        Ok(named) => Err(format!("it is the certificate of {named}, and {right}")),
        Err(why) => Err(format!("{why}, and {right}")),
    }
}

fn server(
    provider: &Arc<CryptoProvider>,
    versions: &[&'static SupportedProtocolVersion],
    verifier: Arc<dyn ClientCertVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ServerConfig>, String> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider));
    let builder = builder.with_protocol_versions(versions).expect("the provider knows both versions");
    let config = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key);
    let mut config = config.map_err(|error| key_problem(&error))?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn dialing(
    provider: &Arc<CryptoProvider>,
    verifier: Arc<ChainVerifier>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<ClientConfig>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider));
    let builder = builder.with_protocol_versions(&[&TLS13]).expect("the provider knows the version");
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let mut config = builder.with_client_auth_cert(chain, key).map_err(|error| key_problem(&error))?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn key_problem(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            "the key does not fit the certificate in `tls.certificate`: they are of two pairs".to_owned()
        }
        other => format!("the key cannot be used: {other}"),
    }
}
