//! Sessions: opening one, watching how it fares, ending it.

use crate::call::{SessionState, Shared};
use crate::cell::Cell;
use crate::clock;
use crate::error::Error;
use crate::handle::{Handle, mismatch};
use crate::opening;
use crate::options::OpenOptions;
use crate::streams::SessionEvents;
use crate::values::SequencerCheck;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, outcome};
use holdfast_session::{CacheConfig, CacheStats, Config, Ended};
use holdfast_types::{LEASE_MS, SessionId};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The length of lease that a session has if it asks for none.
pub const LEASE_DEFAULT: Duration = Duration::from_secs(12);
/// Cells grant no shorter lease.
pub(crate) const LEASE_MIN: Duration = Duration::from_millis(*LEASE_MS.start() as u64);
/// And no longer one.
pub(crate) const LEASE_MAX: Duration = Duration::from_millis(*LEASE_MS.end() as u64);
/// The grace period that a session has if it asks for none.
pub const GRACE_DEFAULT: Duration = Duration::from_secs(45);
/// The lock-delay that a handle has if it asks for none: long enough for what was started under the lock to be stopped, or
/// to be over. The command `holdfast lock` has the same.
pub const LOCK_DELAY_DEFAULT: Duration = Duration::from_secs(15);
/// The most bytes that a session caches if it is not told otherwise.
pub const CACHE_BYTES_DEFAULT: u64 = 64 << 20;

/// Before a session is opened anew that has expired while it was opened: the cell is slow as it is.
const REOPEN_PAUSE: Duration = Duration::from_millis(250);

/// A session with a cell: what handles and locks belong to, and what a lease keeps alive.
///
/// Cheap to clone; all clones are the one session. A task of the session's own, on the runtime that opened it,
/// sends KeepAlives, finds the master again after a fail-over and repeats what was under way, so an
/// application sees a delay and nothing else. That task needs the runtime to run: an application that blocks
/// every worker thread for a lease's length loses its session.
///
/// The session ends when [`Session::close`] is called, when it expires, or in the background once the last
/// clone of it and the last [`Handle`] and [`Lock`](crate::Lock) of it are dropped. In the background is too late at the end
/// of `main`: see [`Session::flush`]. It does not end because it is not used, unless it was opened so
/// ([`SessionBuilder::end_when_idle`]).
///
/// # Runtimes and processes
///
/// A session can be used on any runtime, while the one that it was opened on runs. When that ends, the session is over
/// here ([`Ended::RuntimeGone`]): its locks count as lost, its calls fail. The cell hears nothing of that, and keeps the
/// session and its locks until the lease has run out. The same goes for a process that is forked from the one that
/// opened the session: to the child it is over, and the parent keeps it. Open sessions after forking, or after becoming a
/// daemon.
#[derive(Clone)]
pub struct Session {
    shared: Arc<Shared>,
    /// How long a call waits for the cell's answer; `None`: for as long as the session lasts.
    within: Option<Duration>,
}

/// Opens a session; made by [`Cell::session`].
#[derive(Clone, Debug)]
#[must_use = "a builder opens nothing until `open` is called"]
pub struct SessionBuilder {
    cell: Cell,
    lease: Duration,
    grace: Duration,
    open_timeout: Option<Duration>,
    client_name: String,
    cache_bytes_max: u64,
    timeout: Option<Duration>,
    ends_when_idle: bool,
}

impl SessionBuilder {
    pub(crate) fn new(cell: Cell) -> Self {
        Self {
            lease: cell.lease,
            grace: cell.grace,
            open_timeout: None,
            cell,
            client_name: client_name_default(),
            cache_bytes_max: CACHE_BYTES_DEFAULT,
            timeout: None,
            ends_when_idle: false,
        }
    }

    /// The length of the lease: 100 ms to 60 s, granted exactly; 12 s by default. Whole milliseconds count. A
    /// client that dies keeps its locks for about so long, and its lock-delay on top; a client that is cut off
    /// for longer may lose its session.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// How long the session, once its lease has run out, is waited for in jeopardy before it counts as expired;
    /// 45 s by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How long [`SessionBuilder::open`] may take; by default as long as calls may ([`SessionBuilder::timeout`]), or else as
    /// long as the grace period.
    pub fn open_timeout(mut self, timeout: Duration) -> Self {
        self.open_timeout = Some(timeout);
        self
    }

    /// What the client calls itself, for people who look at who holds a lock: at most 255 bytes. By default
    /// the host's name and the process's id.
    pub fn client_name(mut self, name: impl Into<String>) -> Self {
        self.client_name = name.into();
        self
    }

    /// The most bytes of contents, metadata and lists of children that the session caches in all; 64 MiB by default.
    /// What was not read of late goes first. 0: nothing is cached, whatever handles ask for.
    pub fn cache_bytes_max(mut self, bytes: u64) -> Self {
        self.cache_bytes_max = bytes;
        self
    }

