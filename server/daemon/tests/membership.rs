//! Replicas that found a cell, that are not configured alike, that lose their data, and that are replaced.

mod support;

use std::path::Path;

use holdfast_proto::client::v1::admin_client::AdminClient;
use holdfast_proto::client::v1::{
    AddMemberRequest, PromoteMemberRequest, RemoveMemberRequest, Role, StatusRequest, StatusResponse,
};
use holdfast_proto::peer::v1::peer_server::{Peer, PeerServer};
use holdfast_proto::peer::v1::{
    FoundingMember, HelloRequest, HelloResponse, Identity, MessagesResponse, PeerFrame, SnapshotChunk,
    SnapshotResponse,
};
use holdfast_server::config::Config;
use holdfast_server::{FoundingError, Listeners, Server, ServerError};
use holdfast_types::ReplicaId;
use slog::{Discard, Logger, o};
use support::{LIMIT, stub};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

const ANY_PORT: &str = "127.0.0.1:0";

/// A founding replica that is configured and not started.
struct Founder {
    listeners: Listeners,
    config: Config,
}

impl Founder {
    async fn start(self) -> Result<Server, ServerError> {
        let logger = Logger::root(Discard, o!());
        Server::start_on(self.listeners, self.config, logger).await
    }
}

/// Binds the sockets of `count` replicas and configures them alike.
fn founders(count: u64, dir: &Path) -> Vec<Founder> {
    let bound: Vec<_> = (1..=count).map(|id| (id, Listeners::bind(ANY_PORT, ANY_PORT).unwrap())).collect();
    let members: Vec<_> = bound.iter().map(|(id, listeners)| member(*id, listeners)).collect();
    let founder = |(id, listeners)| {
        let config = Config::new("dev", ReplicaId(id), dir.join(id.to_string()), members.clone());
        Founder { listeners, config }
    };
    bound.into_iter().map(founder).collect()
}

fn member(id: u64, listeners: &Listeners) -> FoundingMember {
    let (peer, client) = listeners.addresses().unwrap();
    FoundingMember { id, peer_address: peer.to_string(), client_address: client.to_string() }
}

fn joiner(id: u64, dir: &TempDir) -> Founder {
    let listeners = Listeners::bind(ANY_PORT, ANY_PORT).unwrap();
    let members = vec![member(id, &listeners)];
    let config = Config::new("dev", ReplicaId(id), dir.path().join(id.to_string()), members);
    Founder { listeners, config: Config { members: Vec::new(), join: true, ..config } }
}

async fn cell_of_three(dir: &TempDir) -> Vec<Server> {
    let mut servers = Vec::new();
    for founder in founders(3, dir.path()) {
        servers.push(founder.start().await.unwrap());
    }
    for server in &mut servers {
        assert!(server.master().await.is_some());
    }
    servers
}

async fn status(server: &Server) -> Result<StatusResponse, Status> {
    let address = server.client_address().to_string();
    stub(&address).await.status(StatusRequest::default()).await.map(Response::into_inner)
}

/// Why the replica ended by itself.
async fn ended(server: &mut Server) -> ServerError {
    tokio::time::timeout(LIMIT, server.ended()).await.expect("it ends").unwrap_err()
}

