//! A certificate authority and certificates for development and for small cells: what `holdfastd certs` does.
//!
//! ```text
//! ca.pem, ca-key.pem                  the CA; made once and used again
//! replica-<id>.pem, replica-<id>-key.pem
//! client-<principal>.pem, client-<principal>-key.pem
//! ```
//!
//! Never here: a decision of who may do what. Invariants: a key is readable by its owner only, and no file is ever
//! overwritten without being asked to; the CA's not even then. What is there already and is what was asked for is left as it
//! is, so that the same command may be given again.

mod existing;

use std::collections::BTreeSet;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use holdfast_io::small_file;
use holdfast_types::{Principal, ReplicaId, check_cell_name};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use time::{Duration, OffsetDateTime};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::tls::ReplicaName;

/// How long a CA lasts: longer than anybody should go on developing with it.
const CA_DAYS: i64 = 3_650;
/// Certificates begin a little before they are made, because not all clocks agree.
const CLOCKS_DIFFER: Duration = Duration::hours(1);

/// What to make.
#[derive(Clone, Debug)]
pub struct CertsOptions {
    /// Where; made if it is not there.
    pub dir: PathBuf,
    /// The cell's name.
    pub cell: String,
    /// The replicas, each with the hosts (DNS names and IP addresses) where clients find it.
    pub replicas: Vec<(ReplicaId, Vec<String>)>,
    /// The clients.
    pub clients: Vec<Principal>,
    /// For how many days the certificates are valid: from 1 to 3,650, as long as a CA.
    pub days: u32,
    /// Make certificates and keys anew that exist.
    pub force: bool,
}

/// What became of a wish for certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Made {
    /// What was made, the CA first if it was.
    pub made: Vec<Issued>,
    /// What was there already, as it was wanted.
    pub kept: Vec<Issued>,
    /// What whoever asked may not have meant.
    pub warnings: Vec<String>,
}

/// A certificate with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Whose it is, for people.
    pub whose: String,
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The key's file.
    pub key: PathBuf,
}

/// Why certificates cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertsError {
    /// An option is wrong.
    #[error("{0}")]
    Option(String),
    /// A file is there already.
    #[error(
        "{path} is there already, is not what was asked for ({why}), and is not overwritten: give --force to make it \
         anew", path = path.display()
    )]
    Exists {
        /// The file.
        path: PathBuf,
        /// What is different.
        why: String,
    },
    /// The CA in the directory cannot be used.
    #[error("the CA in {dir} cannot be used: {what}", dir = dir.display())]
    Ca {
        /// The directory.
        dir: PathBuf,
        /// Why.
        what: String,
    },
    /// A file could not be read or written.
    #[error("cannot use {path}: {source}", path = path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make the certificate of {whose}: {source}")]
    Make {
        /// Whose.
        whose: String,
        /// Why.
        source: rcgen::Error,
    },
}

/// The file of the CA's certificate in `dir`.
#[must_use]
pub fn ca_file(dir: &Path) -> PathBuf {
    dir.join("ca.pem")
}

/// The files of a replica's certificate and key in `dir`.
#[must_use]
pub fn replica_files(dir: &Path, id: ReplicaId) -> (PathBuf, PathBuf) {
    files(dir, &format!("replica-{}", id.0))
}

/// The files of a client's certificate and key in `dir`.
#[must_use]
pub fn client_files(dir: &Path, principal: &Principal) -> (PathBuf, PathBuf) {
    files(dir, &format!("client-{principal}"))
}

fn files(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    (dir.join(format!("{name}.pem")), dir.join(format!("{name}-key.pem")))
}

/// Makes the certificates, and the CA if there is none. What is there already as it is wanted is kept. Nothing is made if
/// one of the files is there, is something else, and may not be overwritten. Blocks.
///
/// # Errors
///
/// Why not.
pub fn make(options: &CertsOptions) -> Result<Made, CertsError> {
    let mut wanted = wanted(options)?;
    fs::create_dir_all(&options.dir).map_err(io_at(&options.dir))?;
    let mut kept = Vec::new();
    if !options.force {
        for it in std::mem::take(&mut wanted) {
            if is_there(options, &it)? { kept.push(it.issued) } else { wanted.push(it) }
        }
    }
    let Authority { issuer, made, warning } = authority(options)?;
    let mut made = Vec::from_iter(made);
    for Wanted { issued: it, params } in wanted {
        let signed = || -> Result<(KeyPair, String), rcgen::Error> {
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &issuer)?.pem();
            Ok((key, certificate))
        };
        let signed = signed().map_err(|source| CertsError::Make { whose: it.whose.clone(), source });
        let (key, certificate) = signed?;
        write(&it.key, &key.serialize_pem(), 0o600)?;
        write(&it.certificate, &certificate, 0o644)?;
        made.push(it);
    }
    Ok(Made { made, kept, warnings: Vec::from_iter(warning) })
}

