//! What peers and files bring to raft's parser: raft's own messages pass, and nothing nests deeper than they do. That is shown on
//! a stack that a frame for each level would overflow, which would end the process.

use holdfast_replica::raft_bytes::{RaftBytesError, Shape, check, parse};
use holdfast_replica::raftpb::{Entry, HardState, Message, Snapshot};
use protobuf::Message as _;

/// So many levels overflow a stack of 64 KiB, if each takes a frame.
const LEVELS: usize = 1 << 20;

/// Runs on a stack of 64 KiB.
fn on_a_small_stack<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(64 << 10).spawn(run).unwrap().join().unwrap()
}

/// `inner`, as the field of this number.
fn field(number: u8, inner: &[u8]) -> Vec<u8> {
    let mut bytes = vec![number << 3 | 2];
    let mut length = inner.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(inner);
    bytes
}

#[test]
fn groups_are_refused_wherever_the_parser_would_follow_them() {
    let groups = vec![0x7b; LEVELS];
    let in_metadata = field(9, &field(2, &groups));
    let in_configuration = field(9, &field(2, &field(1, &groups)));
    let all = [groups.clone(), field(7, &groups), field(9, &groups), in_metadata, in_configuration];
    on_a_small_stack(move || {
        for bytes in all {
            let error = parse::<Message>(&bytes).unwrap_err();
            assert!(matches!(error, RaftBytesError::Group { .. }), "{error}");
        }
        assert!(matches!(parse::<Entry>(&groups), Err(RaftBytesError::Group { at: 0 })));
        assert!(matches!(parse::<HardState>(&groups), Err(RaftBytesError::Group { at: 0 })));
    });
}

/// What nests by its own fields: only as deep as its shape, however deep the bytes go on.
#[test]
fn the_walk_goes_no_deeper_than_the_shape() {
    let mut bytes = Vec::new();
    for _ in 0..2_000 {
        bytes = field(9, &field(2, &bytes));
    }
    let walked = on_a_small_stack(move || (check(&bytes, Shape::Message), check(&bytes, Shape::Flat)));
    assert_eq!(walked, (Ok(()), Ok(())));
}

/// A message as raft sends it, with everything in it that can be within another.
fn message() -> Message {
    let mut message = Message { from: 2, to: 1, term: u64::MAX, priority: -1, ..Default::default() };
    let entry = Entry { index: 7, data: vec![0x1b; 300].into(), ..Entry::default() };
    message.set_entries(vec![entry.clone(), entry].into());
    let mut snapshot = Snapshot { data: vec![3; 9].into(), ..Snapshot::default() };
    snapshot.mut_metadata().index = 9;
    snapshot.mut_metadata().mut_conf_state().set_voters(vec![1, 2, 3]);
    message.set_snapshot(snapshot);
    message
}

#[test]
fn what_raft_sends_passes_and_its_own_data_may_be_anything() {
    let message = message();
    let bytes = message.write_to_bytes().unwrap();
    assert_eq!(parse::<Message>(&bytes).unwrap(), message);
    let hard_state = HardState { term: 3, vote: 1, commit: 300, ..HardState::default() };
    assert_eq!(parse::<HardState>(&hard_state.write_to_bytes().unwrap()).unwrap(), hard_state);
    // An unknown field of a later version, as long as it is no group.
    let later = [&bytes[..], &field(15, b"\x0b\x0b\x0b")].concat();
    check(&later, Shape::Message).unwrap();
}

#[test]
fn what_is_cut_off_or_is_no_field_is_refused() {
    let bytes = message().write_to_bytes().unwrap();
    assert!((1..bytes.len()).any(|end| check(&bytes[..end], Shape::Message).is_err()));
    for bytes in
        [&b"\x08"[..], b"\x0a\x05x", b"\x09123", b"\x0d12", b"\x0e", b"\x0f", b"\x00\x00", &[0xff; 11]]
    {
        assert!(matches!(check(bytes, Shape::Flat), Err(RaftBytesError::Malformed { at: 0 })), "{bytes:?}");
    }
}
