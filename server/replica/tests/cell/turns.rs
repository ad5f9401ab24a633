//! What a replica applies in one turn, however much it is behind (ADR 0012).

use holdfast_proto::client::v1 as client;
use holdfast_replica::{CallRequest, Input, Output, raftpb};
use holdfast_types::{Duration, ReplicaId};
use protobuf::Message as _;

use crate::table::{Cell, defaults};

/// Each of them is an entry of its own.
const WRITES: u64 = 40;
const BYTES: usize = 200 << 10;
/// A turn ends once it has applied 1 MiB of the log, and what it takes up at a time is no more than that.
const TURN_BYTES_MAX: usize = 2 << 20;

/// A cell, its master, and another replica that has the writes in its log and cannot know them to be on its disk.
fn cell_with_a_slow_disk(writes: u64, bytes: usize) -> (Cell, ReplicaId, ReplicaId) {
    let mut cell = Cell::new(defaults);
    let master = cell.elect();
    cell.pass(Duration::from_millis(300));
    let behind = cell.others(master)[0];
    cell.host_mut(behind).slow = true;
    for call in 0..=writes {
        cell.put(master, call, &format!("/f{call}"), vec![7; bytes].into());
    }
    let applied = cell.host(behind).replica.applied_index();
    assert_eq!(applied + writes + 1, cell.host(master).replica.applied_index());
    (cell, master, behind)
}

/// Does what the replica wants done in this turn, and ends it. Gives how many bytes of the log it has applied, and whether
/// it has answered a heartbeat.
fn end_turn(cell: &mut Cell, id: ReplicaId) -> (usize, bool) {
    let before = cell.host(id).replica.applied_index();
    let outputs: Vec<Output> = std::iter::from_fn(|| cell.next_output(id)).collect();
    let answered = outputs.iter().any(|output| matches!(output, Output::Peer { urgent: true, .. }));
    let host = cell.host(id);
    let applied = before + 1..=host.replica.applied_index();
    let entries = host.disk.entries.iter().filter(|entry| applied.contains(&entry.index));
    let bytes = entries.map(|entry| entry.data.len()).sum();
    for output in outputs {
        cell.perform(id, output);
    }
    (bytes, answered)
}

/// Takes turns, with `input` as the first of each but the first one, until the replica wants none. Gives how many there were
/// and in how many it answered a heartbeat.
fn take_turns(cell: &mut Cell, id: ReplicaId, input: impl Fn() -> Input) -> (usize, usize) {
    let (mut turns, mut answers) = (0, 0);
    loop {
        let (bytes, answered) = end_turn(cell, id);
        assert!(bytes < TURN_BYTES_MAX, "turn {turns} applied {bytes} bytes");
        (turns, answers) = (turns + 1, answers + usize::from(answered));
        // Whoever has more to do comes back at once.
        if cell.host(id).replica.poll_timeout() != Some(cell.now) {
            return (turns, answers);
        }
        assert!(bytes > 0, "a turn that does nothing asks for no other");
        cell.input(id, input());
    }
}

/// So many turns it takes at least.
const TURNS_MIN: usize = WRITES as usize * BYTES / TURN_BYTES_MAX;

#[test]
fn a_replica_that_is_behind_applies_so_much_in_a_turn_and_hears_its_master_in_each() {
    let (mut cell, master, behind) = cell_with_a_slow_disk(WRITES, BYTES);
    let mut heartbeat = raftpb::Message::default();
    heartbeat.set_msg_type(raftpb::MessageType::MsgHeartbeat);
    (heartbeat.from, heartbeat.to) = (master.0, behind.0);
    heartbeat.term = cell.host(master).replica.term().0;
    let heartbeat: bytes::Bytes = heartbeat.write_to_bytes().expect("encodes").into();
    // Its disk says that it has everything, at once.
    let (_, number) = cell.host_mut(behind).persisted.drain(..).next_back().expect("it owes answers");
    cell.input(behind, Input::Persisted { number });
    let (turns, answers) =
        take_turns(&mut cell, behind, || Input::Peer { from: master, messages: vec![heartbeat.clone()] });
    assert!(turns >= TURNS_MIN, "{turns}");
    assert_eq!(answers, turns - 1, "each heartbeat was answered in its turn");
    // That the last one is committed comes with the next message.
    let applied = cell.host(behind).replica.applied_index();
    assert_eq!(applied + 1, cell.host(master).replica.applied_index());
}

#[test]
fn a_replica_that_starts_with_a_long_log_applies_so_much_in_a_turn() {
    let (mut cell, master, behind) = cell_with_a_slow_disk(WRITES, BYTES);
    let disk = cell.crash(behind);
    cell.start(behind, disk);
    cell.input(behind, Input::TimePassed);
    let (turns, _) = take_turns(&mut cell, behind, || Input::TimePassed);
    assert!(turns >= TURNS_MIN, "{turns}");
    assert!(cell.host(behind).replica.applied_index() + 2 >= cell.host(master).replica.applied_index());
}

#[test]
fn small_commands_count_for_what_they_bring_about_and_not_for_their_bytes_alone() {
    const BATCHES: u64 = 12;
    const EACH: u64 = 900;
    /// What a command counts for at least.
    const COUNTS: u64 = 256;
    let (mut cell, master, behind) = cell_with_a_slow_disk(0, 1);
    for batch in 0..BATCHES {
        for call in 1 + batch * EACH..=(batch + 1) * EACH {
            let path = "/f".to_owned();
            let write =
                client::SetContentsRequest { path, create: true, ..client::SetContentsRequest::default() };
            cell.hand_in(master, call, CallRequest::SetContents(write));
        }
        cell.settle();
    }
    let entries = cell.host(behind).disk.entries.iter().rev().take(BATCHES as usize);
    let bytes: usize = entries.map(|entry| entry.data.len()).sum();
    assert!(bytes < TURN_BYTES_MAX / 2, "their bytes alone would be one turn's: {bytes}");
    let (_, number) = cell.host_mut(behind).persisted.drain(..).next_back().expect("it owes answers");
    cell.input(behind, Input::Persisted { number });
    let (mut turns, mut revision) = (0, cell.host(behind).replica.state().revision().0);
    loop {
        end_turn(&mut cell, behind);
        let commands = cell.host(behind).replica.state().revision().0 - revision;
        // It stops behind the entry with which it has done its part.
        let most = TURN_BYTES_MAX as u64 / 2 + EACH * COUNTS;
        assert!(commands * COUNTS <= most, "turn {turns} applied {commands} commands");
        (turns, revision) = (turns + 1, revision + commands);
        if cell.host(behind).replica.poll_timeout() != Some(cell.now) {
            break;
        }
        cell.input(behind, Input::TimePassed);
    }
    assert!(turns > BATCHES * EACH * COUNTS * 2 / (3 * TURN_BYTES_MAX as u64), "{turns}");
    let applied = cell.host(behind).replica.applied_index();
    assert!(
        applied + 1 >= cell.host(master).replica.applied_index(),
        "that the last is committed comes later"
    );
}
