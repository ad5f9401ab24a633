//! Watches nodes that others change, with events of chosen kinds, and reads when it hears of one: what it reads then
//! must be what it heard of, or newer.

use bytes::Bytes;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, Creation, EventKind, HandleEvent, NodeKind};
use holdfast_session::Token;

use super::{App, CallResult};
use crate::rng::Rng;

/// What may be watched, and whether it is a directory.
const NODES: [(&str, bool); 6] = [
    ("/files", true),
    ("/tree", true),
    ("/files/0", false),
    ("/files/counter", false),
    ("/locks/0", false),
    ("/tree/1", false),
];
const KINDS: [EventKind; 7] = [
    EventKind::ContentsModified,
    EventKind::ChildAdded,
    EventKind::ChildRemoved,
    EventKind::ChildModified,
    EventKind::AclChanged,
    EventKind::HandleInvalid,
    EventKind::LockAcquired,
];
/// It watches so many nodes at once.
const HANDLES_MAX: usize = 3;

/// So many files are watched that hardly ever change: what is not told of them at once, nothing later makes up for.
const SELDOM: u64 = 9;

/// The workload.
#[derive(Debug)]
pub struct Watcher {
    /// What it watches, and whether that is a directory.
    handles: Vec<(u64, bool)>,
    opening: Option<(Token, bool)>,
    /// What is being opened is a file that hardly ever changes.
    seldom: bool,
    resting: bool,
}

impl Watcher {
    pub(super) fn draw(_rng: &mut Rng) -> Self {
        Self { handles: Vec::new(), opening: None, seldom: false, resting: true }
    }

    pub(super) fn start(&mut self, app: &mut App<'_>) {
        self.resting = false;
        self.open(app);
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        if self.resting || app.draining {
            self.resting = true;
            return;
        }
        if self.handles.len() >= HANDLES_MAX {
            let (handle, _) = self.handles.swap_remove(app.rng.index(HANDLES_MAX));
            app.close_handle(handle);
        }
        if self.opening.is_none() {
            self.open(app);
        }
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        let Some((awaited, is_directory)) = self.opening else { return };
        if awaited != token {
            return;
        }
        self.opening = None;
        if let Ok(completion) = result {
            self.handles.push((completion.handle.0, is_directory));
            if self.seldom && !app.draining && app.rng.per_mille(150) {
                app.write(completion.handle.0, 0, None);
            }
        }
        app.wake_within(0, if self.handles.len() < HANDLES_MAX { 200 } else { 10_000 });
    }

    pub(super) fn hear(&mut self, app: &mut App<'_>, event: &HandleEvent) {
        let Some((handle, is_directory)) = self.handles.iter().copied().find(|(id, _)| *id == event.handle)
        else {
            return;
        };
        match (app.rng.below(3), is_directory) {
            (0, _) => app.stat(handle),
            (_, true) => app.call(Operation::ReadDir(wire::ReadDir { handle, ..wire::ReadDir::default() })),
            (_, false) => app.read(handle),
        };
    }

    /// What to watch, and whether that is a directory.
    fn choose(&mut self, app: &mut App<'_>) -> (String, bool) {
        self.seldom = app.rng.per_mille(400);
        if self.seldom {
            return (format!("/seldom-{}", app.rng.below(SELDOM)), false);
        }
        let (path, is_directory) = NODES[app.rng.index(NODES.len())];
        (path.to_owned(), is_directory)
    }

    fn open(&mut self, app: &mut App<'_>) {
        let (path, is_directory) = self.choose(app);
        let all = app.rng.per_mille(500);
        let events = KINDS.into_iter().filter(|_| all || app.rng.per_mille(400)).map(i32::from).collect();
        let creation = if is_directory || self.seldom { Creation::May } else { Creation::Unspecified }.into();
        let kind = if is_directory { NodeKind::Directory } else { NodeKind::File }.into();
        let contents = if self.seldom { app.contents(0) } else { Bytes::new() };
        let caching = app.rng.per_mille(500);
        let open = wire::Open { path, creation, kind, events, caching, contents, ..wire::Open::default() };
        let token = app.call(Operation::Open(Box::new(open)));
        self.opening = Some((token, is_directory));
    }
}
