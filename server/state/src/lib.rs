//! The replicated state machine of a cell: its tree, its locks, its sessions.
//!
//! *The master decides, the state records, the replica orders, the daemon performs.* Commands that a master
//! decided on come out of the replicated log and are applied here, one after the other, on every replica. A
//! command gives an outcome, which goes to a client, and effects, which the master acts on and followers drop.
//!
//! ```text
//! raft entry -> apply_batch -> apply (dispatch) -> opening | requests | locking | by_name -> tree, session, lock
//!                                                     |          (acl says who may)           |
//!                                                     +---> events ---> Vec<Effect> <---------+
//! ```
//!
//! Beside it, without changing anything: `reads`, `lists`, and what a master asks about caches (`cache`).
//!
//! What to know before reading on:
//!
//! - **One counter.** Every command that changes something takes the next [`Revision`]; refusals and void
//!   commands take none. All generations of a node are revisions, a session's id is the revision of its opening,
//!   and a waiter's place in a queue is the revision at which it came.
//! - **Apply is total.** Whatever a client sent is refused or done, never a panic. A refusal is an outcome and is
//!   recorded like any other. What this program cannot understand at all is a [`Fault`], which stops the replica:
//!   going on would let it drift away from the others.
//! - **Cloning costs nothing.** All maps are persistent. A snapshot is a clone that another thread writes out.
//! - There is no time here, no chance, and no configuration: limits are replicated [`settings`]. Two replicas
//!   that applied the same log hold states with the same [`State::hash`] (I9).
//!
//! Invariants that hold between commands are written down, executable, in [`State::check_invariants`].

#![forbid(unsafe_code)]

mod acknowledgements;
mod acl;
mod apply;
mod by_name;
mod cache;
mod effect;
mod events;
mod exactly_once;
mod invariants;
mod lists;
mod lock;
mod lock_out;
mod locking;
mod node;
mod opening;
mod reads;
pub mod refusal;
mod requests;
mod sequencer;
mod session;
pub mod settings;
mod snapshot;
mod tree;
mod usage;
mod watchers;

use holdfast_proto::client::v1::Refusal;
use holdfast_proto::log::v1::Member;
use holdfast_types::{NodePath, ReplicaId, Revision, SessionId, characters};
use imbl::{OrdMap, OrdSet};

pub use acknowledgements::Acknowledgements;
pub use apply::Fault;
pub use cache::{Opens, Touched, TouchedNodes};
pub use effect::{Effect, LockDelay};
pub use events::{EventSet, News};
pub use exactly_once::Recorded;
pub use holdfast_proto::client::v1::Settings;
pub use session::Session;
pub use snapshot::{SnapshotError, SnapshotReader, SnapshotWriter};
pub use watchers::{Listener, Listeners, Place};

use node::Node;
use session::Sessions;
use tree::{NodeKey, Tree};
use usage::Usage;

/// The greatest state version that this program can apply. A cell's state goes from one version to the next by a
/// command, when all its replicas can follow.
pub const VERSION_MAX: u32 = 2;

/// What a cell begins with. The same on all founding replicas.
#[derive(Clone, Debug)]
pub struct Genesis {
    /// The cell's name.
    pub cell: String,
    /// Of this very cell, and of no other of the same name.
    pub cell_id: u64,
    /// The founding replicas.
    pub members: Vec<Member>,
    /// The limits, complete: see [`settings::complete`].
    pub settings: Settings,
}

/// The state of a cell, as of one point in its log. Cloning it costs nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    cell: std::sync::Arc<str>,
    cell_id: u64,
    /// Gates changes of apply's behaviour; never above [`VERSION_MAX`].
    version: u32,
    /// The revision of the last command that changed anything.
    revision: Revision,
    settings: Settings,
    /// No lease that a master lengthened is longer. Never less than the setting `lease_ms_max`.
    lease_promised_ms: u32,
    members: OrdMap<u64, Member>,
    /// The ids of members that were removed. An id is never used again.
    removed: OrdSet<u64>,
    tree: Tree,
    sessions: Sessions,
    /// What the tree and the sessions come to.
    usage: Usage,
}

impl State {
    /// The state of a new cell: a root, the directory `/acl` without any list, no sessions, revision 2. It begins at
    /// [`VERSION_MAX`].
    ///
    /// # Panics
    ///
    /// If the cell's name is not well-formed ([`holdfast_types::check_cell_name`]), or the settings are not
    /// complete and within their ranges ([`settings::complete`] gives such ones).
    #[must_use]
    pub fn genesis(genesis: Genesis) -> Self {
        Self::genesis_at(VERSION_MAX, genesis)
    }

    /// What [`State::genesis`] gave, and gives, a cell that was founded at the state version `version`: a replica that
    /// has no snapshot begins there, and applies its whole log.
    ///
    /// # Panics
    ///
    /// As [`State::genesis`], and if there is no such version.
    #[must_use]
    pub fn genesis_at(version: u32, genesis: Genesis) -> Self {
        assert!((1..=VERSION_MAX).contains(&version), "there is no state version {version}");
        assert_eq!(holdfast_types::check_cell_name(&genesis.cell), Ok(()));
        let complete = settings::complete_at(version, genesis.settings.clone());
        assert_eq!(complete.as_ref(), Ok(&genesis.settings), "settings are complete");
        let (first, second) = (Revision(1), Revision(2));
        let mut tree = Tree::new(Node::directory(first, false, acl::of_root()));
        let lists = NodePath::root().child("acl");
        tree.insert(NodeKey::new(lists), Node::directory(second, false, acl::of_directory()));
        let mut state = Self {
            cell: genesis.cell.into(),
            cell_id: genesis.cell_id,
            version,
            revision: second,
            lease_promised_ms: genesis.settings.lease_ms_max,
            settings: genesis.settings,
            members: genesis.members.into_iter().map(|member| (member.id, member)).collect(),
            removed: OrdSet::new(),
            tree,
            sessions: Sessions::default(),
            usage: Usage::default(),
        };
        state.usage = Usage::of(&state);
        state
    }

