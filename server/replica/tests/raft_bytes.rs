//! What peers and files bring to raft's parser nests no deeper than raft's own messages: shown on a stack that a frame for
//! each level would overflow, which would end the process.

use holdfast_replica::raft_bytes::{RaftBytesError, Shape, check, parse};
use holdfast_replica::raftpb::{Entry, HardState, Message};

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
