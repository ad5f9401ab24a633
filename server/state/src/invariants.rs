//! What is true of every state between two commands, executable.
//!
//! Used by tests and the simulator after every step that matters, and on every snapshot that is read. It reads
//! the whole state, so the apply path asserts only what it has at hand.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::client::v1::Uses;
use holdfast_types::{LEASE_MS, Revision, SessionId};

use crate::apply::{CLIENT_BYTES_MAX, SECRET_BYTES};
use crate::exactly_once::Recorded;
use crate::lock::Holder;
use crate::node::{Kind, Node};
use crate::opening::LOCK_DELAY_MS_MAX;
use crate::session::{Handle, Session};
use crate::tree::NodeKey;
use crate::usage::Usage;
use crate::{State, acl, settings};

/// Fails the check that is being made, with a sentence.
macro_rules! hold {
    ($condition:expr, $($sentence:tt)+) => {
        if !$condition {
            return Err(format!($($sentence)+));
        }
    };
}

/// What handles say of nodes and locks, to be compared with what those say themselves.
#[derive(Default)]
struct Claims {
    /// Open handles by instance.
    open: BTreeMap<Revision, u64>,
    /// Those with events, by instance.
    watching: BTreeMap<Revision, u64>,
    /// Those that are caching, by instance.
    caching: BTreeMap<Revision, u64>,
    holding: u64,
    waiting: u64,
}

impl State {
    /// Checks all invariants of the state.
    ///
    /// # Panics
    ///
    /// If one does not hold, with a sentence that says which and where.
    pub fn check_invariants(&self) {
        if let Err(violation) = self.verify() {
            panic!("an invariant of the state does not hold: {violation}");
        }
    }

    /// Checks all invariants; the error is a sentence.
    pub(crate) fn verify(&self) -> Result<(), String> {
        hold!(
            settings::complete_at(self.version, self.settings.clone()).as_ref() == Ok(&self.settings),
            "the settings are out of their ranges"
        );
        let (granted, promised) = (self.settings.lease_ms_max, self.lease_promised_ms);
        hold!(granted <= promised, "leases of {granted} ms may be granted, and {promised} ms are promised");
        hold!(LEASE_MS.contains(&promised), "leases of {promised} ms are promised");
        for id in self.members.keys() {
            hold!(!self.removed.contains(id), "replica {id} is a member and removed");
        }
        let mut claims = Claims::default();
        for (id, session) in self.sessions.iter_after(None) {
            self.verify_session(id, session, &mut claims).map_err(|why| format!("session {id}: {why}"))?;
        }
        let caching =
            self.sessions.iter_after(None).filter(|(_, session)| session.caches()).map(|(id, _)| id);
        hold!(caching.eq(self.sessions.caching()), "the index of caching sessions is wrong");
        self.verify_lists()?;
        hold!(Usage::of(self) == self.usage, "the counts of what is in use are wrong");
        self.verify_tree(&claims)
    }

    fn verify_session(&self, id: SessionId, session: &Session, claims: &mut Claims) -> Result<(), String> {
        hold!(id.0 <= self.revision.0, "its id is of the future");
        hold!(SECRET_BYTES.contains(&session.secret().len()), "its secret has a length that it cannot have");
        hold!(LEASE_MS.contains(&session.lease_ms()), "its lease is {} ms", session.lease_ms());
        hold!(session.client().len() <= CLIENT_BYTES_MAX, "its client's name is too long");
        hold!(self.sessions.by_secret(session.secret()) == Some(id), "its secret does not lead to it");
        hold!(session.window.bytes_are_right(), "the bytes of its outcomes are counted wrong");
        hold!(session.caching_is_right(), "its count of caching handles is wrong");
        for (number, outcome) in session.window.outcomes() {
            let same = matches!(session.recorded(number), Recorded::Outcome(kept) if kept == outcome);
            hold!(same, "request {number} is acknowledged and its outcome is kept");
            hold!(outcome.revision <= self.revision.0, "request {number} was decided in the future");
        }
        for (handle_id, handle) in session.handles() {
            let holder = Holder { session: id, handle: handle_id };
            self.verify_handle(holder, handle, claims).map_err(|why| format!("handle {handle_id}: {why}"))?;
        }
        Ok(())
    }

    /// A handle's claim is what its node's lock says.
    fn verify_handle(&self, holder: Holder, handle: &Handle, claims: &mut Claims) -> Result<(), String> {
        hold!(handle.lock_delay_ms <= LOCK_DELAY_MS_MAX, "its lock-delay is {} ms", handle.lock_delay_ms);
        hold!(handle.uses != Uses::default(), "it can be used for nothing");
        let path = handle.key.path();
        let Some(node) = self.tree.live(&handle.key, handle.instance) else {
            hold!(handle.claim.is_none(), "it has a claim on the lock of {path}, which is gone");
            let newer = self.tree.get(path).is_none_or(|node| node.instance > handle.instance);
            hold!(newer, "it is of an instance of {path} that is yet to come");
            return Ok(());
        };
        *claims.open.entry(handle.instance).or_default() += 1;
        if !handle.events.is_empty() {
            *claims.watching.entry(handle.instance).or_default() += 1;
            hold!(
                node.watchers.contains(holder, handle.events),
                "{path} does not know that it is watched by it"
            );
        }
        if handle.caching {
            *claims.caching.entry(handle.instance).or_default() += 1;
            hold!(node.cachers.contains(&holder), "{path} does not know that it is cached through it");
        }
        match handle.claim.map(|claim| claim.ticket) {
            None => {}
            Some(None) => {
                claims.holding += 1;
                hold!(node.lock.holds(holder), "it believes to hold the lock of {path}");
            }
            Some(Some(ticket)) => {
                claims.waiting += 1;
                let waits = node.lock.waiter(ticket).is_some_and(|waiter| waiter.holder == holder);
                hold!(waits, "it believes to wait for the lock of {path} with ticket {ticket}");
            }
        }
        Ok(())
    }

