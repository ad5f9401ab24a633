//! Changing a node through a handle. Each change takes effect exactly once, through fail-overs too (I6).

use super::{Handle, mismatch};
use crate::error::Error;
use crate::values::AclNames;
use bytes::Bytes;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, outcome};

impl Handle {
    /// Writes the file whole and atomically, and returns its new content generation. If the future is dropped, it may
    /// or may not take effect; the handle is as good as before.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`WRONG_KIND`, `NODE_GONE`, `LIMIT`, `WRONG_USE`, `SEQUENCER_INVALID`; `BAD_ACL` for a file
    /// in `/acl`), [`Error::Poisoned`] or [`Error::SessionEnded`].
    pub async fn set_contents(&self, contents: impl Into<Bytes>) -> Result<u64, Error> {
        self.write(contents.into(), None).await
    }

    /// Like [`Handle::set_contents`], but only if `generation` is still the file's content generation
    /// ([`Stat::content_generation`](crate::Stat::content_generation)).
    ///
    /// # Errors
    ///
    /// As for [`Handle::set_contents`]; and `GENERATION_MISMATCH` if somebody else wrote meanwhile.
    pub async fn set_contents_if(&self, generation: u64, contents: impl Into<Bytes>) -> Result<u64, Error> {
        self.write(contents.into(), Some(generation)).await
    }

    async fn write(&self, contents: Bytes, if_generation: Option<u64>) -> Result<u64, Error> {
        let set = wire::SetContents { handle: self.inner.id.0, contents, if_generation };
        match self.call(Operation::SetContents(set)).await? {
            outcome::Result::Written(written) => Ok(written.content_generation),
            _ => Err(mismatch()),
        }
    }

    /// Changes the names of the node's access control lists: those of `acl` that are not empty. Returns the node's new
    /// ACL generation. Handles that are open stay as they are. If the future is dropped, it may or may not take
    /// effect.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`WRONG_USE` unless the handle was opened with [`Uses::change_acl`](crate::Uses), `INVALID`,
    /// `NODE_GONE`, `SEQUENCER_INVALID`), [`Error::Poisoned`] or [`Error::SessionEnded`].
    pub async fn set_acl(&self, acl: AclNames) -> Result<u64, Error> {
        self.change_acl(acl, None).await
    }

    /// Like [`Handle::set_acl`], but only if `generation` is still the node's ACL generation
    /// ([`Stat::acl_generation`](crate::Stat::acl_generation)).
    ///
    /// # Errors
    ///
    /// As for [`Handle::set_acl`]; and `GENERATION_MISMATCH` if somebody else changed them meanwhile.
    pub async fn set_acl_if(&self, generation: u64, acl: AclNames) -> Result<u64, Error> {
        self.change_acl(acl, Some(generation)).await
    }

    async fn change_acl(&self, acl: AclNames, if_generation: Option<u64>) -> Result<u64, Error> {
        let set = wire::SetAcl { handle: self.inner.id.0, acl: Some(acl.into()), if_generation };
        match self.call(Operation::SetAcl(Box::new(set))).await? {
            outcome::Result::AclSet(set) => Ok(set.acl_generation),
            _ => Err(mismatch()),
        }
    }

    /// Deletes the node. The handle stays open, and is good for nothing more. If the future is dropped, the
    /// deletion may or may not take effect.
    ///
    /// # Errors
    ///
    /// [`Error::Refused`] (`NOT_EMPTY`, `LOCKED`, `IS_ROOT`, `NODE_GONE`, `WRONG_USE`, `SEQUENCER_INVALID`),
    /// [`Error::Poisoned`] or [`Error::SessionEnded`].
    pub async fn delete(&self) -> Result<(), Error> {
        let delete = wire::Delete { handle: self.inner.id.0 };
        match self.call(Operation::Delete(delete)).await? {
            outcome::Result::Deleted(_) => Ok(()),
            _ => Err(mismatch()),
        }
    }
}
