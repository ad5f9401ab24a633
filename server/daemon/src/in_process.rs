//! A replica within this process: started, watched and stopped by whoever owns it.
//!
//! The replica runs as it does in a process of its own, on a thread of its own. Its owner can do to it what an operating
//! system does to a process: kill it, and have it stand still. That is for programs that test against a cell; nothing of
//! it can be reached from the network.
//!
//! Invariant: when [`Server::kill`], [`Server::stop`] or [`Server::halt`] has returned, nothing of the replica runs any
//! more, and its data directory is free.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::mpsc as blocking;
use std::thread;

use holdfast_proto::client::v1::{Refusal, RefusalCode};
use holdfast_replica::{CallAnswer, CallRequest};
use holdfast_types::{Principal, ReplicaId, SessionId, SocketId};
use slog::Logger;
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::Config;
use crate::driver::{Call, CoreInput, next_call};
use crate::listen::Listeners;
use crate::server::{BACKGROUND_MAX, CoreQueue, Leadership, Life, ServerError, Stop, core_queue, runtime};

/// A replica within this process, on a thread of its own. Dropping it stops the replica at once, without handing
/// over; [`Server::stop`] is the better way.
#[derive(Debug)]
pub struct Server {
    replica: ReplicaId,
    peer_address: SocketAddr,
    client_address: SocketAddr,
    thread: Thread,
    standstills: mpsc::UnboundedSender<Order>,
    core: mpsc::Sender<CoreInput>,
    leadership: watch::Receiver<Leadership>,
    ended: oneshot::Receiver<Result<(), ServerError>>,
}

/// The replica's thread, and how to stop it. Dropping it stops the replica at once.
#[derive(Debug)]
struct Thread {
    stop: watch::Sender<Stop>,
    handle: Option<thread::JoinHandle<()>>,
    /// Somebody has the server. Until then whoever gives it up must find nothing left of it: its data directory may be
    /// about to go.
    is_owned: bool,
}

impl Thread {
    /// Stops the replica, and blocks until its thread has ended.
    fn end(mut self, stop: Stop, standstill: Option<Standstill>) {
        self.stop.send_replace(stop);
        drop(standstill);
        self.join();
    }

    fn join(&mut self) {
        if let Some(handle) = self.handle.take() {
            // A panic of the thread is in the log.
            let _ = handle.join();
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if !self.is_owned {
            self.stop.send_replace(Stop::Killed);
            self.join();
        }
    }
}

/// For as long as it lives a replica stands still: see [`Server::stand_still`].
#[must_use = "the replica goes on as soon as it is dropped"]
#[derive(Debug)]
pub struct Standstill {
    /// Nothing is ever sent: that it is dropped is what the replica waits for.
    _until: blocking::Sender<()>,
}

/// To stand still.
#[derive(Debug)]
struct Order {
    /// Told when the replica does.
    standing: oneshot::Sender<()>,
    /// Until the other end is dropped.
    until: blocking::Receiver<()>,
}

impl Server {
    /// Starts a replica that listens where `config` says. Returns once it listens and its data directory is found
    /// fit; it may then still have to found its cell. Dropping the future stops the replica.
    ///
    /// # Errors
    ///
    /// Why it cannot run.
    pub async fn start(config: Config, logger: Logger) -> Result<Self, ServerError> {
        let listeners = Listeners::bind(&config.peer_listen, &config.client_listen)?;
        Self::start_on(listeners, config, logger).await
    }

    /// Like [`Server::start`], on sockets that are bound already.
    ///
    /// # Errors
    ///
    /// Why it cannot run.
    pub async fn start_on(listeners: Listeners, config: Config, logger: Logger) -> Result<Self, ServerError> {
        let replica = config.replica;
        let (peer_address, client_address) = listeners.addresses()?;
        let (stop, stops) = watch::channel(Stop::No);
        let (masters, leadership) = watch::channel(Leadership::default());
        let (standstills, orders) = mpsc::unbounded_channel();
        let (core, inputs) = core_queue();
        let (ready, is_ready) = oneshot::channel();
        let (end, mut ended) = oneshot::channel();
        let life = Life { config, logger, stops, masters, hangups: None };
        let queue = (core.clone(), inputs);
        let handle = thread::Builder::new().name(format!("replica-{}", replica.0)).spawn(move || {
            // Nobody is left to tell if the owner has dropped the server.
            let _ = end.send(live_on_this_thread(life, listeners, queue, orders, ready));
        })?;
        let mut thread = Thread { stop, handle: Some(handle), is_owned: false };
        tokio::select! {
            biased;
            Ok(()) = is_ready => {}
            lived = &mut ended => lived.unwrap_or_else(|_| Err(panicked()))?,
        }
        thread.is_owned = true;
        Ok(Self { replica, peer_address, client_address, thread, standstills, core, leadership, ended })
    }

    /// The replica's id.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// Where it listens for other replicas.
    #[must_use]
    pub fn peer_address(&self) -> SocketAddr {
        self.peer_address
    }

    /// Where it listens for clients.
    #[must_use]
    pub fn client_address(&self) -> SocketAddr {
        self.client_address
    }

    /// Waits until the replica knows a master, and says which; `None` if it ends before. Dropping the future loses
    /// nothing.
    pub async fn master(&mut self) -> Option<ReplicaId> {
        let known = self.leadership.wait_for(|leadership| leadership.master.is_some()).await;
        known.ok().and_then(|leadership| leadership.master)
    }

