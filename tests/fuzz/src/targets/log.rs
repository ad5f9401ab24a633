//! What a replica reads from its own log: batches of commands, and what it boots from.
//!
//! A log that is not what was written is a fault, and ends the process; it is never a panic.

use bytes::Bytes;
use holdfast_proto::log::v1::Batch;
use holdfast_replica::{Boot, StateAt};
use holdfast_state::SnapshotReader;
use holdfast_types::{Duration, Term};
use prost::Message;

use crate::office::genesis;
use crate::{Office, Source, messages};

/// Batches applied to a state. It is consistent after each, and is the same once it went through a snapshot.
///
/// # Panics
///
/// If not.
pub fn log_entries(data: &[u8]) {
    let source = &mut Source::new(data);
    let mut state = genesis(1).state;
    let mut effects = Vec::new();
    while !source.is_empty() {
        let batch: Bytes = if source.one_in(8) {
            let length = usize::from(source.byte());
            Bytes::copy_from_slice(source.slice(length))
        } else {
            let term = 2 + u64::from(source.one_in(16));
            Batch { term, commands: source.list(8, messages::log::command) }.encode_to_vec().into()
        };
        effects.clear();
        if state.apply_batch(Term(2), batch, &mut effects).is_err() {
            // A fault: the state is of no use any more.
            return;
        }
        state.check_invariants();
    }
    let mut reader = SnapshotReader::new();
    for chunk in state.snapshot_records() {
        reader.push(&chunk).expect("a snapshot can be read");
    }
    let restored = reader.finish().expect("a snapshot is whole");
    assert_eq!(restored.hash(), state.hash());
}

/// What a replica finds on its disk.
///
/// # Panics
///
/// If it neither starts nor says what is wrong.
pub fn boots(data: &[u8]) {
    let source = &mut Source::new(data);
    let state = (!source.one_in(8)).then(|| {
        let at = genesis(1);
        let (index, term) =
            if source.flag() { (1, Term(1)) } else { (source.number(), Term(source.number())) };
        let (voters, learners) = (messages::raft::ids(source), source.list(3, Source::number));
        StateAt { index, term, voters, learners, state: at.state }
    });
    let (after, term) = state.as_ref().map_or((0, 0), |at| (at.index, at.term.0));
    let after = if source.one_in(4) { source.number() } else { after };
    let entries = messages::raft::entries(source, after, term);
    let mut hard_state = messages::raft::hard_state(source);
    if source.flag() {
        // Entries whose commit is known are applied at once.
        hard_state.commit = entries.last().map_or(hard_state.commit, |last| last.index);
        hard_state.term = hard_state.term.max(entries.last().map_or(0, |last| last.term));
    }
    let boot = Boot { hard_state, state, entries };
    let Ok(mut office) = Office::boot(boot) else { return };
    // A fault is an answer.
    let _ = office.pass(Duration::from_secs(2));
}
