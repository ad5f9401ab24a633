//! The loop around the core: waits for inputs or the time-out, reads the clock, lets the replica handle them, and
//! performs what it wants done. The core task owns the [`Replica`]; nobody else touches it.
//!
//! A turn takes what is queued (`inputs`), so that what arrives together is proposed together, and reads the clock
//! after that, so that no input is handled at a time before it came (design.md §4). It never waits for a client or
//! a peer: what they do not take in time is their loss. It does wait for a disk that is far behind.
//!
//! Invariant: outputs are performed in the order in which they were polled, and all of them before the next input
//! is taken. A [`Fault`] stops the process, and so does a panic.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_proto::client::v1::{Refusal, ServerFrame, StatusResponse};
use holdfast_proto::log::v1::Member;
use holdfast_replica::{
    CallAnswer, CallId, CallRequest, Fault, Input, List, Output, Persist, Replica, StateAt,
};
use holdfast_state::State;
use holdfast_types::ledger::{Account, Charge};
use holdfast_types::{ConnectionId, Duration, Principal, SocketId, Time};
use prost::Message;
use slog::{Logger, info, warn};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::front::calls::CallPermit;
use crate::front::leases::Leases;
use crate::inputs::{Inputs, Taken};
use crate::logging::AbortOnPanic;
use crate::outbox::{Outbox, PushError};
use crate::peers::Peers;
use crate::server::Leadership;
use crate::storage::StorageError;
use crate::storage::snapshot_files::SnapshotFiles;
use crate::storage::writer::LogWriter;
use crate::{clock, logging};

/// A turn that begins so late may have inputs that nobody has read off the sockets yet.
const LATE: Duration = Duration::from_millis(100);
/// So often a late turn lets everybody else go first: once to find what is in the sockets, once to decode it, and
/// once for good measure.
const YIELDS_WHEN_LATE: usize = 3;
/// So many pages of lists are made at a time: they take the processor from the core.
const LISTS_MAX: usize = 2;
/// Without anything to wait for, the loop looks again after this.
const IDLE: Duration = Duration::from_secs(3_600);

/// What can reach the core.
pub(crate) enum CoreInput {
    /// For the replica itself.
    Replica(Input),
    /// A client's stream begins.
    Connected {
        /// The stream.
        connection: ConnectionId,
        /// The way to its client.
        line: Line,
    },
    /// A unary call.
    Call(Call),
    /// Somebody wants to know how the replica is.
    Status {
        /// Also with the state that it has.
        with_state: bool,
        /// To whoever asks.
        reply: oneshot::Sender<(StatusResponse, Option<State>)>,
    },
    /// A replica of the cell has begun to send.
    Contact(Member),
}

/// A unary call on its way in.
pub(crate) struct Call {
    /// Finds it again.
    pub(crate) call: CallId,
    /// Who the caller has proved to be.
    pub(crate) principal: Principal,
    /// The connection that it came by.
    pub(crate) socket: SocketId,
    /// What is asked.
    pub(crate) request: CallRequest,
    /// To the caller, who may have left.
    pub(crate) reply: oneshot::Sender<CallReply>,
    /// Counts the call, and its bytes, as unanswered; a call past the front counts nowhere.
    pub(crate) permit: Option<CallPermit>,
}

/// An id that no call in this process has had.
pub(crate) fn next_call() -> CallId {
    static LAST: AtomicU64 = AtomicU64::new(0);
    CallId(1 + LAST.fetch_add(1, Ordering::Relaxed))
}

/// The answer to a unary call.
pub(crate) struct CallReply {
    /// The answer.
    pub(crate) answer: Result<CallAnswer, Refusal>,
    /// With NOT_MASTER: where the master serves clients, if known; else empty.
    pub(crate) master_address: String,
}

/// A call that the replica has not answered.
struct PendingCall {
    reply: oneshot::Sender<CallReply>,
    /// Given back when the answer comes.
    _permit: Option<CallPermit>,
}

