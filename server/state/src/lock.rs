//! One node's lock: who holds it, who waits for it, and which lock-delays run (P§2.4).
//!
//! It knows sessions and handles as numbers only. Every removal of a holder, a waiter or a delay must be followed
//! by [`Lock::grant_next`] until it gives nothing, in the same command: the one grant rule. Invariant, between
//! commands: the first waiter could not be granted. Conflicting holders cannot even be written down.

use holdfast_types::{HandleId, Mode, Revision, SessionId, planted};
use imbl::{OrdMap, OrdSet};

/// A handle of a session, as locks know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holder {
    pub(crate) session: SessionId,
    pub(crate) handle: HandleId,
}

/// Who holds a lock.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Holders {
    #[default]
    Nobody,
    Exclusive(Holder),
    /// Never empty.
    Shared(OrdSet<Holder>),
}

/// Who waits, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Waiter {
    pub(crate) holder: Holder,
    pub(crate) mode: Mode,
}

/// A lock-delay. It has no end here: the state knows no time, and the master ends it by a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delay {
    /// The mode that was lost. A shared loss keeps out only those who want the lock for themselves.
    pub(crate) mode: Mode,
    pub(crate) delay_ms: u32,
}

/// What came of asking for a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Acquired {
    Granted,
    /// Behind so many others.
    Queued {
        ahead: u64,
    },
    /// Neither, because it was to be at once or not at all. Nothing changed.
    Conflict,
}

/// A lock.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Lock {
    /// The revision at which the lock last went from free to held; 0 if never.
    generation: Revision,
    holders: Holders,
    /// By ticket: the revision of the command that queued them. So in the order of their coming, and out of the
    /// middle in logarithmic time.
    waiters: OrdMap<Revision, Waiter>,
    /// By the revision of the loss.
    delays: OrdMap<Revision, Delay>,
    /// How many of the delays are of an exclusive loss. Counted, so that the grant rule need not look at each.
    delays_exclusive: u64,
}

impl Lock {
    /// A lock as a snapshot has it. Holders are still to come, with [`Lock::restore_holder`].
    pub(crate) fn restore(generation: Revision) -> Self {
        Self { generation, ..Self::default() }
    }

    /// Puts a holder back. False if it conflicts with the holders that are there.
    pub(crate) fn restore_holder(&mut self, holder: Holder, mode: Mode) -> bool {
        let possible = match (&self.holders, mode) {
            (Holders::Nobody, _) => true,
            (Holders::Shared(_), Mode::Shared) => !self.holds(holder),
            _ => false,
        };
        if possible {
            self.add_holder(holder, mode);
        }
        possible
    }

    /// Puts a waiter back into its place. False if the place is taken.
    pub(crate) fn restore_waiter(&mut self, ticket: Revision, waiter: Waiter) -> bool {
        self.waiters.insert(ticket, waiter).is_none()
    }

    /// The revision at which the lock last went from free to held.
    pub(crate) fn generation(&self) -> Revision {
        self.generation
    }

    /// How the lock is held; `None` if it is free.
    pub(crate) fn mode(&self) -> Option<Mode> {
        match self.holders {
            Holders::Nobody => None,
            Holders::Exclusive(_) => Some(Mode::Exclusive),
            Holders::Shared(_) => Some(Mode::Shared),
        }
    }

