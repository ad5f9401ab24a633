//! A cell, as a client knows it, and the calls that need no session.

use crate::address;
use crate::channels::Channels;
use crate::error::{AddressError, Error};
use crate::handle::append_page;
use crate::session::SessionBuilder;
use crate::unary::{Repeat, Unary};
use crate::values::{self, Contents, Entry, NodeKind, SequencerCheck, Stat, Written};
use bytes::Bytes;
use holdfast_proto::client::v1 as wire;
use std::sync::Arc;
use std::time::Duration;

pub use holdfast_proto::client::v1::StatusResponse as CellStatus;

/// How long a call without a session looks for a master if the builder is not told otherwise.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);

/// A cell: where its replicas are, and the connections to them. Cheap to clone; all clones share connections.
///
/// Making one connects to nothing. The methods here need no session: each finds the master by itself, follows
/// fail-overs for as long as its time-out lasts, and reads are linearizable. What needs exactly-once writes or
/// locks goes through a [`Session`](crate::Session).
#[derive(Clone, Debug)]
pub struct Cell {
    addresses: Arc<[String]>,
    name: Arc<str>,
    channels: Channels,
    pub(crate) unary: Unary,
}

/// Makes a [`Cell`].
#[derive(Clone, Debug)]
#[must_use = "a builder makes nothing until `connect` is called"]
pub struct CellBuilder {
    addresses: Vec<String>,
    name: String,
    timeout: Duration,
}

impl CellBuilder {
    /// Where the cell's replicas serve clients: `host:port` or `http://host:port`, also several in one text with
    /// commas between them. One that runs is enough to find the others.
    pub fn addresses<I, A>(mut self, addresses: I) -> Self
    where
        I: IntoIterator<Item = A>,
        A: AsRef<str>,
    {
        self.addresses.extend(addresses.into_iter().map(|address| address.as_ref().to_owned()));
        self
    }

    /// The name of the cell that is meant: a session with a cell of another name is refused. By default
    /// whichever cell answers is meant.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long a call without a session may take in all; 10 s by default.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes the cell. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// An [`AddressError`] that says which address is malformed, and how.
    pub fn connect(self) -> Result<Cell, AddressError> {
        let addresses: Arc<[String]> = address::parse_all(&self.addresses)?.into();
        let channels = Channels::default();
        let unary = Unary::new(Arc::clone(&addresses), channels.clone(), self.timeout);
        Ok(Cell { addresses, name: self.name.into(), channels, unary })
    }
}

/// On what conditions [`Cell::set_contents`] writes. By default: whatever is there, but something must be.
#[derive(Clone, Debug, Default)]
#[must_use = "options do nothing until they are given to `Cell::set_contents`"]
pub struct WriteOptions {
    if_generation: Option<u64>,
    create: bool,
    kind: Option<NodeKind>,
}

impl WriteOptions {
    /// The file must exist.
    pub fn new() -> Self {
        Self::default()
    }

    /// Write only if this is still the file's content generation. 0: the file must not exist yet, and is
    /// created.
    pub fn if_generation(mut self, generation: u64) -> Self {
        self.if_generation = Some(generation);
        self
    }

    /// Create the file, permanent, if it does not exist.
    pub fn create(mut self) -> Self {
        self.create = true;
        self
    }

    /// What to create: a file by default. A directory takes no contents, and implies `if_generation(0)`.
    pub fn kind(mut self, kind: NodeKind) -> Self {
        self.kind = Some(kind);
        if kind == NodeKind::Directory {
            self.if_generation = Some(0);
        }
        self
    }
}

impl Cell {
    /// A cell with these replicas: see [`CellBuilder::addresses`]. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// An [`AddressError`] that says which address is malformed, and how.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use holdfast::{Cell, Mode, OpenOptions};
    ///
    /// let cell = Cell::connect(["127.0.0.1:7100", "127.0.0.1:7101", "127.0.0.1:7102"])?;
    /// let session = cell.session().open().await?;
    /// let handle = session.open("/leader", OpenOptions::new().create()).await?;
    /// let lock = handle.acquire(Mode::Exclusive).await?;
    /// println!("primary, fenced by {}", lock.generation());
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect<I, A>(addresses: I) -> Result<Self, AddressError>
    where
        I: IntoIterator<Item = A>,
        A: AsRef<str>,
    {
        Self::builder().addresses(addresses).connect()
    }

    /// A cell with more to say than its addresses.
    pub fn builder() -> CellBuilder {
        CellBuilder { addresses: Vec::new(), name: String::new(), timeout: TIMEOUT_DEFAULT }
    }

