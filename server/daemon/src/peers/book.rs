//! What is known of this replica and of the others, shared by everything that talks to peers.
//!
//! It also holds the two signals that a peer can raise in a replica that waits to join: that the cell has made
//! contact, and that the cell knows this replica's id by other data. The lock is held for look-ups only, never
//! across an await.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use holdfast_proto::log::v1::Member;
use holdfast_proto::peer::v1::{Founding, HelloRequest, HelloResponse, Identity};
use holdfast_replica::admission::{Denial, Roster};
use holdfast_types::ReplicaId;
use tokio::sync::watch;

use crate::tls::Tls;

/// The book.
#[derive(Debug)]
pub(crate) struct PeerBook {
    inner: Mutex<Book>,
    /// How to connect to others; `None`: without TLS.
    tls: Option<Arc<Tls>>,
    /// Where to dial others instead of their addresses: see [`Config`](crate::config::Config).
    routes: BTreeMap<ReplicaId, String>,
    /// The id of the cell that has made contact, if this replica is waiting for one.
    contacted: watch::Sender<Option<u64>>,
    /// Changes when the members do: whoever was admitted before may not be any more.
    members: watch::Sender<()>,
    /// Why this replica must stop, once a peer that must know has said so. Only ever set once.
    stop: watch::Sender<Option<String>>,
}

#[derive(Debug)]
struct Book {
    roster: Roster,
    /// How this replica founds or founded the cell; `None` if it joins or joined.
    founding: Option<Founding>,
    /// The newest stream of messages from each peer: an older one that breaks says nothing of the peer.
    streams: BTreeMap<ReplicaId, u64>,
}

impl PeerBook {
    /// A book that knows this replica only.
    pub(crate) fn new(me: Identity, founding: Option<Founding>, tls: Option<Arc<Tls>>) -> Self {
        let roster = Roster { me, members: BTreeMap::new(), removed: Vec::new() };
        Self {
            inner: Mutex::new(Book { roster, founding, streams: BTreeMap::new() }),
            tls,
            routes: BTreeMap::new(),
            contacted: watch::Sender::new(None),
            members: watch::Sender::new(()),
            stop: watch::Sender::new(None),
        }
    }

    /// The same, but others are dialled where `routes` says.
    pub(crate) fn with_routes(self, routes: BTreeMap<ReplicaId, String>) -> Self {
        Self { routes, ..self }
    }

    /// Where to dial the replica whose address in the cell is `address`.
    pub(super) fn route<'a>(&'a self, id: ReplicaId, address: &'a str) -> &'a str {
        self.routes.get(&id).map_or(address, String::as_str)
    }

    /// This replica.
    pub(crate) fn me(&self) -> Identity {
        self.book().roster.me.clone()
    }

    /// Where this replica serves clients, once the cell has said that it belongs to it.
    pub(super) fn my_client_address(&self) -> Option<String> {
        let roster = &self.book().roster;
        roster.members.get(&ReplicaId(roster.me.replica)).map(|member| member.client_address.clone())
    }

    /// How to connect to other replicas.
    pub(super) fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// The replica belongs to the cell `cell_id` from now on, durably, and may listen to its members.
    pub(crate) fn belong_to(&self, cell_id: u64) {
        self.book().roster.me.cell_id = cell_id;
    }

    /// The cell's replicas are these from now on.
    pub(super) fn set_members(&self, members: &[Member], removed: Vec<ReplicaId>) {
        let mut book = self.book();
        book.roster.members = members.iter().map(|member| (ReplicaId(member.id), member.clone())).collect();
        book.roster.removed = removed;
        drop(book);
        self.members.send_replace(());
    }

    /// Tells of changes of the members from now on.
    pub(super) fn member_changes(&self) -> watch::Receiver<()> {
        self.members.subscribe()
    }

    /// Whether it is known of a replica that it is a member, or was one.
    pub(super) fn knows(&self, id: ReplicaId) -> bool {
        let roster = &self.book().roster;
        roster.members.contains_key(&id) || roster.removed.contains(&id)
    }

    /// The request that introduces this replica; `expected_data_id` as in the message.
    pub(crate) fn introduction(&self, expected_data_id: u64) -> HelloRequest {
        let book = self.book();
        HelloRequest { from: Some(book.roster.me.clone()), founding: book.founding.clone(), expected_data_id }
    }

