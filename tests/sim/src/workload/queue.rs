//! Waits for one lock with all the others, shared or exclusive, and leaves the queue in every way there is: with the
//! lock, out of patience, by closing the handle, by ending the session, by dying.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, LockMode, RefusalCode};
use holdfast_session::{CallError, Token};

use super::stage::{Stage, Step};
use super::{Action, App, CallResult};
use crate::rng::Rng;

/// So few that there is a queue.
const LOCKS: u64 = 2;

/// The workload.
#[derive(Debug)]
pub struct Queue {
    path: String,
    lock_delay_ms: u32,
    /// How long a lock is held at the most, in milliseconds.
    hold_ms_max: u64,
    /// How long it is waited for at the most.
    patience_ms_max: u64,
    stage: Stage,
}

impl Queue {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self {
            path: format!("/queue/{}", rng.below(LOCKS)),
            lock_delay_ms: [0, 500, 2_000, 10_000][rng.index(4)],
            hold_ms_max: [20, 300, 2_000][rng.index(3)],
            patience_ms_max: [50, 2_000, 20_000][rng.index(3)],
            stage: Stage::Rest,
        }
    }

    pub(super) fn start(&mut self, app: &mut App<'_>) {
        self.stage = Stage::OpeningDirectory(app.open_directory("/queue"));
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        match self.stage {
            Stage::Idle(handle) if app.draining => self.stage = Stage::close(app, handle),
            Stage::Idle(handle) => self.wait(app, handle),
            // While draining the queue must come to an end by itself.
            Stage::Acquiring(handle, token, _) if !app.draining => self.lose_patience(app, handle, token),
            Stage::Holding(handle) => self.leave(app, handle),
            _ => {}
        }
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        match self.stage.step(token, result) {
            Some(Step::Directory) => {
                self.stage = Stage::Opening(app.open_file(&self.path.clone(), self.lock_delay_ms));
            }
            Some(Step::Opened(handle) | Step::Left(handle)) => self.idle(app, handle),
            Some(Step::Granted { handle, mode, generation }) => self.hold(app, handle, mode, generation),
            // The lock could not be had at once; or somebody deleted the node just before.
            Some(Step::NotGranted(handle, error)) => match error {
                CallError::Refused(refusal) if refusal.code() == RefusalCode::NodeGone => {
                    self.stage = Stage::close(app, handle);
                }
                _ => self.idle(app, handle),
            },
            Some(Step::Closed) => {
                self.stage = Stage::Rest;
                if !app.draining {
                    self.start(app);
                }
            }
            None => {}
        }
    }

    fn wait(&mut self, app: &mut App<'_>, handle: u64) {
        let mode = if app.rng.per_mille(500) { LockMode::Exclusive } else { LockMode::Shared };
        let try_only = app.rng.per_mille(50);
        self.stage = Stage::acquire(app, handle, mode, try_only);
        app.wake_within(0, self.patience_ms_max);
    }

    fn lose_patience(&mut self, app: &mut App<'_>, handle: u64, token: Token) {
        match app.rng.below(20) {
            // Deleting a node whose lock is wanted is refused.
            0..6 => {
                app.call(Operation::Delete(wire::Delete { handle }));
                app.wake_within(0, self.patience_ms_max);
            }
            6..9 => self.stage = Stage::close(app, handle),
            9 => self.stage = Stage::end(app, Action::Close),
            10 => self.stage = Stage::end(app, Action::Die),
            _ => {
                app.act(Action::Cancel(token));
                self.idle(app, handle);
            }
        }
    }

    fn hold(&mut self, app: &mut App<'_>, handle: u64, mode: LockMode, generation: u64) {
        self.stage = Stage::Holding(handle);
        app.act(Action::Guard { path: self.path.clone(), mode, generation });
        if app.draining {
            return self.leave(app, handle);
        }
        app.wake_within(0, self.hold_ms_max);
    }

    fn leave(&mut self, app: &mut App<'_>, handle: u64) {
        app.act(Action::Unguard);
        match app.rng.below(20) {
            0 if !app.draining => self.stage = Stage::end(app, Action::Die),
            1 if !app.draining => self.stage = Stage::end(app, Action::Close),
            2 | 3 => self.stage = Stage::close(app, handle),
            _ => self.stage = Stage::release(app, handle),
        }
    }

    fn idle(&mut self, app: &mut App<'_>, handle: u64) {
        self.stage = Stage::Idle(handle);
        if app.draining {
            self.stage = Stage::close(app, handle);
        } else {
            app.wake_within(0, 40);
        }
    }
}
