//! The grammar of what clients send.

use std::error::Error;

use goldenscript::ArgumentConsumer;
use holdfast_master::CallRequest;
use holdfast_proto::client::v1::{self as client, EventKind, request::Operation};
use holdfast_types::SessionId;

pub(super) fn number(text: &str) -> Result<u64, Box<dyn Error>> {
    text.trim_start_matches(['c', 's']).parse().map_err(|_| format!("{text:?} is no number").into())
}

pub(super) fn parse_open(line: &mut ArgumentConsumer<'_>) -> Result<client::OpenSession, Box<dyn Error>> {
    Ok(client::OpenSession {
        cell: line.take_key("cell").unwrap_or_default().to_owned(),
        secret: secret(line.take_key("secret").unwrap_or("a")),
        lease_ms: u32::try_from(number(line.take_key("lease").unwrap_or("0"))?)?,
        client: "test".to_owned(),
        attachment: number(line.take_key("attachment").unwrap_or("1"))?,
        keep_when_idle: line.take_key("keep").is_some(),
    })
}

pub(super) fn parse_attach(line: &mut ArgumentConsumer<'_>) -> Result<client::AttachSession, Box<dyn Error>> {
    Ok(client::AttachSession {
        cell: line.take_key("cell").unwrap_or_default().to_owned(),
        session: number(line.take_key("session").unwrap_or("s3"))?,
        secret: secret(line.take_key("secret").unwrap_or("a")),
        attachment: number(line.take_key("attachment").unwrap_or("2"))?,
        seen: line.take_key("seen").map(parse_seen).transpose()?.into_iter().collect(),
        cell_id: number(line.take_key("cell_id").unwrap_or("0"))?,
        keep_when_idle: line.take_key("keep").is_some(),
    })
}

/// `1:5:0:5:0`: of handle 1, the generations of contents, children, access control names and lock.
fn parse_seen(text: &str) -> Result<client::Seen, Box<dyn Error>> {
    let fields = text.split(':').map(number).collect::<Result<Vec<_>, _>>()?;
    let [handle, content_generation, children_generation, acl_generation, lock_generation] = fields[..]
    else {
        return Err(format!("{text:?} are not a handle and four generations").into());
    };
    Ok(client::Seen { handle, content_generation, children_generation, acl_generation, lock_generation })
}

/// `3` is all up to 3; `3:5-6,8-8` also the ranges above it.
pub(super) fn parse_acknowledged(text: &str) -> Result<client::Acknowledged, Box<dyn Error>> {
    let (through, ranges) = text.split_once(':').unwrap_or((text, ""));
    let range = |text: &str| {
        let (first, last) = text.split_once('-').ok_or("a range is <first>-<last>")?;
        Ok::<_, Box<dyn Error>>(client::NumberRange { first: number(first)?, last: number(last)? })
    };
    let ranges = ranges.split(',').filter(|text| !text.is_empty()).map(range).collect::<Result<_, _>>()?;
    Ok(client::Acknowledged { through: number(through)?, ranges })
}

/// A secret of sixteen bytes from one letter.
fn secret(letter: &str) -> bytes::Bytes {
    letter.repeat(16).into()
}

