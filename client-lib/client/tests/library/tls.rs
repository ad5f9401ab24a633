//! TLS: what works, and what each wrong certificate is called.

use crate::certificates::{Authority, Signed, Valid};
use crate::fake::{Replica, within};
use holdfast::{Cell, ConnectError, Error, Tls};
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

const HOST: &str = "127.0.0.1";

fn cell(replica: &Replica, tls: Tls) -> Cell {
    let builder = Cell::builder().addresses([&replica.address]).timeout(Duration::from_secs(5));
    builder.tls(tls).connect().unwrap()
}

/// What a client hears that asks for the status.
async fn complaint(cell: &Cell) -> String {
    match within(cell.status()).await.unwrap_err() {
        error @ Error::Unavailable { .. } => error.to_string(),
        other => panic!("{other:?}"),
    }
}

/// A replica with this certificate, that takes any client.
async fn open_to_all(signed: &Signed) -> Replica {
    Replica::start_tls(signed.server(None)).await
}

#[tokio::test]
async fn a_session_over_tls_with_certificates_on_both_sides() {
    let authority = Authority::new("cell");
    let config = authority.sign(HOST, Valid::Now).server(Some(&authority));
    let mut replica = Replica::start_tls(config).await;
    let client = authority.sign("worker-7", Valid::Now);
    let tls = Tls::new().ca(authority.pem.clone()).identity(client.certificate, client.key);
    let cell = cell(&replica, tls);
    within(cell.status()).await.unwrap();
    let open = tokio::spawn(cell.session().open());
    replica.accept().await.open(10_000).await;
    within(open).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_replica_with_a_wrong_certificate_is_refused_and_the_error_says_what_is_wrong_with_it() {
    let (authority, other) = (Authority::new("cell"), Authority::new("other"));
    let cases = [
        (other.sign(HOST, Valid::Now), "signed by a CA that is not trusted here"),
        (authority.sign(HOST, Valid::Before), "the replica's certificate has expired"),
        (authority.sign(HOST, Valid::Later), "the replica's certificate is not valid yet"),
        (authority.sign("db1.example", Valid::Now), "is for db1.example, and not for \"127.0.0.1\""),
    ];
    for (signed, expected) in cases {
        let replica = open_to_all(&signed).await;
        let complaint = complaint(&cell(&replica, Tls::new().ca(authority.pem.clone()))).await;
        assert!(complaint.contains(expected), "{expected}: {complaint}");
    }
}

#[tokio::test]
async fn the_name_that_a_certificate_must_be_for_can_be_set() {
    let authority = Authority::new("cell");
    let replica = open_to_all(&authority.sign("db1.example", Valid::Now)).await;
    let tls = Tls::new().ca(authority.pem.clone()).server_name("db1.example");
    within(cell(&replica, tls).status()).await.unwrap();
}

#[tokio::test]
async fn a_client_without_a_fitting_certificate_hears_what_is_wrong_with_its_own() {
    let (authority, other) = (Authority::new("cell"), Authority::new("other"));
    let config = authority.sign(HOST, Valid::Now).server(Some(&authority));
    let replica = Replica::start_tls(config).await;
    let tls = || Tls::new().ca(authority.pem.clone());
    let identity = |signed: Signed| tls().identity(signed.certificate, signed.key);
    let cases = [
        (tls(), "wants a client certificate, and none is configured here"),
        (
            identity(other.sign("worker-7", Valid::Now)),
            "rejected this client's certificate: it does not trust",
        ),
        (
            identity(authority.sign("worker-7", Valid::Before)),
            "rejected this client's certificate: it has expired",
        ),
    ];
    for (tls, expected) in cases {
        let complaint = complaint(&cell(&replica, tls)).await;
        assert!(complaint.contains(expected), "{expected}: {complaint}");
    }
}

/// A call is not tried for its whole time-out if all that is wrong are certificates.
#[tokio::test]
async fn a_call_that_certificates_bar_from_every_replica_fails_at_once() {
    let (authority, other) = (Authority::new("cell"), Authority::new("other"));
    let config = || authority.sign(HOST, Valid::Now).server(Some(&authority));
    let replicas = [Replica::start_tls(config()).await, Replica::start_tls(config()).await];
    let addresses = replicas.each_ref().map(|replica| &replica.address);
    let stranger = other.sign("worker-7", Valid::Now);
    let tls = || Tls::new().ca(authority.pem.clone());
    for tls in [Tls::new().ca(other.pem), tls(), tls().identity(stranger.certificate, stranger.key)] {
        let builder = Cell::builder().addresses(addresses).timeout(Duration::from_secs(3_600));
        let cell = builder.tls(tls).connect().unwrap();
        let read = within(cell.contents("/a")).await.unwrap_err();
        let written = within(cell.set_contents("/a", "b", Default::default())).await.unwrap_err();
        for error in [read, written] {
            assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
        }
    }
}

#[tokio::test]
async fn tls_to_a_plain_replica_and_plain_text_to_one_with_tls_are_told_apart() {
    let authority = Authority::new("cell");
    let plain = Replica::start().await;
    let complaint_of_tls = complaint(&cell(&plain, Tls::new().ca(authority.pem.clone()))).await;
    assert!(complaint_of_tls.contains("the replica speaks plain text"), "{complaint_of_tls}");

    let replica = open_to_all(&authority.sign(HOST, Valid::Now)).await;
    let complaint_of_plain = complaint(&Cell::connect([&replica.address]).unwrap()).await;
    assert!(complaint_of_plain.contains("or it speaks TLS, and none is configured"), "{complaint_of_plain}");
}

#[tokio::test]
async fn a_tls_alert_in_answer_to_plain_text_is_understood() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let replica = async {
        let (mut tcp, _) = listener.accept().await.unwrap();
        // As OpenSSL answers: a fatal alert, protocol_version.
        tcp.write_all(&[0x15, 3, 3, 0, 2, 2, 70]).await.unwrap();
        std::future::pending::<()>().await;
    };
    let cell = Cell::connect([address]).unwrap();
    tokio::select! {
        complaint = complaint(&cell) => {
            assert!(complaint.contains("the replica speaks TLS, and none is configured"), "{complaint}");
        }
        () = replica => {}
    }
}

