//! The service `Admin`: settings, membership, and what clients have open.
//!
//! Adding a replica is the one call that does not go straight to the core: the front first asks the new replica
//! who it is, because the cell must know a replica's data directory before it counts on it.

use holdfast_proto::client::v1 as client;
use holdfast_proto::client::v1::admin_server::Admin;
use holdfast_proto::client::v1::{RefusalCode, Settings};
use holdfast_proto::log::v1::Member;
use holdfast_replica::{CallAnswer, CallRequest, Joiner};
use holdfast_types::ReplicaId;
use prost::Message as _;
use tonic::{Request, Response, Status};

use super::Front;
use super::burden::SMALL_BYTES;
use super::calls::{Asker, asker, forward, mismatched};
use super::refusal::refused;

impl Front {
    async fn settings_call(&self, asker: &Asker, request: CallRequest) -> Result<Settings, Status> {
        match self.call(asker, request, SMALL_BYTES).await? {
            CallAnswer::Settings(settings) => Ok(settings),
            other => Err(mismatched(&other)),
        }
    }

    async fn membership_call(&self, asker: &Asker, request: CallRequest) -> Result<(), Status> {
        match self.call(asker, request, SMALL_BYTES).await? {
            CallAnswer::Membership => Ok(()),
            other => Err(mismatched(&other)),
        }
    }

    /// Asks the new replica who it is and what it can apply, and describes it as a member.
    async fn joiner(&self, request: client::AddMemberRequest) -> Result<Joiner, Status> {
        let id = ReplicaId(request.id);
        if id.0 == 0 {
            return Err(refused(RefusalCode::Invalid, "a replica's id is greater than 0"));
        }
        for (name, address) in
            [("peer_address", &request.peer_address), ("client_address", &request.client_address)]
        {
            if !address.contains(':') {
                let message = format!("{name} is {address:?}, and must be host:port");
                return Err(refused(RefusalCode::Invalid, message));
            }
        }
        let joiner = self.greeter.greet_joiner(id, &request.peer_address, &request.client_address).await;
        let joiner = joiner.map_err(|reason| refused(RefusalCode::Membership, reason))?;
        let member = Member {
            id: id.0,
            data_id: joiner.data_id,
            peer_address: request.peer_address,
            client_address: request.client_address,
            learner: true,
        };
        Ok(Joiner { member, state_version: joiner.state_version })
    }
}

#[tonic::async_trait]
impl Admin for Front {
    async fn get_settings(
        &self,
        request: Request<client::GetSettingsRequest>,
    ) -> Result<Response<client::GetSettingsResponse>, Status> {
        let asker = asker(&request)?;
        let settings = self.settings_call(&asker, CallRequest::GetSettings).await?;
        Ok(Response::new(client::GetSettingsResponse { settings: Some(settings) }))
    }

    async fn change_settings(
        &self,
        request: Request<client::ChangeSettingsRequest>,
    ) -> Result<Response<client::ChangeSettingsResponse>, Status> {
        let asker = asker(&request)?;
        let change = CallRequest::ChangeSettings(request.into_inner());
        let settings = self.settings_call(&asker, change).await?;
        Ok(Response::new(client::ChangeSettingsResponse { settings: Some(settings) }))
    }

    async fn add_member(
        &self,
        request: Request<client::AddMemberRequest>,
    ) -> Result<Response<client::AddMemberResponse>, Status> {
        let asker = asker(&request)?;
        // Nobody else is to have this replica connect to wherever he likes: so ask first for what needs the same right.
        let probe = client::ListSessionsRequest { after: 0, limit: 1 };
        self.call(&asker, CallRequest::ListSessions(probe), 0).await?;
        let joiner = self.joiner(request.into_inner()).await?;
        self.membership_call(&asker, CallRequest::AddMember(joiner)).await?;
        Ok(Response::new(client::AddMemberResponse {}))
    }

    async fn promote_member(
        &self,
        request: Request<client::PromoteMemberRequest>,
    ) -> Result<Response<client::PromoteMemberResponse>, Status> {
        let asker = asker(&request)?;
        let id = ReplicaId(request.into_inner().id);
        self.membership_call(&asker, CallRequest::PromoteMember(id)).await?;
        Ok(Response::new(client::PromoteMemberResponse {}))
    }

    async fn remove_member(
        &self,
        request: Request<client::RemoveMemberRequest>,
    ) -> Result<Response<client::RemoveMemberResponse>, Status> {
        let asker = asker(&request)?;
        let id = ReplicaId(request.into_inner().id);
        self.membership_call(&asker, CallRequest::RemoveMember(id)).await?;
        Ok(Response::new(client::RemoveMemberResponse {}))
    }

    async fn list_sessions(
        &self,
        request: Request<client::ListSessionsRequest>,
    ) -> Result<Response<client::ListSessionsResponse>, Status> {
        forward!(self, request, ListSessions)
    }

    async fn kill_session(
        &self,
        request: Request<client::KillSessionRequest>,
    ) -> Result<Response<client::KillSessionResponse>, Status> {
        forward!(self, request, KillSession)
    }

    async fn list_handles(
        &self,
        request: Request<client::ListHandlesRequest>,
    ) -> Result<Response<client::ListHandlesResponse>, Status> {
        forward!(self, request, ListHandles)
    }

    async fn list_usage(
        &self,
        request: Request<client::ListUsageRequest>,
    ) -> Result<Response<client::ListUsageResponse>, Status> {
        forward!(self, request, ListUsage)
    }
}
