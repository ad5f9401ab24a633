//! The handles that watch a node, and those among them that have to be told of something.
//!
//! A node can have very many watchers, and a change of it names them all at the price of one: the lists are persistent, so a
//! copy of them costs nothing, and whoever tells the handles walks them later, as far as it has time. Invariant: a handle
//! stands in one list at the most, under exactly what it asked for; no list is empty.

use std::ops::Bound;

use holdfast_proto::client::v1::EventKind;
use holdfast_types::{HandleId, SessionId};
use imbl::{OrdMap, OrdSet};

use crate::events::EventSet;
use crate::lock::Holder;

/// A node's watchers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Watchers {
    /// By what they asked for.
    lists: OrdMap<EventSet, OrdSet<Holder>>,
}

impl Watchers {
    pub(crate) fn is_empty(&self) -> bool {
        self.lists.is_empty()
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.lists.values().map(OrdSet::len).sum()
    }

    pub(crate) fn insert(&mut self, holder: Holder, asked: EventSet) {
        match self.lists.get_mut(&asked) {
            Some(list) => drop(list.insert(holder)),
            None => drop(self.lists.insert(asked, OrdSet::unit(holder))),
        }
    }

    pub(crate) fn remove(&mut self, holder: Holder, asked: EventSet) {
        let Some(list) = self.lists.get_mut(&asked) else { return };
        list.remove(&holder);
        if list.is_empty() {
            self.lists.remove(&asked);
        }
    }

    /// Whether a handle that asked for this is among them.
    pub(crate) fn contains(&self, holder: Holder, asked: EventSet) -> bool {
        self.lists.get(&asked).is_some_and(|list| list.contains(&holder))
    }

    /// How many asked for one of these kinds.
    fn asking(&self, kinds: EventSet) -> usize {
        self.of(kinds).map(|(_, list)| list.len()).sum()
    }

    /// Those who asked for one of these kinds.
    fn of(&self, kinds: EventSet) -> impl Iterator<Item = (EventSet, &OrdSet<Holder>)> {
        self.lists.iter().map(|(asked, list)| (*asked, list)).filter(move |(asked, _)| asked.has_any(kinds))
    }
}

/// Handles that have to be told of something: all that watch a node, or those of them that hold its lock.
#[derive(Clone, Debug, PartialEq)]
pub struct Listeners {
    watchers: Watchers,
    /// If only these are meant.
    holders: Option<OrdSet<Holder>>,
}

/// How far a walk over [`Listeners`] has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// Nowhere.
    #[default]
    Start,
    /// Behind this one of these lists.
    Behind(Listener),
    /// Everywhere.
    End,
}

/// A handle that has to be told of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listener {
    /// What it asked for.
    pub asked: EventSet,
    /// Its session.
    pub session: SessionId,
    /// The handle.
    pub handle: HandleId,
}

impl Listener {
    fn new(asked: EventSet, holder: Holder) -> Self {
        Self { asked, session: holder.session, handle: holder.handle }
    }

    fn holder(self) -> Holder {
        Holder { session: self.session, handle: self.handle }
    }
}

impl Listeners {
    /// All who watch a node. `None` if nobody of them asked for such events.
    pub(crate) fn watching(watchers: &Watchers, kind: EventKind) -> Option<Self> {
        let is_asked_for = watchers.of(EventSet::of(kind)).next().is_some();
        is_asked_for.then(|| Self { watchers: watchers.clone(), holders: None })
    }

    /// Those who watch a node for others that want its lock, and hold it. `None` if it is not watched for that, or if the
    /// holders are few and none of them does.
    pub(crate) fn holding(watchers: &Watchers, holders: OrdSet<Holder>) -> Option<Self> {
        const FEW: usize = 16;
        let listeners = Self::watching(watchers, EventKind::ConflictingRequest)?;
        let asked = EventSet::of(EventKind::ConflictingRequest);
        let watches = |holder| watchers.of(asked).any(|(_, list)| list.contains(holder));
        let is_for_nobody = holders.len() <= FEW && !holders.iter().any(watches);
        (!is_for_nobody).then_some(Self { holders: Some(holders), ..listeners })
    }

