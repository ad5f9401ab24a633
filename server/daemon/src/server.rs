//! One replica, put together: sockets, data directory, founding, core, and back again.
//!
//! A replica runs on one thread with a single-threaded runtime of its own (design.md §10): [`run_replica_blocking`]
//! takes the calling thread, [`Server::start`](crate::Server::start) starts one. The order of a life is in `Life::live`: bind, open the
//! data directory, answer Hellos, come to a cell, recover, serve, hand over, close.
//!
//! Invariant: the replica serves nobody before its data directory is found whole, and what it acknowledged is
//! durable when it ends, however it ends.

mod error;

use std::io;
use std::pin::pin;
use std::sync::Arc;

use holdfast_proto::peer::v1::Identity;
use holdfast_replica::{Input, Replica};
use holdfast_types::{Duration, Principal, ReplicaId, Term};
use slog::{Logger, info, warn};
use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};

use crate::accept::{Door, connections};
use crate::config::Config;
use crate::descriptors::{PEER_PLACES, allow_many_files, client_places};
use crate::driver::{CoreInput, Driver, Ended, Parts};
use crate::founding::{come_to_cell, founding_of};
use crate::front::{Front, Phase};
use crate::identity::{DataDir, Stage};
use crate::inputs::{INPUTS_WAITING_MAX, Inputs};
use crate::listen::Listeners;
use crate::peers::{Greeter, PeerBook, PeerService, Peers};
use crate::signals::{STOP_MAX, SignalThread};
use crate::storage::recovery::{self, Recovered};
use crate::storage::writer::LogWriter;
use crate::tls::{self, Reloader, Side, Tls, TlsError};
use crate::{clock, logging};

pub use error::ServerError;

/// A master that stops gives others so long to take over.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);
/// Clients get so long to read what was sent to them.
const DRAIN_MAX: Duration = Duration::from_millis(500);
/// Background work gets so long to end; only a snapshot that is being written needs it, and it is not lost.
pub(crate) const BACKGROUND_MAX: Duration = Duration::from_secs(1);

/// How urgently a replica is to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// Not at all.
    No,
    /// After handing over what it leads.
    Gracefully,
    /// At once.
    Now,
    /// As a process that gets SIGKILL: nothing more is said, and nothing more written.
    Killed,
}

/// What a replica knows of who leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader, if it knows one. It serves as soon as it has applied everything of its predecessors.
    pub master: Option<ReplicaId>,
    /// The replica's term: of two that disagree, the one with the greater term knows better.
    pub term: Term,
}

/// Runs one replica on this thread until SIGTERM or SIGINT, and then stops it gracefully; a second signal stops it
/// at once. If it has not stopped some seconds after the first, or half a second after the second, because its disk hangs,
/// the process ends with the exit status 1. For programs that are replicas: `holdfastd run`, and any program that starts itself again as one.
///
/// # Errors
///
/// Why the replica cannot run, or cannot run on.
pub fn run_replica_blocking(config: Config, logger: Logger) -> Result<(), ServerError> {
    allow_many_files(&logger);
    let listeners = Listeners::bind(&config.peer_listen, &config.client_listen)?;
    let runtime = runtime()?;
    let (stop, stops) = watch::channel(Stop::No);
    let (ready, _) = oneshot::channel();
    let (masters, _) = watch::channel(Leadership::default());
    let _signals = SignalThread::start(stop, STOP_MAX, logger.clone())?;
    let lived = runtime.block_on(async {
        let hangups = Some(signal(SignalKind::hangup())?);
        let life = Life { config, logger, stops, masters, hangups };
        life.live(listeners, core_queue(), ready).await
    });
    runtime.shutdown_timeout(BACKGROUND_MAX);
    lived
}

pub(crate) fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// A line of inputs for the core, from both ends.
pub(crate) type CoreQueue = (mpsc::Sender<CoreInput>, mpsc::Receiver<CoreInput>);

/// A line of inputs for a replica's core.
pub(crate) fn core_queue() -> CoreQueue {
    mpsc::channel(INPUTS_WAITING_MAX)
}

/// What a replica needs from its beginning to its end.
pub(crate) struct Life {
    pub(crate) config: Config,
    pub(crate) logger: Logger,
    pub(crate) stops: watch::Receiver<Stop>,
    pub(crate) masters: watch::Sender<Leadership>,
    /// SIGHUPs, where the process is the replica's: each has the files of TLS read again.
    pub(crate) hangups: Option<Signal>,
}

/// What serves the sockets: they are up before the cell is, and down after the core is.
struct Fronts {
    /// Told to the clients' front.
    phase: watch::Sender<Phase>,
    /// Ends the clients' front.
    end: oneshot::Sender<()>,
    /// Ends when all clients have left, after `end`.
    clients: tokio::task::JoinHandle<()>,
}

