//! The program itself: what it says, and how it exits.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use holdfast_proto::client::v1::admin_client::AdminClient;
use holdfast_proto::client::v1::cell_client::CellClient;
use holdfast_proto::client::v1::{ChangeSettingsRequest, Settings, StatusRequest};
use holdfast_server::certs::{self, CertsOptions};
use holdfast_types::ReplicaId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn holdfastd() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastd"));
    // Whoever runs the tests may have some of these set.
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("HOLDFAST_") {
            command.env_remove(variable);
        }
    }
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A replica that is alone in its cell, and so needs nobody.
fn run_alone(dir: &tempfile::TempDir, peer: &str, client: &str) -> Command {
    let mut command = holdfastd();
    command.args(["run", "--cell", "dev", "--replica", "1", "--members", &format!("1={peer}/{client}")]);
    command.args(["--peer-listen", peer, "--client-listen", client]);
    command.arg("--data-dir").arg(dir.path().join("data"));
    command
}

fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Sends a signal and waits for the end.
fn signalled(child: &mut Child, signal: Signal) -> ExitStatus {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    child.wait().unwrap()
}

#[test]
fn the_version_is_told() {
    let output = holdfastd().arg("--version").output().unwrap();
    assert!(output.status.success());
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        format!("holdfastd {}\n", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_wrong_configuration_exits_with_2_and_says_what_is_missing() {
    let output = holdfastd().args(["run", "--cell", "dev"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(stderr(&output).contains("--replica"), "{}", stderr(&output));
}

#[test]
fn a_port_in_use_exits_with_1_and_is_named() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = holder.local_addr().unwrap().to_string();
    let dir = tempfile::tempdir().unwrap();
    let output = run_alone(&dir, &free_address(), &taken).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).contains(&format!("{taken}, which `client_listen`")), "{}", stderr(&output));
}

#[tokio::test]
async fn a_replica_that_is_asked_to_stop_exits_with_0_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (peer, client) = (free_address(), free_address());
    for _ in 0..2 {
        let mut child = run_alone(&dir, &peer, &client).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("is the master") {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the log ended");
        }
        let mut stub = CellClient::connect(format!("http://{client}")).await.unwrap();
        let status = stub.status(StatusRequest::default()).await.unwrap().into_inner();
        assert_eq!(status.master, 1);
        assert_eq!(signalled(&mut child, Signal::SIGTERM).code(), Some(0));
    }
}

/// Reads a log until it says this.
fn wait_for(log: &mut impl BufRead, words: &str) {
    let mut line = String::new();
    while !line.contains(words) {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "the log ended without {words:?}");
    }
}

#[tokio::test]
async fn who_is_locked_out_gets_back_in_by_a_start_with_another_bootstrap_principal() {
    let dir = tempfile::tempdir().unwrap();
    let (peer, client) = (free_address(), free_address());
    let named = |name: &str| Some(Settings { bootstrap_principal: name.to_owned(), ..Settings::default() });
    let mut change = None;
    for flags in [&[][..], &["--override-bootstrap-principal", "anonymous"], &[]] {
        let mut child = run_alone(&dir, &peer, &client).args(flags).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        if !flags.is_empty() {
            wait_for(&mut log, "started with --override-bootstrap-principal");
            wait_for(&mut log, "the override of the bootstrap principal is in force");
        }
        // Without TLS everybody is anonymous, and so an administrator as long as the bootstrap principal is.
        let mut admin = loop {
            match AdminClient::connect(format!("http://{client}")).await {
                Ok(admin) => break admin,
                Err(_) => wait_for(&mut log, "is the master"),
            }
        };
        let mut say = async |settings, force| {
            admin
                .change_settings(ChangeSettingsRequest { settings, force })
                .await
                .map(|_| ())
                .map_err(|status| status.code())
        };
        match change.take() {
            None => {
                assert_eq!(say(named("typo"), true).await, Ok(()));
                assert!(say(named("anonymous"), true).await.is_err(), "nobody is let in any more");
                change = Some(());
            }
            Some(()) => {
                assert_eq!(say(named("anonymous"), false).await, Ok(()), "{flags:?}: back in, and for good");
                change = Some(());
            }
        }
        assert_eq!(signalled(&mut child, Signal::SIGTERM).code(), Some(0));
    }
}

#[test]
fn a_hangup_has_the_files_of_tls_read_again_and_ends_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let certs_dir = dir.path().join("certs");
    let replicas = vec![(ReplicaId(1), vec!["127.0.0.1".to_owned()])];
    let options = CertsOptions {
        dir: certs_dir.clone(),
        cell: "dev".into(),
        replicas,
        clients: Vec::new(),
        days: 30,
        force: false,
    };
    certs::make(&options).unwrap();
    let (certificate, key) = certs::replica_files(&certs_dir, ReplicaId(1));
    let mut command = run_alone(&dir, &free_address(), &free_address());
    command.arg("--tls-certificate").arg(certificate).arg("--tls-key").arg(key);
    let mut child = command.arg("--tls-ca").arg(certs::ca_file(&certs_dir)).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut wait_for = |words: &str| {
        let mut line = String::new();
        while !line.contains(words) {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "the log ended without {words:?}");
        }
    };
    wait_for("is the master");
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGHUP).unwrap();
    wait_for("new handshakes use the files of [tls] as they are now");
    assert_eq!(signalled(&mut child, Signal::SIGTERM).code(), Some(0));
}

#[test]
fn dev_says_what_to_type_next_and_stops_when_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = holdfastd().arg("dev").arg("--data-dir").arg(dir.path().join("cell")).spawn().unwrap();
    let mut said = String::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    while !said.contains("holdfast lock") {
        assert!(lines.read_line(&mut said).unwrap() > 0, "it said only {said}");
    }
    assert!(said.contains("export HOLDFAST_ADDRESSES=127.0.0.1:"), "{said}");
    assert_eq!(signalled(&mut child, Signal::SIGINT).code(), Some(0));
    assert!(dir.path().join("cell").join("replica-1").is_dir(), "given directories stay");
}
