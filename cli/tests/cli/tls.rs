//! TLS: whose certificate is wrong, and how, in one line.

use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_proto::peer::v1::FoundingMember;
use holdfast_server::certs::{self, CertsOptions};
use holdfast_server::config::{ClientCertificates, Config, TlsConfig};
use holdfast_server::{Listeners, Server};
use holdfast_types::{Principal, ReplicaId};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use serde_json::json;
use slog::{Discard, Logger, o};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::harness::{Ran, Running, TestCell, holdfast};

/// A name that the replica's certificate is for, too, and where nobody looks it up.
const ALIAS: &str = "cell.example";

/// A cell of one replica that talks TLS, and wants certificates of its clients.
struct TlsCell {
    runtime: Runtime,
    /// Taken by `drop`.
    server: Option<Server>,
    address: String,
    /// The CA's and everybody's certificates and keys.
    certs: TempDir,
    _data: TempDir,
}

impl TlsCell {
    fn start() -> Self {
        let (certs, data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make_certs(certs.path());
        let listeners = Listeners::bind("127.0.0.1:0", "127.0.0.1:0").unwrap();
        let (peer, client) = listeners.addresses().unwrap();
        let member =
            FoundingMember { id: 1, peer_address: peer.to_string(), client_address: client.to_string() };
        let mut config = Config::new("dev", ReplicaId(1), data.path().join("replica"), vec![member]);
        let (certificate, key) = certs::replica_files(certs.path(), ReplicaId(1));
        let ca = certs::ca_file(certs.path());
        let client_certificates = ClientCertificates::Required;
        config.tls = Some(TlsConfig { certificate, key, ca, client_certificates });
        config.settings.bootstrap_principal = "admin".to_owned();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let logger = Logger::root(Discard, o!());
        let server = runtime.block_on(async {
            let mut server = Server::start_on(listeners, config, logger).await.unwrap();
            server.master().await.unwrap();
            server
        });
        Self { runtime, server: Some(server), address: client.to_string(), certs, _data: data }
    }

    /// The program, as somebody whose certificate is in `certs`.
    fn holdfast(&self, who: &str, arguments: &[&str]) -> Command {
        let (cert, key) = certs::client_files(self.certs.path(), &Principal::parse(who).unwrap());
        let mut command = holdfast(arguments);
        command
            .env("HOLDFAST_ADDRESSES", &self.address)
            .env("HOLDFAST_CA", certs::ca_file(self.certs.path()));
        command.env("HOLDFAST_CERT", cert).env("HOLDFAST_KEY", key);
        command
    }

    fn run(&self, who: &str, arguments: &[&str]) -> Ran {
        Ran::of(self.holdfast(who, arguments).output().unwrap())
    }
}

impl Drop for TlsCell {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // A test that fails already is not to fail twice.
            let _ = self.runtime.block_on(server.stop());
        }
    }
}

fn make_certs(dir: &Path) {
    let clients = ["admin", "alice", "bob"].map(|name| Principal::parse(name).unwrap());
    let made = certs::make(&CertsOptions {
        dir: dir.to_owned(),
        cell: "dev".to_owned(),
        replicas: vec![(ReplicaId(1), vec!["127.0.0.1".to_owned(), ALIAS.to_owned()])],
        clients: clients.to_vec(),
        days: 2,
        force: false,
    });
    made.unwrap();
}

/// Puts a certificate of the CA in `dir` beside the others that was valid for a day, years ago.
fn make_expired(dir: &Path, who: &str) {
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    let ca_key = KeyPair::from_pem(&read("ca-key.pem")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), ca_key).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, who);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 1, 2);
    let key = KeyPair::generate().unwrap();
    let (cert_file, key_file) = certs::client_files(dir, &Principal::parse(who).unwrap());
    std::fs::write(cert_file, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(key_file, key.serialize_pem()).unwrap();
}

/// A certificate that nobody but itself has signed, and its key, as files.
struct SelfSigned {
    dir: TempDir,
}