    /// How long each call of the session waits for the cell's answer: then it fails with [`Error::TimedOut`], and is
    /// withdrawn. By default calls have no time-out: they wait through fail-overs, and fail only when the session does, which
    /// the end of the grace period brings at the latest. Of single calls: [`Session::with_timeout`],
    /// [`Handle::with_timeout`].
    ///
    /// An [`acquire`](Handle::acquire) that waits in the cell's queue has its answer, and waits on.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Lets the cell end the session when it has had no handle open and no call for a minute ([`Ended::Idle`]). By default
    /// a session lasts for as long as the program has it, whether or not it is used; a cell of an older release ends an
    /// idle session all the same. For programs that forget sessions, so that these do not count against the cell's limit.
    pub fn end_when_idle(mut self) -> Self {
        self.ends_when_idle = true;
        self
    }

    /// Opens the session, and spawns its task on the present tokio runtime. Dropping the future gives the
    /// session up. If the cell is so slow that it has ended the session before its word of the opening is here, another
    /// one is opened, while there is time.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] if the cell refuses the session (the lease is too short, there are too many sessions,
    /// the cell has another name); [`Error::Unavailable`] if no master has opened it within
    /// [`SessionBuilder::open_timeout`], or earlier if trying on is in vain: see there;
    /// [`Error::NoRuntime`] outside a tokio runtime.
    pub async fn open(self) -> Result<Session, Error> {
        let began = Instant::now();
        let limit = self.open_timeout.or(self.timeout).unwrap_or(self.grace);
        self.cell.unary.find_master(limit / 4).await;
        loop {
            let config = self.config(limit.saturating_sub(began.elapsed()))?;
            let (channels, places) = (self.cell.channels(), self.cell.places().clone());
            let over = match opening::open(config, channels, places, self.cell.lock_delay).await {
                Ok(shared) => return Ok(Session { shared: Arc::new(shared), within: self.timeout }),
                Err(Error::SessionEnded {
                    ended: ended @ (Ended::Expired | Ended::GraceOver { .. }),
                    ..
                }) => ended,
                // The session counts from when it was made; the caller has waited since before that.
                Err(Error::Unavailable { last, absent, .. }) => {
                    return Err(Error::Unavailable { waited: millis(began.elapsed()), last, absent });
                }
                Err(error) => return Err(error),
            };
            if began.elapsed() >= limit {
                let last = format!("a session was opened, and word of that was late: {over}");
                return Err(Error::Unavailable { waited: millis(began.elapsed()), last, absent: false });
            }
            tokio::time::sleep(REOPEN_PAUSE.min(limit.saturating_sub(began.elapsed()))).await;
        }
    }

    /// Of a session that has never been.
    fn config(&self, open_timeout: Duration) -> Result<Config, Error> {
        let mut chance = [0_u8; 40];
        getrandom::fill(&mut chance)
            .map_err(|error| Error::unavailable(format!("no random bytes: {error}")))?;
        let (secret, seed) = chance.split_at(32);
        Ok(Config {
            addresses: self.cell.addresses(),
            known: self.cell.places().known(),
            cell: self.cell.expected_name().to_owned(),
            client: self.client_name.clone(),
            secret: secret.try_into().unwrap_or([0; 32]),
            lease: self.lease,
            grace: self.grace,
            open_timeout,
            ends_when_idle: self.ends_when_idle,
            drift_per_mille: 10,
            seed: seed.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte)),
            cache: CacheConfig {
                on: self.cache_bytes_max > 0,
                bytes_max: self.cache_bytes_max,
                ..CacheConfig::default()
            },
        })
    }
}

impl Session {
    /// The session's id. It is no secret.
    #[must_use]
    pub fn id(&self) -> u64 {
        let SessionId(id) = self.shared.board.identity().id;
        id
    }

    /// The cell's name.
    #[must_use]
    pub fn cell_name(&self) -> Arc<str> {
        self.shared.board.identity().cell
    }

    /// Who the cell takes this program for, for its access control lists: the common name of the certificate, or
    /// `anonymous`.
    #[must_use]
    pub fn principal(&self) -> Arc<str> {
        self.shared.board.identity().principal
    }

    /// How the session fares at this very moment.
    #[must_use]
    pub fn state(&self) -> SessionState {
        let state = self.shared.state.borrow().clone();
        if !self.shared.board.is_ours() && !matches!(state, SessionState::Ended(_)) {
            return SessionState::Ended(Ended::RuntimeGone);
        }
        // The session's task may not have run since the lease ran out.
        if state == SessionState::Safe && !self.shared.is_valid() { SessionState::Jeopardy } else { state }
    }

    /// A receiver that sees every later state: the last is [`SessionState::Ended`].
    #[must_use]
    pub fn watch_state(&self) -> watch::Receiver<SessionState> {
        self.shared.state.clone()
    }

    /// What happens to the session from now on: jeopardy, safety, fail-overs, and at last its end. The stream does not
    /// keep the session open.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(session: holdfast::Session) {
    /// use holdfast::SessionEvent;
    ///
    /// let mut events = session.events();
    /// while let Some(event) = events.next().await {
    ///     match event {
    ///         SessionEvent::Jeopardy => println!("the cell does not answer; be careful"),
    ///         SessionEvent::Safe => println!("all is well again, and nothing was lost"),
    ///         SessionEvent::Ended(why) => println!("{why}: begin anew"),
    ///         _ => {}
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn events(&self) -> SessionEvents {
        self.shared.board.events.listen()
    }

