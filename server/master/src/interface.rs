//! What goes into a [`Master`](crate::Master) and what comes out: one closed enum each way.

use holdfast_proto::client::v1 as client;
use holdfast_proto::log::v1::Command;
use holdfast_state::Effect;
use holdfast_types::ledger::Charge;
use holdfast_types::{ConnectionId, Principal, SocketId, Time};

use crate::lists::List;
use crate::unary::{CallAnswer, CallId, CallRequest};

/// One leadership round: the question "am I still master?", put to a quorum. Rises within a term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RoundId(pub u64);

/// What can happen to a master.
#[derive(Debug)]
pub enum Input {
    /// A frame of a client's stream. The first of a connection carries a hello.
    Frame {
        /// The stream.
        connection: ConnectionId,
        /// Who the client has proved to be, the same for all frames of a stream.
        principal: Principal,
        /// The frame.
        frame: client::ClientFrame,
        /// What it counts for in the ledger of bytes: [`frame_bytes`](crate::frame_bytes).
        charge: Charge,
    },
    /// A stream is gone. The session is not.
    Disconnected {
        /// The stream.
        connection: ConnectionId,
    },
    /// A unary call.
    Call {
        /// Finds the caller again.
        call: CallId,
        /// Who the caller has proved to be.
        principal: Principal,
        /// The connection that it came by: where everybody is `anonymous`, shares go by that.
        socket: SocketId,
        /// What is asked. Membership changes never come here: the replica sees to them.
        request: CallRequest,
    },
    /// The caller of this call waits no longer: if the call is held, or waits for its turn, the master refuses it.
    Withdraw(CallId),
    /// The replica was started with this principal as the cell's bootstrap principal, whatever the log says: the way back
    /// for operators who are locked out.
    OverrideBootstrap(Principal),
    /// A command was applied, and this is an effect of it. The state has it already.
    Applied(Effect),
    /// A quorum has confirmed that this was the master after the round was asked for, and the state has applied
    /// all that was committed then. All earlier rounds are confirmed with it.
    Confirmed(RoundId),
    /// Frames that came at `since` or later may wait for the driver to hand them in, and a KeepAlive may be in one of
    /// them: no session's end is decided in this turn for a lease that ran out later than that.
    Unheard {
        /// When the oldest of them may have come.
        since: Time,
    },
    /// Time has passed; nothing else has happened.
    TimePassed,
    /// A turn begins: its budget of work is whole.
    TurnBegins,
    /// What has happened so far in this turn is handed in: what is queued is to be worked off, as far as the turn's
    /// budget goes. May come several times in a turn.
    Work {
        /// So many bytes of proposed commands are not applied yet.
        log_bytes: u64,
    },
}

/// What a master wants done.
#[derive(Debug)]
pub enum Output {
    /// Put this command into the log.
    Propose(Command),
    /// Confirm the leadership by a quorum round that begins after this.
    Confirm(RoundId),
    /// Send a frame to a client.
    Frame {
        /// The stream.
        connection: ConnectionId,
        /// The frame.
        frame: client::ServerFrame,
    },
    /// End a stream, after the frames before.
    Disconnect {
        /// The stream.
        connection: ConnectionId,
    },
    /// Answer a unary call with a page of a list, which is to be made away from the core.
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
    },
}
