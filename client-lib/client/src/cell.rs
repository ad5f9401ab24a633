//! A cell, as a client knows it, and the calls that need no session.

use crate::address;
use crate::channels::Channels;
use crate::error::{ConnectError, Error};
use crate::options::WriteOptions;
use crate::places::Places;
use crate::session::{
    GRACE_DEFAULT, LEASE_DEFAULT, LEASE_MAX, LEASE_MIN, LOCK_DELAY_DEFAULT, SessionBuilder,
};
use crate::tls::{Credentials, Tls};
use crate::unary::{Goal, Unary};
use crate::values::{AclNames, Contents, DirPage, Entry, NodeStat, SequencerCheck, Written};
use bytes::Bytes;
use holdfast_proto::client::v1 as wire;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use holdfast_proto::client::v1::StatusResponse as CellStatus;

/// How long a call without a session may take if the builder is not told otherwise: longer than the lease that sessions
/// have by default, since a write waits for the lease's end of a client that has died with a copy of the node.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(15);

/// A cell: where its replicas are, and the connections to them. Cheap to clone; all clones share connections.
///
/// Making one connects to nothing. The methods here need no session: each finds the master by itself, follows
/// fail-overs for as long as its time-out lasts, and reads are linearizable. What needs exactly-once writes or
/// locks goes through a [`Session`](crate::Session).
#[derive(Clone, Debug)]
pub struct Cell {
    name: Arc<str>,
    channels: Channels,
    pub(crate) unary: Unary,
    /// What sessions have that ask for nothing else.
    pub(crate) lease: Duration,
    pub(crate) grace: Duration,
    /// What handles have that ask for no other.
    pub(crate) lock_delay: Duration,
    /// Calls say that their caller means it: see [`Cell::forced`].
    pub(crate) force: bool,
}

/// Makes a [`Cell`].
#[derive(Clone, Debug)]
#[must_use = "a builder makes nothing until `connect` is called"]
pub struct CellBuilder {
    addresses: Vec<String>,
    name: String,
    timeout: Duration,
    lease: Duration,
    grace: Duration,
    lock_delay: Duration,
    tls: Option<Tls>,
    routes: BTreeMap<String, String>,
}

impl CellBuilder {
    /// Where the cell's replicas serve clients: `host:port`, also several in one text with commas between them. One
    /// that runs is enough to find the others. Addresses may begin with `http://`, or, exactly if
    /// [`CellBuilder::tls`] is called, with `https://`.
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

    /// How long a call without a session may take in all; 15 s by default ([`TIMEOUT_DEFAULT`]). A write may have to wait
    /// until the lease of a client is over that has read the node and died: the time-out had better be longer than the
    /// leases of those who read what is written.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The length of the lease of sessions that ask for no other: see
    /// [`SessionBuilder::lease`](crate::SessionBuilder::lease). 100 ms to 60 s; 12 s by default.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// The grace period of sessions that ask for no other: see
    /// [`SessionBuilder::grace`](crate::SessionBuilder::grace). 45 s by default.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The lock-delay of handles that ask for no other: see [`OpenOptions::lock_delay`](crate::OpenOptions::lock_delay).
    /// At most 60 s; 15 s by default.
    pub fn lock_delay(mut self, lock_delay: Duration) -> Self {
        self.lock_delay = lock_delay;
        self
    }

    /// Where to connect to instead of an address that the cell gives, by that address: both `host:port`. For clients
    /// that reach replicas by other addresses than those that the cell knows, such as forwarded ports. Several calls add
    /// up.
    pub fn routes<I, A, B>(mut self, routes: I) -> Self
    where
        I: IntoIterator<Item = (A, B)>,
        A: Into<String>,
        B: Into<String>,
    {
        self.routes.extend(routes.into_iter().map(|(address, to)| (address.into(), to.into())));
        self
    }

