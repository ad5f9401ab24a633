//! Whether a certificate that is there already is the one that is wanted.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::IpAddr;

use rcgen::{CertificateParams, DnType, DnValue, KeyPair, PublicKeyData as _, SanType};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why a certificate and its key, as PEM texts, do not do for what is wanted of the CA `ca`; nothing if they do.
pub(super) fn check(pem: &str, key: &str, wanted: &CertificateParams, ca: &str) -> Result<(), String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(unreadable)?;
    let (_, found) = X509Certificate::from_der(&der).map_err(unreadable)?;
    let pair = KeyPair::from_pem(key).map_err(|error| format!("its key cannot be read: {error}"))?;
    if found.public_key().raw != pair.subject_public_key_info() {
        return Err("its key is of another pair".to_owned());
    }
    let ca_der = CertificateDer::from_pem_slice(ca.as_bytes()).map_err(unreadable)?;
    let (_, authority) = X509Certificate::from_der(&ca_der).map_err(unreadable)?;
    if !is_signed_by(&found, &authority) {
        return Err("another CA has signed it".to_owned());
    }
    if !found.validity().is_valid() {
        let validity = found.validity();
        return Err(format!(
            "it is valid from {} to {}, and not now",
            validity.not_before, validity.not_after
        ));
    }
    let (has, wants) = (names_of(&found), wanted_names(wanted));
    if has != wants {
        return Err(format!("it is for {}, and not for {}", list(&has), list(&wants)));
    }
    Ok(())
}

fn unreadable(error: impl Display) -> String {
    format!("it cannot be read: {error}")
}

/// Whether the one names the other as its issuer; of keys too, where both say so.
fn is_signed_by(found: &X509Certificate<'_>, authority: &X509Certificate<'_>) -> bool {
    if found.issuer().as_raw() != authority.subject().as_raw() {
        return false;
    }
    let wanted = found.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::AuthorityKeyIdentifier(id) => id.key_identifier.as_ref().map(|id| id.0),
        _ => None,
    });
    let known = authority.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    });
    wanted.zip(known).is_none_or(|(wanted, known)| wanted == known)
}

/// The common name, and all alternative names.
fn names_of(found: &X509Certificate<'_>) -> BTreeSet<String> {
    let common = found.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned);
    let others = found.subject_alternative_name().ok().flatten();
    let others = others.into_iter().flat_map(|names| &names.value.general_names).map(|name| match name {
        GeneralName::DNSName(name) | GeneralName::URI(name) => (*name).to_owned(),
        GeneralName::IPAddress(bytes) => address(bytes),
        other => other.to_string(),
    });
    common.chain(others).collect()
}

fn address(bytes: &[u8]) -> String {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    let any = four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    any.map_or_else(|_| format!("{bytes:?}"), |address| address.to_string())
}

fn wanted_names(wanted: &CertificateParams) -> BTreeSet<String> {
    let common = match wanted.distinguished_name.get(&DnType::CommonName) {
        Some(DnValue::Utf8String(name)) => Some(name.clone()),
        _ => None,
    };
    let others = wanted.subject_alt_names.iter().map(|name| match name {
        SanType::DnsName(name) | SanType::URI(name) => name.to_string(),
        SanType::IpAddress(address) => address.to_string(),
        other => format!("{other:?}"),
    });
    common.into_iter().chain(others).collect()
}

fn list(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
