//! Reads and writes one file with everybody else, through caches, as fast as it goes: every write has to wait for all
//! who may have a copy. Some write under the file's lock and give it back in the same breath.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, LockMode, outcome};
use holdfast_session::Token;

use super::{Action, App, CallResult};
use crate::rng::Rng;

const PATH: &str = "/hot/file";

/// The workload.
#[derive(Debug)]
pub struct Hot {
    /// It only reads.
    reads: bool,
    /// It writes under the lock.
    locks: bool,
    /// How long it pauses at the most, in milliseconds.
    pause_ms_max: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    OpeningDirectory(Token),
    Opening(Token),
    Idle(u64),
    /// Until this call has ended.
    Using(u64, Token),
    Acquiring(u64, Token),
    /// Before the start, and after all.
    Rest,
}

impl Hot {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let reads = rng.per_mille(500);
        let pause_ms_max = if reads { [2, 20][rng.index(2)] } else { [20, 200, 1_000][rng.index(3)] };
        Self { reads, locks: !reads && rng.per_mille(500), pause_ms_max, stage: Stage::Rest }
    }

    pub(super) fn start(&mut self, app: &mut App<'_>) {
        self.stage = Stage::OpeningDirectory(app.open_directory("/hot"));
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        let Stage::Idle(handle) = self.stage else { return };
        if app.draining {
            self.stage = Stage::Rest;
        } else if self.reads {
            self.stage = Stage::Using(
                handle,
                if app.rng.per_mille(900) { app.read(handle) } else { app.stat(handle) },
            );
        } else if self.locks {
            let acquire = wire::Acquire { handle, mode: LockMode::Exclusive.into(), try_only: false };
            self.stage = Stage::Acquiring(handle, app.call(Operation::Acquire(acquire)));
        } else {
            self.stage = Stage::Using(handle, app.write(handle, 0, None));
        }
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        match (self.stage, result) {
            (Stage::OpeningDirectory(awaited), Ok(_)) if awaited == token => {
                let open = wire::Open { caching: true, ..app.file(PATH, 0) };
                self.stage = Stage::Opening(app.call(Operation::Open(Box::new(open))));
            }
            (Stage::Opening(awaited), Ok(completion)) if awaited == token => {
                self.idle(app, completion.handle.0);
            }
            (Stage::Acquiring(handle, awaited), Ok(completion)) if awaited == token => {
                if let outcome::Result::Granted(_) = &completion.result {
                    self.write_and_release(app, handle);
                }
            }
            (Stage::Acquiring(handle, awaited) | Stage::Using(handle, awaited), _) if awaited == token => {
                self.idle(app, handle);
            }
            _ => {}
        }
    }

    /// The lock must not be free before the write has taken effect.
    fn write_and_release(&mut self, app: &mut App<'_>, handle: u64) {
        app.write(handle, 0, None);
        let release = app.call(Operation::Release(wire::Release { handle }));
        self.stage = Stage::Using(handle, release);
        if app.rng.per_mille(20) && !app.draining {
            self.stage = Stage::Rest;
            app.act(Action::Die);
        }
    }

    fn idle(&mut self, app: &mut App<'_>, handle: u64) {
        self.stage = if app.draining { Stage::Rest } else { Stage::Idle(handle) };
        app.wake_within(0, self.pause_ms_max);
    }
}
