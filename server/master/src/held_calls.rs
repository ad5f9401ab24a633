//! How many unary calls are held, and for how long.
//!
//! A call that must be held (`held`) takes a place that other callers cannot use meanwhile. So a principal has only some
//! of the places, calls that administer the cell have some of their own, and no call keeps its place for long: the master
//! refuses it then, and its caller knows that nothing was changed, because nothing was proposed. Invariant: the counts are
//! of exactly the calls that are held.

use std::collections::{BTreeMap, VecDeque};

use holdfast_proto::client::v1 as client;
use holdfast_types::{Duration, Time};

use crate::held::HeldId;
use crate::limited;

/// After so long a held call is refused: later than a client may be late and a new master waits for those who do not come
/// back, so that most are not; and earlier than callers give up, who would not know what came of it.
pub(crate) const HELD_CALL_MAX: Duration = Duration::from_secs(7);
/// So many calls of one principal are held.
const PRINCIPAL_CALLS_MAX: usize = 1_024;
/// So many of all principals.
const CALLS_MAX: usize = 4_096;
/// And beside these so many that administer the cell, of administrators.
const ADMINISTRATION_CALLS_MAX: usize = 64;

/// Why a call cannot be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Its principal has as many held as it may.
    Principal,
    /// As many are held as may be.
    All,
    /// So are those that administer the cell.
    Administration,
}

impl NoRoom {
    pub(crate) fn refusal(self) -> client::Refusal {
        let (whose, limit, max) = match self {
            Self::Principal => (" of this principal", "held_calls_of_principal_max", PRINCIPAL_CALLS_MAX),
            Self::All => ("", "held_calls_max", CALLS_MAX),
            Self::Administration => (" of administrators", "held_admin_calls_max", ADMINISTRATION_CALLS_MAX),
        };
        let message = format!(
            "too many calls{whose} wait for clients to drop what they cache, {max} is the most: try again later"
        );
        limited(client::RefusalCode::Overloaded, limit, max, max + 1, message)
    }
}

/// The held calls, as far as they are counted.
#[derive(Debug, Default)]
pub(crate) struct HeldCalls {
    /// How many are held that do not administer the cell, by principal.
    by_principal: BTreeMap<String, usize>,
    /// How many these are.
    ordinary: usize,
    /// How many are held that administer the cell.
    administration: usize,
    /// When each is refused, in the order in which they came. Some are not held any more.
    due: VecDeque<(Time, HeldId)>,
}

impl HeldCalls {
    /// Whether one more can be held.
    pub(crate) fn check_room(&self, principal: &str, administers: bool) -> Result<(), NoRoom> {
        if administers {
            let has_room = self.administration < ADMINISTRATION_CALLS_MAX;
            return if has_room { Ok(()) } else { Err(NoRoom::Administration) };
        }
        if self.by_principal.get(principal).is_some_and(|count| *count >= PRINCIPAL_CALLS_MAX) {
            return Err(NoRoom::Principal);
        }
        if self.ordinary < CALLS_MAX { Ok(()) } else { Err(NoRoom::All) }
    }

    /// One more is held from now on.
    pub(crate) fn add(&mut self, now: Time, id: HeldId, principal: &str, administers: bool) {
        self.due.push_back((now + HELD_CALL_MAX, id));
        if administers {
            self.administration += 1;
        } else {
            self.ordinary += 1;
            *self.by_principal.entry(principal.to_owned()).or_default() += 1;
        }
    }

    /// One is held no more.
    pub(crate) fn remove(&mut self, principal: &str, administers: bool) {
        if administers {
            self.administration -= 1;
            return;
        }
        self.ordinary -= 1;
        let count = self.by_principal.get_mut(principal).expect("a call that is held is counted");
        *count -= 1;
        if *count == 0 {
            self.by_principal.remove(principal);
        }
    }

    /// One that is to be refused by now, if it is held still; each comes once.
    pub(crate) fn pop_due(&mut self, now: Time) -> Option<HeldId> {
        if self.next_due()? > now {
            return None;
        }
        self.due.pop_front().map(|(_, id)| id)
    }

    /// When the next is to be refused.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.due.front().map(|(due, _)| *due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    #[test]
    fn one_principal_does_not_take_the_places_of_others_nor_all_those_of_administrators() {
        let mut calls = HeldCalls::default();
        let mut last = 0;
        let mut fill = |calls: &mut HeldCalls, principal: &str, administers| {
            while calls.check_room(principal, administers).is_ok() {
                last += 1;
                calls.add(at(0), HeldId(last), principal, administers);
            }
        };
        fill(&mut calls, "ann", false);
        assert_eq!(calls.by_principal["ann"], PRINCIPAL_CALLS_MAX);
        assert_eq!(calls.check_room("ann", false), Err(NoRoom::Principal));
        for principal in ["bob", "cid", "dan", "eve"] {
            fill(&mut calls, principal, false);
        }
        assert_eq!(calls.ordinary, CALLS_MAX);
        assert_eq!(calls.check_room("fay", false), Err(NoRoom::All));
        assert_eq!(calls.check_room("ann", true), Ok(()), "as an administrator it has room");
        fill(&mut calls, "ann", true);
        assert_eq!(calls.administration, ADMINISTRATION_CALLS_MAX);
        calls.remove("bob", false);
        assert_eq!(calls.check_room("fay", false), Ok(()));
    }

    #[test]
    fn calls_are_due_in_the_order_in_which_they_came() {
        let mut calls = HeldCalls::default();
        calls.add(at(0), HeldId(1), "ann", false);
        calls.add(at(5), HeldId(2), "ann", true);
        assert_eq!(calls.next_due(), Some(at(7_000)));
        assert_eq!(calls.pop_due(at(6_999)), None);
        assert_eq!(calls.pop_due(at(7_000)), Some(HeldId(1)));
        assert_eq!(calls.pop_due(at(7_000)), None);
        assert_eq!(calls.next_due(), Some(at(7_005)));
    }
}
