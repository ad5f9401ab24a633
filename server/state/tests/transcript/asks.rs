//! What a line asks for: operations, settings, lists.

use goldenscript::ArgumentConsumer;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    Acknowledged, AclNames, Acquire, Cancel, CheckSequencer, Close, Creation, Delete, EventKind, GetContents,
    GetSequencer, GetStat, ListHandlesRequest, LockMode, NodeKind, NumberRange, Open, ReadDir, Release, Seen,
    SetAcl, SetContents, SetSequencer, Settings, Uses,
};
use holdfast_types::{Principal, SessionId};

use super::{Result, key, next};

pub(super) fn kind(args: &mut ArgumentConsumer<'_>) -> Result<i32> {
    Ok(match args.take_key("kind") {
        None => NodeKind::Unspecified.into(),
        Some("file") => NodeKind::File.into(),
        Some("directory") => NodeKind::Directory.into(),
        Some(number) => number.parse()?,
    })
}

/// `by=alice`; anonymous if it is not said.
pub(super) fn principal(args: &mut ArgumentConsumer<'_>) -> Result<Principal> {
    Ok(args.take_key("by").map_or_else(|| Ok(Principal::anonymous()), Principal::parse)?)
}

/// `read=staff write=ops change=ops`
pub(super) fn acl(args: &mut ArgumentConsumer<'_>) -> Option<AclNames> {
    let mut name = |key| args.take_key(key).map(str::to_owned);
    let (read, write, change) = (name("read"), name("write"), name("change"));
    let given = read.is_some() || write.is_some() || change.is_some();
    given.then(|| AclNames {
        read: read.unwrap_or_default(),
        write: write.unwrap_or_default(),
        change: change.unwrap_or_default(),
    })
}

/// `through=3 ranges=5-6,8-8`
pub(super) fn acknowledged(args: &mut ArgumentConsumer<'_>) -> Result<Option<Acknowledged>> {
    let through = args.take_key("through");
    let ranges = args.take_key("ranges");
    if through.is_none() && ranges.is_none() {
        return Ok(None);
    }
    let mut acknowledged = Acknowledged { through: through.unwrap_or("0").parse()?, ranges: Vec::new() };
    for range in ranges.into_iter().flat_map(|ranges| ranges.split(',')) {
        let (first, last) = range.split_once('-').ok_or("a range is written 5-6")?;
        acknowledged.ranges.push(NumberRange { first: first.parse()?, last: last.parse()? });
    }
    Ok(Some(acknowledged))
}

/// `1 content=5 children=6 acl=5 lock=0`
pub(super) fn seen(args: &mut ArgumentConsumer<'_>) -> Result<Vec<Seen>> {
    let mut seen = Vec::new();
    while let Some(handle) = args.next_pos() {
        seen.push(Seen { handle: handle.parse()?, ..Seen::default() });
    }
    let generations =
        (key(args, "content", 0)?, key(args, "children", 0)?, key(args, "acl", 0)?, key(args, "lock", 0)?);
    for seen in &mut seen {
        (seen.content_generation, seen.children_generation, seen.acl_generation, seen.lock_generation) =
            generations;
    }
    Ok(seen)
}

/// `session=a path=/x after=a:3 limit=2`
pub(super) fn list(
    args: &mut ArgumentConsumer<'_>,
    id: impl Fn(&str) -> Result<SessionId>,
) -> Result<ListHandlesRequest> {
    let session = args.take_key("session").map_or(Ok(SessionId(0)), &id)?;
    let (after_session, after_handle) = match args.take_key("after") {
        None => (SessionId(0), 0),
        Some(after) => {
            let (session, handle) = after.split_once(':').ok_or("a handle is written a:3")?;
            (id(session)?, handle.parse()?)
        }
    };
    Ok(ListHandlesRequest {
        session: session.0,
        path: key(args, "path", String::new())?,
        after_session: after_session.0,
        after_handle,
        limit: key(args, "limit", 0)?,
    })
}

