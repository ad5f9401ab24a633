//! What raft-rs says, at the level that it deserves.
//!
//! raft-rs tells of every vote and every change of its role as information, several lines an election. What an
//! operator wants to know of that, the replica says itself, in one line each. So raft's information becomes
//! debugging output here; its warnings and errors stay what they are.

use slog::{Drain, Level, Logger, Never, OwnedKVList, Record, RecordStatic, o};

/// A logger for raft-rs that goes to where `logger` goes.
pub(crate) fn logger(logger: &Logger) -> Logger {
    Logger::root(Demoted(logger.clone()), o!("part" => "raft"))
}

struct Demoted(Logger);

impl Drain for Demoted {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        // Raft says much that nobody hears.
        if !self.is_enabled(record.level()) {
            return Ok(());
        }
        let level = if record.level() == Level::Info { Level::Debug } else { record.level() };
        let demoted = RecordStatic { location: record.location(), tag: record.tag(), level };
        Drain::log(&self.0, &Record::new(&demoted, record.msg(), record.kv()), values)
    }

    fn is_enabled(&self, level: Level) -> bool {
        Drain::is_enabled(&self.0, if level == Level::Info { Level::Debug } else { level })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use slog::{error, info, warn};

    use super::*;

    /// Keeps the levels of what is logged.
    #[derive(Clone, Default)]
    struct Levels(Arc<Mutex<Vec<(Level, String)>>>);

    impl Drain for Levels {
        type Ok = ();
        type Err = Never;

        fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
            let said = (record.level(), record.msg().to_string());
            self.0.lock().expect("nobody panicked").push(said);
            Ok(())
        }
    }

    #[test]
    fn information_becomes_debugging_output_and_nothing_else_changes() {
        let levels = Levels::default();
        let raft = logger(&Logger::root(levels.clone(), o!()));
        info!(raft, "became follower"; "term" => 2);
        error!(raft, "broken");
        warn!(raft, "strange");
        let said = levels.0.lock().expect("nobody panicked").clone();
        let of = |level, text: &str| (level, text.to_owned());
        let expected =
            [of(Level::Debug, "became follower"), of(Level::Error, "broken"), of(Level::Warning, "strange")];
        assert_eq!(said, expected);
    }
}