/// Why the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// After [`Input::HandOver`]: the leadership is elsewhere, or nobody would take it.
    HandedOver,
    /// The replica was removed from the cell.
    Removed,
}

/// A frame on its way to a client.
pub(crate) struct Outgoing {
    /// The frame.
    pub(crate) frame: ServerFrame,
    /// What it counts for in the ledger of bytes, until it is sent.
    pub(crate) charge: Charge,
}

/// The way to a client.
pub(crate) struct Line {
    /// What is on its way.
    pub(crate) outbox: Arc<Outbox<Outgoing>>,
    /// What is in the outbox counts here: its connection's.
    pub(crate) account: Account,
    /// Told of everything that is said on the stream.
    pub(crate) leases: Leases,
}

impl Line {
    /// Queues a frame. The core cannot wait, so the ledger counts it and refuses nothing: what is beyond the outbox's own share
    /// costs the client its stream.
    pub(crate) fn send(&self, frame: ServerFrame) -> Result<(), PushError> {
        let bytes = frame.encoded_len();
        let charge = self.account.charge_anyway(bytes);
        self.outbox.push(Outgoing { frame, charge }, bytes)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.leases.end();
    }
}

/// The core and what performs its wishes.
pub(crate) struct Driver {
    replica: Replica,
    inputs: Inputs,
    /// For tasks that answer the core.
    core: mpsc::Sender<CoreInput>,
    /// The last durable number. Not among the inputs: the disk must be able to answer while the core waits for it.
    persisted: watch::Receiver<u64>,
    /// The last number that the replica was told.
    told_persisted: u64,
    log: LogWriter,
    snapshots: Arc<SnapshotFiles>,
    peers: Peers,
    /// Who is master, for whoever waits for one.
    masters: watch::Sender<Leadership>,
    connections: HashMap<ConnectionId, Line>,
    calls: HashMap<CallId, PendingCall>,
    /// So many lists are made at a time.
    lists: Arc<Semaphore>,
    logger: Logger,
}

/// What a [`Driver`] is made of.
pub(crate) struct Parts {
    /// The core.
    pub(crate) replica: Replica,
    /// Where inputs arrive.
    pub(crate) inputs: Inputs,
    /// Where the replicas' inputs are sent to.
    pub(crate) core: mpsc::Sender<CoreInput>,
    /// The last durable number.
    pub(crate) persisted: watch::Receiver<u64>,
    /// Makes things durable.
    pub(crate) log: LogWriter,
    /// Where snapshots go.
    pub(crate) snapshots: Arc<SnapshotFiles>,
    /// The other replicas.
    pub(crate) peers: Peers,
    /// Told who is master.
    pub(crate) masters: watch::Sender<Leadership>,
    /// The program's log.
    pub(crate) logger: Logger,
}

