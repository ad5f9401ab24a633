//! One ledger of the bytes that clients make a replica hold, from the socket on.
//!
//! An [`Account`] is opened for each connection, and belongs to a principal; a [`Charge`] stands for bytes that are held, goes
//! wherever they go, and gives them back when it is dropped. So no stage can forget to count, and none has a limit of
//! its own that another stage goes around. What may be refused asks ([`Account::charge`]); what must not be, because it
//! gives back or keeps alive, is counted all the same ([`Account::charge_anyway`]).
//!
//! The core *keeps* what it has taken up and cannot be done with yet ([`Charge::keep`]): it may have to wait for others for
//! long. Only half of each limit can be kept, so that the door is never closed by what waits behind it, and a KeepAlive gets in;
//! and of the total a quarter more by connections for which little is kept, so that others do not take their room.
//! Never waits, and knows no clock. Invariant: what is held, and what is kept, is the sum of the charges that live.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use crate::{Principal, planted};

/// One in so many of the bytes that may be held may be kept.
const KEPT_ONE_IN: usize = 2;
/// And one in so many more, by connections for which little is kept: so that few that send much leave room for others.
const KEPT_FOR_LITTLE_ONE_IN: usize = 4;
/// It is little up to one in so many of what one connection may hold.
const LITTLE_ONE_IN: usize = 64;

/// How many bytes may be held before more are refused. Half of each limit may be kept by the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerLimits {
    /// For one connection.
    pub connection_bytes_max: usize,
    /// For all connections of one principal; `anonymous`, which is everybody without TLS, has no such limit.
    pub principal_bytes_max: usize,
    /// In all.
    pub total_bytes_max: usize,
}

impl LedgerLimits {
    /// Nothing is ever refused.
    pub const NONE: Self = Self {
        connection_bytes_max: usize::MAX,
        principal_bytes_max: usize::MAX,
        total_bytes_max: usize::MAX,
    };
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

impl LedgerFull {
    /// The limit's name, for programs.
    #[must_use]
    pub fn limit(&self) -> &'static str {
        match self {
            Self::Connection(_) => "ledger_connection_bytes_max",
            Self::Principal(_) => "ledger_principal_bytes_max",
            Self::Total(_) => "ledger_total_bytes_max",
        }
    }

    /// How many bytes it allows.
    #[must_use]
    pub fn maximum(&self) -> usize {
        let (Self::Connection(max) | Self::Principal(max) | Self::Total(max)) = self;
        *max
    }
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
    /// What is held and kept in all.
    total: Counter,
    /// The most that was held in all at any time.
    peak: AtomicUsize,
    /// What each principal's connections hold. Entries of principals without connections are dropped when another one opens
    /// an account.
    principals: Mutex<BTreeMap<Principal, Weak<Counter>>>,
    /// Called after bytes were given back.
    released: OnceLock<Hook>,
}

/// What is held by somebody, and how much of it is kept.
#[derive(Debug, Default)]
struct Counter {
    held: AtomicUsize,
    /// Never more than `held`.
    kept: AtomicUsize,
}

/// Which of a counter's two numbers, with what may be in it of so many bytes.
#[derive(Clone, Copy, Debug)]
enum Column {
    Held,
    Kept,
}

impl Column {
    fn of(self, counter: &Counter) -> &AtomicUsize {
        match self {
            Self::Held => &counter.held,
            Self::Kept => &counter.kept,
        }
    }

    /// What there may be in it of a limit, for a connection that has little in it or more.
    fn max(self, full: LedgerFull, is_little: bool) -> LedgerFull {
        let more = is_little && matches!(full, LedgerFull::Total(_));
        let part = |max| match self {
            Self::Held => max,
            Self::Kept => max / KEPT_ONE_IN + if more { max / KEPT_FOR_LITTLE_ONE_IN } else { 0 },
        };
        match full {
            LedgerFull::Connection(max) => LedgerFull::Connection(part(max)),
            LedgerFull::Principal(max) => LedgerFull::Principal(part(max)),
            LedgerFull::Total(max) => LedgerFull::Total(part(max)),
        }
    }
}

