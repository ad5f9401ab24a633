//! Registers itself under an ephemeral name, or watches who is registered: names appear and vanish with the sessions of
//! those who made them, and the watchers' lists follow.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, Creation, EventKind, HandleEvent, NodeKind};
use holdfast_session::Token;

use super::{Action, App, CallResult};
use crate::rng::Rng;

/// So few that a name is often taken.
const NAMES: u64 = 5;

/// The workload.
#[derive(Debug)]
pub struct Registry {
    /// It watches, and does not register.
    watches: bool,
    stay_ms_max: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    OpeningDirectory(Token),
    Registering(Token),
    Registered(u64),
    Leaving(Token),
    Watching(u64),
    Idle,
    /// Before the start, and after all.
    Rest,
}

impl Registry {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let stay_ms_max = [30, 500, 5_000][rng.index(3)];
        Self { watches: rng.per_mille(300), stay_ms_max, stage: Stage::Rest }
    }

    pub(super) fn start(&mut self, app: &mut App<'_>) {
        let mut open = App::directory("/registry");
        if self.watches {
            let kinds = [EventKind::ChildAdded, EventKind::ChildRemoved, EventKind::ChildModified];
            open.events = kinds.into_iter().map(i32::from).collect();
            open.caching = app.rng.per_mille(700);
        }
        self.stage = Stage::OpeningDirectory(app.call(Operation::Open(Box::new(open))));
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        match self.stage {
            Stage::Idle if app.draining => self.stage = Stage::Rest,
            Stage::Idle => self.register(app),
            Stage::Registered(handle) => self.leave(app, handle),
            Stage::Watching(handle) if !app.draining => {
                list(app, handle);
                app.wake_within(0, self.stay_ms_max);
            }
            _ => {}
        }
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        match (self.stage, result) {
            (Stage::OpeningDirectory(awaited), Ok(completion)) if awaited == token => {
                self.stage = if self.watches { Stage::Watching(completion.handle.0) } else { Stage::Idle };
                app.wake_within(0, 50);
            }
            (Stage::Registering(awaited), Ok(completion)) if awaited == token => {
                self.stage = Stage::Registered(completion.handle.0);
                app.wake_within(0, self.stay_ms_max);
            }
            // Somebody else has the name; or this one is gone.
            (Stage::Registering(awaited) | Stage::Leaving(awaited), _) if awaited == token => {
                self.stage = if app.draining { Stage::Rest } else { Stage::Idle };
                app.wake_within(0, 100);
            }
            _ => {}
        }
    }

    pub(super) fn hear(&mut self, app: &mut App<'_>, event: &HandleEvent) {
        if self.stage == Stage::Watching(event.handle) {
            list(app, event.handle);
        }
    }

    fn register(&mut self, app: &mut App<'_>) {
        let open = wire::Open {
            path: format!("/registry/{}", app.rng.below(NAMES)),
            creation: [Creation::Must, Creation::May][app.rng.index(2)].into(),
            kind: NodeKind::File.into(),
            ephemeral: true,
            contents: app.contents(0),
            ..wire::Open::default()
        };
        self.stage = Stage::Registering(app.call(Operation::Open(Box::new(open))));
    }

    /// Its name goes with the handle, or with the session.
    fn leave(&mut self, app: &mut App<'_>, handle: u64) {
        match app.rng.below(10) {
            0 | 1 if !app.draining => {
                self.stage = Stage::Rest;
                app.act(Action::Die);
            }
            2 if !app.draining => {
                self.stage = Stage::Rest;
                app.act(Action::Close);
            }
            _ => self.stage = Stage::Leaving(app.close_handle(handle)),
        }
    }
}

fn list(app: &mut App<'_>, handle: u64) {
    app.call(Operation::ReadDir(wire::ReadDir { handle, ..wire::ReadDir::default() }));
}
