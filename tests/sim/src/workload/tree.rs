//! Makes nodes, permanent and ephemeral, of few names, and removes them: names come to mean other instances,
//! handles outlive their nodes, and orphans are left to be reaped.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, Creation, NodeKind};
use holdfast_session::Token;

use super::{App, CallResult};
use crate::rng::Rng;

/// So few that clients meet.
const NAMES: u64 = 4;

/// The workload.
#[derive(Debug)]
pub struct Tree {
    /// How long it pauses at the most, in milliseconds.
    pause_ms_max: u64,
    directory: Option<u64>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    OpeningDirectory(Token),
    Idle,
    Opening(Token),
    Open(u64),
    /// The handle is of no use any more once this call has ended.
    Using(u64, Token),
    Closing(Token),
    Reading(Token),
    /// Before the start, and after all.
    Rest,
}

impl Tree {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self { pause_ms_max: [5, 100, 1_000][rng.index(3)], directory: None, stage: Stage::Rest }
    }

    pub(super) fn start(&mut self, app: &mut App<'_>) {
        self.stage = Stage::OpeningDirectory(app.open_directory("/tree"));
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        match self.stage {
            Stage::Idle if app.draining => self.stage = Stage::Rest,
            Stage::Idle => self.begin(app),
            Stage::Open(handle) => self.use_handle(app, handle),
            _ => {}
        }
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        match (self.stage, result) {
            (Stage::OpeningDirectory(awaited), Ok(completion)) if awaited == token => {
                self.directory = Some(completion.handle.0);
                self.idle(app);
            }
            (Stage::Opening(awaited), Ok(completion)) if awaited == token => {
                self.stage = Stage::Open(completion.handle.0);
                app.wake_within(0, self.pause_ms_max);
            }
            // It exists and must not, or the other way round.
            (Stage::Opening(awaited), Err(_)) if awaited == token => self.idle(app),
            (Stage::Using(handle, awaited), _) if awaited == token => self.close(app, handle),
            (Stage::Closing(awaited) | Stage::Reading(awaited), _) if awaited == token => self.idle(app),
            _ => {}
        }
    }

    fn begin(&mut self, app: &mut App<'_>) {
        if let Some(handle) = self.directory
            && app.rng.per_mille(200)
        {
            let read = wire::ReadDir { handle, ..wire::ReadDir::default() };
            self.stage = Stage::Reading(app.call(Operation::ReadDir(read)));
            return;
        }
        let open = wire::Open {
            path: format!("/tree/{}", app.rng.below(NAMES)),
            creation: [Creation::Must, Creation::May, Creation::Unspecified][app.rng.index(3)].into(),
            kind: NodeKind::File.into(),
            ephemeral: app.rng.per_mille(500),
            contents: app.contents(0),
            caching: app.rng.per_mille(500),
            ..wire::Open::default()
        };
        let token = app.call(Operation::Open(Box::new(open)));
        self.stage = Stage::Opening(token);
    }

    fn use_handle(&mut self, app: &mut App<'_>, handle: u64) {
        let token = match app.rng.below(4) {
            0 => app.call(Operation::Delete(wire::Delete { handle })),
            1 => app.write(handle, 0, None),
            2 => app.read(handle),
            _ => return self.close(app, handle),
        };
        self.stage = Stage::Using(handle, token);
    }

    fn close(&mut self, app: &mut App<'_>, handle: u64) {
        self.stage = Stage::Closing(app.close_handle(handle));
    }

    fn idle(&mut self, app: &mut App<'_>) {
        self.stage = if app.draining { Stage::Rest } else { Stage::Idle };
        app.wake_within(0, self.pause_ms_max);
    }
}
