//! Many nodes, many waiters, many holders: cheap clones, and nothing quadratic.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    Acknowledged, Acquire, EndReason, LockMode, Open, Release, Request, SetContentsRequest,
};
use holdfast_proto::log::v1::command::Kind;
use holdfast_proto::log::v1::{Command, EndSession, OpenSession, SessionRequest};
use holdfast_state::{Effect, Genesis, Settings, SnapshotReader, State, settings};
use holdfast_types::SessionId;

fn genesis() -> State {
    let settings = Settings { handles_per_session_max: 1 << 20, ..settings::defaults() };
    State::genesis(Genesis { cell: "dev".to_owned(), cell_id: 1, members: Vec::new(), settings })
}

fn apply(state: &mut State, kind: Kind) -> Vec<Effect> {
    let mut effects = Vec::new();
    state
        .apply(Command { tag: 0, kind: Some(kind), ..Command::default() }, &mut effects)
        .expect("a known command");
    effects
}

fn write(state: &mut State, path: String, contents: String) {
    let contents = contents.into_bytes().into();
    apply(
        state,
        Kind::SetContents(SetContentsRequest { path, contents, create: true, ..Default::default() }),
    );
}

fn open_session(state: &mut State, name: u8) -> SessionId {
    let open = OpenSession {
        secret: vec![name; 32].into(),
        lease_ms: 12_000,
        client: name.to_string(),
        ..OpenSession::default()
    };
    apply(state, Kind::OpenSession(open));
    state.session_by_secret(&[name; 32]).expect("it was opened")
}

/// Sends a request whose predecessors are all acknowledged.
fn request(state: &mut State, session: SessionId, number: u64, operation: Operation) -> Vec<Effect> {
    let request = Some(Request { number, operation: Some(operation) });
    let acknowledged = Some(Acknowledged { through: number - 1, ranges: Vec::new() });
    apply(state, Kind::Request(SessionRequest { session: session.0, request, acknowledged }))
}

#[test]
fn a_clone_of_100_000_nodes_stays_what_it_was_while_the_state_goes_on() {
    let mut state = genesis();
    for index in 0..100_000 {
        write(&mut state, format!("/node-{index:06}"), format!("contents {index}"));
    }
    let clone = state.clone();
    let hash = clone.hash();
    let mut reader = SnapshotReader::new();
    // Between any two chunks of the clone the state itself changes.
    for (index, chunk) in clone.snapshot_records().enumerate() {
        for more in 0..50 {
            write(
                &mut state,
                format!("/node-{:06}", (index * 997 + more * 13) % 100_000),
                "changed".to_owned(),
            );
        }
        write(&mut state, format!("/new-{index}"), String::new());
        reader.push(&chunk).expect("a snapshot is read");
    }
    assert_eq!(clone.hash(), hash, "the clone did not change");
    assert_eq!(reader.finish().expect("a snapshot is whole"), clone);
    assert_ne!(state.hash(), hash);
    assert!(state.node_count() > clone.node_count());
    state.check_invariants();
}

/// With a walk over the queue or over the holders for each of them this takes minutes; it takes a moment.
#[test]
fn tens_of_thousands_wait_hold_and_are_lost_together() {
    const HANDLES: u64 = 30_000;
    let mut state = genesis();
    let (writer, readers) = (open_session(&mut state, 1), open_session(&mut state, 2));
    let open = |lock_delay_ms| {
        Operation::Open(Box::new(Open {
            path: "/hot".to_owned(),
            creation: 1,
            lock_delay_ms,
            ..Open::default()
        }))
    };
    let acquire =
        |handle, mode: LockMode| Operation::Acquire(Acquire { handle, mode: mode.into(), try_only: false });
    request(&mut state, writer, 1, open(0));
    request(&mut state, writer, 2, acquire(1, LockMode::Exclusive));
    for handle in 1..=HANDLES {
        request(&mut state, readers, 2 * handle - 1, open(1000));
        request(&mut state, readers, 2 * handle, acquire(2 * handle - 1, LockMode::Shared));
    }
    // Every second one leaves, out of the middle of the queue.
    for handle in (1..=HANDLES).step_by(2) {
        let number = 2 * HANDLES + handle;
        request(&mut state, readers, number, Operation::Release(Release { handle: 2 * handle - 1 }));
    }
    let effects = request(&mut state, writer, 3, Operation::Release(Release { handle: 1 }));
    let granted = effects.iter().filter(|effect| matches!(effect, Effect::LockGranted { .. })).count();
    assert_eq!(granted as u64, HANDLES / 2, "all readers that wait are let in at once");
    state.check_invariants();
    request(&mut state, writer, 4, acquire(1, LockMode::Exclusive));
    apply(&mut state, Kind::EndSession(EndSession { session: readers.0, reason: EndReason::Expired.into() }));
    assert_eq!(state.delays().count(), 1, "one loss, one delay");
    assert!(state.locks_of(writer).is_empty());
    state.check_invariants();
}
