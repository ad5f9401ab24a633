//! What clients may keep, and what takes it back (design.md §6, I5).
//!
//! The state knows through which handles a client may cache, and which cached copies a command may make void. The
//! master, before it has such a command ordered, takes the copies back; nothing of that is known here. Invariant:
//! apply changes nothing that a client may have cached but what [`State::touched`] named for the command.

use std::collections::BTreeSet;

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{Creation, Open};
use holdfast_proto::log::v1::SessionRequest;
use holdfast_proto::log::v1::command::Kind;
use holdfast_types::{HandleId, NodePath, Revision, SessionId, planted};

use crate::lock::Holder;
use crate::node::{Kind as NodeKind, Node};
use crate::session::{Handle, Session};
use crate::{State, acl};

/// The caching handles that are looked at for one write of an access control list. A write must not cost the core more.
const HANDLES_LOOKED_AT_MAX: usize = 50_000;

/// What a command may make void.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// Copies of these.
    Nodes(TouchedNodes),
    /// That cannot be told yet: the command names a handle that is not open in this state. If its opening is under
    /// way, ask again when that is applied; if not, the command will be refused.
    Unknown(HandleId),
}

/// The nodes whose cached copies a command may make void.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TouchedNodes {
    /// Of these: contents, metadata, the list of children, and that there is no child of some name. No node is named
    /// twice.
    pub nodes: Vec<NodePath>,
    /// And these open handles, as proof that the node can be opened.
    pub opens: Opens,
}

/// Kept open handles, as far as they are no proof any more that their node can be opened as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Opens {
    /// None of them.
    #[default]
    None,
    /// Those of one node.
    Node(NodePath),
    /// Those that rest on this access control list: see [`State::sessions_resting_on`].
    List(String),
    /// All.
    All,
}

impl State {
    /// What cached copies a command may make void when it is applied after all that is under way now. `is_barred` says
    /// of a node whether a command that touches it is under way.
    #[must_use]
    pub fn touched(&self, kind: &Kind, is_barred: &dyn Fn(&NodePath) -> bool) -> Touched {
        match kind {
            Kind::Request(request) => self.touched_by_request(request, is_barred),
            Kind::SetContents(write) => {
                self.touched_by_name(&write.path, written, is_barred, &|node| match node {
                    Some(node) => write.if_generation != Some(0) && is_writable(node, write.if_generation),
                    None => write.if_generation == Some(0) || write.if_generation.is_none() && write.create,
                })
            }
            Kind::Delete(delete) => self.touched_by_name(&delete.path, deleted, is_barred, &|node| {
                node.is_some_and(|node| is(node.instance, delete.if_instance) && node.children == 0)
            }),
            Kind::SetAcl(set) => self.touched_by_name(&set.path, acl_changed, is_barred, &|node| {
                node.is_some_and(|node| is(node.acl_generation, set.if_generation))
            }),
            Kind::ReapNode(reap) => self.touched_by_name(&reap.path, deleted, is_barred, &|_| true),
            // The bootstrap principal passes where others do not.
            Kind::ChangeSettings(change) if !change.bootstrap_principal.is_empty() => {
                Touched::Nodes(TouchedNodes { nodes: Vec::new(), opens: Opens::All })
            }
            Kind::ChangeSettings(_)
            | Kind::OpenSession(_)
            | Kind::EndSession(_)
            | Kind::EndLockDelay(_)
            | Kind::RaiseVersion(_)
            | Kind::LowerLeasePromise(_) => nothing(),
        }
    }