impl SelfSigned {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.path().join("cert.pem"), signed.cert.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), signed.signing_key.serialize_pem()).unwrap();
        std::fs::write(dir.path().join("empty.pem"), "").unwrap();
        Self { dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_is_wrong_with_ones_own_files_is_told_and_nothing_is_sent() {
    let (one, other) = (SelfSigned::new(), SelfSigned::new());
    let (cert, key, other_key) = (one.file("cert.pem"), one.file("key.pem"), other.file("key.pem"));
    let (cert, key, other_key) = (text(&cert), text(&key), text(&other_key));
    let empty = one.file("empty.pem");
    let empty = text(&empty);
    for (arguments, said) in [
        (&["--ca", "/no/such/ca.pem"][..], "the CA certificate cannot be read from /no/such/ca.pem"),
        (&["--ca", empty], "no PEM certificate"),
        (&["--ca", cert, "--cert", "/no/such.pem", "--key", key], "the client certificate cannot be read"),
        (&["--ca", cert, "--cert", cert, "--key", "/no/such.key"], "the client key cannot be read"),
        (&["--ca", cert, "--cert", empty, "--key", key], "the client certificate"),
        (&["--ca", cert, "--cert", cert, "--key", cert], "no PEM private key"),
        (&["--ca", cert, "--cert", cert, "--key", other_key], "the client key"),
        (&["--ca", cert, "--cert", cert], "add --key (HOLDFAST_KEY)"),
        (&["--ca", cert, "--key", key], "add --cert (HOLDFAST_CERT)"),
        (&["--cert", cert, "--key", key], "add --ca (HOLDFAST_CA)"),
        (&["--server-name", "localhost"], "add --ca (HOLDFAST_CA)"),
        (&["--ca", cert, "--server-name", "no host"], "--server-name"),
        (&["--addresses", "https://127.0.0.1:1"], "no TLS is configured"),
        (&["--ca", cert, "--addresses", "http://127.0.0.1:1"], "https://"),
    ] {
        let mut all = arguments.to_vec();
        all.push("ls");
        let ran = Ran::of(holdfast(&all).output().unwrap());
        // What the files have is no fault of the command line.
        let of_a_file =
            said.starts_with("the client") || said.starts_with("the CA") || said.starts_with("no PEM");
        ran.assert_failed(if of_a_file { 1 } else { 2 }, said);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    }
}

#[test]
fn the_environment_says_it_as_well_as_options_do() {
    let ran = holdfast(&["ls"]).env("HOLDFAST_CA", "/no/such/ca.pem").output().unwrap();
    Ran::of(ran).assert_failed(1, "/no/such/ca.pem");
    let ran = holdfast(&["ls"]).env("HOLDFAST_KEY", "/no/such.key").output().unwrap();
    Ran::of(ran).assert_failed(2, "add --cert (HOLDFAST_CERT)");
}

#[test]
fn a_cell_that_talks_plain_text_is_told_apart_from_one_that_is_not_there() {
    let cell = TestCell::start();
    let signed = SelfSigned::new();
    let ca = signed.file("cert.pem");
    let tls = ["--ca", text(&ca), "--timeout", "1"];
    // What changes something, too: nothing was sent, so nothing is unknown.
    for arguments in [&["ls"][..], &["status"], &["put", "/f", "x"], &["watch", "/"]] {
        cell.run(&[&tls, arguments].concat()).assert_failed(5, "the replica speaks plain text");
    }
    cell.run(&[&tls[..], &["lock", "/l", "--", "true"]].concat()).assert_failed(115, "plain text");
    let ran = cell.run(&[&["--json"], &tls[..], &["ls"]].concat());
    let document: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(document["error"]["kind"], "unreachable");
    cell.run(&["cat", "/f"]).assert_failed(3, "/f");
}

#[test]
fn a_certificate_says_who_one_is_and_the_lists_what_one_may_do() {
    let cell = TlsCell::start();
    let status = cell.run("alice", &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["principal"], "alice");
    assert!(cell.run("bob", &["status"]).text().contains("\nyou       bob\n"));
    cell.run("admin", &["put", "/acl/team", "alice\n"]).assert_done();
    cell.run("admin", &["put", "/f", "1"]).assert_done();
    cell.run("admin", &["acl", "set", "/f", "--write", "team"]).assert_done();
    cell.run("alice", &["put", "/f", "2"]).assert_done();
    cell.run("bob", &["put", "/f", "3"]).assert_failed(8, "bob may not write /f");
    cell.run("alice", &["acl", "set", "/f", "--write", "*"]).assert_failed(8, "alice");
    cell.run("alice", &["settings", "nodes_max=9"]).assert_failed(8, "alice");
    // Sessions have principals as well.
    let watch = Running::start(cell.holdfast("bob", &["watch", "/f", "--initial"]));
    let sessions = cell.run("admin", &["session", "ls", "--json"]);
    let sessions: serde_json::Value = serde_json::from_slice(&sessions.stdout).unwrap();
    assert_eq!(sessions["sessions"][0]["principal"], json!("bob"));
    cell.run("alice", &["lock", "/f", "--", "true"]).assert_done();
    assert!(watch.line().starts_with("lock "));
    cell.run("bob", &["lock", "/f", "--", "true"]).assert_failed(119, "bob may not write /f");
}

#[test]
fn certificates_that_are_not_trusted_are_told_with_whose_they_are_and_why() {
    let cell = TlsCell::start();
    let own = |file: &str| cell.certs.path().join(file).to_str().unwrap().to_owned();
    let ca = own("ca.pem");
    let (alice, alice_key) = (own("client-alice.pem"), own("client-alice-key.pem"));
    make_expired(cell.certs.path(), "late");
    let (late, late_key) = (own("client-late.pem"), own("client-late-key.pem"));
    let strangers = tempfile::tempdir().unwrap();
    make_certs(strangers.path());
    let other = |file: &str| strangers.path().join(file).to_str().unwrap().to_owned();
    let (other_ca, bob, bob_key) = (other("ca.pem"), other("client-bob.pem"), other("client-bob-key.pem"));
    // Another replica is down, and the command names the certificate all the same, long before its time-out is over.
    let down = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let addresses = [format!("{},{down}", cell.address), format!("{down},{}", cell.address)];
    for (options, said) in [
        (&["--ca", &ca][..], "configured here; 127.0.0.1"),
        (&["--ca", &ca], "--cert and --key"),
        (&["--ca", &ca, "--cert", &bob, "--key", &bob_key], "rejected this client's certificate"),
        (&["--ca", &ca, "--cert", &late, "--key", &late_key], "it has expired"),
        (
            &["--ca", &other_ca, "--cert", &alice, "--key", &alice_key],
            "signed by a CA that is not trusted here",
        ),
        (
            &["--ca", &ca, "--cert", &alice, "--key", &alice_key, "--server-name", "elsewhere"],
            "\"elsewhere\"",
        ),
        (&[], "TLS"),
    ] {
        // One that needs no session, and may not be sent twice; and one that needs a session.
        let commands =
            [(&["put", "/f", "x"][..], 5), (&["lock", "/l", "--", "true"], 115), (&["watch", "/"], 5)];
        for ((command, status), addresses) in commands.into_iter().zip(addresses.iter().cycle()) {
            let all = [&["--addresses", addresses, "--timeout", "60"], options, command].concat();
            let ran = Ran::of(holdfast(&all).output().unwrap());
            ran.assert_failed(status, said);
            assert!(!ran.stderr.contains("within 60s"), "{}", ran.stderr);
            assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        }
    }
    cell.run("alice", &["cat", "/f"]).assert_failed(3, "/f");
}

#[test]
fn the_name_that_a_certificate_must_be_for_can_be_given() {
    let cell = TlsCell::start();
    cell.run("alice", &["--server-name", ALIAS, "ls"]).assert_done();
    let address = format!("https://{}", cell.address);
    cell.run("alice", &["--addresses", &address, "ls"]).assert_done();
}