    /// Answers a Hello.
    pub(crate) fn answer(&self, hello: &HelloRequest) -> HelloResponse {
        let book = self.book();
        let me = &book.roster.me;
        let from = hello.from.clone().unwrap_or_default();
        let refused = match book.roster.check_hello(&from) {
            Ok(()) => String::new(),
            Err(denial) => denial.reason().to_owned(),
        };
        if let Some(reason) = book.roster.must_stop(&from, hello.expected_data_id) {
            self.stop(reason);
        }
        HelloResponse { identity: Some(me.clone()), founding: book.founding.clone(), refused }
    }

    /// Whether a peer's messages may be taken.
    pub(super) fn admit(&self, from: &Identity, to: u64) -> Result<ReplicaId, Denial> {
        let book = self.book();
        let admitted = book.roster.admit(from, to);
        if book.founding.is_none() && book.roster.is_contact(from, to) {
            self.contacted.send_replace(Some(from.cell_id));
        }
        admitted
    }

    /// A stream of messages begins; its number tells it from the peer's earlier ones.
    pub(super) fn begin_stream(&self, peer: ReplicaId) -> u64 {
        let mut book = self.book();
        let newest = book.streams.entry(peer).or_default();
        *newest += 1;
        *newest
    }

    /// Whether this is still the newest stream from the peer.
    pub(super) fn is_newest(&self, peer: ReplicaId, stream: u64) -> bool {
        self.book().streams.get(&peer) == Some(&stream)
    }

    /// Waits until a cell makes contact with a replica that wants to join. Dropping the future loses nothing.
    pub(crate) async fn contacted(&self) -> u64 {
        let mut contacted = self.contacted.subscribe();
        let cell_id = contacted.wait_for(Option::is_some).await.expect("the book holds the sender");
        cell_id.expect("it was waited for")
    }

    /// The replica must stop, for this reason.
    pub(crate) fn stop(&self, reason: String) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(reason);
            first
        });
    }

    /// Waits until the replica must stop, and says why. Dropping the future loses nothing.
    pub(crate) async fn stopped(&self) -> String {
        let mut stop = self.stop.subscribe();
        let reason = stop.wait_for(Option::is_some).await.expect("the book holds the sender");
        reason.clone().expect("it was waited for")
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Nothing that can panic half-way changes the book, so a poisoned one is sound.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(cell_id: u64, replica: u64, data_id: u64) -> Identity {
        Identity {
            cell: "dev".into(),
            cell_id,
            replica,
            data_id,
            peer_address: "127.0.0.1:1".into(),
            state_version: 2,
            client_address: String::new(),
        }
    }

    fn hello(from: Identity, expected_data_id: u64) -> HelloRequest {
        HelloRequest { from: Some(from), founding: None, expected_data_id }
    }

    #[tokio::test]
    async fn a_joiner_learns_its_cell_from_the_first_messages_and_not_from_a_hello() {
        let book = PeerBook::new(identity(0, 4, 44), None, None);
        assert_eq!(book.answer(&hello(identity(9, 1, 11), 44)).refused, "");
        assert!(book.contacted.borrow().is_none());
        assert!(matches!(book.admit(&identity(9, 1, 11), 4), Err(Denial::NotYet(_))));
        assert_eq!(book.contacted().await, 9);
        book.belong_to(9);
        assert_eq!(book.admit(&identity(9, 1, 11), 4), Ok(ReplicaId(1)));
    }

    #[tokio::test]
    async fn a_joiner_whose_id_the_cell_knows_by_other_data_must_stop() {
        let book = PeerBook::new(identity(0, 4, 45), None, None);
        book.answer(&hello(identity(9, 1, 11), 44));
        assert!(book.stopped().await.contains("the data of replica 4 are gone"));
    }

    #[test]
    fn a_replica_that_has_its_data_is_not_stopped_by_a_hello() {
        let book = PeerBook::new(identity(9, 4, 45), None, None);
        book.answer(&hello(identity(9, 1, 11), 44));
        assert!(book.stop.borrow().is_none());
    }

    #[test]
    fn only_the_newest_stream_of_a_peer_counts() {
        let book = PeerBook::new(identity(9, 1, 11), None, None);
        let first = book.begin_stream(ReplicaId(2));
        assert!(book.is_newest(ReplicaId(2), first));
        let second = book.begin_stream(ReplicaId(2));
        assert!(!book.is_newest(ReplicaId(2), first));
        assert!(book.is_newest(ReplicaId(2), second));
    }
}
