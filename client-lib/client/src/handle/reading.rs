//! Reading through a handle, from the cache where it can be believed (P§2.7), or from the master.
//!
//! The invariant (I5): both give the same answer. Whatever is in the cache, no newer value of it has been shown to
//! anybody.

use super::{Handle, mismatch};
use crate::error::Error;
use crate::values::{Contents, DirPage, Entry, LockStat, Stat};
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, outcome};

impl Handle {
    /// Reads the file whole, with its metadata. Linearizable. If it is cached, this takes no message, no lock, and
    /// does not wait. Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`WRONG_KIND`, `NODE_GONE`, `WRONG_USE`, `SEQUENCER_INVALID`), [`Error::Poisoned`] or
    /// [`Error::SessionEnded`].
    pub async fn contents(&self) -> Result<Contents, Error> {
        if let Some(contents) = self.cached_contents() {
            return Ok(contents);
        }
        let get = wire::GetContents { handle: self.inner.id.0 };
        match self.call(Operation::GetContents(get)).await? {
            outcome::Result::Contents(contents) => self.inner.contents(&contents),
            _ => Err(mismatch()),
        }
    }

    /// The file, if it is cached and the session valid at this moment: as good as [`Handle::contents`], and never
    /// waits. `None` says nothing about the file.
    #[must_use]
    pub fn cached_contents(&self) -> Option<Contents> {
        let contents = self.inner.usable_slot()?.contents(|| self.inner.shared.board.now())?;
        self.inner.contents(&contents).ok()
    }

    /// Reads the node's metadata. Linearizable. If they are cached, this takes no message, no lock, and does not
    /// wait. Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NODE_GONE`, `WRONG_USE`, `SEQUENCER_INVALID`), [`Error::Poisoned`] or
    /// [`Error::SessionEnded`].
    pub async fn stat(&self) -> Result<Stat, Error> {
        match self.cached_stat() {
            Some(stat) => Ok(stat),
            None => self.inner.stat(Some(&self.stat_at_master().await?)),
        }
    }

    /// The node's metadata, if they are cached and the session valid at this moment; never waits. `None` says nothing
    /// about the node.
    #[must_use]
    pub fn cached_stat(&self) -> Option<Stat> {
        let stat = self.inner.usable_slot()?.stat(|| self.inner.shared.board.now())?;
        self.inner.stat(Some(&stat)).ok()
    }

    /// How the node's lock fares, and how many have the node open. Always asks the master. Dropping the future changes
    /// nothing.
    ///
    /// # Errors
    ///
    /// As for [`Handle::stat`].
    pub async fn lock_stat(&self) -> Result<LockStat, Error> {
        Ok(self.stat_at_master().await?.into())
    }

    async fn stat_at_master(&self) -> Result<wire::Stat, Error> {
        let get = wire::GetStat { handle: self.inner.id.0 };
        match self.call(Operation::GetStat(get)).await? {
            outcome::Result::Stat(stat) => Ok(*stat),
            _ => Err(mismatch()),
        }
    }

    /// Reads the directory's children in the order of their names, with their metadata. A directory of more than
    /// 1,000 children is read in pages, each of them linearizable; the whole is not one moment's view then, and not
    /// cached. Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`WRONG_KIND`, `NODE_GONE`, `WRONG_USE`, `SEQUENCER_INVALID`), [`Error::Poisoned`] or
    /// [`Error::SessionEnded`].
    pub async fn read_dir(&self) -> Result<Vec<Entry>, Error> {
        if let Some(entries) = self.cached_read_dir() {
            return Ok(entries);
        }
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let after = entries.last().map(|entry| entry.name.clone()).unwrap_or_default();
            let page = self.read_dir_page(&after, 0).await?;
            let more = page.more && !page.entries.is_empty();
            entries.extend(page.entries);
            if !more {
                return Ok(entries);
            }
        }
    }

    /// The directory's children, all of them, if they are cached and the session valid at this moment; never waits.
    /// `None` says nothing about the directory.
    #[must_use]
    pub fn cached_read_dir(&self) -> Option<Vec<Entry>> {
        let children = self.inner.usable_slot()?.children(|| self.inner.shared.board.now())?;
        Some(DirPage::from_wire(&children).ok()?.entries)
    }

    /// Reads a page of the directory's children from the master: at most `limit` (0: as many as the cell gives, 1,000)
    /// of those whose names are greater than `after` (empty: from the first). Dropping the future changes nothing.
    ///
    /// # Errors
    ///
    /// As for [`Handle::read_dir`].
    pub async fn read_dir_page(&self, after: &str, limit: u32) -> Result<DirPage, Error> {
        let read = wire::ReadDir { handle: self.inner.id.0, after: after.to_owned(), limit };
        match self.call(Operation::ReadDir(read)).await? {
            outcome::Result::Directory(page) => DirPage::from_wire(&page),
            _ => Err(mismatch()),
        }
    }
}

impl super::Inner {
    fn contents(&self, contents: &wire::Contents) -> Result<Contents, Error> {
        Ok(Contents { bytes: contents.contents.clone(), stat: self.stat(contents.stat.as_ref())? })
    }
}
