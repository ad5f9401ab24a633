//! Where a cell's replicas are, as far as this program has found out.
//!
//! Owns what is shared by all clones of a [`Cell`](crate::Cell) and all of its sessions: the addresses that the
//! application gave, those that the cell added, and where the master was last. Never connects to anything. The
//! invariant: an address that the application gave is never forgotten, so that what is wrong here costs time only.

use holdfast_session::Known;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A master that answered so long ago is asked whether it still is the master before a write is sent to it.
const FRESH: Duration = Duration::from_secs(1);
/// What the cell says of its replicas is asked for again after so long.
const LEARNED_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(crate) struct Places {
    configured: Arc<[String]>,
    found: Arc<Mutex<Found>>,
}

#[derive(Debug, Default)]
struct Found {
    /// As the cell said last.
    learned: Vec<String>,
    /// When; also when it was last asked for.
    learned_at: Option<Instant>,
    /// Where the master was last, and when it answered.
    master: Option<(String, Instant)>,
    /// A replica has answered once.
    heard: bool,
    /// Where nobody was when it was last tried: to be tried last.
    failed: Vec<String>,
}

impl Places {
    pub(crate) fn new(configured: Arc<[String]>) -> Self {
        Self { configured, found: Arc::default() }
    }

    /// As the application gave them.
    pub(crate) fn configured(&self) -> &[String] {
        &self.configured
    }

    /// Every address at which a replica may be, the likeliest first. None twice.
    pub(crate) fn in_order(&self) -> Vec<String> {
        let found = self.found();
        let mut all: Vec<String> = self.configured.to_vec();
        for address in &found.learned {
            if !all.contains(address) {
                all.push(address.clone());
            }
        }
        // The order is otherwise kept.
        all.sort_by_key(|address| found.failed.contains(address));
        all
    }

    /// Where the master was last, and whether it answered there just now.
    pub(crate) fn master(&self) -> Option<(String, bool)> {
        self.found().master.as_ref().map(|(address, at)| (address.clone(), at.elapsed() < FRESH))
    }

    pub(crate) fn has_heard(&self) -> bool {
        self.found().heard
    }

    /// For a session that begins.
    pub(crate) fn known(&self) -> Known {
        let found = self.found();
        Known {
            addresses: found.learned.clone(),
            master: found.master.as_ref().map(|(address, _)| address.clone()),
            heard: found.heard,
        }
    }

    /// The master has answered there.
    pub(crate) fn found_master(&self, address: &str) {
        let mut found = self.found();
        found.heard = true;
        found.failed.retain(|failed| failed != address);
        found.master = Some((address.to_owned(), Instant::now()));
    }

    /// Whoever answered there is not the master.
    pub(crate) fn not_master(&self, address: &str) {
        let mut found = self.found();
        found.heard = true;
        found.failed.retain(|failed| failed != address);
        found.master = found.master.take().filter(|(master, _)| master != address);
    }

    /// Nobody answered there.
    pub(crate) fn failed(&self, address: &str) {
        let mut found = self.found();
        if !found.failed.iter().any(|failed| failed == address) {
            found.failed.push(address.to_owned());
        }
        found.master = found.master.take().filter(|(master, _)| master != address);
    }

    /// The cell says where its replicas are.
    pub(crate) fn learn(&self, addresses: impl IntoIterator<Item = String>) {
        let learned: Vec<String> = addresses.into_iter().filter(|address| !address.is_empty()).collect();
        let mut found = self.found();
        found.heard = true;
        found.learned_at = Some(Instant::now());
        if !learned.is_empty() {
            found.failed.retain(|failed| learned.contains(failed) || self.configured.contains(failed));
            found.learned = learned;
        }
    }

    /// Whether the cell is to be asked where its replicas are. Says so once, and then not for a minute.
    pub(crate) fn take_stale(&self) -> bool {
        let mut found = self.found();
        let is_stale = found.learned_at.is_none_or(|at| at.elapsed() >= LEARNED_MAX);
        if is_stale {
            found.learned_at = Some(Instant::now());
        }
        is_stale
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        // A panic elsewhere cannot leave it half-changed.
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> Places {
        Places::new(["a:1".to_owned(), "b:1".to_owned()].into())
    }

    fn learn(places: &Places, addresses: &[&str]) {
        places.learn(addresses.iter().map(|address| (*address).to_owned()));
    }

    #[test]
    fn what_the_cell_says_is_added_and_what_the_application_said_stays() {
        let places = places();
        learn(&places, &["b:1", "c:1", ""]);
        assert_eq!(places.in_order(), ["a:1", "b:1", "c:1"]);
        learn(&places, &["d:1"]);
        assert_eq!(places.in_order(), ["a:1", "b:1", "d:1"]);
        learn(&places, &[]);
        assert_eq!(
            places.in_order(),
            ["a:1", "b:1", "d:1"],
            "a replica that has not founded yet knows nobody"
        );
        assert_eq!(places.configured(), ["a:1", "b:1"]);
        assert!(places.has_heard() && places.known().addresses == ["d:1"]);
    }

    #[test]
    fn where_nobody_answered_is_tried_last_until_somebody_does() {
        let places = places();
        places.found_master("a:1");
        assert_eq!(places.master(), Some(("a:1".to_owned(), true)));
        places.failed("a:1");
        assert_eq!((places.in_order(), places.master()), (vec!["b:1".to_owned(), "a:1".to_owned()], None));
        places.not_master("a:1");
        assert_eq!(places.in_order(), ["a:1", "b:1"]);
    }

    #[test]
    fn the_cell_is_asked_for_its_replicas_once() {
        let places = places();
        assert!(places.take_stale() && !places.take_stale());
    }
}
