//! Events (P§2.5, I8): who is told what of a node, when it changes and when a client comes back.
//!
//! A node lists the handles that watch it; apply tells all of them of a change in one effect, however many they are.
//! What a master does not deliver is found again by comparing what the client last saw with what is, so that nothing
//! is kept here for anybody. Invariant: whatever [`State::tell`] tells of a node's generations, [`State::changes_since`]
//! finds.

use holdfast_proto::client::v1::{ChildChange, EventKind, HandleEvent, Refusal, Seen, Stat};
use holdfast_types::{HandleId, NodePath, Revision, SessionId};
use imbl::OrdSet;

use crate::lock::Holder;
use crate::node::Node;
use crate::session::Handle;
use crate::tree::NodeKey;
use crate::watchers::{Listeners, Place};
use crate::{Effect, State, refusal};

/// Every kind of event, rising.
const KINDS: [EventKind; 8] = [
    EventKind::ContentsModified,
    EventKind::ChildAdded,
    EventKind::ChildRemoved,
    EventKind::ChildModified,
    EventKind::AclChanged,
    EventKind::HandleInvalid,
    EventKind::LockAcquired,
    EventKind::ConflictingRequest,
];

/// Those that tell of what only readers may know.
const KINDS_OF_READERS: [EventKind; 5] = [
    EventKind::ContentsModified,
    EventKind::ChildAdded,
    EventKind::ChildRemoved,
    EventKind::ChildModified,
    EventKind::AclChanged,
];

/// Kinds of events, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EventSet(u16);

impl EventSet {
    /// Reads what a client asked for. Repetitions do not matter. Whoever watches anything is told that the node is
    /// gone too: there would be nothing left to tell of a last change by, and it would be lost (I8).
    pub(crate) fn from_wire(kinds: &[i32]) -> Result<Self, Refusal> {
        let mut set = Self::default();
        for kind in kinds {
            match EventKind::try_from(*kind) {
                Ok(EventKind::Unspecified) | Err(_) => {
                    return Err(refusal::invalid(format!("event kind {kind} is not one of 1 to 8")));
                }
                Ok(kind) => set.insert(kind),
            }
            set.insert(EventKind::HandleInvalid);
        }
        Ok(set)
    }

    /// This kind alone.
    #[must_use]
    pub fn of(kind: EventKind) -> Self {
        Self(Self::bit(kind))
    }

