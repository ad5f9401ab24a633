//! Opening and closing handles (P§2.3, 2.6): the only requests that take a name, and what they may be used for.
//!
//! Who may open what is decided in `acl`; what a handle was opened for is checked on every call, here. Invariant: a
//! node's count of open handles and its indexes of watchers and cachers tell of exactly the handles that are open.

use std::sync::Arc;

use holdfast_proto::client::v1::{
    AclNames, Creation, EventKind, NodeKind, Open, Opened, Refusal, RefusalCode, Stat, Uses, outcome,
};
use holdfast_types::{HandleId, NodePath, Principal, RequestNumber, SessionId};

use crate::acl::{self, Permission};
use crate::events::EventSet;
use crate::lock::Holder;
use crate::locking::Departure;
use crate::node::{Kind, Node};
use crate::session::Handle;
use crate::tree::NodeKey;
use crate::{Effect, State, refusal, settings, usage};

/// The longest lock-delay (P§2.4: up to a minute).
pub(crate) const LOCK_DELAY_MS_MAX: u32 = 60_000;

/// An Open, as far as it can be checked without a look at the state.
struct Wish {
    creation: Creation,
    kind: Option<Kind>,
    uses: Uses,
    events: EventSet,
}

impl State {
    /// Opens a handle, and creates the node if it may.
    pub(crate) fn open(
        &mut self,
        session: SessionId,
        number: RequestNumber,
        open: &Open,
        effects: &mut Vec<Effect>,
    ) -> Result<outcome::Result, Refusal> {
        let wish = check_open(open)?;
        if let Some(acl) = &open.acl {
            self.check_acl_names(acl)?;
        }
        let path = self.opened_path(session, open)?;
        let opener = self.sessions.get(session).expect("the request's session is there");
        let (handles, principal) = (opener.handle_count() as u64, opener.principal());
        let handles_max = self.settings.handles_per_session_max;
        if handles >= handles_max {
            return Err(refusal::limit("open handles", handles + 1, "handles_per_session_max", handles_max));
        }
        let principal = principal.clone();
        let found = self.find_or_create(&principal, &path, &wish, open, effects);
        let created = found.map_err(|refusal| self.concealed(&principal, &path, refusal))?;
        let instance = self.tree.get(&path).expect("the node exists by now").instance;
        let handle = Handle {
            key: NodeKey::new(path),
            instance,
            lock_delay_ms: open.lock_delay_ms,
            claim: None,
            uses: wish.uses,
            events: wish.events,
            caching: open.caching && self.may_cache(session),
            sequencer: None,
        };
        if !created {
            self.advance();
        }
        let mut stat = self.open_handle(Holder { session, handle: HandleId(number.0) }, handle);
        if let Some(lock) = stat.as_mut().and_then(|stat| stat.lock.as_mut()).filter(|_| self.version >= 2) {
            // The outcome is recorded, and who holds a lock has a long name if it chooses: it is asked by a read.
            lock.holders.clear();
        }
        Ok(outcome::Result::Opened(Box::new(Opened { created, stat })))
    }

    /// Whether a session gets handles that are caching: what is cached holds up writes until the lease is over (ADR 0014).
    fn may_cache(&self, session: SessionId) -> bool {
        let lease_ms_max = settings::caching_lease_ms_max(&self.settings);
        self.version < 2
            || self.sessions.get(session).is_some_and(|session| session.lease_ms() <= lease_ms_max)
    }

    /// Finds the node that an Open names, or creates it. Tells which.
    fn find_or_create(
        &mut self,
        principal: &Principal,
        path: &NodePath,
        wish: &Wish,
        open: &Open,
        effects: &mut Vec<Effect>,
    ) -> Result<bool, Refusal> {
        match (self.tree.get(path), wish.creation, wish.kind) {
            (Some(_), Creation::Must, _) => Err(refusal::already_exists(path)),
            (Some(node), _, Some(kind)) if node.kind != kind => {
                Err(refusal::wrong_kind(path, node.kind.name(), kind.name()))
            }
            (None, Creation::Unspecified, _) => Err(self.missing(path)),
            (Some(node), ..) => self.check_uses(principal, path, &node.acl, wish.uses).map(|()| false),
            (None, ..) => {
                let node = self.new_node(principal, path, wish, open)?;
                self.insert_node(principal, NodeKey::new(path.clone()), node, effects)?;
                Ok(true)
            }
        }
    }