    /// Talks TLS to every replica, and with these certificates. By default nothing is encrypted, and the cell knows
    /// this client as `anonymous`.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Makes the cell. Connects to nothing yet, but reads the files of [`CellBuilder::tls`].
    ///
    /// # Errors
    ///
    /// A [`ConnectError`] that says which address is malformed, or which certificate cannot be used, and why; or that no
    /// cell grants such a lease.
    pub fn connect(self) -> Result<Cell, ConnectError> {
        if !(LEASE_MIN..=LEASE_MAX).contains(&self.lease) {
            return Err(ConnectError::Lease { lease: self.lease });
        }
        let channels = Channels::new(self.tls.map(Credentials::load).transpose()?, self.routes);
        let places = Places::new(address::parse_all(&self.addresses, channels.scheme())?.into());
        let name: Arc<str> = self.name.into();
        let unary = Unary::new(Arc::clone(&name), places, channels.clone(), self.timeout);
        let (lease, grace, lock_delay) = (self.lease, self.grace, self.lock_delay);
        Ok(Cell { name, channels, unary, lease, grace, lock_delay, force: false })
    }
}

impl Cell {
    /// A cell with these replicas: see [`CellBuilder::addresses`]. Connects to nothing yet.
    ///
    /// # Errors
    ///
    /// An [`ConnectError`] that says which address is malformed, and how.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
    /// use holdfast::{Cell, Mode, OpenOptions};
    ///
    /// let cell = Cell::connect(["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"])?;
    /// let session = cell.session().open().await?;
    /// let handle = session.open("/leader", OpenOptions::new().create()).await?;
    /// let lock = handle.acquire(Mode::Exclusive).await?;
    /// println!("primary, fenced by {}", lock.generation());
    /// # Ok(())
    /// # }
    /// ```
    pub fn connect<I, A>(addresses: I) -> Result<Self, ConnectError>
    where
        I: IntoIterator<Item = A>,
        A: AsRef<str>,
    {
        Self::builder().addresses(addresses).connect()
    }

    /// A cell with more to say than its addresses.
    pub fn builder() -> CellBuilder {
        CellBuilder {
            addresses: Vec::new(),
            name: String::new(),
            timeout: TIMEOUT_DEFAULT,
            lease: LEASE_DEFAULT,
            grace: GRACE_DEFAULT,
            lock_delay: LOCK_DELAY_DEFAULT,
            tls: None,
            routes: BTreeMap::new(),
        }
    }

    /// The addresses that the cell was made with, as `host:port`.
    #[must_use]
    pub fn addresses(&self) -> Vec<String> {
        self.places().configured().to_vec()
    }

    /// Every address at which a replica may be, as far as this program knows: those that the cell was made with, and
    /// those that it said itself. The cell is asked for them by the first call, and from then on once a minute while it
    /// is used; each session that opens or re-attaches tells them too.
    #[must_use]
    pub fn known_addresses(&self) -> Vec<String> {
        self.places().in_order()
    }

