//! Unary calls as values: what is asked, and what is answered.
//!
//! Nothing here decides or does anything. Invariant: each request has one kind of answer, which says so.

use holdfast_proto::client::v1 as client;
use holdfast_proto::log::v1::Member;
use holdfast_types::{Principal, ReplicaId, SessionId, SocketId};
use prost::Message as _;

/// One unary call, so that its answer finds its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Those who make unary calls as one principal; by one connection, where that is `anonymous`, which everybody is without TLS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Caller {
    /// By this connection.
    Anonymous(SocketId),
    /// Wherever they come from.
    Named(Principal),
}

impl Caller {
    /// Who they have proved to be.
    pub(crate) fn principal(&self) -> Principal {
        match self {
            Self::Named(principal) => principal.clone(),
            Self::Anonymous(_) => Principal::anonymous(),
        }
    }
}

/// A unary call's request.
#[derive(Clone, Debug, PartialEq)]
pub enum CallRequest {
    /// Reads a file.
    GetContents(client::GetContentsRequest),
    /// Reads metadata.
    GetStat(client::GetStatRequest),
    /// Reads a directory.
    ReadDir(client::ReadDirRequest),
    /// Writes a file by name.
    SetContents(client::SetContentsRequest),
    /// Deletes a node by name.
    Delete(client::DeleteRequest),
    /// Checks a sequencer.
    CheckSequencer(client::CheckSequencerRequest),
    /// Changes the names of a node's access control lists.
    SetAcl(client::SetAclRequest),
    /// Reads the settings.
    GetSettings,
    /// Changes settings.
    ChangeSettings(client::ChangeSettingsRequest),
    /// Lists sessions.
    ListSessions(client::ListSessionsRequest),
    /// Ends a session.
    KillSession(client::KillSessionRequest),
    /// Ends a session as if its lease had run out. No call of a client becomes this: it is for the owner of a replica in
    /// his own process, who tests with it.
    ExpireSession(SessionId),
    /// Lists open handles.
    ListHandles(client::ListHandlesRequest),
    /// Lists what each principal has.
    ListUsage(client::ListUsageRequest),
    /// Adds a replica as a learner.
    AddMember(Joiner),
    /// Makes a learner a voter.
    PromoteMember(ReplicaId),
    /// Removes a replica.
    RemoveMember(ReplicaId),
}

/// A replica that is to be added.
#[derive(Clone, Debug, PartialEq)]
pub struct Joiner {
    /// As what.
    pub member: Member,
    /// The greatest state version that it says it can apply; 0, of a replica that knows of no such thing, counts as 1.
    pub state_version: u32,
}

/// A unary call's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum CallAnswer {
    /// To [`CallRequest::GetContents`].
    GetContents(client::GetContentsResponse),
    /// To [`CallRequest::GetStat`].
    GetStat(client::GetStatResponse),
    /// To [`CallRequest::ReadDir`].
    ReadDir(client::ReadDirResponse),
    /// To [`CallRequest::SetContents`].
    SetContents(client::SetContentsResponse),
    /// To [`CallRequest::Delete`].
    Delete(client::DeleteResponse),
    /// To [`CallRequest::CheckSequencer`].
    CheckSequencer(client::CheckSequencerResponse),
    /// To [`CallRequest::SetAcl`].
    SetAcl(client::SetAclResponse),
    /// To [`CallRequest::GetSettings`] and [`CallRequest::ChangeSettings`].
    Settings(client::Settings),
    /// To [`CallRequest::ListSessions`].
    ListSessions(client::ListSessionsResponse),
    /// To [`CallRequest::KillSession`] and [`CallRequest::ExpireSession`].
    KillSession(client::KillSessionResponse),
    /// To [`CallRequest::ListHandles`].
    ListHandles(client::ListHandlesResponse),
    /// To [`CallRequest::ListUsage`].
    ListUsage(client::ListUsageResponse),
    /// To the three membership changes.
    Membership,
}

impl CallAnswer {
    /// How many bytes it has.
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Self::GetContents(answer) => answer.encoded_len(),
            Self::GetStat(answer) => answer.encoded_len(),
            Self::ReadDir(answer) => answer.encoded_len(),
            Self::SetContents(answer) => answer.encoded_len(),
            Self::Delete(answer) => answer.encoded_len(),
            Self::CheckSequencer(answer) => answer.encoded_len(),
            Self::SetAcl(answer) => answer.encoded_len(),
            Self::Settings(answer) => answer.encoded_len(),
            Self::ListSessions(answer) => answer.encoded_len(),
            Self::KillSession(answer) => answer.encoded_len(),
            Self::ListHandles(answer) => answer.encoded_len(),
            Self::ListUsage(answer) => answer.encoded_len(),
            Self::Membership => 0,
        }
    }
}