/// Whether a certificate is there already, as it is wanted.
fn is_there(options: &CertsOptions, wanted: &Wanted) -> Result<bool, CertsError> {
    let Issued { certificate, key, .. } = &wanted.issued;
    let exists = |path: &Path, why: String| CertsError::Exists { path: path.to_owned(), why };
    match (certificate.exists(), key.exists()) {
        (false, false) => return Ok(false),
        (true, true) => {}
        (true, false) => return Err(exists(certificate, "it has no key beside it".to_owned())),
        (false, true) => return Err(exists(key, "it has no certificate beside it".to_owned())),
    }
    let read = |path: &Path| small_file::read_to_string(path).map_err(io_at(path));
    let ca = ca_file(&options.dir);
    if !ca.exists() {
        return Err(exists(certificate, "there is no CA beside it".to_owned()));
    }
    existing::check(&read(certificate)?, &read(key)?, &wanted.params, &read(&ca)?)
        .map_err(|why| exists(certificate, why))?;
    Ok(true)
}

/// A certificate that is to be made.
struct Wanted {
    issued: Issued,
    params: CertificateParams,
}

fn wanted(options: &CertsOptions) -> Result<Vec<Wanted>, CertsError> {
    check_cell_name(&options.cell).map_err(CertsError::Option)?;
    if !(1..=CA_DAYS).contains(&options.days.into()) {
        let what = format!("a certificate is valid for 1 to {CA_DAYS} days, not {}", options.days);
        return Err(CertsError::Option(what));
    }
    for client in &options.clients {
        Principal::of_certificate(client.as_str()).map_err(|error| CertsError::Option(error.to_string()))?;
    }
    let replicas = options.replicas.iter().map(|(id, hosts)| replica(options, *id, hosts));
    let clients = options.clients.iter().map(|principal| client(options, principal));
    let wanted = replicas.chain(clients).collect::<Result<Vec<_>, _>>()?;
    let mut files = BTreeSet::new();
    match wanted.iter().find(|wanted| !files.insert(&wanted.issued.certificate)) {
        // The second would replace the first.
        Some(twice) => Err(CertsError::Option(format!("{} is given twice", twice.issued.whose))),
        None => Ok(wanted),
    }
}

/// A replica is a server to clients, and both server and client to other replicas.
fn replica(options: &CertsOptions, id: ReplicaId, hosts: &[String]) -> Result<Wanted, CertsError> {
    let whose = id.to_string();
    let make = |source| CertsError::Make { whose: whose.clone(), source };
    if id.0 == 0 || hosts.is_empty() {
        let what =
            format!("{whose} needs an id from 1 upwards, and the hosts where clients find it: ID=HOST,HOST");
        return Err(CertsError::Option(what));
    }
    for host in hosts {
        check_host(host).map_err(|what| CertsError::Option(format!("{whose}: {what}")))?;
    }
    let mut params = CertificateParams::new(hosts).map_err(make)?;
    let uri = ReplicaName { cell: options.cell.clone(), replica: id }.to_string();
    params.subject_alt_names.push(SanType::URI(uri.try_into().map_err(make)?));
    let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let params = complete(params, &format!("replica-{}", id.0), &usages, options.days.into());
    let (certificate, key) = replica_files(&options.dir, id);
    Ok(Wanted { issued: Issued { whose, certificate, key }, params })
}

/// Whether clients can find a certificate's owner there.
fn check_host(host: &str) -> Result<(), String> {
    match ServerName::try_from(host.strip_prefix("*.").unwrap_or(host)) {
        Ok(_) => Ok(()),
        Err(_) => {
            Err(format!("{host:?} is no host: write a DNS name or an IP address, without port or brackets"))
        }
    }
}

fn client(options: &CertsOptions, principal: &Principal) -> Result<Wanted, CertsError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._@+-".contains(c);
    if !principal.as_str().chars().all(fits) {
        let what =
            format!("{principal} cannot be part of a file's name: use letters, digits and any of . _ @ + -");
        return Err(CertsError::Option(what));
    }
    if principal.as_str().ends_with("-key") {
        let (certificate, _) = client_files(&options.dir, principal);
        let what =
            format!("{principal} cannot end in \"-key\": {} is another client's key", certificate.display());
        return Err(CertsError::Option(what));
    }
    let usages = [ExtendedKeyUsagePurpose::ClientAuth];
    let params = complete(CertificateParams::default(), principal.as_str(), &usages, options.days.into());
    let (certificate, key) = client_files(&options.dir, principal);
    Ok(Wanted { issued: Issued { whose: format!("client {principal}"), certificate, key }, params })
}

