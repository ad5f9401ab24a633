//! A client of a run: a process with one session at a time, which does a bit of everything and writes it all down.
//!
//! Works until it hears `quiet`; then its calls come to an end, and it only watches. At the end of its input it closes
//! its session and stops. If its session is lost, it says why and opens another. It never decides what is right.

mod counting;
mod locking;
mod registered;
mod registers;
mod watching;

use std::cell::{Cell as Slot, RefCell};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use holdfast::{Cell, Ended, Error, Session, SessionEvent, SessionState};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::time::sleep;

pub use self::counting::number;
pub use self::locking::LOCK_DELAY;
use super::clock;
use super::history::{Event, Recorder};

/// Where all clients work.
pub const ROOT: &str = "/torture";
/// Who is registered is listed there.
pub const MEMBERS: &str = "/torture/members";
/// The locks, each with a resource of its own. The last is held for long: through fail-overs, and beyond snapshots.
pub const LOCKS: u32 = 3;
/// The files that are read and written.
pub const REGISTERS: u32 = 3;
/// The files that are counted up.
pub const COUNTERS: u32 = 2;

/// What a client is told when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orders {
    /// Where the cell is.
    pub addresses: Vec<String>,
    /// Where the resource is.
    pub resource: String,
    /// Where it writes its history.
    pub history: PathBuf,
    /// Its name, which no other client ever has.
    pub name: String,
    /// What its choices are drawn from.
    pub seed: u64,
    /// Its session's lease and grace.
    pub lease: Duration,
    /// See `lease`.
    pub grace: Duration,
    /// How many files there are that the rig itself changes, each when a fault begins, and leaves alone then: a change
    /// that nothing follows.
    pub rarely: u32,
}

impl Orders {
    /// As arguments.
    #[must_use]
    pub fn arguments(&self) -> [String; 8] {
        [
            self.addresses.join(","),
            self.resource.clone(),
            self.history.display().to_string(),
            self.name.clone(),
            self.seed.to_string(),
            self.lease.as_millis().to_string(),
            self.grace.as_millis().to_string(),
            self.rarely.to_string(),
        ]
    }

    /// From arguments.
    ///
    /// # Errors
    ///
    /// If they are none.
    pub fn parse(arguments: &[String]) -> anyhow::Result<Self> {
        let [addresses, resource, history, name, seed, lease, grace, rarely] = arguments else {
            anyhow::bail!("a client has eight arguments");
        };
        let milliseconds = |text: &str| anyhow::Ok(Duration::from_millis(text.parse()?));
        Ok(Self {
            addresses: addresses.split(',').map(str::to_owned).collect(),
            resource: resource.clone(),
            history: history.into(),
            name: name.clone(),
            seed: seed.parse()?,
            lease: milliseconds(lease)?,
            grace: milliseconds(grace)?,
            rarely: rarely.parse()?,
        })
    }
}

/// How far a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Working,
    Quiet,
    Stopping,
}

/// What all the work of one session shares.
struct Work {
    orders: Orders,
    session: Session,
    recorder: Recorder,
    stage: watch::Receiver<Stage>,
    chance: RefCell<StdRng>,
    calls: Slot<u64>,
}

/// Runs a client, as the process's whole life.
///
/// # Errors
///
/// If it is started wrongly.
pub fn run() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let orders = Orders::parse(&arguments)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(live(orders))
}

async fn live(orders: Orders) -> anyhow::Result<()> {
    let (send, mut stage) = watch::channel(Stage::Working);
    std::thread::spawn(move || listen(&send));
    let mut recorder = Recorder::create(&orders.history)?;
    let cell = Cell::connect(&orders.addresses)?;
    let mut chance = StdRng::seed_from_u64(orders.seed);
    let mut calls = 0;
    while *stage.borrow() == Stage::Working {
        let opening = cell.session().lease(orders.lease).grace(orders.grace).client_name(&orders.name).open();
        let session = match opening.await {
            Ok(session) => session,
            // No master within the grace period: try on.
            Err(Error::SessionEnded { .. } | Error::Unavailable { .. }) => continue,
            Err(error) => return Err(error).context("cannot open a session"),
        };
        recorder.note(Event::Opened { session: session.id() });
        let next = StdRng::seed_from_u64(chance.random());
        let work = Work {
            orders: orders.clone(),
            session,
            recorder,
            stage: stage.clone(),
            chance: RefCell::new(next),
            calls: Slot::new(calls),
        };
        work.work().await;
        (recorder, calls) = (work.recorder, work.calls.get());
    }
    // Without a session, nothing is under way.
    recorder.note(Event::Quiet);
    let _ = stage.wait_for(|stage| *stage == Stage::Stopping).await;
    recorder.note(Event::Stopped);
    Ok(())
}

