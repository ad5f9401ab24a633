//! I8: whoever watches a node learns of every change of the kinds that he asked for. Several changes may come as one
//! event, and one may come twice; none is met with silence.
//!
//! What changed is read off the node itself, from command to command of the canonical log, and not from what the state
//! wanted told. Invariant: of each kind, the newest change is known, and the newest that was told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_proto::client::v1::{DirectoryEntry, EventKind, HandleEvent, Open, Stat};
use holdfast_types::{HandleId, Revision, SessionId};

use crate::verdict::{Invariant, Violation};

/// What a node is like, as far as it can be watched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// Its metadata.
    pub stat: Stat,
    /// If it is a directory: its children.
    pub children: Arc<Vec<DirectoryEntry>>,
}

/// The checker.
#[derive(Debug, Default)]
pub struct Watches {
    watches: BTreeMap<(SessionId, HandleId), Watch>,
}

/// A handle that was opened with events.
#[derive(Clone, Debug)]
struct Watch {
    path: String,
    /// The kinds that it asked for, of those that follow from the node alone.
    kinds: BTreeSet<EventKind>,
    /// The node, as it was last; `None` once it is gone.
    view: Option<View>,
    /// The revision of the last change of each kind since the handle was opened.
    changed: BTreeMap<EventKind, Revision>,
    /// The newest change of each kind that the application was told of.
    told: BTreeMap<EventKind, Revision>,
}

impl Watches {
    /// A handle was opened; it counts if it has events. `view` is its node after that.
    pub fn open(&mut self, session: SessionId, handle: HandleId, open: &Open, path: &str, view: View) {
        // What another's wish for the lock comes to depends on locks, and is checked by what becomes of the wish.
        let kinds: BTreeSet<EventKind> =
            open.events().filter(|kind| *kind != EventKind::ConflictingRequest).collect();
        if kinds.is_empty() {
            return;
        }
        let (path, view) = (path.to_owned(), Some(view));
        let (changed, told) = (BTreeMap::new(), BTreeMap::new());
        self.watches.insert((session, handle), Watch { path, kinds, view, changed, told });
    }

    /// A handle is no longer open.
    pub fn close(&mut self, session: SessionId, handle: HandleId) {
        self.watches.remove(&(session, handle));
    }

    /// A session is over, at the cell or by its client's belief.
    pub fn end(&mut self, session: SessionId) {
        self.watches.retain(|(of, _), _| *of != session);
    }

    /// Forgets the handles that are not open any more.
    pub fn retain(&mut self, is_open: impl Fn(SessionId, HandleId) -> bool) {
        self.watches.retain(|(session, handle), _| is_open(*session, *handle));
    }

    /// Takes in what a command changed: `view` is the node of a path now, if there is one.
    pub fn see(&mut self, now: Revision, view: impl Fn(&str, Option<&View>) -> Option<View>) {
        for watch in self.watches.values_mut() {
            let Some(before) = &watch.view else { continue };
            let after =
                view(&watch.path, Some(before)).filter(|after| after.stat.instance == before.stat.instance);
            match &after {
                None => {
                    watch.changed.insert(EventKind::HandleInvalid, now);
                }
                Some(after) => watch.changed.extend(changes(before, after)),
            }
            watch.view = after;
        }
    }

    /// An application is told of an event. Returns the newest change that it knows of by that.
    ///
    /// # Errors
    ///
    /// If it is told of something that has not happened.
    pub fn told(&mut self, session: SessionId, event: &HandleEvent) -> Result<Revision, Violation> {
        let mut newest_told = Revision(0);
        let Some(watch) = self.watches.get_mut(&(session, HandleId(event.handle))) else {
            return Ok(newest_told);
        };
        for kind in event.kinds() {
            let revision = match (kind, &watch.view) {
                // It says no revision, because there is none that the node has it at.
                (EventKind::HandleInvalid, None) => watch.changed.get(&kind).copied().unwrap_or_default(),
                (EventKind::HandleInvalid, Some(_)) => {
                    return Err(broken(format!(
                        "{session} was told that {} is gone, and it is not",
                        watch.path
                    )));
                }
                (kind, _) => generation(kind, event),
            };
            let newest =
                watch.view.as_ref().map_or(Revision(u64::MAX), |view| generation_of(kind, &view.stat));
            if revision > newest {
                return Err(broken(format!(
                    "{session} was told of {event:?} on {}, which is at {newest}",
                    watch.path
                )));
            }
            let told = watch.told.entry(kind).or_default();
            *told = revision.max(*told);
            if kind != EventKind::ConflictingRequest {
                newest_told = newest_told.max(revision);
            }
        }
        Ok(newest_told)
    }

