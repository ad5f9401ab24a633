//! Handles: what a session has open.
//!
//! Owns the handle's life: opening, poisoning, closing. What can be done through one is in `reading`, `writing` and
//! `locking`. The invariant: a handle is closed at the cell once nothing is left that could use it: neither the
//! [`Handle`] nor a lock or a stream of events that came of it.

mod locking;
mod reading;
mod writing;

use crate::call::{Answer, Shared};
use crate::error::Error;
use crate::options::OpenOptions;
use crate::streams::{EventHub, HandleEvents};
use crate::values::{AclNames, NodeKind, Stat, no_stat};
use arc_swap::ArcSwap;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, outcome};
use holdfast_session::Slot;
use holdfast_types::{CELL_LOCAL, HandleId, NameLimits, NodePath};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;

/// An open node: bound to the very node it was opened on, not to its name. If that node is deleted, every call
/// fails with `NODE_GONE`, even if another is created in its place.
///
/// Calls can be made from several tasks at the same time, and each of them can be given up, by dropping its future,
/// without harm to the handle or to the others.
///
/// Dropping the handle closes it in the background, once no [`Lock`](crate::Lock) and no [`HandleEvents`] of it is
/// left.
pub struct Handle {
    inner: Arc<Inner>,
    /// How long a call waits for the cell's answer; `None`: for as long as the session lasts.
    within: Option<Duration>,
    created: bool,
    /// What was heard of the node when it was opened: if not all, what never changes.
    stat: Stat,
}

/// What a handle, its locks and its streams share.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: HandleId,
    /// The node's full name: `/ls/<cell>/<path>`.
    pub(crate) name: String,
    /// True once the handle is closed on purpose.
    pub(crate) closed: watch::Sender<bool>,
    poisoned: AtomicBool,
    /// Where what is cached of the node is read; `None` if nothing ever is.
    slot: Option<Arc<Slot>>,
    /// The calls depend on a sequencer, which only the master can check.
    bypasses_cache: AtomicBool,
    /// The names of the access control lists as of the last read, so that a cached read need not make them anew.
    acl: ArcSwap<KnownAcl>,
    /// Where the node's events come; `None` if none were asked for.
    hub: Option<Arc<EventHub>>,
}

/// A node's names are the same as long as their generation is.
struct KnownAcl {
    generation: u64,
    names: AclNames,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !*self.closed.borrow() {
            self.shared.close_handle(self.id);
        }
    }
}

impl Inner {
    fn check_poison(&self) -> Result<(), Error> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned { maybe_applied: false });
        }
        Ok(())
    }

    /// The cache of the node, if calls may be answered from it.
    fn usable_slot(&self) -> Option<&Slot> {
        let unusable = self.poisoned.load(Ordering::Acquire) || self.bypasses_cache.load(Ordering::Acquire);
        self.slot.as_deref().filter(|_| !unusable)
    }

    fn stat(&self, stat: Option<&wire::Stat>) -> Result<Stat, Error> {
        let stat = stat.ok_or_else(no_stat)?;
        let known = self.acl.load();
        if known.generation == stat.acl_generation {
            return Stat::from_wire(stat, known.names.clone());
        }
        let names = AclNames::from_wire(stat.acl.as_ref());
        self.acl.store(Arc::new(KnownAcl { generation: stat.acl_generation, names: names.clone() }));
        Stat::from_wire(stat, names)
    }
}

impl Handle {
    /// Opens the node called `path`, from anywhere in the cell.
    pub(crate) async fn open_path(
        shared: Arc<Shared>,
        within: Option<Duration>,
        path: &str,
        options: OpenOptions,
    ) -> Result<Self, Error> {
        let (operation, opening) = options.request(path, 0, shared.lock_delay);
        let answer = shared.ask(operation, opening, within).await?;
        let cell = shared.board.identity().cell;
        Self::new(shared, within, answer, full_name(path, &cell))
    }

