//! The honest client: sessions that do one kind of operation each, at a steady rate.
//!
//! An operation is due at a fixed time, whether or not the one before it is done, and its latency counts from then. So a
//! master that stands still for three seconds is seen in three seconds' worth of operations, and not in one. Each session's
//! rate is far below what a session can do: otherwise its own line of operations would be measured, and not the cell.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use holdfast::{Cell, Handle, Mode, OpenOptions, Session, SessionEvent};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::latencies::{Latencies, Operation};
use super::lost_lock::LostLock;

/// Each session's operations come one after so much time.
const EVERY: Duration = Duration::from_millis(50);
/// So many sessions do each kind of operation, one after the other in turn.
const SESSIONS: u32 = 4;
/// The administrator asks so often.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// The administrator waits no longer for an answer.
const ASK_MAX: Duration = Duration::from_secs(5);
/// An operation that takes longer has failed.
const OPERATION_MAX: Duration = Duration::from_secs(60);
const CONTENTS_BYTES: usize = 256;
const LEASE: Duration = Duration::from_secs(5);

/// When operations are due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    opens: Instant,
    closes: Instant,
}

impl Window {
    pub(super) fn opens_now(length: Duration) -> Self {
        let opens = Instant::now();
        Self { opens, closes: opens + length }
    }

    pub(super) fn is_over(&self) -> bool {
        Instant::now() >= self.closes
    }
}

/// What the honest client saw.
pub(super) struct Outcome {
    pub(super) latencies: Latencies,
    /// How often a session came into jeopardy.
    pub(super) jeopardies: u64,
    /// How long a lock whose holder had died was not granted to the next.
    pub(super) lost_lock: Option<Duration>,
    /// How the administrator fared.
    pub(super) admin: Admin,
    /// What failed that should not.
    pub(super) errors: Vec<String>,
}

/// How the administrator fared.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Admin {
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) longest: Duration,
}

/// What the tasks of the client write down.
struct Notes {
    latencies: Mutex<Latencies>,
    jeopardies: Mutex<u64>,
    errors: Mutex<Vec<String>>,
}

/// The client, connected.
pub(super) struct Honest {
    /// The administrator's connection.
    cell: Cell,
    /// The sessions that work, and what they do.
    workers: Vec<(Operation, Session, Handle)>,
    lost_lock: LostLock,
    notes: Arc<Notes>,
}

impl Honest {
    /// Opens the sessions and what they work with.
    pub(super) async fn open(addresses: &str) -> Result<Self> {
        let notes = Arc::new(Notes {
            latencies: Mutex::new(Latencies::new()),
            jeopardies: Mutex::default(),
            errors: Mutex::default(),
        });
        let own = async |name: &str| {
            // A cell each: sessions of one cell would share its connections.
            let cell = Cell::connect([addresses])?;
            let session = cell.session().client_name(format!("honest-{name}")).lease(LEASE).open().await?;
            tokio::spawn(follow(session.clone(), Arc::clone(&notes)));
            let options = OpenOptions::new().create().file().contents(contents()).caching(false);
            let handle = session.open(&format!("/honest-{name}"), options).await?;
            anyhow::Ok((session, handle))
        };
        let mut workers = Vec::new();
        for number in 0..SESSIONS {
            for operation in Operation::ALL {
                let (session, handle) = own(&format!("{operation:?}-{number}")).await?;
                workers.push((operation, session, handle));
            }
        }
        let lost_lock = LostLock::prepare(addresses, own("waits").await?).await?;
        let cell = Cell::builder().addresses([addresses]).timeout(ASK_MAX).connect()?;
        Ok(Self { cell, workers, lost_lock, notes })
    }

    /// Works while the window is open, and finishes what was due then.
    pub(super) async fn work(self, window: Window) -> Outcome {
        let Self { cell, workers, lost_lock, notes } = self;
        let mut tasks = JoinSet::new();
        let mut sessions = Vec::new();
        let mut first = window.opens;
        for (operation, session, handle) in workers {
            tasks.spawn(at_a_steady_rate(operation, handle, first, window.closes, Arc::clone(&notes)));
            sessions.push(session);
            first += EVERY / (SESSIONS * Operation::ALL.len() as u32);
        }
        let (admin, lost_lock, ()) = tokio::join!(ask(cell, window), lost_lock.run(), async {
            while let Some(done) = tasks.join_next().await {
                if let Err(error) = done {
                    notes.error(format!("a task: {error}"));
                }
            }
        });
        for session in sessions {
            session.close().await;
        }
        let lost_lock = lost_lock.map_err(|error| notes.error(format!("the lost lock: {error:#}"))).ok();
        let take = |errors: &Mutex<Vec<String>>| {
            std::mem::take(&mut *errors.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let latencies = notes.latencies.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let jeopardies = *notes.jeopardies.lock().unwrap_or_else(PoisonError::into_inner);
        Outcome { latencies, jeopardies, lost_lock, admin, errors: take(&notes.errors) }
    }
}

impl Notes {
    fn error(&self, error: String) {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).push(error);
    }
}

fn contents() -> Bytes {
    Bytes::from(vec![b'h'; CONTENTS_BYTES])
}

/// Counts a session's jeopardies.
async fn follow(session: Session, notes: Arc<Notes>) {
    let mut events = session.events();
    while let Some(event) = events.next().await {
        if let SessionEvent::Jeopardy = event {
            *notes.jeopardies.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
    }
}

async fn at_a_steady_rate(
    operation: Operation,
    handle: Handle,
    first: Instant,
    closes: Instant,
    notes: Arc<Notes>,
) {
    let mut due = first;
    while due < closes {
        sleep_until(due).await;
        let done = timeout(OPERATION_MAX, perform(operation, &handle)).await;
        let done = done.map_err(|_| anyhow::anyhow!("no answer within {OPERATION_MAX:?}"));
        if let Err(error) = done.and_then(|done| done) {
            // The session is over, or will be: what comes now would say nothing new.
            return notes.error(format!("{operation:?}: {error:#}"));
        }
        let took = due.elapsed();
        notes.latencies.lock().unwrap_or_else(PoisonError::into_inner).record(operation, took);
        due += EVERY;
    }
}

async fn perform(operation: Operation, handle: &Handle) -> Result<()> {
    match operation {
        Operation::Write => drop(handle.set_contents(contents()).await?),
        Operation::LockPair => handle.acquire(Mode::Exclusive).await?.release().await.context("release")?,
        Operation::Read => {
            let read = handle.contents().await?;
            ensure!(read.bytes == contents(), "a read gave something that nobody wrote");
        }
    }
    Ok(())
}

/// Is an administrator, who asks for the settings every now and then.
async fn ask(cell: Cell, window: Window) -> Admin {
    let mut admin = Admin::default();
    let mut due = window.opens;
    while due < window.closes {
        sleep_until(due).await;
        let began = Instant::now();
        match timeout(ASK_MAX, cell.settings()).await {
            Ok(Ok(_)) => admin.answered += 1,
            Ok(Err(_)) | Err(_) => admin.failed += 1,
        }
        admin.longest = admin.longest.max(began.elapsed());
        due = (due + ASK_EVERY).max(Instant::now());
    }
    admin
}
