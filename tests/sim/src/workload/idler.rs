//! Opens a session and does nothing with it. The cell ends it after a minute, unless the application asks for something
//! just then.

use super::App;

/// The workload.
#[derive(Debug, Default)]
pub struct Idler {
    /// The others come to an end, so that its minute will be over soon.
    late: bool,
    asked: bool,
}

impl Idler {
    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        if !self.late {
            self.late = true;
            app.wake_within(15_000, 60_000);
        } else if !self.asked {
            self.asked = true;
            app.open_directory("/files");
        }
    }

    /// The run must not end yet: the session is to end before it, or to be of use after all.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.asked
    }
}