impl Ledger {
    /// An empty ledger.
    #[must_use]
    pub fn new(limits: LedgerLimits) -> Self {
        Self(Arc::new(Book {
            limits,
            total: Counter::default(),
            peak: AtomicUsize::new(0),
            principals: Mutex::default(),
            released: OnceLock::new(),
        }))
    }

    /// Has `hook` called whenever bytes are given back, so that a caller that waits for room can look again. Only the first
    /// hook counts.
    pub fn on_release(&self, hook: impl Fn() + Send + Sync + 'static) {
        let _ = self.0.released.set(Box::new(hook));
    }

    /// An account for a connection of `principal`.
    #[must_use]
    pub fn account(&self, principal: &Principal) -> Account {
        let shared = (*principal != Principal::anonymous()).then(|| self.shared(principal));
        let connection = Counter::default();
        Account(Arc::new(Line { book: Arc::clone(&self.0), connection, principal: shared }))
    }

    fn shared(&self, principal: &Principal) -> Arc<Counter> {
        let mut principals = lock(&self.0.principals);
        if let Some(shared) = principals.get(principal).and_then(Weak::upgrade) {
            return shared;
        }
        principals.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(Counter::default());
        principals.insert(principal.clone(), Arc::downgrade(&shared));
        shared
    }

    /// What is held in all.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.total.held.load(Ordering::Relaxed)
    }

    /// How much of that the core keeps.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.0.total.kept.load(Ordering::Relaxed)
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
    connection: Counter,
    /// Shared by all accounts of the principal; `None` for `anonymous`.
    principal: Option<Arc<Counter>>,
}

impl Line {
    /// The counters that a charge is in, with their limits: the narrowest first.
    fn counters(&self) -> impl DoubleEndedIterator<Item = (&Counter, LedgerFull)> {
        let limits = &self.book.limits;
        let principal = self.principal.as_deref();
        let principal = principal.map(|held| (held, LedgerFull::Principal(limits.principal_bytes_max)));
        [Some((&self.connection, LedgerFull::Connection(limits.connection_bytes_max))), principal]
            .into_iter()
            .flatten()
            .chain([(&self.book.total, LedgerFull::Total(limits.total_bytes_max))])
    }

    fn take(&self, column: Column, bytes: usize) -> Result<(), LedgerFull> {
        let little = self.book.limits.connection_bytes_max / LITTLE_ONE_IN;
        let mut is_little = false;
        for (place, (counter, full)) in self.counters().enumerate() {
            let full = column.max(full, is_little);
            let more = |sum: usize| sum.checked_add(bytes).filter(|sum| *sum <= full.maximum());
            let taken = column.of(counter).fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
            // The connection's own counter is the first.
            is_little |= place == 0 && taken.is_ok_and(|before| before + bytes <= little);
            if taken.is_err() {
                for (counter, _) in self.counters().take(place) {
                    column.of(counter).fetch_sub(bytes, Ordering::Relaxed);
                }
                return Err(full);
            }
        }
        self.note_peak();
        Ok(())
    }

    fn take_anyway(&self, column: Column, bytes: usize) {
        for (counter, _) in self.counters() {
            column.of(counter).fetch_add(bytes, Ordering::Relaxed);
        }
        self.note_peak();
    }

