//! Reads what others write, again and again, through handles that cache: contents, metadata, lists of children, names
//! that do not exist, and names that were opened before.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, Uses};
use holdfast_session::Token;

use super::{App, CallResult};
use crate::rng::Rng;

/// More handles than this are not kept open.
const HANDLES_MAX: usize = 4;

/// The workload.
#[derive(Debug)]
pub struct Reader {
    /// The directory whose files are read.
    directory: &'static str,
    /// How long it pauses at the most, in milliseconds.
    pause_ms_max: u64,
    caching: bool,
    /// It keeps what it has open for ever, so that it needs nothing from the master but answers to reads.
    settles: bool,
    directory_handle: Option<u64>,
    handles: Vec<u64>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    OpeningDirectory(Token),
    Opening(Token),
    Using(Token),
    Idle,
    /// Before the start, and after all.
    Rest,
}

impl Reader {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self {
            directory: ["/files", "/files", "/tree", "/named"][rng.index(4)],
            pause_ms_max: [5, 30, 300][rng.index(3)],
            caching: rng.per_mille(600),
            settles: rng.per_mille(600),
            directory_handle: None,
            handles: Vec::new(),
            stage: Stage::Rest,
        }
    }

    pub(super) fn start(&mut self, app: &mut App<'_>) {
        let open = wire::Open { caching: self.caching, ..App::directory(self.directory) };
        self.stage = Stage::OpeningDirectory(app.call(Operation::Open(Box::new(open))));
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        if self.stage != Stage::Idle {
            return;
        }
        if app.draining {
            self.stage = Stage::Rest;
            return;
        }
        self.step(app);
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        match (self.stage, result) {
            (Stage::OpeningDirectory(awaited), Ok(completion)) if awaited == token => {
                self.directory_handle = Some(completion.handle.0);
            }
            (Stage::Opening(awaited), Ok(completion)) if awaited == token => {
                self.handles.push(completion.handle.0);
            }
            (Stage::OpeningDirectory(awaited) | Stage::Opening(awaited) | Stage::Using(awaited), _)
                if awaited == token => {}
            _ => return,
        }
        self.stage = if app.draining { Stage::Rest } else { Stage::Idle };
        app.wake_within(0, self.pause_ms_max);
    }

    fn step(&mut self, app: &mut App<'_>) {
        let handle = (!self.handles.is_empty()).then(|| app.rng.index(self.handles.len()));
        let choices = if self.settles && self.handles.len() >= HANDLES_MAX { 9 } else { 12 };
        let token = match (app.rng.below(choices), handle, self.directory_handle) {
            (0..=4, Some(index), _) => app.read(self.handles[index]),
            (5 | 6, Some(index), _) => app.stat(self.handles[index]),
            (7 | 8, _, Some(directory)) => {
                app.call(Operation::ReadDir(wire::ReadDir { handle: directory, ..wire::ReadDir::default() }))
            }
            (9, Some(index), _) => app.close_handle(self.handles.swap_remove(index)),
            (_, Some(index), _) if self.handles.len() >= HANDLES_MAX => {
                app.close_handle(self.handles.swap_remove(index))
            }
            _ => return self.open(app),
        };
        self.stage = Stage::Using(token);
    }

    /// Opens a name that others make, and some that nobody does. Relative to the directory, or not.
    fn open(&mut self, app: &mut App<'_>) {
        let name = app.rng.below(5).to_string();
        let (path, directory) = match self.directory_handle {
            Some(directory) if app.rng.per_mille(500) => (name, directory),
            _ => (format!("{}/{name}", self.directory), 0),
        };
        let uses = app.rng.per_mille(700).then_some(Uses { read: true, write: false, change_acl: false });
        let open = wire::Open { path, directory, uses, caching: self.caching, ..wire::Open::default() };
        let token = app.call(Operation::Open(Box::new(open)));
        self.stage = Stage::Opening(token);
    }
}
