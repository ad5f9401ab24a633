//! What a certificate says of whoever holds it: a principal, a replica, or neither. No I/O, and no trust: that the
//! certificate is genuine was found out by the handshake before anything here is asked.
//!
//! A client is the common name of its certificate's subject. A replica is a URI among the alternative names,
//! `holdfast://<cell>/replica/<id>`, and never a common name: so a client's certificate cannot pass for a replica's,
//! whatever the client is called.

use std::fmt;
use std::sync::Arc;

use holdfast_types::{Principal, ReplicaId};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

const SCHEME: &str = "holdfast://";

/// A replica, as a certificate names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReplicaName {
    /// Its cell's name.
    pub(crate) cell: String,
    /// Its id.
    pub(crate) replica: ReplicaId,
}

impl ReplicaName {
    /// Reads the URI of a certificate.
    fn parse(uri: &str) -> Option<Self> {
        let (cell, id) = uri.strip_prefix(SCHEME)?.split_once("/replica/")?;
        let replica = ReplicaId(id.parse().ok()?);
        let name = Self { cell: cell.to_owned(), replica };
        // Only the one spelling, without a sign or leading zeros.
        (name.to_string() == uri).then_some(name)
    }
}

impl fmt::Display for ReplicaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/replica/{}", self.cell, self.replica.0)
    }
}

/// What the other end of a connection has proved of itself.
#[derive(Clone, Debug)]
pub(crate) enum Presented {
    /// Nothing can be proved: the replica runs without TLS.
    Open,
    /// Nothing: it speaks TLS and has no certificate.
    Nothing,
    /// That it holds a certificate.
    Certificate(Arc<Holder>),
}

/// Who holds a certificate.
#[derive(Debug)]
pub(crate) struct Holder {
    /// As a client; or why it is none.
    principal: Result<Principal, String>,
    /// As a replica; or why it is none.
    replica: Result<ReplicaName, String>,
}

impl Presented {
    /// What `certificates`, the chain that the other end has shown, prove.
    pub(crate) fn of(certificates: Option<&[CertificateDer<'_>]>) -> Self {
        match certificates.and_then(<[_]>::first) {
            Some(certificate) => Self::Certificate(Arc::new(Holder::read(certificate))),
            None => Self::Nothing,
        }
    }

    /// Who the other end is as a client; or why its certificate makes it nobody.
    pub(crate) fn principal(&self) -> Result<Principal, String> {
        match self {
            Self::Open | Self::Nothing => Ok(Principal::anonymous()),
            Self::Certificate(holder) => holder.principal.clone(),
        }
    }

    /// Whether the other end may say that it is the replica `replica` of the cell `cell`. Without TLS everybody may.
    pub(crate) fn check_replica(&self, cell: &str, replica: ReplicaId) -> Result<(), String> {
        match self.check_cell(cell)? {
            Some(named) if named.replica != replica => {
                Err(format!("its certificate is that of {}, and it should be {replica}", named.replica))
            }
            _ => Ok(()),
        }
    }

    /// Whether the other end is some replica of the cell `cell`, and which, if it can be proved.
    pub(crate) fn check_cell(&self, cell: &str) -> Result<Option<&ReplicaName>, String> {
        let holder = match self {
            Self::Open => return Ok(None),
            Self::Nothing => return Err("it shows no certificate, and a replica must".to_owned()),
            Self::Certificate(holder) => holder,
        };
        let named =
            holder.replica.as_ref().map_err(|why| format!("it shows no replica's certificate: {why}"))?;
        if named.cell != cell {
            return Err(format!(
                "its certificate is that of {} of the cell {:?}, and this is the cell {cell:?}",
                named.replica, named.cell
            ));
        }
        Ok(Some(named))
    }
}

impl Holder {
    /// Reads a certificate.
    pub(crate) fn read(certificate: &CertificateDer<'_>) -> Self {
        match X509Certificate::from_der(certificate) {
            Ok((_, parsed)) => Self { principal: principal(&parsed), replica: replica(&parsed) },
            Err(error) => {
                let why = format!("the certificate cannot be read: {error}");
                Self { principal: Err(why.clone()), replica: Err(why) }
            }
        }
    }