impl Life {
    /// From the first socket to the last. Dropping the future leaves the replica as if its process had been killed.
    pub(crate) async fn live(
        mut self,
        listeners: Listeners,
        (clients, from_clients): CoreQueue,
        ready: oneshot::Sender<()>,
    ) -> Result<(), ServerError> {
        let tls = self.begin_tls()?;
        let mut dir = DataDir::open(&self.config)?;
        dir.warn_if_exposed(&self.logger);
        if dir.identity().stage == Stage::Fresh {
            // Makes an empty log, so that one that is missing later is known to be lost.
            drop(recovery::boot(&dir, &self.config, &self.logger)?);
        }
        let book = PeerBook::new(self.introduction(&dir), founding_of(&dir, &self.config), tls.clone());
        let book = Arc::new(book.with_routes(self.config.peer_routes.clone()));
        // What replicas say stands in a line of its own, and goes before what clients do.
        let (core, from_replicas) = core_queue();
        let fronts = self.open_fronts(listeners, &book, &core, tls.as_ref())?;
        // Nobody need be waiting for it.
        let _ = ready.send(());
        tokio::select! {
            came = come_to_cell(&self.config, &mut dir, &book, &fronts.phase, &self.logger) => came?,
            reason = book.stopped() => return Err(ServerError::Refused(reason)),
            () = stop_wanted(&mut self.stops, Stop::Gracefully) => return Ok(()),
        }
        // Nothing is awaited from here until the driver runs, so no peer is heard before the members are known.
        let inputs = Inputs::new(from_replicas, from_clients);
        let mut driver = self.driver(&dir, &book, &core, inputs)?;
        fronts.phase.send_replace(Phase::Serving(clients.clone()));
        let ended = self.serve(&mut driver, &book, &core, &fronts.phase).await;
        if let Err(ServerError::DataLost { what, .. }) = &ended
            && let Err(error) = dir.mark_stale(what)
        {
            warn!(self.logger, "the data directory could not be marked as stale: {error}");
        }
        fronts.phase.send_replace(Phase::Stopping);
        driver.dismiss_clients();
        let _ = fronts.end.send(());
        // Who has not read by then is cut off with the runtime.
        let _ = tokio::time::timeout(DRAIN_MAX, fronts.clients).await;
        match driver.close() {
            // Everything is written; only the mark that says so is not.
            Err(error) if error.may_pass() => warn!(self.logger, "the log is not marked as closed: {error}"),
            closed => closed?,
        }
        info!(self.logger, "stopped");
        ended
    }

    /// Makes TLS ready and follows its files, by a task that ends with the runtime; or says that there is none.
    fn begin_tls(&mut self) -> Result<Option<Arc<Tls>>, TlsError> {
        let tls = Tls::load(&self.config)?;
        match &tls {
            Some(tls) => {
                tls.announce(&self.logger);
                let reloader = Reloader::new(Arc::clone(tls), self.logger.clone());
                tokio::spawn(reloader.run(self.hangups.take()));
            }
            None => tls::announce_open(&self.config.cell, self.config.replica, &self.logger),
        }
        Ok(tls)
    }

    fn introduction(&self, dir: &DataDir) -> Identity {
        let identity = dir.identity();
        Identity {
            cell: identity.cell.clone(),
            // Not the recorded one: nobody is to be admitted before the replica serves.
            cell_id: 0,
            replica: identity.replica.0,
            data_id: identity.data_id,
            peer_address: self.config.peer_advertise.clone(),
            state_version: holdfast_state::VERSION_MAX,
            client_address: self.config.client_advertise.clone(),
        }
    }

    /// Serves both sockets, by tasks that end with the runtime.
    fn open_fronts(
        &self,
        listeners: Listeners,
        book: &Arc<PeerBook>,
        core: &mpsc::Sender<CoreInput>,
        tls: Option<&Arc<Tls>>,
    ) -> Result<Fronts, ServerError> {
        let logger = &self.logger;
        let peer = tokio::net::TcpListener::from_std(listeners.peer)?;
        let client = tokio::net::TcpListener::from_std(listeners.client)?;
        info!(logger, "listening"; "clients" => client.local_addr()?, "peers" => peer.local_addr()?);
        let peers = PeerService::new(Arc::clone(book), core.clone(), logger.clone()).router();
        let door = Door::new(Side::Peers, tls.cloned(), PEER_PLACES, logger.clone());
        let from_peers = connections(peer, door);
        tokio::spawn(async move { peers.serve_with_incoming(from_peers).await });
        let (phase, phases) = watch::channel(Phase::Starting("it is starting".to_owned()));
        let front = Front::new(phases, Arc::new(Greeter(Arc::clone(book))), logger.clone());
        let places = client_places(self.config.client_connections_max);
        let door = Door::new(Side::Clients, tls.cloned(), places, logger.clone());
        let from_clients = connections(client, door);
        let (end, ended) = oneshot::channel();
        let ended = async { ended.await.unwrap_or_default() };
        let clients = tokio::spawn(front.serve(from_clients, ended));
        Ok(Fronts { phase, end, clients })
    }