/// Operations that are not replicated.
pub(super) fn read(name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Option<Operation>> {
    Ok(Some(match name {
        "cat" => Operation::GetContents(GetContents { handle: next(args)? }),
        "stat" => Operation::GetStat(GetStat { handle: next(args)? }),
        "ls" => Operation::ReadDir(ReadDir { handle: next(args)?, ..ReadDir::default() }),
        "sequencer" => Operation::GetSequencer(GetSequencer { handle: next(args)? }),
        "check" => Operation::CheckSequencer(CheckSequencer { sequencer: next(args)? }),
        "unlogged-close" => Operation::Close(Close { handle: next(args)? }),
        _ => return Ok(None),
    }))
}

pub(super) fn operation(name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Option<Operation>> {
    Ok(Some(match name {
        "open" => Operation::Open(Box::new(open(args)?)),
        "close" => Operation::Close(Close { handle: next(args)? }),
        "write" => Operation::SetContents(SetContents {
            handle: next(args)?,
            contents: next::<String>(args)?.into_bytes().into(),
            if_generation: args.take_key("if").map(str::parse).transpose()?,
        }),
        "delete" => Operation::Delete(Delete { handle: next(args)? }),
        "acquire" => Operation::Acquire(Acquire {
            handle: next(args)?,
            mode: match args.next_pos() {
                None | Some("exclusive") => LockMode::Exclusive.into(),
                Some("shared") => LockMode::Shared.into(),
                Some(number) => number.parse()?,
            },
            try_only: key(args, "try", false)?,
        }),
        "release" => Operation::Release(Release { handle: next(args)? }),
        "cancel" => Operation::Cancel(Cancel { number: next(args)?, handle: key(args, "handle", 0)? }),
        "set-acl" => Operation::SetAcl(Box::new(SetAcl {
            handle: next(args)?,
            acl: acl(args),
            if_generation: args.take_key("if").map(str::parse).transpose()?,
        })),
        "set-sequencer" => Operation::SetSequencer(SetSequencer {
            handle: next(args)?,
            sequencer: args.next_pos().unwrap_or_default().to_owned(),
        }),
        "logged-read" => Operation::GetStat(GetStat { handle: next(args)? }),
        "nothing" => return Ok(None),
        name => return Err(format!("no request is called {name}").into()),
    }))
}

fn open(args: &mut ArgumentConsumer<'_>) -> Result<Open> {
    Ok(Open {
        path: args.next_pos().unwrap_or_default().to_owned(),
        creation: match args.take_key("create") {
            None => Creation::Unspecified.into(),
            Some("may") => Creation::May.into(),
            Some("must") => Creation::Must.into(),
            Some(number) => number.parse()?,
        },
        kind: kind(args)?,
        ephemeral: key(args, "ephemeral", false)?,
        contents: key(args, "contents", String::new())?.into_bytes().into(),
        lock_delay_ms: key(args, "delay_ms", 0)?,
        directory: key(args, "in", 0)?,
        uses: args.take_key("uses").map(|uses| Uses {
            read: uses.split(',').any(|used| used == "read"),
            write: uses.split(',').any(|used| used == "write"),
            change_acl: uses.split(',').any(|used| used == "acl"),
        }),
        events: args
            .take_key("events")
            .map_or(Ok(Vec::new()), |kinds| kinds.split(',').map(event).collect::<Result<_>>())?,
        caching: key(args, "caching", false)?,
        acl: acl(args),
    })
}

/// The kind's name in the protocol, in small letters with hyphens; or its number.
fn event(kind: &str) -> Result<i32> {
    let name = format!("EVENT_KIND_{}", kind.to_uppercase().replace('-', "_"));
    Ok(EventKind::from_str_name(&name).map_or_else(|| kind.parse(), |kind| Ok(kind.into()))?)
}

pub(super) fn settings(args: &mut ArgumentConsumer<'_>) -> Result<Settings> {
    Ok(Settings {
        contents_bytes_max: key(args, "contents_bytes_max", 0)?,
        name_bytes_max: key(args, "name_bytes_max", 0)?,
        path_bytes_max: key(args, "path_bytes_max", 0)?,
        sessions_max: key(args, "sessions_max", 0)?,
        handles_per_session_max: key(args, "handles_per_session_max", 0)?,
        nodes_max: key(args, "nodes_max", 0)?,
        requests_in_flight_max: key(args, "requests_in_flight_max", 0)?,
        lease_ms_max: key(args, "lease_ms_max", 0)?,
        bootstrap_principal: key(args, "bootstrap", String::new())?,
        notice_overdue_ms: key(args, "notice_overdue_ms", 0)?,
        caching_lease_ms_max: key(args, "caching_lease_ms_max", 0)?,
        total_bytes_max: key(args, "total_bytes_max", 0)?,
        reserve_percent: key(args, "reserve_percent", 0)?,
    })
}
