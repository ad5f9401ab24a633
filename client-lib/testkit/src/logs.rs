//! What the replicas log, kept in memory for whoever wants to know why a test failed.
//!
//! Invariant: never more than the last [`LINES_MAX`] lines.

use std::collections::VecDeque;
use std::fmt::{Arguments, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use slog::{Drain, KV as _, Key, Level, Logger, OwnedKVList, Record, Serializer, o};

/// So many lines are kept.
const LINES_MAX: usize = 10_000;
/// So many are shown with a failure.
const LAST: usize = 60;

/// The log of all replicas of a cell.
#[derive(Clone)]
pub(crate) struct Logs {
    lines: Arc<Mutex<VecDeque<String>>>,
    began: Instant,
    level: Level,
}

impl Logs {
    /// An empty log that keeps what is at least as important as `level`.
    pub(crate) fn new(level: Level) -> Self {
        Self { lines: Arc::default(), began: Instant::now(), level }
    }

    /// A logger that writes here.
    pub(crate) fn logger(&self) -> Logger {
        Logger::root(self.clone(), o!())
    }

    /// All that is kept, oldest first.
    pub(crate) fn all(&self) -> Vec<String> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Prints the end of it, for a test that fails.
    #[expect(
        clippy::print_stderr,
        reason = "the test harness shows it with the test that failed, and only then"
    )]
    pub(crate) fn print_last(&self) {
        eprintln!("the last that the replicas logged:\n{}", self.last());
    }

    /// The end of it.
    pub(crate) fn last(&self) -> String {
        let all = self.all();
        all[all.len().saturating_sub(LAST)..].join("\n")
    }
}

impl Drain for Logs {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), slog::Never> {
        if !record.level().is_at_least(self.level) {
            return Ok(());
        }
        let seconds = self.began.elapsed().as_secs_f64();
        let mut line = Line(format!("{seconds:9.3} {} {}", record.level().as_short_str(), record.msg()));
        // Writing into a text does not fail.
        let _ = record.kv().serialize(record, &mut line);
        let _ = values.serialize(record, &mut line);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line.0);
        Ok(())
    }
}

/// A line that grows.
struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &Arguments<'_>) -> slog::Result {
        write!(self.0, ", {key}: {value}")?;
        Ok(())
    }
}
