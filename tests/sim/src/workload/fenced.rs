//! Writes a file under the sequencer of a lock: as long as the lock is held it may, and from the moment it is not, no
//! write that was begun under it may take effect (I2).

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, LockMode, outcome};
use holdfast_session::Token;

use super::{App, CallResult};
use crate::rng::Rng;

/// The workload.
#[derive(Debug)]
pub struct Fenced {
    /// The handle of the lock.
    lock: u64,
    /// The handle that depends on it.
    target: u64,
    /// How long it holds the lock at the most, in milliseconds.
    hold_ms_max: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    OpeningDirectory(Token),
    OpeningLock(Token),
    OpeningTarget(Token),
    Idle,
    Acquiring(Token),
    Asking(Token),
    Binding(Token),
    Holding,
    Releasing(Token),
    /// Before the start, and after all.
    Rest,
}

impl Fenced {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self { lock: 0, target: 0, hold_ms_max: [5, 100, 1_500][rng.index(3)], stage: Stage::Rest }
    }

    pub(super) fn start(&mut self, app: &mut App<'_>) {
        self.stage = Stage::OpeningDirectory(app.open_directory("/fenced"));
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        match self.stage {
            Stage::Idle if app.draining => self.stage = Stage::Rest,
            Stage::Idle => {
                let (handle, mode) = (self.lock, LockMode::Exclusive.into());
                let acquire = wire::Acquire { handle, mode, try_only: app.rng.per_mille(300) };
                self.stage = Stage::Acquiring(app.call(Operation::Acquire(acquire)));
            }
            Stage::Holding => self.release(app),
            _ => {}
        }
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        let ok = result.as_ref().ok();
        match (self.stage, ok) {
            (Stage::OpeningDirectory(awaited), Some(_)) if awaited == token => {
                self.stage = Stage::OpeningLock(app.open_file("/fenced/lock", 0));
            }
            (Stage::OpeningLock(awaited), Some(completion)) if awaited == token => {
                self.lock = completion.handle.0;
                self.stage = Stage::OpeningTarget(app.open_file("/fenced/target", 0));
            }
            (Stage::OpeningTarget(awaited), Some(completion)) if awaited == token => {
                self.target = completion.handle.0;
                self.idle(app);
            }
            (Stage::Acquiring(awaited), Some(_)) if awaited == token => {
                let ask = wire::GetSequencer { handle: self.lock };
                self.stage = Stage::Asking(app.call(Operation::GetSequencer(ask)));
            }
            (Stage::Asking(awaited), Some(completion)) if awaited == token => {
                let outcome::Result::Sequencer(text) = &completion.result else { return };
                let bind = wire::SetSequencer { handle: self.target, sequencer: text.sequencer.clone() };
                self.stage = Stage::Binding(app.call(Operation::SetSequencer(bind)));
            }
            (Stage::Binding(awaited), Some(_)) if awaited == token => {
                self.stage = Stage::Holding;
                self.write(app);
                app.wake_within(0, self.hold_ms_max);
            }
            (Stage::Acquiring(awaited), None) if awaited == token => self.idle(app),
            (Stage::Asking(awaited) | Stage::Binding(awaited), None) if awaited == token => self.release(app),
            (Stage::Releasing(awaited), _) if awaited == token => self.idle(app),
            _ => {}
        }
    }

    /// Gives the lock back. What is written meanwhile and afterwards is decided before, or refused.
    fn release(&mut self, app: &mut App<'_>) {
        self.write(app);
        let release = wire::Release { handle: self.lock };
        self.stage = Stage::Releasing(app.call(Operation::Release(release)));
        self.write(app);
    }

    fn write(&self, app: &mut App<'_>) {
        app.write(self.target, 0, None);
        app.read(self.target);
    }

    fn idle(&mut self, app: &mut App<'_>) {
        self.stage = if app.draining { Stage::Rest } else { Stage::Idle };
        app.wake_within(0, 200);
    }
}