    /// The sessions that have a caching handle on the present node of a name. One that has several comes several
    /// times.
    pub fn caching_sessions(&self, path: &NodePath) -> impl Iterator<Item = SessionId> + '_ {
        let node = self.tree.get(path);
        node.into_iter().flat_map(|node| node.cachers.iter().map(|holder| holder.session))
    }

    /// The sessions that have a caching handle on anything, by id.
    pub fn sessions_that_cache(&self) -> impl Iterator<Item = SessionId> + '_ {
        self.sessions.caching()
    }

    /// The sessions that have a caching handle which rests on an access control list: a handle on that list, or on a node
    /// that could be opened for what the handle is used for because of it, by itself or as a group. By id. It may name
    /// others too, if the cell has very many caching handles.
    #[must_use]
    pub fn sessions_resting_on(&self, list: &str) -> Vec<SessionId> {
        self.sessions_resting_on_among(list, HANDLES_LOOKED_AT_MAX)
    }

    fn sessions_resting_on_among(&self, list: &str, mut looked_at_max: usize) -> Vec<SessionId> {
        let lists = self.lists_that_name(list);
        let rests = |handle: &Handle| {
            let node = self.tree.live(&handle.key, handle.instance);
            let is_asked = node.is_some_and(|node| {
                acl::lists_asked(&node.acl, handle.uses).any(|asked| lists.contains(asked))
            });
            is_asked || acl::list_name(handle.key.path()) == Some(list)
        };
        let has_one = |session: &SessionId| {
            let handles = self.sessions.get(*session).into_iter().flat_map(Session::handles);
            handles.filter(|(_, handle)| handle.caching).any(|(_, handle)| {
                let is_too_many = looked_at_max == 0;
                looked_at_max = looked_at_max.saturating_sub(1);
                is_too_many || rests(handle)
            })
        };
        self.sessions.caching().filter(has_one).collect()
    }

    /// The list itself, and those that name it as a group, or name such a one.
    fn lists_that_name(&self, list: &str) -> BTreeSet<String> {
        let (mut found, mut waiting) = (BTreeSet::from([list.to_owned()]), vec![list.to_owned()]);
        let groups = self.groups();
        while let Some(list) = waiting.pop() {
            for by in groups.get(&list).into_iter().flatten() {
                if found.insert(by.clone()) {
                    waiting.push(by.clone());
                }
            }
        }
        found
    }

    /// The node of which a client may keep what it reads through a handle: `None` unless the handle is open and
    /// caching, its node is still there, and it depends on no sequencer.
    #[must_use]
    pub fn cacheable(&self, session: SessionId, handle: HandleId) -> Option<NodePath> {
        let handle = self.sessions.handle(Holder { session, handle })?;
        let caches = handle.caching && handle.sequencer.is_none();
        let live = caches && self.tree.live(&handle.key, handle.instance).is_some();
        live.then(|| handle.key.path().clone())
    }

    /// The directory under which a client may keep that there is no node of that name: the name's parent, unless it
    /// is the root, if the session has a caching handle on it.
    #[must_use]
    pub fn caches_parent(&self, session: SessionId, path: &NodePath) -> Option<NodePath> {
        let parent = path.parent().filter(|parent| !parent.is_root())?;
        let mut own = self.own_cachers(session, &parent);
        own.any(|holder| self.cacheable(session, holder.handle).is_some()).then_some(parent)
    }

    /// Whether a session has a caching handle on the present node of a name.
    #[must_use]
    pub fn caches_node(&self, session: SessionId, path: &NodePath) -> bool {
        self.own_cachers(session, path).next().is_some()
    }

    /// A session's caching handles on the present node of a name. A node can have very many of other sessions.
    fn own_cachers(&self, session: SessionId, path: &NodePath) -> impl Iterator<Item = Holder> + '_ {
        let first = Holder { session, handle: HandleId(0) };
        let last = Holder { session, handle: HandleId(u64::MAX) };
        let node = self.tree.get(path);
        node.into_iter().flat_map(move |node| node.cachers.range(first..=last).copied())
    }

    /// The path that an Open of the session names, if it names one.
    #[must_use]
    pub fn path_of_open(&self, session: SessionId, open: &Open) -> Option<NodePath> {
        self.opened_path(session, open).ok()
    }

    fn touched_by_request(&self, command: &SessionRequest, is_barred: &dyn Fn(&NodePath) -> bool) -> Touched {
        let session = SessionId(command.session);
        match command.request.as_ref().and_then(|request| request.operation.as_ref()) {
            Some(Operation::Open(open)) => self.touched_by_open(session, open, is_barred),
            Some(Operation::SetContents(write)) => {
                self.touched_by_handle(session, write.handle, written, is_barred, &|node| {
                    is_writable(node, write.if_generation)
                })
            }
            Some(Operation::Delete(delete)) => {
                self.touched_by_handle(session, delete.handle, deleted, is_barred, &|node| node.children == 0)
            }
            Some(Operation::SetAcl(set)) => {
                self.touched_by_handle(session, set.handle, acl_changed, is_barred, &|node| {
                    is(node.acl_generation, set.if_generation)
                })
            }
            Some(
                Operation::Close(_)
                | Operation::Acquire(_)
                | Operation::Release(_)
                | Operation::Cancel(_)
                | Operation::SetSequencer(_)
                | Operation::GetContents(_)
                | Operation::GetStat(_)
                | Operation::ReadDir(_)
                | Operation::GetSequencer(_)
                | Operation::CheckSequencer(_),
            )
            | None => nothing(),
        }
    }

    /// An open touches something only if it creates the node. What is there and stays there is not created.
    fn touched_by_open(
        &self,
        session: SessionId,
        open: &Open,
        is_barred: &dyn Fn(&NodePath) -> bool,
    ) -> Touched {
        if open.creation == i32::from(Creation::Unspecified) {
            return nothing();
        }
        let path = if open.directory == 0 {
            self.parse_path_of_old(&open.path)
        } else {
            let directory = Holder { session, handle: HandleId(open.directory) };
            let Some(handle) = self.sessions.handle(directory) else {
                return Touched::Unknown(directory.handle);
            };
            let node = self.tree.live(&handle.key, handle.instance);
            if node.is_none_or(|node| node.kind != NodeKind::Directory) {
                return nothing();
            }
            // Whether its sequencer is valid is not asked: that can be taken back before the open is applied.
            self.path_within(handle.key.path(), &open.path, State::parse_path_of_old)
        };
        match path {
            Ok(path) if self.tree.get(&path).is_none() || is_barred(&path) => Touched::Nodes(created(path)),
            Ok(_) | Err(_) => nothing(),
        }
    }

    /// `will_do`: whether the command would be done to a node that is as this one, if everything else allows it.
    fn touched_by_handle(
        &self,
        session: SessionId,
        handle: u64,
        touched: fn(NodePath) -> TouchedNodes,
        is_barred: &dyn Fn(&NodePath) -> bool,
        will_do: &dyn Fn(&Node) -> bool,
    ) -> Touched {
        let holder = Holder { session, handle: HandleId(handle) };
        let Some(handle) = self.sessions.handle(holder) else { return Touched::Unknown(holder.handle) };
        let path = handle.key.path();
        match self.tree.live(&handle.key, handle.instance) {
            Some(node) if will_do(node) || stays_unsure(path, is_barred) => {
                Touched::Nodes(touched(path.clone()))
            }
            Some(_) | None => nothing(),
        }
    }

    /// Names are read more leniently than they will be when the command is applied: limits may rise meanwhile.
    /// `will_do`: as in [`State::touched_by_handle`], or where there is no node.
    fn touched_by_name(
        &self,
        path: &str,
        touched: fn(NodePath) -> TouchedNodes,
        is_barred: &dyn Fn(&NodePath) -> bool,
        will_do: &dyn Fn(Option<&Node>) -> bool,
    ) -> Touched {
        let Ok(path) = self.parse_path_of_old(path) else { return nothing() };
        let node = self.tree.get(&path);
        // A creation that is under way bars the parent, and not what it creates.
        let parent = if node.is_none() { path.parent() } else { None };
        let is_unsure =
            stays_unsure(&path, is_barred) || parent.is_some_and(|parent| stays_unsure(&parent, is_barred));
        if will_do(node) || is_unsure { Touched::Nodes(touched(path)) } else { nothing() }
    }
}