/// Hears what the rig says, in a thread of its own.
fn listen(stage: &watch::Sender<Stage>) {
    for _ in std::io::stdin().lines().map_while(Result::ok) {
        stage.send_replace(Stage::Quiet);
    }
    stage.send_replace(Stage::Stopping);
}

impl Work {
    /// Works until told to stop, or until the session is over.
    async fn work(&self) {
        let calls = async {
            let locks = (0..LOCKS).map(|number| self.lock(number));
            let locks = futures::future::join_all(locks);
            tokio::join!(locks, self.read_and_write(), self.look_on(), self.count(), self.list());
            if self.is_live() {
                self.recorder.note(Event::Quiet);
            }
        };
        let session = async {
            tokio::join!(calls, self.watch(), self.stay_registered());
            if self.is_live() {
                self.session.close().await;
            }
        };
        tokio::join!(session, self.note_states());
    }

    /// Writes down how the session fares, to its end.
    async fn note_states(&self) {
        let mut events = self.session.events();
        while let Some(event) = events.next().await {
            let state = match event {
                SessionEvent::Jeopardy => "jeopardy".to_owned(),
                SessionEvent::Safe => "safe".to_owned(),
                SessionEvent::FailedOver { term } => format!("failed over to term {term}"),
                _ => continue,
            };
            self.recorder.note(Event::State { state });
        }
        let ended = self.session.expired().await;
        let (session, closed) = (self.session.id(), ended == Ended::Closed);
        self.recorder.note(Event::Over { session, reason: ended.to_string(), closed });
    }

    fn is(&self, stage: Stage) -> bool {
        *self.stage.borrow() == stage && self.is_live()
    }

    fn is_live(&self) -> bool {
        !matches!(self.session.state(), SessionState::Ended(_))
    }

    /// Waits until the client is told to stop, or its session is over.
    async fn stopped(&self) {
        let mut stage = self.stage.clone();
        tokio::select! {
            _ = stage.wait_for(|stage| *stage == Stage::Stopping) => {}
            _ = self.session.expired() => {}
        }
    }

    fn draw(&self, range: std::ops::Range<u64>) -> u64 {
        self.chance.borrow_mut().random_range(range)
    }

    /// Lets some time pass, as clients do that have something else to do.
    async fn pause(&self, milliseconds: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.draw(milliseconds))).await;
    }

    fn path(name: &str, number: u32) -> String {
        format!("{ROOT}/{name}-{number}")
    }

    /// Has a file written, and writes down what comes of it.
    async fn write(
        &self,
        handle: &holdfast::Handle,
        contents: String,
        if_generation: Option<u64>,
    ) -> Result<(), Error> {
        let call = self.calls.get() + 1;
        self.calls.set(call);
        let (path, instance) = (handle.path().to_owned(), handle.instance());
        let begins = Event::Writing { call, path, instance, contents: contents.clone(), if_generation };
        self.recorder.note(begins);
        let written = match if_generation {
            Some(generation) => handle.set_contents_if(generation, contents).await,
            None => handle.set_contents(contents).await,
        };
        match written {
            Ok(generation) => self.recorder.note(Event::Wrote { call, generation }),
            Err(error) => {
                if !error.is_outcome_unknown() {
                    self.recorder.note(Event::Refused { call });
                }
                if error.refusal().is_none() {
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// What is unique among all that this client ever writes.
    fn next_contents(&self) -> String {
        format!("{}:{}", self.orders.name, self.calls.get() + 1)
    }

    /// Writes down an error that is not the end of the session.
    fn judge(&self, what: &str, ended: Result<(), Error>) {
        match ended {
            Ok(()) | Err(Error::SessionEnded { .. }) => {}
            Err(error) => self.recorder.note(Event::Failed { what: format!("{what}: {error}") }),
        }
    }

    /// That the client believes in its session, if it does.
    fn believe(&self) {
        if self.session.state() == SessionState::Safe {
            self.recorder.note(Event::Alive { until: clock::at(self.session.valid_until()) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_come_through_as_arguments() {
        let orders = Orders {
            addresses: vec!["a:1".into(), "b:2".into()],
            resource: "c:3".into(),
            history: "dir/c1.jsonl".into(),
            name: "c1".into(),
            seed: 5,
            lease: Duration::from_secs(4),
            grace: Duration::from_millis(1500),
            rarely: 66,
        };
        assert_eq!(Orders::parse(&orders.arguments()).unwrap(), orders);
        assert!(Orders::parse(&orders.arguments()[1..]).is_err());
    }
}