#[tokio::test]
async fn the_scheme_of_an_address_must_go_with_the_configuration() {
    let tls = Tls::new().ca(Authority::new("cell").pem);
    let plain = Cell::builder().addresses(["http://127.0.0.1:1"]).tls(tls.clone()).connect();
    assert!(matches!(plain, Err(ConnectError::TlsRefused { .. })), "{plain:?}");
    assert!(Cell::builder().addresses(["https://127.0.0.1:1"]).tls(tls).connect().is_ok());
    let secure = Cell::connect(["https://127.0.0.1:1"]);
    assert!(matches!(secure, Err(ConnectError::TlsNeeded { .. })), "{secure:?}");
}

#[tokio::test]
async fn a_renewed_certificate_is_used_for_new_connections_without_a_restart() {
    let authority = Authority::new("cell");
    let config = authority.sign(HOST, Valid::Now).server(Some(&authority));
    let replica = Replica::start_tls(config).await;
    let dir = tempfile::tempdir().unwrap();
    let (certificate, key) = (dir.path().join("client.pem"), dir.path().join("client.key"));
    let write = |signed: Signed| {
        std::fs::write(&certificate, signed.certificate).unwrap();
        std::fs::write(&key, signed.key).unwrap();
    };
    write(authority.sign("worker-7", Valid::Before));
    let cell = cell(&replica, Tls::new().ca(authority.pem.clone()).identity_files(&certificate, &key));
    let before = complaint(&cell).await;
    assert!(before.contains("it has expired"), "{before}");
    write(authority.sign("worker-7", Valid::Now));
    within(cell.status()).await.unwrap();
}