    /// The cell's name.
    #[must_use]
    pub fn cell(&self) -> &str {
        &self.cell
    }

    /// Of this very cell, and of no other of the same name.
    #[must_use]
    pub fn cell_id(&self) -> u64 {
        self.cell_id
    }

    /// The revision of the last command that changed anything.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The limits.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The longest lease, in milliseconds, that any master may have granted beyond a session's own length and that may
    /// still be out. It rises with the setting `lease_ms_max`, and falls by a command of its own.
    #[must_use]
    pub fn lease_promised_ms(&self) -> u32 {
        self.lease_promised_ms
    }

    /// The version of apply's behaviour.
    #[must_use]
    pub fn version(&self) -> u32 {
        self.version
    }

    /// How many nodes there are, the root included.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.tree.len()
    }

    /// A session.
    #[must_use]
    pub fn session(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(id)
    }

    /// All sessions, by id.
    pub fn sessions(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter_after(None)
    }

    /// The sessions with greater ids than `after`, by id.
    pub fn sessions_after(&self, after: SessionId) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter_after(Some(after))
    }

    /// How many sessions there are.
    #[must_use]
    pub fn session_count(&self) -> usize {
        self.sessions.len()
    }

    /// The session that was opened under a secret.
    #[must_use]
    pub fn session_by_secret(&self, secret: &[u8]) -> Option<SessionId> {
        self.sessions.by_secret(secret)
    }

    /// The replicas, by id.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    /// A replica.
    #[must_use]
    pub fn member(&self, id: ReplicaId) -> Option<&Member> {
        self.members.get(&id.0)
    }

    /// Whether a replica of that id was removed. Its id is never used again.
    #[must_use]
    pub fn is_removed(&self, id: ReplicaId) -> bool {
        self.removed.contains(&id.0)
    }

    /// The replicas that were removed, by id.
    pub fn removed_members(&self) -> impl Iterator<Item = ReplicaId> + '_ {
        self.removed.iter().copied().map(ReplicaId)
    }

    /// Adds a replica or changes what is known of it, when a raft configuration change is applied. The replica
    /// layer has refused ids that were removed.
    pub fn put_member(&mut self, member: Member) {
        self.removed.remove(&member.id);
        self.members.insert(member.id, member);
    }

    /// Removes a replica, when a raft configuration change is applied.
    pub fn remove_member(&mut self, id: ReplicaId) {
        if self.members.remove(&id.0).is_some() {
            self.removed.insert(id.0);
        }
    }

    /// Reads a name as clients write it. One that is longer than the cell's limits is taken if there is a node of
    /// that name: the limits were lowered since it was created, and that takes nothing away.
    ///
    /// # Errors
    ///
    /// A refusal that says what is wrong with the name.
    pub fn parse_path(&self, text: &str) -> Result<NodePath, Refusal> {
        let limits = settings::name_limits(&self.settings);
        NodePath::parse(text, &self.cell, limits).or_else(|error| match self.parse_path_of_old(text) {
            Ok(path) if self.tree.get(&path).is_some() => Ok(path),
            _ => Err(self
                .check_characters("a path", text)
                .err()
                .unwrap_or_else(|| refusal::path(self.version, &error))),
        })
    }

    /// Refuses a text that is to become a name and has a character that names may not have. Names that were made
    /// before state version 2 stay.
    pub(crate) fn check_characters(&self, what: &str, text: &str) -> Result<(), Refusal> {
        match characters::first_unprintable(text).filter(|_| self.version >= 2) {
            Some(codepoint) => Err(refusal::unprintable(what, codepoint)),
            None => Ok(()),
        }
    }

    /// Reads a name that a node may have had under any settings.
    pub(crate) fn parse_path_of_old(&self, text: &str) -> Result<NodePath, Refusal> {
        NodePath::parse(text, &self.cell, settings::NAME_LIMITS_MAX)
            .map_err(|error| refusal::path(self.version, &error))
    }

    /// The ephemeral nodes that nothing keeps any more, with their instances; for a new master.
    pub fn orphans(&self) -> impl Iterator<Item = (NodePath, Revision)> {
        self.tree.orphans().map(|(path, instance)| (path.clone(), instance))
    }

    /// The lock-delays that run; for a new master, which starts each again at full length (design.md §5).
    pub fn delays(&self) -> impl Iterator<Item = LockDelay> {
        self.tree.delayed().flat_map(|(path, node)| {
            node.lock.delays().map(|(loss, delay)| LockDelay {
                path: path.clone(),
                loss,
                delay_ms: delay.delay_ms,
            })
        })
    }

    /// A hash of everything. Two replicas that applied the same log have the same (I9). It reads the whole state.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        for chunk in self.snapshot_records() {
            hasher.update(&chunk);
        }
        hasher.digest()
    }

    /// The state as a snapshot: chunks of about 64 KiB that together are length-delimited `SnapshotRecord`s. The
    /// iterator has a clone of the state and can go to another thread.
    #[must_use]
    pub fn snapshot_records(&self) -> SnapshotWriter {
        SnapshotWriter::new(self.clone())
    }

    /// The next revision, taken by a command that is about to change something.
    fn advance(&mut self) -> Revision {
        self.revision = self.revision.next();
        self.revision
    }
}
