//! Changes of watched nodes that have yet to be told, and the telling, in turns.
//!
//! A change names those who watch in one list (`holdfast_state::Listeners`), so noting it costs the same however many they
//! are; the master walks the list later, under the turn's budget. Of what happened to one node, the later joins what has not
//! begun to be told. Invariant: of each node no more than four entries wait, whatever happens to it: what its watchers are
//! being told and what they will be told next, and the same for those who hold its lock.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use holdfast_proto::client::v1::HandleEvent;
use holdfast_state::{EventSet, Listener, Listeners, News, Place as Walk, State};
use holdfast_types::{NodePath, Revision, SessionId};

use crate::Master;
use crate::pending_events::PendingEvent;

/// What it costs to note an event for one handle.
pub(crate) const COST_NOTED: u64 = 32;
/// What it costs to send a notice, beside its bytes.
const COST_NOTICE: u64 = 128;
/// No change is proposed while so much is to be told of earlier ones: an entry counts for one, and a name for one more.
const UNTOLD_MAX: usize = 64 << 10;
/// So many handles are looked at before the turn's budget is looked at again.
const HANDLES_AT_ONCE_MAX: usize = 1_024;

/// What has yet to be told, in the order in which it happened.
#[derive(Debug, Default)]
pub(crate) struct Untold {
    entries: VecDeque<Entry>,
    /// How many were taken out of the front.
    taken: u64,
    /// Where those stand that a later change of their node may join: as many places behind the first that ever was.
    joinable: BTreeMap<Audience, u64>,
    /// How many names the entries have.
    names: usize,
    /// How many changes were ever noted here.
    noted: u64,
}

/// Whom an entry is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Audience {
    path: NodePath,
    instance: Revision,
    /// Not for all who watch, but for those of them who hold the lock.
    are_holders: bool,
}

/// What has yet to be told of one node.
#[derive(Debug)]
struct Entry {
    audience: Audience,
    /// Of the last change: whoever was to be told of an earlier one, and has gone since, need not be told any more.
    listeners: Listeners,
    happened: PendingEvent,
    /// So many changes were noted before the last of those that it is made of.
    before: u64,
    /// How far it is told.
    walk: Walk,
    /// What it is for those who asked for these kinds, if it was wanted last.
    event: Option<(EventSet, Arc<HandleEvent>)>,
}

/// A part of what has yet to be told.
#[derive(Debug)]
pub(crate) struct Part {
    /// So many changes were noted before the last of those that it tells of.
    pub(crate) before: u64,
    /// So many handles were looked at.
    pub(crate) looked_at: usize,
    /// Handles, each with what to tell it.
    pub(crate) told: Vec<(Listener, Arc<HandleEvent>)>,
}

impl Untold {
    pub(crate) fn push(&mut self, news: News) {
        let before = self.noted;
        self.noted += 1;
        let News { path, instance, event, listeners } = news;
        let audience = Audience { path, instance, are_holders: listeners.are_holders() };
        let known = self.joinable.get(&audience).and_then(|at| usize::try_from(at - self.taken).ok());
        if let Some(known) = known.and_then(|at| self.entries.get_mut(at)) {
            let earlier = std::mem::replace(&mut known.listeners, listeners);
            known.listeners.add_holders_of(&earlier);
            known.before = before;
            self.names += known.happened.push(&event, usize::MAX);
            return;
        }
        let mut happened = PendingEvent::default();
        self.names += happened.push(&event, usize::MAX);
        self.joinable.insert(audience.clone(), self.taken + self.entries.len() as u64);
        let (walk, event) = (Walk::Start, None);
        self.entries.push_back(Entry { audience, listeners, happened, before, walk, event });
    }

    /// How many changes were ever noted here.
    pub(crate) fn noted(&self) -> u64 {
        self.noted
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether so much waits that no more should happen.
    pub(crate) fn is_full(&self) -> bool {
        self.entries.len() + self.names >= UNTOLD_MAX
    }

    /// The next part of the oldest entry, for some of its handles.
    pub(crate) fn next(&mut self) -> Option<Part> {
        let entry = self.entries.front_mut()?;
        if entry.walk == Walk::Start
            && let Place::Occupied(place) = self.joinable.entry(entry.audience.clone())
            && *place.get() == self.taken
        {
            // What comes from now on is told to those again who are told now.
            place.remove();
        }
        let kinds = entry.happened.kinds();
        let (found, looked_at) = entry.listeners.walk(kinds, &mut entry.walk, HANDLES_AT_ONCE_MAX);
        let told = found.into_iter().map(|listener| (listener, entry.event(listener.asked))).collect();
        let part = Part { before: entry.before, looked_at, told };
        if entry.walk == Walk::End {
            self.names -= entry.happened.children();
            self.entries.pop_front();
            self.taken += 1;
        }
        Some(part)
    }
}

impl Entry {
    fn event(&mut self, asked: EventSet) -> Arc<HandleEvent> {
        match &self.event {
            Some((of, event)) if *of == asked => Arc::clone(event),
            _ => {
                let event = Arc::new(self.happened.of(asked));
                self.event = Some((asked, Arc::clone(&event)));
                event
            }
        }
    }
}

impl Master {
    /// Tells sessions of changes of what they watch, as far as the turn's budget goes.
    pub(crate) fn tell(&mut self, state: &State) {
        // By turns: one node that is written without a pause, and watched by very many, does not keep what happened to
        // others from being sent.
        while self.budget.may_tell() {
            let (part, eventful) = (self.untold.next(), self.next_eventful());
            if part.is_none() && eventful.is_none() {
                break;
            }
            if let Some(part) = part {
                self.budget.spend_telling(COST_NOTED * (1 + part.looked_at as u64));
                self.note(state, part);
            }
            if let Some(session) = eventful {
                let said = self.connections.said();
                self.send_events(session);
                self.budget.spend_telling(COST_NOTICE + self.connections.said() - said);
            }
        }
    }

