//! What applying a command means for the world outside the state.
//!
//! The state appends effects and never reads one. The master acts on them; a follower drops them. They say
//! nothing that the state does not hold too, so that a new master can rebuild what it needs from the state.

use holdfast_proto::client::v1::{EndReason, LockGrant, Outcome, Refusal};
use holdfast_types::{NodePath, RequestNumber, Revision, SessionId};

use crate::News;

/// Something for the master to act on, in the order in which it came about.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A session's request was decided, now or at its first try.
    Replied {
        /// The session.
        session: SessionId,
        /// The request.
        number: RequestNumber,
        /// What came of it.
        outcome: Outcome,
        /// The node that became an orphan by it, as an effect before this one says too: its name and its instance.
        orphaned: Option<(NodePath, Revision)>,
        /// The command's tag.
        tag: u64,
    },
    /// A command that belongs to no session was decided: a write, a deletion or a change of access control names by
    /// name, a change of settings. The outcome of a successful change of settings has no result: the state has the settings.
    Decided {
        /// The command's tag.
        tag: u64,
        /// What came of it.
        outcome: Outcome,
    },
    /// A session is open.
    SessionOpened {
        /// The command's tag.
        tag: u64,
        /// The session.
        session: SessionId,
        /// An earlier command with the same secret opened it.
        repeated: bool,
    },
    /// A session was not opened.
    OpenRefused {
        /// The command's tag.
        tag: u64,
        /// Why.
        refusal: Refusal,
    },
    /// A session is over, and its handles are closed.
    SessionEnded {
        /// The session.
        session: SessionId,
        /// Why.
        reason: EndReason,
        /// So many handles were closed.
        handles: usize,
    },
    /// A session was to end because it was idle, and it has a handle: it goes on.
    SessionKept {
        /// The session.
        session: SessionId,
    },
    /// A node changed that handles watch, or somebody wants the lock that they hold. One for each change: a node can have
    /// very many watchers, and who tells them walks their list when it has time for it.
    Notify {
        /// The tag of the command that changed it.
        tag: u64,
        /// What happened, and whom to tell.
        news: Box<News>,
    },
    /// An Acquire that waited was granted.
    LockGranted {
        /// The session that has the lock now.
        session: SessionId,
        /// The grant.
        grant: LockGrant,
    },
    /// A lock was lost and is kept back from now on.
    DelayStarted(LockDelay),
    /// A lock-delay is over.
    DelayEnded {
        /// The node.
        path: NodePath,
        /// The loss that had begun it.
        loss: Revision,
    },
    /// An ephemeral node is kept by nothing any more: no handle, no child, no lock-delay. It goes when the master
    /// has it reaped.
    Orphaned {
        /// The node.
        path: NodePath,
        /// Its instance.
        instance: Revision,
    },
    /// A command to reap a node was applied, void or not.
    Reaped {
        /// The command's tag.
        tag: u64,
    },
}

/// A lock-delay that runs (P§2.4): until the master ends it, the lock is granted to nobody in a mode that
/// conflicts with the one that was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockDelay {
    /// The node.
    pub path: NodePath,
    /// The revision of the loss. With the path, it names the delay.
    pub loss: Revision,
    /// The delay's full length.
    pub delay_ms: u32,
}

impl Effect {
    /// About how much of a replica's time went into bringing it about: 1 for a small request.
    #[must_use]
    pub fn weight(&self) -> u64 {
        match self {
            Self::SessionEnded { handles, .. } => 1 + *handles as u64,
            _ => 1,
        }
    }
}
