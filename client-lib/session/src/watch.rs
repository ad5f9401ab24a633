//! What the application has been told of the nodes that it watches (I8).
//!
//! Owns, for each handle that was opened with events, the generations last heard of: on attaching, the cell compares
//! them with the present and tells what differs. The invariant: what is noted here was handed to the application,
//! with the handle or with an event, and never more.

use holdfast_proto::client::v1::{EventKind, HandleEvent, Open, Seen, Stat};
use holdfast_types::HandleId;
use std::collections::BTreeMap;

#[derive(Debug, Default)]
pub(crate) struct Watch {
    watched: BTreeMap<HandleId, Watched>,
}

#[derive(Debug)]
struct Watched {
    seen: Seen,
    /// The handle was opened with CONFLICTING_REQUEST.
    asks_for_conflicts: bool,
    /// That the node is gone was told. The cell tells it again at each attachment.
    gone: bool,
}

impl Watch {
    pub(crate) fn opened(&mut self, id: HandleId, open: &Open, stat: &Stat) {
        if open.events.is_empty() {
            return;
        }
        let seen = Seen {
            handle: id.0,
            content_generation: stat.content_generation,
            children_generation: stat.children_generation,
            acl_generation: stat.acl_generation,
            lock_generation: stat.lock_generation,
        };
        let asks_for_conflicts = open.events().any(|kind| kind == EventKind::ConflictingRequest);
        self.watched.insert(id, Watched { seen, asks_for_conflicts, gone: false });
    }

    pub(crate) fn closed(&mut self, id: HandleId) {
        self.watched.remove(&id);
    }

    pub(crate) fn asks_for_conflicts(&self, id: HandleId) -> bool {
        self.watched.get(&id).is_some_and(|watched| watched.asks_for_conflicts)
    }

    /// Notes what an event tells. `None` if it tells the application nothing: its handle is closed, or it is known that
    /// the node is gone.
    pub(crate) fn tell(&mut self, mut event: HandleEvent) -> Option<HandleEvent> {
        let Watched { seen, gone, .. } = self.watched.get_mut(&HandleId(event.handle))?;
        seen.content_generation = seen.content_generation.max(event.content_generation);
        seen.children_generation = seen.children_generation.max(event.children_generation);
        seen.acl_generation = seen.acl_generation.max(event.acl_generation);
        seen.lock_generation = seen.lock_generation.max(event.lock_generation);
        let invalid = i32::from(EventKind::HandleInvalid);
        if *gone {
            event.kinds.retain(|kind| *kind != invalid);
        }
        *gone |= event.kinds.contains(&invalid);
        (!event.kinds.is_empty()).then_some(event)
    }

    /// For the hello of an attachment.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.watched.values().map(|watched| watched.seen).collect()
    }
}