/// `3 acquire 1` is request 3, an Acquire on handle 1.
pub(super) fn parse_request(text: &str) -> Result<client::Request, Box<dyn Error>> {
    let mut fields = text.split(' ');
    let request_number = number(fields.next().unwrap_or_default())?;
    let kind = fields.next().unwrap_or_default();
    let argument = fields.next().unwrap_or_default();
    let handle = || number(argument);
    let operation = match kind {
        "open" => Operation::Open(Box::new(parse_open_handle(argument, fields)?)),
        "acquire" => Operation::Acquire(client::Acquire {
            handle: handle()?,
            mode: client::LockMode::Exclusive.into(),
            try_only: false,
        }),
        "release" => Operation::Release(client::Release { handle: handle()? }),
        "stat" => Operation::GetStat(client::GetStat { handle: handle()? }),
        "read" => Operation::GetContents(client::GetContents { handle: handle()? }),
        "list" => Operation::ReadDir(client::ReadDir { handle: handle()?, ..client::ReadDir::default() }),
        "write" => Operation::SetContents(client::SetContents {
            handle: handle()?,
            contents: fields.next().unwrap_or_default().to_owned().into(),
            if_generation: fields.next().map(|at| number(at.trim_start_matches("at="))).transpose()?,
        }),
        "delete" => Operation::Delete(client::Delete { handle: handle()? }),
        "acl" => Operation::SetAcl(Box::new(client::SetAcl {
            handle: handle()?,
            acl: Some(client::AclNames {
                read: fields.next().unwrap_or_default().to_owned(),
                ..Default::default()
            }),
            if_generation: None,
        })),
        "sequencer" => Operation::GetSequencer(client::GetSequencer { handle: handle()? }),
        "depend" => Operation::SetSequencer(client::SetSequencer {
            handle: handle()?,
            sequencer: fields.next().unwrap_or_default().to_owned(),
        }),
        "cancel" => Operation::Cancel(client::Cancel { number: handle()?, handle: 0 }),
        "close" => Operation::Close(client::Close { handle: handle()? }),
        // Of a newer client: this program knows no such field.
        "unknown" => return Ok(client::Request { number: request_number, operation: None }),
        other => return Err(format!("unknown operation {other:?}").into()),
    };
    Ok(client::Request { number: request_number, operation: Some(operation) })
}

/// An Open: it may create, unless it says otherwise.
fn parse_open_handle<'t>(
    path: &str,
    fields: impl Iterator<Item = &'t str>,
) -> Result<client::Open, Box<dyn Error>> {
    let mut open = client::Open {
        path: path.to_owned(),
        creation: client::Creation::May.into(),
        lock_delay_ms: 1000,
        ..client::Open::default()
    };
    for field in fields {
        match field {
            "existing" => open.creation = client::Creation::Unspecified.into(),
            "ephemeral" => open.ephemeral = true,
            "caching" => open.caching = true,
            "directory" => open.kind = client::NodeKind::Directory.into(),
            "change" => {
                open.uses = Some(client::Uses { read: true, write: true, change_acl: true });
            }
            "written" => open.events.push(EventKind::ContentsModified.into()),
            "children" => {
                let kinds = [EventKind::ChildAdded, EventKind::ChildRemoved, EventKind::ChildModified];
                open.events.extend(kinds.map(i32::from));
            }
            "gone" => open.events.push(EventKind::HandleInvalid.into()),
            within => open.directory = number(within.trim_start_matches("in="))?,
        }
    }
    Ok(open)
}

pub(super) fn parse_call(kind: &str, argument: &str) -> Result<CallRequest, Box<dyn Error>> {
    let path = argument.to_owned();
    Ok(match kind {
        "get" => CallRequest::GetContents(client::GetContentsRequest { path }),
        "put" => CallRequest::SetContents(client::SetContentsRequest {
            path,
            contents: "x".into(),
            create: true,
            ..client::SetContentsRequest::default()
        }),
        "rm" => CallRequest::Delete(client::DeleteRequest { path, if_instance: None, ..Default::default() }),
        "acl" => CallRequest::SetAcl(client::SetAclRequest {
            path,
            acl: Some(client::AclNames { read: "ops".to_owned(), ..Default::default() }),
            if_generation: None,
            force: false,
        }),
        "check" => CallRequest::CheckSequencer(client::CheckSequencerRequest { sequencer: path }),
        "lease_ms_max" => settings(client::Settings {
            lease_ms_max: u32::try_from(number(argument)?)?,
            ..client::Settings::default()
        }),
        "bootstrap" => {
            settings(client::Settings { bootstrap_principal: path, ..client::Settings::default() })
        }
        "sessions" => CallRequest::ListSessions(client::ListSessionsRequest { after: 0, limit: 1 }),
        "handles" => CallRequest::ListHandles(client::ListHandlesRequest::default()),
        "expire" => CallRequest::ExpireSession(SessionId(number(argument)?)),
        "kill" => CallRequest::KillSession(client::KillSessionRequest { session: number(argument)? }),
        other => return Err(format!("unknown call {other:?}").into()),
    })
}

/// A change of settings whose caller means it.
fn settings(settings: client::Settings) -> CallRequest {
    CallRequest::ChangeSettings(client::ChangeSettingsRequest { settings: Some(settings), force: true })
}