/// Whether a node may be another by the time a command is applied that is proposed now. If not, what is refused by the
/// node as it is will be refused, and nobody has to drop anything for it.
fn stays_unsure(path: &NodePath, is_barred: &dyn Fn(&NodePath) -> bool) -> bool {
    is_barred(path) && !planted!(RefusalIgnoresBars)
}

/// Whether a generation is the one that is wanted, if one is.
fn is(generation: Revision, wanted: Option<u64>) -> bool {
    wanted.is_none_or(|wanted| wanted == generation.0)
}

/// Whether a node can be written.
fn is_writable(node: &Node, if_generation: Option<u64>) -> bool {
    node.kind == NodeKind::File && is(node.content_generation, if_generation)
}

fn nothing() -> Touched {
    Touched::Nodes(TouchedNodes::default())
}

/// A node is made: its directory has one child more, and shows so in the list that the directory itself is in.
fn created(path: NodePath) -> TouchedNodes {
    let opens = acl::list_name(&path).map_or(Opens::None, |list| Opens::List(list.to_owned()));
    let parent = path.parent();
    let grandparent = parent.as_ref().and_then(NodePath::parent);
    TouchedNodes { nodes: parent.into_iter().chain(grandparent).collect(), opens }
}

/// A file is written, or made.
fn written(path: NodePath) -> TouchedNodes {
    let mut touched = created(path.clone());
    if planted!(WriteSparesList) {
        touched.nodes.clear();
    }
    touched.nodes.insert(0, path);
    touched
}

