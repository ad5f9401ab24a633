//! Random workloads that hit each other: few sessions, few names, every kind of command.
//!
//! A step is a handful of bytes; what it means depends on the state, so that handles, delays and orphans that
//! exist are what most steps are about. The same steps on the same state give the same commands.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    Acknowledged, Acquire, Cancel, Close, Delete, DeleteRequest, NumberRange, Open, Release, Request,
    SetContents, SetContentsRequest, Settings,
};
use holdfast_proto::log::v1::command::Kind;
use holdfast_proto::log::v1::{Command, EndLockDelay, EndSession, OpenSession, ReapNode, SessionRequest};
use holdfast_state::{Genesis, SnapshotReader, State, settings};
use holdfast_types::{HandleId, SessionId};

/// Eight bytes of chance.
pub(crate) type Step = [u8; 8];

const PATHS: [&str; 7] = ["/a", "/b", "/d", "/d/a", "/d/b", "/d/e", "/d/e/a"];
const DELAYS_MS: [u32; 4] = [0, 100, 500, 60_000];

/// A new cell.
pub(crate) fn genesis() -> State {
    State::genesis(Genesis {
        cell: "dev".to_owned(),
        cell_id: 9,
        members: Vec::new(),
        settings: Settings {
            sessions_max: 6,
            nodes_max: 7,
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
            }),
            (3 | 12, Some(session)) => {
                Kind::EndSession(EndSession { session: session.0, reason: 1 + i32::from(mode % 3 == 0) })
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
            (9, _) => Kind::Delete(DeleteRequest { path, if_instance: None }),
            (10, _) => Kind::SetContents(SetContentsRequest {
                path,
                contents: vec![what; usize::from(more % 4)].into(),
                if_generation: (mode % 4 == 0).then_some(0),
                create: mode % 2 == 0,
                kind: i32::from(mode % 4 == 0) * 2 * i32::from(more % 4 == 0),
            }),
            (11, _) => {
                Kind::ChangeSettings(Settings { nodes_max: 4 + u64::from(what % 8), ..Settings::default() })
            }
            (_, Some(session)) => Kind::Request(self.request(state, session, step, path)),
        };
        Command { tag: u64::from(more), kind: Some(kind) }
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
        let operation = match what % 16 {
            0..=3 => Operation::Open(Open {
                path,
                creation: i32::from(mode % 3),
                kind: i32::from(more % 3),
                ephemeral: mode % 2 == 0,
                lock_delay_ms: DELAYS_MS[usize::from(more / 64)],
                ..Open::default()
            }),
            4 => Operation::Close(Close { handle }),
            5 => Operation::SetContents(SetContents {
                handle,
                contents: vec![what].into(),
                if_generation: None,
            }),
            6 => Operation::Delete(Delete { handle }),
            7..=11 => {
                let mode = 1 + i32::from(mode % 2);
                Operation::Acquire(Acquire { handle, mode, try_only: more % 8 == 2 })
            }
            12..=13 => Operation::Release(Release { handle }),
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

fn pick<T>(items: impl Iterator<Item = T>, chance: u8) -> Option<T> {
    let mut items: Vec<T> = items.collect();
    if items.is_empty() { None } else { Some(items.swap_remove(usize::from(chance) % items.len())) }
}