    fn note_peak(&self) {
        self.book.peak.fetch_max(self.book.total.held.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    fn give_back(&self, bytes: usize, kept: bool) {
        if bytes == 0 {
            return;
        }
        for (counter, _) in self.counters() {
            if kept {
                let before = counter.kept.fetch_sub(bytes, Ordering::Relaxed);
                assert!(before >= bytes, "no more is given back than was kept");
            }
            let before = counter.held.fetch_sub(bytes, Ordering::Relaxed);
            assert!(before >= bytes, "no more is given back than was charged");
        }
        if let Some(hook) = self.book.released.get() {
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
        self.0.take(Column::Held, bytes)?;
        Ok(Charge { line: Arc::clone(&self.0), bytes, kept: false })
    }

    /// Charges bytes, also beyond the limits: for what must never be refused.
    pub fn charge_anyway(&self, bytes: usize) -> Charge {
        self.0.take_anyway(Column::Held, bytes);
        Charge { line: Arc::clone(&self.0), bytes, kept: false }
    }

    /// What is held for the connection.
    #[must_use]
    pub fn held(&self) -> usize {
        self.0.connection.held.load(Ordering::Relaxed)
    }

    /// How much of that the core keeps.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.0.connection.kept.load(Ordering::Relaxed)
    }

    /// What the connection may still charge at once.
    #[must_use]
    pub fn room(&self) -> usize {
        let room = |(counter, full): (&Counter, LedgerFull)| {
            full.maximum().saturating_sub(counter.held.load(Ordering::Relaxed))
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
    /// The core keeps them.
    kept: bool,
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
        Self { line: Arc::clone(&self.line), bytes, kept: self.kept }
    }

    /// From now on the core keeps the bytes, if there is room for that.
    ///
    /// # Errors
    ///
    /// What is full; the charge is what it was then.
    pub fn keep(&mut self) -> Result<(), LedgerFull> {
        if !self.kept {
            self.line.take(Column::Kept, self.bytes)?;
            self.kept = true;
        }
        Ok(())
    }

    /// From now on the core keeps the bytes, also beyond the limits.
    pub fn keep_anyway(&mut self) {
        if !std::mem::replace(&mut self.kept, true) {
            self.line.take_anyway(Column::Kept, self.bytes);
        }
    }

    /// Charges more for what is not kept, if there is room.
    ///
    /// # Errors
    ///
    /// What is full; the charge is what it was then.
    pub fn grow(&mut self, bytes: usize) -> Result<(), LedgerFull> {
        assert!(!self.kept, "what is kept is all there");
        self.line.take(Column::Held, bytes)?;
        self.bytes += bytes;
        Ok(())
    }

    /// Charges more for what is not kept, also beyond the limits.
    pub fn grow_anyway(&mut self, bytes: usize) {
        assert!(!self.kept, "what is kept is all there");
        self.line.take_anyway(Column::Held, bytes);
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
        if !(self.kept && planted!(LedgerLeaks)) {
            self.line.give_back(self.bytes, self.kept);
        }
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
    fn the_core_keeps_half_at_the_most_and_the_door_stays_open() {
        let ledger = Ledger::new(LIMITS);
        let account = ledger.account(&alice());
        let mut kept = account.charge(10).unwrap();
        assert_eq!(kept.keep(), Err(LedgerFull::Connection(5)));
        assert_eq!(ledger.kept(), 0, "what is refused is not counted");
        let mut rest = kept.split(5);
        kept.keep().unwrap();
        assert_eq!(rest.keep(), Err(LedgerFull::Connection(5)));
        drop(rest);
        let mut passing = account.charge(5).unwrap();
        assert_eq!(passing.keep(), Err(LedgerFull::Connection(5)));
        let mut second = ledger.account(&alice()).charge(5).unwrap();
        assert_eq!(second.keep(), Err(LedgerFull::Principal(7)));
        second.keep_anyway();
        assert_eq!((ledger.held(), ledger.kept()), (15, 10));
        let part = kept.split(2);
        drop((kept, second, passing));
        assert_eq!((ledger.held(), ledger.kept()), (2, 2), "a part of what is kept is kept");
        drop(part);
        assert_eq!((ledger.held(), ledger.kept()), (0, 0));
    }

    #[test]
    fn few_that_keep_much_leave_room_for_those_that_keep_little() {
        let limits = LedgerLimits { connection_bytes_max: 640, total_bytes_max: 1_000, ..LedgerLimits::NONE };
        let ledger = Ledger::new(limits);
        let connection = || ledger.account(&Principal::anonymous());
        let keep = |account: &Account, bytes| {
            let mut charge = account.charge(bytes).unwrap();
            charge.keep().map(|()| charge)
        };
        let greedy = [connection(), connection()];
        let _much = (keep(&greedy[0], 320).unwrap(), keep(&greedy[1], 180).unwrap());
        assert_eq!(keep(&greedy[1], 1).unwrap_err(), LedgerFull::Total(500));
        let honest = connection();
        assert_eq!(keep(&honest, 11).unwrap_err(), LedgerFull::Total(500), "more than a little");
        let little = keep(&honest, 10).unwrap();
        assert_eq!(keep(&honest, 1).unwrap_err(), LedgerFull::Total(500));
        drop(little);
        let others: Vec<_> = (0..25).map(|_| connection()).collect();
        let _little: Vec<_> = others.iter().map(|other| keep(other, 10).unwrap()).collect();
        assert_eq!(keep(&honest, 1).unwrap_err(), LedgerFull::Total(750));
    }

    /// A charge of an account, and whether it was charged and kept although that might have been refused.
    struct Living {
        of: usize,
        held: bool,
        kept: bool,
        charge: Charge,
    }

    /// By pseudo-random steps: what may be refused never goes beyond a limit, whatever else is counted, and nothing is left.
    #[test]
    fn whatever_comes_and_goes_no_limit_is_passed_by_what_may_be_refused_and_all_comes_back() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        let mut chance = |below: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from((seed >> 33) % below).unwrap()
        };
        let ledger = Ledger::new(LIMITS);
        let strangers = [ledger.account(&Principal::anonymous()), ledger.account(&Principal::anonymous())];
        let accounts = [&ledger.account(&alice()), &ledger.account(&alice()), &strangers[0], &strangers[1]];
        let mut living: Vec<Living> = Vec::new();
        for _ in 0..20_000 {
            let (of, bytes) = (chance(4), chance(8));
            match chance(5) {
                0 => {
                    if let Ok(charge) = accounts[of].charge(bytes) {
                        living.push(Living { of, held: true, kept: false, charge });
                    }
                }
                1 if chance(4) == 0 => {
                    let charge = accounts[of].charge_anyway(bytes);
                    living.push(Living { of, held: false, kept: false, charge });
                }
                2 if !living.is_empty() => {
                    let next = chance(living.len() as u64);
                    let next = &mut living[next];
                    next.kept |= !next.charge.kept && next.charge.keep().is_ok();
                }
                3 if !living.is_empty() => {
                    let next = chance(living.len() as u64);
                    let next = &mut living[next];
                    let part = Living { charge: next.charge.split(bytes), ..*next };
                    living.push(part);
                }
                _ if !living.is_empty() => drop(living.swap_remove(chance(living.len() as u64))),
                _ => {}
            }
            let sum = |counts: &dyn Fn(&Living) -> bool| -> usize {
                living.iter().filter(|charge| counts(charge)).map(|living| living.charge.bytes).sum()
            };
            assert_eq!((ledger.held(), ledger.kept()), (sum(&|_| true), sum(&|living| living.charge.kept)));
            for (of, account) in accounts.iter().enumerate() {
                assert_eq!(account.held(), sum(&|living| living.of == of));
                assert!(sum(&|living| living.of == of && living.held) <= 10);
                assert!(sum(&|living| living.of == of && living.kept) <= 5);
            }
            assert!(sum(&|living| living.of < 2 && living.held) <= 15, "those of alice");
            assert!(sum(&|living| living.of < 2 && living.kept) <= 7);
            assert!(sum(&|living| living.held) <= 30 && sum(&|living| living.kept) <= 15);
        }
        living.clear();
        assert_eq!((ledger.held(), ledger.kept()), (0, 0));
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
