//! Files that are right and wrong, and files that change.

use std::fs;
use std::path::Path;

use holdfast_proto::peer::v1::FoundingMember;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType};
use tempfile::TempDir;

use super::*;
use crate::certs::{self, CertsOptions};
use crate::config::ClientCertificates;
use crate::logging::testing::Lines;

/// A CA and the certificates of the replicas 1 and 2 of the cell `dev`.
fn certificates() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path(), false);
    dir
}

fn make(dir: &Path, force: bool) {
    let hosts = vec!["127.0.0.1".to_owned()];
    let replicas = vec![(ReplicaId(1), hosts.clone()), (ReplicaId(2), hosts)];
    let (dir, cell) = (dir.to_owned(), "dev".to_owned());
    certs::make(&CertsOptions { dir, cell, replicas, clients: Vec::new(), days: 30, force }).unwrap();
}

/// The configuration of replica 1.
fn config(dir: &Path) -> Config {
    let member =
        FoundingMember { id: 1, peer_address: "127.0.0.1:1".into(), client_address: "127.0.0.1:2".into() };
    let (certificate, key) = certs::replica_files(dir, ReplicaId(1));
    let ca = certs::ca_file(dir);
    let tls = TlsConfig { certificate, key, ca, client_certificates: ClientCertificates::Required };
    Config { tls: Some(tls), ..Config::new("dev", ReplicaId(1), dir.into(), vec![member]) }
}

fn refused(config: &Config) -> String {
    Tls::load(config).unwrap_err().to_string()
}

