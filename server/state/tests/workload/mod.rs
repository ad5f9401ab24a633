//! Random workloads that hit each other: few sessions, few names, every kind of command.
//!
//! A step is a handful of bytes; what it means depends on the state, so that handles, delays and orphans that
//! exist are what most steps are about. The same steps on the same state give the same commands.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    Acknowledged, AclNames, Acquire, Cancel, Close, Delete, DeleteRequest, EndReason, NumberRange, Open,
    Release, Request, SetAcl, SetAclRequest, SetContents, SetContentsRequest, SetSequencer, Settings, Uses,
};
use holdfast_proto::log::v1::command::Kind;
use holdfast_proto::log::v1::{
    Command, EndLockDelay, EndSession, LowerLeasePromise, OpenSession, ReapNode, SessionRequest,
};
use holdfast_state::{Genesis, SnapshotReader, State, settings};
use holdfast_types::{HandleId, SessionId};

/// Eight bytes of chance.
pub(crate) type Step = [u8; 8];

pub(crate) const PATHS: [&str; 11] =
    ["/a", "/b", "/d", "/d/a", "/d/b", "/d/e", "/d/e/a", "/acl/x", "/acl/y", "/acl/admin", "/acl"];
/// What is written; some of it are access control lists.
const CONTENTS: [&str; 8] = ["", "*", "ann", "bob", "@y", "@x", "ann\n@y", "not a list"];
/// Who clients are. Nobody's name is anonymous: the bootstrap principal of these cells.
pub(crate) const PRINCIPALS: [&str; 4] = ["", "ann", "bob", "eve"];
const LISTS: [&str; 6] = ["", "*", "*", "x", "y", "nobody"];
const DELAYS_MS: [u32; 4] = [0, 100, 500, 60_000];

/// A new cell.
pub(crate) fn genesis() -> State {
    State::genesis(Genesis {
        cell: "dev".to_owned(),
        cell_id: 9,
        members: Vec::new(),
        settings: Settings {
            sessions_max: 6,
            nodes_max: 11,
            handles_per_session_max: 8,
            ..settings::defaults()
        },
    })
}

/// A state out of its own snapshot, which came in chunks of the size given.
pub(crate) fn restored(state: &State, chunk_bytes: usize) -> State {
    let mut reader = SnapshotReader::new();
    for chunk in state.snapshot_records() {
        for piece in chunk.chunks(chunk_bytes) {
            reader.push(piece).expect("a snapshot is read");
        }
    }
    reader.finish().expect("a snapshot is whole")
}

/// What a workload remembers: the numbers that each session has used.
#[derive(Debug, Default)]
pub(crate) struct Workload {
    numbers: BTreeMap<SessionId, u64>,
}

impl Workload {
    /// The command of a step.
    pub(crate) fn command(&mut self, state: &State, step: Step) -> Command {
        let [choice, who, what, path, mode, more, ..] = step;
        // Every third time the same one, so that locks have their crowds.
        let path = if path % 3 == 0 { PATHS[0] } else { PATHS[usize::from(path) % PATHS.len()] }.to_owned();
        let session = pick(state.sessions().map(|(id, _)| id), who);
        let kind = match (choice % 40, session) {
            (0..=2, _) | (_, None) => Kind::OpenSession(OpenSession {
                secret: vec![who % 12; 16].into(),
                lease_ms: 12_000,
                client: format!("client {who}"),
                principal: PRINCIPALS[usize::from(who % 12) % PRINCIPALS.len()].to_owned(),
            }),
            (3 | 12, Some(session)) => {
                let reasons = [EndReason::Expired, EndReason::Closed, EndReason::Idle, EndReason::Killed];
                let reason = reasons[usize::from(mode) % reasons.len()].into();
                Kind::EndSession(EndSession { session: session.0, reason })
            }
            (4..=5, _) => match pick(state.delays(), what) {
                Some(delay) => {
                    Kind::EndLockDelay(EndLockDelay { path: delay.path.to_string(), loss: delay.loss.0 })
                }
                None => Kind::EndLockDelay(EndLockDelay { path, loss: what.into() }),
            },
            (6..=8, _) => match pick(state.orphans(), what) {
                Some((path, instance)) => {
                    Kind::ReapNode(ReapNode { path: path.to_string(), instance: instance.0 })
                }
                None => Kind::ReapNode(ReapNode { path, instance: what.into() }),
            },
            (9, _) => Kind::Delete(DeleteRequest { path, if_instance: None, ..Default::default() }),
            (10, _) => Kind::SetContents(SetContentsRequest {
                path,
                contents: CONTENTS[usize::from(what) % CONTENTS.len()].into(),
                if_generation: (mode % 4 == 0).then_some(0),
                create: mode % 2 == 0,
                kind: i32::from(mode % 4 == 0) * 2 * i32::from(more % 4 == 0),
                ..Default::default()
            }),
            (11, _) if mode % 4 == 0 => {
                Kind::LowerLeasePromise(LowerLeasePromise { lease_ms: 100 * u32::from(what) })
            }
            (11, _) => Kind::ChangeSettings(Settings {
                nodes_max: 8 + u64::from(what % 8),
                lease_ms_max: if more % 4 == 0 { 100 * (1 + u32::from(what)) } else { 0 },
                bootstrap_principal: if more % 16 == 1 {
                    PRINCIPALS[usize::from(what) % 4].to_owned()
                } else {
                    String::new()
                },
                ..Settings::default()
            }),
            (13, _) => Kind::SetAcl(SetAclRequest {
                path,
                acl: Some(acl(mode, more)),
                if_generation: None,
                ..Default::default()
            }),
            (_, Some(session)) => Kind::Request(self.request(state, session, step, path)),
        };
        let principal = PRINCIPALS[usize::from(what / 16) % PRINCIPALS.len()].to_owned();
        Command { tag: u64::from(more), kind: Some(kind), principal, ..Default::default() }
    }

