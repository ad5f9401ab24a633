//! Session leases: how long the master has promised to let each session live (design.md §4).
//!
//! Soft state: nothing here is in the log, and a new master begins with leases that cover whatever the old one
//! may have granted. Invariants: a lease's end never moves back, and it is later, on any clock within the drift
//! bound, than the moment until which the client believes in it. And a lease that nobody renews ends: a master that
//! stands still again and again adds what it missed to a lease until that comes to the lease's own length, and no more.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_types::{Duration, SessionId, Time, planted};

/// While sessions keep re-attaching to a new master, those that have not yet done so are given so much longer:
/// a crowd that comes back in turn must not lose its last ones.
const REATTACH_QUIET: Duration = Duration::from_secs(1);

/// But not for ever.
const REATTACH_MAX: Duration = Duration::from_secs(60);

/// When each session's lease runs out.
#[derive(Debug)]
pub(crate) struct Leases {
    /// Clocks' rates differ by no more than this, in thousandths.
    drift_per_mille: u32,
    /// When this master took office.
    began: Time,
    /// When a session last attached that an earlier master had opened.
    reattached: Time,
    /// Every session that may still be granted something, with its lease.
    ends: BTreeMap<SessionId, Lease>,
    /// The same, by end.
    due: BTreeSet<(Time, SessionId)>,
    /// When the client of a session from an earlier master stops believing in what that granted, if it has not come back by
    /// then; of those alone whose leases here last longer.
    beliefs: BTreeSet<(Time, SessionId)>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    /// When it runs out.
    end: Time,
    /// Until when this master has granted it, with the drift bound; the past, if it has not.
    granted: Time,
    /// How long it was when it was last renewed, with the drift bound.
    length: Duration,
    /// How much was added since for gaps in the master's own life.
    added: Duration,
    /// Inherited from an earlier master, and not attached in this term yet.
    inherited: bool,
}

impl Leases {
    pub(crate) fn new(now: Time, drift_per_mille: u32) -> Self {
        let (ends, due, beliefs) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { drift_per_mille, began: now, reattached: now, ends, due, beliefs }
    }

    /// Takes over a session from an earlier master, which may have extended its lease until just now, by `granted` at the
    /// most. Here it lasts for `length`.
    pub(crate) fn inherit(&mut self, session: SessionId, granted: Duration, length: Duration) {
        if granted < length {
            self.beliefs.insert((self.began + self.with_drift(granted), session));
        }
        let length = if planted!(HalfLeases) { length / 2 } else { length };
        let length = self.with_drift(length);
        let lease = Lease {
            end: self.began + length,
            granted: self.began,
            length,
            added: Duration::ZERO,
            inherited: true,
        };
        self.put(session, lease);
    }

    /// Notes that an inherited session has come back.
    pub(crate) fn attached(&mut self, now: Time, session: SessionId) {
        if let Some(lease) = self.ends.get_mut(&session)
            && lease.inherited
        {
            lease.inherited = false;
            self.reattached = now;
        }
    }

    /// Grants `length` from now on, and adds the drift bound on top. Tells whether the session may be granted
    /// anything.
    pub(crate) fn extend(&mut self, now: Time, session: SessionId, length: Duration) -> bool {
        let Some(lease) = self.ends.get(&session).copied() else { return false };
        let length = self.with_drift(length);
        let end = lease.end.max(now + length);
        let granted = lease.granted.max(now + length);
        self.put(session, Lease { end, granted, length, added: Duration::ZERO, ..lease });
        true
    }

    /// Begins the lease of a session that was just opened.
    pub(crate) fn begin(&mut self, now: Time, session: SessionId, length: Duration) {
        let length = self.with_drift(length);
        let end = now + length;
        let lease = Lease { end, granted: end, length, added: Duration::ZERO, inherited: false };
        self.put(session, lease);
    }

    /// The session is granted nothing any more. From here on nothing can extend it.
    pub(crate) fn remove(&mut self, session: SessionId) {
        if let Some(lease) = self.ends.remove(&session) {
            self.due.remove(&(lease.end, session));
        }
    }

    /// This master was not scheduled for `gap`, and KeepAlives may have been lost to that: every lease is extended by
    /// it, unless what was added since its last renewal has come to its length. A gap is added whole: whoever comes back
    /// after a long one finds as much left as there was before it.
    pub(crate) fn extend_all(&mut self, gap: Duration) {
        let may_grow = |lease: &&mut Lease| lease.added < lease.length || planted!(GapAddedForEver);
        for lease in self.ends.values_mut().filter(may_grow) {
            lease.end += gap;
            lease.added += gap;
        }
        self.due = self.ends.iter().map(|(session, lease)| (lease.end, *session)).collect();
    }

    /// The sessions whose leases had run out by `now`. They stay until removed, or put off.
    pub(crate) fn expired(&mut self, now: Time) -> Vec<SessionId> {
        let mut expired = Vec::new();
        let mut put_off = Vec::new();
        for (end, session) in &self.due {
            if *end > now {
                break;
            }
            match self.patience(now, *session) {
                Some(until) => put_off.push((*session, until)),
                None => expired.push(*session),
            }
        }
        for (session, until) in put_off {
            self.put_off(session, until);
        }
        expired
    }

