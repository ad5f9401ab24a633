//! One ledger of the bytes that clients make a replica hold, from the socket on.
//!
//! An [`Account`] is opened for each connection, and belongs to a principal; a [`Charge`] stands for bytes that are held, goes
//! wherever they go, and gives them back when it is dropped. So no stage can forget to count, and none has a limit of
//! its own that another stage goes around. What may be refused asks ([`Account::charge`]); what must not be, because it
//! gives back or keeps alive, is counted all the same ([`Account::charge_anyway`]). Never waits, and knows no clock.
//! Invariant: what is held in all is the sum of the charges that live.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::Principal;

/// How many bytes may be held before more are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerLimits {
    /// For one connection.
    pub connection_bytes_max: usize,
    /// For all connections of one principal; `anonymous`, which is everybody without TLS, has no such limit.
    pub principal_bytes_max: usize,
    /// In all.
    pub total_bytes_max: usize,
}

/// What has no room for more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LedgerFull {
    /// The connection holds as much as one connection may: so many bytes.
    Connection(usize),
    /// The principal's connections do.
    Principal(usize),
    /// All connections together do.
    Total(usize),
}

impl fmt::Display for LedgerFull {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (who, max) = match self {
            Self::Connection(max) => ("this connection", max),
            Self::Principal(max) => ("the connections of this principal", max),
            Self::Total(max) => ("all clients", max),
        };
        write!(formatter, "the replica holds as much for {who} as it may, {max} bytes")
    }
}

/// What a release calls: see [`Ledger::on_release`].
type Hook = Box<dyn Fn() + Send + Sync>;

/// The ledger. Clones are the same ledger.
#[derive(Clone)]
pub struct Ledger(Arc<Book>);

struct Book {
    limits: LedgerLimits,
    /// What is held in all.
    total: AtomicUsize,
    /// The most that was held in all at any time.
    peak: AtomicUsize,
    /// What each principal's connections hold. Entries of principals without connections are dropped when another one opens
    /// an account.
    principals: Mutex<BTreeMap<Principal, Weak<AtomicUsize>>>,
    /// Called after bytes were given back.
    released: Mutex<Option<Hook>>,
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(limits: LedgerLimits) -> Self {
        Self(Arc::new(Book {
            limits,
            total: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            principals: Mutex::default(),
            released: Mutex::default(),
        }))
    }

    /// Has `hook` called whenever bytes are given back, so that a caller that waits for room can look again.
    pub fn on_release(&self, hook: impl Fn() + Send + Sync + 'static) {
        *lock(&self.0.released) = Some(Box::new(hook));
    }

    /// An account for a connection of `principal`.
    #[must_use]
    pub fn account(&self, principal: &Principal) -> Account {
        let shared = (*principal != Principal::anonymous()).then(|| self.shared(principal));
        let connection = AtomicUsize::new(0);
        Account(Arc::new(Line { book: Arc::clone(&self.0), connection, principal: shared }))
    }

    fn shared(&self, principal: &Principal) -> Arc<AtomicUsize> {
        let mut principals = lock(&self.0.principals);
        if let Some(shared) = principals.get(principal).and_then(Weak::upgrade) {
            return shared;
        }
        principals.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(AtomicUsize::new(0));
        principals.insert(principal.clone(), Arc::downgrade(&shared));
        shared
    }

    /// What is held in all.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.total.load(Ordering::Relaxed)
    }

    /// The most that was held in all at any time.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.0.peak.load(Ordering::Relaxed)
    }

    /// What may still be held in all.
    #[must_use]
    pub fn room(&self) -> usize {
        self.0.limits.total_bytes_max.saturating_sub(self.held())
    }
}

impl fmt::Debug for Ledger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Ledger").field("limits", &self.0.limits).field("held", &self.held()).finish()
    }
}

/// What is held for one connection. Clones are the same account.
#[derive(Clone)]
pub struct Account(Arc<Line>);

struct Line {
    book: Arc<Book>,
    connection: AtomicUsize,
    /// Shared by all accounts of the principal; `None` for `anonymous`.
    principal: Option<Arc<AtomicUsize>>,
}

impl Line {
    /// The counters that a charge is in, with their limits: the narrowest first.
    fn counters(&self) -> impl DoubleEndedIterator<Item = (&AtomicUsize, LedgerFull)> {
        let limits = &self.book.limits;
        let principal = self.principal.as_deref();
        let principal = principal.map(|held| (held, LedgerFull::Principal(limits.principal_bytes_max)));
        [Some((&self.connection, LedgerFull::Connection(limits.connection_bytes_max))), principal]
            .into_iter()
            .flatten()
            .chain([(&self.book.total, LedgerFull::Total(limits.total_bytes_max))])
    }

    fn take(&self, bytes: usize) -> Result<(), LedgerFull> {
        for (place, (held, full)) in self.counters().enumerate() {
            let (LedgerFull::Connection(max) | LedgerFull::Principal(max) | LedgerFull::Total(max)) = full;
            let more = |held: usize| held.checked_add(bytes).filter(|held| *held <= max);
            if held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
                for (held, _) in self.counters().take(place) {
                    held.fetch_sub(bytes, Ordering::Relaxed);
                }
                return Err(full);
            }
        }
        self.note_peak();
        Ok(())
    }

    fn take_anyway(&self, bytes: usize) {
        for (held, _) in self.counters() {
            held.fetch_add(bytes, Ordering::Relaxed);
        }
        self.note_peak();
    }

    fn note_peak(&self) {
        self.book.peak.fetch_max(self.book.total.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        for (held, _) in self.counters() {
            let before = held.fetch_sub(bytes, Ordering::Relaxed);
            assert!(before >= bytes, "no more is given back than was charged");
        }
        if let Some(hook) = &*lock(&self.book.released) {
            hook();
        }
    }
}

