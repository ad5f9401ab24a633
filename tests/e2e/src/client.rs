//! A client as a process of its own, with one session that caches: the program is `e2e-client`, whose words these are.

use std::time::Duration;

use crate::cluster::Cluster;
use crate::talk::Talk;

/// The process. Killed when dropped.
#[derive(Debug)]
pub struct Client {
    talk: Talk,
    session: u64,
}

impl Client {
    /// Starts a process, and waits until it has a session. `name` is what its log is called.
    ///
    /// # Panics
    ///
    /// If it does not come to have one.
    pub async fn start(cluster: &Cluster, name: &str, lease: Duration, grace: Duration) -> Self {
        let arguments = [
            cluster.cell().addresses().join(","),
            lease.as_millis().to_string(),
            grace.as_millis().to_string(),
        ];
        let programs = cluster.programs();
        let log = cluster.dir().join(format!("{name}.log"));
        let (talk, id) = Talk::start(programs, programs.client, arguments, &log, "session").await;
        Self { talk, session: id.parse().expect("it says its session's id") }
    }

    /// Its session's id.
    #[must_use]
    pub fn session(&self) -> u64 {
        self.session
    }

    /// Gives it an order. It need not be running; [`Client::answer`] waits for what comes of it.
    pub async fn tell(&mut self, order: &str) {
        self.talk.tell(order).await;
    }

    /// What came of an order.
    ///
    /// # Errors
    ///
    /// What was in the way.
    ///
    /// # Panics
    ///
    /// If it does not say.
    pub async fn answer(&mut self, order: &str) -> Result<String, String> {
        let answer = self.talk.hear(&format!("{order} =")).await;
        match answer.split_once(' ').unwrap_or((&answer, "")) {
            ("ok", answer) => Ok(answer.to_owned()),
            ("failed", error) => Err(error.to_owned()),
            _ => panic!("{answer:?} is no answer"),
        }
    }

    /// Gives it an order, and waits for what comes of it.
    ///
    /// # Errors
    ///
    /// What was in the way.
    pub async fn ask(&mut self, order: &str) -> Result<String, String> {
        self.tell(order).await;
        self.answer(order).await
    }

    /// Waits until it says that its session is in a state that begins so: `jeopardy`, `safe`, `failed-over`, `ended`;
    /// and gives the rest of what it says.
    pub async fn state(&mut self, state: &str) -> String {
        self.talk.hear(&format!("state {state}")).await
    }

    /// The hits, misses and invalidations of its cache so far.
    ///
    /// # Panics
    ///
    /// If it does not say.
    pub async fn cache_stats(&mut self) -> [u64; 3] {
        let stats = self.ask("stats").await.expect("it has counters");
        let numbers: Vec<u64> =
            stats.split(' ').map(|number| number.parse().expect("they are numbers")).collect();
        numbers.try_into().expect("they are three")
    }

    /// Kills it, by SIGKILL.
    pub async fn kill(&mut self) {
        self.talk.kill().await;
    }

    /// Stops it from running, by SIGSTOP, until [`Client::resume`].
    pub fn pause(&self) {
        self.talk.pause();
    }

    /// Lets it run on.
    pub fn resume(&self) {
        self.talk.resume();
    }
}
