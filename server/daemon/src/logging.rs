//! The program's own log (not raft's): slog to standard error, as text on a terminal and as JSON otherwise.
//!
//! What other modules use:
//! - [`start`], once in `main`, which gives the root logger and a [`LogGuard`] to hold until the end;
//! - [`abort`], which is how a failing disk or a broken invariant stops the process, and `AbortOnPanic` where the
//!   invariant is one that is asserted.
//!
//! Records are written by a thread of their own, so that a slow terminal never holds the core up; if it falls
//! far behind, records are dropped and their number is logged. Invariants: what was logged before the guard is dropped, or
//! before [`abort`], is written, if whoever reads standard error takes it in time; and nothing of the replica ever waits for
//! a reader that stands still, its end least of all. A panic is logged like everything else. What others chose (names,
//! addresses, messages) is escaped in both forms: by `escaping`.

mod escaping;

use std::io::{BufWriter, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use holdfast_types::Duration;
use slog::{Drain, LevelFilter, Logger, OwnedKVList, Record, crit, o};
use slog_async::{Async, AsyncGuard, OverflowStrategy};

use crate::config::{LogFormat, LogLevel};
use escaping::{EscapedJson, EscapedText};

/// So many records may wait for the writing thread.
const RECORDS_WAITING_MAX: usize = 16_384;
/// A process that ends waits so long for the last of what it has to say to be written. Whoever reads standard error may have
/// stopped reading.
const FLUSH_MAX: Duration = Duration::from_secs(1);
/// And one whose disk has failed so long: until it is gone it may still be the master, and serve nobody.
const ABORT_FLUSH_MAX: Duration = Duration::from_millis(250);

/// Ends the writing thread once everything is written. One for the process, because so is standard error, and
/// because [`abort`] must reach it from any thread.
static WRITER: Mutex<Option<AsyncGuard>> = Mutex::new(None);

/// Writes out what was logged, when it is dropped, within a second. Hold it in `main` until the end.
#[must_use = "what is logged after the guard is dropped is lost"]
#[derive(Debug)]
pub struct LogGuard(());

impl Drop for LogGuard {
    fn drop(&mut self) {
        flush(FLUSH_MAX);
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

/// Logs `what` as critical, writes out what the log's reader takes at once, and aborts the process: nothing that is still
/// in memory may reach the disk or another replica any more. The way to end after a failed write or fsync (design.md §8).
pub fn abort(logger: &Logger, what: &str) -> ! {
    crit!(logger, "the replica stops: {}", what);
    flush(ABORT_FLUSH_MAX);
    std::process::abort()
}

/// Logs `what` as critical and ends the process with this exit status, whatever its other threads are waiting for.
pub(crate) fn exit(logger: &Logger, what: &str, status: i32) -> ! {
    crit!(logger, "{}", what);
    flush(ABORT_FLUSH_MAX);
    std::process::exit(status)
}

/// Writes a line to standard error, past the log: the last words of a program. Whoever reads it gets a second for it.
pub fn say_last(line: &str) {
    let line = format!("{line}\n");
    // If standard error cannot be written, there is nobody to tell.
    within(FLUSH_MAX, move || drop(std::io::stderr().write_all(line.as_bytes())));
}

/// Held while work runs that nothing may go on without: a panic of that work ends the process as [`abort`] does. To
/// unwind would be worse, for the other threads would go on, and still write and vote.
#[must_use = "it guards only as long as it is held"]
pub(crate) struct AbortOnPanic(pub(crate) Logger);

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            abort(&self.0, "an invariant is broken; the panic before this says which");
        }
    }
}

/// One JSON object for each record, one to a line, with `ts` (RFC 3339), `level` and `msg`.
fn json<W: Write>(output: W) -> slog_json::Json<EscapedJson<BufWriter<W>>> {
    // A line is written at once: others may write to the same pipe.
    let output = EscapedJson(BufWriter::new(output));
    slog_json::Json::new(output).set_newlines(true).set_flush(true).add_default_keys().build()
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
        let thread = thread::current();
        crit!(logger, "panic: {}", panic; "thread" => thread.name().unwrap_or("unnamed"));
    }));
}

/// Waits until everything logged so far is written, and no longer than `limit`. Nothing is logged afterwards.
fn flush(limit: Duration) {
    end_writing(&WRITER, limit);
}

/// Drops what ends the writing thread, once, and waits for that until `limit`.
fn end_writing(writer: &Mutex<Option<impl Send + 'static>>, limit: Duration) {
    // Held until it is done: of two threads that end the process the second waits for the first, and does not end it in the
    // middle of what that has to say.
    let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(guard) = writer.take() {
        // To drop it is to wait for the writing thread.
        within(limit, move || drop(guard));
    }
}

/// Has `work`, which may wait for whoever reads standard error, done beside this thread, and waits for it until `limit`.
fn within(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = channel::<()>();
    // Kept here too: to drop the work, if the system gives no thread, would be to wait.
    let work = Arc::new(Mutex::new(Some((work, done))));
    let theirs = Arc::clone(&work);
    let spawned = thread::Builder::new().name("log-flush".to_owned()).spawn(move || {
        let work = theirs.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((work, _done)) = work {
            work();
        }
    });
    match spawned {
        // An error, always: nothing is sent, and that the sender is gone is what is waited for.
        Ok(_) => drop(is_done.recv_timeout(limit)),
        Err(_) => std::mem::forget(work),
    }
}

/// For tests that look at what was logged.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;

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
    use std::sync::TryLockError;
    use std::sync::mpsc::{Receiver, Sender};
    use std::time::Instant;

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
    fn nobody_waits_for_a_reader_that_stands_still() {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let began = Instant::now();
        // No pipe holds as much, so the writing thread stands still too.
        within(Duration::from_millis(100), move || drop(writer.write_all(&vec![b'x'; 16 << 20])));
        assert!(began.elapsed() >= Duration::from_millis(100), "the reader stands still");
        drop(reader);
    }

    #[test]
    fn what_is_done_in_time_is_waited_for() {
        let (done, is_done) = channel();
        within(Duration::from_secs(60), move || done.send(()).unwrap());
        assert_eq!(is_done.try_recv(), Ok(()));
    }

    #[test]
    fn a_second_thread_that_ends_the_process_waits_for_the_last_words_of_the_first() {
        /// Takes as long to end as it is let.
        struct Slow {
            begun: Sender<()>,
            may_end: Receiver<()>,
            has_ended: Sender<()>,
        }

        impl Drop for Slow {
            fn drop(&mut self) {
                self.begun.send(()).unwrap();
                self.may_end.recv().unwrap();
                self.has_ended.send(()).unwrap();
            }
        }

        let (begun, has_begun) = channel();
        let (lets_end, may_end) = channel();
        let (ended, has_ended) = channel();
        let writer = Mutex::new(Some(Slow { begun, may_end, has_ended: ended }));
        let minute = Duration::from_secs(60);
        thread::scope(|scope| {
            scope.spawn(|| end_writing(&writer, minute));
            has_begun.recv().unwrap();
            // Nobody gets in while the first is at it.
            assert!(matches!(writer.try_lock(), Err(TryLockError::WouldBlock)));
            lets_end.send(()).unwrap();
            end_writing(&writer, minute);
            assert_eq!(has_ended.try_recv(), Ok(()));
        });
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
