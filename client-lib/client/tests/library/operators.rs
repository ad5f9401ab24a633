//! What operators ask: lists in pages, and the end of a session, which takes its time.

use crate::fake::within;
use crate::service::Service;
use holdfast::{Cell, Error, EventKind, EventSet, Mode, RefusalCode, Uses};
use holdfast_proto::client::v1 as wire;
use holdfast_proto::client::v1::admin_server::{Admin, AdminServer};
use holdfast_proto::client::v1::cell_server::CellServer;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status};

/// A master with three sessions, two on a page, of which the third never ends.
struct Master;

async fn cell() -> Cell {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut server = tonic::transport::Server::builder();
    let serving = server.add_service(AdminServer::new(Master)).add_service(CellServer::new(Service::idle()));
    // It ends with the test's runtime.
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    Cell::connect([address]).unwrap()
}

#[tokio::test]
async fn sessions_are_listed_page_after_page() {
    let sessions = within(cell().await.list_sessions()).await.unwrap();
    assert_eq!(sessions.iter().map(|info| info.session).collect::<Vec<_>>(), [1, 2, 3]);
}

#[tokio::test]
async fn handles_are_listed_page_after_page_and_by_what_was_asked_for() {
    let cell = cell().await;
    let handles = within(cell.list_handles(None, None)).await.unwrap();
    assert_eq!(handles.iter().map(|info| (info.session, info.handle)).collect::<Vec<_>>(), [(1, 7), (2, 3)]);
    let handles = within(cell.list_handles(Some(2), Some("/leader"))).await.unwrap();
    let info = &handles[0];
    assert_eq!((info.session, info.path.as_str()), (2, "/leader"));
    assert_eq!((info.uses, info.holds, info.waits), (Uses::READ_WRITE, Some(Mode::Exclusive), None));
    assert_eq!(info.events, EventSet::from([EventKind::ConflictingRequest]));
    assert_eq!((info.lock_delay, &info.sequencer), (Duration::from_secs(1), &None));
}

#[tokio::test]
async fn usage_is_listed_page_after_page() {
    let usage = within(cell().await.list_usage()).await.unwrap();
    let names: Vec<_> = usage.principals.iter().map(|usage| usage.principal.as_str()).collect();
    assert_eq!((names, usage.nodes, usage.bytes), (vec!["ann", "bob"], 9, 100));
}

#[tokio::test]
async fn killing_a_session_waits_for_its_end_and_no_longer_than_it_is_told() {
    let cell = cell().await;
    within(cell.kill_session(1, Duration::from_secs(5))).await.unwrap();
    let unknown = within(cell.kill_session(4, Duration::from_secs(5))).await.unwrap_err();
    assert_eq!(unknown.refusal(), Some(RefusalCode::UnknownSession));
    // It may be ending, and is not over.
    let error = within(cell.kill_session(3, Duration::from_millis(200))).await.unwrap_err();
    assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
}

fn handle(session: u64, handle: u64) -> wire::HandleInfo {
    wire::HandleInfo {
        session,
        handle,
        path: "/leader".to_owned(),
        uses: Some(wire::Uses { read: true, write: true, change_acl: false }),
        events: vec![wire::EventKind::ConflictingRequest.into()],
        lock_delay_ms: 1_000,
        holds: wire::LockMode::Exclusive.into(),
        ..wire::HandleInfo::default()
    }
}

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not in these tests"))
}

#[tonic::async_trait]
impl Admin for Master {
    async fn list_sessions(
        &self,
        request: Request<wire::ListSessionsRequest>,
    ) -> Result<Response<wire::ListSessionsResponse>, Status> {
        let info = |session| wire::SessionInfo { session, ..wire::SessionInfo::default() };
        let (sessions, more) = match request.into_inner().after {
            0 => (vec![info(1), info(2)], true),
            2 => (vec![info(3)], false),
            other => panic!("there is no page after {other}"),
        };
        Ok(Response::new(wire::ListSessionsResponse { sessions, more, revision: 100 }))
    }

    async fn kill_session(
        &self,
        request: Request<wire::KillSessionRequest>,
    ) -> Result<Response<wire::KillSessionResponse>, Status> {
        match request.into_inner().session {
            1 => Ok(Response::new(wire::KillSessionResponse {})),
            3 => std::future::pending().await,
            _ => {
                let mut metadata = MetadataMap::new();
                metadata.insert("holdfast-refusal", "UNKNOWN_SESSION".parse().unwrap());
                Err(Status::with_metadata(Code::NotFound, "there is no such session", metadata))
            }
        }
    }

    async fn list_handles(
        &self,
        request: Request<wire::ListHandlesRequest>,
    ) -> Result<Response<wire::ListHandlesResponse>, Status> {
        let request = request.into_inner();
        let (handles, more) =
            match (request.session, &*request.path, request.after_session, request.after_handle) {
                (0, "", 0, 0) => (vec![handle(1, 7)], true),
                (0, "", 1, 7) | (2, "/leader", 0, 0) => (vec![handle(2, 3)], false),
                other => panic!("nobody asked for {other:?}"),
            };
        Ok(Response::new(wire::ListHandlesResponse { handles, more, revision: 100 }))
    }

    async fn list_usage(
        &self,
        request: Request<wire::ListUsageRequest>,
    ) -> Result<Response<wire::ListUsageResponse>, Status> {
        let (principal, more) = match &*request.into_inner().after {
            "" => ("ann", true),
            "ann" => ("bob", false),
            other => panic!("nobody asked for {other:?}"),
        };
        let usage = wire::PrincipalUsage { principal: principal.into(), sessions: 1, nodes: 2, bytes: 30 };
        let all = wire::ListUsageResponse { sessions: 2, nodes: 9, bytes: 100, ..Default::default() };
        Ok(Response::new(wire::ListUsageResponse { principals: vec![usage], more, ..all }))
    }

    async fn get_settings(
        &self,
        _: Request<wire::GetSettingsRequest>,
    ) -> Result<Response<wire::GetSettingsResponse>, Status> {
        not_here()
    }

    async fn change_settings(
        &self,
        _: Request<wire::ChangeSettingsRequest>,
    ) -> Result<Response<wire::ChangeSettingsResponse>, Status> {
        not_here()
    }

    async fn add_member(
        &self,
        _: Request<wire::AddMemberRequest>,
    ) -> Result<Response<wire::AddMemberResponse>, Status> {
        not_here()
    }

    async fn promote_member(
        &self,
        _: Request<wire::PromoteMemberRequest>,
    ) -> Result<Response<wire::PromoteMemberResponse>, Status> {
        not_here()
    }

    async fn remove_member(
        &self,
        _: Request<wire::RemoveMemberRequest>,
    ) -> Result<Response<wire::RemoveMemberResponse>, Status> {
        not_here()
    }
}
