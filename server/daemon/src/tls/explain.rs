//! What went wrong in a handshake, in words that tell an operator what to put right.
//!
//! "It" in these sentences is the other end. A failure that this end has found names the other's certificate; an
//! alert names this end's, because the other end has found it.

use std::error::Error;
use std::io;

use rustls::{AlertDescription, CertificateError};

/// The reason why a connection failed, if it is one of TLS: found at any depth below `error`.
pub(crate) fn explain(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(words(tls));
        }
        // An io::Error hides the error that it was made of from `source`.
        let within = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match within {
            Some(within) => Some(within),
            None => error.source(),
        };
    }
    None
}

fn words(error: &rustls::Error) -> String {
    use rustls::Error as E;
    match error {
        E::InvalidCertificate(error) => certificate(error),
        E::NoCertificatesPresented => "it shows no certificate, and has to".to_owned(),
        E::AlertReceived(alert) => self::alert(*alert),
        E::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        E::PeerIncompatible(why) => format!("it speaks TLS in another way: {why:?}"),
        other => other.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    use CertificateError as C;
    match error {
        C::Expired | C::ExpiredContext { .. } => "its certificate has expired".to_owned(),
        C::NotValidYet | C::NotValidYetContext { .. } => {
            "its certificate is not valid yet: is a clock wrong?".to_owned()
        }
        C::UnknownIssuer | C::BadSignature => {
            "its certificate is not signed by a CA that is trusted here".to_owned()
        }
        C::InvalidPurpose | C::InvalidPurposeContext { .. } => {
            "its certificate is not made for this: a server's must allow server authentication, a client's client \
             authentication, and a replica's both"
                .to_owned()
        }
        other => format!("its certificate is not accepted: {other}"),
    }
}

fn alert(alert: AlertDescription) -> String {
    use AlertDescription as A;
    match alert {
        A::CertificateRequired => "it requires a certificate, and this end has shown none".to_owned(),
        A::CertificateExpired => "it says that this end's certificate has expired".to_owned(),
        A::UnknownCA | A::DecryptError => {
            "it does not trust the CA that has signed this end's certificate".to_owned()
        }
        A::UnsupportedCertificate => "it says that this end's certificate is not made for this".to_owned(),
        A::BadCertificate | A::CertificateUnknown | A::CertificateRevoked | A::AccessDenied => {
            format!("it does not accept this end's certificate ({alert:?})")
        }
        A::ProtocolVersion | A::HandshakeFailure => format!("it speaks TLS in another way ({alert:?})"),
        other => format!("it has ended the handshake ({other:?})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_at_any_depth() {
        #[derive(Debug, thiserror::Error)]
        #[error("transport error")]
        struct Outer(#[source] io::Error);
        let expired = || rustls::Error::InvalidCertificate(CertificateError::Expired);
        let io = || io::Error::new(io::ErrorKind::InvalidData, expired());
        for error in [&expired() as &(dyn Error + 'static), &io(), &Outer(io::Error::other(io()))] {
            assert_eq!(explain(error).unwrap(), "its certificate has expired");
        }
        assert_eq!(explain(&io::Error::other("no")), None);
    }

    #[test]
    fn an_alert_speaks_of_this_end() {
        let said = |alert| words(&rustls::Error::AlertReceived(alert));
        assert!(said(AlertDescription::CertificateRequired).contains("shown none"));
        assert!(said(AlertDescription::UnknownCA).contains("does not trust the CA"));
        assert!(said(AlertDescription::CertificateExpired).contains("this end's certificate has expired"));
    }
}
