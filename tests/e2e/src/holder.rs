//! A client as a process of its own, which holds a lock: the program is `e2e-holder`, whose words these are.

use std::time::Duration;

use holdfast::Sequencer;

use crate::cluster::Cluster;
use crate::resource::{Resource, Verdict};
use crate::talk::Talk;

/// The process. Killed when dropped.
#[derive(Debug)]
pub struct Holder {
    talk: Talk,
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
        let (talk, holding) = Talk::start(programs, programs.holder, arguments, &log, "holding").await;
        let (_, sequencer) = holding.rsplit_once(' ').expect("it says what it holds");
        let sequencer = sequencer.parse().expect("it says its sequencer");
        Self { talk, sequencer }
    }

    /// What it holds the lock by.
    #[must_use]
    pub fn sequencer(&self) -> &Sequencer {
        &self.sequencer
    }

    /// For how long its guard is valid yet, by its own reckoning.
    ///
    /// # Panics
    ///
    /// If it does not say.
    pub async fn validity(&mut self) -> Duration {
        self.talk.tell("validity").await;
        let line = self.talk.hear("validity").await;
        Duration::from_millis(line.parse().expect("it says milliseconds"))
    }

    /// Has it order something of its resource. It need not be running; [`Holder::verdict`] waits for it.
    pub async fn order(&mut self, text: &str) {
        self.talk.tell(&format!("order {text}")).await;
    }

    /// What came of an order, and whether its guard held the lock just before.
    pub async fn verdict(&mut self) -> (Verdict, bool) {
        let line = self.talk.hear("order").await;
        let verdict = if line.starts_with("done") { Verdict::Done } else { Verdict::Refused };
        (verdict, line.ends_with("true"))
    }

    /// Has it become a daemon, which ends its process; says what the child that goes on believes of its lock and session.
    pub async fn become_daemon(&mut self) -> String {
        self.talk.tell("daemon now").await;
        self.talk.hear("daemon").await
    }

    /// Waits until it says that it has lost the lock, and why.
    pub async fn lost(&mut self) -> String {
        self.talk.hear("lost").await
    }

    /// Kills it, by SIGKILL.
    pub async fn kill(&mut self) {
        self.talk.kill().await;
    }

    /// Stops it from running, by SIGSTOP, until [`Holder::resume`].
    pub fn pause(&self) {
        self.talk.pause();
    }

    /// Lets it run on.
    pub fn resume(&self) {
        self.talk.resume();
    }
}
