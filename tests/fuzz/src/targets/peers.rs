//! What another member says. Members are believed: what they say is checked as far as bytes go, and raft's own rules
//! are not checked again.
//!
//! So there are three answers. Bytes that are no message are dropped. A message that no member can have sent, or that
//! cannot be true of this replica's own log, is a fault, which ends the process: then either of the two has lost its
//! data, and going on could lose what was acknowledged. Everything else is raft's. A panic is none of them.

use bytes::Bytes;
use holdfast_replica::{Boot, Input, StateAt};
use holdfast_types::{Duration, ReplicaId, Term};
use protobuf::Message as _;

use crate::office::genesis;
use crate::{Office, Source, messages};

/// Messages of the other two replicas of a cell of three, snapshots, and what may happen between them.
///
/// # Panics
///
/// If the replica does.
pub fn peer_messages(data: &[u8]) {
    let source = &mut Source::new(data);
    let boot = Boot { state: Some(genesis(3)), ..Boot::default() };
    let mut office = Office::boot(boot).expect("a genesis is whole");
    while !source.is_empty() {
        if step(&mut office, source).is_err() {
            return;
        }
    }
    office.replica.state().check_invariants();
}

fn step(office: &mut Office, source: &mut Source<'_>) -> Result<(), holdfast_replica::Fault> {
    let peer = 2 + u64::from(source.byte() % 2);
    let from = ReplicaId(peer);
    let (term, last) = (office.replica.term().0, office.replica.status().commit_index);
    match source.byte() % 16 {
        0 => office.pass(Duration::from_millis(source.pick(&[1, 100, 3_000]))),
        1 => office.input(Input::PeerReset { peer: from }),
        2 | 3 => {
            let length = usize::from(source.byte());
            let message = Bytes::copy_from_slice(source.slice(length));
            office.input(Input::Peer { from, messages: vec![message] })
        }
        4 => {
            let message = messages::raft::message(source, peer, term, last);
            let at = message.get_snapshot().get_metadata();
            let (index, term) = if source.one_in(4) {
                (source.number(), Term(source.number()))
            } else {
                (at.index, Term(at.term))
            };
            let (voters, learners) = (messages::raft::ids(source), source.list(3, Source::number));
            let state = Box::new(StateAt { index, term, voters, learners, ..genesis(3) });
            office.input(Input::SnapshotArrived { from, message: encoded(&message), state })
        }
        _ => {
            let message = messages::raft::message(source, peer, term, last);
            office.input(Input::Peer { from, messages: vec![encoded(&message)] })
        }
    }
}

fn encoded(message: &holdfast_replica::raftpb::Message) -> Bytes {
    message.write_to_bytes().expect("it can be encoded").into()
}
