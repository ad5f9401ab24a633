//! What stands in the log and in snapshots: commands, and records of a state.

use holdfast_proto::client::v1::{AclNames, DeleteRequest, SetAclRequest, SetContentsRequest, Uses};
use holdfast_proto::log::v1::command::Kind;
use holdfast_proto::log::v1::snapshot_record::Record;
use holdfast_proto::log::v1::{
    Command, DelayRecord, EndLockDelay, EndSession, HandleRecord, HolderRecord, LowerLeasePromise,
    NodeRecord, OpenSession, RaiseVersion, ReapNode, SessionRecord, SessionRequest, SnapshotEnd,
    SnapshotHeader, SnapshotRecord, WaiterRecord,
};
use holdfast_state::settings;

use super::client::{acknowledged, acl, member, request};
use super::{path, sequencer};
use crate::Source;

fn principal(source: &mut Source<'_>) -> String {
    source.pick(&["", "", "anonymous", "ann", "\u{7}"]).to_owned()
}

/// A command.
pub fn command(source: &mut Source<'_>) -> Command {
    let kind = match source.byte() % 20 {
        0 | 1 => Kind::OpenSession(OpenSession {
            secret: vec![source.byte() % 4; 16].into(),
            lease_ms: source.small(),
            client: source.text(),
            principal: principal(source),
        }),
        2 => Kind::EndSession(EndSession { session: source.number(), reason: source.enumeration() % 5 }),
        3..=11 => Kind::Request(SessionRequest {
            session: source.number(),
            request: source.maybe(request),
            acknowledged: source.one_in(4).then(|| acknowledged(source)),
        }),
        12 => Kind::SetContents(SetContentsRequest {
            path: path(source),
            contents: source.bytes(),
            if_generation: source.one_in(4).then(|| source.number()),
            create: source.flag(),
            kind: source.enumeration() % 4,
            ..Default::default()
        }),
        13 => Kind::Delete(DeleteRequest {
            path: path(source),
            if_instance: source.one_in(4).then(|| source.number()),
            ..Default::default()
        }),
        14 => Kind::EndLockDelay(EndLockDelay { path: path(source), loss: source.number() }),
        15 => Kind::ReapNode(ReapNode { path: path(source), instance: source.number() }),
        16 => Kind::ChangeSettings(super::client::settings(source)),
        17 => Kind::RaiseVersion(RaiseVersion { version: source.small() }),
        18 => Kind::SetAcl(SetAclRequest {
            path: path(source),
            acl: source.maybe(acl),
            if_generation: source.one_in(4).then(|| source.number()),
            ..Default::default()
        }),
        _ => Kind::LowerLeasePromise(LowerLeasePromise { lease_ms: source.small() }),
    };
    let kind = (!source.one_in(100)).then_some(kind);
    Command { tag: source.number(), kind, principal: principal(source), ..Default::default() }
}

/// A record, of a snapshot that began with [`header`].
pub fn record(source: &mut Source<'_>) -> SnapshotRecord {
    let record = match source.byte() % 16 {
        0 => Record::Header(header(source)),
        1..=6 => Record::Node(node(source)),
        7..=9 => Record::Session(SessionRecord {
            id: source.number(),
            secret: vec![source.byte() % 4; 16].into(),
            lease_ms: source.small(),
            client: source.text(),
            acknowledged: source.maybe(acknowledged),
            outcomes: Vec::new(),
            principal: source.pick(&["anonymous", "anonymous", "ann", ""]).to_owned(),
        }),
        10..=13 => Record::Handle(handle(source)),
        _ => Record::End(end(source)),
    };
    SnapshotRecord { record: (!source.one_in(100)).then_some(record) }
}

/// A header that mostly is one.
pub fn header(source: &mut Source<'_>) -> SnapshotHeader {
    let complete = settings::defaults();
    SnapshotHeader {
        version: if source.one_in(20) { source.small() } else { 1 },
        cell: source.pick(&["dev", "dev", "dev", "Other", ""]).to_owned(),
        cell_id: source.pick(&[7, 7, 7, 8, 0]),
        revision: source.number(),
        settings: Some(if source.one_in(8) { super::client::settings(source) } else { complete }),
        members: source.list(4, member),
        removed: source.list(3, Source::number),
        lease_promised_ms: source.small(),
    }
}

/// An end.
pub fn end(source: &mut Source<'_>) -> SnapshotEnd {
    SnapshotEnd { nodes: source.number(), sessions: source.number(), handles: source.number() }
}

fn node(source: &mut Source<'_>) -> NodeRecord {
    let holder = |source: &mut Source<'_>| HolderRecord {
        session: source.number(),
        handle: source.number(),
        mode: source.enumeration() % 4,
    };
    let waiter = |source: &mut Source<'_>| WaiterRecord {
        ticket: source.number(),
        session: source.number(),
        handle: source.number(),
        mode: source.enumeration() % 4,
    };
    let delay = |source: &mut Source<'_>| DelayRecord {
        loss: source.number(),
        mode: source.enumeration() % 4,
        delay_ms: source.small(),
    };
    let contents = source.bytes();
    NodeRecord {
        path: path(source),
        kind: source.enumeration() % 4,
        ephemeral: source.flag(),
        instance: source.number(),
        content_generation: source.number(),
        lock_generation: source.number(),
        acl_generation: source.number(),
        children_generation: source.number(),
        checksum: if source.one_in(4) { source.number() } else { xxhash_rust::xxh3::xxh3_64(&contents) },
        contents,
        holders: source.list(2, holder),
        waiters: source.list(2, waiter),
        delays: source.list(2, delay),
        acl: source.maybe(|source| if source.flag() { acl(source) } else { AclNames::default() }),
        owner: if source.one_in(3) { source.text() } else { String::new() },
    }
}

fn handle(source: &mut Source<'_>) -> HandleRecord {
    let uses = |source: &mut Source<'_>| Uses {
        read: source.flag(),
        write: source.flag(),
        change_acl: source.flag(),
    };
    HandleRecord {
        id: source.number(),
        path: path(source),
        instance: source.number(),
        lock_delay_ms: source.small(),
        acquire: source.number(),
        ticket: source.number(),
        uses: source.maybe(uses),
        events: source.list(3, Source::enumeration),
        caching: source.flag(),
        sequencer: if source.one_in(4) { sequencer(source) } else { String::new() },
    }
}