    /// The replica that it is; or why it is none.
    pub(super) fn replica(&self) -> Result<&ReplicaName, &String> {
        self.replica.as_ref()
    }
}

fn principal(certificate: &X509Certificate<'_>) -> Result<Principal, String> {
    let mut names = certificate.subject().iter_common_name();
    let (Some(name), None) = (names.next(), names.next()) else {
        return Err(format!(
            "the certificate of {:?} has not one common name, which would be the principal",
            certificate.subject().to_string()
        ));
    };
    let name = name.as_str().map_err(|_| "the certificate's common name is no text".to_owned())?;
    Principal::of_certificate(name)
        .map_err(|error| format!("the certificate's common name {name:?} cannot be a principal: {error}"))
}

fn replica(certificate: &X509Certificate<'_>) -> Result<ReplicaName, String> {
    let names = uris(certificate).filter(|uri| uri.starts_with(SCHEME)).collect::<Vec<_>>();
    match names[..] {
        [uri] => ReplicaName::parse(uri)
            .ok_or_else(|| format!("its URI {uri:?} is not of the form {SCHEME}CELL/replica/ID")),
        [] => Err(format!(
            "the certificate of {:?} has no URI {SCHEME}CELL/replica/ID among its alternative names",
            certificate.subject().to_string()
        )),
        _ => Err(format!("the certificate is that of several replicas: {names:?}")),
    }
}

fn uris<'c>(certificate: &'c X509Certificate<'_>) -> impl Iterator<Item = &'c str> {
    let names = certificate.subject_alternative_name().ok().flatten();
    names.into_iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    /// A certificate with these common names and URIs.
    fn presented(common_names: &[&str], uris: &[&str]) -> Presented {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common_names {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Presented::of(Some(&[certificate.der().clone()]))
    }

    #[test]
    fn a_client_is_its_common_name_and_no_replica() {
        let client = presented(&["worker-7"], &[]);
        assert_eq!(client.principal().unwrap().as_str(), "worker-7");
        let why = client.check_replica("dev", ReplicaId(1)).unwrap_err();
        assert!(why.contains("no replica's certificate") && why.contains("worker-7"), "{why}");
    }

    #[test]
    fn a_name_that_is_no_principal_is_refused_with_the_reason() {
        let refused = |names: &[&str]| presented(names, &[]).principal().unwrap_err();
        assert!(refused(&[]).contains("not one common name"));
        let spaced = refused(&["Jane Doe"]);
        assert!(spaced.contains("\"Jane Doe\"") && spaced.contains("space"), "{spaced}");
        assert!(refused(&["*"]).contains("everyone"));
        assert!(refused(&["anonymous"]).contains("shows no certificate"));
        let turned = refused(&["\u{202e}nimda"]);
        assert!(turned.contains("not seen") && !turned.contains('\u{202e}'), "{turned}");
    }

    #[test]
    fn only_the_very_replica_of_the_very_cell_passes() {
        let second = presented(&["x"], &["https://example.org", "holdfast://dev/replica/2"]);
        assert_eq!(second.check_replica("dev", ReplicaId(2)), Ok(()));
        let other_id = second.check_replica("dev", ReplicaId(3)).unwrap_err();
        assert!(other_id.contains("that of replica 2") && other_id.contains("replica 3"), "{other_id}");
        let other_cell = second.check_replica("prod", ReplicaId(2)).unwrap_err();
        assert!(other_cell.contains("\"dev\"") && other_cell.contains("\"prod\""), "{other_cell}");
    }

    #[test]
    fn a_certificate_that_names_a_replica_in_an_unclear_way_names_none() {
        for (uris, words) in [
            (&["holdfast://dev/replica/x"][..], "not of the form"),
            (&["holdfast://dev/replica/02"], "not of the form"),
            (&["holdfast://dev/replica/+2"], "not of the form"),
            (&["holdfast://dev/2"], "not of the form"),
            (&["holdfast://dev/replica/1", "holdfast://dev/replica/2"], "several"),
        ] {
            let why = presented(&["x"], uris).check_replica("dev", ReplicaId(2)).unwrap_err();
            assert!(why.contains(words), "{why}");
        }
    }

    #[test]
    fn whoever_shows_nothing_is_anonymous_and_a_replica_only_without_tls() {
        for nobody in [Presented::Open, Presented::of(None), Presented::of(Some(&[]))] {
            assert_eq!(nobody.principal().unwrap(), Principal::anonymous());
        }
        assert_eq!(Presented::Open.check_replica("dev", ReplicaId(1)), Ok(()));
        assert!(
            Presented::Nothing.check_replica("dev", ReplicaId(1)).unwrap_err().contains("no certificate")
        );
    }

    #[test]
    fn what_is_no_certificate_makes_nobody() {
        let garbage = Presented::of(Some(&[CertificateDer::from(vec![1, 2, 3])]));
        assert!(garbage.principal().unwrap_err().contains("cannot be read"));
        assert!(garbage.check_replica("dev", ReplicaId(1)).is_err());
    }
}
