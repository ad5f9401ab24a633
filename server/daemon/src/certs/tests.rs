//! What is made, what is left alone, and what is refused.

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
    let whose: Vec<_> = made.made.iter().map(|made| made.whose.as_str()).collect();
    assert_eq!(whose, ["the CA of cell dev", "replica 1", "client worker@eu"]);
    for made in &made.made {
        assert_eq!(fs::metadata(&made.key).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let ca = fs::read(ca_file(&options.dir)).unwrap();
    let more = CertsOptions {
        replicas: Vec::new(),
        clients: vec![Principal::parse("late").unwrap()],
        ..options.clone()
    };
    assert_eq!(make(&more).unwrap().made.len(), 1);
    for name in ["anonymous", "ad\u{200b}min"] {
        let clients = vec![Principal::parse(name).unwrap()];
        let refused = make(&CertsOptions { clients, force: true, ..more.clone() }).unwrap_err();
        assert!(matches!(refused, CertsError::Option(_)), "{refused}");
    }
    assert_eq!(fs::read(ca_file(&options.dir)).unwrap(), ca);
}

#[test]
fn nothing_is_overwritten_without_force_and_the_ca_not_even_then() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    make(&options).unwrap();
    let (_, key) = replica_files(&options.dir, ReplicaId(1));
    let (first, ca) = (fs::read(&key).unwrap(), fs::read(ca_file(&options.dir)).unwrap());
    let (new, other_hosts) = (Principal::parse("new").unwrap(), vec!["r1.example".to_owned()]);
    let replicas = vec![(ReplicaId(1), other_hosts)];
    let more = CertsOptions { clients: vec![new], replicas, ..options.clone() };
    let refused = make(&more).unwrap_err().to_string();
    assert!(refused.contains("replica-1.pem") && refused.contains("--force"), "{refused}");
    assert!(
        refused.contains("it is for 127.0.0.1, holdfast://dev/replica/1, localhost, replica-1, and"),
        "{refused}"
    );
    assert!(!client_files(&options.dir, &more.clients[0]).0.exists(), "all or nothing");
    assert_eq!(fs::read(&key).unwrap(), first);
    make(&CertsOptions { force: true, ..options.clone() }).unwrap();
    assert_ne!(fs::read(&key).unwrap(), first);
    assert_eq!(fs::read(ca_file(&options.dir)).unwrap(), ca);
}

#[test]
fn the_same_command_may_be_given_again() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let first = make(&options).unwrap();
    let again = make(&options).unwrap();
    assert_eq!((again.made, again.kept.as_slice(), again.warnings), (vec![], &first.made[1..], vec![]));
    let more = CertsOptions { clients: vec![Principal::parse("late").unwrap()], ..options.clone() };
    let more = make(&more).unwrap();
    assert_eq!((more.made.len(), more.kept.len()), (1, 1));

    // What is there is looked at: half of it, or another CA's, is not it.
    let (certificate, key) = client_files(&options.dir, &options.clients[0]);
    let refused = |options: &CertsOptions| make(options).unwrap_err().to_string();
    let text = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    assert!(refused(&options).contains("it has no key beside it"));
    let (_, other_key) = replica_files(&options.dir, ReplicaId(1));
    fs::copy(other_key, &key).unwrap();
    assert!(refused(&options).contains("its key is of another pair"));
    fs::write(&key, text).unwrap();
    fs::remove_file(ca_file(&options.dir)).unwrap();
    assert!(refused(&options).contains("there is no CA beside it"));
    fs::remove_file(options.dir.join("ca-key.pem")).unwrap();
    make(&CertsOptions { replicas: vec![], clients: vec![], ..options.clone() }).unwrap();
    assert!(refused(&options).contains("another CA has signed it"));
    fs::write(&certificate, "x").unwrap();
    assert!(refused(&CertsOptions { replicas: vec![], ..options.clone() }).contains("it cannot be read"));
}

#[test]
fn whoever_uses_the_ca_of_another_cell_is_warned() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    make(&options).unwrap();
    let other = CertsOptions { cell: "prod".into(), replicas: vec![], clients: vec![], ..options };
    let warnings = make(&other).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("of cell dev"), "{warnings:?}");
}

#[test]
fn what_cannot_be_is_refused_with_what_would_be_right() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |options: CertsOptions| make(&options).unwrap_err().to_string();
    let good = options(dir.path());
    assert!(refused(CertsOptions { cell: "Dev".into(), ..good.clone() }).contains("a-z"));
    assert!(refused(CertsOptions { days: 0, ..good.clone() }).contains("1 to 3650 days"));
    assert!(refused(CertsOptions { days: u32::MAX, ..good.clone() }).contains("1 to 3650 days"));
    let no_hosts = vec![(ReplicaId(1), Vec::new())];
    assert!(refused(CertsOptions { replicas: no_hosts, ..good.clone() }).contains("ID=HOST"));
    let path = vec![Principal::parse("../x").unwrap()];
    assert!(refused(CertsOptions { clients: path, ..good.clone() }).contains("letters"));
    for host in ["r1.example:7101", "two words", "[::1]", ""] {
        let replicas = vec![(ReplicaId(1), vec![host.to_owned()])];
        assert!(refused(CertsOptions { replicas, ..good.clone() }).contains("is no host"), "{host}");
    }
    // Its certificate would be written over the key of another client.
    let key = vec![Principal::parse("worker-key").unwrap()];
    assert!(refused(CertsOptions { clients: key, ..good.clone() }).contains("client-worker-key.pem"));
    let twice = [good.clients.clone(), good.clients.clone()].concat();
    assert!(
        refused(CertsOptions { clients: twice, ..good.clone() }).contains("client worker@eu is given twice")
    );
    assert!(!good.dir.exists(), "nothing is made then");
    make(&good).unwrap();
    fs::remove_file(good.dir.join("ca-key.pem")).unwrap();
    assert!(refused(CertsOptions { force: true, ..good }).contains("no key beside it"));
}

#[test]
fn a_ca_that_nobody_would_believe_signs_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (good, other) = (options(dir.path()), tempfile::tempdir().unwrap());
    make(&good).unwrap();
    make(&options(other.path())).unwrap();
    let more = CertsOptions {
        replicas: Vec::new(),
        clients: vec![Principal::parse("new").unwrap()],
        ..options(other.path())
    };
    fs::copy(ca_file(&good.dir), ca_file(&more.dir)).unwrap();
    assert!(make(&more).unwrap_err().to_string().contains("does not fit ca.pem"));

    let expired = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.not_after = rcgen::date_time_ymd(2001, 2, 3);
    for (is_ca, words) in [(IsCa::NoCa, "no CA's certificate"), (params.is_ca, "and not now")] {
        params.is_ca = is_ca;
        fs::write(ca_file(&more.dir), params.self_signed(&expired).unwrap().pem()).unwrap();
        fs::write(more.dir.join("ca-key.pem"), expired.serialize_pem()).unwrap();
        let why = make(&more).unwrap_err().to_string();
        assert!(why.contains(words), "{why}");
    }
}
