//! A client as a process of its own, which holds a lock: the program is `e2e-holder`, whose words these are.

use std::collections::VecDeque;
use std::time::Duration;

use holdfast::Sequencer;
use nix::sys::signal::Signal;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use crate::cluster::Cluster;
use crate::process::Process;
use crate::resource::{Resource, Verdict};
use crate::wait::within;

/// The process. Killed when dropped.
#[derive(Debug)]
pub struct Holder {
    process: Process,
    orders: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    /// Lines that were read while another was looked for.
    unread: VecDeque<String>,
    sequencer: Sequencer,
}

impl Holder {
    /// Starts a process, and waits until it holds the exclusive lock of the file `path`, which it creates.
    ///
    /// # Panics
    ///
    /// If it does not come to hold it.
    pub async fn start(
        cluster: &Cluster,
        path: &str,
        lease: Duration,
        lock_delay: Duration,
        resource: &Resource,
    ) -> Self {
        let arguments = [
            cluster.cell().addresses().join(","),
            path.to_owned(),
            lease.as_millis().to_string(),
            lock_delay.as_millis().to_string(),
            resource.address().to_string(),
        ];
        let programs = cluster.programs();
        let log = cluster.dir().join("holder.log");
        let mut process = Process::start(programs.tied, programs.holder, arguments, &log);
        let (orders, output) = process.pipes();
        let mut lines = BufReader::new(output).lines();
        let first = within("the holder holds the lock", lines.next_line()).await.expect("its output is text");
        let first = first.unwrap_or_else(|| panic!("{}", std::fs::read_to_string(&log).unwrap_or_default()));
        let (_, sequencer) = first.rsplit_once(' ').expect("it says what it holds");
        let sequencer = sequencer.parse().expect("it says its sequencer");
        Self { process, orders, lines, unread: VecDeque::new(), sequencer }
    }

    /// What it holds the lock by.
    #[must_use]
    pub fn sequencer(&self) -> &Sequencer {
        &self.sequencer
    }

    /// For how long its guard is valid yet, by its own reckoning.
    pub async fn validity(&mut self) -> Duration {
        self.tell("validity").await;
        let line = self.hear("validity").await;
        Duration::from_millis(line.parse().expect("it says milliseconds"))
    }

    /// Has it order something of its resource. It need not be running; [`Holder::verdict`] waits for it.
    pub async fn order(&mut self, text: &str) {
        self.tell(&format!("order {text}")).await;
    }

    /// What came of an order, and whether its guard held the lock just before.
    pub async fn verdict(&mut self) -> (Verdict, bool) {
        let line = self.hear("order").await;
        let verdict = if line.starts_with("done") { Verdict::Done } else { Verdict::Refused };
        (verdict, line.ends_with("true"))
    }

    /// Waits until it says that it has lost the lock, and why.
    pub async fn lost(&mut self) -> String {
        self.hear("lost").await
    }

    /// Kills it, by SIGKILL.
    pub async fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.end().await;
    }

    /// Stops it from running, by SIGSTOP, until [`Holder::resume`].
    pub fn pause(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Lets it run on.
    pub fn resume(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    async fn tell(&mut self, line: &str) {
        let told = self.orders.write_all(format!("{line}\n").as_bytes()).await;
        told.expect("the holder has not ended");
    }

    /// The rest of the next line that begins with this word.
    async fn hear(&mut self, word: &str) -> String {
        let rest = |line: &str| line.strip_prefix(word).map(|rest| rest.trim().to_owned());
        if let Some(at) = self.unread.iter().position(|line| rest(line).is_some()) {
            return self.unread.remove(at).and_then(|line| rest(&line)).unwrap_or_default();
        }
        loop {
            let line = within(word, self.lines.next_line()).await.expect("its output is text");
            let line = line.unwrap_or_else(|| panic!("the holder ended before it said {word:?}"));
            match rest(&line) {
                Some(rest) => return rest,
                None => self.unread.push_back(line),
            }
        }
    }
}
