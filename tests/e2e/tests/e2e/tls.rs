//! Cells that talk TLS: who shows which certificate is let in as whom, or told why not.

use std::process::{Command, Output};
use std::time::Duration;

use holdfast::{Cell, Mode, OpenOptions, Tls, WriteOptions};
use holdfast_e2e::{Certs, Cluster, eventually, within};

use crate::PROGRAMS;

/// How long a client looks for a replica that takes its certificate, where there is none.
const PATIENCE: Duration = Duration::from_secs(4);

/// Nobody can use the cell with these certificates, and the reason is told in these words, with a session and without.
async fn refused(cluster: &Cluster, tls: &Tls, why: &str) {
    let addresses = cluster.cell().addresses();
    let cell = Cell::builder().addresses(addresses).tls(tls.clone()).timeout(PATIENCE).connect().unwrap();
    let (read, opened) = tokio::join!(cell.contents("/file"), cell.session().grace(PATIENCE).open());
    for error in [read.unwrap_err().to_string(), opened.unwrap_err().to_string()] {
        assert!(error.contains(why), "{why:?} in {error:?}");
    }
}

#[tokio::test]
async fn a_client_is_let_in_as_who_it_is_or_told_what_is_wrong_with_its_certificate() {
    let certs = Certs::make(PROGRAMS, &["admin", "alice"]);
    let stranger = Certs::make(PROGRAMS, &["admin"]);
    let cluster = Cluster::start_tls(PROGRAMS, &certs).await;
    let admin = cluster.cell();
    admin.set_contents("/file", "text", WriteOptions::new().create()).await.unwrap();

    let alice = certs.cell(&cluster, &certs.tls("alice")).unwrap();
    assert_eq!(alice.status().await.unwrap().principal, "alice");
    let session = alice.session().open().await.unwrap();
    let file = session.open("/file", OpenOptions::new()).await.unwrap();
    assert_eq!(file.contents().await.unwrap().bytes, "text");
    file.acquire(Mode::Exclusive).await.unwrap().release().await.unwrap();

    let foreign = stranger.shows(certs.nobody(), "client-admin");
    let (distrusts, expired, nobody) = (stranger.tls("admin"), certs.expired(), certs.nobody());
    let elsewhere = certs.tls("alice").server_name("elsewhere.example");
    tokio::join!(
        refused(&cluster, &distrusts, "a CA that is not trusted here"),
        refused(&cluster, &foreign, "does not trust the CA that signed it"),
        refused(&cluster, &expired, "it has expired"),
        refused(&cluster, &nobody, "wants a client certificate"),
        refused(&cluster, &elsewhere, "is for 127.0.0.1, and not for"),
    );
    let plain = Cell::connect(admin.addresses()).unwrap();
    let error = plain.status().await.unwrap_err().to_string();
    assert!(error.contains("TLS"), "{error}");
    assert_eq!(file.contents().await.unwrap().bytes, "text", "who was in is not disturbed");
}

#[tokio::test]
async fn a_session_lives_through_a_fail_over_with_tls() {
    let certs = Certs::make(PROGRAMS, &["admin", "alice"]);
    let mut cluster = Cluster::start_tls(PROGRAMS, &certs).await;
    let session = certs.cell(&cluster, &certs.tls("alice")).unwrap().session().open().await.unwrap();
    let file = session.open("/file", OpenOptions::new().create()).await.unwrap();
    let lock = file.acquire(Mode::Exclusive).await.unwrap();
    let master = cluster.master().await;
    cluster[master].kill().await;
    within("another master takes the write", file.set_contents("text")).await.unwrap();
    assert!(lock.is_held());
    cluster[master].start();
    cluster.caught_up(master).await;
}

