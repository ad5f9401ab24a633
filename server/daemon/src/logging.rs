//! The program's own log (not raft's): slog to standard error, as text on a terminal and as JSON otherwise.
//!
//! What other modules use:
//! - [`start`], once in `main`, which gives the root logger and a [`LogGuard`] to hold until the end;
//! - [`abort`], which is how a failing disk or a broken invariant stops the process, and `AbortOnPanic` where the
//!   invariant is one that is asserted.
//!
//! Records are written by a thread of their own, so that a slow terminal never holds the core up; if it falls
//! far behind, records are dropped and their number is logged. Invariant: what was logged before the guard is
//! dropped, or before [`abort`], is written. A panic is logged like everything else. What others chose (names, addresses,
//! messages) is escaped in both forms: by `escaping`.

mod escaping;

use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::{Mutex, PoisonError};

use slog::{Drain, LevelFilter, Logger, OwnedKVList, Record, crit, o};
use slog_async::{Async, AsyncGuard, OverflowStrategy};

use crate::config::{LogFormat, LogLevel};
use escaping::{EscapedJson, EscapedText};

/// So many records may wait for the writing thread.
const RECORDS_WAITING_MAX: usize = 16_384;

/// Ends the writing thread once everything is written. One for the process, because so is standard error, and
/// because [`abort`] must reach it from any thread.
static WRITER: Mutex<Option<AsyncGuard>> = Mutex::new(None);

/// Writes everything out that was logged, when it is dropped. Hold it in `main` until the end.
#[must_use = "what is logged after the guard is dropped is lost"]
#[derive(Debug)]
pub struct LogGuard(());

impl Drop for LogGuard {
    fn drop(&mut self) {
        flush();
    }
}

/// Starts the program's log. Call once, in `main`.
pub fn start(format: LogFormat, level: LogLevel) -> (Logger, LogGuard) {
    let stderr = std::io::stderr();
    let text = match format {
        LogFormat::Auto => stderr.is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let (drain, guard) = if text {
        let colour = stderr.is_terminal();
        let decorator = slog_term::TermDecorator::new().stderr();
        let decorator = if colour { decorator } else { decorator.force_plain() };
        in_background(slog_term::FullFormat::new(EscapedText(decorator.build())).build(), level)
    } else {
        in_background(json(stderr), level)
    };
    *WRITER.lock().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    let logger = Logger::root(drain.ignore_res(), o!());
    log_panics(logger.clone());
    (logger, LogGuard(()))
}

/// Logs `what` as critical, writes everything out and aborts the process: nothing that is still in memory may
/// reach the disk or another replica any more. The way to end after a failed write or fsync (design.md §8).
pub fn abort(logger: &Logger, what: &str) -> ! {
    crit!(logger, "the replica stops: {}", what);
    flush();
    std::process::abort()
}

/// Held while work runs that nothing may go on without: a panic of that work ends the process as [`abort`] does. To
/// unwind would be worse, for the other threads would go on, and still write and vote.
#[must_use = "it guards only as long as it is held"]
pub(crate) struct AbortOnPanic(pub(crate) Logger);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            abort(&self.0, "an invariant is broken; the panic before this says which");
        }
    }
}

/// One JSON object for each record, one to a line, with `ts` (RFC 3339), `level` and `msg`.
fn json<W: Write>(output: W) -> slog_json::Json<EscapedJson<W>> {
    slog_json::Json::new(EscapedJson(output)).set_newlines(true).set_flush(true).add_default_keys().build()
}

/// Puts a thread and a queue before `drain`, and the level before both.
fn in_background<D>(drain: D, level: LogLevel) -> (LevelFilter<IgnoreEnd>, AsyncGuard)
where
    D: Drain + Send + 'static,
    D::Err: std::fmt::Debug,
{
    // A drain that fails (standard error was closed) must not stop the replica.
    let quiet = Mutex::new(drain).map_err(|_| ());
    let (queue, guard) = Async::new(quiet.ignore_res())
        .chan_size(RECORDS_WAITING_MAX)
        .overflow_strategy(OverflowStrategy::DropAndReport)
        .thread_name("log".to_owned())
        .build_with_guard();
    (LevelFilter::new(IgnoreEnd(queue), level), guard)
}

/// Lets records that come after the end go: a thread may still log while the process exits.
struct IgnoreEnd(Async);

impl Drain for IgnoreEnd {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), slog::Never> {
        let _ = self.0.log(record, values);
        Ok(())
    }
}

/// Logs each panic with where it happened. What the panic ends is for the thread's owner to decide.
fn log_panics(logger: Logger) {
    std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        let thread = std::thread::current();
        crit!(logger, "panic: {}", panic; "thread" => thread.name().unwrap_or("unnamed"));
    }));
}

/// Waits until everything logged so far is written. Nothing is written afterwards.
fn flush() {
    drop(WRITER.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// For tests that look at what was logged.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::sync::Arc;

    /// The messages of every record, in order.
    #[derive(Clone, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

    impl Lines {
        /// A logger that writes here.
        pub(crate) fn logger(&self) -> Logger {
            Logger::root(self.clone(), o!())
        }

        /// How many messages contain `words`.
        pub(crate) fn containing(&self, words: &str) -> usize {
            self.0.lock().unwrap().iter().filter(|line| line.contains(words)).count()
        }
    }

    impl Drain for Lines {
        type Ok = ();
        type Err = slog::Never;

        fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
            self.0.lock().unwrap().push(record.msg().to_string());
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slog::info;
    use std::sync::Arc;

    /// A buffer that a test can read while a drain writes to it.
    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// Runs itself as a process of its own, for that process is to die.
    #[test]
    fn a_panic_under_the_guard_ends_the_process() {
        use std::os::unix::process::ExitStatusExt as _;
        use std::process::{Command, Stdio};

        const TO_PANIC: &str = "LOGGING_TEST_PANICS";
        if std::env::var_os(TO_PANIC).is_some() {
            let _guard = AbortOnPanic(Logger::root(slog::Discard, o!()));
            panic!("on purpose");
        }
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args(["--exact", "logging::tests::a_panic_under_the_guard_ends_the_process"]);
        let ended = again.env(TO_PANIC, "1").stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert_eq!(ended.signal(), Some(nix::libc::SIGABRT));
    }

    #[test]
    fn every_record_before_the_guard_drops_is_written_as_one_json_line() {
        let buffer = Buffer::default();
        let (drain, guard) = in_background(json(buffer.clone()), LogLevel::Info);
        let logger = Logger::root(drain.ignore_res(), o!("replica" => 3));
        for number in 0..1_000 {
            info!(logger, "said {}", number; "term" => 7);
        }
        slog::debug!(logger, "below the level");
        drop(guard);
        info!(logger, "after the end, which must not panic");

        let text = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 1_000);
        let last = lines[999];
        for part in ["\"msg\":\"said 999\"", "\"level\":\"INFO\"", "\"replica\":3", "\"term\":7"] {
            assert!(last.contains(part), "{part} in {last}");
        }
    }
}