    fn request(&mut self, state: &State, session: SessionId, step: Step, path: String) -> SessionRequest {
        let [_, _, what, _, mode, more, ack, handle] = step;
        let last = self.numbers.entry(session).or_default();
        // Now and then a retry, or one that overtakes others.
        let number = match more % 16 {
            0 => 1 + u64::from(handle) % (*last + 1),
            1 => *last + 3,
            _ => *last + 1,
        };
        *last = number.max(*last);
        let known = state.session(session).expect("a session of the state");
        let open = (1..=number).map(HandleId).filter(|handle| known.has_handle(*handle));
        let handle = pick(open, handle).map_or(u64::from(handle), |handle| handle.0);
        let kind = i32::from(more % 3);
        let operation = match what % 20 {
            0..=4 => Operation::Open(Box::new(Open {
                // Relative to a directory, where the handle is one.
                directory: if more % 8 == 3 { handle } else { 0 },
                path: if more % 8 == 3 { "e".to_owned() } else { path },
                creation: i32::from(mode % 3),
                kind,
                ephemeral: mode % 2 == 0,
                lock_delay_ms: DELAYS_MS[usize::from(more / 64)],
                uses: (ack % 4 == 1).then_some(Uses {
                    read: true,
                    write: ack % 8 == 1,
                    change_acl: mode % 3 == 0,
                }),
                events: (1..9).filter(|kind| u64::from(ack) >> (kind % 8) & 1 == 1).collect(),
                caching: ack % 3 == 0,
                acl: (ack % 5 == 0).then(|| acl(mode, more)),
                contents: if kind == 2 {
                    bytes::Bytes::new()
                } else {
                    CONTENTS[usize::from(ack) % CONTENTS.len()].into()
                },
            })),
            5 => Operation::Close(Close { handle }),
            6 => Operation::SetContents(SetContents {
                handle,
                contents: CONTENTS[usize::from(mode) % CONTENTS.len()].into(),
                if_generation: None,
            }),
            7 => Operation::Delete(Delete { handle }),
            8 => Operation::SetAcl(Box::new(SetAcl {
                handle,
                acl: Some(acl(mode, more)),
                if_generation: None,
            })),
            9 => Operation::SetSequencer(SetSequencer { handle, sequencer: sequencer(state, mode) }),
            10..=14 => {
                let mode = 1 + i32::from(mode % 2);
                Operation::Acquire(Acquire { handle, mode, try_only: more % 8 == 2 })
            }
            15..=16 => Operation::Release(Release { handle }),
            _ => {
                let withdrawn = number.saturating_sub(u64::from(mode % 4));
                Operation::Cancel(Cancel {
                    number: withdrawn,
                    handle: if more % 2 == 0 { handle } else { 0 },
                })
            }
        };
        let acknowledged = (ack % 4 == 0).then(|| {
            let through = number.saturating_sub(u64::from(ack / 4));
            let first = through + 2;
            let ranges = if ack % 8 == 0 {
                vec![NumberRange { first, last: first + u64::from(ack % 3) }]
            } else {
                vec![]
            };
            Acknowledged { through, ranges }
        });
        SessionRequest {
            session: session.0,
            request: Some(Request { number, operation: Some(operation) }),
            acknowledged,
        }
    }
}

/// Names of access control lists; what is empty stays, or is inherited.
fn acl(mode: u8, more: u8) -> AclNames {
    let name = |chance: u8| LISTS[usize::from(chance) % LISTS.len()].to_owned();
    AclNames { read: name(mode), write: name(more), change: name(mode / 8) }
}

/// The sequencer of some lock that is held, or none.
fn sequencer(state: &State, chance: u8) -> String {
    let held = state.sessions().flat_map(|(id, session)| {
        state
            .locks_of(id)
            .into_iter()
            .map(move |grant| (session.handle_path(HandleId(grant.handle)), grant.granted))
    });
    match pick(held, chance) {
        Some((Some(path), Some(granted))) => {
            let mode = if granted.mode == 1 { "exclusive" } else { "shared" };
            format!("holdfast:1:{mode}:{}:{}:/ls/dev{path}", granted.lock_generation, granted.instance)
        }
        _ => String::new(),
    }
}

fn pick<T>(items: impl Iterator<Item = T>, chance: u8) -> Option<T> {
    let mut items: Vec<T> = items.collect();
    if items.is_empty() { None } else { Some(items.swap_remove(usize::from(chance) % items.len())) }
}
