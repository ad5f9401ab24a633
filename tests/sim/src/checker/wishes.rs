//! I8, for CONFLICTING_REQUEST: whoever holds a lock and has asked to be told learns that somebody else wants it, as long
//! as somebody does. Only how things stand counts: one word is enough for all that have come since.
//!
//! Told with some delay, because the holder may have to find its master first: what is checked is that no wish stands
//! for longer than that in a good world without the holder's having heard of it.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::{EventKind, LockMode, Open};
use holdfast_types::{HandleId, SessionId};

use crate::clock::TrueTime;
use crate::verdict::{Invariant, Violation};

/// So long a wish may stand in a good world before its holder hears of it: a client may have to notice first that its
/// connection is gone, and a replica that it is not master any more.
const PATIENCE_NANOS: u64 = 7_000_000_000;

/// A handle of a session.
type Owner = (SessionId, HandleId);

/// The checker.
#[derive(Debug, Default)]
pub struct Wishes {
    /// The handles that asked to be told, with what each holds up.
    watches: BTreeMap<Owner, Option<Wish>>,
}

/// Somebody wants the lock that a handle holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wish {
    /// When the last one joined the queue, or the lock was granted over the heads of those who wait.
    since: TrueTime,
    /// How many wait.
    waiting: u64,
    /// The holder has been told since.
    told: bool,
}

impl Wishes {
    /// A handle was opened; it counts if it has that event.
    pub fn open(&mut self, session: SessionId, handle: HandleId, open: &Open) {
        if open.events().any(|kind| kind == EventKind::ConflictingRequest) {
            self.watches.insert((session, handle), None);
        }
    }

    /// A session is over.
    pub fn end(&mut self, session: SessionId) {
        self.watches.retain(|(of, _), _| *of != session);
    }

    /// Whether nobody has asked to be told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.watches.is_empty()
    }

    /// Takes in how things stand after a command: `held` tells how a handle holds its lock and how many wait for that,
    /// and nothing if it holds none or is not open any more. `joined`: the command was an Acquire of this mode.
    pub fn see(
        &mut self,
        now: TrueTime,
        joined: Option<LockMode>,
        held: impl Fn(SessionId, HandleId) -> Option<(LockMode, u64)>,
    ) {
        for ((session, handle), wish) in &mut self.watches {
            let (mode, waiting) = held(*session, *handle).unwrap_or_default();
            // Who wants to share what is shared waits for a writer before it, and not for the holder.
            let shares = (mode, joined) == (LockMode::Shared, Some(LockMode::Shared));
            *wish = match *wish {
                _ if waiting == 0 => None,
                // Fewer than before: whoever is left was there when the holder was told.
                Some(wish) if waiting <= wish.waiting || shares => Some(Wish { waiting, ..wish }),
                _ => Some(Wish { since: now, waiting, told: false }),
            };
        }
    }

    /// An application, or its library for it, is told that somebody wants the lock of a handle.
    pub fn told(&mut self, session: SessionId, handle: HandleId) {
        if let Some(Some(wish)) = self.watches.get_mut(&(session, handle)) {
            wish.told = true;
        }
    }

    /// Checks that nobody has been waited for without knowing it, in a world that has been good since `healed`.
    ///
    /// # Errors
    ///
    /// Who has.
    pub fn check(&self, now: TrueTime, healed: TrueTime) -> Result<(), Violation> {
        for ((session, handle), wish) in &self.watches {
            let Some(wish) = wish.filter(|wish| !wish.told) else { continue };
            if wish.since.max(healed).after_nanos(PATIENCE_NANOS) < now {
                let since = wish.since;
                let what = format!("{session} {handle} was not told that its lock is wanted, since {since}");
                return Err(Violation::new(Invariant::NoLostChange, what));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOLDER: SessionId = SessionId(1);
    const HANDLE: HandleId = HandleId(2);

    fn at(seconds: u64) -> TrueTime {
        TrueTime::from_nanos(seconds * 1_000_000_000)
    }

    /// So many wait from that second on, and want the lock that is held for themselves.
    fn waiting(wishes: &mut Wishes, second: u64, waiting: u64) {
        wishes.see(at(second), Some(LockMode::Exclusive), |_, _| Some((LockMode::Shared, waiting)));
    }

    /// A holder that asked to be told, with one who waits since second 1.
    fn wanted() -> Wishes {
        let mut wishes = Wishes::default();
        let events = vec![EventKind::ConflictingRequest.into()];
        wishes.open(HOLDER, HANDLE, &Open { events, ..Open::default() });
        waiting(&mut wishes, 1, 1);
        wishes
    }

    #[test]
    fn a_wish_that_the_holder_never_hears_of_is_found() {
        let mut wishes = wanted();
        assert!(wishes.check(at(7), at(0)).is_ok(), "it may be on its way");
        assert!(wishes.check(at(9), at(3)).is_ok(), "the world has not been good for long");
        assert!(wishes.check(at(9), at(0)).is_err());
        wishes.told(HOLDER, HANDLE);
        assert!(wishes.check(at(9), at(0)).is_ok());
    }

    #[test]
    fn word_of_an_earlier_wish_is_not_enough_for_one_that_comes_later() {
        let mut wishes = wanted();
        wishes.told(HOLDER, HANDLE);
        waiting(&mut wishes, 2, 2);
        assert!(wishes.check(at(20), at(0)).is_err());
        waiting(&mut wishes, 3, 1);
        assert!(wishes.check(at(20), at(0)).is_err(), "somebody is left who was not told of");
        wishes.told(HOLDER, HANDLE);
        waiting(&mut wishes, 4, 0);
        waiting(&mut wishes, 5, 1);
        assert!(wishes.check(at(20), at(0)).is_err(), "and what was told before the queue was empty is past");
    }

    #[test]
    fn whoever_would_share_what_is_shared_is_not_in_the_holders_way() {
        let mut wishes = wanted();
        wishes.told(HOLDER, HANDLE);
        wishes.see(at(2), Some(LockMode::Shared), |_, _| Some((LockMode::Shared, 2)));
        assert!(wishes.check(at(20), at(0)).is_ok());
        wishes.see(at(3), Some(LockMode::Shared), |_, _| Some((LockMode::Exclusive, 3)));
        assert!(wishes.check(at(20), at(0)).is_err());
    }

    #[test]
    fn whoever_holds_nothing_or_did_not_ask_need_not_be_told() {
        let mut wishes = wanted();
        wishes.see(at(2), None, |_, _| None);
        assert!(wishes.check(at(20), at(0)).is_ok());
        let mut others = Wishes::default();
        others.open(HOLDER, HANDLE, &Open::default());
        waiting(&mut others, 1, 1);
        assert!(others.is_empty() && others.check(at(20), at(0)).is_ok());
        let mut ended = wanted();
        ended.end(HOLDER);
        assert!(ended.check(at(20), at(0)).is_ok());
    }
}
