//! Who may have the state hashed.

use std::path::Path;

use holdfast_proto::client::v1::StatusRequest;
use holdfast_proto::client::v1::cell_client::CellClient;
use holdfast_server::config::ClientCertificates;
use tonic::Code;

use super::client::channel;
use super::{Certs, alone};

#[tokio::test]
async fn only_who_administers_the_cell_has_its_state_hashed() {
    let dir = tempfile::tempdir().unwrap();
    let certs = Certs::make(&dir.path().join("certs"));
    let server = alone(dir.path(), &certs, ClientCertificates::Optional).await;
    let address = server.client_address().to_string();
    let ask = async |own: Option<(&Path, &Path)>| {
        let channel = channel(&address, &certs.ca(), own).await.unwrap();
        CellClient::new(channel).status(StatusRequest { state_hash: true }).await
    };
    let (certificate, key) = certs.sign("worker", "", |_| {});
    let refused = ask(Some((&certificate, &key))).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    assert!(refused.message().contains("worker may not administer the cell"), "{refused}");
    // As nobody else was named, it is whoever has no certificate.
    assert!(ask(None).await.unwrap().into_inner().state_hash.is_some());
    server.stop().await.unwrap();
}
