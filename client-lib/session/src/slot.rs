//! What is cached of one open node, readable from any thread without a message and without a lock.
//!
//! Owns three values and says when they may be believed; what goes into them and when they are emptied is the
//! cache's business (`cache`). The invariant (I5): a reader takes the value first, the time second and
//! `valid_until` last, so what it returns was in the slot at a moment at which the session was valid. The slot is
//! emptied before the acknowledgement that lets a newer value appear anywhere is sent.

use crate::counters::CacheCounters;
use arc_swap::ArcSwapOption;
use holdfast_proto::client::v1 as wire;
use holdfast_types::{Time, planted};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is cached of the node of one handle. Shared by all application handles that were opened as that one; good
/// for as long as the handle is open, and empty for ever afterwards.
///
/// Values are the cell's messages as they came, less what is never cached: how the lock fares (`lock`,
/// `lock_generation`) and how many handles are open are blank in every [`wire::Stat`].
#[derive(Debug)]
pub struct Slot {
    contents: ArcSwapOption<wire::Contents>,
    stat: ArcSwapOption<wire::Stat>,
    children: ArcSwapOption<wire::Directory>,
    /// Something was read since the cache last looked for what it can do without.
    used: AtomicBool,
    validity: Arc<Validity>,
    counters: Arc<CacheCounters>,
}

/// Until when the session is valid, as every slot sees it. Only the machine writes it.
#[derive(Debug, Default)]
pub(crate) struct Validity(AtomicU64);

impl Validity {
    pub(crate) fn publish(&self, until: Time) {
        // Nobody else writes, and most inputs change nothing.
        if self.until() != until {
            self.0.store(until.as_nanos(), Ordering::SeqCst);
        }
    }

    fn until(&self) -> Time {
        Time::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

impl Slot {
    pub(crate) fn new(validity: Arc<Validity>, counters: Arc<CacheCounters>) -> Self {
        Self {
            contents: ArcSwapOption::empty(),
            stat: ArcSwapOption::empty(),
            children: ArcSwapOption::empty(),
            used: AtomicBool::new(false),
            validity,
            counters,
        }
    }

    /// The file, whole, if it is cached and may be believed at this moment. `clock` is called once, after the value
    /// was taken, and must tell the time of the session's driver.
    ///
    /// `None` counts as a miss: ask the cell, whose answer fills the slot if it may.
    pub fn contents(&self, clock: impl FnOnce() -> Time) -> Option<Arc<wire::Contents>> {
        self.believed(self.contents.load_full(), clock)
    }

    /// The node's metadata; like [`Slot::contents`].
    pub fn stat(&self, clock: impl FnOnce() -> Time) -> Option<Arc<wire::Stat>> {
        self.believed(self.stat.load_full(), clock)
    }

    /// The directory with all of its children, `more` being false; like [`Slot::contents`].
    pub fn children(&self, clock: impl FnOnce() -> Time) -> Option<Arc<wire::Directory>> {
        self.believed(self.children.load_full(), clock)
    }

    fn believed<T>(&self, value: Option<T>, clock: impl FnOnce() -> Time) -> Option<T> {
        // The order is what makes the read linearizable: the value is here already, and only now the clock is read.
        let believed = value.filter(|_| clock() < self.validity.until() || planted!(CacheAfterLease));
        match &believed {
            Some(_) => {
                // A store only if it changes anything: readers on several cores would pass the line to and fro.
                if !self.used.load(Ordering::Relaxed) {
                    self.used.store(true, Ordering::Relaxed);
                }
                self.counters.hit();
            }
            None => self.counters.miss(),
        }
        believed
    }

    pub(crate) fn fill_contents(&self, contents: Arc<wire::Contents>) {
        self.contents.store(Some(contents));
    }

    pub(crate) fn fill_stat(&self, stat: Arc<wire::Stat>) {
        self.stat.store(Some(stat));
    }

    pub(crate) fn fill_children(&self, children: Arc<wire::Directory>) {
        self.children.store(Some(children));
    }

    /// Nothing is in it from here on. A reader on another thread that has taken a value already has taken it before.
    pub(crate) fn empty(&self) {
        self.contents.store(None);
        self.stat.store(None);
        self.children.store(None);
    }

    /// Whether it was read since this was last asked.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }
}

/// A slot is equal to itself only.
impl PartialEq for Slot {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}