    /// Follows what the replica knows of who leads.
    #[must_use]
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Stops the replica: hands over what it leads, says goodbye to its clients, and makes everything durable.
    /// Returns when its thread has ended. Dropping the future kills the replica, and blocks for the moment that this takes.
    ///
    /// # Errors
    ///
    /// Why it had ended before, if it had.
    pub async fn stop(mut self) -> Result<(), ServerError> {
        self.thread.stop.send_replace(Stop::Gracefully);
        // From here on nobody else sees to it that nothing is left.
        self.thread.is_owned = false;
        self.ended.await.unwrap_or_else(|_| Err(panicked()))
    }

    /// Stops the replica at once, without handing over, and blocks until its thread has ended.
    pub(crate) fn halt(self) {
        self.thread.end(Stop::Now, None);
    }

    /// Ends the replica as SIGKILL ends a process, also while it stands still: it says nothing to anybody, writes nothing
    /// more, and its connections break. What it had not written is lost. If it stands still, it needs its standstill.
    /// Blocks until nothing of it is left: as a rule for as long as a write takes that was under way.
    pub fn kill(self, standstill: Option<Standstill>) {
        self.thread.end(Stop::Killed, standstill);
    }

    /// Has the replica stand still as SIGSTOP has a process, until what is returned is dropped: it reads and writes
    /// nothing, its connections stay, and the clocks run on. Returns once it does; `None` if the replica has ended.
    /// Dropping the future lets it go on.
    ///
    /// Stopping or dropping the server does not end a standstill.
    pub fn stand_still(&self) -> impl Future<Output = Option<Standstill>> + Send + use<> {
        let standstills = self.standstills.clone();
        async move {
            let (until, wait) = blocking::channel();
            let (standing, stands) = oneshot::channel();
            standstills.send(Order { standing, until: wait }).ok()?;
            stands.await.ok()?;
            Some(Standstill { _until: until })
        }
    }

    /// Whether this replica is the master, as a quorum confirms after the question. If it only believes so, the answer
    /// takes until it has found out. Dropping the future changes nothing.
    pub fn serves(&self) -> impl Future<Output = bool> + Send + use<> {
        let answer = self.call(CallRequest::GetSettings);
        // Whoever asks here is nobody that administers a cell with TLS, but only a master can say so.
        let denied = |refusal: Refusal| refusal.code() == RefusalCode::PermissionDenied;
        async move { answer.await.map_or_else(denied, |_| true) }
    }

    /// If this replica is the master: ends a session as if its lease had run out. Its client stops believing in it
    /// first; if it does not answer, the lease has to run out indeed. Returns when the session is over. Dropping the
    /// future does not take the wish back.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_SESSION`, or `NOT_MASTER`, also if the replica ends meanwhile: then the session may yet expire.
    pub fn expire_session(
        &self,
        session: SessionId,
    ) -> impl Future<Output = Result<(), Refusal>> + Send + use<> {
        let answer = self.call(CallRequest::ExpireSession(session));
        async move { answer.await.map(drop) }
    }

    /// Has the core answer a call, past the front.
    fn call(&self, request: CallRequest) -> impl Future<Output = Result<CallAnswer, Refusal>> + Send + use<> {
        let core = self.core.clone();
        async move {
            let gone = || {
                let message = "the replica has ended".to_owned();
                Refusal { code: RefusalCode::NotMaster.into(), message, ..Default::default() }
            };
            let (reply, answered) = oneshot::channel();
            // No connection has this number.
            let (principal, socket) = (Principal::anonymous(), SocketId::default());
            let call = Call { call: next_call(), principal, socket, request, reply, permit: None };
            core.send(CoreInput::Call(call)).await.map_err(|_| gone())?;
            answered.await.map_err(|_| gone())?.answer
        }
    }

    /// Waits until the replica ends by itself. Dropping the future loses nothing.
    ///
    /// # Errors
    ///
    /// Why it has ended.
    pub async fn ended(&mut self) -> Result<(), ServerError> {
        (&mut self.ended).await.unwrap_or_else(|_| Err(panicked()))
    }
}

/// The thread's panic is in the log.
fn panicked() -> ServerError {
    ServerError::System(io::Error::other("the replica's thread has panicked"))
}

/// A replica's life, and its owner's orders.
fn live_on_this_thread(
    life: Life,
    listeners: Listeners,
    queue: CoreQueue,
    mut orders: mpsc::UnboundedReceiver<Order>,
    ready: oneshot::Sender<()>,
) -> Result<(), ServerError> {
    let runtime = runtime()?;
    let mut stops = life.stops.clone();
    let lived = runtime.block_on(async {
        let mut living = pin!(life.live(listeners, queue, ready));
        loop {
            tokio::select! {
                // First, so that a replica that is killed while it stands still does nothing more.
                biased;
                Ok(_) = stops.wait_for(|stop| *stop == Stop::Killed) => return Ok(()),
                Some(order) = orders.recv() => order.obey(),
                lived = &mut living => return lived,
            }
        }
    });
    runtime.shutdown_timeout(BACKGROUND_MAX);
    lived
}

impl Order {
    /// Blocks the replica's one thread, and everything that runs there: its core, its listeners and its connections.
    fn obey(self) {
        if self.standing.send(()).is_ok() {
            // An error, always: the other end is dropped.
            let _ = self.until.recv();
        }
    }
}
