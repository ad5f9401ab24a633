//! Opens a session and does nothing with it. The cell ends it after a minute, unless the application asks for something
//! just then.

use super::{Action, App};

/// About when the cell ends a session that is idle, in milliseconds.
const MINUTE_MS: u64 = 60_000;

/// The workload.
#[derive(Debug, Default)]
pub struct Idler {
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Begun,
    /// It wakes late, when the others are done.
    Late,
    /// Its process is busy while its minute ends, and it asks for something as soon as it is not any more.
    Busy,
    Asked,
}

impl Idler {
    pub(super) fn start(&mut self, app: &mut App<'_>) {
        app.wake_within(MINUTE_MS, MINUTE_MS);
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        match self.stage {
            Stage::Begun => {
                self.stage = Stage::Late;
                let left_ms = (MINUTE_MS - 500).saturating_sub(app.age_ms);
                if app.rng.per_mille(700) && left_ms > 0 {
                    app.wake_within(left_ms, left_ms);
                } else {
                    app.wake_within(15_000, MINUTE_MS);
                }
            }
            Stage::Late if (MINUTE_MS - 600..MINUTE_MS).contains(&app.age_ms) => {
                self.stage = Stage::Busy;
                app.act(Action::Busy(1_000_000_000));
                app.wake_within(1_000, 1_000);
            }
            Stage::Late | Stage::Busy => {
                self.stage = Stage::Asked;
                app.open_directory("/files");
            }
            Stage::Asked => {}
        }
    }

    /// The run must not end yet: the session is to end before it, or to be of use after all.
    pub(crate) fn is_waiting(&self) -> bool {
        self.stage != Stage::Asked
    }
}
