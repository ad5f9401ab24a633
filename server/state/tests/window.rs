//! What a session's outcomes that it does not acknowledge take in the memory of every replica: below 4 MiB, of whatever
//! kind they are.

use bytes::Bytes;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    Acknowledged, AclNames, Acquire, Cancel, Close, Creation, LockMode, Open, Opened, Outcome, RefusalCode,
    Release, Request, SetAcl, SetContents, SetSequencer, outcome,
};
use holdfast_proto::log::v1::command::Kind;
use holdfast_proto::log::v1::{Command, OpenSession, SessionRequest};
use holdfast_state::{Effect, Genesis, Recorded, State, settings};
use holdfast_types::{RequestNumber, SessionId};
use prost::Message;

const MEMORY_MAX: usize = 4 << 20;
const REQUESTS: u64 = 4096;

fn genesis() -> State {
    let settings = settings::defaults();
    State::genesis(Genesis { cell: "dev".into(), cell_id: 7, members: Vec::new(), settings })
}

fn open_session(state: &mut State, name: u64) -> SessionId {
    let secret = Bytes::from(format!("the secret key of {name}"));
    let client = "c".repeat(255);
    let open = OpenSession { secret, lease_ms: 12_000, client, principal: "p".repeat(255) };
    let mut effects = Vec::new();
    state.apply(Command { kind: Some(Kind::OpenSession(open)), ..Command::default() }, &mut effects).unwrap();
    match effects[..] {
        [Effect::SessionOpened { session, .. }] => session,
        ref other => panic!("{other:?}"),
    }
}

fn request(state: &mut State, session: SessionId, number: u64, operation: Operation) -> Outcome {
    let request = Some(Request { number, operation: Some(operation) });
    let request = SessionRequest { session: session.0, request, acknowledged: None };
    let mut effects = Vec::new();
    state.apply(Command { kind: Some(Kind::Request(request)), ..Command::default() }, &mut effects).unwrap();
    let outcome = effects.into_iter().find_map(|effect| match effect {
        Effect::Replied { outcome, .. } => Some(outcome),
        _ => None,
    });
    outcome.expect("a request is answered")
}

fn long_path() -> String {
    format!("/{}", vec!["n".repeat(254); 16].join("/"))
}

/// What the outcomes take, no less: the values, what they encode to, and what an allocator adds to each.
fn memory(state: &State, session: SessionId) -> usize {
    let session = state.session(session).unwrap();
    let outcomes = (1..=3 * REQUESTS).filter_map(|number| match session.recorded(RequestNumber(number)) {
        Recorded::Outcome(outcome) => Some(outcome),
        Recorded::New | Recorded::Acknowledged => None,
    });
    let bytes = outcomes.map(|outcome| {
        let boxed = match &outcome.result {
            Some(outcome::Result::Opened(_)) => size_of::<Opened>() + 4 * 16,
            _ => 32,
        };
        size_of::<Outcome>() + outcome.encoded_len() + boxed + 32
    });
    bytes.sum()
}

/// A file with the longest names of lists, whose lock sixteen sessions with the longest names hold.
fn a_file_of_long_names(state: &mut State) -> Open {
    let name = |letter: &str| letter.repeat(255);
    let acl = AclNames { read: "*".into(), write: "*".into(), change: name("c") };
    let open =
        Open { path: "/file".into(), creation: Creation::May.into(), acl: Some(acl), ..Open::default() };
    for holder in 0..16 {
        let session = open_session(state, 100 + holder);
        request(state, session, 1, Operation::Open(Box::new(open.clone())));
        let acquire = Acquire { handle: 1, mode: LockMode::Shared.into(), ..Acquire::default() };
        request(state, session, 2, Operation::Acquire(acquire));
    }
    Open { path: "/file".into(), ..Open::default() }
}

