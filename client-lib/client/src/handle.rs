//! Handles: what a session has open, and what can be done through it.

use crate::call::Shared;
use crate::error::Error;
use crate::lock::Lock;
use crate::values::{self, Contents, Entry, NodeKind, Stat};
use bytes::Bytes;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, Creation, RefusalCode, outcome};
use holdfast_types::{CELL_LOCAL, HandleId, Mode, NameLimits, NodePath};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How a node is to be opened. By default it must exist, and may be a file or a directory.
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until they are given to `Session::open`"]
pub struct OpenOptions {
    creation: Creation,
    kind: Option<NodeKind>,
    ephemeral: bool,
    contents: Bytes,
    lock_delay: Duration,
}

impl OpenOptions {
    /// The node must exist.
    pub fn new() -> Self {
        Self::default()
    }

    /// Create the node if it does not exist. Its parent must exist.
    pub fn create(mut self) -> Self {
        self.creation = Creation::May;
        self
    }

    /// Create the node; it must not exist yet.
    pub fn create_new(mut self) -> Self {
        self.creation = Creation::Must;
        self
    }

    /// The node is a directory: it must be one, or is created as one.
    pub fn directory(mut self) -> Self {
        self.kind = Some(NodeKind::Directory);
        self
    }

    /// The node is a file: it must be one. What is created is a file unless [`OpenOptions::directory`] is
    /// called.
    pub fn file(mut self) -> Self {
        self.kind = Some(NodeKind::File);
        self
    }

    /// If the node is created: it goes when no session has it open any more (a directory: and it is empty).
    pub fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }

    /// If a file is created: its first contents. None by default.
    pub fn contents(mut self, contents: impl Into<Bytes>) -> Self {
        self.contents = contents.into();
        self
    }

    /// How long nobody may take the lock in a conflicting mode after this handle has lost it (its session
    /// expired), not after a release. 0 by default, at most 60 s; whole milliseconds count. It protects
    /// resources that do not check sequencers from orders that are still on their way.
    pub fn lock_delay(mut self, lock_delay: Duration) -> Self {
        self.lock_delay = lock_delay;
        self
    }

    fn operation(self, path: &str) -> Operation {
        let kind = self.kind.map_or(wire::NodeKind::Unspecified, wire::NodeKind::from);
        Operation::Open(wire::Open {
            path: path.to_owned(),
            creation: self.creation.into(),
            kind: kind.into(),
            ephemeral: self.ephemeral,
            contents: self.contents,
            // Too long a delay is refused by the cell, with a message that names its limit.
            lock_delay_ms: u32::try_from(self.lock_delay.as_millis()).unwrap_or(u32::MAX),
            ..wire::Open::default()
        })
    }
}

/// An open node: bound to the very node it was opened on, not to its name. If that node is deleted, every call
/// fails with `NODE_GONE`, even if another is created in its place.
///
/// Dropping the handle closes it in the background, once no [`Lock`] taken through it is left.
pub struct Handle {
    inner: Arc<Inner>,
    created: bool,
    stat: Stat,
}

/// What a handle and its lock share.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) id: HandleId,
    /// The node's full name: `/ls/<cell>/<path>`.
    pub(crate) name: String,
    /// True once the handle is closed on purpose.
    pub(crate) closed: watch::Sender<bool>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !*self.closed.borrow() {
            self.shared.close_handle(self.id);
        }
    }
}

impl Inner {
    /// Does a call on this handle.
    async fn call(&self, operation: Operation) -> Result<outcome::Result, Error> {
        Ok(self.shared.call(operation).await?.result)
    }
}