    /// Lets a lease run until `until` at least.
    pub(crate) fn put_off(&mut self, session: SessionId, until: Time) {
        if let Some(lease) = self.ends.get(&session).copied()
            && until > lease.end
        {
            self.put(session, Lease { end: until, ..lease });
        }
    }

    /// A session that came from an earlier master, and whose client believes in nothing any more that this one has not
    /// granted; each comes once.
    pub(crate) fn pop_disbelief(&mut self, now: Time) -> Option<SessionId> {
        let (at, session) = self.beliefs.first().copied()?;
        if at > now {
            return None;
        }
        self.beliefs.pop_first();
        Some(session)
    }

    /// How long the session's lease lasts from now.
    pub(crate) fn left(&self, now: Time, session: SessionId) -> Duration {
        self.ends.get(&session).map_or(Duration::ZERO, |lease| lease.end.since(now))
    }

    /// Whether this master has granted the session more than `length` from now on.
    pub(crate) fn is_granted_beyond(&self, now: Time, session: SessionId, length: Duration) -> bool {
        let until = now + self.with_drift(length);
        self.ends.get(&session).is_some_and(|lease| lease.granted > until)
    }

    /// When the next lease runs out, or the next belief.
    pub(crate) fn next_end(&self) -> Option<Time> {
        let ends = self.due.first().into_iter().chain(self.beliefs.first());
        ends.map(|(end, _)| *end).min()
    }

    /// Until when to wait for a session that has not come back while others still do.
    fn patience(&self, now: Time, session: SessionId) -> Option<Time> {
        let until = (self.reattached + REATTACH_QUIET).min(self.began + REATTACH_MAX);
        let waits = self.ends[&session].inherited && self.reattached > self.began && until > now;
        waits.then_some(until)
    }

    fn put(&mut self, session: SessionId, lease: Lease) {
        if let Some(old) = self.ends.insert(session, lease) {
            self.due.remove(&(old.end, session));
        }
        self.due.insert((lease.end, session));
    }

    fn with_drift(&self, length: Duration) -> Duration {
        if planted!(NoDrift) {
            return length;
        }
        length + length * self.drift_per_mille / 1000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: SessionId = SessionId(1);
    const T: SessionId = SessionId(2);

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn a_lease_is_longer_by_the_drift_bound_and_never_moves_back() {
        let mut leases = Leases::new(at(0), 10);
        leases.begin(at(0), S, ms(1000));
        assert_eq!(leases.next_end(), Some(at(1010)));
        assert!(leases.extend(at(500), S, ms(100)));
        assert_eq!(leases.next_end(), Some(at(1010)));
        assert!(leases.extend(at(500), S, ms(1000)));
        assert_eq!(leases.next_end(), Some(at(1510)));
        assert!(leases.expired(at(1509)).is_empty());
        assert_eq!(leases.expired(at(1510)), [S]);
    }

    #[test]
    fn a_removed_session_is_granted_nothing() {
        let mut leases = Leases::new(at(0), 10);
        leases.begin(at(0), S, ms(1000));
        leases.remove(S);
        assert!(!leases.extend(at(1), S, ms(1000)));
        assert_eq!(leases.next_end(), None);
    }

    #[test]
    fn those_still_missing_wait_while_others_come_back() {
        let mut leases = Leases::new(at(0), 0);
        leases.inherit(S, ms(5000), ms(5000));
        leases.inherit(T, ms(5000), ms(5000));
        leases.attached(at(4500), T);
        assert_eq!(leases.expired(at(5000)), [T], "one that is back has its own KeepAlives to live by");
        leases.remove(T);
        assert_eq!(leases.next_end(), Some(at(5500)));
        assert_eq!(leases.expired(at(5500)), [S]);
    }

    #[test]
    fn a_gap_in_the_masters_own_life_is_added_to_every_lease() {
        let mut leases = Leases::new(at(0), 0);
        leases.begin(at(0), S, ms(1000));
        leases.begin(at(0), T, ms(2000));
        leases.extend_all(ms(700));
        assert_eq!(leases.expired(at(1700)), [S]);
        assert_eq!(leases.expired(at(2700)), [S, T]);
    }

    #[test]
    fn gaps_that_come_again_and_again_keep_nobody_for_ever() {
        let (mut leases, mut now) = (Leases::new(at(0), 0), at(0));
        leases.begin(at(0), S, ms(1000));
        leases.begin(at(0), T, ms(1000));
        while leases.left(now, S) > Duration::ZERO {
            assert!(now < at(2500), "it is kept");
            now += ms(250);
            leases.extend_all(ms(250));
            assert!(leases.extend(now, T, ms(1000)), "this one is renewed");
        }
        assert_eq!(now, at(2000), "its own length, and as much again");
        assert_eq!(leases.expired(now), [S]);
        leases.extend_all(ms(5000));
        assert_eq!(leases.left(now, T), ms(6000), "a renewal begins anew, and a long gap is added whole");
    }
}