/// The operations whose outcomes are the longest of their kind.
fn operations(state: &mut State) -> Vec<(&'static str, Operation)> {
    let opened = a_file_of_long_names(state);
    let absent = Open { path: long_path(), ..Open::default() };
    let odd =
        Open { acl: Some(AclNames { read: "/".repeat(60_000), ..AclNames::default() }), ..opened.clone() };
    let relative = Open { directory: 1, path: "/".repeat(60_000), ..Open::default() };
    let set_acl = |name: String| {
        let acl = Some(AclNames { change: name, ..AclNames::default() });
        Operation::SetAcl(Box::new(SetAcl { handle: 1, acl, if_generation: None }))
    };
    let sequencer = format!("holdfast:1:exclusive:1:1:/ls/dev{}", long_path());
    vec![
        ("opened", Operation::Open(Box::new(opened))),
        ("not found", Operation::Open(Box::new(absent))),
        ("an odd list", Operation::Open(Box::new(odd))),
        ("an odd name", Operation::Open(Box::new(relative))),
        ("lists set", set_acl("/".repeat(60_000))),
        ("sequencer", Operation::SetSequencer(SetSequencer { handle: 1, sequencer })),
        ("written", Operation::SetContents(SetContents { handle: 1, ..SetContents::default() })),
        ("granted", Operation::Acquire(Acquire { handle: 1, ..Acquire::default() })),
        ("released", Operation::Release(Release { handle: 1 })),
        ("cancelled", Operation::Cancel(Cancel { number: 1, ..Cancel::default() })),
        ("closed", Operation::Close(Close { handle: 9 })),
    ]
}

#[test]
fn the_outcomes_of_a_session_stay_below_4_mib_of_whatever_kind_they_are() {
    let mut state = genesis();
    for (place, (what, operation)) in operations(&mut state).into_iter().enumerate() {
        let session = open_session(&mut state, place as u64);
        let root = Open { path: "/".into(), ..Open::default() };
        request(&mut state, session, 1, Operation::Open(Box::new(root)));
        for number in 2..=REQUESTS {
            request(&mut state, session, number, operation.clone());
        }
        // Whatever room is left is filled by what is never refused for bytes.
        for number in REQUESTS + 1..=2 * REQUESTS {
            request(&mut state, session, number, Operation::Close(Close { handle: 9_999_999 }));
        }
        let memory = memory(&state, session);
        assert!(memory < MEMORY_MAX, "{what}: {memory} bytes");
    }
    state.check_invariants();
}

#[test]
fn a_session_whose_outcomes_are_many_bytes_can_still_give_back_and_acknowledge() {
    let mut state = genesis();
    let names = AclNames { read: "*".into(), write: "w".repeat(255), change: "c".repeat(255) };
    let writer = AclNames { write: "*".into(), ..names.clone() };
    let session = open_session(&mut state, 1);
    let open =
        Open { path: "/file".into(), creation: Creation::May.into(), acl: Some(writer), ..Open::default() };
    let full = (1..=REQUESTS).find(|number| {
        let outcome = request(&mut state, session, *number, Operation::Open(Box::new(open.clone())));
        matches!(&outcome.result, Some(outcome::Result::Refusal(refusal)) if refusal.code() == RefusalCode::Limit)
    });
    if let Some(full) = full {
        assert!(full > 2048, "half of what may be in flight has room, however long its outcomes: {full}");
        let closed = request(&mut state, session, full, Operation::Close(Close { handle: 1 }));
        assert!(matches!(closed.result, Some(outcome::Result::Closed(_))), "{closed:?}");
    }
    let acknowledged = Some(Acknowledged { through: 1000, ranges: Vec::new() });
    let again = Some(Request { number: 5000, operation: Some(Operation::Open(Box::new(open))) });
    let command = SessionRequest { session: session.0, request: again, acknowledged };
    let mut effects = Vec::new();
    state.apply(Command { kind: Some(Kind::Request(command)), ..Command::default() }, &mut effects).unwrap();
    let opened = matches!(
        &effects[..],
        [Effect::Replied { outcome, .. }] if matches!(outcome.result, Some(outcome::Result::Opened(_)))
    );
    assert!(opened, "{effects:?}");
    state.check_invariants();
}
