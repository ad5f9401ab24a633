//! The log's two forms without anything in them that a terminal obeys, or that a reader does not see.
//!
//! A client's name, an address or a message stands in many records, and nobody must have to think of it at each. So it is
//! done where records become bytes: the text form escapes what stands in a message, a key or a value, lines' ends too, or a
//! name could write a record of its own; the JSON form writes such characters by `\u`. Invariant: colours and the ends of
//! records, which are the log's own, pass.

use std::io::{self, Write};

use holdfast_types::{escaped, escaped_json};
use slog::{OwnedKVList, Record};
use slog_term::{Decorator, RecordDecorator};

/// The text form.
pub(super) struct EscapedText<D>(pub(super) D);

impl<D: Decorator> Decorator for EscapedText<D> {
    fn with_record<F>(&self, record: &Record<'_>, values: &OwnedKVList, f: F) -> io::Result<()>
    where
        F: FnOnce(&mut dyn RecordDecorator) -> io::Result<()>,
    {
        self.0.with_record(record, values, |inner| f(&mut EscapedRecord { inner, others: false }))
    }
}

/// One record of it.
struct EscapedRecord<'r> {
    /// What writes it.
    inner: &'r mut dyn RecordDecorator,
    /// What comes now may be what others chose.
    others: bool,
}

impl Write for EscapedRecord<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.others {
            self.inner.write_all(escaped(&String::from_utf8_lossy(bytes)).as_bytes())?;
        } else {
            self.inner.write_all(bytes)?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The beginnings of parts of a record: which of them others may have chosen.
macro_rules! parts {
    ($($start:ident $others:literal;)+) => {
        $(fn $start(&mut self) -> io::Result<()> {
            self.others = $others;
            self.inner.$start()
        })+
    };
}

impl RecordDecorator for EscapedRecord<'_> {
    parts! {
        reset false;
        start_whitespace false;
        start_msg true;
        start_timestamp false;
        start_level false;
        start_comma false;
        start_key true;
        start_value true;
        start_location false;
        start_separator false;
    }
}

/// The JSON form.
pub(super) struct EscapedJson<W>(pub(super) W);

impl<W: Write> Write for EscapedJson<W> {
    /// The serializer writes whole characters.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.0.write_all(escaped_json(text).as_bytes())?,
            Err(_) => self.0.write_all(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use slog::{Drain, Logger, info, o};
    use slog_term::{FullFormat, PlainSyncDecorator};

    use super::*;

    /// Clears the screen, turns what follows around, and begins a record of its own.
    const EVIL: &str = "a\u{1b}[2J\u{202e}b\nNov 29 CRIT forged";

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Buffer {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    #[test]
    fn the_text_form_is_one_line_a_record_and_commands_no_terminal() {
        let buffer = Buffer::default();
        let drain = FullFormat::new(EscapedText(PlainSyncDecorator::new(buffer.clone()))).build().fuse();
        let logger = Logger::root(drain, o!("from" => EVIL));
        info!(logger, "said {}", EVIL; "client" => EVIL, "shown" => %EVIL, "debugged" => ?EVIL);
        drop(logger);
        let text = buffer.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(text.ends_with('\n') && !text.contains(['\u{1b}', '\u{202e}']), "{text}");
        let shown = "a<U+001B>[2J<U+202E>b<U+000A>Nov 29 CRIT forged";
        assert_eq!(text.matches(shown).count(), 4, "{text}");
    }

    #[test]
    fn the_json_form_says_the_same_with_numbers() {
        let buffer = Buffer::default();
        let drain = super::super::json(buffer.clone());
        let logger = Logger::root(Mutex::new(drain).fuse(), o!());
        info!(logger, "said {}", EVIL; "client" => EVIL);
        let text = buffer.text();
        assert_eq!(text.lines().count(), 1, "{text}");
        assert!(!text.contains(['\u{1b}', '\u{202e}']) && text.contains("\\u202e"), "{text}");
        assert!(text.to_lowercase().contains("\\u001b[2j"), "{text}");
    }
}