    pub(crate) fn places(&self) -> &Places {
        self.unary.places()
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
    /// fifth of the time-out to answer. Also tells who this client is to the access control lists (`principal`).
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

    /// As [`Cell::status_of`], with a hash of the replicated state as it is there (`state_hash`). Two replicas that have
    /// applied the same entry of the log (`applied_index`), and run the same version of the program, have the same
    /// hash, or one of them has gone astray. The replica reads its whole state for it, beside its work, for one caller
    /// at a time. The hash is `None` if the replica is of a version that does not know it.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] if it does not answer within the time-out, or refuses, since only those who may administer
    /// the cell may ask, and few at a time; or if `address` is malformed.
    pub async fn status_with_hash_of(&self, address: &str) -> Result<CellStatus, Error> {
        self.unary.status_with_hash_of(address).await
    }

    /// Reads a file whole, with its metadata.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NOT_FOUND`, `WRONG_KIND`, `BAD_PATH`, `PERMISSION_DENIED`) or
    /// [`Error::Unavailable`].
    pub async fn contents(&self, path: &str) -> Result<Contents, Error> {
        let request = wire::GetContentsRequest { path: path.to_owned() };
        let response = self
            .unary
            .call(Goal::Read, |mut client| {
                let request = request.clone();
                async move { client.get_contents(request).await }
            })
            .await?;
        response.contents.ok_or_else(|| Error::protocol("an answer without contents"))?.try_into()
    }

    /// Reads a node's metadata, with the state of its lock.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NOT_FOUND`, `BAD_PATH`, `PERMISSION_DENIED`) or [`Error::Unavailable`].
    pub async fn stat(&self, path: &str) -> Result<NodeStat, Error> {
        let request = wire::GetStatRequest { path: path.to_owned() };
        let response = self
            .unary
            .call(Goal::Read, |mut client| {
                let request = request.clone();
                async move { client.get_stat(request).await }
            })
            .await?;
        NodeStat::from_wire(response.stat)
    }

    /// Reads a directory's children in the order of their names. A directory of more than 1,000 children is
    /// read in pages, each of them linearizable; the whole is not one moment's view then.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NOT_FOUND`, `WRONG_KIND`, `BAD_PATH`, `PERMISSION_DENIED`) or
    /// [`Error::Unavailable`].
    pub async fn read_dir(&self, path: &str) -> Result<Vec<Entry>, Error> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let after = entries.last().map(|entry| entry.name.clone()).unwrap_or_default();
            let page = self.read_dir_page(path, &after, 0).await?;
            let more = page.more && !page.entries.is_empty();
            entries.extend(page.entries);
            if !more {
                return Ok(entries);
            }
        }
    }

    /// Reads a page of a directory's children: at most `limit` (0: as many as the cell gives, 1,000) of those whose
    /// names are greater than `after` (empty: from the first).
    ///
    /// # Errors
    ///
    /// As for [`Cell::read_dir`].
    pub async fn read_dir_page(&self, path: &str, after: &str, limit: u32) -> Result<DirPage, Error> {
        let request = wire::ReadDirRequest { path: path.to_owned(), after: after.to_owned(), limit };
        let response = self
            .unary
            .call(Goal::Read, |mut client| {
                let request = request.clone();
                async move { client.read_dir(request).await }
            })
            .await?;
        DirPage::with_locks(
            response.directory.ok_or_else(|| Error::protocol("an answer without a directory"))?,
        )
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
            force: self.force,
        };
        let goal = if options.if_generation.is_some() { Goal::Conditional } else { Goal::Once };
        let response = self
            .unary
            .call(goal, |mut client| {
                let request = request.clone();
                async move { client.set_contents(request).await }
            })
            .await?;
        let written = response.written.ok_or_else(|| Error::protocol("an answer without an outcome"))?;
        Ok(Written { content_generation: written.content_generation, created: written.created })
    }

    /// The same cell, for calls whose caller means them: [`Cell::change_settings`], [`Cell::set_acl`],
    /// [`Cell::set_contents`] and [`Cell::delete`] are done even if the caller could not undo them. Without this the cell
    /// refuses with `WOULD_LOCK_OUT` to name another bootstrap principal or to write an access control list by which the
    /// caller would not administer the cell any more, and to change access control names that it could not change back.
    /// Sessions have nothing of the kind: what they ask for is never forced.
    ///
    /// ```no_run
    /// # async fn example(cell: holdfast::Cell) -> Result<(), holdfast::Error> {
    /// use holdfast::AclNames;
    /// cell.forced().set_acl("/theirs", AclNames::new().change("others")).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn forced(&self) -> Self {
        Self { force: true, ..self.clone() }
    }

    /// Deletes a node by its name. Not repeated once it may have reached a master. If the future is dropped, the
    /// deletion may or may not take effect.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NOT_FOUND`, `NOT_EMPTY`, `LOCKED`, `IS_ROOT`, ...), [`Error::Unavailable`] if nothing
    /// was deleted, [`Error::OutcomeUnknown`] if that is not sure.
    pub async fn delete(&self, path: &str) -> Result<(), Error> {
        let request = wire::DeleteRequest { path: path.to_owned(), if_instance: None, force: self.force };
        self.delete_as(request, Goal::Once).await
    }

    /// Like [`Cell::delete`], but only if the node is still this instance ([`Stat::instance`](crate::Stat::instance)).
    ///
    /// # Errors
    ///
    /// As for [`Cell::delete`]; and `GENERATION_MISMATCH` if it is another instance.
    pub async fn delete_if(&self, path: &str, instance: u64) -> Result<(), Error> {
        let request =
            wire::DeleteRequest { path: path.to_owned(), if_instance: Some(instance), force: self.force };
        self.delete_as(request, Goal::Conditional).await
    }

    async fn delete_as(&self, request: wire::DeleteRequest, goal: Goal) -> Result<(), Error> {
        self.unary
            .call(goal, |mut client| {
                let request = request.clone();
                async move { client.delete(request).await }
            })
            .await?;
        Ok(())
    }

    /// Changes the names of a node's access control lists: those of `acl` that are not empty. Returns the node's new
    /// ACL generation. Not repeated once it may have reached a master. If the future is dropped, the change may or
    /// may not take effect.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NOT_FOUND`, `PERMISSION_DENIED`, `INVALID`), [`Error::Unavailable`] if nothing was
    /// changed, [`Error::OutcomeUnknown`] if that is not sure.
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # async fn example(cell: holdfast::Cell) -> Result<(), holdfast::Error> {
    /// use holdfast::{AclNames, WriteOptions};
    ///
    /// // Who is in the list `team`; `@admin` is a list in a list.
    /// cell.set_contents("/acl/team", "alice\nbob\n@admin\n", WriteOptions::new().create()).await?;
    /// cell.set_acl("/service", AclNames::new().read("*").write("team")).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_acl(&self, path: &str, acl: AclNames) -> Result<u64, Error> {
        self.set_acl_as(path, acl, None, Goal::Once).await
    }

    /// Like [`Cell::set_acl`], but only if `generation` is still the node's ACL generation
    /// ([`Stat::acl_generation`](crate::Stat::acl_generation)).
    ///
    /// # Errors
    ///
    /// As for [`Cell::set_acl`]; and `GENERATION_MISMATCH` if it is another.
    pub async fn set_acl_if(&self, path: &str, generation: u64, acl: AclNames) -> Result<u64, Error> {
        self.set_acl_as(path, acl, Some(generation), Goal::Conditional).await
    }

    async fn set_acl_as(
        &self,
        path: &str,
        acl: AclNames,
        if_generation: Option<u64>,
        goal: Goal,
    ) -> Result<u64, Error> {
        let request = wire::SetAclRequest {
            path: path.to_owned(),
            acl: Some(acl.into()),
            if_generation,
            force: self.force,
        };
        let response = self
            .unary
            .call(goal, |mut client| {
                let request = request.clone();
                async move { client.set_acl(request).await }
            })
            .await?;
        Ok(response.acl_generation)
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
            .call(Goal::Read, |mut client| {
                let request = request.clone();
                async move { client.check_sequencer(request).await }
            })
            .await?;
        Ok(SequencerCheck::new(response.valid, response.reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_time_out_is_longer_than_the_default_lease() {
        // By the drift of clocks, and by what a round and a commit take.
        assert!(TIMEOUT_DEFAULT > LEASE_DEFAULT.mul_f64(1.01) + Duration::from_secs(1));
    }

    #[test]
    fn a_lease_that_no_cell_grants_is_refused_when_the_cell_is_made() {
        let with = |ms| Cell::builder().addresses(["a:1"]).lease(Duration::from_millis(ms)).connect();
        for ms in [100, 60_000] {
            with(ms).unwrap();
        }
        for ms in [0, 99, 60_001] {
            let error = with(ms).unwrap_err();
            assert!(matches!(error, ConnectError::Lease { .. }) && !error.is_retryable(), "{error}");
        }
    }
}
