//! The transport between replicas: a stream of raft messages each way between every two of them, two more for those
//! that are urgent, and one for a snapshot when it is needed; each by a connection of its own.
//!
//! Raft messages cross it as opaque bytes. Nothing here knows what raft is, and nothing here waits for a peer:
//! what cannot be sent now is dropped, because raft sends it again when that is of use. What the core must know
//! at once is that an established connection broke, for its other end may have died (design.md §5).
//!
//! - [`holdfast_replica::admission`]: who may talk to whom; no I/O
//! - [`book`]: what is known of this replica and the others, shared by everything here
//! - [`dial`]: connecting, and the Hello that comes first
//! - [`incoming`]: the service that other replicas call
//! - [`outgoing`]: a link to another replica, kept up for ever
//! - [`snapshot`]: snapshots out and in
//!
//! Invariant: no message passes to or from a peer before its identity was checked.

mod backoff;
mod book;
mod dial;
mod incoming;
mod outgoing;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_proto::log::v1::Member;
use holdfast_proto::peer::v1::Identity;
use holdfast_replica::StateAt;
use holdfast_types::ReplicaId;
use slog::{Logger, warn};
use tokio::sync::mpsc;

use crate::driver::CoreInput;

pub(crate) use book::PeerBook;
pub(crate) use dial::{Greeter, greet};
pub(crate) use incoming::PeerService;
use outgoing::Link;

/// The outgoing side: a link to every other replica. Owned by the driver.
pub(crate) struct Peers {
    book: Arc<PeerBook>,
    core: mpsc::Sender<CoreInput>,
    links: BTreeMap<ReplicaId, Link>,
    /// Replicas of the cell that have made contact, and of which this one does not know yet that they are members:
    /// they are answered.
    contacts: BTreeMap<ReplicaId, Member>,
    logger: Logger,
}

impl Peers {
    /// No links yet.
    pub(crate) fn new(book: Arc<PeerBook>, core: mpsc::Sender<CoreInput>, logger: Logger) -> Self {
        Self { book, core, links: BTreeMap::new(), contacts: BTreeMap::new(), logger }
    }

    /// The cell's replicas are these from now on, and `removed` were and are no more: links come and go, and
    /// whom this replica listens to changes with them.
    pub(crate) fn set_members(&mut self, members: &[Member], removed: Vec<ReplicaId>) {
        self.book.set_members(members, removed);
        let Identity { replica: me, peer_address, .. } = self.book.me();
        if let Some(known) =
            members.iter().find(|member| member.id == me && member.peer_address != peer_address)
        {
            warn!(
                self.logger,
                "the others try to reach this replica at {}, and it says of itself that it is at \
                {peer_address}. An address cannot be changed: if that is not the same place, replace the replica by \
                one with a new id",
                known.peer_address
            );
        }
        self.contacts.retain(|id, _| !self.book.knows(*id));
        let contacts = &self.contacts;
        self.links.retain(|id, link| {
            let known = members.iter().chain(contacts.get(id)).find(|member| member.id == id.0);
            known.is_some_and(|member| link.leads_to(member))
        });
        for member in members.iter().filter(|member| member.id != me) {
            self.link(member);
        }
    }

    /// A replica of the cell has made contact. If this one does not know it yet, because it has not caught up, it must
    /// answer it all the same: it may be the master, or need a vote.
    pub(crate) fn add_contact(&mut self, contact: &Member) {
        let id = ReplicaId(contact.id);
        if !self.book.knows(id) && !contact.peer_address.is_empty() {
            self.contacts.insert(id, contact.clone());
            self.links.retain(|id, link| id.0 != contact.id || link.leads_to(contact));
            self.link(contact);
        }
    }

    /// Sends a raft message, or drops it. One that is urgent does not wait behind others, and may overtake them.
    pub(crate) fn send(&self, to: ReplicaId, message: Bytes, urgent: bool) {
        if let Some(link) = self.links.get(&to) {
            link.send(message, urgent);
        }
    }

    /// Sends a snapshot by a stream of its own. The core is always told how that ended.
    pub(crate) fn send_snapshot(&self, to: ReplicaId, message: Bytes, state: Box<StateAt>) {
        let member = self.links.get(&to).map(|link| link.member().clone());
        let sending = snapshot::Sending { to, member, message, state, book: Arc::clone(&self.book) };
        tokio::spawn(sending.run(self.core.clone(), self.logger.clone()));
    }

    fn link(&mut self, member: &Member) {
        let id = ReplicaId(member.id);
        self.links.entry(id).or_insert_with(|| {
            Link::start(member.clone(), Arc::clone(&self.book), self.core.clone(), self.logger.clone())
        });
    }
}

#[cfg(test)]
mod tests;
