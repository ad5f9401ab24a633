//! From the wire to the library's own values, and back.

use super::{
    AclNames, Contents, DirPage, Entry, HandleInfo, LockHolder, LockStat, NodeKind, NodeStat, Stat, Uses,
};
use crate::error::Error;
use crate::events::EventKind;
use holdfast_proto::client::v1 as wire;
use holdfast_types::Mode;
use std::time::Duration;

impl Stat {
    /// Reads a stat whose names of access control lists are known already.
    pub(crate) fn from_wire(stat: &wire::Stat, acl: AclNames) -> Result<Self, Error> {
        let kind = match stat.kind() {
            wire::NodeKind::File => NodeKind::File,
            wire::NodeKind::Directory => NodeKind::Directory,
            wire::NodeKind::Unspecified => return Err(Error::protocol("a stat without a kind")),
        };
        Ok(Self {
            kind,
            ephemeral: stat.ephemeral,
            instance: stat.instance,
            content_generation: stat.content_generation,
            acl_generation: stat.acl_generation,
            children_generation: stat.children_generation,
            length: stat.length,
            checksum: stat.checksum,
            children: stat.children,
            acl,
        })
    }
}

impl NodeStat {
    /// A stat that has to be there.
    pub(crate) fn from_wire(stat: Option<wire::Stat>) -> Result<Self, Error> {
        let stat = stat.ok_or_else(no_stat)?;
        Ok(Self { stat: Stat::from_wire(&stat, AclNames::from_wire(stat.acl.as_ref()))?, lock: stat.into() })
    }
}

impl AclNames {
    pub(crate) fn from_wire(acl: Option<&wire::AclNames>) -> Self {
        acl.map_or_else(Self::default, |acl| Self {
            read: acl.read.as_str().into(),
            write: acl.write.as_str().into(),
            change: acl.change.as_str().into(),
        })
    }

    fn is(&self, acl: Option<&wire::AclNames>) -> bool {
        acl.is_some_and(|acl| {
            *self.read == acl.read && *self.write == acl.write && *self.change == acl.change
        })
    }
}

impl From<AclNames> for wire::AclNames {
    fn from(acl: AclNames) -> Self {
        Self { read: acl.read.to_string(), write: acl.write.to_string(), change: acl.change.to_string() }
    }
}

impl From<Uses> for wire::Uses {
    fn from(Uses { read, write, change_acl }: Uses) -> Self {
        Self { read, write, change_acl }
    }
}

impl From<wire::Stat> for LockStat {
    fn from(stat: wire::Stat) -> Self {
        let lock = stat.lock.unwrap_or_default();
        Self {
            generation: stat.lock_generation,
            mode: mode_from_wire(lock.mode()),
            holders: lock
                .holders
                .into_iter()
                .map(|holder| LockHolder { session: holder.session, client: holder.client })
                .collect(),
            holder_count: lock.holder_count,
            waiting: lock.waiting,
            delayed: lock.delayed,
            open_handles: stat.open_handles,
        }
    }
}

impl TryFrom<wire::Contents> for Contents {
    type Error = Error;

    fn try_from(contents: wire::Contents) -> Result<Self, Error> {
        Ok(Self { stat: NodeStat::from_wire(contents.stat)?.stat, bytes: contents.contents })
    }
}

impl DirPage {
    /// With the locks of the children, as of the same moment.
    pub(crate) fn with_locks(page: wire::Directory) -> Result<Self, Error> {
        let mut with_locks = Self::from_wire(&page)?;
        for (entry, told) in with_locks.entries.iter_mut().zip(page.entries) {
            entry.lock = told.stat.map(LockStat::from);
        }
        Ok(with_locks)
    }

    pub(crate) fn from_wire(page: &wire::Directory) -> Result<Self, Error> {
        let stat = page.stat.as_ref().ok_or_else(no_stat)?;
        // Most children have the names that they inherited: those are kept once.
        let mut acl = AclNames::from_wire(stat.acl.as_ref());
        let stat = Stat::from_wire(stat, acl.clone())?;
        let mut entries = Vec::with_capacity(page.entries.len());
        for entry in &page.entries {
            let stat = entry.stat.as_ref().ok_or_else(no_stat)?;
            if !acl.is(stat.acl.as_ref()) {
                acl = AclNames::from_wire(stat.acl.as_ref());
            }
            let stat = Stat::from_wire(stat, acl.clone())?;
            entries.push(Entry { name: entry.name.clone(), stat, lock: None });
        }
        Ok(Self { stat, entries, more: page.more })
    }
}

impl From<wire::HandleInfo> for HandleInfo {
    fn from(info: wire::HandleInfo) -> Self {
        let uses = info.uses.unwrap_or_default();
        Self {
            session: info.session,
            handle: info.handle,
            uses: Uses { read: uses.read, write: uses.write, change_acl: uses.change_acl },
            events: info.events().filter_map(EventKind::from_wire).collect(),
            holds: mode_from_wire(info.holds()),
            waits: mode_from_wire(info.waits()),
            client: info.client,
            path: info.path,
            instance: info.instance,
            gone: info.gone,
            caching: info.caching,
            lock_delay: Duration::from_millis(info.lock_delay_ms.into()),
            sequencer: Some(info.sequencer).filter(|text| !text.is_empty()),
        }
    }
}

impl From<NodeKind> for wire::NodeKind {
    fn from(kind: NodeKind) -> Self {
        match kind {
            NodeKind::File => Self::File,
            NodeKind::Directory => Self::Directory,
        }
    }
}

pub(crate) fn no_stat() -> Error {
    Error::protocol("an answer without a stat")
}

/// `None` for a free lock.
pub(crate) fn mode_from_wire(mode: wire::LockMode) -> Option<Mode> {
    match mode {
        wire::LockMode::Exclusive => Some(Mode::Exclusive),
        wire::LockMode::Shared => Some(Mode::Shared),
        wire::LockMode::Unspecified => None,
    }
}

/// The mode as requests say it.
pub(crate) fn mode_to_wire(mode: Mode) -> wire::LockMode {
    match mode {
        Mode::Exclusive => wire::LockMode::Exclusive,
        Mode::Shared => wire::LockMode::Shared,
    }
}