    /// Whether only those are meant who hold the node's lock.
    #[must_use]
    pub fn are_holders(&self) -> bool {
        self.holders.is_some()
    }

    /// Those who hold a lock and were to be told before are to be told still: who came to hold it since are others, and they
    /// may all hold it together.
    pub fn add_holders_of(&mut self, earlier: &Self) {
        if let (Some(holders), Some(earlier)) = (&mut self.holders, &earlier.holders) {
            *holders = holders.clone().union(earlier.clone());
        }
    }

    /// How many are to be looked at who may have asked for one of these kinds.
    #[must_use]
    pub fn len(&self, kinds: EventSet) -> usize {
        let (asking, holders) = (self.watchers.asking(kinds), self.holders.as_ref());
        holders.map_or(asking, |holders| holders.len().min(asking))
    }

    /// Looks at the next handles, as many as `most`, and gives those that asked for one of these kinds; a session's that
    /// asked for the same stand together, rising. Gives also how many it has looked at. `place` is where the walk has come
    /// to by then.
    #[must_use]
    pub fn walk(&self, kinds: EventSet, place: &mut Place, most: usize) -> (Vec<Listener>, usize) {
        match &self.holders {
            None => {
                let found = self.walk_watchers(kinds, place, most);
                let looked_at = found.len();
                (found, looked_at)
            }
            // The shorter list is walked, and the other one asked: a node can have very many of either.
            Some(holders) if holders.len() < self.watchers.asking(kinds) => {
                let mut found = self.walk_holders(holders, kinds, place, most);
                let looked_at = found.len();
                found.retain(|found| found.asked.has_any(kinds));
                (found, looked_at)
            }
            Some(holders) => {
                let mut found = self.walk_watchers(kinds, place, most);
                let looked_at = found.len();
                found.retain(|found| holders.contains(&found.holder()));
                (found, looked_at)
            }
        }
    }

    fn walk_watchers(&self, kinds: EventSet, place: &mut Place, most: usize) -> Vec<Listener> {
        let behind = match *place {
            Place::Start => None,
            Place::Behind(listener) => Some(listener),
            Place::End => return Vec::new(),
        };
        let from = behind.map_or(Bound::Unbounded, |behind| Bound::Included(behind.asked));
        let lists = self.watchers.lists.range::<_, EventSet>((from, Bound::Unbounded));
        let listeners = lists.filter(|(asked, _)| asked.has_any(kinds)).flat_map(|(asked, list)| {
            let behind = behind.filter(|behind| behind.asked == *asked);
            let from = behind.map_or(Bound::Unbounded, |behind| Bound::Excluded(behind.holder()));
            let holders = list.range::<_, Holder>((from, Bound::Unbounded));
            holders.map(|holder| Listener::new(*asked, *holder))
        });
        let found: Vec<_> = listeners.take(most).collect();
        *place = next_place(&found, most);
        found
    }

    /// Gives who has not asked too, as one that has asked for nothing.
    fn walk_holders(
        &self,
        holders: &OrdSet<Holder>,
        kinds: EventSet,
        place: &mut Place,
        most: usize,
    ) -> Vec<Listener> {
        let from = match *place {
            Place::Start => Bound::Unbounded,
            Place::Behind(listener) => Bound::Excluded(listener.holder()),
            Place::End => return Vec::new(),
        };
        let asked = |holder: &Holder| {
            let lists = self.watchers.of(kinds).find(|(_, list)| list.contains(holder));
            Listener::new(lists.map_or_else(EventSet::default, |(asked, _)| asked), *holder)
        };
        let walked = holders.range::<_, Holder>((from, Bound::Unbounded)).take(most).map(asked);
        let found: Vec<_> = walked.collect();
        *place = next_place(&found, most);
        found
    }
}

