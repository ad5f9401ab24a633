//! Data directories of state version 1 (see the README beside this file): they are read, applied as version 1, and the
//! cell goes on to the present version.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use holdfast_proto::client::v1::admin_client::AdminClient;
use holdfast_proto::client::v1::cell_client::CellClient;
use holdfast_proto::client::v1::{
    DeleteRequest, GetContentsRequest, GetSettingsRequest, GetStatRequest, ListSessionsRequest,
    ListUsageRequest, SetContentsRequest, StatusRequest,
};
use holdfast_proto::peer::v1::FoundingMember;
use holdfast_server::Server;
use holdfast_server::config::Config;
use holdfast_types::ReplicaId;
use slog::{Discard, Logger, o};
use tonic::Code;
use tonic::transport::Channel;

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A copy of a data directory, with the empty files and directories that are not kept.
fn copied(name: &str, root: &Path) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/version_1").join(name);
    let to = root.join(name);
    for directory in ["", "log", "snapshots"] {
        fs::create_dir_all(to.join(directory)).unwrap();
        let Ok(entries) = fs::read_dir(from.join(directory)) else { continue };
        for entry in entries.map(Result::unwrap).filter(|entry| entry.file_type().unwrap().is_file()) {
            fs::copy(entry.path(), to.join(directory).join(entry.file_name())).unwrap();
        }
    }
    to
}

async fn start(data_dir: PathBuf) -> Server {
    let (peer_address, client_address) = ("127.0.0.1:17611".to_owned(), "127.0.0.1:17612".to_owned());
    let member = FoundingMember { id: 1, peer_address, client_address };
    let config = Config {
        peer_listen: "127.0.0.1:0".into(),
        client_listen: "127.0.0.1:0".into(),
        ..Config::new("old", ReplicaId(1), data_dir, vec![member])
    };
    let mut server = Server::start(config, Logger::root(Discard, o!())).await.unwrap();
    tokio::time::timeout(LIMIT, server.master()).await.expect("the replica elects itself");
    server
}

async fn contents(cell: &mut CellClient<Channel>, path: &str) -> String {
    let read = cell.get_contents(GetContentsRequest { path: path.into() }).await.unwrap().into_inner();
    String::from_utf8(read.contents.unwrap().contents.to_vec()).unwrap()
}

async fn put(cell: &mut CellClient<Channel>, path: &str) -> Result<(), tonic::Status> {
    let write =
        SetContentsRequest { path: path.into(), contents: "new".into(), create: true, ..Default::default() };
    cell.set_contents(write).await.map(drop)
}

/// Waits until the replica has applied the rise of the version.
async fn risen(cell: &mut CellClient<Channel>) {
    let rises = async {
        while cell.status(StatusRequest::default()).await.unwrap().into_inner().state_version < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, rises).await.expect("the cell goes on to version 2");
}

async fn check(name: &str) {
    let root = tempfile::tempdir().unwrap();
    let data_dir = copied(name, root.path());
    let server = start(data_dir.clone()).await;
    let address = format!("http://{}", server.client_address());
    let mut cell = CellClient::connect(address.clone()).await.unwrap();
    let mut admin = AdminClient::connect(address).await.unwrap();
    assert_eq!(contents(&mut cell, "/service/config").await, "port = 81\n");
    assert_eq!(contents(&mut cell, "/service/late").await, "after the snapshot");
    assert_eq!(contents(&mut cell, "/service/a\u{202e}b").await, "bidi");
    assert_eq!(contents(&mut cell, "/acl/hidden").await, "car\u{200b}ol\n");
    let denied = cell.get_stat(GetStatRequest { path: "/private".into() }).await.unwrap_err();
    assert_eq!(denied.code(), Code::PermissionDenied);
    let leader = cell.get_stat(GetStatRequest { path: "/service/leader".into() }).await.unwrap().into_inner();
    let lock = leader.stat.unwrap().lock.unwrap();
    assert_eq!((lock.holder_count, lock.waiting), (1, 1));
    let sessions = admin.list_sessions(ListSessionsRequest::default()).await.unwrap().into_inner();
    assert_eq!(sessions.sessions.len(), 2);

    risen(&mut cell).await;
    let settings = admin.get_settings(GetSettingsRequest {}).await.unwrap().into_inner().settings.unwrap();
    assert_eq!(
        (settings.sessions_max, settings.total_bytes_max, settings.reserve_percent),
        (1000, 1 << 30, 5)
    );
    let refused = put(&mut cell, "/service/c\u{202e}d").await.unwrap_err();
    assert!(refused.message().contains("U+202E"), "{refused}");
    put(&mut cell, "/service/cd").await.unwrap();
    cell.delete(DeleteRequest { path: "/service/a\u{202e}b".into(), ..DeleteRequest::default() })
        .await
        .unwrap();
    let usage = admin.list_usage(ListUsageRequest::default()).await.unwrap().into_inner();
    assert_eq!(usage.principals.len(), 1);
    assert_eq!((usage.principals[0].nodes, usage.principals[0].sessions), (1, 2));
    server.stop().await.unwrap();

    let server = start(data_dir).await;
    let mut cell = CellClient::connect(format!("http://{}", server.client_address())).await.unwrap();
    risen(&mut cell).await;
    assert_eq!(contents(&mut cell, "/service/cd").await, "new");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn a_data_directory_of_version_1_without_a_snapshot_is_read_and_rises_to_version_2() {
    check("log-only").await;
}

#[tokio::test]
async fn a_data_directory_of_version_1_with_a_snapshot_is_read_and_rises_to_version_2() {
    check("snapshot-and-log").await;
}
