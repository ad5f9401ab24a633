//! A cell and the program, for tests.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use holdfast_server::dev::{DevCell, DevOptions};
use holdfast_types::ReplicaId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use slog::{Discard, Logger, o};
use tokio::runtime::Runtime;

/// Nothing that is waited for in these tests takes longer unless it is broken.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// Waits for something to become true. Each look is a run of the program, so this does not spin.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
    }
}

/// A cell of three replicas, and how to reach it.
pub(crate) struct TestCell {
    runtime: Runtime,
    /// Taken by [`TestCell::fall_silent`].
    cell: Option<DevCell>,
    pub(crate) addresses: String,
}

impl TestCell {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let logger = Logger::root(Discard, o!());
        let cell = runtime.block_on(DevCell::start(DevOptions::default(), logger)).unwrap();
        let addresses = cell.addresses().join(",");
        Self { runtime, cell: Some(cell), addresses }
    }

    /// Stops the master, so that another takes over.
    pub(crate) fn stop_master(&mut self) {
        let master = self.json(&["status"])["master"].as_u64().unwrap();
        self.stop_replica(master);
    }

    /// Stops one replica.
    pub(crate) fn stop_replica(&mut self, id: u64) {
        let cell = self.cell.as_mut().unwrap();
        self.runtime.block_on(cell.stop_replica(ReplicaId(id))).unwrap();
    }

    /// Ends all replicas at once.
    pub(crate) fn fall_silent(&mut self) {
        drop(self.cell.take());
    }

    /// The program, with this cell's addresses.
    pub(crate) fn holdfast<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = holdfast(arguments);
        command.env("HOLDFAST_ADDRESSES", &self.addresses);
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ran {
        Ran::of(self.holdfast(arguments).output().unwrap())
    }

    /// Runs the program to its end, with something to read.
    pub(crate) fn run_with_input(&self, arguments: &[&str], input: &[u8]) -> Ran {
        let mut command = self.holdfast(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A program that refuses the input does not read it to the end.
        let _ = child.stdin.take().unwrap().write_all(input);
        Ran::of(child.wait_with_output().unwrap())
    }

    /// Runs the program with `--json`; it must succeed.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["--json"];
        all.extend(arguments);
        let ran = self.run(&all);
        assert_eq!(ran.status, 0, "{arguments:?}: {}", ran.stderr);
        serde_json::from_slice(&ran.stdout).unwrap()
    }

    /// Starts the program, and waits until it, or its command, has printed a line.
    pub(crate) fn start_and_hear(&self, arguments: &[&str]) -> Running {
        Running::start(self.holdfast(arguments))
    }
}

/// What the kernel tells of a process: one letter for its state, and its process group. `None` if there is no such process.
pub(crate) fn process(pid: i32) -> Option<(char, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.nth(1)?.parse().ok()?))
}

/// The program, without a cell.
pub(crate) fn holdfast<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    for variable in ["ADDRESSES", "CELL", "CA", "CERT", "KEY", "SERVER_NAME"] {
        command.env_remove(format!("HOLDFAST_{variable}"));
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

/// The program, at its end.
pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            status: output.status.code().expect("it exits, and is not killed"),
            stdout: output.stdout,
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What it printed.
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// It did what it was asked to.
    pub(crate) fn assert_done(&self) {
        assert_eq!(self.status, 0, "{}", self.stderr);
    }

    /// It ended with this status.
    pub(crate) fn assert_ended(&self, status: i32) {
        assert_eq!(self.status, status, "{}", self.stderr);
    }

    /// It failed with this status, and said this.
    pub(crate) fn assert_failed(&self, status: i32, said: &str) {
        assert_eq!(self.status, status, "{}", self.stderr);
        assert!(self.stderr.contains(said), "{:?} is not in {:?}", said, self.stderr);
        assert!(self.stdout.is_empty(), "{:?}", self.text());
    }
}

/// The program, running. Killed if the test fails.
pub(crate) struct Running {
    /// Taken by [`Running::end`].
    child: Option<Child>,
    /// What it and its command print, with when it came. Read by a thread, so that waiting for a line has a limit.
    lines: Receiver<(Instant, String)>,
    /// The first line.
    pub(crate) heard: String,
}

impl Running {
    /// Starts a program, and waits until it has printed a line.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Read on even if the test wants no more: who prints must not hang.
                let _ = sender.send((Instant::now(), line));
            }
        });
        let mut running = Self { child: Some(child), lines, heard: String::new() };
        running.heard = match running.lines.recv_timeout(LIMIT) {
            Ok((_, line)) => line,
            Err(_) => panic!("no line came: {}", running.end().stderr),
        };
        running
    }

    fn pid(&self) -> i32 {
        self.child.as_ref().unwrap().id().try_into().unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Whether it has ended, although what it has started may still run.
    pub(crate) fn has_ended(&self) -> bool {
        process(self.pid()).is_none_or(|(state, _)| state == 'Z')
    }

    /// All lines that the program and its command have printed when both are gone.
    pub(crate) fn rest(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok((_, line)) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => return lines,
                Err(RecvTimeoutError::Timeout) => panic!("something still runs"),
            }
        }
    }

    /// The next line.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(LIMIT).expect("it prints a line").1
    }

    /// The next line, as JSON.
    pub(crate) fn json_line(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// The next line whose field `event` is this one. Others are passed over.
    pub(crate) fn json_event(&self, event: &str) -> Value {
        loop {
            let line = self.json_line();
            if line["event"] == event {
                return line;
            }
        }
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Ran {
        Ran::of(self.child.take().unwrap().wait_with_output().unwrap())
    }

    /// Waits until nobody can print any more, because it and its command are gone. When the last line came.
    pub(crate) fn last_line_at(&mut self) -> Instant {
        let mut last = Instant::now();
        loop {
            match self.lines.recv_timeout(LIMIT) {
                Ok((at, _)) => last = at,
                Err(RecvTimeoutError::Disconnected) => return last,
                Err(RecvTimeoutError::Timeout) => panic!("something still runs"),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
