//! What goes into a [`Replica`](crate::Replica) and what comes out: one closed enum each way, and what is handed
//! over at the start.

use bytes::Bytes;
use holdfast_master::{CallAnswer, CallId, CallRequest, List};
use holdfast_proto::client::v1 as client;
use holdfast_proto::log::v1::Member;
use holdfast_state::State;
use holdfast_types::ledger::Charge;
use holdfast_types::{ConnectionId, Principal, ReplicaId, SocketId, Term, Time};

use crate::raftpb;

/// How a replica is set up. Nothing here may change what apply does: that is the cell's settings' part.
#[derive(Clone, Debug)]
pub struct Config {
    /// The replica's raft id.
    pub id: ReplicaId,
    /// Where all chance comes from.
    pub seed: u64,
    /// Differs at every start of the replica, so that a leadership round's context is never used again.
    pub boot: u64,
    /// The length of a raft tick in milliseconds. Default 50.
    pub tick_ms: u64,
    /// A leader sends heartbeats every so many ticks. Default 2.
    pub heartbeat_ticks: usize,
    /// A follower that heard nothing for this many ticks, or up to twice as many, campaigns. Default 20.
    pub election_ticks: usize,
    /// A snapshot is written after so many bytes of log. Default 64 MiB.
    pub snapshot_every_bytes: u64,
    /// So many bytes of log are kept behind the last snapshot for followers that are a little late. Default
    /// 32 MiB.
    pub log_tail_bytes: u64,
    /// An operator who is locked out wants this to be the cell's bootstrap principal. The replica has the log say so if it
    /// becomes master within [`OVERRIDE_FOR`](crate::OVERRIDE_FOR) of its start, once.
    pub override_bootstrap_principal: Option<Principal>,
    /// As a master, the replica takes the cell no further than to this state version. Default: as far as it can apply
    /// any, [`VERSION_MAX`](holdfast_state::VERSION_MAX).
    pub state_version_max: u32,
    /// The master's part.
    pub master: holdfast_master::Config,
}

impl Config {
    /// The defaults, for the replica `id`.
    #[must_use]
    pub fn new(id: ReplicaId, seed: u64, boot: u64) -> Self {
        Self {
            id,
            seed,
            boot,
            tick_ms: 50,
            heartbeat_ticks: 2,
            election_ticks: 20,
            snapshot_every_bytes: 64 << 20,
            log_tail_bytes: 32 << 20,
            override_bootstrap_principal: None,
            state_version_max: holdfast_state::VERSION_MAX,
            master: holdfast_master::Config::default(),
        }
    }
}

/// The replica cannot go on: the process must stop, and say this. Nothing is retried (design.md §8).
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Fault {
    what: String,
    is_data_lost: bool,
}

impl Fault {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), is_data_lost: false }
    }

    /// What this replica had acknowledged is not in its log any more.
    pub(crate) fn data_lost(what: impl Into<String>) -> Self {
        Self { what: what.into(), is_data_lost: true }
    }

    /// Whether it is that the replica's data are not what it has acknowledged, as after an older copy was put back: it must
    /// never come back with them.
    #[must_use]
    pub fn is_data_lost(&self) -> bool {
        self.is_data_lost
    }
}

impl From<holdfast_state::Fault> for Fault {
    fn from(fault: holdfast_state::Fault) -> Self {
        Self::new(format!("a committed entry cannot be applied: {fault}"))
    }
}

impl From<raft::Error> for Fault {
    fn from(error: raft::Error) -> Self {
        Self::new(format!("raft: {error}"))
    }
}

/// What the disk has.
#[derive(Debug, Default)]
pub struct Boot {
    /// The last one written.
    pub hard_state: raftpb::HardState,
    /// The newest snapshot; absent only for a replica that has yet to join.
    pub state: Option<StateAt>,
    /// The log behind the snapshot (it may begin before the snapshot's index), without a gap.
    pub entries: Vec<raftpb::Entry>,
}

/// A state, and where in the log it stands. Cloning costs nothing.
#[derive(Clone, Debug)]
pub struct StateAt {
    /// The last entry that the state has applied.
    pub index: u64,
    /// That entry's term.
    pub term: Term,
    /// Who votes.
    pub voters: Vec<u64>,
    /// Who learns.
    pub learners: Vec<u64>,
    /// The state.
    pub state: State,
}

