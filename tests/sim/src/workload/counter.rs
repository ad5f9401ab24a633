//! Counts in a file that all counters share: reads the number, writes the next one if the file still has the
//! generation that was read, and begins again if it has not.

use holdfast_proto::client::v1::outcome;
use holdfast_session::Token;

use super::{App, CallResult};

/// The file.
pub(crate) const COUNTER: &str = "/files/counter";

/// The workload.
#[derive(Debug, Default)]
pub struct Counter {
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Before the start, and after all.
    #[default]
    Rest,
    OpeningDirectory(Token),
    Opening(Token),
    Idle(u64),
    Reading(u64, Token),
    Writing(u64, Token),
}

impl Counter {
    pub(super) fn start(&mut self, app: &mut App<'_>) {
        self.stage = Stage::OpeningDirectory(app.open_directory("/files"));
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        match self.stage {
            Stage::Idle(_) if app.draining => self.stage = Stage::Rest,
            Stage::Idle(handle) => self.stage = Stage::Reading(handle, app.read(handle)),
            _ => {}
        }
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        match (self.stage, result) {
            (Stage::OpeningDirectory(awaited), Ok(_)) if awaited == token => {
                self.stage = Stage::Opening(app.open_file(COUNTER, 0));
            }
            (Stage::Opening(awaited), Ok(completion)) if awaited == token => {
                self.idle(app, completion.handle.0);
            }
            (Stage::Reading(handle, awaited), Ok(completion)) if awaited == token => {
                let outcome::Result::Contents(read) = &completion.result else { return };
                let generation = read.stat.as_ref().map_or(0, |stat| stat.content_generation);
                let next = number_in(&read.contents) + 1;
                self.stage = Stage::Writing(handle, app.write(handle, next, Some(generation)));
            }
            (Stage::Writing(handle, awaited), _) if awaited == token => self.idle(app, handle),
            _ => {}
        }
    }

    fn idle(&mut self, app: &mut App<'_>, handle: u64) {
        self.stage = if app.draining { Stage::Rest } else { Stage::Idle(handle) };
        app.wake_within(0, 50);
    }
}

/// The number that contents begin with.
pub(crate) fn number_in(contents: &[u8]) -> u64 {
    let digits = contents.iter().take_while(|byte| byte.is_ascii_digit());
    digits.fold(0, |number, digit| number * 10 + u64::from(digit - b'0'))
}