    /// These kinds. Kinds that this program does not know are none that it was asked to tell.
    #[must_use]
    pub fn of_all(kinds: &[i32]) -> Self {
        let known = kinds.iter().filter_map(|kind| EventKind::try_from(*kind).ok());
        known.fold(Self::default(), |set, kind| set.with(Self::of(kind)))
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether a kind is among them.
    #[must_use]
    pub fn contains(self, kind: EventKind) -> bool {
        self.0 & Self::bit(kind) != 0
    }

    /// Whether one of those kinds is among them.
    #[must_use]
    pub fn has_any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    /// These and those.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is both among these and among those.
    #[must_use]
    pub fn common(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The kinds, rising.
    pub fn kinds(self) -> impl Iterator<Item = EventKind> {
        KINDS.into_iter().filter(move |kind| self.contains(*kind))
    }

    /// The first of the kinds that only readers are told of, if there is one.
    pub(crate) fn of_readers(self) -> Option<EventKind> {
        KINDS_OF_READERS.into_iter().find(|kind| self.contains(*kind))
    }

    fn insert(&mut self, kind: EventKind) {
        self.0 |= Self::bit(kind);
    }

    fn bit(kind: EventKind) -> u16 {
        1 << kind as i32
    }
}

/// Something that happened to a node, for the handles that asked to be told of such.
#[derive(Clone, Debug, PartialEq)]
pub struct News {
    /// The node.
    pub path: NodePath,
    /// Its instance.
    pub instance: Revision,
    /// What happened, for each of the handles, and so without one; the generations are those after the change.
    pub event: HandleEvent,
    /// Whom to tell.
    pub listeners: Listeners,
}

impl News {
    /// The handles that it is for, rising.
    #[must_use]
    pub fn handles(&self) -> Vec<(SessionId, HandleId)> {
        let kinds = EventSet::of_all(&self.event.kinds);
        let (found, _) = self.listeners.walk(kinds, &mut Place::Start, usize::MAX);
        let mut handles: Vec<_> = found.into_iter().map(|found| (found.session, found.handle)).collect();
        handles.sort_unstable();
        handles
    }
}

impl State {
    /// Tells all who watch a node for changes of this kind that there was one. `child` is the name of the child
    /// concerned, if one is.
    pub(crate) fn tell(
        &self,
        path: &NodePath,
        node: &Node,
        kind: EventKind,
        child: Option<&str>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(listeners) = Listeners::watching(&node.watchers, kind) {
            effects.push(notify(path, node, kind, child, listeners));
        }
    }

    /// Tells a node's directory of something that happened to the node.
    pub(crate) fn tell_parent(&self, key: &NodeKey, kind: EventKind, effects: &mut Vec<Effect>) {
        let parent = key.parent().and_then(|parent| self.tree.entry(&parent));
        if let Some((of, parent)) = parent {
            self.tell(of.path(), parent, kind, key.path().name(), effects);
        }
    }

    /// Tells those of the holders of a node's lock that asked for it that somebody else wants the lock.
    pub(crate) fn tell_holders(
        &self,
        path: &NodePath,
        node: &Node,
        holders: OrdSet<Holder>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(listeners) = Listeners::holding(&node.watchers, holders) {
            effects.push(notify(path, node, EventKind::ConflictingRequest, None, listeners));
        }
    }

    /// What happened to the nodes of a session's handles since its client last heard of them, as far as the handles
    /// asked for it: one event for each handle with news. Which children changed cannot be told. That a node is gone,
    /// or that somebody wants a lock which a handle holds, is told again each time.
    #[must_use]
    pub fn changes_since(&self, session: SessionId, seen: &[Seen]) -> Vec<HandleEvent> {
        let handles = seen.iter().filter_map(|seen| {
            let holder = Holder { session, handle: HandleId(seen.handle) };
            self.change_since(holder, self.sessions.handle(holder)?, seen)
        });
        handles.collect()
    }

    /// What happened to the node of a handle since the handle was opened, when the node was as `stat` says.
    #[must_use]
    pub fn change_since_open(
        &self,
        session: SessionId,
        handle: HandleId,
        stat: &Stat,
    ) -> Option<HandleEvent> {
        let seen = Seen {
            handle: handle.0,
            content_generation: stat.content_generation,
            children_generation: stat.children_generation,
            acl_generation: stat.acl_generation,
            lock_generation: stat.lock_generation,
        };
        let holder = Holder { session, handle };
        self.change_since(holder, self.sessions.handle(holder)?, &seen)
    }

    fn change_since(&self, holder: Holder, handle: &Handle, seen: &Seen) -> Option<HandleEvent> {
        let id = holder.handle;
        let Some(node) = self.tree.live(&handle.key, handle.instance) else {
            let told = handle.events.contains(EventKind::HandleInvalid);
            let kinds = vec![EventKind::HandleInvalid.into()];
            let Seen { content_generation, children_generation, acl_generation, lock_generation, .. } = *seen;
            return told.then(|| HandleEvent {
                handle: id.0,
                kinds,
                content_generation,
                children_generation,
                acl_generation,
                lock_generation,
                ..HandleEvent::default()
            });
        };
        let children_changed = node.children_generation.0 != seen.children_generation;
        let changed = |kind| match kind {
            EventKind::ContentsModified => node.content_generation.0 != seen.content_generation,
            EventKind::ChildAdded | EventKind::ChildRemoved | EventKind::ChildModified => children_changed,
            EventKind::AclChanged => node.acl_generation.0 != seen.acl_generation,
            EventKind::LockAcquired => node.lock.generation().0 != seen.lock_generation,
            EventKind::ConflictingRequest => node.lock.is_wanted_from(holder),
            EventKind::HandleInvalid | EventKind::Unspecified => false,
        };
        let kinds: Vec<EventKind> = handle.events.kinds().filter(|kind| changed(*kind)).collect();
        if kinds.is_empty() {
            return None;
        }
        let more_children = children_changed && kinds.iter().any(|kind| is_of_children(*kind));
        Some(HandleEvent { more_children, ..event(id, node, kinds) })
    }
}

fn is_of_children(kind: EventKind) -> bool {
    matches!(kind, EventKind::ChildAdded | EventKind::ChildRemoved | EventKind::ChildModified)
}

/// Of a node with its generations as they are now.
fn notify(
    path: &NodePath,
    node: &Node,
    kind: EventKind,
    child: Option<&str>,
    listeners: Listeners,
) -> Effect {
    let mut event = event(HandleId(0), node, vec![kind]);
    event.children.extend(child.map(|name| ChildChange { name: name.to_owned(), kind: kind.into() }));
    let (path, instance) = (path.clone(), node.instance);
    Effect::Notify { tag: 0, news: Box::new(News { path, instance, event, listeners }) }
}

/// An event with a node's generations as they are now.
fn event(handle: HandleId, node: &Node, kinds: Vec<EventKind>) -> HandleEvent {
    HandleEvent {
        handle: handle.0,
        kinds: kinds.into_iter().map(i32::from).collect(),
        content_generation: node.content_generation.0,
        children_generation: node.children_generation.0,
        acl_generation: node.acl_generation.0,
        lock_generation: node.lock.generation().0,
        children: Vec::new(),
        more_children: false,
    }
}