impl Handle {
    pub(crate) async fn open(shared: Arc<Shared>, path: &str, options: OpenOptions) -> Result<Self, Error> {
        let completion = shared.call(options.operation(path)).await?;
        let id = completion.handle;
        let (_, cell) = shared.board.identity();
        let name = full_name(path, &cell);
        // From here on the handle is closed when `inner` is dropped.
        let inner = Arc::new(Inner { shared, id, name, closed: watch::Sender::new(false) });
        let outcome::Result::Opened(opened) = completion.result else { return Err(mismatch()) };
        Ok(Self { inner, created: opened.created, stat: values::stat(opened.stat)? })
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

    /// The node as it was when it was opened; [`Handle::stat`] asks anew.
    #[must_use]
    pub fn stat_at_open(&self) -> &Stat {
        &self.stat
    }

    /// Reads the file whole, with its metadata. Linearizable.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`WRONG_KIND`, `NODE_GONE`) or [`Error::SessionEnded`].
    pub async fn contents(&self) -> Result<Contents, Error> {
        let get = wire::GetContents { handle: self.inner.id.0 };
        match self.inner.call(Operation::GetContents(get)).await? {
            outcome::Result::Contents(contents) => contents.try_into(),
            _ => Err(mismatch()),
        }
    }

    /// Reads the node's metadata. Linearizable.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NODE_GONE`) or [`Error::SessionEnded`].
    pub async fn stat(&self) -> Result<Stat, Error> {
        let get = wire::GetStat { handle: self.inner.id.0 };
        match self.inner.call(Operation::GetStat(get)).await? {
            outcome::Result::Stat(stat) => stat.try_into(),
            _ => Err(mismatch()),
        }
    }

    /// Reads the directory's children in the order of their names. A directory of more than 1,000 children is
    /// read in pages, each of them linearizable; the whole is not one moment's view then.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`WRONG_KIND`, `NODE_GONE`) or [`Error::SessionEnded`].
    pub async fn read_dir(&self) -> Result<Vec<Entry>, Error> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let after = entries.last().map(|entry| entry.name.clone()).unwrap_or_default();
            let read = wire::ReadDir { handle: self.inner.id.0, after, limit: 0 };
            let outcome::Result::Directory(page) = self.inner.call(Operation::ReadDir(read)).await? else {
                return Err(mismatch());
            };
            if !append_page(&mut entries, page)? {
                return Ok(entries);
            }
        }
    }

    /// Writes the file whole and atomically, and returns its new content generation. Takes effect exactly
    /// once, through fail-overs too. If the future is dropped, it may or may not take effect.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`WRONG_KIND`, `NODE_GONE`, `LIMIT`) or [`Error::SessionEnded`].
    pub async fn set_contents(&self, contents: impl Into<Bytes>) -> Result<u64, Error> {
        self.write(contents.into(), None).await
    }

    /// Like [`Handle::set_contents`], but only if `generation` is still the file's content generation.
    ///
    /// # Errors
    ///
    /// As for [`Handle::set_contents`]; and `GENERATION_MISMATCH` if somebody else wrote meanwhile.
    pub async fn set_contents_if(&self, generation: u64, contents: impl Into<Bytes>) -> Result<u64, Error> {
        self.write(contents.into(), Some(generation)).await
    }

    async fn write(&self, contents: Bytes, if_generation: Option<u64>) -> Result<u64, Error> {
        let set = wire::SetContents { handle: self.inner.id.0, contents, if_generation };
        match self.inner.call(Operation::SetContents(set)).await? {
            outcome::Result::Written(written) => Ok(written.content_generation),
            _ => Err(mismatch()),
        }
    }

    /// Deletes the node. The handle stays open, and is good for nothing more. If the future is dropped, the
    /// deletion may or may not take effect.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NOT_EMPTY`, `LOCKED`, `IS_ROOT`, `NODE_GONE`) or [`Error::SessionEnded`].
    pub async fn delete(&self) -> Result<(), Error> {
        let delete = wire::Delete { handle: self.inner.id.0 };
        match self.inner.call(Operation::Delete(delete)).await? {
            outcome::Result::Deleted(_) => Ok(()),
            _ => Err(mismatch()),
        }
    }

    /// Takes the node's lock, and waits for it as long as it takes: first come, first served.
    ///
    /// Dropping the future withdraws from the queue, however far the request got, also if the lock was granted
    /// and the reply was lost. So `tokio::time::timeout` around it is all that a time limit needs.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`ALREADY_LOCKED` if this handle holds the lock or waits for it, `NODE_GONE`) or
    /// [`Error::SessionEnded`].
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(leader: holdfast::Handle) -> Result<(), Box<dyn std::error::Error>> {
    /// use holdfast::Mode;
    ///
    /// let lock = leader.acquire(Mode::Exclusive).await?;
    /// println!("primary, with {}", lock.sequencer());
    /// lock.run(async { /* serve, and pass the sequencer on with every order */ }).await?;
    /// lock.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn acquire(&self, mode: Mode) -> Result<Lock, Error> {
        self.lock(mode, false).await
    }

    /// Takes the node's lock if it can be had at once: `None` if somebody holds it in a conflicting mode, waits
    /// for it, or a lock-delay runs. Dropping the future releases what was granted.
    ///
    /// # Errors
    ///
    /// As for [`Handle::acquire`].
    pub async fn try_acquire(&self, mode: Mode) -> Result<Option<Lock>, Error> {
        match self.lock(mode, true).await {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.refusal() == Some(RefusalCode::LockConflict) => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn lock(&self, mode: Mode, try_only: bool) -> Result<Lock, Error> {
        let Inner { shared, id, .. } = &*self.inner;
        let acquire = wire::Acquire { handle: id.0, mode: values::mode_to_wire(mode).into(), try_only };
        let completion = shared.call(Operation::Acquire(acquire)).await?;
        match completion.result {
            outcome::Result::Granted(granted) => {
                Ok(Lock::new(Arc::clone(&self.inner), completion.number, mode, &granted))
            }
            _ => Err(mismatch()),
        }
    }

    /// Closes the handle, and releases its lock if it holds one: a [`Lock`] that is left counts as lost. Returns
    /// when the cell has done it. If the future is dropped, the handle closes all the same.
    ///
    /// # Errors
    ///
    /// [`Error::SessionEnded`], which has closed the handle too.
    pub async fn close(self) -> Result<(), Error> {
        self.inner.closed.send_replace(true);
        let closing = CloseOnDrop(Some(Arc::clone(&self.inner)));
        let close = wire::Close { handle: self.inner.id.0 };
        let closed = self.inner.call(Operation::Close(close)).await;
        closing.disarm();
        match closed? {
            outcome::Result::Closed(_) => Ok(()),
            _ => Err(mismatch()),
        }
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

/// Appends a page; tells whether another follows.
pub(crate) fn append_page(entries: &mut Vec<Entry>, page: wire::Directory) -> Result<bool, Error> {
    let more = page.more && !page.entries.is_empty();
    for entry in page.entries {
        entries.push(entry.try_into()?);
    }
    Ok(more)
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
