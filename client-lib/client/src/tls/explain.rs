//! What was wrong with a connection, in words that say whose certificate it was and what to do.
//!
//! No caller decides anything by these texts; what a retry cannot cure is told apart by [`is_lasting`].

use rustls::{AlertDescription, CertificateError, Error};
use std::io;

/// Why a handshake failed, as seen from here; `None` if the error says it itself.
pub(super) fn handshake(error: &io::Error, has_identity: bool) -> Option<String> {
    let text = match rustls_error(error) {
        // Bytes that are no TLS: frames of HTTP/2, or an answer in HTTP/1.
        Some(Error::InvalidMessage(_)) => {
            "the replica speaks plain text, and TLS is configured here: use http://, or TLS there"
        }
        Some(_) => return connection(error, has_identity),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the replica closed the connection during the TLS handshake: does it speak TLS at all?"
        }
        None => return None,
    };
    Some(text.to_owned())
}

/// Why a connection failed during or after the handshake; `None` if the error says it itself. In TLS 1.3 the server's
/// verdict on the client's certificate comes only then.
pub(super) fn connection(error: &io::Error, has_identity: bool) -> Option<String> {
    match rustls_error(error) {
        Some(Error::InvalidCertificate(reason)) => Some(of_replica(reason)),
        Some(Error::AlertReceived(alert)) => Some(of_client(*alert, has_identity)),
        _ => None,
    }
}

/// Whether the same will go wrong again for as long as certificates and configurations are what they are: a
/// certificate was rejected, by this end or the other.
pub(super) fn is_lasting(error: &io::Error) -> bool {
    use AlertDescription as A;
    match rustls_error(error) {
        Some(Error::InvalidCertificate(_) | Error::InvalidMessage(_)) => true,
        Some(Error::AlertReceived(alert)) => matches!(
            alert,
            A::CertificateRequired
                | A::UnknownCA
                | A::CertificateExpired
                | A::BadCertificate
                | A::CertificateUnknown
                | A::UnsupportedCertificate
                | A::CertificateRevoked
                | A::AccessDenied
        ),
        _ => false,
    }
}

/// The answer to plain text was a TLS alert.
pub(super) const TLS_EXPECTED: &str =
    "the replica speaks TLS, and none is configured here: give a CA certificate";

/// The connection was closed before a byte came.
pub(super) const CLOSED_AT_ONCE: &str = "the replica closed the connection without a word: it is stopping, or it speaks TLS, and none is configured here";

fn rustls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// What is wrong with the replica's certificate.
fn of_replica(reason: &CertificateError) -> String {
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the replica's certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the replica's certificate is not valid yet: compare this machine's clock with the replica's"
                .to_owned()
        }
        // The second if the CA has the name of one that is trusted: CAs of one cell are called alike.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the replica's certificate is signed by a CA that is not trusted here".to_owned()
        }
        CertificateError::NotValidForName => "the replica's certificate is for another host".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the replica's certificate is for {}, and not for {:?}: use that name in the address, or set the TLS \
             server name",
            hosts(presented),
            expected.to_str(),
        ),
        other => format!("the replica's certificate cannot be trusted: {other}"),
    }
}

/// The hosts among the names of a certificate, which rustls writes as `DnsName("host")`, `IpAddress(1.2.3.4)` and so on.
fn hosts(presented: &[String]) -> String {
    let host = |name: &String| {
        let (kind, name) = name.strip_suffix(')')?.split_once('(')?;
        ["DnsName", "IpAddress"].contains(&kind).then(|| name.trim_matches('"').to_owned())
    };
    let hosts: Vec<String> = presented.iter().filter_map(host).collect();
    if hosts.is_empty() { "no host at all".to_owned() } else { hosts.join(", ") }
}

/// What the replica holds against this client.
fn of_client(alert: AlertDescription, has_identity: bool) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "the replica wants a client certificate, and none is configured here".to_owned()
        }
        // How TLS 1.2 says the same, among other things.
        AlertDescription::HandshakeFailure if !has_identity => {
            "the replica refused the handshake: it may want a client certificate, and none is configured here"
                .to_owned()
        }
        AlertDescription::UnknownCA => {
            "the replica rejected this client's certificate: it does not trust the CA that signed it"
                .to_owned()
        }
        AlertDescription::CertificateExpired => {
            "the replica rejected this client's certificate: it has expired, or is not valid yet".to_owned()
        }
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => {
            format!("the replica rejected this client's certificate ({alert:?})")
        }
        other => format!("the replica broke the TLS connection off ({other:?})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use AlertDescription as A;

    #[test]
    fn the_documentation_has_a_line_for_everything_that_is_said() {
        let document = include_str!("../../../../docs/security.md");
        let name = rustls::pki_types::ServerName::try_from("10.0.0.1").unwrap();
        let presented = vec![r#"DnsName("r1.example")"#.to_owned()];
        let certificates = [
            CertificateError::Expired,
            CertificateError::NotValidYet,
            CertificateError::UnknownIssuer,
            CertificateError::NotValidForName,
            CertificateError::NotValidForNameContext { expected: name, presented },
            CertificateError::Revoked,
        ];
        let alerts = [
            A::CertificateRequired,
            A::HandshakeFailure,
            A::UnknownCA,
            A::CertificateExpired,
            A::BadCertificate,
            A::InternalError,
        ];
        let plain = io::Error::other(Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType));
        let closed = io::ErrorKind::UnexpectedEof.into();
        let mut said: Vec<String> = certificates.iter().map(of_replica).collect();
        said.extend(alerts.iter().map(|alert| of_client(*alert, false)));
        said.extend([TLS_EXPECTED, CLOSED_AT_ONCE].map(str::to_owned));
        said.extend([plain, closed].iter().filter_map(|error| handshake(error, false)));
        assert_eq!(said.len(), 16);
        for said in said {
            // A line has the sentence whole, or as far as it is the same each time.
            let is_line = |line: &&str| {
                let told =
                    line.strip_prefix("| `").and_then(|line| line.split_once("` |")).map(|(told, _)| told);
                told.is_some_and(|told| said.starts_with(told))
            };
            assert!(document.lines().any(|line| is_line(&line)), "docs/security.md has no line for {said:?}");
        }
    }
}