/// Has the CA in `dir` sign a certificate for replica 1, after `change`.
fn sign(dir: &Path, change: impl FnOnce(&mut CertificateParams)) {
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let ca = KeyPair::from_pem(&read("ca-key.pem")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), ca).unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI("holdfast://dev/replica/1".try_into().unwrap())];
    change(&mut params);
    let key = KeyPair::generate().unwrap();
    fs::write(dir.join("replica-1.pem"), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    fs::write(dir.join("replica-1-key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn a_key_that_others_can_read_is_warned_of() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = certificates();
    let config = config(dir.path());
    let warnings = || {
        let lines = Lines::default();
        Tls::load(&config).unwrap().unwrap().announce(&lines.logger());
        lines.containing("others on this machine can read the replica's key")
    };
    assert_eq!(warnings(), 0, "as `holdfastd certs` makes it");
    let (_, key) = certs::replica_files(dir.path(), ReplicaId(1));
    fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(warnings(), 1);
}

#[test]
fn what_the_program_makes_it_can_use() {
    let dir = certificates();
    let lines = Lines::default();
    Tls::load(&config(dir.path())).unwrap().unwrap().announce(&lines.logger());
    assert_eq!(lines.containing("TLS is on"), 1);
    assert_eq!((lines.containing("expires on"), lines.containing("will refuse it")), (0, 0));
    assert!(Tls::load(&Config { tls: None, ..config(dir.path()) }).unwrap().is_none());
}

#[test]
fn a_file_that_is_missing_or_too_long_or_no_pem_is_named_with_its_key() {
    let dir = certificates();
    for (name, key) in [("replica-1.pem", "certificate"), ("replica-1-key.pem", "key"), ("ca.pem", "ca")] {
        let path = dir.path().join(name);
        let good = fs::read(&path).unwrap();
        fs::write(&path, "nonsense").unwrap();
        let why = refused(&config(dir.path()));
        assert!(why.contains(name) && why.contains(&format!("`tls.{key}`")) && why.contains("PEM"), "{why}");
        fs::write(&path, vec![b'\n'; (1 << 20) + 1]).unwrap();
        let why = refused(&config(dir.path()));
        assert!(why.contains(name) && why.contains("more than 1 MiB"), "{why}");
        fs::remove_file(&path).unwrap();
        let why = refused(&config(dir.path()));
        assert!(
            why.contains("cannot read") && why.contains(name) && why.contains(&format!("`tls.{key}`")),
            "{why}"
        );
        fs::write(&path, good).unwrap();
    }
}

#[test]
fn a_certificate_that_others_would_refuse_is_refused_at_home_first() {
    let dir = certificates();
    let path = dir.path();
    fs::copy(path.join("replica-2-key.pem"), path.join("replica-1-key.pem")).unwrap();
    assert!(refused(&config(path)).contains("does not fit the certificate"));
    fs::copy(path.join("replica-2.pem"), path.join("replica-1.pem")).unwrap();
    let other = refused(&config(path));
    assert!(
        other.contains("holdfast://dev/replica/2") && other.contains("holdfast://dev/replica/1"),
        "{other}"
    );

    let past = rcgen::date_time_ymd(2001, 2, 3);
    sign(path, |params| params.not_after = past);
    assert!(refused(&config(path)).contains("has expired on Sat, 03 Feb 2001"), "{}", refused(&config(path)));
    sign(path, |params| params.not_before = rcgen::date_time_ymd(3001, 1, 1));
    assert!(refused(&config(path)).contains("not valid before"));
    sign(path, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    assert!(refused(&config(path)).contains("not made for this"));
    sign(path, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    assert!(refused(&config(path)).contains("not made for this"));
    sign(path, |params| params.subject_alt_names.clear());
    assert!(refused(&config(path)).contains("needs one with the URI holdfast://dev/replica/1"));
    sign(path, |_| {});
    Tls::load(&config(path)).unwrap();
    let foreign = certificates();
    fs::copy(foreign.path().join("ca.pem"), path.join("ca.pem")).unwrap();
    assert!(refused(&config(path)).contains("not signed by a CA that is trusted"));
}

#[test]
fn a_certificate_that_ends_soon_or_is_for_other_hosts_is_warned_of() {
    let dir = certificates();
    sign(dir.path(), |params| {
        params.not_after = time::OffsetDateTime::now_utc() + time::Duration::days(3);
    });
    let lines = Lines::default();
    Tls::load(&config(dir.path())).unwrap().unwrap().announce(&lines.logger());
    assert_eq!(lines.containing("expires on"), 1);
    assert_eq!(lines.containing("at 127.0.0.1, and its certificate is for no host"), 1);
}

#[test]
fn a_change_of_the_files_is_taken_up_once_it_has_settled() {
    let dir = certificates();
    let lines = Lines::default();
    let tls = Tls::load(&config(dir.path())).unwrap().unwrap();
    let mut reloader = Reloader::new(Arc::clone(&tls), lines.logger());
    let mut look = |at_once| reloader.look(Contents::read(&tls.files), at_once);
    let before = tls.material();
    look(false);
    look(false);
    assert!(Arc::ptr_eq(&before, &tls.material()), "nothing has changed");

    make(dir.path(), true);
    look(false);
    assert!(Arc::ptr_eq(&before, &tls.material()), "it may change still");
    look(false);
    let after = tls.material();
    assert!(!Arc::ptr_eq(&before, &after));
    assert_eq!(lines.containing("use the files of [tls] as they are now"), 1);

    fs::write(dir.path().join("replica-1.pem"), "nonsense").unwrap();
    (0..4).for_each(|_| look(false));
    assert!(Arc::ptr_eq(&after, &tls.material()), "a bad file changes nothing");
    assert_eq!(lines.containing("as they were before"), 1, "and is told once");
    fs::remove_file(dir.path().join("replica-1.pem")).unwrap();
    (0..3).for_each(|_| look(false));
    assert!(Arc::ptr_eq(&after, &tls.material()));
    assert_eq!(lines.containing("as they were before: cannot read"), 1);

    make(dir.path(), true);
    look(true);
    assert!(!Arc::ptr_eq(&after, &tls.material()), "whoever asks does not have to wait");
}

#[test]
fn an_open_cell_is_warned_of_in_one_line() {
    let lines = Lines::default();
    announce_open("dev", ReplicaId(2), &lines.logger());
    assert_eq!(lines.containing("THE CELL IS OPEN: replica 2 of cell dev"), 1);
}