fn complete(
    mut params: CertificateParams,
    common_name: &str,
    usages: &[ExtendedKeyUsagePurpose],
    days: i64,
) -> CertificateParams {
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = usages.to_vec();
    params.use_authority_key_identifier_extension = true;
    let now = OffsetDateTime::now_utc();
    (params.not_before, params.not_after) = (now - CLOCKS_DIFFER, now + Duration::days(days));
    params
}

/// What the common name of a CA that was made here ends with: whose it is.
fn of_cell(cell: &str) -> String {
    format!(" of cell {cell}")
}

/// The CA of a directory.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// What was made, if it is new.
    made: Option<Issued>,
    /// What is odd about it, if it is not.
    warning: Option<String>,
}

/// The CA of the directory, made if there is none.
fn authority(options: &CertsOptions) -> Result<Authority, CertsError> {
    let (certificate, key) = files(&options.dir, "ca");
    let wrong = |what: String| CertsError::Ca { dir: options.dir.clone(), what };
    match (certificate.exists(), key.exists()) {
        (true, true) => {
            let read = |path: &Path| small_file::read_to_string(path).map_err(io_at(path));
            let (pem, key_pem) = (read(&certificate)?, read(&key)?);
            let pair = KeyPair::from_pem(&key_pem).map_err(|error| wrong(error.to_string()))?;
            let name = check_authority(&pem, &pair).map_err(wrong)?;
            let issuer = Issuer::from_ca_cert_pem(&pem, pair);
            let issuer = issuer.map_err(|error| wrong(error.to_string()))?;
            // One that was not made here says what it likes.
            let is_other = name.contains(&of_cell("")) && !name.ends_with(&of_cell(&options.cell));
            let warning = is_other.then(|| {
                format!(
                    "{} is called {name:?}: whoever trusts it for one cell trusts it for the cell {} too; give \
                     another --dir for a CA of its own",
                    certificate.display(),
                    options.cell
                )
            });
            Ok(Authority { issuer, made: None, warning })
        }
        (false, false) => {
            let whose = format!("the CA of cell {}", options.cell);
            let make = |source| CertsError::Make { whose: whose.clone(), source };
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
            // A name of its own: of two CAs of one name, whoever trusts one takes the other's for forgeries.
            let number = getrandom::u32().map_err(|error| CertsError::Io {
                path: certificate.clone(),
                source: io::Error::other(error.to_string()),
            })?;
            let name = format!("Holdfast development CA {number:08x}{}", of_cell(&options.cell));
            let mut params = complete(params, &name, &[], CA_DAYS);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let pair = KeyPair::generate().map_err(make)?;
            let signed = params.self_signed(&pair).map_err(make)?;
            write(&key, &pair.serialize_pem(), 0o600)?;
            write(&certificate, &signed.pem(), 0o644)?;
            let made = Some(Issued { whose, certificate, key });
            Ok(Authority { issuer: Issuer::new(params, pair), made, warning: None })
        }
        (true, false) => {
            Err(wrong(format!("{} has no key beside it ({})", certificate.display(), key.display())))
        }
        (false, true) => {
            Err(wrong(format!("{} has no certificate beside it ({})", key.display(), certificate.display())))
        }
    }
}

/// The CA's common name, if anybody would believe what it signs; or why not.
fn check_authority(pem: &str, pair: &KeyPair) -> Result<String, String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes())
        .map_err(|error| format!("ca.pem holds no certificate in PEM form: {error}"))?;
    let (_, parsed) =
        X509Certificate::from_der(&der).map_err(|error| format!("ca.pem cannot be read: {error}"))?;
    if parsed.public_key().raw != pair.subject_public_key_info() {
        return Err("ca-key.pem does not fit ca.pem: they are of two pairs".to_owned());
    }
    if !parsed.is_ca() {
        return Err("ca.pem is no CA's certificate".to_owned());
    }
    if !parsed.validity().is_valid() {
        let (begin, end) = (parsed.validity().not_before, parsed.validity().not_after);
        return Err(format!("ca.pem is valid from {begin} to {end}, and not now"));
    }
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    Ok(name.unwrap_or_default().to_owned())
}

/// Writes a file so that whoever reads it finds the old one or the new one, whole.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertsError> {
    let write = || {
        let temporary = path.with_extension("tmp");
        // One that a crash has left may have another mode.
        match fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(io_at(path))
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> CertsError + use<> {
    let path = path.to_owned();
    move |source| CertsError::Io { path, source }
}

#[cfg(test)]
mod tests;