/// Waits until `server` says of itself what `wanted` looks for.
async fn wait_for(server: &Server, what: &str, wanted: impl Fn(&StatusResponse) -> bool) {
    let waiting = async {
        loop {
            if status(server).await.is_ok_and(|status| wanted(&status)) {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.unwrap_or_else(|_| panic!("never came: {what}"));
}

/// Has the master do something, whoever that is.
async fn at_master<T>(
    servers: &[Server],
    act: impl AsyncFn(AdminClient<Channel>) -> Result<T, Status>,
) -> Result<T, Status> {
    let trying = async {
        for server in servers.iter().cycle() {
            let admin = AdminClient::connect(format!("http://{}", server.client_address())).await.unwrap();
            match act(admin).await {
                Err(status) if status.code() == Code::Unavailable => {}
                acted => return acted,
            }
        }
        unreachable!("servers go round")
    };
    tokio::time::timeout(LIMIT, trying).await.expect("there is a master")
}

async fn add(servers: &[Server], id: u64, [peer_address, client_address]: [&str; 2]) -> Result<(), Status> {
    let request =
        AddMemberRequest { id, peer_address: peer_address.into(), client_address: client_address.into() };
    at_master(servers, async |mut admin: AdminClient<Channel>| {
        admin.add_member(request.clone()).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_replica_tells_what_it_waits_for_until_all_founders_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut founders = founders(3, dir.path());
    let third = founders.pop().unwrap();
    let third_address = third.config.peer_advertise.clone();
    // The port is closed: who connects to it is refused, and need not wait.
    drop(third.listeners);
    let second = founders.pop().unwrap().start().await.unwrap();
    let mut first = founders.pop().unwrap().start().await.unwrap();
    let waiting = async {
        loop {
            let refused = status(&first).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unavailable);
            if refused.message().ends_with(&format!("waits for replica 3 ({third_address})")) {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, waiting).await.expect("only the third is missing");

    let listeners = Listeners::bind(&third_address, ANY_PORT).unwrap();
    let third = Founder { listeners, config: third.config }.start().await.unwrap();
    assert!(first.master().await.is_some());
    for server in [first, second, third] {
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn founders_that_are_configured_otherwise_are_told_what_differs() {
    let dir = tempfile::tempdir().unwrap();
    let mut founders = founders(2, dir.path());
    founders[1].config.settings.nodes_max = 5;
    let mut second = founders.pop().unwrap().start().await.unwrap();
    let mut first = founders.pop().unwrap().start().await.unwrap();
    // Whichever asks first finds out, and its end may keep the other one waiting.
    let (error, other) = tokio::select! {
        error = ended(&mut first) => (error, ReplicaId(2)),
        error = ended(&mut second) => (error, ReplicaId(1)),
    };
    assert!(
        matches!(&error, ServerError::Founding(FoundingError::Differs { other: it, .. }) if *it == other),
        "{error}"
    );
    assert!(error.to_string().contains("nodes_max: 5"), "{error}");
}

#[tokio::test]
async fn two_replicas_with_one_id_are_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut founders = founders(2, dir.path());
    let impostor = Founder {
        listeners: Listeners::bind(ANY_PORT, ANY_PORT).unwrap(),
        config: Config { data_dir: dir.path().join("impostor"), ..founders[0].config.clone() },
    };
    let first = founders.remove(0).start().await.unwrap();
    let mut impostor = impostor.start().await.unwrap();
    let error = ended(&mut impostor).await.to_string();
    assert!(error.contains("two replicas are configured as replica 1"), "{error}");
    first.stop().await.unwrap();
}

#[tokio::test]
async fn a_wiped_replica_refuses_to_run_and_its_replacement_takes_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut servers = cell_of_three(&dir).await;
    let wiped = servers.pop().unwrap();
    let (peer, client) = (wiped.peer_address().to_string(), wiped.client_address().to_string());
    wiped.stop().await.unwrap();
    std::fs::remove_dir_all(dir.path().join("3")).unwrap();
    let members: Vec<_> = [&servers[0], &servers[1]]
        .iter()
        .map(|server| {
            (server.replica().0, server.peer_address().to_string(), server.client_address().to_string())
        })
        .chain([(3, peer.clone(), client.clone())])
        .map(|(id, peer_address, client_address)| FoundingMember { id, peer_address, client_address })
        .collect();
    let again = Founder {
        listeners: Listeners::bind(&peer, &client).unwrap(),
        config: Config::new("dev", ReplicaId(3), dir.path().join("3"), members),
    };
    let error = ended(&mut again.start().await.unwrap()).await;
    assert!(error.is_final(), "{error}");
    assert!(error.to_string().contains("the data of replica 3 are gone"), "{error}");
    assert!(error.to_string().contains("--join"), "{error}");

    let replacement = joiner(4, &dir);
    let addresses = [replacement.config.peer_advertise.clone(), replacement.config.client_advertise.clone()];
    let replacement = replacement.start().await.unwrap();
    add(&servers, 4, addresses.each_ref().map(String::as_str)).await.unwrap();
    wait_for(&replacement, "a learner that has caught up", |status| {
        status.role() == Role::Learner && status.members.len() == 4
    })
    .await;
    let promote = PromoteMemberRequest { id: 4 };
    let promoted = async {
        // Refused until the master has heard how far it has come.
        while at_master(&servers, async |mut admin: AdminClient<Channel>| admin.promote_member(promote).await)
            .await
            .is_err()
        {}
    };
    tokio::time::timeout(LIMIT, promoted).await.expect("the replacement is promoted");
    let remove = RemoveMemberRequest { id: 3 };
    at_master(&servers, async |mut admin: AdminClient<Channel>| admin.remove_member(remove).await)
        .await
        .unwrap();
    wait_for(&replacement, "three members, itself among them", |status| {
        let ids: Vec<_> = status.members.iter().map(|member| member.id).collect();
        ids == [1, 2, 4] && status.role() != Role::Learner
    })
    .await;

    // With the replacement, two of three are a majority.
    servers.remove(0).stop().await.unwrap();
    wait_for(&replacement, "a master among the two", |status| matches!(status.master, 2 | 4)).await;
    servers.remove(0).stop().await.unwrap();
    replacement.stop().await.unwrap();
}

#[tokio::test]
async fn a_replica_that_is_removed_stops_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut servers = cell_of_three(&dir).await;
    let remove = RemoveMemberRequest { id: 3 };
    let accepted = async {
        // Refused until the master has heard from the other one, without which the cell would stop.
        while at_master(&servers, async |mut admin: AdminClient<Channel>| admin.remove_member(remove).await)
            .await
            .is_err()
        {}
    };
    // All three are asked: any of them may be master, the one that is removed too.
    tokio::time::timeout(LIMIT, accepted).await.expect("it is removed");
    let mut removed = servers.pop().unwrap();
    let error = ended(&mut removed).await;
    assert!(error.is_final(), "{error}");
    assert!(error.to_string().contains("removed from"), "{error}");
    for server in servers {
        server.stop().await.unwrap();
    }
}

#[tokio::test]
async fn an_addition_that_cannot_be_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let servers = cell_of_three(&dir).await;
    let foreign = founders(1, &dir.path().join("foreign")).remove(0).start().await.unwrap();
    let nobody = Listeners::bind(ANY_PORT, ANY_PORT).unwrap().addresses().unwrap().0.to_string();
    let member = servers[1].peer_address().to_string();
    for (id, address, words) in [
        (4, nobody.as_str(), "must be running"),
        (4, member.as_str(), "is replica 2, not replica 4"),
        (1, &foreign.peer_address().to_string(), "another cell of that name"),
        (4, "nonsense", "must be host:port"),
        (0, &member, "greater than 0"),
    ] {
        let refused = add(&servers, id, [address, "127.0.0.1:1"]).await.unwrap_err();
        assert!(refused.message().contains(words), "{}", refused.message());
    }
    foreign.stop().await.unwrap();
    for server in servers {
        server.stop().await.unwrap();
    }
}

/// What a replica of an older release, which waits to join as replica 4, says to a Hello.
struct OldJoiner;

#[tonic::async_trait]
impl Peer for OldJoiner {
    async fn hello(&self, _: Request<HelloRequest>) -> Result<Response<HelloResponse>, Status> {
        // It knows of no state versions, and so says nothing of them.
        let me = Identity { cell: "dev".into(), replica: 4, data_id: 44, ..Identity::default() };
        Ok(Response::new(HelloResponse { identity: Some(me), ..HelloResponse::default() }))
    }

    async fn messages(&self, _: Request<Streaming<PeerFrame>>) -> Result<Response<MessagesResponse>, Status> {
        Err(Status::failed_precondition("not before the cell has added it"))
    }

    async fn snapshot(
        &self,
        _: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotResponse>, Status> {
        Err(Status::failed_precondition("not before the cell has added it"))
    }
}

#[tokio::test]
async fn a_replica_of_a_release_that_is_too_old_for_the_cell_is_not_added() {
    let dir = tempfile::tempdir().unwrap();
    let servers = cell_of_three(&dir).await;
    let listener = TcpListener::bind(ANY_PORT).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serve = tonic::transport::Server::builder()
        .add_service(PeerServer::new(OldJoiner))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let serving = tokio::spawn(serve);
    let refused = add(&servers, 4, [&address, "127.0.0.1:1"]).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused}");
    let words = "replica 4 is of a release that can apply state versions up to 1, and the cell's is 2";
    assert!(refused.message().contains(words), "{}", refused.message());
    for server in &servers {
        assert_eq!(status(server).await.unwrap().members.len(), 3);
    }
    serving.abort();
    for server in servers {
        server.stop().await.unwrap();
    }
}
