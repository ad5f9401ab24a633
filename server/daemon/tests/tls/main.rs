//! Cells with TLS: who gets in, who does not, and what each is told.

mod client;
mod state_hash;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::{causes, channel};
use holdfast_proto::client::v1::cell_client::CellClient;
use holdfast_proto::client::v1::{SetContentsRequest, StatusRequest};
use holdfast_proto::peer::v1::peer_client::PeerClient;
use holdfast_proto::peer::v1::{FoundingMember, HelloRequest, Identity};
use holdfast_server::certs::{self, CertsOptions};
use holdfast_server::config::{ClientCertificates, Config, TlsConfig};
use holdfast_server::dev::{DevCell, DevOptions};
use holdfast_server::{Listeners, Server};
use holdfast_types::{Principal, ReplicaId};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SanType};
use slog::{Discard, Drain, Logger, OwnedKVList, Record, o};
use tonic::{Code, Status};

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);
const ANY_PORT: &str = "127.0.0.1:0";

fn quiet() -> Logger {
    Logger::root(Discard, o!())
}

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    async fn wait_for(&self, words: &str) {
        let waiting = async {
            while !self.0.lock().unwrap().iter().any(|line| line.contains(words)) {
                tokio::task::yield_now().await;
            }
        };
        let came = tokio::time::timeout(LIMIT, waiting).await;
        came.unwrap_or_else(|_| panic!("{words:?} in {:#?}", self.0.lock().unwrap()));
    }
}

impl Drain for Lines {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
        self.0.lock().unwrap().push(record.msg().to_string());
        Ok(())
    }
}

/// A directory with a CA of the cell `dev`, the certificates of three replicas and of the client `worker`.
struct Certs(PathBuf);

impl Certs {
    fn make(dir: &Path) -> Self {
        let hosts = vec!["127.0.0.1".to_owned()];
        let options = CertsOptions {
            dir: dir.to_owned(),
            cell: "dev".into(),
            replicas: (1..=3).map(|id| (ReplicaId(id), hosts.clone())).collect(),
            clients: vec![Principal::parse("worker").unwrap()],
            days: 2,
            force: false,
        };
        certs::make(&options).unwrap();
        Self(dir.to_owned())
    }

    fn ca(&self) -> PathBuf {
        certs::ca_file(&self.0)
    }

    /// A certificate of the common name `name` and the URI `uri`, changed by `change`, and its key.
    fn sign(&self, name: &str, uri: &str, change: impl FnOnce(&mut CertificateParams)) -> (PathBuf, PathBuf) {
        let read = |name: &str| fs::read_to_string(self.0.join(name)).unwrap();
        let ca = KeyPair::from_pem(&read("ca-key.pem")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), ca).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if !uri.is_empty() {
            params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
        }
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let files = (self.0.join("signed.pem"), self.0.join("signed-key.pem"));
        fs::write(&files.0, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    fn tls(&self, id: u64, client_certificates: ClientCertificates) -> TlsConfig {
        let (certificate, key) = certs::replica_files(&self.0, ReplicaId(id));
        TlsConfig { certificate, key, ca: self.ca(), client_certificates }
    }

    async fn status(&self, address: &str, own: Option<(&Path, &Path)>) -> Result<String, String> {
        status(channel(address, &self.ca(), own).await?).await
    }
}

/// Who the replica says that the caller is; or why it does not.
async fn status(channel: tonic::transport::Channel) -> Result<String, String> {
    let answer = CellClient::new(channel).status(StatusRequest::default()).await;
    answer.map(|answer| answer.into_inner().principal).map_err(|status| causes(&status))
}

fn expire(params: &mut CertificateParams) {
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
}

/// Founding replicas that are configured and not started.
fn founders(count: u64, dir: &Path) -> Vec<(Listeners, Config)> {
    let bound: Vec<_> = (1..=count).map(|id| (id, Listeners::bind(ANY_PORT, ANY_PORT).unwrap())).collect();
    let member = |(id, listeners): &(u64, Listeners)| {
        let (peer, client) = listeners.addresses().unwrap();
        FoundingMember { id: *id, peer_address: peer.to_string(), client_address: client.to_string() }
    };
    let members: Vec<_> = bound.iter().map(member).collect();
    let config = |id: u64| Config::new("dev", ReplicaId(id), dir.join(id.to_string()), members.clone());
    bound.into_iter().map(|(id, listeners)| (listeners, config(id))).collect()
}

/// A cell of one replica with TLS.
async fn alone(dir: &Path, certs: &Certs, client_certificates: ClientCertificates) -> Server {
    let (listeners, mut config) = founders(1, dir).remove(0);
    config.tls = Some(certs.tls(1, client_certificates));
    let mut server = Server::start_on(listeners, config, quiet()).await.unwrap();
    assert!(server.master().await.is_some());
    server
}

#[tokio::test]
async fn a_client_is_whom_its_certificate_names_and_whoever_has_none_or_a_wrong_one_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::make(&dir.path().join("certs"));
    let server = alone(dir.path(), &certs, ClientCertificates::Required).await;
    let address = server.client_address().to_string();
    let (certificate, key) = certs::client_files(&certs.0, &Principal::parse("worker").unwrap());
    assert_eq!(certs.status(&address, Some((&certificate, &key))).await.unwrap(), "worker");