#[tokio::test]
async fn a_replica_with_a_certificate_that_is_not_its_own_is_no_peer() {
    let certs = Certs::make(PROGRAMS, &["admin"]);
    let other = Certs::of_cell(PROGRAMS, "other", &["admin"]);
    let mut cluster = Cluster::start_tls(PROGRAMS, &certs).await;
    let cell = cluster.cell();
    let away = cluster.follower().await;
    cluster[away].kill().await;
    for name in ["client-admin".to_owned(), format!("replica-{}", away % 3 + 1)] {
        certs.configure_as(&mut cluster[away], &name);
        cluster[away].start();
        let status = cluster[away].end().await;
        assert!(!status.success());
        let words = cluster[away].last_words();
        assert!(words.contains(&format!("holdfast://e2e/replica/{away}")), "{name}: {words}");
    }

    // A replica of another cell, with certificates of its own, that takes ours for its peers.
    let mut stranger = cluster.describe(4);
    stranger.set("cell", "other");
    stranger.set("replica", away.to_string());
    let members = (1..=3).map(|id| {
        let replica = if id == away { &stranger } else { &cluster[id] };
        format!("{id}={}/{}", replica.peer_address(), replica.client_address())
    });
    stranger.set("members", members.collect::<Vec<_>>().join(","));
    other.configure_as(&mut stranger, &format!("replica-{away}"));
    stranger.start();
    eventually("the stranger is told that nobody trusts it", async || {
        stranger.log().contains("not signed by a CA that is trusted here").then_some(())
    })
    .await;
    // With a client's certificate one learns nothing there.
    let peers = (1..=3).filter(|id| *id != away).map(|id| cluster[id].peer_address().to_owned());
    let intruder = Cell::builder().addresses(peers).tls(certs.tls("admin")).connect().unwrap();
    assert!(intruder.status().await.is_err());
    assert!(intruder.contents("/file").await.is_err());

    cell.set_contents("/file", "all is well", WriteOptions::new().create()).await.unwrap();
    certs.configure(&mut cluster[away]);
    cluster[away].start();
    cluster.caught_up(away).await;
}

#[tokio::test]
async fn renewed_certificates_are_used_without_a_restart_and_those_in_use_are_not_disturbed() {
    let certs = Certs::make(PROGRAMS, &["admin"]);
    let mut cluster = Cluster::start_tls(PROGRAMS, &certs).await;
    let session = cluster.cell().session().open().await.unwrap();
    let file = session.open("/file", OpenOptions::new().create()).await.unwrap();

    // Anew for each look, so that it connects anew.
    let why_not = async || certs.cell(&cluster, &certs.tls("admin")).unwrap().status().await.err();
    assert!(why_not().await.is_none());
    certs.sign_replicas("elsewhere.example");
    let error = eventually("the replicas use their new certificates", why_not).await.to_string();
    assert!(error.contains("elsewhere.example"), "{error}");
    within("the session goes on", file.set_contents("text")).await.unwrap();
    // What cannot be used is not.
    for id in 1..=3 {
        std::fs::write(certs.file(&format!("replica-{id}.pem")), "no certificate").unwrap();
    }
    for id in 1..=3 {
        eventually("the replica says what is wrong", async || {
            cluster[id].log().contains("no certificate").then_some(())
        })
        .await;
    }
    assert!(why_not().await.unwrap().to_string().contains("elsewhere.example"), "the last that could be");
    certs.sign_replicas("127.0.0.1");
    eventually("the replicas use what is right again", async || why_not().await.is_none().then_some(()))
        .await;
    file.set_contents("more text").await.unwrap();
    assert!(cluster.replicas_mut().all(|replica| replica.is_running()));
}

/// Runs the command line against the cluster, with the certificate of `client`.
fn holdfast(certs: &Certs, cluster: &Cluster, client: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAMS.holdfast);
    command.args(arguments).env("HOLDFAST_ADDRESSES", cluster.cell().addresses().join(","));
    command.env("HOLDFAST_CA", certs.file("ca.pem"));
    if !client.is_empty() {
        command.env("HOLDFAST_CERT", certs.file(&format!("client-{client}.pem")));
        command.env("HOLDFAST_KEY", certs.file(&format!("client-{client}-key.pem")));
    }
    command.output().unwrap()
}

#[tokio::test]
async fn the_command_line_talks_tls_as_who_it_is_told_to_be() {
    let certs = Certs::make(PROGRAMS, &["admin", "alice"]);
    let cluster = Cluster::start_tls(PROGRAMS, &certs).await;
    let done = |client, arguments: &[&str]| {
        let output = holdfast(&certs, &cluster, client, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let failed = |client, arguments: &[&str]| {
        let output = holdfast(&certs, &cluster, client, arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    done("alice", &["put", "/file", "text"]);
    assert_eq!(done("admin", &["cat", "/file"]), "text");
    done("admin", &["acl", "set", "/file", "--write", "admin"]);
    let denied = failed("alice", &["put", "/file", "other"]);
    assert!(denied.contains("alice"), "{denied}");
    assert_eq!(done("alice", &["cat", "/file"]), "text");
    failed("alice", &["session", "ls"]);
    assert!(done("admin", &["session", "ls"]).len() > 1);
    let nobody = failed("", &["--timeout", "1", "cat", "/file"]);
    assert!(nobody.contains("client certificate"), "{nobody}");
}