    /// Whoever has not been told of something yet, for people. Once the world is quiet there must be nobody.
    pub fn untold(&self) -> impl Iterator<Item = String> {
        self.watches.iter().flat_map(|((session, handle), watch)| {
            // Of a node that is gone one learns that, whatever one has asked for. What had happened to it before does not
            // matter any more: a client that was not attached then cannot be told, because nothing is left of it.
            let gone = watch.view.is_none();
            let matters = move |kind: EventKind| {
                if gone { kind == EventKind::HandleInvalid } else { watch.kinds.contains(&kind) }
            };
            watch.changed.iter().filter_map(move |(kind, changed)| {
                let told = watch.told.get(kind).copied().unwrap_or_default();
                let due = matters(*kind) && told < *changed;
                let path = &watch.path;
                due.then(|| {
                    format!(
                        "{session} {handle} was not told of {kind:?} at {changed} on {path}, but until {told}"
                    )
                })
            })
        })
    }

    /// Checks that nobody is left without word of a change.
    ///
    /// # Errors
    ///
    /// Who is.
    pub fn check(&self) -> Result<(), Violation> {
        let all: Vec<String> = self.untold().collect();
        if all.is_empty() { Ok(()) } else { Err(broken(all.join("; "))) }
    }
}

/// What changed from one view of a node to a later one, and when.
fn changes(before: &View, after: &View) -> Vec<(EventKind, Revision)> {
    use EventKind::{AclChanged, ChildAdded, ChildModified, ChildRemoved, ContentsModified, LockAcquired};
    let mut changes = Vec::new();
    for kind in [ContentsModified, AclChanged, LockAcquired] {
        let (old, new) = (generation_of(kind, &before.stat), generation_of(kind, &after.stat));
        if new > old {
            changes.push((kind, new));
        }
    }
    let at = Revision(after.stat.children_generation);
    if at > Revision(before.stat.children_generation) {
        let find = |view: &View, name: &str| view.children.iter().find(|child| child.name == name).cloned();
        for child in after.children.iter() {
            let stat = child.stat.clone().unwrap_or_default();
            match find(before, &child.name).and_then(|old| old.stat) {
                Some(old) if old.instance == stat.instance => {
                    if stat.content_generation > old.content_generation {
                        changes.push((ChildModified, at));
                    }
                }
                _ => changes.push((ChildAdded, at)),
            }
        }
        if before.children.iter().any(|child| find(after, &child.name).is_none()) {
            changes.push((ChildRemoved, at));
        }
    }
    changes
}

/// Which of a node's generations tells of a kind of change.
fn generation_of(kind: EventKind, stat: &Stat) -> Revision {
    Revision(match kind {
        EventKind::ContentsModified => stat.content_generation,
        EventKind::AclChanged => stat.acl_generation,
        EventKind::LockAcquired => stat.lock_generation,
        EventKind::ChildAdded | EventKind::ChildRemoved | EventKind::ChildModified => {
            stat.children_generation
        }
        EventKind::HandleInvalid | EventKind::ConflictingRequest | EventKind::Unspecified => u64::MAX,
    })
}

fn generation(kind: EventKind, event: &HandleEvent) -> Revision {
    let HandleEvent { content_generation, children_generation, acl_generation, lock_generation, .. } = *event;
    let stat =
        Stat { content_generation, children_generation, acl_generation, lock_generation, ..Stat::default() };
    generation_of(kind, &stat)
}

