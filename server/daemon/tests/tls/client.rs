//! A client with TLS of the plainest kind: tonic over rustls, and no library in between.

use std::error::Error;
use std::path::Path;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;

/// A connection to `address` that trusts the CA in the file `ca` and shows the certificate in `own`, if any. The text
/// of an error has all its causes.
pub(crate) async fn channel(
    address: &str,
    ca: &Path,
    own: Option<(&Path, &Path)>,
) -> Result<Channel, String> {
    let config = Arc::new(config(ca, own));
    let connector = service_fn(move |uri: Uri| {
        let config = Arc::clone(&config);
        async move {
            let stream = TcpStream::connect(uri.authority().unwrap().as_str()).await?;
            let host = ServerName::try_from(uri.host().unwrap().to_owned()).unwrap();
            let stream = TlsConnector::from(config).connect(host, stream).await?;
            std::io::Result::Ok(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    endpoint.connect_with_connector(connector).await.map_err(|error| causes(&error))
}

fn config(ca: &Path, own: Option<(&Path, &Path)>) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match own {
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_file(certificate).unwrap()];
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key).unwrap()).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// An error with all that caused it.
pub(crate) fn causes(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        said = format!("{said}: {error}");
        next = error.source();
    }
    said
}
