//! Certificates and keys, from PEM text to what rustls works with, and their renewal.
//!
//! The invariant: a set of files is used whole or not at all, so a certificate never meets another one's key.

use super::{Source, Tls, TlsError};
use holdfast_io::small_file;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject as _};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use std::sync::{Arc, Mutex, PoisonError};

const CA: &str = "CA certificate";
const CERTIFICATE: &str = "client certificate";
const KEY: &str = "client key";

/// What a cell's connections are made with.
#[derive(Debug)]
pub(crate) struct Credentials {
    tls: Tls,
    server_name: Option<ServerName<'static>>,
    /// What the files said when they were last fit for use.
    last: Mutex<Loaded>,
}

#[derive(Clone, Debug)]
struct Loaded {
    texts: Texts,
    config: Arc<ClientConfig>,
}

/// The PEM texts, as they were read. Compared to see whether anything is new.
#[derive(Clone, PartialEq, Eq)]
struct Texts {
    ca: Vec<u8>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Texts {
    /// Never the texts: there is a key among them.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Texts")
    }
}

impl Credentials {
    /// Reads everything for the first time.
    pub(crate) fn load(tls: Tls) -> Result<Self, TlsError> {
        let server_name = match &tls.server_name {
            Some(name) => Some(parse_name(name)?),
            None => None,
        };
        let texts = read(&tls)?;
        let config = Arc::new(config(&tls, &texts)?);
        Ok(Self { tls, server_name, last: Mutex::new(Loaded { texts, config }) })
    }

    /// What a connection that is made now uses.
    pub(crate) fn current(&self) -> Arc<ClientConfig> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match self.renewed(&last) {
            Ok(None) => last.config,
            Ok(Some(loaded)) => {
                tracing::info!("new certificates are in use");
                let config = Arc::clone(&loaded.config);
                *self.last.lock().unwrap_or_else(PoisonError::into_inner) = loaded;
                config
            }
            Err(error) => {
                tracing::warn!(%error, "the certificates as they were last read go on being used");
                last.config
            }
        }
    }

    /// What is in the files now, if that is something else.
    fn renewed(&self, last: &Loaded) -> Result<Option<Loaded>, TlsError> {
        let texts = read(&self.tls)?;
        if texts == last.texts {
            return Ok(None);
        }
        let config = Arc::new(config(&self.tls, &texts)?);
        Ok(Some(Loaded { texts, config }))
    }

    /// The name that the certificate of the replica at `host:port` must be for.
    pub(crate) fn server_name(&self, address: &str) -> Result<ServerName<'static>, TlsError> {
        match &self.server_name {
            Some(name) => Ok(name.clone()),
            None => parse_name(host(address)),
        }
    }

    /// Whether this client has a certificate to show.
    pub(crate) fn has_identity(&self) -> bool {
        self.tls.identity.is_some()
    }
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn parse_name(name: &str) -> Result<ServerName<'static>, TlsError> {
    ServerName::try_from(name.to_owned()).map_err(|_| TlsError::ServerName(name.to_owned()))
}

fn read(tls: &Tls) -> Result<Texts, TlsError> {
    let ca = tls.ca.as_ref().ok_or(TlsError::NoCa)?.read(CA)?;
    let identity = match &tls.identity {
        Some((certificate, key)) => Some((certificate.read(CERTIFICATE)?, key.read(KEY)?)),
        None => None,
    };
    Ok(Texts { ca, identity })
}

impl Source {
    /// Small local files: read in place, once for each new connection.
    fn read(&self, what: &'static str) -> Result<Vec<u8>, TlsError> {
        match self {
            Self::Pem(pem) => Ok(pem.clone()),
            Self::File(path) => small_file::read(path).map_err(|error| TlsError::Unreadable {
                what,
                path: path.display().to_string(),
                message: error.to_string(),
            }),
        }
    }

    fn malformed(&self, what: &'static str, message: impl ToString) -> TlsError {
        let place = match self {
            Self::Pem(_) => "given as text".to_owned(),
            Self::File(path) => path.display().to_string(),
        };
        TlsError::Malformed { what, place, message: message.to_string() }
    }

    fn certificates(&self, what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let certificates: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(pem).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => {
                Err(self.malformed(what, "there is no PEM certificate in it"))
            }
            Ok(certificates) => Ok(certificates),
            Err(error) => Err(self.malformed(what, error)),
        }
    }
}

fn config(tls: &Tls, texts: &Texts) -> Result<ClientConfig, TlsError> {
    let ca = tls.ca.as_ref().ok_or(TlsError::NoCa)?;
    let mut roots = RootCertStore::empty();
    for certificate in ca.certificates(CA, &texts.ca)? {
        roots.add(certificate).map_err(|error| ca.malformed(CA, error))?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ca.malformed(CA, error))?
        .with_root_certificates(roots);
    let mut config = match (&tls.identity, &texts.identity) {
        (Some((certificate, key)), Some((certificate_pem, key_pem))) => {
            let chain = certificate.certificates(CERTIFICATE, certificate_pem)?;
            let parsed = PrivateKeyDer::from_pem_slice(key_pem).map_err(|error| match error {
                pem::Error::NoItemsFound => key.malformed(KEY, "there is no PEM private key in it"),
                error => key.malformed(KEY, error),
            })?;
            builder.with_client_auth_cert(chain, parsed).map_err(|error| key.malformed(KEY, error))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address_is_what_its_certificate_must_be_for() {
        assert_eq!(host("db1:7100"), "db1");
        assert_eq!(host("[::1]:7100"), "::1");
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let of = |tls| Credentials::load(tls).unwrap_err().to_string();
        assert!(of(Tls::new()).contains("needs the certificate of the CA"));
        assert!(of(Tls::new().ca("nothing")).contains("no PEM certificate"));
        let missing = of(Tls::new().ca_file("/nonexistent/ca.pem"));
        assert!(missing.contains("CA certificate") && missing.contains("/nonexistent/ca.pem"), "{missing}");
        #[cfg(target_os = "linux")]
        assert!(of(Tls::new().ca_file("/dev/zero")).contains("more than 1 MiB"));
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (ca, key) = (signed.cert.pem(), signed.signing_key.serialize_pem());
        let no_key = of(Tls::new().ca(ca.clone()).identity(ca.clone(), ca.clone()));
        assert!(no_key.contains("client key") && no_key.contains("no PEM private key"), "{no_key}");
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let mismatch = of(Tls::new().ca(ca.clone()).identity(other.cert.pem(), key));
        assert!(mismatch.contains("client key"), "{mismatch}");
        assert!(of(Tls::new().ca(ca).server_name("no host")).contains("no host"));
    }

    #[test]
    fn a_renewed_file_is_used_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let certificate = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
        std::fs::write(&path, certificate()).unwrap();
        let credentials = Credentials::load(Tls::new().ca_file(&path)).unwrap();
        let first = credentials.current();
        assert!(Arc::ptr_eq(&first, &credentials.current()));
        std::fs::write(&path, certificate()).unwrap();
        let second = credentials.current();
        assert!(!Arc::ptr_eq(&first, &second));
        std::fs::write(&path, "half a certif").unwrap();
        assert!(Arc::ptr_eq(&second, &credentials.current()));
    }
}
