//! Opens a session and does nothing with it. The cell ends it after a minute, unless the application asks for something
//! just then.

use super::{Action, App};

/// About when the cell ends a session that is idle, in milliseconds.
const MINUTE_MS: u64 = 60_000;

/// It is not busy any more often than this once its minute is over: a session whose end is wanted has no lease.
const BUSY_MAX: u32 = 3;

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
    /// Its process is busy, again and again, while its minute ends, so that word of the end waits for it. It was busy so
    /// many times since the minute was over.
    Busy(u32),
    /// It is about to be busy for so long that its next KeepAlive is late: the cell answers that one with its wish, and ends the
    /// session soon after, without the consent of a client that does not read.
    Dozing,
    /// Its process is busy until its minute is over and most of its lease.
    Asleep,
    /// Its process is busy once more, until its lease has run out, and not for so long that the stream counts as silent.
    Overslept,
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
            Stage::Late if (MINUTE_MS - 600..MINUTE_MS).contains(&app.age_ms) && app.rng.per_mille(500) => {
                self.stage = Stage::Dozing;
                let wait_ms = (MINUTE_MS + 50).saturating_sub(app.age_ms + app.lease_ms * 75 / 100);
                app.wake_within(wait_ms, wait_ms + 100);
            }
            Stage::Late if (MINUTE_MS - 600..MINUTE_MS).contains(&app.age_ms) => {
                self.stage = Stage::Busy(0);
                busy(app);
            }
            Stage::Dozing => {
                self.stage = Stage::Asleep;
                busy_for(app, app.lease_ms * 75 / 100);
            }
            Stage::Asleep => {
                self.stage = Stage::Overslept;
                busy_for(app, app.lease_ms * 23 / 100);
            }
            Stage::Busy(times) if times < 1 || (times < BUSY_MAX && app.rng.per_mille(500)) => {
                self.stage = Stage::Busy(if app.age_ms < MINUTE_MS { times } else { times + 1 });
                busy(app);
            }
            Stage::Late | Stage::Busy(_) | Stage::Overslept => {
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

/// Until the next KeepAlive is due, so that one goes out each time, and its answer waits.
fn busy(app: &mut App<'_>) {
    busy_for(app, app.lease_ms * 36 / 100);
}

fn busy_for(app: &mut App<'_>, ms: u64) {
    app.act(Action::Busy(ms * 1_000_000));
    app.wake_within(ms, ms);
}
