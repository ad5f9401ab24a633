//! When a certificate is valid, and for which hosts: what an operator should know before others find out.

use std::net::IpAddr;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{ASN1Time, FromDer as _, GeneralName, X509Certificate};

/// A certificate that ends sooner than this is worth a warning, in seconds: two weeks.
const SOON_S: i64 = 14 * 24 * 3600;

/// What is known of a certificate that is valid now.
#[derive(Debug)]
pub(super) struct Validity {
    /// When it ends, for people.
    pub(super) until: String,
    /// It ends within two weeks.
    pub(super) ends_soon: bool,
    /// The DNS names and IP addresses that it is for.
    hosts: Vec<String>,
}

impl Validity {
    /// Reads a certificate; an error if it is not valid now.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now_s = now.map_or(0, |now| i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("its first certificate cannot be read: {error}"))?;
        let (begin, end) = (parsed.validity().not_before, parsed.validity().not_after);
        if now_s < begin.timestamp() {
            return Err(format!("the certificate is not valid before {}: is the clock wrong?", text(begin)));
        }
        if now_s > end.timestamp() {
            return Err(format!("the certificate has expired on {}: renew it", text(end)));
        }
        Ok(Self { until: text(end), ends_soon: end.timestamp() - now_s < SOON_S, hosts: hosts(&parsed) })
    }

    /// Whether clients that look for `host` accept the certificate; if not: whom it is for.
    pub(super) fn check_host(&self, host: &str) -> Result<(), String> {
        let matches = |name: &String| {
            let wildcard = name.strip_prefix('*').is_some_and(|domain| {
                host.find('.').is_some_and(|dot| host[dot..].eq_ignore_ascii_case(domain))
            });
            wildcard || name.eq_ignore_ascii_case(host)
        };
        if self.hosts.iter().any(matches) {
            return Ok(());
        }
        Err(if self.hosts.is_empty() { "no host".to_owned() } else { self.hosts.join(", ") })
    }
}

fn text(time: ASN1Time) -> String {
    time.to_rfc2822().unwrap_or_else(|_| time.timestamp().to_string())
}

fn hosts(certificate: &X509Certificate<'_>) -> Vec<String> {
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.into_iter().flat_map(|names| &names.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => ip(bytes).map(|ip| ip.to_string()),
            _ => None,
        })
        .collect()
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let four: Result<[u8; 4], _> = bytes.try_into();
    let sixteen: Result<[u8; 16], _> = bytes.try_into();
    four.map(IpAddr::from).or(sixteen.map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    #[test]
    fn the_hosts_of_a_certificate_are_found_in_every_spelling() {
        let names = ["replica.example", "*.cell.example", "10.0.0.1", "::1"].map(String::from);
        let params = CertificateParams::new(names).unwrap();
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let validity = Validity::of(certificate.der()).unwrap();
        assert!(!validity.ends_soon);
        for host in ["replica.example", "Replica.Example", "a.cell.example", "10.0.0.1", "::1"] {
            assert_eq!(validity.check_host(host), Ok(()), "{host}");
        }
        for host in ["cell.example", "a.b.cell.example", "10.0.0.2", "example"] {
            let hosts = validity.check_host(host).unwrap_err();
            assert!(hosts.contains("replica.example, *.cell.example, 10.0.0.1, ::1"), "{hosts}");
        }
    }
}