    let missing = certs.status(&address, None).await.unwrap_err();
    assert!(missing.contains("CertificateRequired"), "{missing}");
    let expired = certs.sign("worker", "", expire);
    let expired = certs.status(&address, Some((&expired.0, &expired.1))).await.unwrap_err();
    assert!(expired.contains("CertificateExpired"), "{expired}");
    let unnamed = certs.sign("Jane Doe", "", |_| {});
    let unnamed = certs.status(&address, Some((&unnamed.0, &unnamed.1))).await.unwrap_err();
    assert!(unnamed.contains("Jane Doe") && unnamed.contains("space"), "{unnamed}");

    let foreign = Certs::make(&dir.path().join("foreign"));
    let distrusted = foreign.status(&address, Some((&certificate, &key))).await.unwrap_err();
    assert!(distrusted.contains("UnknownIssuer"), "the replica is not trusted: {distrusted}");
    let (certificate, key) = certs::client_files(&foreign.0, &Principal::parse("worker").unwrap());
    let unknown = certs.status(&address, Some((&certificate, &key))).await.unwrap_err();
    assert!(unknown.contains("UnknownCA"), "the client is not trusted: {unknown}");

    let plain = match CellClient::connect(format!("http://{address}")).await {
        Ok(mut stub) => causes(&stub.status(StatusRequest::default()).await.unwrap_err()),
        Err(error) => causes(&error),
    };
    assert!(plain.contains("this replica speaks TLS only"), "{plain}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn where_certificates_are_optional_whoever_has_none_is_anonymous() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::make(&dir.path().join("certs"));
    let server = alone(dir.path(), &certs, ClientCertificates::Optional).await;
    let address = server.client_address().to_string();
    assert_eq!(certs.status(&address, None).await.unwrap(), "anonymous");
    let (certificate, key) = certs::client_files(&certs.0, &Principal::parse("worker").unwrap());
    assert_eq!(certs.status(&address, Some((&certificate, &key))).await.unwrap(), "worker");
    // Replicas still need one.
    let peer = server.peer_address().to_string();
    let refused = hello(&certs, &peer, None).await.unwrap_err();
    assert!(refused.contains("CertificateRequired"), "{refused}");
    server.stop().await.unwrap();
}

/// Says hello as replica 2 of the cell `dev`, with this certificate.
async fn hello(certs: &Certs, address: &str, own: Option<&(PathBuf, PathBuf)>) -> Result<(), String> {
    let own = own.map(|(certificate, key)| (certificate.as_path(), key.as_path()));
    let mut stub = PeerClient::new(channel(address, &certs.ca(), own).await?);
    let from = Identity { cell: "dev".into(), replica: 2, data_id: 22, ..Identity::default() };
    let hello = HelloRequest { from: Some(from), ..HelloRequest::default() };
    stub.hello(hello).await.map(drop).map_err(|status: Status| causes(&status))
}

#[tokio::test]
async fn only_the_certificate_of_the_very_replica_passes_for_a_peer() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::make(&dir.path().join("certs"));
    let server = alone(dir.path(), &certs, ClientCertificates::Required).await;
    let address = server.peer_address().to_string();
    hello(&certs, &address, Some(&certs::replica_files(&certs.0, ReplicaId(2)))).await.unwrap();