    fn verify_tree(&self, claims: &Claims) -> Result<(), String> {
        let (mut holding, mut waiting, mut orphans, mut delayed) = (0, 0, 0, 0);
        let mut children: BTreeMap<&NodeKey, u64> = BTreeMap::new();
        let mut instances = BTreeSet::new();
        for (key, node) in self.tree.iter_after(None) {
            let path = key.path();
            hold!(
                node.list == acl::parsed(path, &node.contents),
                "node {path}: what it says as a list is not what it has"
            );
            self.verify_node(node).map_err(|why| format!("node {path}: {why}"))?;
            hold!(instances.insert(node.instance), "node {path}: its instance is that of another");
            hold!(!path.is_root() || (node.kind == Kind::Directory && !node.ephemeral), "the root is a file");
            if let Some(parent) = key.parent() {
                let found = self.tree.entry(&parent).filter(|(_, parent)| parent.kind == Kind::Directory);
                let (parent, _) = found.ok_or_else(|| format!("node {path}: its parent is no directory"))?;
                *children.entry(parent).or_default() += 1;
            }
            let open = claims.open.get(&node.instance).copied().unwrap_or(0);
            hold!(node.open_handles == open, "node {path}: {} handles, counted {open}", node.open_handles);
            let counted = |of: &BTreeMap<Revision, u64>| of.get(&node.instance).copied().unwrap_or(0);
            let (watching, caching) = (counted(&claims.watching), counted(&claims.caching));
            hold!(
                node.watchers.len() as u64 == watching,
                "node {path}: it is not watched by {watching} handles"
            );
            hold!(
                node.cachers.len() as u64 == caching,
                "node {path}: it is not cached through {caching} handles"
            );
            holding += node.lock.holder_count();
            waiting += node.lock.waiter_count();
            orphans += usize::from(node.is_orphan());
            delayed += usize::from(node.lock.delay_count() > 0);
        }
        for (key, node) in self.tree.iter_after(None) {
            let counted = children.get(key).copied().unwrap_or(0);
            hold!(
                node.children == counted,
                "node {}: {} children, counted {counted}",
                key.path(),
                node.children
            );
        }
        hold!(self.tree.get(&holdfast_types::NodePath::root()).is_some(), "there is no root");
        // Each claim was found in a lock, and there are as many: so each holder and waiter has its claim.
        hold!(holding == claims.holding, "{holding} holders, and {} handles that hold", claims.holding);
        hold!(waiting == claims.waiting, "{waiting} waiters, and {} handles that wait", claims.waiting);
        let (indexed_orphans, indexed_delayed) = (self.tree.orphans().count(), self.tree.delayed().count());
        let right = self.tree.orphans().all(|(path, instance)| {
            self.tree.get(path).is_some_and(|node| node.instance == instance && node.is_orphan())
        });
        hold!(right && indexed_orphans == orphans, "the index of orphans is wrong");
        let right = self.tree.delayed().all(|(_, node)| node.lock.delay_count() > 0);
        hold!(right && indexed_delayed == delayed, "the index of delayed locks is wrong");
        Ok(())
    }

    /// What can be said of a node alone.
    fn verify_node(&self, node: &Node) -> Result<(), String> {
        for name in [&node.acl.read, &node.acl.write, &node.acl.change] {
            hold!(!name.is_empty() && !name.contains('/'), "it has the access control name {name:?}");
        }
        hold!(node.owner.is_none() || self.version >= 2, "it has an owner, and its state version knows none");
        let lock = &node.lock;
        let generations = [
            node.instance,
            node.content_generation,
            node.acl_generation,
            node.children_generation,
            lock.generation(),
        ];
        hold!(
            generations.iter().all(|generation| *generation <= self.revision),
            "a generation is of the future"
        );
        let earliest = |generation: Revision| generation == Revision(0) || generation >= node.instance;
        hold!(generations.into_iter().all(earliest), "a generation is older than the instance");
        match node.kind {
            Kind::File => {
                hold!(node.children == 0 && node.children_generation.0 == 0, "a file has children");
                let checksum = xxhash_rust::xxh3::xxh3_64(&node.contents);
                hold!(node.checksum == checksum, "the contents have another checksum: they are damaged");
            }
            Kind::Directory => {
                let bare = node.contents.is_empty() && node.checksum == 0 && node.content_generation.0 == 0;
                hold!(bare, "a directory has contents");
            }
        }
        hold!(lock.mode().is_none() || lock.generation().0 > 0, "its lock is held, and never was granted");
        hold!(lock.waiters().all(|(ticket, _)| ticket <= self.revision), "a ticket is of the future");
        let possible = |delay_ms| (1..=LOCK_DELAY_MS_MAX).contains(&delay_ms);
        let possible = lock.delays().all(|(loss, delay)| loss <= self.revision && possible(delay.delay_ms));
        hold!(possible, "a lock-delay has a loss or a length that it cannot have");
        hold!(lock.counts_are_right(), "the lock's counts are wrong");
        hold!(!lock.owes_grant(), "its lock could be granted to the first waiter, and is not");
        Ok(())
    }
}
