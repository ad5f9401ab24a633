//! What clients say: frames of a session, and unary requests.

use bytes::Bytes;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    Acknowledged, AclNames, Acquire, AttachSession, Cancel, ChangeSettingsRequest, CheckSequencer,
    CheckSequencerRequest, ClientFrame, Close, CloseSession, Delete, DeleteRequest, GetContents,
    GetContentsRequest, GetSequencer, GetStat, GetStatRequest, KeepAlive, KillSessionRequest,
    ListHandlesRequest, ListSessionsRequest, ListUsageRequest, NumberRange, Open, OpenSession, ReadDir,
    ReadDirRequest, Release, Request, Seen, SetAcl, SetAclRequest, SetContents, SetContentsRequest,
    SetSequencer, Settings, Uses, client_frame::Hello,
};
use holdfast_proto::log::v1::Member;
use holdfast_replica::{CallRequest, Joiner};
use holdfast_types::ReplicaId;

use super::{name, path, sequencer};
use crate::Source;

/// Secrets that meet, and some that are too short.
fn secret(source: &mut Source<'_>) -> Bytes {
    if source.one_in(10) { source.bytes() } else { Bytes::from(vec![source.byte() % 4; 16]) }
}

fn cell(source: &mut Source<'_>) -> String {
    source.pick(&["", "", "dev", "other"]).to_owned()
}

/// Names of access control lists.
pub fn acl(source: &mut Source<'_>) -> AclNames {
    AclNames { read: name(source), write: name(source), change: name(source) }
}

/// What was decided of a session's requests.
pub fn acknowledged(source: &mut Source<'_>) -> Acknowledged {
    let range = |source: &mut Source<'_>| NumberRange { first: source.number(), last: source.number() };
    Acknowledged { through: source.number(), ranges: source.list(3, range) }
}

/// What a session asks for.
pub fn operation(source: &mut Source<'_>) -> Operation {
    let handle = source.number();
    match source.byte() % 20 {
        0..=4 => Operation::Open(Box::new(open(source))),
        5 => Operation::Close(Close { handle }),
        6 => Operation::GetContents(GetContents { handle }),
        7 => Operation::GetStat(GetStat { handle }),
        8 => Operation::ReadDir(ReadDir { handle, after: source.text(), limit: source.small() }),
        9 => {
            let if_generation = source.maybe(Source::number);
            Operation::SetContents(SetContents { handle, contents: source.bytes(), if_generation })
        }
        10 => Operation::Delete(Delete { handle }),
        11..=13 => {
            Operation::Acquire(Acquire { handle, mode: source.enumeration() % 4, try_only: source.flag() })
        }
        14 => Operation::Release(Release { handle }),
        15 => Operation::Cancel(Cancel { number: source.number(), handle }),
        16 => {
            let (acl, if_generation) = (source.maybe(acl), source.maybe(Source::number));
            Operation::SetAcl(Box::new(SetAcl { handle, acl, if_generation }))
        }
        17 => Operation::SetSequencer(SetSequencer { handle, sequencer: sequencer(source) }),
        18 => Operation::GetSequencer(GetSequencer { handle }),
        _ => Operation::CheckSequencer(CheckSequencer { sequencer: sequencer(source) }),
    }
}

fn open(source: &mut Source<'_>) -> Open {
    let uses = |source: &mut Source<'_>| Uses {
        read: source.flag(),
        write: source.flag(),
        change_acl: source.flag(),
    };
    Open {
        path: path(source),
        creation: source.enumeration() % 4,
        kind: source.enumeration() % 4,
        ephemeral: source.flag(),
        contents: source.bytes(),
        lock_delay_ms: source.small(),
        directory: if source.one_in(4) { source.number() } else { 0 },
        uses: source.maybe(uses),
        events: source.list(4, Source::enumeration),
        caching: source.flag(),
        acl: source.maybe(acl),
    }
}

/// A request of a session.
pub fn request(source: &mut Source<'_>) -> Request {
    Request { number: source.number(), operation: source.maybe(operation) }
}

