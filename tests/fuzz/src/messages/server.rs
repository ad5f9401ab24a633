//! What a master says to a session, or somebody who pretends to be one.

use holdfast_proto::client::v1::{
    AclSet, Cancelled, CellInfo, ChildChange, Closed, Contents, Deleted, Directory, DirectoryEntry, Event,
    Granted, HandleEvent, Invalidation, LeaseGranted, LockGrant, LockHolder, LockStat, Notice, Opened,
    Outcome, Queued, Refusal, Released, Reply, SequencerChecked, SequencerSet, SequencerText, ServerFrame,
    SessionAttached, SessionEnded, SessionEnding, SessionOpened, Stat, StreamRefused, Written, event,
    outcome, server_frame::Hello,
};

use super::client::acl;
use super::{name, path, sequencer};
use crate::Source;

/// Addresses that meet.
const ADDRESSES: [&str; 5] = ["a:1", "b:1", "c:1", "", "not an address"];

fn address(source: &mut Source<'_>) -> String {
    source.pick(&ADDRESSES).to_owned()
}

fn stat(source: &mut Source<'_>) -> Stat {
    let holder = |source: &mut Source<'_>| LockHolder { session: source.number(), client: source.text() };
    let lock = |source: &mut Source<'_>| LockStat {
        mode: source.enumeration(),
        holders: source.list(3, holder),
        holder_count: source.number(),
        waiting: source.number(),
        delayed: source.number(),
    };
    Stat {
        kind: source.enumeration() % 4,
        ephemeral: source.flag(),
        instance: source.number(),
        content_generation: source.number(),
        lock_generation: source.number(),
        acl_generation: source.number(),
        children_generation: source.number(),
        length: source.number(),
        checksum: source.number(),
        children: source.number(),
        open_handles: source.number(),
        lock: source.maybe(lock),
        acl: source.maybe(acl),
    }
}

fn granted(source: &mut Source<'_>) -> Granted {
    Granted { mode: source.enumeration() % 4, lock_generation: source.number(), instance: source.number() }
}

fn refusal(source: &mut Source<'_>) -> Refusal {
    let code = i32::from(source.byte()) % 34;
    Refusal { code, message: source.text(), ..Default::default() }
}

fn outcome(source: &mut Source<'_>) -> Outcome {
    use outcome::Result as R;
    let revision = source.number();
    let result = source.maybe(|source| match source.byte() % 17 {
        0 | 1 => R::Refusal(refusal(source)),
        2..=4 => R::Opened(Box::new(Opened { created: source.flag(), stat: source.maybe(stat) })),
        5 => R::Closed(Closed {}),
        6 => R::Contents(Box::new(Contents { stat: source.maybe(stat), contents: source.bytes() })),
        7 => R::Stat(Box::new(stat(source))),
        8 => {
            let entry =
                |source: &mut Source<'_>| DirectoryEntry { name: name(source), stat: source.maybe(stat) };
            let (stat, entries) = (source.maybe(stat), source.list(4, entry));
            R::Directory(Box::new(Directory { stat, entries, more: source.flag() }))
        }
        9 => R::Written(Written { content_generation: source.number(), created: source.flag() }),
        10 => R::Deleted(Deleted {}),
        11 => R::Granted(granted(source)),
        12 => R::Queued(Queued { ahead: source.number() }),
        13 => R::Released(Released {}),
        14 => R::Cancelled(Cancelled {}),
        15 => R::AclSet(AclSet { acl_generation: source.number() }),
        _ if source.flag() => R::SequencerSet(SequencerSet {}),
        _ if source.flag() => R::Sequencer(SequencerText { sequencer: sequencer(source) }),
        _ => R::SequencerChecked(SequencerChecked { valid: source.flag(), reason: source.text() }),
    });
    Outcome { revision, result }
}

fn lock_grant(source: &mut Source<'_>) -> LockGrant {
    LockGrant { handle: source.number(), number: source.number(), granted: source.maybe(granted) }
}

fn cell(source: &mut Source<'_>) -> CellInfo {
    CellInfo {
        name: source.pick(&["dev", "dev", "other", ""]).to_owned(),
        cell_id: source.pick(&[7, 7, 0, 8]),
        term: source.number(),
        addresses: source.list(6, address),
        requests_in_flight_max: source.small(),
        contents_bytes_max: source.number(),
        reattach_spread_ms: source.small(),
    }
}

fn hello(source: &mut Source<'_>) -> Hello {
    match source.byte() % 4 {
        0 | 1 => Hello::Opened(SessionOpened {
            session: source.number(),
            lease_ms: source.small(),
            lease_length_ms: source.small(),
            cell: source.maybe(cell),
            principal: source.text(),
        }),
        2 => Hello::Attached(SessionAttached {
            attachment: source.number(),
            locks: source.list(4, lock_grant),
            cell: source.maybe(cell),
        }),
        _ => {
            Hello::Refused(StreamRefused { refusal: source.maybe(refusal), master_address: address(source) })
        }
    }
}

fn notice(source: &mut Source<'_>) -> Notice {
    let invalidation = |source: &mut Source<'_>| Invalidation { path: path(source), opens: source.flag() };
    let child = |source: &mut Source<'_>| ChildChange { name: name(source), kind: source.enumeration() };
    let event = |source: &mut Source<'_>| HandleEvent {
        handle: source.number(),
        kinds: source.list(4, Source::enumeration),
        content_generation: source.number(),
        children_generation: source.number(),
        acl_generation: source.number(),
        lock_generation: source.number(),
        children: source.list(3, child),
        more_children: source.flag(),
    };
    Notice {
        number: source.number(),
        invalidations: source.list(3, invalidation),
        events: source.list(3, event),
    }
}

/// A frame of a session's stream.
pub fn frame(source: &mut Source<'_>) -> ServerFrame {
    let reply = |source: &mut Source<'_>| Reply {
        number: source.number(),
        outcome: source.maybe(outcome),
        cacheable: source.flag(),
    };
    let event = |source: &mut Source<'_>| Event {
        event: source.maybe(|source| event::Event::LockGranted(lock_grant(source))),
    };
    ServerFrame {
        hello: source.one_in(4).then(|| hello(source)),
        replies: source.list(4, reply),
        lease: source.one_in(3).then(|| LeaseGranted { number: source.number(), lease_ms: source.small() }),
        events: source.list(3, event),
        ended: source.one_in(30).then(|| SessionEnded { reason: source.enumeration() }),
        notices: source.list(3, notice),
        ending: source.one_in(20).then(|| SessionEnding { reason: source.enumeration() }),
    }
}
