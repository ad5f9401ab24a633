//! Two replicas' transports on loopback, without the replicas.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_proto::log::v1::Member;
use holdfast_proto::peer::v1::{FoundingMember, Identity};
use holdfast_replica::{Input, StateAt};
use holdfast_state::{Genesis, State};
use holdfast_types::{ReplicaId, Term};
use slog::{Discard, Logger, o};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::{PeerBook, PeerService, Peers};
use crate::accept::{Door, connections};
use crate::config::Config;
use crate::driver::CoreInput;
use crate::tls::Side;

/// Longer than anything here takes on a busy machine.
const LIMIT: Duration = Duration::from_secs(30);
const CELL_ID: u64 = 9;

fn logger() -> Logger {
    Logger::root(Discard, o!())
}

fn member(id: u64, address: &str) -> Member {
    Member { id, data_id: id * 11, peer_address: address.to_owned(), ..Member::default() }
}

/// One end, on a runtime of its own, so that it can die like a process.
struct End {
    runtime: Option<Runtime>,
    peers: Peers,
    book: Arc<PeerBook>,
    core: mpsc::Receiver<CoreInput>,
}

impl End {
    fn start(member: &Member) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (sender, core) = mpsc::channel(1024);
        let me = Identity {
            cell: "dev".into(),
            cell_id: CELL_ID,
            replica: member.id,
            data_id: member.data_id,
            peer_address: member.peer_address.clone(),
            state_version: 2,
            client_address: String::new(),
        };
        let book = Arc::new(PeerBook::new(me, None, None));
        let service = PeerService::new(Arc::clone(&book), sender.clone(), logger()).router();
        let listener = std::net::TcpListener::bind(&member.peer_address).unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            let door = Door::new(Side::Peers, None, crate::descriptors::PEER_PLACES, logger());
            service.serve_with_incoming(connections(listener, door)).await
        });
        let peers = Peers::new(Arc::clone(&book), sender, logger());
        Self { runtime: Some(runtime), peers, book, core }
    }

    fn set_members(&mut self, members: &[Member]) {
        let _runtime = self.runtime.as_ref().unwrap().enter();
        self.peers.set_members(members, Vec::new());
    }

    /// The next input for the core; contacts are made as the driver makes them.
    fn next(&mut self) -> Input {
        let (core, peers) = (&mut self.core, &mut self.peers);
        let waiting = async {
            loop {
                match core.recv().await.expect("the sender is held") {
                    CoreInput::Contact(contact) => peers.add_contact(&contact),
                    // Said with each connection; what follows from it is the replica's.
                    CoreInput::Replica(Input::PeerAnnounced { state_version: 2, .. }) => {}
                    CoreInput::Replica(input) => return input,
                    _ => panic!("peers send nothing else"),
                }
            }
        };
        let runtime = self.runtime.as_ref().unwrap();
        runtime.block_on(async { tokio::time::timeout(LIMIT, waiting).await.expect("an input comes") })
    }

    /// The messages that come next.
    fn next_messages(&mut self) -> Vec<Bytes> {
        match self.next() {
            Input::Peer { messages, .. } => messages,
            other => panic!("{other:?}"),
        }
    }

    fn die(mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// Two addresses that nobody listens at.
fn two_members() -> [Member; 2] {
    let bound = [1, 2].map(|id| (id, std::net::TcpListener::bind("127.0.0.1:0").unwrap()));
    bound.map(|(id, listener)| member(id, &listener.local_addr().unwrap().to_string()))
}

/// Sends until something arrives: what is sent before the link is up is dropped.
fn connect(from: &End, to: &mut End, to_id: ReplicaId) {
    let arrived = std::thread::scope(|scope| {
        let (done, is_done) = std::sync::mpsc::channel::<()>();
        scope.spawn(move || {
            while is_done.try_recv().is_err() {
                from.peers.send(to_id, Bytes::from_static(b"knock"), false);
                std::thread::yield_now();
            }
        });
        let arrived = to.next_messages();
        done.send(()).unwrap();
        arrived
    });
    assert!(arrived.iter().all(|message| message == "knock"));
    from.peers.send(to_id, Bytes::from_static(b"enough"), false);
    while to.next_messages().last().unwrap() != "enough" {}
}

#[test]
fn messages_arrive_once_and_in_order() {
    let members = two_members();
    let mut ends = members.each_ref().map(End::start);
    ends.iter_mut().for_each(|end| end.set_members(&members));
    let [first, second] = &mut ends;
    connect(first, second, ReplicaId(2));
    let sent: Vec<_> = (0..3_000_u32).map(|number| Bytes::from(number.to_string())).collect();
    sent.iter().for_each(|message| first.peers.send(ReplicaId(2), message.clone(), false));
    let mut arrived = Vec::new();
    while arrived.len() < sent.len() {
        arrived.extend(second.next_messages());
    }
    assert_eq!(arrived, sent);
    ends.into_iter().for_each(End::die);
}

#[test]
fn the_death_of_a_peer_is_told_at_once_and_its_return_is_no_death() {
    let members = two_members();
    let [mut first, mut second] = members.each_ref().map(End::start);
    first.set_members(&members);
    second.set_members(&members);
    connect(&first, &mut second, ReplicaId(2));
    connect(&second, &mut first, ReplicaId(1));
    second.die();
    // Once for each direction.
    for _ in 0..2 {
        assert!(matches!(first.next(), Input::PeerReset { peer: ReplicaId(2) }));
    }
    // By the time that it is back, many connections have failed; none of them is told.
    let mut second = End::start(&members[1]);
    second.set_members(&members);
    connect(&first, &mut second, ReplicaId(2));
    connect(&second, &mut first, ReplicaId(1));
    [first, second].into_iter().for_each(End::die);
}

#[test]
fn a_snapshot_arrives_whole_with_its_message_and_its_sender_hears_of_it() {
    let members = two_members();
    let mut ends = members.each_ref().map(End::start);
    ends.iter_mut().for_each(|end| end.set_members(&members));
    let [first, second] = &mut ends;
    let founders = vec![FoundingMember { id: 1, ..FoundingMember::default() }];
    let genesis = Genesis {
        cell: "dev".into(),
        cell_id: CELL_ID,
        members: members.to_vec(),
        settings: Config::new("dev", ReplicaId(1), PathBuf::new(), founders).settings,
    };
    let state = State::genesis(genesis);
    let hash = state.hash();
    let at = StateAt { index: 5, term: Term(3), voters: vec![1, 2], learners: vec![], state };
    {
        let _runtime = first.runtime.as_ref().unwrap().enter();
        first.peers.send_snapshot(ReplicaId(2), Bytes::from_static(b"message"), Box::new(at));
    }
    let Input::SnapshotArrived { from, message, state } = second.next() else {
        panic!("a snapshot was sent")
    };
    assert_eq!((from, &message[..], state.index, state.term), (ReplicaId(1), &b"message"[..], 5, Term(3)));
    assert_eq!(state.state.hash(), hash);
    assert!(matches!(first.next(), Input::SnapshotSent { to: ReplicaId(2), index: 5, ok: true }));

    // And of one that cannot arrive, too.
    {
        let _runtime = first.runtime.as_ref().unwrap().enter();
        first.peers.send_snapshot(ReplicaId(3), Bytes::new(), state);
    }
    assert!(matches!(first.next(), Input::SnapshotSent { to: ReplicaId(3), index: 5, ok: false }));
    ends.into_iter().for_each(End::die);
}

#[test]
fn a_replica_that_its_cell_knows_by_other_data_is_stopped() {
    let members = two_members();
    let [mut first, mut second] = members.each_ref().map(End::start);
    let lost = Member { data_id: 99, ..members[1].clone() };
    first.set_members(&[members[0].clone(), lost]);
    second.set_members(&members);
    let book = Arc::clone(&second.book);
    let stopped = async { tokio::time::timeout(LIMIT, book.stopped()).await.expect("it is told") };
    let reason = second.runtime.as_ref().unwrap().block_on(stopped);
    assert!(reason.contains("the data of replica 2 are gone"));
    [first, second].into_iter().for_each(End::die);
}

#[test]
fn a_replica_that_is_removed_learns_it_even_if_nobody_talks_to_it() {
    let members = two_members();
    let [mut first, mut second] = members.each_ref().map(End::start);
    first.set_members(&members);
    second.set_members(&members);
    connect(&second, &mut first, ReplicaId(1));
    let runtime = first.runtime.as_ref().unwrap().enter();
    first.peers.set_members(&members[..1], vec![ReplicaId(2)]);
    drop(runtime);
    let book = Arc::clone(&second.book);
    let stopped = async { tokio::time::timeout(LIMIT, book.stopped()).await.expect("it is told") };
    let reason = second.runtime.as_ref().unwrap().block_on(stopped);
    assert!(reason.contains("was removed from cell dev"), "{reason}");
    [first, second].into_iter().for_each(End::die);
}

/// The simulator's seeds 144 and 164: a replica that had not caught up refused the new master, and could never catch up.
#[test]
fn a_new_member_is_heard_and_answered_by_a_replica_that_does_not_know_it_yet() {
    let members = two_members();
    let [mut new, mut late] = members.each_ref().map(End::start);
    new.set_members(&members);
    late.set_members(&members[1..]);
    connect(&new, &mut late, ReplicaId(2));
    connect(&late, &mut new, ReplicaId(1));
    // It applies another change of the members before that which adds the new one.
    late.set_members(&[members[1].clone(), member(7, "127.0.0.1:1")]);
    late.peers.send(ReplicaId(1), Bytes::from_static(b"still here"), false);
    assert_eq!(new.next_messages(), ["still here"]);
    [new, late].into_iter().for_each(End::die);
}