    /// Who holds it, in order.
    pub(crate) fn holders(&self) -> impl Iterator<Item = Holder> + '_ {
        let (one, many) = match &self.holders {
            Holders::Nobody => (None, None),
            Holders::Exclusive(holder) => (Some(*holder), None),
            Holders::Shared(holders) => (None, Some(holders)),
        };
        one.into_iter().chain(many.into_iter().flat_map(|holders| holders.iter().copied()))
    }

    /// All who hold it, at the price of one.
    pub(crate) fn holder_set(&self) -> OrdSet<Holder> {
        match &self.holders {
            Holders::Nobody => OrdSet::new(),
            Holders::Exclusive(holder) => OrdSet::unit(*holder),
            Holders::Shared(holders) => holders.clone(),
        }
    }

    pub(crate) fn holder_count(&self) -> u64 {
        match &self.holders {
            Holders::Nobody => 0,
            Holders::Exclusive(_) => 1,
            Holders::Shared(holders) => holders.len() as u64,
        }
    }

    pub(crate) fn holds(&self, holder: Holder) -> bool {
        match &self.holders {
            Holders::Nobody => false,
            Holders::Exclusive(one) => *one == holder,
            Holders::Shared(holders) => holders.contains(&holder),
        }
    }

    /// Those who wait, by ticket, in the order of their coming.
    pub(crate) fn waiters(&self) -> impl Iterator<Item = (Revision, Waiter)> + '_ {
        self.waiters.iter().map(|(ticket, waiter)| (*ticket, *waiter))
    }

    pub(crate) fn waiter(&self, ticket: Revision) -> Option<Waiter> {
        self.waiters.get(&ticket).copied()
    }

    pub(crate) fn waiter_count(&self) -> u64 {
        self.waiters.len() as u64
    }

    /// The delays that run, by the revision of the loss.
    pub(crate) fn delays(&self) -> impl Iterator<Item = (Revision, Delay)> + '_ {
        self.delays.iter().map(|(loss, delay)| (*loss, *delay))
    }

    pub(crate) fn delay(&self, loss: Revision) -> Option<Delay> {
        self.delays.get(&loss).copied()
    }

    pub(crate) fn delay_count(&self) -> u64 {
        self.delays.len() as u64
    }

    /// Free, wanted by nobody, and not delayed.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.holders == Holders::Nobody && self.waiters.is_empty() && self.delays.is_empty()
    }

    /// Why somebody cannot have it at once in this mode: the rest of a sentence about the lock.
    pub(crate) fn obstacle(&self, mode: Mode) -> &'static str {
        match (&self.holders, mode) {
            (Holders::Exclusive(_), _) => "is held, exclusive",
            (Holders::Shared(_), Mode::Exclusive) => "is held, shared",
            _ if !self.admits(mode) => "was lost by its holder, and the lock-delay has not passed",
            _ => "is waited for by others, who come first",
        }
    }

    /// Whether somebody holds the lock and somebody else waits for it in a mode that conflicts with that. If it is
    /// held and waited for, the first waiter is one that conflicts: for who wants to share what is shared waits
    /// behind a writer only.
    pub(crate) fn is_wanted_from(&self, holder: Holder) -> bool {
        !self.waiters.is_empty() && self.holds(holder)
    }

    /// Asks for the lock. Whoever comes when others wait goes behind them, whatever it wants: so a waiting writer
    /// bars later readers, and nobody starves.
    pub(crate) fn acquire(&mut self, wish: Waiter, try_only: bool, revision: Revision) -> Acquired {
        let is_first = self.waiters.is_empty() || planted!(WriterOvertaken);
        if is_first && self.admits(wish.mode) {
            self.grant(wish, revision);
            return Acquired::Granted;
        }
        if try_only {
            return Acquired::Conflict;
        }
        let ahead = self.waiter_count();
        let earlier = self.waiters.insert(revision, wish);
        assert!(earlier.is_none(), "one command queues one waiter");
        Acquired::Queued { ahead }
    }

    /// The one grant rule: takes the first waiter out of the queue and makes it a holder, if it can be one now.
    /// To be called until there is none, whenever a holder, a waiter or a delay is gone.
    pub(crate) fn grant_next(&mut self, revision: Revision) -> Option<Waiter> {
        let (ticket, waiter) = *self.waiters.get_min()?;
        if !self.admits(waiter.mode) {
            return None;
        }
        self.waiters.remove(&ticket);
        self.grant(waiter, revision);
        Some(waiter)
    }

    /// Whether the first waiter could have the lock: never, between commands.
    pub(crate) fn owes_grant(&self) -> bool {
        self.waiters.get_min().is_some_and(|(_, waiter)| self.admits(waiter.mode))
    }

    /// Whether what is counted is what is there.
    pub(crate) fn counts_are_right(&self) -> bool {
        let exclusive = self.delays.values().filter(|delay| delay.mode == Mode::Exclusive).count() as u64;
        let shared_by_none = matches!(&self.holders, Holders::Shared(holders) if holders.is_empty());
        self.delays_exclusive == exclusive && !shared_by_none
    }

    /// Takes a holder away.
    pub(crate) fn remove_holder(&mut self, holder: Holder) {
        let held = match &mut self.holders {
            Holders::Nobody => false,
            Holders::Exclusive(one) => *one == holder,
            Holders::Shared(holders) => holders.remove(&holder).is_some(),
        };
        assert!(held, "{holder:?} does not hold the lock");
        let left = matches!(&self.holders, Holders::Shared(holders) if !holders.is_empty());
        if !left {
            self.holders = Holders::Nobody;
        }
    }

    /// Takes a waiter out of the queue.
    pub(crate) fn remove_waiter(&mut self, ticket: Revision) {
        let waiter = self.waiters.remove(&ticket);
        assert!(waiter.is_some(), "nobody waits with ticket {ticket}");
    }

    /// Begins a delay. If the same command began one here already, the two become one: the longer, and the
    /// stricter.
    pub(crate) fn begin_delay(&mut self, loss: Revision, mut delay: Delay) {
        if let Some(earlier) = self.remove_delay(loss) {
            delay.delay_ms = delay.delay_ms.max(earlier.delay_ms);
            delay.mode = delay.mode.min(earlier.mode);
        }
        self.delays_exclusive += u64::from(delay.mode == Mode::Exclusive);
        self.delays.insert(loss, delay);
    }

    /// Ends a delay, if there is one of that name.
    pub(crate) fn remove_delay(&mut self, loss: Revision) -> Option<Delay> {
        if self.delays.is_empty() {
            return None;
        }
        let delay = self.delays.remove(&loss)?;
        self.delays_exclusive -= u64::from(delay.mode == Mode::Exclusive);
        Some(delay)
    }

    /// Whether holders and delays leave room for one more holder in this mode.
    fn admits(&self, mode: Mode) -> bool {
        match (mode, &self.holders) {
            (_, Holders::Exclusive(_)) | (Mode::Exclusive, Holders::Shared(_)) => false,
            (Mode::Exclusive, Holders::Nobody) => self.delays.is_empty(),
            (Mode::Shared, _) => self.delays_exclusive == 0,
        }
    }

    /// Makes somebody a holder. Who finds the lock free raises the generation; who joins others shares theirs.
    fn grant(&mut self, waiter: Waiter, revision: Revision) {
        if self.holders == Holders::Nobody || planted!(SharedTakesGeneration) {
            assert!(revision > self.generation, "lock generations rise");
            self.generation = revision;
        }
        self.add_holder(waiter.holder, waiter.mode);
    }

    fn add_holder(&mut self, holder: Holder, mode: Mode) {
        match (&mut self.holders, mode) {
            (Holders::Shared(holders), Mode::Shared) => {
                holders.insert(holder);
            }
            (Holders::Nobody, Mode::Shared) => self.holders = Holders::Shared(OrdSet::unit(holder)),
            (Holders::Nobody, Mode::Exclusive) => self.holders = Holders::Exclusive(holder),
            (held, _) => unreachable!("{mode} conflicts with {held:?}"),
        }
    }
}