/// A frame of a session's stream.
pub fn frame(source: &mut Source<'_>) -> ClientFrame {
    let hello = match source.byte() % 8 {
        0 | 1 => {
            let mut open = OpenSession {
                cell: cell(source),
                secret: secret(source),
                lease_ms: source.small(),
                client: source.text(),
                attachment: source.number(),
                keep_when_idle: false,
            };
            // No byte of its own: what lies in the corpus is to mean what it meant.
            open.keep_when_idle = open.attachment.is_multiple_of(2);
            Some(Hello::Open(open))
        }
        2 => Some(Hello::Attach(attach(source))),
        _ => None,
    };
    ClientFrame {
        hello,
        requests: source.list(5, request),
        acknowledged: source.one_in(4).then(|| acknowledged(source)),
        keep_alive: source.one_in(3).then(|| KeepAlive { number: source.number() }),
        close: source.one_in(20).then_some(CloseSession {}),
        notices_through: source.number(),
    }
}

fn attach(source: &mut Source<'_>) -> AttachSession {
    let seen = |source: &mut Source<'_>| Seen {
        handle: source.number(),
        content_generation: source.number(),
        children_generation: source.number(),
        acl_generation: source.number(),
        lock_generation: source.number(),
    };
    let mut attach = AttachSession {
        cell: cell(source),
        session: source.number(),
        secret: secret(source),
        attachment: source.number(),
        seen: source.list(4, seen),
        cell_id: source.pick(&[0, 7, 8]),
        keep_when_idle: false,
    };
    attach.keep_when_idle = attach.attachment.is_multiple_of(2);
    attach
}

/// Settings, of which most are left as they are.
pub fn settings(source: &mut Source<'_>) -> Settings {
    Settings {
        contents_bytes_max: source.number(),
        name_bytes_max: source.small(),
        path_bytes_max: source.small(),
        sessions_max: source.number(),
        handles_per_session_max: source.number(),
        nodes_max: source.number(),
        requests_in_flight_max: source.small(),
        lease_ms_max: source.small(),
        bootstrap_principal: source.pick(&["", "", "", "anonymous", "ann"]).to_owned(),
        notice_overdue_ms: source.small(),
        caching_lease_ms_max: source.small(),
        total_bytes_max: source.number(),
        reserve_percent: source.small(),
    }
}

/// A unary request.
pub fn call(source: &mut Source<'_>) -> CallRequest {
    let path = path(source);
    match source.byte() % 16 {
        0 => CallRequest::GetContents(GetContentsRequest { path }),
        1 => CallRequest::GetStat(GetStatRequest { path }),
        2 => CallRequest::ReadDir(ReadDirRequest { path, after: source.text(), limit: source.small() }),
        3..=5 => CallRequest::SetContents(SetContentsRequest {
            path,
            contents: source.bytes(),
            if_generation: source.one_in(4).then(|| source.number()),
            create: source.flag(),
            kind: source.enumeration() % 4,
            ..Default::default()
        }),
        6 => CallRequest::Delete(DeleteRequest {
            path,
            if_instance: source.maybe(Source::number),
            ..Default::default()
        }),
        7 => CallRequest::CheckSequencer(CheckSequencerRequest { sequencer: sequencer(source) }),
        8 => CallRequest::SetAcl(SetAclRequest {
            path,
            acl: source.maybe(acl),
            if_generation: source.maybe(Source::number),
            ..Default::default()
        }),
        9 => CallRequest::GetSettings,
        10 => {
            let settings = source.maybe(settings);
            CallRequest::ChangeSettings(ChangeSettingsRequest { settings, force: source.flag() })
        }
        11 => {
            CallRequest::ListSessions(ListSessionsRequest { after: source.number(), limit: source.small() })
        }
        12 => CallRequest::KillSession(KillSessionRequest { session: source.number() }),
        13 => CallRequest::ListHandles(ListHandlesRequest {
            session: source.number(),
            path: if source.flag() { path } else { String::new() },
            after_session: source.number(),
            after_handle: source.number(),
            limit: source.small(),
        }),
        14 => CallRequest::AddMember(Joiner { member: member(source), state_version: source.small() }),
        15 if source.one_in(3) => {
            CallRequest::ListUsage(ListUsageRequest { after: source.text(), limit: source.small() })
        }
        _ if source.flag() => CallRequest::PromoteMember(ReplicaId(source.number())),
        _ => CallRequest::RemoveMember(ReplicaId(source.number())),
    }
}

/// A replica of the cell.
pub fn member(source: &mut Source<'_>) -> Member {
    Member {
        id: source.number(),
        data_id: source.number(),
        peer_address: format!("p{}:1", source.byte()),
        client_address: format!("c{}:1", source.byte()),
        learner: source.flag(),
    }
}