    let client = certs::client_files(&certs.0, &Principal::parse("worker").unwrap());
    let foreign = Certs::make(&dir.path().join("foreign"));
    let refused = async |own: Option<&(PathBuf, PathBuf)>, words: &str| {
        let why = hello(&certs, &address, own).await.unwrap_err();
        assert!(why.contains(words), "{words:?} in {why}");
    };
    refused(None, "CertificateRequired").await;
    refused(Some(&client), "no replica's certificate").await;
    refused(Some(&certs::replica_files(&certs.0, ReplicaId(3))), "that of replica 3").await;
    refused(Some(&certs::replica_files(&foreign.0, ReplicaId(2))), "UnknownCA").await;
    refused(Some(&certs.sign("x", "holdfast://prod/replica/2", |_| {})), "of the cell \\\"prod").await;
    refused(Some(&certs.sign("x", "holdfast://dev/replica/2", expire)), "CertificateExpired").await;
    server.stop().await.unwrap();
}

/// Starts two founders, changed by `change`, and gives what each logs.
async fn two_that_do_not_fit(dir: &Path, change: impl Fn(&mut Config)) -> [(Server, Lines); 2] {
    let mut started = Vec::new();
    for (listeners, mut config) in founders(2, dir) {
        change(&mut config);
        let lines = Lines::default();
        let server = Server::start_on(listeners, config, Logger::root(lines.clone(), o!())).await.unwrap();
        started.push((server, lines));
    }
    started.try_into().unwrap_or_else(|_| unreachable!("there are two"))
}

#[tokio::test]
async fn a_replica_with_tls_and_one_without_are_both_told() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::make(&dir.path().join("certs"));
    let with_tls = |config: &mut Config| {
        if config.replica == ReplicaId(1) {
            config.tls = Some(certs.tls(1, ClientCertificates::Required));
        }
    };
    let [(first, tls), (second, plain)] = two_that_do_not_fit(dir.path(), with_tls).await;
    tls.wait_for("replica 2 does not answer yet: it does not speak TLS").await;
    tls.wait_for("turned away a replica: it does not speak TLS").await;
    plain.wait_for("replica 1 does not answer yet: connection error received").await;
    plain.wait_for("this replica speaks TLS only").await;
    plain.wait_for("turned away a replica: it speaks TLS, and this replica runs without").await;
    plain.wait_for("THE CELL IS OPEN").await;
    for server in [first, second] {
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn replicas_of_two_cas_are_both_told() {
    let dir = tempfile::tempdir().unwrap();
    let certs = [1, 2].map(|number| Certs::make(&dir.path().join(format!("certs-{number}"))));
    let own_ca = |config: &mut Config| {
        let id = config.replica.0;
        config.tls = Some(certs[id as usize - 1].tls(id, ClientCertificates::Required));
    };
    let [(first, one), (second, other)] = two_that_do_not_fit(dir.path(), own_ca).await;
    for lines in [one, other] {
        lines
            .wait_for("does not answer yet: its certificate is not signed by a CA that is trusted here")
            .await;
        lines
            .wait_for(
                "turned away a replica: it does not trust the CA that has signed this end's certificate",
            )
            .await;
    }
    for server in [first, second] {
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_replica_talks_to_nobody_but_the_one_it_means() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::make(&dir.path().join("certs"));
    let (certificate, key) = certs.sign("x", "holdfast://prod/replica/2", |params| {
        params.distinguished_name.push(DnType::OrganizationName, "another cell");
    });
    let required = ClientCertificates::Required;
    let foreign = TlsConfig { certificate, key, ..certs.tls(2, required) };
    let others = [
        (
            "dev",
            3,
            certs.tls(3, required),
            "its certificate is that of replica 3, and it should be replica 2",
        ),
        ("prod", 2, foreign, "its certificate is that of replica 2 of the cell \"prod\""),
    ];
    for (cell, id, tls, words) in others {
        let dir = tempfile::tempdir().unwrap();
        let mut founders = founders(2, dir.path());
        let (there, config) = founders.pop().unwrap();
        let alone = FoundingMember { id, ..config.members[1].clone() };
        let stranger = Config::new(cell, ReplicaId(id), dir.path().join("stranger"), vec![alone]);
        let stranger = Server::start_on(there, Config { tls: Some(tls), ..stranger }, quiet()).await.unwrap();
        let (here, mut config) = founders.pop().unwrap();
        config.tls = Some(certs.tls(1, required));
        let lines = Lines::default();
        let server = Server::start_on(here, config, Logger::root(lines.clone(), o!())).await.unwrap();
        lines.wait_for(&format!("replica 2 does not answer yet: {words}")).await;
        server.stop().await.unwrap();
        stranger.stop().await.unwrap();
    }
}

#[tokio::test]
async fn new_files_are_taken_up_without_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::make(&dir.path().join("certs"));
    let server = alone(dir.path(), &certs, ClientCertificates::Required).await;
    let address = server.client_address().to_string();
    let worker = Principal::parse("worker").unwrap();
    let (certificate, key) = certs::client_files(&certs.0, &worker);
    let standing = channel(&address, &certs.ca(), Some((&certificate, &key))).await.unwrap();

    let renewed = Certs::make(&dir.path().join("renewed"));
    for entry in fs::read_dir(&renewed.0).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), certs.0.join(entry.file_name())).unwrap();
    }
    let taken_up = async {
        while certs.status(&address, Some((&certificate, &key))).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, taken_up).await.expect("the new CA and certificates are in use");
    assert_eq!(status(standing).await.unwrap(), "worker", "a connection that stands is not cut");
    server.stop().await.unwrap();
}