    /// The path that an Open names: by itself, or from a directory that the session has open.
    pub(crate) fn opened_path(&self, session: SessionId, open: &Open) -> Result<NodePath, Refusal> {
        if open.directory == 0 {
            return self.parse_path(&open.path);
        }
        let directory = Holder { session, handle: HandleId(open.directory) };
        let handle = self.working_handle(directory)?;
        let path = handle.key.path();
        let node = self.tree.live(&handle.key, handle.instance).expect("a live handle has its node");
        if node.kind != Kind::Directory {
            return Err(refusal::wrong_kind(path, node.kind.name(), Kind::Directory.name()));
        }
        self.path_within(path, &open.path, Self::parse_path)
    }

    /// The path that a name means in a directory. The text is read with `parse`.
    pub(crate) fn path_within(
        &self,
        directory: &NodePath,
        name: &str,
        parse: fn(&Self, &str) -> Result<NodePath, Refusal>,
    ) -> Result<NodePath, Refusal> {
        if name.is_empty() {
            return Ok(directory.clone());
        }
        // At the top of the cell, a name that begins with `ls` would read as that of a cell.
        let of_cell = directory.is_root() && (name == "ls" || name.starts_with("ls/"));
        if name.starts_with('/') || of_cell {
            let name = refusal::quoting(self.version)(name);
            return Err(refusal::new(
                RefusalCode::BadPath,
                format!(
                    "the name {name} is not relative to {directory}: write <name>/<name>, or leave out the directory"
                ),
            ));
        }
        let parent = if directory.is_root() { "" } else { directory.as_str() };
        parse(self, &format!("{parent}/{name}"))
    }

    /// The node that an Open creates, if it may, with the next revision as its instance.
    fn new_node(
        &self,
        principal: &Principal,
        path: &NodePath,
        wish: &Wish,
        open: &Open,
    ) -> Result<Node, Refusal> {
        let kind = wish.kind.unwrap_or(Kind::File);
        let inherited = self.check_creation(principal, path, open.contents.len())?;
        self.check_new_list(path, kind, open.ephemeral, &open.contents)?;
        self.check_list_characters(path, &open.contents)?;
        let acl = match &open.acl {
            Some(given) => acl::changed(&inherited, given),
            None => inherited,
        };
        self.check_uses(principal, path, &acl, wish.uses)?;
        let instance = self.revision.next();
        Ok(match kind {
            Kind::Directory => Node::directory(instance, open.ephemeral, acl),
            Kind::File => Node::file(instance, open.ephemeral, acl, &open.contents),
        })
    }

    /// Whether a principal may create a node where there is none. Gives the access control names that it inherits.
    pub(crate) fn check_creation(
        &self,
        principal: &Principal,
        path: &NodePath,
        contents_bytes: usize,
    ) -> Result<Arc<AclNames>, Refusal> {
        let (parent_path, parent) = self.parent_of_new(path)?;
        self.check_permission(principal, &parent_path, &parent.acl, Permission::Write)?;
        self.check_size(contents_bytes)?;
        self.check_characters("a path", path.name().unwrap_or_default())?;
        self.check_room_for_node(principal)?;
        Ok(parent.acl.clone())
    }

    /// Puts a new node into the tree, if there is room: it is of the next revision, which becomes the present one.
    pub(crate) fn insert_node(
        &mut self,
        principal: &Principal,
        key: NodeKey,
        mut node: Node,
        effects: &mut Vec<Effect>,
    ) -> Result<(), Refusal> {
        self.check_room_for_bytes(principal, 0, usage::node_bytes(&key, &node))?;
        node.owner = (self.version >= 2).then(|| self.usage.interned(principal));
        node.list = acl::parsed(key.path(), &node.contents);
        self.usage.add_node(&key, &node);
        let revision = self.advance();
        assert_eq!(node.instance, revision, "a node's instance is the revision of its creation");
        let parent_watched = self.tree.insert(key.clone(), node);
        if parent_watched {
            self.tell_parent(&key, EventKind::ChildAdded, effects);
        }
        Ok(())
    }

    /// Adds a handle to its session and its node. Gives the node's metadata afterwards: all of it to readers only.
    fn open_handle(&mut self, holder: Holder, handle: Handle) -> Option<Stat> {
        let (key, uses) = (handle.key.clone(), handle.uses);
        assert!(self.add_handle(holder, handle), "a request opens one handle");
        // It has a handle again: no orphan any more, if it was one.
        self.tree.reindex(&key);
        let stat = self.tree.get(key.path()).map(|node| self.stat(node));
        if uses.read { stat } else { stat.map(public) }
    }

    /// Adds a handle to its session and, if its node is there, to that. False if the session has one of that id.
    pub(crate) fn add_handle(&mut self, holder: Holder, handle: Handle) -> bool {
        if let Some(node) = self.tree.live_mut(&handle.key, handle.instance) {
            node.open_handles += 1;
            if !handle.events.is_empty() {
                node.watchers.insert(holder, handle.events);
            }
            if handle.caching {
                node.cachers.insert(holder);
            }
        }
        self.sessions.insert_handle(holder, handle)
    }

