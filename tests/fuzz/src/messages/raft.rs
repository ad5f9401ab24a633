//! What raft keeps and sends: entries, hard states and messages.

use bytes::Bytes;
use holdfast_proto::log::v1::Batch;
use holdfast_replica::raftpb::{
    ConfChange, ConfChangeType, ConfState, Entry, EntryType, HardState, Message, MessageType, Snapshot,
    SnapshotMetadata,
};
use prost::Message as _;
use protobuf::Message as _;

use super::client::member;
use super::log::command;
use crate::Source;

const TYPES: [MessageType; 19] = [
    MessageType::MsgHup,
    MessageType::MsgBeat,
    MessageType::MsgPropose,
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgSnapshot,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgUnreachable,
    MessageType::MsgSnapStatus,
    MessageType::MsgCheckQuorum,
    MessageType::MsgTransferLeader,
    MessageType::MsgTimeoutNow,
    MessageType::MsgReadIndex,
    MessageType::MsgReadIndexResp,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

/// Where entries begin, and whether they follow on each other.
pub fn entries(source: &mut Source<'_>, after: u64, term: u64) -> Vec<Entry> {
    let mut index = after;
    let mut term = term;
    source.list(6, |source| {
        index = if source.one_in(20) { source.number() } else { index.wrapping_add(1) };
        term = match source.byte() {
            0..=199 => term,
            200..=239 => term.saturating_add(1),
            _ => source.number(),
        };
        entry(source, index, term)
    })
}

fn entry(source: &mut Source<'_>, index: u64, term: u64) -> Entry {
    let mut entry = Entry::default();
    (entry.index, entry.term) = (index, term);
    match source.byte() {
        0..=49 => {}
        50..=199 => {
            let term = if source.one_in(10) { source.number() } else { term };
            entry.data = Batch { term, commands: source.list(4, command) }.encode_to_vec().into();
        }
        200..=219 => {
            entry.set_entry_type(EntryType::EntryConfChange);
            entry.data = change(source);
        }
        220..=229 => {
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            entry.data = source.bytes();
        }
        _ => entry.data = source.bytes(),
    }
    entry
}

fn change(source: &mut Source<'_>) -> Bytes {
    if source.one_in(5) {
        return source.bytes();
    }
    let mut change = ConfChange { node_id: source.number(), ..ConfChange::default() };
    change.set_change_type(source.pick(&[
        ConfChangeType::AddNode,
        ConfChangeType::RemoveNode,
        ConfChangeType::AddLearnerNode,
    ]));
    change.context = if source.one_in(5) { source.bytes() } else { member(source).encode_to_vec().into() };
    change.write_to_bytes().expect("it can be encoded").into()
}

/// A hard state.
pub fn hard_state(source: &mut Source<'_>) -> HardState {
    let mut hard_state = HardState::default();
    (hard_state.term, hard_state.vote, hard_state.commit) =
        (source.number(), source.number(), source.number());
    hard_state
}

/// A membership.
pub fn ids(source: &mut Source<'_>) -> Vec<u64> {
    if source.one_in(4) { source.list(5, Source::number) } else { vec![1] }
}

/// A message from `from` to replica 1, which is in `term` and has a log that ends at `last`: most of what is said has to
/// do with that.
pub fn message(source: &mut Source<'_>, from: u64, term: u64, last: u64) -> Message {
    let near = |source: &mut Source<'_>| match source.byte() {
        0..=127 => last,
        128..=149 => last.wrapping_add(1),
        150..=169 => last.wrapping_sub(1),
        _ => source.number(),
    };
    let mut message = Message::default();
    message.set_msg_type(source.pick(&TYPES));
    message.from = if source.one_in(20) { source.number() } else { from };
    message.to = if source.one_in(20) { source.number() } else { 1 };
    message.term = match source.byte() {
        0..=199 => term,
        200..=219 => term.saturating_add(1),
        _ => source.number(),
    };
    message.log_term = if source.one_in(4) { source.number() } else { term };
    message.index = near(source);
    message.commit = near(source);
    message.commit_term = source.number();
    message.reject = source.flag();
    message.reject_hint = source.number();
    message.request_snapshot = source.number();
    let (after, term) = (message.index, message.log_term);
    message.set_entries(entries(source, after, term).into());
    if source.one_in(4) {
        message.context = source.bytes();
    }
    if source.one_in(8) {
        let mut metadata =
            SnapshotMetadata { index: source.number(), term: source.number(), ..SnapshotMetadata::default() };
        let mut conf_state = ConfState::default();
        conf_state.set_voters(ids(source));
        metadata.set_conf_state(conf_state);
        let mut snapshot = Snapshot::default();
        snapshot.set_metadata(metadata);
        message.set_snapshot(snapshot);
    }
    message
}