    /// The addresses that the cell was made with, as `host:port`.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.addresses.to_vec()
    }

    pub(crate) fn expected_name(&self) -> &str {
        &self.name
    }

    pub(crate) fn channels(&self) -> Channels {
        self.channels.clone()
    }

    /// A session with the cell, to be opened.
    pub fn session(&self) -> SessionBuilder {
        SessionBuilder::new(self.clone())
    }

    /// What the master knows of the cell; or, if none is found, what some replica knows. Each replica is given a
    /// fifth of the time-out to answer.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if no replica answers.
    pub async fn status(&self) -> Result<CellStatus, Error> {
        self.unary.status().await
    }

    /// What the replica at `address` knows of itself and the cell.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if it does not answer within a fifth of the time-out, or `address` is malformed.
    pub async fn status_of(&self, address: &str) -> Result<CellStatus, Error> {
        self.unary.status_of(address).await
    }

    /// Reads a file whole, with its metadata.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NOT_FOUND`, `WRONG_KIND`, `BAD_PATH`) or [`Error::Unavailable`].
    pub async fn contents(&self, path: &str) -> Result<Contents, Error> {
        let request = wire::GetContentsRequest { path: path.to_owned() };
        let response = self
            .unary
            .call(Repeat::Always, |mut client| {
                let request = request.clone();
                async move { client.get_contents(request).await }
            })
            .await?;
        response.contents.ok_or_else(|| Error::protocol("an answer without contents"))?.try_into()
    }

    /// Reads a node's metadata.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NOT_FOUND`, `BAD_PATH`) or [`Error::Unavailable`].
    pub async fn stat(&self, path: &str) -> Result<Stat, Error> {
        let request = wire::GetStatRequest { path: path.to_owned() };
        let response = self
            .unary
            .call(Repeat::Always, |mut client| {
                let request = request.clone();
                async move { client.get_stat(request).await }
            })
            .await?;
        values::stat(response.stat)
    }

    /// Reads a directory's children in the order of their names. A directory of more than 1,000 children is
    /// read in pages, each of them linearizable; the whole is not one moment's view then.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NOT_FOUND`, `WRONG_KIND`, `BAD_PATH`) or [`Error::Unavailable`].
    pub async fn read_dir(&self, path: &str) -> Result<Vec<Entry>, Error> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let after = entries.last().map(|entry| entry.name.clone()).unwrap_or_default();
            let request = wire::ReadDirRequest { path: path.to_owned(), after, limit: 0 };
            let response = self
                .unary
                .call(Repeat::Always, |mut client| {
                    let request = request.clone();
                    async move { client.read_dir(request).await }
                })
                .await?;
            let page = response.directory.ok_or_else(|| Error::protocol("an answer without a directory"))?;
            if !append_page(&mut entries, page)? {
                return Ok(entries);
            }
        }
    }

    /// Writes a file whole and atomically, by its name.
    ///
    /// Not exactly-once: unless the write is conditional, it is not repeated once it may have reached a master.
    /// If the future is dropped, the write may or may not take effect.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NOT_FOUND`, `GENERATION_MISMATCH`, `WRONG_KIND`, `LIMIT`, ...),
    /// [`Error::Unavailable`] if nothing was written, [`Error::OutcomeUnknown`] if that is not sure.
    pub async fn set_contents(
        &self,
        path: &str,
        contents: impl Into<Bytes>,
        options: WriteOptions,
    ) -> Result<Written, Error> {
        let kind = options.kind.map_or(wire::NodeKind::Unspecified, wire::NodeKind::from);
        let request = wire::SetContentsRequest {
            path: path.to_owned(),
            contents: contents.into(),
            if_generation: options.if_generation,
            create: options.create,
            kind: kind.into(),
        };
        let repeat = if options.if_generation.is_some() { Repeat::Conditional } else { Repeat::Never };
        let response = self
            .unary
            .call(repeat, |mut client| {
                let request = request.clone();
                async move { client.set_contents(request).await }
            })
            .await?;
        let written = response.written.ok_or_else(|| Error::protocol("an answer without an outcome"))?;
        Ok(Written { content_generation: written.content_generation, created: written.created })
    }

    /// Deletes a node by its name. Not repeated once it may have reached a master. If the future is dropped, the
    /// deletion may or may not take effect.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NOT_FOUND`, `NOT_EMPTY`, `LOCKED`, `IS_ROOT`, ...), [`Error::Unavailable`] if nothing
    /// was deleted, [`Error::OutcomeUnknown`] if that is not sure.
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        let request = wire::DeleteRequest { path: path.to_owned(), if_instance: None };
        self.delete_as(request, Repeat::Never).await
    }

    /// Like [`Cell::delete`], but only if the node is still this instance ([`Stat::instance`]).
    ///
    /// # Errors
    ///
    /// As for [`Cell::delete`]; and `GENERATION_MISMATCH` if it is another instance.
    pub async fn delete_if(&self, path: &str, instance: u64) -> Result<(), Error> {
        let request = wire::DeleteRequest { path: path.to_owned(), if_instance: Some(instance) };
        self.delete_as(request, Repeat::Conditional).await
    }

    async fn delete_as(&self, request: wire::DeleteRequest, repeat: Repeat) -> Result<(), Error> {
        self.unary
            .call(repeat, |mut client| {
                let request = request.clone();
                async move { client.delete(request).await }
            })
            .await?;
        Ok(())
    }

    /// Tells whether a sequencer is valid now: whether the lock is held, as it says. For a server that is handed
    /// one with an order. A [`Sequencer`](crate::Sequencer) gives its text by `to_string()`.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`BAD_SEQUENCER`, `FOREIGN_CELL`) or [`Error::Unavailable`].
    pub async fn check_sequencer(&self, sequencer: impl ToString) -> Result<SequencerCheck, Error> {
        let request = wire::CheckSequencerRequest { sequencer: sequencer.to_string() };
        let response = self
            .unary
            .call(Repeat::Always, |mut client| {
                let request = request.clone();
                async move { client.check_sequencer(request).await }
            })
            .await?;
        Ok(if response.valid { SequencerCheck::Valid } else { SequencerCheck::Invalid(response.reason) })
    }
}
