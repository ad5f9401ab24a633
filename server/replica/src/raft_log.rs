//! What raft-rs says, at the level that it deserves, and without what nobody may read.
//!
//! raft-rs tells of every vote and every change of its role as information, several lines an election. What an
//! operator wants to know of that, the replica says itself, in one line each. So raft's information becomes
//! debugging output here; its warnings and errors stay what they are.
//!
//! Invariant: what clients entrusted to the cell is in no line. raft-rs shows whole messages and entries, with contents,
//! names and the secrets of sessions, under the keys `msg` and `ents`; of a message only its type passes, and its key is
//! another than that of the line itself. What else it shows are numbers and names of its own.

use std::fmt;

use slog::{Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, RecordStatic, Serializer, b, o};

/// A whole message.
const MESSAGE: &str = "msg";
/// How a message, as raft-rs shows it, begins to say its type.
const MESSAGE_TYPE: &str = "msg_type: ";
/// Whole entries.
const ENTRIES: &str = "ents";
/// Nothing that is let through is as long.
const VALUE_CHARS_MAX: usize = 256;

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
        let kv = Discreet(record.kv());
        Drain::log(&self.0, &Record::new(&demoted, record.msg(), b!(&kv)), values)
    }

    fn is_enabled(&self, level: Level) -> bool {
        Drain::is_enabled(&self.0, if level == Level::Info { Level::Debug } else { level })
    }
}

/// What belongs to a record, without what nobody may read.
struct Discreet<'r>(slog::BorrowedKV<'r>);

impl KV for Discreet<'_> {
    fn serialize(&self, record: &Record<'_>, serializer: &mut dyn Serializer) -> slog::Result {
        self.0.serialize(record, &mut DiscreetSerializer(serializer))
    }
}

struct DiscreetSerializer<'s>(&'s mut dyn Serializer);

impl Serializer for DiscreetSerializer<'_> {
    fn emit_u64(&mut self, key: Key, value: u64) -> slog::Result {
        self.0.emit_u64(key, value)
    }

    fn emit_usize(&mut self, key: Key, value: usize) -> slog::Result {
        self.0.emit_usize(key, value)
    }

    fn emit_bool(&mut self, key: Key, value: bool) -> slog::Result {
        self.0.emit_bool(key, value)
    }

    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        match key {
            ENTRIES => Ok(()),
            MESSAGE => {
                let shown = value.to_string();
                let kind =
                    shown.split_once(MESSAGE_TYPE).and_then(|(_, rest)| rest.split_whitespace().next());
                kind.map_or(Ok(()), |kind| self.0.emit_str("type", kind))
            }
            _ => {
                let shown = value.to_string();
                match shown.char_indices().nth(VALUE_CHARS_MAX) {
                    Some((end, _)) => self.0.emit_arguments(key, &format_args!("{}…", &shown[..end])),
                    None => self.0.emit_arguments(key, value),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use raft::eraftpb::{Entry, Message, MessageType};
    use slog::{error, info, warn};

    use super::*;

    /// Keeps what stands beside the messages.
    #[derive(Clone, Default)]
    struct Values(Arc<Mutex<Vec<(String, String)>>>);

    impl Drain for Values {
        type Ok = ();
        type Err = Never;

        fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
            record.kv().serialize(record, &mut self.clone()).expect("it takes everything");
            Ok(())
        }
    }

    impl Serializer for Values {
        fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
            self.0.lock().expect("nobody panicked").push((key.to_string(), value.to_string()));
            Ok(())
        }
    }

    #[test]
    fn no_entry_and_no_message_is_shown_and_no_key_is_that_of_the_line() {
        let values = Values::default();
        let raft = logger(&Logger::root(values.clone(), o!()));
        let secret = "secret-contents";
        let entry = Entry { index: 7, data: secret.as_bytes().to_vec().into(), ..Entry::default() };
        let mut message = Message { to: 2, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppend);
        message.set_entries(vec![entry.clone()].into());
        assert!(format!("{message:?}").contains(secret), "as raft-rs would show it");
        let long = "x".repeat(10_000);
        info!(raft, "sending"; "msg" => ?message, "ents" => ?[entry], "term" => 3, "progress" => long);
        let shown = values.0.lock().expect("nobody panicked").clone();
        let names: Vec<&str> = shown.iter().map(|(key, _)| key.as_str()).collect();
        for (key, value) in [("type", "MsgAppend"), ("term", "3")] {
            assert!(shown.contains(&(key.to_owned(), value.to_owned())), "{shown:?}");
        }
        assert!(!names.contains(&"msg") && !names.contains(&"ents"), "{names:?}");
        assert!(shown.iter().all(|(_, value)| !value.contains(secret) && value.len() < 300), "{shown:?}");
    }

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