impl Driver {
    /// A driver that has done nothing yet.
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { replica, inputs, core, persisted, log, snapshots, peers, masters, logger } = parts;
        Self {
            replica,
            inputs,
            core,
            persisted,
            told_persisted: 0,
            log,
            snapshots,
            peers,
            masters,
            connections: HashMap::new(),
            calls: HashMap::new(),
            lists: Arc::new(Semaphore::new(LISTS_MAX)),
            logger,
        }
    }

    /// Runs until the replica may stop. The caller goes on to [`Driver::close`].
    ///
    /// # Errors
    ///
    /// A fault, after which the process must end.
    pub(crate) async fn run(&mut self) -> Result<Ended, Fault> {
        let _guard = AbortOnPanic(self.logger.clone());
        let mut taken = Taken::default();
        if let Some(ended) = self.perform_outputs()? {
            return Ok(ended);
        }
        loop {
            let (persisted, unheard) = self.take_inputs(&mut taken).await;
            let now = clock::now();
            for input in taken.replicas.drain(..) {
                self.handle(now, input)?;
            }
            if let Some(number) = persisted {
                self.replica.handle(now, Input::Persisted { number })?;
            }
            for input in taken.clients.drain(..) {
                self.handle(now, input)?;
            }
            if let Some(since) = unheard {
                self.replica.handle(now, Input::Unheard { since })?;
            }
            if self.replica.poll_timeout().is_some_and(|timeout| timeout <= now) {
                self.replica.handle(now, Input::TimePassed)?;
            }
            if let Some(ended) = self.perform_outputs()? {
                return Ok(ended);
            }
            self.inputs.turn_took(clock::now().since(now));
        }
    }

    /// Takes leave of the clients: ends every stream, after what was sent to it, and tells whoever waits for the
    /// answer to a call that none will come. They would hold up the front's end otherwise.
    pub(crate) fn dismiss_clients(&mut self) {
        for input in self.inputs.close() {
            // A call that is dropped is answered by the front.
            if let CoreInput::Connected { line, .. } = input {
                line.outbox.finish();
            }
        }
        self.calls.clear();
        for line in self.connections.values() {
            line.outbox.finish();
        }
    }

    /// Waits until everything is durable. Blocks.
    ///
    /// # Errors
    ///
    /// If the disk fails now.
    pub(crate) fn close(self) -> Result<(), StorageError> {
        self.log.close()
    }

    /// Waits for an input, a completed write or the time-out, and takes what a turn should of what is there by then.
    /// Gives the number up to which everything has become durable, if that has risen, and since when inputs of clients
    /// may wait that are left.
    async fn take_inputs(&mut self, taken: &mut Taken) -> (Option<u64>, Option<Time>) {
        let now = clock::now();
        let timeout = self.replica.poll_timeout();
        let wait = timeout.map_or(IDLE, |timeout| timeout.since(now));
        let slept = if wait.is_zero() {
            // There is work left, or more than that: whatever has come meanwhile goes first.
            tokio::task::yield_now().await;
            true
        } else {
            tokio::select! {
                // In this order, so that a time-out is noticed only when nothing has come.
                biased;
                () = self.inputs.wait(taken) => false,
                Ok(()) = self.persisted.changed() => false,
                () = tokio::time::sleep(wait) => true,
            }
        };
        if slept && timeout.is_some_and(|timeout| clock::now().since(timeout) > LATE) {
            // The process was not scheduled. What came meanwhile is in the sockets: let the streams read it, and
            // hear it before deciding that anybody was silent (design.md §4).
            for _ in 0..YIELDS_WHEN_LATE {
                tokio::task::yield_now().await;
            }
        }
        let unheard = self.inputs.take(taken, self.connections.len());
        let number = *self.persisted.borrow_and_update();
        let more = number > self.told_persisted;
        self.told_persisted = number;
        (more.then_some(number), unheard)
    }

    fn handle(&mut self, now: Time, input: CoreInput) -> Result<(), Fault> {
        match input {
            CoreInput::Replica(input) => {
                if let Input::Disconnected { connection } = &input {
                    self.connections.remove(connection);
                }
                self.replica.handle(now, input)
            }
            CoreInput::Connected { connection, line } => {
                self.connections.insert(connection, line);
                Ok(())
            }
            CoreInput::Call(Call { call, principal, socket, request, reply, permit }) => {
                self.calls.insert(call, PendingCall { reply, _permit: permit });
                self.replica.handle(now, Input::Call { call, principal, socket, request })
            }
            CoreInput::Status { with_state, reply } => {
                let state = with_state.then(|| self.replica.state().clone());
                // Whoever asked may have left.
                let _ = reply.send((self.replica.status(), state));
                Ok(())
            }
            CoreInput::Contact(contact) => {
                self.peers.add_contact(&contact);
                Ok(())
            }
        }
    }

    fn perform_outputs(&mut self) -> Result<Option<Ended>, Fault> {
        let mut ended = None;
        while let Some(output) = self.replica.poll_output()? {
            ended = self.perform(output).or(ended);
        }
        Ok(ended)
    }

    fn perform(&mut self, output: Output) -> Option<Ended> {
        match output {
            Output::Persist(persist) => self.persist(persist),
            Output::Peer { to, message, urgent } => self.peers.send(to, message, urgent),
            Output::SendSnapshot { to, message, state } => self.peers.send_snapshot(to, message, state),
            Output::WriteSnapshot(state) => self.write_snapshot(state),
            Output::Frame { connection, frame } => self.send_frame(connection, frame),
            Output::Disconnect { connection } => {
                if let Some(line) = self.connections.remove(&connection) {
                    line.outbox.finish();
                }
            }
            Output::List { call, list } => {
                if let Some(pending) = self.calls.remove(&call) {
                    self.make_list(list, pending);
                }
            }
            Output::Answer { call, answer, master_address } => {
                if let Some(pending) = self.calls.remove(&call) {
                    // The caller may have left.
                    let _ = pending.reply.send(CallReply { answer, master_address });
                }
            }
            Output::Members(members) => self.set_members(&members),
            Output::Leadership { master, term } => {
                match master {
                    Some(master) => info!(self.logger, "{master} is the master"; "term" => %term),
                    None => info!(self.logger, "no master is known"; "term" => %term),
                }
                self.masters.send_replace(Leadership { master, term });
            }
            Output::HandedOver => return Some(Ended::HandedOver),
            Output::Removed => return Some(Ended::Removed),
        }
        None
    }

    /// Waits only when the disk is thousands of writes behind; then the replica had better stand still with it.
    fn persist(&mut self, persist: Persist) {
        if let Err(error) = self.log.submit(persist) {
            logging::abort(&self.logger, &error.to_string());
        }
    }

    fn write_snapshot(&self, state: Box<StateAt>) {
        let (snapshots, core, logger) = (Arc::clone(&self.snapshots), self.core.clone(), self.logger.clone());
        tokio::task::spawn_blocking(move || {
            let _guard = AbortOnPanic(logger.clone());
            let index = state.index;
            let input = match snapshots.write(&state) {
                Ok(()) => {
                    info!(logger, "wrote a snapshot"; "index" => index);
                    Input::SnapshotWritten { index }
                }
                Err(error) if error.may_pass() => Input::SnapshotFailed { why: error.to_string() },
                Err(error) => logging::abort(&logger, &error.to_string()),
            };
            // Fails only when the core is gone, and then the snapshot is found at the next start.
            let _ = core.blocking_send(CoreInput::Replica(input));
        });
    }

    /// Makes a page of a list beside the core, few at a time.
    fn make_list(&self, list: List, pending: PendingCall) {
        let turns = Arc::clone(&self.lists);
        tokio::spawn(async move {
            let turn = turns.acquire_owned().await;
            tokio::task::spawn_blocking(move || {
                let _turn = turn;
                let reply = CallReply { answer: list.answer(), master_address: String::new() };
                // The caller may have left.
                let _ = pending.reply.send(reply);
            });
        });
    }

    /// Queues a frame. A client that lets them pile up loses its stream; its session goes on.
    fn send_frame(&mut self, connection: ConnectionId, frame: ServerFrame) {
        let Some(line) = self.connections.get(&connection) else { return };
        // Its own client may wait elsewhere for what it says.
        line.leases.tell(&frame);
        match line.send(frame) {
            // A stream that is gone: its reader is about to say so.
            Ok(()) | Err(PushError::Closed) => {}
            Err(PushError::Full) => {
                warn!(self.logger, "cut a client off that does not read"; "connection" => %connection);
                line.outbox.cut();
            }
        }
    }

    fn set_members(&mut self, members: &[Member]) {
        let ids: Vec<_> = members.iter().map(|member| member.id).collect();
        info!(self.logger, "the cell's replicas are {ids:?}");
        let removed = self.replica.state().removed_members().collect();
        self.peers.set_members(members, removed);
    }
}