    /// Notes what handles are to be told. Nothing is kept for a session without a stream: what it has seen is compared when
    /// it comes back. If it has come back since, it was told then of all that is different.
    fn note(&mut self, state: &State, part: Part) {
        for run in part.told.chunk_by(|(one, _), (other, _)| one.session == other.session) {
            let session = run[0].0.session;
            let Some(entry) = self.sessions.get(session) else { continue };
            let is_told = part.before < entry.told_before;
            let Some(open) = state.session(session).filter(|_| !is_told && entry.connection.is_some()) else {
                continue;
            };
            for (listener, event) in run.iter().filter(|(listener, _)| open.has_handle(listener.handle)) {
                entry.notices.push_event(listener.handle.0, event);
            }
            if entry.notices.has_events_to_send() {
                self.eventful.insert(session);
            }
        }
    }

    /// The next session that has events to be sent, in turn.
    fn next_eventful(&mut self) -> Option<SessionId> {
        let after = SessionId(self.last_told.0.saturating_add(1));
        let next = self.eventful.range(after..).next().or_else(|| self.eventful.first()).copied()?;
        self.eventful.remove(&next);
        self.last_told = next;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::client::v1::{self as client, Creation, EventKind, Open, request::Operation};
    use holdfast_proto::log::v1::{Command, OpenSession, SessionRequest, command::Kind};
    use holdfast_state::{Effect, Genesis, settings};
    use holdfast_types::HandleId;

    use super::*;

    /// A state, and what it wants told.
    struct Watched {
        state: State,
        untold: Untold,
        /// Whose each session is, and how many requests it has made.
        sessions: BTreeMap<u8, (SessionId, u64)>,
    }

    const DIRECTORY: [EventKind; 2] = [EventKind::ChildAdded, EventKind::ChildModified];

    impl Watched {
        fn new() -> Self {
            let settings = settings::defaults();
            let state =
                State::genesis(Genesis { cell: "dev".into(), cell_id: 7, members: Vec::new(), settings });
            Self { state, untold: Untold::default(), sessions: BTreeMap::new() }
        }

        fn apply(&mut self, kind: Kind) -> Option<SessionId> {
            let (mut effects, mut opened) = (Vec::new(), None);
            let command = Command { tag: 1, kind: Some(kind), ..Command::default() };
            self.state.apply(command, &mut effects).expect("the command is known");
            for effect in effects {
                match effect {
                    Effect::Notify { news, .. } => self.untold.push(*news),
                    Effect::SessionOpened { session, .. } => opened = Some(session),
                    _ => {}
                }
            }
            opened
        }

        fn request(&mut self, of: u8, operation: Operation) -> HandleId {
            if !self.sessions.contains_key(&of) {
                let open =
                    OpenSession { secret: vec![of; 16].into(), lease_ms: 12_000, ..OpenSession::default() };
                let session = self.apply(Kind::OpenSession(open)).expect("the session is open");
                self.sessions.insert(of, (session, 0));
            }
            let (session, number) = self.sessions.get_mut(&of).expect("it is open");
            *number += 1;
            let request = client::Request { number: *number, operation: Some(operation) };
            let (session, number) = (session.0, *number);
            self.apply(Kind::Request(SessionRequest { session, request: Some(request), acknowledged: None }));
            HandleId(number)
        }

        fn watch(&mut self, of: u8, path: &str, events: &[EventKind]) -> HandleId {
            let kind = client::NodeKind::Directory.into();
            let events = events.iter().map(|kind| i32::from(*kind)).collect();
            let creation = Creation::May.into();
            let open = Open { path: path.to_owned(), kind, creation, events, ..Open::default() };
            self.request(of, Operation::Open(Box::new(open)))
        }

        /// Makes a directory in one, or a file of this name is written if it is there.
        fn add(&mut self, path: &str) {
            self.watch(0, path, &[]);
        }

        /// Tells all; gives the names of children that each handle was told, by its session, in order.
        fn tell(&mut self) -> BTreeMap<(SessionId, HandleId), Vec<String>> {
            let mut told: BTreeMap<_, Vec<String>> = BTreeMap::new();
            while let Some(part) = self.untold.next() {
                assert!(part.told.len() <= part.looked_at && part.looked_at <= HANDLES_AT_ONCE_MAX);
                for (listener, event) in part.told {
                    let names = event.children.iter().map(|child| child.name.clone());
                    told.entry((listener.session, listener.handle)).or_default().extend(names);
                }
            }
            assert_eq!((self.untold.names, self.untold.joinable.len()), (0, 0));
            told
        }
    }

    #[test]
    fn what_happened_to_a_node_waits_once_and_nothing_of_it_is_lost() {
        let mut watched = Watched::new();
        let handles: Vec<_> = (0..1_500).map(|_| watched.watch(1, "/d", &DIRECTORY)).collect();
        let other = watched.watch(2, "/d", &DIRECTORY[..1]);
        ["a", "b", "c"].into_iter().for_each(|name| watched.add(&format!("/d/{name}")));
        assert_eq!((watched.untold.entries.len(), watched.untold.names, watched.untold.noted()), (1, 3, 3));
        // A part is told. What comes now is told to all of the handles.
        let part = watched.untold.next().expect("something is to be told");
        assert_eq!((part.before, part.looked_at), (2, HANDLES_AT_ONCE_MAX));
        let first: Vec<_> =
            part.told.iter().map(|(listener, _)| (listener.session, listener.handle)).collect();
        ["e", "f"].into_iter().for_each(|name| watched.add(&format!("/d/{name}")));
        assert_eq!(watched.untold.entries.len(), 2);
        let (one, two) = (watched.sessions[&1].0, watched.sessions[&2].0);
        let told = watched.tell();
        assert_eq!(told.len(), 1_501);
        for place in handles.into_iter().map(|handle| (one, handle)).chain([(two, other)]) {
            let rest: &[&str] = if first.contains(&place) { &["e", "f"] } else { &["a", "b", "c", "e", "f"] };
            assert_eq!(told[&place], rest, "{place:?}");
        }
    }

    #[test]
    fn however_many_watch_and_whoever_comes_and_goes_a_node_waits_no_more_than_twice() {
        let mut watched = Watched::new();
        for round in 0..100 {
            let handle = watched.watch(1, "/d", &DIRECTORY);
            watched.watch(2, "/d", &DIRECTORY);
            watched.add(&format!("/d/{round}"));
            watched.request(1, Operation::Close(client::Close { handle: handle.0 }));
        }
        assert_eq!((watched.untold.entries.len(), watched.untold.noted()), (1, 100));
        assert!(!watched.untold.is_full());
        let told = watched.tell();
        // Of the first session the last handle alone was open when the last of it happened.
        assert_eq!(told.len(), 101);
    }

    #[test]
    fn of_a_lock_all_are_told_who_held_it_when_somebody_came_to_want_it() {
        let mut watched = Watched::new();
        let conflicts = [EventKind::ConflictingRequest];
        let acquire = |handle: HandleId, mode: client::LockMode| {
            Operation::Acquire(client::Acquire { handle: handle.0, mode: mode.into(), try_only: false })
        };
        let (first, second) = (watched.watch(1, "/d", &conflicts), watched.watch(2, "/d", &conflicts));
        let (third, fourth) = (watched.watch(3, "/d", &[]), watched.watch(4, "/d", &[]));
        watched.request(1, acquire(first, client::LockMode::Shared));
        watched.request(3, acquire(third, client::LockMode::Exclusive));
        watched.request(2, acquire(second, client::LockMode::Shared));
        watched.request(4, acquire(fourth, client::LockMode::Exclusive));
        // The third leaves the queue, the second joins the first: the fourth wants the lock from both.
        watched.request(3, Operation::Close(client::Close { handle: third.0 }));
        let told: Vec<_> = watched.tell().into_keys().map(|(session, _)| session).collect();
        let [one, two] = [1, 2].map(|of| watched.sessions[&of].0);
        assert_eq!(told, [one, two]);
    }

    #[test]
    fn so_much_can_wait_and_then_no_more_should_happen() {
        let mut watched = Watched::new();
        (0..100).for_each(|node| _ = watched.watch(1, &format!("/{node}"), &DIRECTORY));
        (0..100).for_each(|node| watched.add(&format!("/{node}/child")));
        assert_eq!(watched.untold.entries.len() + watched.untold.names, 200);
        watched.untold.names += UNTOLD_MAX - 201;
        assert!(!watched.untold.is_full());
        watched.untold.names += 1;
        assert!(watched.untold.is_full());
    }
}