    /// Closes a handle, if it is open: what it held is released.
    pub(crate) fn close_handle(&mut self, holder: Holder, effects: &mut Vec<Effect>) {
        let Some(handle) = self.sessions.remove_handle(holder) else { return };
        self.advance();
        if self.leave_node(holder, &handle, Departure::Released) {
            self.settle(&handle.key, effects);
        }
    }

    /// A handle whose node is still there.
    pub(crate) fn live_handle(&self, holder: Holder) -> Result<&Handle, Refusal> {
        let handle = self.sessions.handle(holder).ok_or_else(|| refusal::unknown_handle(holder.handle))?;
        match self.tree.live(&handle.key, handle.instance) {
            Some(_) => Ok(handle),
            None => Err(refusal::node_gone(holder.handle, handle.key.path())),
        }
    }

    /// A handle on which calls can be made: its node is still there, and the sequencer that it depends on is valid.
    pub(crate) fn working_handle(&self, holder: Holder) -> Result<&Handle, Refusal> {
        if let Some(handle) = self.sessions.handle(holder) {
            handle.check_sequencer(holder.handle, &self.tree)?;
        }
        self.live_handle(holder)
    }

    /// A working handle that was opened for this.
    pub(crate) fn usable_handle(&self, holder: Holder, permission: Permission) -> Result<&Handle, Refusal> {
        let handle = self.working_handle(holder)?;
        handle.check_use(holder.handle, permission)?;
        Ok(handle)
    }

    /// Why there is no such node: no directory that it could be in, or just no node.
    pub(crate) fn missing(&self, path: &NodePath) -> Refusal {
        match self.parent_of_new(path) {
            Ok(_) => refusal::not_found(path),
            Err(refusal) => refusal,
        }
    }

    /// The directory of a node that does not exist.
    fn parent_of_new(&self, path: &NodePath) -> Result<(NodePath, &Node), Refusal> {
        let parent = path.parent().expect("the root exists");
        match self.tree.get(&parent) {
            Some(node) if node.kind == Kind::Directory => Ok((parent, node)),
            Some(_) => Err(refusal::no_parent(path, &parent, true)),
            None => Err(refusal::no_parent(path, &parent, false)),
        }
    }
}

/// Checks what needs no look at the state.
fn check_open(open: &Open) -> Result<Wish, Refusal> {
    let creation = Creation::try_from(open.creation)
        .map_err(|_| refusal::invalid(format!("creation {} is not one of 0, 1 and 2", open.creation)))?;
    let kind = wished_kind(open.kind)?;
    let delay_ms = open.lock_delay_ms;
    if delay_ms > LOCK_DELAY_MS_MAX {
        return Err(refusal::invalid(format!(
            "a lock-delay has 0 to {LOCK_DELAY_MS_MAX} ms, not {delay_ms}"
        )));
    }
    if kind == Some(Kind::Directory) && !open.contents.is_empty() {
        return Err(refusal::invalid("a directory has no contents: create a file, or leave them out"));
    }
    let (uses, events) = (wished_uses(open.uses), EventSet::from_wire(&open.events)?);
    if let Some(kind) = events.of_readers().filter(|_| !uses.read) {
        let name = kind.as_str_name();
        let message = format!("{name} is told to those who open a node to read it: open it for that, too");
        return Err(refusal::new(RefusalCode::WrongUse, message));
    }
    Ok(Wish { creation, kind, uses, events })
}

/// What whoever may open a node is told of it, even if it may not read.
fn public(stat: Stat) -> Stat {
    let Stat { kind, ephemeral, instance, lock_generation, .. } = stat;
    Stat { kind, ephemeral, instance, lock_generation, ..Stat::default() }
}

/// What a handle is to be used for; if nothing is said, reading and writing.
fn wished_uses(uses: Option<Uses>) -> Uses {
    let nothing = Uses::default();
    uses.filter(|uses| *uses != nothing).unwrap_or(Uses { read: true, write: true, change_acl: false })
}

/// What kind of node a client asks for, if it says so.
pub(crate) fn wished_kind(kind: i32) -> Result<Option<Kind>, Refusal> {
    match NodeKind::try_from(kind) {
        Ok(NodeKind::Unspecified) => Ok(None),
        Ok(NodeKind::File) => Ok(Some(Kind::File)),
        Ok(NodeKind::Directory) => Ok(Some(Kind::Directory)),
        Err(_) => Err(refusal::invalid(format!("node kind {kind} is not one of 0, 1 and 2"))),
    }
}
