//! The network of a cell under test: a relay on every way from one end to another, and who is cut off from whom.
//!
//! Replicas and clients never connect to each other, but to the kit's relays: each way has a port of its own, so that it
//! is known who is at both its ends. A way that is cut carries nothing, in one direction or in both; its connections
//! stand, and what was on its way goes on when the cut is healed, as TCP does it. All of that runs on a thread of its
//! own, so that a test which blocks does not stop the network.
//!
//! Invariant: a way is cut exactly while a rule that concerns it lives.

mod relay;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use holdfast_types::ReplicaId;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

use relay::Relay;

/// An end of a way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// A replica.
    Replica(ReplicaId),
    /// All clients that have no name.
    Clients,
    /// A client.
    Client(Arc<str>),
}

/// A side of a cut.
#[derive(Clone, Debug)]
pub(crate) enum Side {
    /// These replicas.
    Replicas(BTreeSet<ReplicaId>),
    /// All replicas and all clients but this replica.
    AllBut(ReplicaId),
    /// One client.
    Client(Arc<str>),
}

impl Side {
    fn has(&self, end: &End) -> bool {
        match (self, end) {
            (Self::Replicas(replicas), End::Replica(id)) => replicas.contains(id),
            (Self::AllBut(but), End::Replica(id)) => but != id,
            (Self::AllBut(_), End::Clients | End::Client(_)) => true,
            (Self::Client(name), End::Client(client)) => name == client,
            (Self::Replicas(_) | Self::Client(_), _) => false,
        }
    }
}

/// What is sent from one side to the other does not arrive.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    /// The senders.
    pub(crate) from: Side,
    /// Those who do not hear them.
    pub(crate) to: Side,
}

/// The service that a way leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Port {
    /// For other replicas.
    Peers,
    /// For clients.
    Clients,
}

/// Where a replica listens, by [`Port`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Listening {
    pub(crate) peers: SocketAddr,
    pub(crate) clients: SocketAddr,
}

/// Cuts and the lines that they concern; shared with those who heal.
#[derive(Debug, Default)]
pub(crate) struct Cuts {
    cuts: BTreeMap<u64, Vec<Cut>>,
    next: u64,
    /// From one end to the other: whether it is cut.
    lines: BTreeMap<(End, End), watch::Sender<bool>>,
}

impl Cuts {
    fn is_cut(&self, from: &End, to: &End) -> bool {
        self.cuts.values().flatten().any(|cut| cut.from.has(from) && cut.to.has(to))
    }

    fn line(&mut self, from: &End, to: &End) -> watch::Receiver<bool> {
        let is_cut = self.is_cut(from, to);
        let line = self.lines.entry((from.clone(), to.clone()));
        line.or_insert_with(|| watch::Sender::new(is_cut)).subscribe()
    }

    /// Adds cuts that are healed together, under the number that is returned.
    fn add(&mut self, cuts: Vec<Cut>) -> u64 {
        self.next += 1;
        self.cuts.insert(self.next, cuts);
        self.apply();
        self.next
    }

    /// Takes cuts back.
    pub(crate) fn heal(&mut self, number: u64) {
        self.cuts.remove(&number);
        self.apply();
    }

    fn apply(&self) {
        for ((from, to), line) in &self.lines {
            let is_cut = self.is_cut(from, to);
            line.send_if_modified(|was_cut| std::mem::replace(was_cut, is_cut) != is_cut);
        }
    }
}

/// Locks what nothing panics with.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The network. Dropping it breaks all connections and blocks until its thread has ended.
pub(crate) struct Network {
    cuts: Arc<Mutex<Cuts>>,
    /// Where each replica listens; `None` while it does not run.
    replicas: BTreeMap<ReplicaId, watch::Sender<Option<Listening>>>,
    runtime: Handle,
    /// Dropped to end the thread.
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Network {
    /// A network between these replicas, none of which listens yet.
    pub(crate) fn start(replicas: impl Iterator<Item = ReplicaId>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let thread = thread::Builder::new().name("network".to_owned()).spawn(move || {
            // An error, always: the other end is dropped.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self {
            cuts: Arc::default(),
            replicas: replicas.map(|id| (id, watch::Sender::new(None))).collect(),
            runtime: handle,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// The cuts, for whoever is to heal some.
    pub(crate) fn cuts(&self) -> Arc<Mutex<Cuts>> {
        Arc::clone(&self.cuts)
    }

    /// Cuts until the number that is returned is healed.
    pub(crate) fn cut(&self, cuts: Vec<Cut>) -> u64 {
        lock(&self.cuts).add(cuts)
    }

    /// A replica listens there from now on, or nowhere.
    pub(crate) fn set_listening(&self, id: ReplicaId, listening: Option<Listening>) {
        if let Some(replica) = self.replicas.get(&id) {
            replica.send_replace(listening);
        }
    }

    /// Opens a way from `from` to a replica of this network, and gives the address that it begins at: good for as long as
    /// the network is there, however often the replica ends and begins.
    pub(crate) fn way(&self, from: &End, to: ReplicaId, port: Port) -> io::Result<String> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = {
            let _entered = self.runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        let mut cuts = lock(&self.cuts);
        let replica = End::Replica(to);
        let (forth, back) = (cuts.line(from, &replica), cuts.line(&replica, from));
        let target = self.replicas[&to].subscribe();
        self.runtime.spawn(Relay { listener, port, target, forth, back }.run());
        Ok(address.to_string())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // The thread does not panic; and if it did, there would be nothing to do about it.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replicas(ids: &[u64]) -> Side {
        Side::Replicas(ids.iter().copied().map(ReplicaId).collect())
    }

    #[test]
    fn a_line_is_cut_while_any_rule_that_concerns_it_lives() {
        let (one, two) = (End::Replica(ReplicaId(1)), End::Replica(ReplicaId(2)));
        let mut cuts = Cuts::default();
        let (forth, back) = (cuts.line(&one, &two), cuts.line(&two, &one));
        let first = cuts.add(vec![Cut { from: replicas(&[1]), to: replicas(&[2, 3]) }]);
        let second = cuts.add(vec![Cut { from: Side::AllBut(ReplicaId(2)), to: replicas(&[2]) }]);
        assert!(*forth.borrow() && !*back.borrow(), "one way only");
        cuts.heal(first);
        assert!(*forth.borrow(), "the other one lives");
        cuts.heal(second);
        assert!(!*forth.borrow());
    }

    #[test]
    fn a_line_that_is_made_during_a_cut_is_cut() {
        let mut cuts = Cuts::default();
        let all = Cut { from: Side::AllBut(ReplicaId(2)), to: replicas(&[2]) };
        let number = cuts.add(vec![all]);
        let two = End::Replica(ReplicaId(2));
        let late = cuts.line(&End::Client("late".into()), &two);
        assert!(*late.borrow() && !*cuts.line(&two, &End::Clients).borrow());
        cuts.heal(number);
        assert!(!*late.borrow());
    }
}
