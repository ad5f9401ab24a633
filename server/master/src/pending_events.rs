//! What has happened to watched nodes, merged until it can be told: level-triggered, with names of children as far as they fit.
//!
//! Owns the rule by which several changes become one event. Invariant: an event tells of each kind that was put into it, of no
//! generation older than one that was, and says so if it does not name each child.

use std::collections::BTreeMap;
use std::ops::Bound;

use holdfast_proto::client::v1::{ChildChange, EventKind, HandleEvent};
use holdfast_state::EventSet;

/// So many changed children are named in one event.
const CHILDREN_PER_HANDLE_MAX: usize = 64;
/// And so many in all events together that wait for one session.
const CHILDREN_PER_SESSION_MAX: usize = 4096;
/// One notice has events until they have so many bytes, or about so: whoever has very many handles is told of them by and by,
/// and a turn of the core makes no larger frame of it.
const NOTICE_BYTES: usize = 64 << 10;
/// About how large an event is without the names of children.
const EVENT_BYTES: usize = 64;

/// What happened to a node since somebody was last told.
#[derive(Debug, Default)]
pub(crate) struct PendingEvent {
    /// The latest, for its generations.
    last: HandleEvent,
    kinds: EventSet,
    children: BTreeMap<String, Child>,
    /// Not all children are named that changed.
    more_children: bool,
}

/// What happened to a child.
#[derive(Clone, Copy, Debug, Default)]
struct Child {
    /// Last.
    last: i32,
    /// At all.
    kinds: EventSet,
}

impl PendingEvent {
    /// Puts an event in. Names no more new children than there is `room` for; gives how many.
    pub(crate) fn push(&mut self, event: &HandleEvent, room: usize) -> usize {
        let before = self.children.len();
        self.more_children |= event.more_children;
        self.last = latest(&self.last, event);
        self.kinds = self.kinds.with(EventSet::of_all(&event.kinds));
        for ChildChange { name, kind } in &event.children {
            if let Some(known) = self.children.get_mut(name) {
                known.add(*kind);
            } else if self.children.len() >= CHILDREN_PER_HANDLE_MAX.min(before.saturating_add(room)) {
                self.more_children = true;
            } else {
                self.children.entry(name.clone()).or_default().add(*kind);
            }
        }
        self.children.len() - before
    }

    /// Which kinds of things happened.
    pub(crate) fn kinds(&self) -> EventSet {
        self.kinds
    }

    /// How many children are named.
    pub(crate) fn children(&self) -> usize {
        self.children.len()
    }

    /// What it is for those who asked for these kinds, without a handle.
    pub(crate) fn of(&self, asked: EventSet) -> HandleEvent {
        let kinds = self.kinds.common(asked);
        let mut more_children = self.more_children && kinds.has_any(of_children());
        let mut children = Vec::new();
        for (name, child) in &self.children {
            if EventSet::of_all(&[child.last]).has_any(asked) {
                children.push(ChildChange { name: name.clone(), kind: child.last });
            } else {
                // What was asked for is not what happened last, and only that is named.
                more_children |= child.kinds.has_any(asked);
            }
        }
        HandleEvent {
            kinds: kinds.kinds().map(i32::from).collect(),
            children,
            more_children,
            ..self.last.clone()
        }
    }

    fn into_event(self, handle: u64) -> HandleEvent {
        let children = self.children.into_iter();
        HandleEvent {
            handle,
            kinds: self.kinds.kinds().map(i32::from).collect(),
            children: children.map(|(name, child)| ChildChange { name, kind: child.last }).collect(),
            more_children: self.more_children,
            ..self.last
        }
    }
}

impl Child {
    fn add(&mut self, kind: i32) {
        self.last = kind;
        self.kinds = self.kinds.with(EventSet::of_all(&[kind]));
    }
}

/// Events that wait until the last ones of their session are acknowledged: one a handle.
#[derive(Debug, Default)]
pub(crate) struct PendingEvents {
    handles: BTreeMap<u64, PendingEvent>,
    /// How many children are named in all of them.
    children: usize,
    /// The last handle that was told of something: those behind it are next, so that each is told.
    last_told: u64,
}

impl PendingEvents {
    pub(crate) fn push(&mut self, handle: u64, event: &HandleEvent) {
        let room = CHILDREN_PER_SESSION_MAX.saturating_sub(self.children);
        self.children += self.handles.entry(handle).or_default().push(event, room);
    }

    pub(crate) fn remove(&mut self, handle: u64) -> Option<PendingEvent> {
        let pending = self.handles.remove(&handle)?;
        self.children -= pending.children();
        Some(pending)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.handles.is_empty()
    }

    /// As many as one notice should have.
    pub(crate) fn take_some(&mut self) -> Vec<HandleEvent> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        while bytes < NOTICE_BYTES
            && let Some(handle) = self.next()
            && let Some(pending) = self.remove(handle)
        {
            self.last_told = handle;
            let event = pending.into_event(handle);
            bytes += EVENT_BYTES + event.children.iter().map(|child| child.name.len() + 8).sum::<usize>();
            events.push(event);
        }
        events
    }

    /// The handle to be told next.
    fn next(&self) -> Option<u64> {
        let behind = (Bound::Excluded(self.last_told), Bound::Unbounded);
        self.handles
            .range(behind)
            .next()
            .or_else(|| self.handles.first_key_value())
            .map(|(handle, _)| *handle)
    }
}