impl Account {
    /// Charges bytes, if there is room.
    ///
    /// # Errors
    ///
    /// What is full; nothing is charged then.
    pub fn charge(&self, bytes: usize) -> Result<Charge, LedgerFull> {
        self.0.take(bytes)?;
        Ok(Charge { line: Arc::clone(&self.0), bytes })
    }

    /// Charges bytes, also beyond the limits: for what must never be refused.
    pub fn charge_anyway(&self, bytes: usize) -> Charge {
        self.0.take_anyway(bytes);
        Charge { line: Arc::clone(&self.0), bytes }
    }

    /// What is held for the connection.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.connection.load(Ordering::Relaxed)
    }

    /// What the connection may still charge at once.
    #[must_use]
    pub fn room(&self) -> usize {
        let room = |(held, full): (&AtomicUsize, LedgerFull)| {
            let (LedgerFull::Connection(max) | LedgerFull::Principal(max) | LedgerFull::Total(max)) = full;
            max.saturating_sub(held.load(Ordering::Relaxed))
        };
        self.0.counters().map(room).min().unwrap_or(0)
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Account").field("held", &self.held()).finish()
    }
}

/// Bytes that are held. Gives them back when it is dropped.
#[must_use = "what is not kept is given back at once"]
pub struct Charge {
    line: Arc<Line>,
    bytes: usize,
}

impl Charge {
    /// How many they are.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes a part out, or all if there is no more: it goes elsewhere.
    pub fn split(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self { line: Arc::clone(&self.line), bytes }
    }

    /// Charges more, if there is room.
    ///
    /// # Errors
    ///
    /// What is full; the charge is what it was then.
    pub fn grow(&mut self, bytes: usize) -> Result<(), LedgerFull> {
        self.line.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Charges more, also beyond the limits.
    pub fn grow_anyway(&mut self, bytes: usize) {
        self.line.take_anyway(bytes);
        self.bytes += bytes;
    }
}

impl fmt::Debug for Charge {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Charge({})", self.bytes)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.line.give_back(self.bytes);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics half-way under these locks, so a poisoned value is a sound one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LedgerLimits =
        LedgerLimits { connection_bytes_max: 10, principal_bytes_max: 15, total_bytes_max: 30 };

    fn alice() -> Principal {
        Principal::parse("alice").unwrap()
    }

    #[test]
    fn each_limit_is_met_and_what_is_refused_charges_nothing() {
        let ledger = Ledger::new(LIMITS);
        let (first, second) = (ledger.account(&alice()), ledger.account(&alice()));
        let held = first.charge(10).unwrap();
        assert_eq!(first.charge(1).unwrap_err(), LedgerFull::Connection(10));
        assert_eq!(second.charge(6).unwrap_err(), LedgerFull::Principal(15));
        assert_eq!((second.held(), ledger.held(), second.room()), (0, 10, 5));
        let strangers: Vec<_> = (0..3).map(|_| ledger.account(&Principal::anonymous())).collect();
        let others: Vec<_> = strangers[..2].iter().map(|account| account.charge(10).unwrap()).collect();
        assert_eq!(strangers[2].charge(1).unwrap_err(), LedgerFull::Total(30));
        assert_eq!((strangers[2].held(), ledger.held(), ledger.room()), (0, 30, 0));
        drop((held, others));
        assert_eq!((ledger.held(), ledger.peak()), (0, 30));
        assert!(second.charge(6).is_ok());
    }

    #[test]
    fn a_charge_is_split_and_grows_and_all_of_it_comes_back() {
        let ledger = Ledger::new(LIMITS);
        let account = ledger.account(&alice());
        let mut charge = account.charge(4).unwrap();
        assert_eq!(charge.grow(7), Err(LedgerFull::Connection(10)));
        charge.grow(6).unwrap();
        let part = charge.split(3);
        assert_eq!((charge.bytes(), part.bytes(), ledger.held()), (7, 3, 10));
        let rest = charge.split(100);
        assert_eq!((charge.bytes(), rest.bytes()), (0, 7));
        drop(rest);
        assert_eq!((part.bytes(), ledger.held()), (3, 3));
        drop((charge, part));
        assert_eq!(ledger.held(), 0);
    }

    #[test]
    fn what_is_never_refused_is_counted_and_keeps_out_what_may_be() {
        let ledger = Ledger::new(LIMITS);
        let account = ledger.account(&alice());
        let beyond = account.charge_anyway(40);
        assert!(account.charge(1).is_err());
        assert_eq!((ledger.held(), ledger.room(), account.room()), (40, 0, 0));
        drop(beyond);
        assert_eq!(ledger.held(), 0);
    }

    #[test]
    fn a_release_is_told() {
        let ledger = Ledger::new(LIMITS);
        let told = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&told);
        ledger.on_release(move || _ = counter.fetch_add(1, Ordering::Relaxed));
        let account = ledger.account(&alice());
        let mut charge = account.charge(2).unwrap();
        drop(charge.split(1));
        assert_eq!(told.load(Ordering::Relaxed), 1);
        drop(charge);
        assert_eq!(told.load(Ordering::Relaxed), 2);
    }
}
