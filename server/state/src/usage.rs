//! How much of the cell is in use: sessions, nodes and bytes, in all and by principal; and who may have more.
//!
//! A share of each is kept for administrators, so that a cell which clients have filled can still be set right.
//! Invariant: the counts are those of the nodes and sessions that are there. They are no part of a snapshot: whoever
//! reads one counts anew.

use std::ops::Bound;

use holdfast_proto::client::v1::{AclNames, ListUsageResponse, PrincipalUsage, Refusal};
use holdfast_types::Principal;
use imbl::OrdMap;

use crate::node::Node;
use crate::tree::NodeKey;
use crate::{State, refusal};

/// The most principals of a page.
const PAGE_PRINCIPALS_MAX: usize = 1000;

/// What one principal has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Share {
    /// Its sessions.
    pub(crate) sessions: u64,
    /// The nodes that it created.
    pub(crate) nodes: u64,
    /// The bytes of their contents and names.
    pub(crate) bytes: u64,
}

/// What is in use.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Usage {
    /// The bytes of all contents and names.
    bytes: u64,
    /// What each principal has that has anything. What was created before state version 2 is in nobody's share.
    shares: OrdMap<Principal, Share>,
}

/// The bytes that a node counts for: its contents, its path, and the names of its access control lists.
pub(crate) fn node_bytes(key: &NodeKey, node: &Node) -> u64 {
    (key.path().as_str().len() + node.contents.len()) as u64 + acl_bytes(&node.acl)
}

/// The bytes that a node's names of access control lists count for.
pub(crate) fn acl_bytes(acl: &AclNames) -> u64 {
    (acl.read.len() + acl.write.len() + acl.change.len()) as u64
}

impl Usage {
    /// Counts what a state has.
    pub(crate) fn of(state: &State) -> Self {
        let mut usage = Self::default();
        for (key, node) in state.tree.iter_after(None) {
            usage.add_node(key, node);
        }
        for (_, session) in state.sessions.iter_after(None) {
            usage.add_session(session.principal());
        }
        usage
    }

    /// A node is there.
    pub(crate) fn add_node(&mut self, key: &NodeKey, node: &Node) {
        let bytes = node_bytes(key, node);
        self.bytes += bytes;
        self.change(node.owner.as_ref(), |share| {
            share.nodes += 1;
            share.bytes += bytes;
        });
    }

    /// A node is no more.
    pub(crate) fn remove_node(&mut self, key: &NodeKey, node: &Node) {
        let bytes = node_bytes(key, node);
        self.bytes -= bytes;
        self.change(node.owner.as_ref(), |share| {
            share.nodes -= 1;
            share.bytes -= bytes;
        });
    }

    /// A node counts for another number of bytes than before.
    pub(crate) fn resize_node(&mut self, owner: Option<&Principal>, before: u64, after: u64) {
        self.bytes = self.bytes - before + after;
        self.change(owner, |share| share.bytes = share.bytes - before + after);
    }

    /// A session is there.
    pub(crate) fn add_session(&mut self, principal: &Principal) {
        self.change(Some(principal), |share| share.sessions += 1);
    }

    /// A session is no more.
    pub(crate) fn remove_session(&mut self, principal: &Principal) {
        self.change(Some(principal), |share| share.sessions -= 1);
    }

    /// The principal's name as it is kept already, so that a million nodes share one.
    pub(crate) fn interned(&self, principal: &Principal) -> Principal {
        self.shares.get_key_value(principal).map_or_else(|| principal.clone(), |(kept, _)| kept.clone())
    }

    fn change(&mut self, principal: Option<&Principal>, change: impl FnOnce(&mut Share)) {
        let Some(principal) = principal else { return };
        let mut share = self.shares.get(principal).copied().unwrap_or_default();
        change(&mut share);
        if share == Share::default() {
            self.shares.remove(principal);
        } else if let Some(kept) = self.shares.get_mut(principal) {
            *kept = share;
        } else {
            self.shares.insert(principal.clone(), share);
        }
    }
}

impl State {
    /// The bytes of all contents and names.
    #[must_use]
    pub fn bytes_used(&self) -> u64 {
        self.usage.bytes
    }

    /// A page of what each principal has, in the order of their names, from after `after` on; 0 for the longest page.
    #[must_use]
    pub fn list_usage(&self, after: &str, limit: u32) -> ListUsageResponse {
        let principals_max = match limit {
            0 => PAGE_PRINCIPALS_MAX,
            limit => PAGE_PRINCIPALS_MAX.min(limit as usize),
        };
        // Only the first page begins after what is no principal's name.
        let start = Principal::parse(after).map_or(Bound::Unbounded, Bound::Excluded);
        let mut shares = self.usage.shares.range::<_, Principal>((start, Bound::Unbounded));
        let page = shares.by_ref().take(principals_max).map(|(principal, share)| PrincipalUsage {
            principal: principal.as_str().to_owned(),
            sessions: share.sessions,
            nodes: share.nodes,
            bytes: share.bytes,
        });
        let principals = page.collect();
        ListUsageResponse {
            principals,
            more: shares.next().is_some(),
            revision: self.revision.0,
            sessions: self.sessions.len() as u64,
            nodes: self.tree.len() as u64,
            bytes: self.usage.bytes,
        }
    }

    /// Refuses a session that would be one too many.
    pub(crate) fn check_room_for_session(&self, principal: &Principal) -> Result<(), Refusal> {
        let (wanted, max) = (self.sessions.len() as u64 + 1, self.settings.sessions_max);
        self.check_room(principal, "sessions", wanted, "sessions_max", max)
    }

    /// Refuses a node that would be one too many.
    pub(crate) fn check_room_for_node(&self, principal: &Principal) -> Result<(), Refusal> {
        let (wanted, max) = (self.tree.len() as u64 + 1, self.settings.nodes_max);
        self.check_room(principal, "nodes", wanted, "nodes_max", max)
    }

    /// Refuses bytes that would be too many. What makes a node smaller, or leaves its size, is never refused.
    pub(crate) fn check_room_for_bytes(
        &self,
        principal: &Principal,
        before: u64,
        after: u64,
    ) -> Result<(), Refusal> {
        if self.version < 2 || after <= before {
            return Ok(());
        }
        let wanted = self.usage.bytes - before + after;
        let max = self.settings.total_bytes_max;
        self.check_room(principal, "bytes of all contents and names", wanted, "total_bytes_max", max)
    }

    fn check_room(
        &self,
        principal: &Principal,
        what: &str,
        wanted: u64,
        setting: &str,
        max: u64,
    ) -> Result<(), Refusal> {
        if self.version < 2 {
            return if wanted <= max { Ok(()) } else { Err(refusal::limit(what, wanted, setting, max)) };
        }
        let percent = u64::from(self.settings.reserve_percent);
        let reserved = u64::try_from(u128::from(max) * u128::from(percent) / 100).unwrap_or(max);
        if wanted <= max - reserved || wanted <= max && self.draws_on_reserve(principal) {
            return Ok(());
        }
        let full = refusal::Full { what, wanted, setting, max, reserved, percent };
        Err(refusal::full(&full, wanted > max))
    }

    /// Whether a principal may use what is kept for administrators. Without TLS everybody is anonymous, and the reserve
    /// would be everybody's.
    fn draws_on_reserve(&self, principal: &Principal) -> bool {
        principal.as_str() != Principal::ANONYMOUS && self.may_administer(principal).is_ok()
    }
}
