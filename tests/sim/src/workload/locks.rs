//! Takes one of few locks, exclusive or shared, waits for it or not, loses patience, holds it for a while, works
//! under it, and gives it back in one of several ways.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, EventKind, HandleEvent, LockMode};
use holdfast_session::Token;

use super::stage::{Stage, Step};
use super::{Action, App, CallResult};
use crate::rng::Rng;

/// So few that clients meet.
const LOCKS: u64 = 3;

/// The workload.
#[derive(Debug)]
pub struct Locks {
    path: String,
    lock_delay_ms: u32,
    /// How long a lock is held at the most, in milliseconds.
    hold_ms_max: u64,
    /// A lock that is not needed is kept until somebody asks for it.
    keeps: bool,
    stage: Stage,
}

impl Locks {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let keeps = rng.per_mille(400);
        // It needs the lock until it is told that somebody else wants it.
        let stays = keeps && rng.per_mille(300);
        Self {
            path: format!("/locks/{}", rng.below(LOCKS)),
            lock_delay_ms: [0, 0, 300, 3_000][rng.index(4)],
            hold_ms_max: if stays { 60_000 } else { [5, 50, 1_000, 5_000][rng.index(4)] },
            keeps,
            stage: Stage::Rest,
        }
    }

    pub(super) fn start(&mut self, app: &mut App<'_>) {
        self.stage = Stage::OpeningDirectory(app.open_directory("/locks"));
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        match self.stage {
            Stage::Idle(handle) if app.draining => self.finish(app, handle),
            Stage::Idle(handle) => self.acquire(app, handle),
            // Waited long enough. While draining the queue must come to an end by itself.
            Stage::Acquiring(handle, token, _) if !app.draining => {
                app.act(Action::Cancel(token));
                self.stage = Stage::Idle(handle);
                app.wake_within(0, 200);
            }
            Stage::Holding(handle) => self.leave(app, handle),
            _ => {}
        }
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        match self.stage.step(token, result) {
            Some(Step::Directory) => {
                let events = if self.keeps { vec![EventKind::ConflictingRequest.into()] } else { Vec::new() };
                let file = app.file(&self.path, self.lock_delay_ms);
                self.stage =
                    Stage::Opening(app.call(Operation::Open(Box::new(wire::Open { events, ..file }))));
            }
            Some(Step::Opened(handle)) => {
                if self.keeps {
                    app.act(Action::KeepLocks(handle));
                }
                self.idle(app, handle);
            }
            Some(Step::Granted { handle, mode, generation }) => self.hold(app, handle, mode, generation),
            // Not granted: somebody else has it, or an earlier call that was withdrawn still has a say.
            Some(Step::NotGranted(handle, _) | Step::Left(handle)) => self.idle(app, handle),
            Some(Step::Closed) => {
                self.stage = Stage::Rest;
                if !app.draining {
                    self.start(app);
                }
            }
            None => {}
        }
    }

    /// Somebody asks for the lock: work under it is cut short.
    pub(super) fn hear(&mut self, app: &mut App<'_>, event: &HandleEvent) {
        if let Stage::Holding(handle) = self.stage
            && handle == event.handle
            && event.kinds().any(|kind| kind == EventKind::ConflictingRequest)
        {
            app.wake_within(0, 20);
        }
    }

    fn idle(&mut self, app: &mut App<'_>, handle: u64) {
        self.stage = Stage::Idle(handle);
        if app.draining {
            self.finish(app, handle);
        } else {
            app.wake_within(0, 100);
        }
    }

    fn acquire(&mut self, app: &mut App<'_>, handle: u64) {
        let mode = if app.rng.per_mille(600) { LockMode::Exclusive } else { LockMode::Shared };
        let try_only = app.rng.per_mille(200);
        self.stage = Stage::acquire(app, handle, mode, try_only);
        if app.rng.per_mille(300) {
            app.wake_within(0, 2_000);
        } else {
            app.wake_within(60_000, 60_000);
        }
    }

    fn hold(&mut self, app: &mut App<'_>, handle: u64, mode: LockMode, generation: u64) {
        self.stage = Stage::Holding(handle);
        app.act(Action::Guard { path: self.path.clone(), mode, generation });
        if app.draining {
            return self.leave(app, handle);
        }
        if app.rng.per_mille(300) {
            app.write(handle, generation, None);
        }
        if app.rng.per_mille(300) {
            app.read(handle);
        }
        if app.rng.per_mille(100) {
            app.stat(handle);
        }
        app.wake_within(0, self.hold_ms_max);
    }

    /// Gives the lock back, mostly by releasing it. What the holder still does before is in flight meanwhile.
    fn leave(&mut self, app: &mut App<'_>, handle: u64) {
        if app.rng.per_mille(300) {
            app.write(handle, 0, None);
        }
        app.act(Action::Unguard);
        match app.rng.below(10) {
            0 if !app.draining => self.stage = Stage::end(app, Action::Close),
            1 | 2 => self.stage = Stage::close(app, handle),
            _ => self.stage = Stage::release(app, handle),
        }
    }

    /// The run is to end. Whoever keeps its lock goes on keeping it: those who wait for it must get it all the same.
    fn finish(&mut self, app: &mut App<'_>, handle: u64) {
        self.stage = if self.keeps { Stage::Rest } else { Stage::close(app, handle) };
    }

    /// The library may still hold the lock, although the application does not.
    pub(super) fn may_keep_lock(&self) -> bool {
        self.keeps && self.stage == Stage::Rest
    }
}