/// What can happen to a replica.
#[derive(Debug)]
pub enum Input {
    /// Time has passed; nothing else has happened.
    TimePassed,
    /// Raft messages from another replica.
    Peer {
        /// The other replica.
        from: ReplicaId,
        /// Its messages, encoded, in order.
        messages: Vec<Bytes>,
    },
    /// The connection from or to another replica was reset: its process may have died.
    PeerReset {
        /// The other replica.
        peer: ReplicaId,
    },
    /// Another replica has connected, and says which state versions it can apply.
    PeerAnnounced {
        /// The other replica.
        peer: ReplicaId,
        /// The greatest one; 0, of a replica that knows of no such thing, counts as 1.
        state_version: u32,
    },
    /// All [`Persist`]s up to this one are durable.
    Persisted {
        /// The number of the last.
        number: u64,
    },
    /// A snapshot came from another replica, whole and checked.
    SnapshotArrived {
        /// Who sent it.
        from: ReplicaId,
        /// The raft message that it came with.
        message: Bytes,
        /// The snapshot.
        state: Box<StateAt>,
    },
    /// A snapshot was sent, or could not be.
    SnapshotSent {
        /// To whom.
        to: ReplicaId,
        /// Where it stands.
        index: u64,
        /// It arrived.
        ok: bool,
    },
    /// A snapshot file is complete and durable.
    SnapshotWritten {
        /// The index it stands at.
        index: u64,
    },
    /// A snapshot file could not be written, for a reason that may pass, and nothing is left of it.
    SnapshotFailed {
        /// The reason, for people.
        why: String,
    },
    /// A frame of a client's stream.
    Frame {
        /// The stream. Never used again once it is gone.
        connection: ConnectionId,
        /// Who the client has proved to be, the same for all frames of a stream.
        principal: Principal,
        /// The frame.
        frame: client::ClientFrame,
        /// What it counts for in the ledger of bytes: [`frame_bytes`](crate::frame_bytes). It goes with the frame, or with
        /// the parts of it that have to wait.
        charge: Charge,
    },
    /// A client's stream is gone.
    Disconnected {
        /// The stream.
        connection: ConnectionId,
    },
    /// A unary call. It is answered once.
    Call {
        /// Finds the caller again. Never used again.
        call: CallId,
        /// Who the caller has proved to be.
        principal: Principal,
        /// The connection that it came by: where everybody is `anonymous`, shares go by that.
        socket: SocketId,
        /// What is asked.
        request: CallRequest,
    },
    /// Whoever made this call waits no longer. Unless it is under way already, it will not be done, and is refused as one
    /// that had no effect.
    Withdraw {
        /// Which.
        call: CallId,
    },
    /// The process is going to stop: hand the leadership over, if it is here.
    HandOver,
    /// Frames that came at `since` or later may wait for a later turn, with KeepAlives in them: in this turn, no
    /// session's end is decided for a lease that ran out later than that. Comes before [`Input::TimePassed`].
    Unheard {
        /// When the oldest of them may have come.
        since: Time,
    },
}

/// What a replica wants done, in this order.
#[derive(Debug)]
pub enum Output {
    /// Write this, and answer with [`Input::Persisted`] once it is durable.
    Persist(Persist),
    /// Send a raft message.
    Peer {
        /// To whom.
        to: ReplicaId,
        /// The message, encoded.
        message: Bytes,
        /// It is small, mastership hangs on it, and it may overtake messages that are not.
        urgent: bool,
    },
    /// Send a snapshot, with the raft message that it belongs to; answer with [`Input::SnapshotSent`].
    SendSnapshot {
        /// To whom.
        to: ReplicaId,
        /// The message, encoded.
        message: Bytes,
        /// The snapshot.
        state: Box<StateAt>,
    },
    /// Write a snapshot file in the background; answer with [`Input::SnapshotWritten`] or [`Input::SnapshotFailed`].
    WriteSnapshot(Box<StateAt>),
    /// Send a frame to a client.
    Frame {
        /// The stream.
        connection: ConnectionId,
        /// The frame.
        frame: client::ServerFrame,
    },
    /// End a client's stream, after the frames before.
    Disconnect {
        /// The stream.
        connection: ConnectionId,
    },
    /// Answer a unary call with a page of a list. Making it may take long, so it is made away from the core.
    List {
        /// The call.
        call: CallId,
        /// What the page is made from.
        list: List,
    },
    /// Answer a unary call.
    Answer {
        /// The call.
        call: CallId,
        /// The answer.
        answer: Result<CallAnswer, client::Refusal>,
        /// With NOT_MASTER: where the master serves clients, if known; else empty.
        master_address: String,
    },
    /// The membership is now this.
    Members(Vec<Member>),
    /// The master is now this one, as far as this replica knows.
    Leadership {
        /// The master.
        master: Option<ReplicaId>,
        /// The term.
        term: Term,
    },
    /// After [`Input::HandOver`]: the process may stop now. Comes at once where nothing had to be handed over,
    /// and after a while where nobody would take it.
    HandedOver,
    /// This replica was removed from the cell: the process must stop.
    Removed,
}

/// What must be made durable, as one unit.
#[derive(Debug)]
pub struct Persist {
    /// Rises with each.
    pub number: u64,
    /// Replaces the whole log, and comes before the rest.
    pub snapshot: Option<Box<StateAt>>,
    /// If it changed.
    pub hard_state: Option<raftpb::HardState>,
    /// To append. Entries at or beyond the first one's index are overwritten.
    pub entries: Vec<raftpb::Entry>,
    /// Whether it must be durable before the answer; otherwise it need only keep its place in the order.
    pub sync: bool,
    /// Entries below this index will not be asked for again.
    pub compact_to: Option<u64>,
}