/// A node is deleted.
fn deleted(path: NodePath) -> TouchedNodes {
    let mut touched = written(path.clone());
    if touched.opens == Opens::None {
        touched.opens = Opens::Node(path);
    }
    touched
}

/// A node's access control names are changed: it shows in the list that the node is in.
fn acl_changed(path: NodePath) -> TouchedNodes {
    let parent = path.parent();
    let nodes = [path.clone()].into_iter().chain(parent).collect();
    let opens = if planted!(AclSparesOpens) { Opens::None } else { Opens::Node(path) };
    TouchedNodes { nodes, opens }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::client::v1::{Request, SetContentsRequest, Uses};
    use holdfast_proto::log::v1::{Command, OpenSession};

    use super::*;
    use crate::{Genesis, settings};

    fn apply(state: &mut State, kind: Kind) {
        let command = Command { kind: Some(kind), ..Command::default() };
        state.apply(command, &mut Vec::new()).expect("no fault");
    }

    /// A cell with one session for each of these paths, which has a caching handle on it.
    fn cell(paths: &[&str]) -> (State, Vec<SessionId>) {
        let settings = settings::defaults();
        let genesis = Genesis { cell: "dev".into(), cell_id: 7, members: Vec::new(), settings };
        let mut state = State::genesis(genesis);
        for (secret, path) in (1..).zip(paths) {
            let open =
                OpenSession { secret: vec![secret; 16].into(), lease_ms: 1_000, ..OpenSession::default() };
            apply(&mut state, Kind::OpenSession(open));
            let (session, _) = state.sessions().last().expect("one was opened");
            let open = Open {
                path: (*path).to_owned(),
                creation: Creation::May.into(),
                caching: true,
                uses: Some(Uses { read: true, ..Uses::default() }),
                ..Open::default()
            };
            let request = Some(Request { number: 1, operation: Some(Operation::Open(Box::new(open))) });
            apply(
                &mut state,
                Kind::Request(SessionRequest { session: session.0, request, acknowledged: None }),
            );
        }
        let sessions = state.sessions_that_cache().collect();
        (state, sessions)
    }

    #[test]
    fn an_open_rests_on_a_list_by_itself_and_by_way_of_groups() {
        let (mut state, sessions) = cell(&["/a", "/b", "/acl/one"]);
        let put = |path: &str, text: &'static str| {
            let path = path.to_owned();
            Kind::SetContents(SetContentsRequest {
                path,
                contents: text.into(),
                create: true,
                ..Default::default()
            })
        };
        apply(&mut state, put("/acl/one", "@two"));
        apply(&mut state, put("/acl/two", "@three"));
        let acl = holdfast_proto::client::v1::AclNames { read: "one".to_owned(), ..Default::default() };
        let set = holdfast_proto::client::v1::SetAclRequest {
            path: "/a".to_owned(),
            acl: Some(acl),
            if_generation: None,
            force: false,
        };
        apply(&mut state, Kind::SetAcl(set));
        for list in ["two", "three"] {
            assert_eq!(state.sessions_resting_on(list), [sessions[0]], "{list} lets in by way of others");
        }
        assert_eq!(state.sessions_resting_on("one"), [sessions[0], sessions[2]], "one has the list open");
        assert_eq!(state.sessions_resting_on("admin"), [], "nobody has opened anything to change its names");
    }

    #[test]
    fn what_is_refused_for_certain_touches_nothing_unless_something_is_under_way() {
        let (mut state, _) = cell(&["/a"]);
        let put = |if_generation, create| {
            Kind::SetContents(SetContentsRequest {
                path: "/a".to_owned(),
                if_generation,
                create,
                ..SetContentsRequest::default()
            })
        };
        let delete = |path: &str, if_instance| {
            let path = path.to_owned();
            Kind::Delete(holdfast_proto::client::v1::DeleteRequest { path, if_instance, force: false })
        };
        let set_acl = |if_generation| {
            Kind::SetAcl(holdfast_proto::client::v1::SetAclRequest {
                path: "/a".to_owned(),
                if_generation,
                ..Default::default()
            })
        };
        apply(&mut state, put(None, false));
        let node = state.tree.get(&NodePath::from_canonical("/a").unwrap()).unwrap();
        let (content, instance, acl) = (node.content_generation.0, node.instance.0, node.acl_generation.0);
        let elsewhere = |state: &State, kind: &Kind, barred: &str| {
            let is_barred = |path: &NodePath| path.as_str() == barred;
            let Touched::Nodes(touched) = state.touched(kind, &is_barred) else { panic!("{kind:?}") };
            !touched.nodes.is_empty()
        };
        for (kind, touches) in [
            (put(None, false), true),
            (put(Some(content), false), true),
            (put(Some(content - 1), false), false),
            (put(Some(content + 1), false), false),
            (put(Some(0), false), false),
            (delete("/a", None), true),
            (delete("/a", Some(instance)), true),
            (delete("/a", Some(instance + 9)), false),
            (delete("/", None), false),
            (set_acl(Some(acl)), true),
            (set_acl(Some(acl + 1)), false),
        ] {
            assert_eq!(elsewhere(&state, &kind, "/x"), touches, "{kind:?}");
            let at = if kind == delete("/", None) { "/" } else { "/a" };
            assert!(elsewhere(&state, &kind, at), "{kind:?} while the node is being changed");
        }
        // Of a node that is not there, what creates it is under way where its parent is barred.
        apply(&mut state, delete("/a", None));
        for (kind, touches) in [
            (put(None, false), false),
            (put(None, true), true),
            (put(Some(0), false), true),
            (put(Some(content), true), false),
            (delete("/a", None), false),
        ] {
            assert_eq!(elsewhere(&state, &kind, "/x"), touches, "{kind:?}");
            assert!(elsewhere(&state, &kind, "/"), "{kind:?} while the node may be being made");
        }
    }

    #[test]
    fn where_too_many_handles_would_have_to_be_looked_at_the_rest_counts() {
        let (state, sessions) = cell(&["/a", "/b", "/c", "/d"]);
        assert_eq!(state.sessions_resting_on_among("one", 4), []);
        assert_eq!(state.sessions_resting_on_among("one", 3), [sessions[3]]);
        assert_eq!(state.sessions_resting_on_among("one", 0), sessions);
    }
}
