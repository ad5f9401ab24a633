//! A program that a test talks with, line by line, over its standard input and output.

use std::collections::VecDeque;
use std::path::Path;

use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use crate::process::{Process, Programs};
use crate::wait::within;

/// The process and both ends of the talk. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Talk {
    process: Process,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// Lines that were read while another was looked for.
    unread: VecDeque<String>,
}

impl Talk {
    /// Starts `program`, and waits for a first line that begins with `first`; gives the rest of it too.
    ///
    /// # Panics
    ///
    /// With what it said on standard error, if it ends first.
    pub(crate) async fn start(
        programs: Programs,
        program: &str,
        arguments: impl IntoIterator<Item = String>,
        log: &Path,
        first: &str,
    ) -> (Self, String) {
        let mut process = Process::start(programs.tied, program, arguments, log);
        let (orders, output) = process.pipes();
        let lines = BufReader::new(output).lines();
        let mut talk = Self { process, orders, lines, unread: VecDeque::new() };
        match talk.next(first).await {
            Some(line) => {
                let rest = line.strip_prefix(first).unwrap_or_else(|| panic!("{line:?} is not {first:?}"));
                let rest = rest.trim().to_owned();
                (talk, rest)
            }
            None => panic!("{}", std::fs::read_to_string(log).unwrap_or_default()),
        }
    }

    /// Says a line. The program need not be running.
    pub(crate) async fn tell(&mut self, line: &str) {
        let told = self.orders.write_all(format!("{line}\n").as_bytes()).await;
        told.expect("the program has not ended");
    }

    /// The rest of the next line that begins with this.
    pub(crate) async fn hear(&mut self, beginning: &str) -> String {
        let rest = |line: &str| line.strip_prefix(beginning).map(|rest| rest.trim().to_owned());
        if let Some(at) = self.unread.iter().position(|line| rest(line).is_some()) {
            return self.unread.remove(at).and_then(|line| rest(&line)).unwrap_or_default();
        }
        loop {
            let line = self.next(beginning).await;
            let line = line.unwrap_or_else(|| panic!("the program ended before it said {beginning:?}"));
            match rest(&line) {
                Some(rest) => return rest,
                None => self.unread.push_back(line),
            }
        }
    }

    async fn next(&mut self, expected: &str) -> Option<String> {
        within(expected, self.lines.next_line()).await.expect("its output is text")
    }

    /// Kills it, by SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.end().await;
    }

    /// Stops it from running, by SIGSTOP, until [`Talk::resume`].
    pub(crate) fn pause(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Lets it run on.
    pub(crate) fn resume(&self) {
        self.process.signal(Signal::SIGCONT);
    }
}