    /// Reads what the disk has, and makes the core of it.
    fn driver(
        &self,
        dir: &DataDir,
        book: &Arc<PeerBook>,
        core: &mpsc::Sender<CoreInput>,
        inputs: Inputs,
    ) -> Result<Driver, ServerError> {
        let logger = &self.logger;
        let Recovered { boot, log, snapshots } = recovery::boot(dir, &self.config, logger)?;
        let config = replica_config(&self.config)?;
        let replica = match Replica::new(clock::now(), config, boot, logger.clone()) {
            Ok(replica) => replica,
            Err(fault) => logging::abort(logger, &fault.to_string()),
        };
        if let Some(principal) = &self.config.override_bootstrap_principal {
            warn!(
                logger,
                "started with --override-bootstrap-principal: if this replica becomes master within ten minutes it makes \
                this principal the cell's bootstrap principal; start it without the flag once you are back in";
                "principal" => principal.as_str()
            );
        }
        let bootstrap = &replica.state().settings().bootstrap_principal;
        if self.config.tls.is_some() && bootstrap == Principal::ANONYMOUS {
            warn!(
                logger,
                "the cell's bootstrap principal is `anonymous`: whoever can reach it may change every access \
                control list and administer it; set another one with `holdfast settings bootstrap_principal=NAME`"
            );
        }
        let (persisting, persisted) = watch::channel(0);
        let failed = logger.clone();
        let log = LogWriter::spawn(
            log,
            Arc::clone(&snapshots),
            logger.clone(),
            move |number| {
                persisting.send_replace(number);
            },
            move |error| logging::abort(&failed, &error.to_string()),
        )?;
        Ok(Driver::new(Parts {
            replica,
            inputs,
            core: core.clone(),
            persisted,
            log,
            snapshots,
            peers: Peers::new(Arc::clone(book), core.clone(), logger.clone()),
            masters: self.masters.clone(),
            logger: logger.clone(),
        }))
    }

    /// Drives the core until it may stop or must.
    async fn serve(
        &mut self,
        driver: &mut Driver,
        book: &PeerBook,
        core: &mpsc::Sender<CoreInput>,
        phase: &watch::Sender<Phase>,
    ) -> Result<(), ServerError> {
        let id = self.config.replica;
        let mut running = pin!(driver.run());
        let ended = tokio::select! {
            ended = &mut running => Some(ended),
            reason = book.stopped() => return Err(ServerError::Refused(reason)),
            () = stop_wanted(&mut self.stops, Stop::Gracefully) => None,
        };
        let ended = match ended {
            Some(ended) => Some(ended),
            None => {
                info!(self.logger, "stopping");
                phase.send_replace(Phase::Stopping);
                let patience = async {
                    // The driver holds the other end.
                    let _ = core.send(CoreInput::Replica(Input::HandOver)).await;
                    tokio::time::sleep(HAND_OVER_MAX).await;
                    warn!(self.logger, "nobody has taken over in time");
                };
                tokio::select! {
                    ended = &mut running => Some(ended),
                    () = patience => None,
                    () = stop_wanted(&mut self.stops, Stop::Now) => None,
                }
            }
        };
        match ended {
            Some(Err(fault)) if fault.is_data_lost() => {
                Err(ServerError::DataLost { replica: id, what: fault.to_string() })
            }
            Some(Err(fault)) => logging::abort(&self.logger, &fault.to_string()),
            Some(Ok(Ended::Removed)) => Err(ServerError::Removed(id)),
            Some(Ok(Ended::HandedOver)) | None => Ok(()),
        }
    }
}

/// Waits until the wish to stop is as urgent as `urgency`. An owner that is gone wants it now.
async fn stop_wanted(stops: &mut watch::Receiver<Stop>, urgency: Stop) {
    let _ = stops.wait_for(|stop| *stop >= urgency).await;
}

fn replica_config(config: &Config) -> Result<holdfast_replica::Config, ServerError> {
    let random = || getrandom::u64().map_err(|error| io::Error::other(error.to_string()));
    let lease_floor_ms = u32::try_from(config.lease_floor_ms).unwrap_or(u32::MAX);
    let defaults = holdfast_replica::Config::new(config.replica, random()?, random()?);
    Ok(holdfast_replica::Config {
        tick_ms: config.tick_ms,
        heartbeat_ticks: config.heartbeat_ticks(),
        election_ticks: config.election_ticks(),
        snapshot_every_bytes: config.snapshot_every_bytes,
        log_tail_bytes: config.log_tail_bytes,
        override_bootstrap_principal: config.override_bootstrap_principal.clone(),
        master: holdfast_master::Config { lease_floor_ms, ..defaults.master.clone() },
        ..defaults
    })
}