/// An event without kinds and children, with no generation older than was known: what a client is told anew when it asks
/// again may be newer than changes of which it has yet to be told.
fn latest(known: &HandleEvent, event: &HandleEvent) -> HandleEvent {
    HandleEvent {
        content_generation: event.content_generation.max(known.content_generation),
        children_generation: event.children_generation.max(known.children_generation),
        acl_generation: event.acl_generation.max(known.acl_generation),
        lock_generation: event.lock_generation.max(known.lock_generation),
        ..HandleEvent::default()
    }
}

/// The kinds that are of children.
fn of_children() -> EventSet {
    let kinds = [EventKind::ChildAdded, EventKind::ChildRemoved, EventKind::ChildModified];
    kinds.into_iter().fold(EventSet::default(), |set, kind| set.with(EventSet::of(kind)))
}

#[cfg(test)]
mod tests {
    use EventKind::{ChildAdded, ChildModified, ChildRemoved, ContentsModified};

    use super::*;

    fn child(name: &str, kind: EventKind) -> HandleEvent {
        let children = vec![ChildChange { name: name.to_owned(), kind: kind.into() }];
        HandleEvent { kinds: vec![kind.into()], children, ..HandleEvent::default() }
    }

    fn all(mut pending: PendingEvents) -> Vec<HandleEvent> {
        std::iter::from_fn(|| Some(pending.take_some()).filter(|some| !some.is_empty())).flatten().collect()
    }

    #[test]
    fn changed_children_are_named_up_to_a_bound() {
        let mut pending = PendingEvents::default();
        pending.push(1, &child("x", ChildAdded));
        pending.push(1, &child("x", ChildRemoved));
        let [event] = &all(pending)[..] else { panic!("one handle, one event") };
        assert_eq!(event.kinds, [ChildAdded as i32, ChildRemoved as i32]);
        assert_eq!(event.children.len(), 1);
        assert_eq!(event.children[0].kind(), ChildRemoved, "the last that happened to it");
        assert!(!event.more_children);

        let mut pending = PendingEvents::default();
        for handle in 0..100 {
            for name in 0..100 {
                pending.push(handle, &child(&format!("n{name}"), ChildModified));
            }
        }
        assert_eq!(pending.children, CHILDREN_PER_SESSION_MAX);
        pending.remove(0);
        assert_eq!(pending.children, CHILDREN_PER_SESSION_MAX - CHILDREN_PER_HANDLE_MAX);
        let events = all(pending);
        assert_eq!(events.len(), 99);
        assert!(events.iter().all(|event| event.more_children && event.children.len() <= 64));
    }

    #[test]
    fn of_what_came_together_each_is_told_what_it_asked_for() {
        let mut pending = PendingEvent::default();
        for (name, kind) in [("x", ChildAdded), ("y", ChildAdded), ("x", ChildRemoved), ("z", ChildModified)]
        {
            pending.push(&child(name, kind), usize::MAX);
        }
        let written = HandleEvent {
            kinds: vec![ContentsModified.into()],
            content_generation: 7,
            ..HandleEvent::default()
        };
        pending.push(&written, usize::MAX);
        let of = |kinds: &[EventKind]| {
            let asked = kinds.iter().fold(EventSet::default(), |set, kind| set.with(EventSet::of(*kind)));
            let event = pending.of(asked);
            assert_eq!(event.content_generation, 7);
            let children: Vec<_> =
                event.children.iter().map(|child| (child.name.clone(), child.kind())).collect();
            (event.kinds().collect::<Vec<_>>(), children, event.more_children)
        };
        let named = |name: &str, kind| (name.to_owned(), kind);
        let removed = vec![named("x", ChildRemoved)];
        assert_eq!(of(&[ChildRemoved]), (vec![ChildRemoved], removed, false));
        let added = vec![named("y", ChildAdded)];
        assert_eq!(
            of(&[ChildAdded]),
            (vec![ChildAdded], added, true),
            "that x was added is no more than told"
        );
        let both = vec![named("x", ChildRemoved), named("y", ChildAdded)];
        assert_eq!(of(&[ChildAdded, ChildRemoved]), (vec![ChildAdded, ChildRemoved], both, false));
        assert_eq!(of(&[ContentsModified]), (vec![ContentsModified], Vec::new(), false));
    }

    #[test]
    fn very_many_handles_are_told_in_several_notices_and_each_in_its_turn() {
        const HANDLES: u64 = 5_000;
        let mut pending = PendingEvents::default();
        let push_all = |pending: &mut PendingEvents| {
            (1..=HANDLES).for_each(|handle| pending.push(handle, &child("x", ChildModified)));
        };
        push_all(&mut pending);
        let (mut told, mut notices) = (std::collections::BTreeSet::new(), 0);
        while told.len() < HANDLES as usize {
            let events = pending.take_some();
            assert!(events.len() <= NOTICE_BYTES / EVENT_BYTES, "{} at once", events.len());
            told.extend(events.iter().map(|event| event.handle));
            notices += 1;
            assert!(notices < 10, "the first ones are told again before the last ones are told at all");
            push_all(&mut pending);
        }
    }
}