    /// Does a call on this handle.
    async fn call(&self, operation: Operation) -> Result<outcome::Result, Error> {
        self.inner.check_poison()?;
        Ok(self.inner.shared.call(operation, self.within).await?.result)
    }

    /// The same handle, for calls that wait so long for the cell's answer and no longer: then they fail with
    /// [`Error::TimedOut`]. For a single call: `handle.with_timeout(limit).stat()`. By default calls wait as long as the
    /// session's do: see [`SessionBuilder::timeout`](crate::SessionBuilder::timeout).
    ///
    /// An [`acquire`](Handle::acquire) that waits in the cell's queue has its answer, and waits on. Both are one handle at
    /// the cell, which is closed when both are dropped, or either is [closed](Handle::close).
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        let Self { inner, created, stat, .. } = self;
        Self { inner: Arc::clone(inner), within: Some(timeout), created: *created, stat: stat.clone() }
    }

    /// Opens a node relative to this directory: `relative` is `name` or `name/name`, without a slash at its beginning;
    /// the empty text is the directory itself.
    ///
    /// It is relative to the very directory that this handle is open on: nothing is opened in another one that has
    /// taken its name. Dropping the future undoes the opening, however far it got; a node that it created stays,
    /// unless it is ephemeral.
    ///
    /// # Errors
    ///
    /// As for [`Session::open`](crate::Session::open); and `NODE_GONE` or `WRONG_KIND` of the directory itself, or
    /// [`Error::Poisoned`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(session: holdfast::Session) -> Result<(), holdfast::Error> {
    /// use holdfast::OpenOptions;
    ///
    /// let service = session.open("/service", OpenOptions::new().directory()).await?;
    /// let leader = service.open("leader", OpenOptions::new().create()).await?;
    /// assert_eq!(leader.path(), format!("/ls/{}/service/leader", session.cell_name()));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn open(&self, relative: &str, options: OpenOptions) -> Result<Self, Error> {
        self.inner.check_poison()?;
        let shared = &self.inner.shared;
        let (operation, opening) = options.request(relative, self.inner.id.0, shared.lock_delay);
        let answer = shared.ask(operation, opening, self.within).await?;
        let slash = if relative.is_empty() || self.path().ends_with('/') { "" } else { "/" };
        let name = format!("{}{slash}{relative}", self.path());
        Self::new(Arc::clone(shared), self.within, answer, name)
    }

    fn new(
        shared: Arc<Shared>,
        within: Option<Duration>,
        answer: Answer,
        name: String,
    ) -> Result<Self, Error> {
        let Answer { completion, hub } = answer;
        let unknown = KnownAcl { generation: 0, names: AclNames::default() };
        // From here on the handle is closed when `inner` is dropped.
        let inner = Arc::new(Inner {
            shared,
            id: completion.handle,
            name,
            closed: watch::Sender::new(false),
            poisoned: AtomicBool::new(false),
            slot: completion.slot,
            bypasses_cache: AtomicBool::new(false),
            acl: ArcSwap::from_pointee(unknown),
            hub,
        });
        let outcome::Result::Opened(opened) = completion.result else { return Err(mismatch()) };
        let stat = inner.stat(opened.stat.as_ref())?;
        Ok(Self { inner, within, created: opened.created, stat })
    }

    /// The node's full name: `/ls/<cell>/<path>`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.inner.name
    }

    /// Whether opening it created the node.
    #[must_use]
    pub fn created(&self) -> bool {
        self.created
    }

    /// Whether the node is a file or a directory.
    #[must_use]
    pub fn kind(&self) -> NodeKind {
        self.stat.kind
    }

    /// The node's instance: greater than that of any earlier node of the same name. Of a file that was just
    /// [created](Handle::created) it is the first content generation, too.
    #[must_use]
    pub fn instance(&self) -> u64 {
        self.stat.instance
    }

    /// The node as it was when it was opened, if that was heard. `None` if the handle may not read; and if the session
    /// had the node open already, so that this cost no message (see [`OpenOptions::caching`]), unless the metadata were
    /// cached. [`Handle::stat`] asks anew.
    #[must_use]
    pub fn stat_at_open(&self) -> Option<&Stat> {
        // Where only a part was heard, the rest is blank. Every node's names have a generation.
        Some(&self.stat).filter(|stat| stat.acl_generation > 0)
    }

    /// What happens to the node from now on, of the kinds that [`OpenOptions::events`] asked for. A stream that is
    /// made while there is no other one begins with what has happened since the handle was opened, or since the last
    /// stream was read; so nothing is missed between opening, reading, and listening.
    ///
    /// Each of several streams is told everything.
    ///
    /// # Errors
    ///
    /// [`Error::NoEvents`] if the handle was opened without events: nothing would ever be told.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(session: holdfast::Session) -> Result<(), Box<dyn std::error::Error>> {
    /// use holdfast::{EventKind, OpenOptions};
    ///
    /// let watched = OpenOptions::new().read_only().events([EventKind::ContentsModified]);
    /// let config = session.open("/service/config", watched).await?;
    /// let mut events = config.events()?;
    /// loop {
    ///     println!("{:?}", config.contents().await?.bytes);
    ///     match events.next().await {
    ///         Some(event) => println!("now at generation {}", event?.content_generation),
    ///         None => break, // The handle was closed.
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(&self) -> Result<HandleEvents, Error> {
        match &self.inner.hub {
            Some(hub) => Ok(HandleEvents::new(Arc::clone(&self.inner), Arc::clone(hub))),
            None => Err(Error::NoEvents { path: self.inner.name.clone() }),
        }
    }

    /// Makes every later call on the handle, and every one that is under way in any task, fail with
    /// [`Error::Poisoned`], without closing it (P§2.6). Returns at once. A [`Lock`](crate::Lock) that was taken
    /// through it stays held, and can be released; streams of events go on.
    pub fn poison(&self) {
        self.inner.poisoned.store(true, Ordering::Release);
        self.inner.shared.poison(self.inner.id);
    }

    /// Closes the handle, and releases its lock if it holds one: a [`Lock`](crate::Lock) that is left counts as lost.
    /// Returns when the cell has done it, or when the session is over, which closes it too; so it cannot fail. If a
    /// [time-out](Handle::with_timeout) is set, it returns then at the latest, and the cell closes it when it hears of it. A handle
    /// that caches and holds nothing is closed for the application at once, and may stay open at the cell for half a
    /// minute, so that the node can be opened again without a message. If the future is dropped, the handle closes all
    /// the same.
    pub async fn close(self) {
        self.inner.closed.send_replace(true);
        let closing = CloseOnDrop(Some(Arc::clone(&self.inner)));
        let close = wire::Close { handle: self.inner.id.0 };
        // Whatever it is answered, the handle is not open any more.
        let _ = self.inner.shared.call(Operation::Close(close), self.within).await;
        closing.disarm();
    }
}

/// Closes the handle in the background if the future of [`Handle::close`] is dropped before it was sent. Closing
/// twice is harmless.
struct CloseOnDrop(Option<Arc<Inner>>);

impl CloseOnDrop {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        if let Some(inner) = self.0.take() {
            inner.shared.close_handle(inner.id);
        }
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("path", &self.inner.name).field("id", &self.inner.id).finish()
    }
}

/// The answer belongs to another kind of request.
pub(crate) fn mismatch() -> Error {
    Error::protocol("an answer to another kind of request")
}

/// The name that means the node from anywhere. The cell has accepted `path` already, so it parses; what would
/// not is kept as it is.
fn full_name(path: &str, cell: &str) -> String {
    let limits = NameLimits { name_bytes_max: usize::MAX, path_bytes_max: usize::MAX / 2 };
    let cell = if cell.is_empty() { CELL_LOCAL } else { cell };
    NodePath::parse(path, cell, limits).map_or_else(|_| path.to_owned(), |path| path.full_name(cell))
}