/// Writes by name at whichever replica is master.
async fn write(addresses: &[String], ca: &Path, own: (&Path, &Path)) {
    let request = SetContentsRequest { path: "/file".into(), create: true, ..Default::default() };
    let trying = async {
        for address in addresses.iter().cycle() {
            let channel = channel(address, ca, Some(own)).await.unwrap();
            match CellClient::new(channel).set_contents(request.clone()).await {
                Ok(_) => return,
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
            }
        }
    };
    tokio::time::timeout(LIMIT, trying).await.expect("a replica takes the write");
}

#[tokio::test]
async fn what_the_command_certs_makes_serves_a_cell_of_three() {
    let dir = tempfile::tempdir().unwrap();
    let certs_dir = dir.path().join("certs");
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastd"));
    command.args(["certs", "--cell", "dev", "--client", "worker", "--days", "2", "--dir"]).arg(&certs_dir);
    for id in 1..=3 {
        command.arg("--replica").arg(format!("{id}=127.0.0.1,localhost"));
    }
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}");
    for words in ["made the CA of cell dev", "made replica 3", "made client worker", "[tls]", "HOLDFAST_CA="]
    {
        assert!(said.contains(words), "{words:?} in {said}");
    }
    let again = command.output().unwrap();
    let said = String::from_utf8(again.stdout).unwrap();
    assert!(again.status.success() && said.contains("kept replica 3") && !said.contains("made "), "{said}");

    let certs = Certs(certs_dir);
    let mut servers = Vec::new();
    for (listeners, mut config) in founders(3, dir.path()) {
        config.tls = Some(certs.tls(config.replica.0, ClientCertificates::Required));
        servers.push(Server::start_on(listeners, config, quiet()).await.unwrap());
    }
    for server in &mut servers {
        assert!(server.master().await.is_some());
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.client_address().to_string()).collect();
    let (certificate, key) = certs::client_files(&certs.0, &Principal::parse("worker").unwrap());
    write(&addresses, &certs.ca(), (&certificate, &key)).await;
    for server in servers {
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn a_cell_for_development_makes_its_own_certificates() {
    let options = DevOptions { replicas: 1, tls: true, ..DevOptions::default() };
    let cell = DevCell::start(options, quiet()).await.unwrap();
    let (ca, certificate, key) = cell.client_files().expect("it has TLS");
    let channel = channel(&cell.addresses()[0], &ca, Some((&certificate, &key))).await.unwrap();
    assert_eq!(status(channel).await.unwrap(), "admin");
    cell.stop().await.unwrap();
}