fn broken(what: String) -> Violation {
    Violation::new(Invariant::NoLostChange, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(1);
    const HANDLE: HandleId = HandleId(2);

    fn file(content_generation: u64) -> View {
        View { stat: Stat { instance: 1, content_generation, ..Stat::default() }, children: Arc::default() }
    }

    fn directory(children_generation: u64, children: &[(&str, u64, u64)]) -> View {
        let child = |(name, instance, content_generation): &(&str, u64, u64)| DirectoryEntry {
            name: (*name).to_owned(),
            stat: Some(Stat {
                instance: *instance,
                content_generation: *content_generation,
                ..Stat::default()
            }),
        };
        let stat = Stat { instance: 1, children_generation, ..Stat::default() };
        View { stat, children: Arc::new(children.iter().map(child).collect()) }
    }

    /// A checker of one handle with events of all kinds, on `before`, after a change to `after` at revision 9.
    fn changed(before: View, after: Option<View>) -> Watches {
        use EventKind::*;
        let all = [
            ContentsModified,
            ChildAdded,
            ChildRemoved,
            ChildModified,
            AclChanged,
            HandleInvalid,
            LockAcquired,
        ];
        let events = all.into_iter().map(i32::from).collect();
        let mut watches = Watches::default();
        watches.open(SESSION, HANDLE, &Open { events, ..Open::default() }, "/node", before);
        watches.see(Revision(9), |_, _| after.clone());
        watches
    }

    fn event(kinds: &[EventKind], generation: u64) -> HandleEvent {
        HandleEvent {
            handle: HANDLE.0,
            kinds: kinds.iter().map(|kind| i32::from(*kind)).collect(),
            content_generation: generation,
            children_generation: generation,
            ..HandleEvent::default()
        }
    }

    #[test]
    fn a_change_that_nobody_is_told_of_is_found() {
        let mut watches = changed(file(5), Some(file(9)));
        assert!(watches.check().is_err());
        watches.told(SESSION, &event(&[EventKind::ContentsModified], 9)).unwrap();
        assert!(watches.check().is_ok());
        watches.see(Revision(10), |_, _| Some(file(10)));
        assert!(watches.check().is_err(), "the next one counts too");
        watches.close(SESSION, HANDLE);
        assert!(watches.check().is_ok(), "nobody listens any more");
    }

    #[test]
    fn word_of_an_earlier_change_or_of_another_kind_is_not_enough() {
        let mut watches = changed(file(5), Some(file(9)));
        watches.told(SESSION, &event(&[EventKind::ContentsModified], 8)).unwrap();
        watches.told(SESSION, &event(&[EventKind::ChildAdded], 0)).unwrap();
        assert!(watches.check().is_err());
    }

    #[test]
    fn each_kind_of_change_of_a_directory_is_told() {
        use EventKind::{ChildAdded, ChildModified, ChildRemoved};
        let before = || directory(5, &[("a", 2, 2), ("b", 3, 3)]);
        for (after, kinds) in [
            (directory(9, &[("a", 2, 2)]), vec![ChildRemoved]),
            (directory(9, &[("a", 2, 9), ("b", 3, 3)]), vec![ChildModified]),
            (directory(9, &[("a", 2, 2), ("b", 3, 3), ("c", 9, 9)]), vec![ChildAdded]),
            (directory(9, &[("a", 2, 2), ("c", 9, 9)]), vec![ChildAdded, ChildRemoved]),
        ] {
            let mut watches = changed(before(), Some(after));
            for kind in kinds {
                assert!(watches.check().is_err(), "{kind:?}");
                watches.told(SESSION, &event(&[kind], 9)).unwrap();
            }
            assert!(watches.check().is_ok());
        }
    }

    #[test]
    fn of_a_node_that_is_gone_one_learns_that() {
        for after in
            [None, Some(View { stat: Stat { instance: 9, ..Stat::default() }, children: Arc::default() })]
        {
            let mut watches = changed(file(5), after);
            assert!(watches.check().is_err());
            watches.told(SESSION, &event(&[EventKind::HandleInvalid], 0)).unwrap();
            assert!(watches.check().is_ok());
        }
    }

    #[test]
    fn word_of_what_has_not_happened_is_found() {
        assert!(
            changed(file(5), Some(file(9)))
                .told(SESSION, &event(&[EventKind::ContentsModified], 10))
                .is_err()
        );
        assert!(
            changed(file(5), Some(file(9))).told(SESSION, &event(&[EventKind::HandleInvalid], 0)).is_err()
        );
    }
}
