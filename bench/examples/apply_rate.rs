//! How many commands a second the state applies, on one core: `cargo run --release -p holdfast-bench --example
//! apply_rate [nodes]`, with at most 200,000 nodes (the default limit of sessions). Each session has a lock of its
//! own and acquires and releases it in turn; commands come as encoded batches, as they do out of the log, and are
//! acknowledged as a client does.

#![forbid(unsafe_code)]

use std::hint::black_box;

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{Acknowledged, Acquire, Creation, LockMode, Open, Release, Request};
use holdfast_proto::log::v1::command::Kind;
use holdfast_proto::log::v1::{Batch, Command, OpenSession, SessionRequest};
use holdfast_state::{Effect, Genesis, State, settings};
use holdfast_types::Term;
use prost::Message;

/// Commands of one entry; what draining a busy queue gives (design.md §10).
const BATCH: usize = 110;
const PAIRS: usize = 1_000_000;

fn main() {
    let nodes: u64 = std::env::args().nth(1).map_or(256, |count| count.parse().expect("a count of nodes"));
    let mut state = State::genesis(Genesis {
        cell: "dev".to_owned(),
        cell_id: 1,
        members: Vec::new(),
        settings: settings::complete(Default::default()).expect("defaults are in range"),
    });
    let mut effects = Vec::new();
    for index in 0..nodes {
        open(&mut state, index, &mut effects);
    }
    let sessions: Vec<u64> = state.sessions().map(|(id, _)| id.0).collect();
    let rounds = PAIRS as u64 / nodes;
    let commands = (0..rounds).flat_map(|round| {
        let number = 2 + 2 * round;
        let acquire =
            Operation::Acquire(Acquire { handle: 1, mode: LockMode::Exclusive.into(), try_only: false });
        let release = Operation::Release(Release { handle: 1 });
        let both = [(number, acquire), (number + 1, release)];
        let sessions = &sessions;
        both.into_iter().flat_map(move |(number, operation)| {
            sessions.iter().map(move |session| request(*session, number, operation.clone()))
        })
    });
    let commands: Vec<Command> = commands.collect();
    let batches: Vec<_> = commands
        .chunks(BATCH)
        .map(|commands| bytes::Bytes::from(Batch { term: 1, commands: commands.to_vec() }.encode_to_vec()))
        .collect();
    let count = commands.len();
    drop(commands);
    let spent = apply_all(&mut state, batches);
    println!("{nodes} nodes: {:.0} commands applied per second", count as f64 / spent.as_secs_f64());
    state.check_invariants();
}

fn apply_all(state: &mut State, batches: Vec<bytes::Bytes>) -> std::time::Duration {
    let mut effects = Vec::new();
    let begin = std::time::Instant::now();
    for batch in batches {
        state.apply_batch(Term(1), batch, &mut effects).expect("a batch of known commands");
        black_box(&effects);
        effects.clear();
    }
    begin.elapsed()
}

fn open(state: &mut State, index: u64, effects: &mut Vec<Effect>) {
    let secret = format!("secret of session {index:08}").into_bytes().into();
    let open =
        OpenSession { secret, lease_ms: 12_000, client: format!("client-{index}"), ..Default::default() };
    let command = Command { kind: Some(Kind::OpenSession(open)), ..Command::default() };
    state.apply(command, effects).expect("a known command");
    let Some(Effect::SessionOpened { session, .. }) = effects.pop() else { panic!("a session is opened") };
    let open = Open { path: format!("/lock-{index:08}"), creation: Creation::May.into(), ..Open::default() };
    state.apply(request(session.0, 1, Operation::Open(Box::new(open))), effects).expect("a known command");
    effects.clear();
}

fn request(session: u64, number: u64, operation: Operation) -> Command {
    let request = Request { number, operation: Some(operation) };
    // A client acknowledges a little late: its last four outcomes are kept.
    let acknowledged = Some(Acknowledged { through: number.saturating_sub(4), ranges: Vec::new() });
    let kind = Kind::Request(SessionRequest { session, request: Some(request), acknowledged });
    Command { tag: number, kind: Some(kind), ..Command::default() }
}
