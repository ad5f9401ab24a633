//! A certificate authority and certificates for development and for small cells: what `holdfastd certs` does.
//!
//! ```text
//! ca.pem, ca-key.pem                  the CA; made once and used again
//! replica-<id>.pem, replica-<id>-key.pem
//! client-<principal>.pem, client-<principal>-key.pem
//! ```
//!
//! Never here: a decision of who may do what. Invariants: a key is readable by its owner only, and no file is ever
//! overwritten without being asked to; the CA's not even then.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use holdfast_types::{Principal, ReplicaId, check_cell_name};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

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
    /// For how many days the certificates are valid; at least 1.
    pub days: u32,
    /// Make certificates and keys anew that exist.
    pub force: bool,
}

/// A certificate that was made, with its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
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
    #[error("{path} is there already, and is not overwritten: give --force to make it anew", path = path.display())]
    Exists {
        /// The file.
        path: PathBuf,
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

/// Makes the certificates, and the CA if there is none; says what was made, the CA first if it was. Nothing is made if
/// one of the files is there already and may not be overwritten. Blocks.
///
/// # Errors
///
/// Why not.
pub fn make(options: &CertsOptions) -> Result<Vec<Made>, CertsError> {
    let wanted = wanted(options)?;
    fs::create_dir_all(&options.dir).map_err(io_at(&options.dir))?;
    if !options.force {
        let files = wanted.iter().flat_map(|wanted| [&wanted.made.certificate, &wanted.made.key]);
        if let Some(path) = files.into_iter().find(|path| path.exists()) {
            return Err(CertsError::Exists { path: path.clone() });
        }
    }
    let (issuer, ca) = authority(options)?;
    let mut made = Vec::from_iter(ca);
    for Wanted { made: it, params } in wanted {
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
    Ok(made)
}

/// A certificate that is to be made.
struct Wanted {
    made: Made,
    params: CertificateParams,
}

fn wanted(options: &CertsOptions) -> Result<Vec<Wanted>, CertsError> {
    check_cell_name(&options.cell).map_err(CertsError::Option)?;
    if options.days == 0 {
        return Err(CertsError::Option("a certificate is valid for at least 1 day".to_owned()));
    }
    let replicas = options.replicas.iter().map(|(id, hosts)| replica(options, *id, hosts));
    let clients = options.clients.iter().map(|principal| client(options, principal));
    replicas.chain(clients).collect()
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
    let mut params = CertificateParams::new(hosts).map_err(make)?;
    let uri = ReplicaName { cell: options.cell.clone(), replica: id }.to_string();
    params.subject_alt_names.push(SanType::URI(uri.try_into().map_err(make)?));
    let usages = [ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let params = complete(params, &format!("replica-{}", id.0), &usages, options.days.into());
    let (certificate, key) = replica_files(&options.dir, id);
    Ok(Wanted { made: Made { whose, certificate, key }, params })
}

fn client(options: &CertsOptions, principal: &Principal) -> Result<Wanted, CertsError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._@+-".contains(c);
    if !principal.as_str().chars().all(fits) {
        let what =
            format!("{principal} cannot be part of a file's name: use letters, digits and any of . _ @ + -");
        return Err(CertsError::Option(what));
    }
    let usages = [ExtendedKeyUsagePurpose::ClientAuth];
    let params = complete(CertificateParams::default(), principal.as_str(), &usages, options.days.into());
    let (certificate, key) = client_files(&options.dir, principal);
    Ok(Wanted { made: Made { whose: format!("client {principal}"), certificate, key }, params })
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

/// The CA of the directory; and what was made, if it is new.
fn authority(options: &CertsOptions) -> Result<(Issuer<'static, KeyPair>, Option<Made>), CertsError> {
    let (certificate, key) = files(&options.dir, "ca");
    let wrong = |what: String| CertsError::Ca { dir: options.dir.clone(), what };
    match (certificate.exists(), key.exists()) {
        (true, true) => {
            let read = |path: &Path| fs::read_to_string(path).map_err(io_at(path));
            let (pem, key_pem) = (read(&certificate)?, read(&key)?);
            let pair = KeyPair::from_pem(&key_pem).map_err(|error| wrong(error.to_string()))?;
            let issuer = Issuer::from_ca_cert_pem(&pem, pair);
            Ok((issuer.map_err(|error| wrong(error.to_string()))?, None))
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
            let name = format!("Holdfast development CA {number:08x} of cell {}", options.cell);
            let mut params = complete(params, &name, &[], CA_DAYS);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            let pair = KeyPair::generate().map_err(make)?;
            let signed = params.self_signed(&pair).map_err(make)?;
            write(&key, &pair.serialize_pem(), 0o600)?;
            write(&certificate, &signed.pem(), 0o644)?;
            Ok((Issuer::new(params, pair), Some(Made { whose, certificate, key })))
        }
        (true, false) => {
            Err(wrong(format!("{} has no key beside it ({})", certificate.display(), key.display())))
        }
        (false, true) => {
            Err(wrong(format!("{} has no certificate beside it ({})", key.display(), certificate.display())))
        }
    }
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
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn options(dir: &Path) -> CertsOptions {
        CertsOptions {
            dir: dir.join("certs"),
            cell: "dev".into(),
            replicas: vec![(ReplicaId(1), vec!["localhost".into(), "127.0.0.1".into()])],
            clients: vec![Principal::parse("worker@eu").unwrap()],
            days: 30,
            force: false,
        }
    }

    #[test]
    fn keys_are_their_owner_s_alone_and_the_ca_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        let made = make(&options).unwrap();
        let whose: Vec<_> = made.iter().map(|made| made.whose.as_str()).collect();
        assert_eq!(whose, ["the CA of cell dev", "replica 1", "client worker@eu"]);
        for made in &made {
            assert_eq!(fs::metadata(&made.key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let ca = fs::read(ca_file(&options.dir)).unwrap();
        let more =
            CertsOptions { replicas: Vec::new(), clients: vec![Principal::anonymous()], ..options.clone() };
        assert_eq!(make(&more).unwrap().len(), 1);
        assert_eq!(fs::read(ca_file(&options.dir)).unwrap(), ca);
    }

    #[test]
    fn nothing_is_overwritten_without_force_and_the_ca_not_even_then() {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path());
        make(&options).unwrap();
        let (_, key) = replica_files(&options.dir, ReplicaId(1));
        let (first, ca) = (fs::read(&key).unwrap(), fs::read(ca_file(&options.dir)).unwrap());
        let more = CertsOptions { clients: vec![Principal::parse("new").unwrap()], ..options.clone() };
        let refused = make(&more).unwrap_err().to_string();
        assert!(refused.contains("replica-1.pem") && refused.contains("--force"), "{refused}");
        assert!(!client_files(&options.dir, &more.clients[0]).0.exists(), "all or nothing");
        assert_eq!(fs::read(&key).unwrap(), first);
        make(&CertsOptions { force: true, ..options.clone() }).unwrap();
        assert_ne!(fs::read(&key).unwrap(), first);
        assert_eq!(fs::read(ca_file(&options.dir)).unwrap(), ca);
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_would_be_right() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |options: CertsOptions| make(&options).unwrap_err().to_string();
        let good = options(dir.path());
        assert!(refused(CertsOptions { cell: "Dev".into(), ..good.clone() }).contains("a-z"));
        assert!(refused(CertsOptions { days: 0, ..good.clone() }).contains("1 day"));
        let no_hosts = vec![(ReplicaId(1), Vec::new())];
        assert!(refused(CertsOptions { replicas: no_hosts, ..good.clone() }).contains("ID=HOST"));
        let path = vec![Principal::parse("../x").unwrap()];
        assert!(refused(CertsOptions { clients: path, ..good.clone() }).contains("letters"));
        assert!(!good.dir.exists(), "nothing is made then");
        make(&good).unwrap();
        fs::remove_file(good.dir.join("ca-key.pem")).unwrap();
        assert!(refused(CertsOptions { force: true, ..good }).contains("no key beside it"));
    }
}
