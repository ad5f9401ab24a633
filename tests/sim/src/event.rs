//! What can happen in the world: one closed enum, which the queue holds and the world's loop takes apart.

use bytes::Bytes;
use holdfast_proto::client::v1::Refusal;
use holdfast_replica::{CallAnswer, CallId, StateAt};
use holdfast_types::ConnectionId;

use crate::clock::TrueTime;
use crate::fault::Ending;
use crate::network::Process;
use crate::sockets::Line;
use crate::spare::Leg;
use crate::streams::{Direction, Life};

/// Something that happens at a moment.
#[derive(Debug)]
pub enum Event {
    /// A process gets to run: something came for it, or its time has come.
    Run(Process, u64),
    /// Messages between replicas arrive.
    Peer {
        /// From this replica.
        from: usize,
        /// At this one.
        to: Life,
        /// By the connection for what is urgent.
        urgent: bool,
        /// The messages.
        messages: Vec<Bytes>,
    },
    /// A replica learns that its connection with another was reset.
    PeerReset {
        /// Who learns it.
        at: Life,
        /// The other.
        peer: usize,
    },
    /// A snapshot arrives at a replica, or does not.
    Snapshot {
        /// From this replica.
        from: Life,
        /// At this one.
        to: Life,
        /// The message that it belongs to.
        message: Bytes,
        /// The snapshot.
        state: Box<StateAt>,
    },
    /// A replica learns that a snapshot has arrived at another, or has not.
    SnapshotSent {
        /// Who learns it.
        at: Life,
        /// The other.
        to: usize,
        /// Where the snapshot stands.
        index: u64,
        /// It has arrived.
        ok: bool,
    },
    /// A replica's disk has written what it was writing.
    Written(Life),
    /// A replica's disk has completed the snapshot file at an index.
    SnapshotWritten(Life, u64),
    /// A stream is to be established.
    Establish(ConnectionId),
    /// A stream could not be established in time.
    GaveUp(ConnectionId),
    /// Something may have arrived on a stream.
    Arrival(ConnectionId, Direction),
    /// A process that was stopped reads what waits in one of its sockets.
    Read(Process, Line),
    /// A process that was busy goes on.
    GoesOn(Process),
    /// A KeepAlive goes past its stream.
    Spare(ConnectionId, Leg),
    /// An application looks into its cache.
    Peek(Life),
    /// An order of an application's arrives at the resource outside the cell.
    Order {
        /// Who gave it.
        from: Life,
        /// The generation that it carries.
        generation: u64,
    },
    /// A client's process dies of itself.
    Die(Life),
    /// A call by name may reach its replica.
    NamedArrives(CallId),
    /// The answer to a call by name reaches the caller, with the master's address.
    NamedTold(CallId, Box<(Result<CallAnswer, Refusal>, String)>),
    /// A call by name has not been answered in time.
    NamedGivesUp(CallId),
    /// Whoever made a call by name is going to give it up: its replica withdraws it.
    NamedWithdraws(CallId),
    /// A replica without data asks the others who they are.
    Greet(Life),
    /// The operator looks how far the membership's change is.
    Operate,
    /// Time for another fault.
    Fault,
    /// A replica that was stopped is cut off as well.
    CutOff {
        /// Which.
        replica: usize,
        /// Who reaches only it.
        clients: Vec<usize>,
        /// When that ends.
        until: TrueTime,
    },
    /// A fault ends.
    FaultEnds(Ending),
    /// The faults stop, and the world is mended.
    Heal,
    /// Clients begin nothing new.
    Drain,
    /// Look whether all has ended.
    Look,
}