/// Where a walk has come to that looked at these, and wanted to look at so many.
fn next_place(walked: &[Listener], wanted: usize) -> Place {
    match walked.last() {
        Some(last) if walked.len() == wanted => Place::Behind(*last),
        _ => Place::End,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(session: u64, handle: u64) -> Holder {
        Holder { session: SessionId(session), handle: HandleId(handle) }
    }

    fn set(kinds: &[EventKind]) -> EventSet {
        kinds.iter().fold(EventSet::default(), |set, kind| set.with(EventSet::of(*kind)))
    }

    fn all(listeners: &Listeners, kinds: EventSet, most: usize) -> Vec<(u64, u64)> {
        let (mut place, mut all, mut steps) = (Place::Start, Vec::new(), 0);
        while place != Place::End {
            let (found, looked_at) = listeners.walk(kinds, &mut place, most);
            assert!(found.len() <= looked_at && looked_at <= most);
            all.extend(found.into_iter().map(|found| (found.session.0, found.handle.0)));
            steps += 1;
        }
        assert!(steps <= listeners.len(kinds) / most + 1, "each is looked at once");
        all
    }

    use EventKind::{ConflictingRequest, ContentsModified, LockAcquired};

    fn watched() -> Watchers {
        let mut watchers = Watchers::default();
        for handle in 1..=5 {
            watchers.insert(holder(1, handle), set(&[ContentsModified, ConflictingRequest]));
            watchers.insert(holder(2, handle), set(&[ContentsModified]));
        }
        watchers.insert(holder(3, 1), set(&[LockAcquired]));
        watchers
    }

    #[test]
    fn a_walk_finds_each_that_asked_once_however_short_its_steps() {
        let watchers = watched();
        let modified = Listeners::watching(&watchers, ContentsModified).unwrap();
        for most in 1..12 {
            let mut found = all(&modified, set(&[ContentsModified]), most);
            found.sort_unstable();
            let both = (1..=2).flat_map(|session| (1..=5).map(move |handle| (session, handle)));
            assert_eq!(found, both.collect::<Vec<_>>(), "{most} at a time");
        }
        assert_eq!(all(&modified, set(&[LockAcquired]), 2), [(3, 1)], "of what happened besides");
        assert!(Listeners::watching(&watchers, EventKind::AclChanged).is_none());
    }

    #[test]
    fn of_holders_and_watchers_those_are_found_that_are_both() {
        let watchers = watched();
        let wanted = set(&[ConflictingRequest]);
        let few = OrdSet::from_iter([holder(1, 2), holder(1, 4), holder(2, 1), holder(9, 9)]);
        let many = OrdSet::from_iter((2..100).map(|handle| holder(1, handle)));
        for most in 1..12 {
            let few = Listeners::holding(&watchers, few.clone()).unwrap();
            assert_eq!(all(&few, wanted, most), [(1, 2), (1, 4)], "{most} at a time");
            let many = Listeners::holding(&watchers, many.clone()).unwrap();
            assert_eq!(all(&many, wanted, most), [(1, 2), (1, 3), (1, 4), (1, 5)], "{most} at a time");
        }
        assert!(Listeners::holding(&watchers, OrdSet::new()).is_none());
        let mut others = watchers;
        (1..=5).for_each(|handle| {
            others.remove(holder(1, handle), set(&[ContentsModified, ConflictingRequest]))
        });
        assert!(Listeners::holding(&others, few).is_none(), "nobody asked for it");
        assert_eq!(others.len(), 6);
    }

    #[test]
    fn who_was_to_be_told_stays_so_whoever_comes_and_goes() {
        let mut watchers = watched();
        let before = Listeners::watching(&watchers, LockAcquired).unwrap();
        watchers.remove(holder(3, 1), set(&[LockAcquired]));
        watchers.insert(holder(4, 1), set(&[LockAcquired]));
        assert_eq!(all(&before, set(&[LockAcquired]), 10), [(3, 1)]);
        assert!(watchers.contains(holder(4, 1), set(&[LockAcquired])));
        assert!(!watchers.contains(holder(3, 1), set(&[LockAcquired])));
    }
}
