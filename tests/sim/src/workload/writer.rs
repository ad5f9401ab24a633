//! Writes and reads a shared file, several calls at a time, so that requests of one session overlap and share
//! frames.

use holdfast_session::Token;

use super::{Action, App, CallResult};
use crate::rng::Rng;

/// So few that clients meet.
const FILES: u64 = 3;

/// The workload.
#[derive(Debug)]
pub struct Writer {
    path: String,
    /// How many calls it makes at once.
    burst_max: u64,
    /// How long it pauses at the most, in milliseconds.
    pause_ms_max: u64,
    /// It ends its session after so many bursts.
    bursts_left: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    OpeningDirectory(Token),
    Opening(Token),
    Idle(u64),
    /// So many calls have not ended.
    Busy(u64, u64),
    /// Before the start, and after all.
    Rest,
}

impl Writer {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self {
            path: format!("/files/{}", rng.below(FILES)),
            burst_max: [1, 4, 20][rng.index(3)],
            pause_ms_max: [5, 100, 1_000][rng.index(3)],
            bursts_left: rng.between(1, 200),
            stage: Stage::Rest,
        }
    }

    pub(super) fn start(&mut self, app: &mut App<'_>) {
        self.stage = Stage::OpeningDirectory(app.open_directory("/files"));
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        let Stage::Idle(handle) = self.stage else { return };
        if app.draining {
            self.stage = Stage::Rest;
            return;
        }
        if self.bursts_left == 0 {
            self.stage = Stage::Rest;
            app.act(Action::Close);
            return;
        }
        self.bursts_left -= 1;
        let count = app.rng.between(1, self.burst_max);
        for _ in 0..count {
            match app.rng.below(10) {
                0..5 => app.write(handle, 0, None),
                5..9 => app.read(handle),
                _ => app.stat(handle),
            };
        }
        self.stage = Stage::Busy(handle, count);
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        match (self.stage, result) {
            (Stage::OpeningDirectory(awaited), Ok(_)) if awaited == token => {
                self.stage = Stage::Opening(app.open_file(&self.path.clone(), 0));
            }
            (Stage::Opening(awaited), Ok(completion)) if awaited == token => {
                self.idle(app, completion.handle.0);
            }
            (Stage::Busy(handle, 1), _) => self.idle(app, handle),
            (Stage::Busy(handle, left), _) => self.stage = Stage::Busy(handle, left - 1),
            _ => {}
        }
    }

    fn idle(&mut self, app: &mut App<'_>, handle: u64) {
        self.stage = if app.draining { Stage::Rest } else { Stage::Idle(handle) };
        app.wake_within(0, self.pause_ms_max);
    }
}
