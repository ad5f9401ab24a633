//! One session of the crowd: its tasks, and what others may look at.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use holdfast::{EventKind, Handle, Lock, Mode, OpenOptions, Session, SessionEvent, SessionState};
use tokio::sync::watch;

use super::group::Group;
use super::tally::Tally;

/// Whoever reads a number in its watched file that has passed a multiple of this passes its lock on.
pub(crate) const ROUND: u64 = 1_000_000;
/// The contents of a bulk write.
const BULK_BYTES: usize = 256 << 10;

/// What a session is to do.
pub(super) struct Plan {
    /// The node of the lock that it wants.
    pub(super) lock: String,
    /// The file that it watches.
    pub(super) watched: String,
    /// The file that it writes all the time.
    pub(super) bulk: Option<String>,
    /// It asks the master something so often; zero: never.
    pub(super) ask_every: Duration,
    pub(super) group: Arc<Group>,
    pub(super) tally: Arc<Tally>,
}

/// A session, for those who look.
pub(super) struct Seat {
    pub(super) session: Session,
    /// The lock, while the session has it.
    lock: Mutex<Option<Lock>>,
    /// The greatest number that it has read in the watched file.
    seen: watch::Sender<u64>,
}

impl Seat {
    /// Opens what the session needs, and sets it to work.
    pub(super) async fn take(session: Session, plan: Plan) -> anyhow::Result<Arc<Self>> {
        let seat = Arc::new(Self { session, lock: Mutex::default(), seen: watch::Sender::new(0) });
        let watching = OpenOptions::new().read_only().events([EventKind::ContentsModified]).caching(false);
        let watched = seat.session.open(&plan.watched, watching).await.context("the watched file")?;
        tokio::spawn(Arc::clone(&seat).watch(watched));
        let lock = seat.session.open(&plan.lock, OpenOptions::new().create().caching(false)).await?;
        let lock = Arc::new(lock);
        tokio::spawn(Arc::clone(&seat).follow(Arc::clone(&plan.tally)));
        if !plan.ask_every.is_zero() {
            tokio::spawn(ask(Arc::clone(&lock), plan.ask_every, Arc::clone(&plan.tally)));
        }
        if let Some(path) = &plan.bulk {
            let handle = seat.session.open(path, OpenOptions::new().create().caching(false)).await?;
            tokio::spawn(write_bulk(handle, Arc::clone(&plan.tally)));
        }
        tokio::spawn(Arc::clone(&seat).hold(lock, plan));
        Ok(seat)
    }

    /// The greatest number that the session has read in the watched file.
    pub(super) fn seen(&self) -> u64 {
        *self.seen.borrow()
    }

    /// Looks at the lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<Lock>> {
        // Nothing panics while it is held.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the lock, passes it on when told, and queues up again.
    async fn hold(self: Arc<Self>, handle: Arc<Handle>, plan: Plan) {
        loop {
            // It fails when the session is over, which is counted elsewhere.
            let Ok(lock) = handle.acquire(Mode::Exclusive).await else { return };
            plan.tally.count_grant(plan.group.granted(lock.generation()));
            *self.lock() = Some(lock);
            let mut seen = self.seen.subscribe();
            let round = *seen.borrow() / ROUND;
            let mut state = self.session.watch_state();
            tokio::select! {
                _ = state.wait_for(|state| matches!(state, SessionState::Ended(_))) => {
                    plan.group.released();
                    return;
                }
                passed = seen.wait_for(|seen| seen / ROUND > round) => if passed.is_err() { return },
            }
            let Some(lock) = self.lock().take() else { return };
            plan.group.released();
            if lock.release().await.is_err() {
                return;
            }
        }
    }

    /// Reads the watched file whenever it is told that it has changed.
    async fn watch(self: Arc<Self>, watched: Handle) {
        let mut events = watched.events().expect("it was opened with events");
        loop {
            let Ok(contents) = watched.contents().await else { return };
            let number: Option<u64> =
                std::str::from_utf8(&contents.bytes).ok().and_then(|text| text.trim().parse().ok());
            self.seen.send_modify(|seen| *seen = number.unwrap_or(0).max(*seen));
            let Some(Ok(_)) = events.next().await else { return };
        }
    }

    /// Counts what happens to the session.
    async fn follow(self: Arc<Self>, tally: Arc<Tally>) {
        let mut events = self.session.events();
        let mut since = None;
        while let Some(event) = events.next().await {
            match event {
                SessionEvent::Jeopardy => since = Some(Instant::now()),
                SessionEvent::Safe => {
                    if let Some(since) = since.take() {
                        tally.count_jeopardy(since.elapsed());
                    }
                }
                SessionEvent::FailedOver { term } => tally.count_fail_over(term),
                SessionEvent::Ended(ended) => tally.count_end(&ended.to_string()),
                _ => {}
            }
        }
    }
}

/// Asks the master about the lock every now and then.
async fn ask(handle: Arc<Handle>, every: Duration, tally: Arc<Tally>) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let asked = Instant::now();
        if handle.lock_stat().await.is_err() {
            return;
        }
        tally.count_answer(asked.elapsed());
    }
}

/// Writes a large file, over and over.
async fn write_bulk(handle: Handle, tally: Arc<Tally>) {
    while handle.set_contents(vec![b'x'; BULK_BYTES]).await.is_ok() {
        tally.count_bulk();
    }
}
