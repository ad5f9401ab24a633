//! Wants to be elected, as others do, and gives orders to a resource outside the cell while it is. Orders carry the
//! generation of its office, and some take so long that another is in office when they arrive (I2).

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, LockMode, outcome};
use holdfast_session::Token;

use super::{Action, App, CallResult};
use crate::rng::Rng;

/// What the office is held by.
pub(crate) const OFFICE: &str = "/election/office";

/// The workload.
#[derive(Debug)]
pub struct Election {
    /// How long it stays in office at the most, in milliseconds.
    term_ms_max: u64,
    /// How many orders it may still give before it resigns.
    orders_left: u64,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    OpeningDirectory(Token),
    Opening(Token),
    Standing(u64, Token),
    /// In office, at a generation.
    Office(u64, u64),
    Resigning(u64, Token),
    Idle(u64),
    /// Before the start, and after all.
    Rest,
}

impl Election {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self { term_ms_max: [20, 300, 3_000][rng.index(3)], orders_left: 0, stage: Stage::Rest }
    }

    pub(super) fn start(&mut self, app: &mut App<'_>) {
        self.stage = Stage::OpeningDirectory(app.open_directory("/election"));
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        match self.stage {
            Stage::Idle(_) if app.draining => self.stage = Stage::Rest,
            Stage::Idle(handle) => self.stand(app, handle),
            Stage::Office(handle, _) if self.orders_left == 0 || app.draining => self.resign(app, handle),
            Stage::Office(_, generation) => self.order(app, generation),
            _ => {}
        }
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        match (self.stage, result) {
            (Stage::OpeningDirectory(awaited), Ok(_)) if awaited == token => {
                let lock_delay_ms = [0, 0, 1_000][app.rng.index(3)];
                self.stage = Stage::Opening(app.open_file(OFFICE, lock_delay_ms));
            }
            (Stage::Opening(awaited), Ok(completion)) if awaited == token => {
                self.stand(app, completion.handle.0);
            }
            (Stage::Standing(handle, awaited), Ok(completion)) if awaited == token => {
                let outcome::Result::Granted(granted) = &completion.result else { return };
                let (mode, generation) = (LockMode::Exclusive, granted.lock_generation);
                app.act(Action::Guard { path: OFFICE.to_owned(), mode, generation });
                self.stage = Stage::Office(handle, generation);
                self.orders_left = app.rng.between(0, 20);
                self.order(app, generation);
            }
            (Stage::Standing(handle, awaited), Err(_)) | (Stage::Resigning(handle, awaited), _)
                if awaited == token =>
            {
                self.stage = if app.draining { Stage::Rest } else { Stage::Idle(handle) };
                app.wake_within(0, 300);
            }
            _ => {}
        }
    }

    fn stand(&mut self, app: &mut App<'_>, handle: u64) {
        if app.draining {
            self.stage = Stage::Rest;
            return;
        }
        let acquire = wire::Acquire { handle, mode: LockMode::Exclusive.into(), try_only: false };
        self.stage = Stage::Standing(handle, app.call(Operation::Acquire(acquire)));
    }

    /// Gives an order. Mostly it arrives at once; sometimes it is stuck in a queue for long.
    fn order(&mut self, app: &mut App<'_>, generation: u64) {
        self.orders_left = self.orders_left.saturating_sub(1);
        let most = [1, 1, 20, 2_000, 15_000][app.rng.index(5)];
        let nanos = app.rng.between(1, most * 1_000) * 1_000;
        app.act(Action::Order { generation, nanos });
        app.wake_within(0, self.term_ms_max);
    }

    fn resign(&mut self, app: &mut App<'_>, handle: u64) {
        app.act(Action::Unguard);
        if !app.draining && app.rng.per_mille(100) {
            self.stage = Stage::Rest;
            app.act(Action::Die);
            return;
        }
        let token = app.call(Operation::Release(wire::Release { handle }));
        self.stage = Stage::Resigning(handle, token);
    }
}
