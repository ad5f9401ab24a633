//! A short session: opens a file, takes its lock or not, and is closed, or just ends with its process. Hundreds of them
//! come and go in one run.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, LockMode};
use holdfast_session::Token;

use super::{Action, App, CallResult};
use crate::rng::Rng;

/// So many locks are taken.
const LOCKS: u64 = 6;

/// The workload.
#[derive(Debug)]
pub struct Churn {
    path: String,
    hold_ms_max: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    OpeningDirectory(Token),
    Opening(Token),
    Acquiring(Token),
    /// It leaves when it is woken.
    Holding,
    /// Before the start, and after all.
    Rest,
}

impl Churn {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let path = format!("/churn/{}", rng.below(LOCKS));
        Self { path, hold_ms_max: [1, 20, 200][rng.index(3)], stage: Stage::Rest }
    }

    pub(super) fn start(&mut self, app: &mut App<'_>) {
        self.stage = Stage::OpeningDirectory(app.open_directory("/churn"));
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        if self.stage == Stage::Holding {
            self.leave(app);
        }
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        match (self.stage, result) {
            (Stage::OpeningDirectory(awaited), Ok(_)) if awaited == token => {
                self.stage = Stage::Opening(app.open_file(&self.path.clone(), 0));
            }
            (Stage::Opening(awaited), Ok(completion)) if awaited == token => {
                let (handle, mode) = (completion.handle.0, LockMode::Exclusive.into());
                let acquire = wire::Acquire { handle, mode, try_only: app.rng.per_mille(800) };
                self.stage = Stage::Acquiring(app.call(Operation::Acquire(acquire)));
            }
            (Stage::Acquiring(awaited), _) if awaited == token => {
                self.stage = Stage::Holding;
                app.wake_within(0, self.hold_ms_max);
            }
            _ => {}
        }
    }

    fn leave(&mut self, app: &mut App<'_>) {
        self.stage = Stage::Rest;
        let dies = app.rng.per_mille(300) && !app.draining;
        app.act(if dies { Action::Die } else { Action::Close });
    }
}