    /// How well the cache has done since the session was opened.
    #[must_use]
    pub fn cache_stats(&self) -> CacheStats {
        self.shared.board.cache.snapshot()
    }

    /// Waits until the session is over, and tells why. Dropping the future changes nothing.
    pub async fn expired(&self) -> Ended {
        self.shared.ended().await
    }

    /// Until when the session is certainly valid if nothing more is heard; in the past if that moment is over.
    #[must_use]
    pub fn valid_until(&self) -> Instant {
        clock::instant(self.shared.board.valid_until())
    }

    /// Opens a handle on the node called `path`: `/ls/<cell>/<path>`, `/ls/local/<path>`, or `/<path>` within
    /// the cell.
    ///
    /// Dropping the future undoes the opening, however far it got; a node that it created stays, unless it is
    /// ephemeral.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`], for example with `NOT_FOUND`, `ALREADY_EXISTS`, `WRONG_KIND`, `BAD_PATH` or
    /// `PERMISSION_DENIED`;
    /// [`Error::SessionEnded`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(session: holdfast::Session) -> Result<(), holdfast::Error> {
    /// use holdfast::OpenOptions;
    ///
    /// let leader = session.open("/service/leader", OpenOptions::new().create()).await?;
    /// println!("created: {}, lock: {:?}", leader.created(), leader.lock_stat().await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open(&self, path: &str, options: OpenOptions) -> Result<Handle, Error> {
        Handle::open_path(Arc::clone(&self.shared), self.within, path, options).await
    }

    /// A handle on the root, `/`, which is always there: for reading its children, and for names relative to it. Costs
    /// a message the first time at the most. Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`PERMISSION_DENIED`) or [`Error::SessionEnded`].
    pub async fn root(&self) -> Result<Handle, Error> {
        self.open("/", OpenOptions::new().directory().read_only()).await
    }

    /// Tells whether a sequencer is valid now: whether the lock is held, as it says. For a server that has a session
    /// and is handed one with an order; see also [`Fence`](crate::Fence). Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`BAD_SEQUENCER`, `FOREIGN_CELL`) or [`Error::SessionEnded`].
    pub async fn check_sequencer(&self, sequencer: impl ToString) -> Result<SequencerCheck, Error> {
        let check = wire::CheckSequencer { sequencer: sequencer.to_string() };
        match self.shared.call(Operation::CheckSequencer(check), self.within).await?.result {
            outcome::Result::SequencerChecked(checked) => {
                Ok(SequencerCheck::new(checked.valid, checked.reason))
            }
            _ => Err(mismatch()),
        }
    }

    /// The same session, for calls that wait so long for the cell's answer and no longer: then they fail with
    /// [`Error::TimedOut`]. For a single call: `session.with_timeout(limit).open(…)`. Handles that are opened so have the same
    /// time-out; [`Handle::with_timeout`] gives them another. See [`SessionBuilder::timeout`].
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        Self { shared: Arc::clone(&self.shared), within: Some(timeout) }
    }

    /// Waits until all that was given back before has reached the cell: locks whose guards were dropped, handles that were
    /// dropped, calls whose futures were. They are given back in the background, by a task of the runtime: **a program that
    /// leaves `main` before that task has run, as one that returns an error does, keeps its locks for a lease, and their
    /// lock-delay on top**. So end with this, or with [`Session::close`], which gives back everything:
    ///
    /// ```no_run
    /// # async fn work(_: &holdfast::Session) -> Result<(), Box<dyn std::error::Error>> { Ok(()) }
    /// # async fn example(cell: holdfast::Cell) -> Result<(), Box<dyn std::error::Error>> {
    /// let session = cell.session().open().await?;
    /// let done = work(&session).await;
    /// // Whatever came of it.
    /// session.close().await;
    /// done
    /// # }
    /// ```
    ///
    /// A lock that is [kept](OpenOptions::keep_lock), and a handle that is kept open for its cache, are not given back yet.
    /// Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::SessionEnded`]: the session is over, and everything with it.
    pub async fn flush(&self) -> Result<(), Error> {
        self.shared.flush().await
    }

    /// Ends the session: its handles are closed and its locks released, without lock-delay. Returns when the
    /// cell has confirmed it, or when the session has ended in another way: at the latest, if no master is to be
    /// found, when its lease and the grace period are over. Calls that other tasks make meanwhile fail.
    ///
    /// Dropping the future does not stop the closing.
    pub async fn close(&self) -> Ended {
        self.shared.close();
        self.shared.ended().await
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("id", &self.id()).field("state", &self.state()).finish()
    }
}

/// A time that people read.
fn millis(waited: Duration) -> Duration {
    Duration::from_millis(u64::try_from(waited.as_millis()).unwrap_or(u64::MAX))
}

/// `host:pid`, which is what people look for first.
fn client_name_default() -> String {
    let host = nix::unistd::gethostname().ok().and_then(|host| host.into_string().ok());
    format!("{}:{}", host.as_deref().unwrap_or("unknown"), std::process::id())
}
