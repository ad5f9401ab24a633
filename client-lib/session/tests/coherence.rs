//! The cache tells nothing that is not so at that very moment, whatever happens and in whatever order (I5).
//!
//! A session and a cell exchange frames over a connection that delays them at will, keeps their order, and breaks.
//! Other clients change the files. After every step each slot is read, and must tell what the cell has now, or
//! nothing; an `Open` that is answered without a message must be answered as the cell would answer it now; and no
//! frame acknowledges a notice while something that the notice declared void can still be read.

mod cell;

use cell::{Cell, Change, DIRECTORY, LEASE_MS, file};
use holdfast_proto::client::v1 as wire;
use holdfast_session::{
    CacheConfig, CallError, Completion, Config, Input, Known, Operation, Output, Problem, Session, Slot,
    State, StreamId, Token,
};
use holdfast_types::{Duration, HandleId, Time};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

#[derive(Clone, Debug)]
enum Step {
    /// The other clients.
    Change(Change),
    /// The application; a handle is one of those that are open.
    Open {
        path: String,
        writes: bool,
    },
    Read {
        which: usize,
        kind: u8,
    },
    Close {
        which: usize,
    },
    /// Nobody waits for the last call any more.
    Forget,
    /// The network: the next frame in either direction, or the end of the stream.
    ToCell,
    ToClient,
    Break {
        fail_over: bool,
    },
    Wait {
        ms: u64,
    },
}

struct World {
    now: Time,
    session: Session,
    cell: Cell,
    /// What is on its way to the cell.
    to_cell: VecDeque<wire::ClientFrame>,
    connecting: Option<StreamId>,
    stream: Option<StreamId>,
    calls: u64,
    /// Calls that are not over: the path that is opened, if it is an `Open`.
    open_calls: BTreeMap<Token, Option<String>>,
    /// The call that is being taken up: if it is over at once, it cost no message.
    calling: Option<Token>,
    handles: Vec<(HandleId, String)>,
    /// Every slot that there ever was: closed ones tell nothing, for ever.
    slots: Vec<(String, Arc<Slot>)>,
    /// What the notices of the present stream declared void.
    notices: BTreeMap<u64, Vec<wire::Invalidation>>,
    /// How often a slot told something, and an `Open` cost no message.
    told: u64,
    opened_here: u64,
    absent_here: u64,
}

impl World {
    fn new() -> Self {
        let config = Config {
            addresses: vec!["a:1".to_owned()],
            known: Known::default(),
            cell: "dev".to_owned(),
            client: "client".to_owned(),
            secret: [7; 32],
            lease: Duration::from_millis(u64::from(LEASE_MS)),
            grace: Duration::from_secs(5),
            open_timeout: Duration::from_secs(5),
            ends_when_idle: true,
            drift_per_mille: 10,
            seed: 7,
            cache: CacheConfig {
                bytes_max: 4_096,
                idle_handles_max: 2,
                idle_handle_time: Duration::from_millis(700),
                ..CacheConfig::default()
            },
        };
        let mut cell = Cell::default();
        cell.plan(Change::Create(0));
        cell.plan(Change::Create(1));
        let mut world = Self {
            now: Time::ZERO,
            session: Session::new(Time::ZERO, config),
            cell,
            to_cell: VecDeque::new(),
            connecting: None,
            stream: None,
            calls: 0,
            open_calls: BTreeMap::new(),
            calling: None,
            handles: Vec::new(),
            slots: Vec::new(),
            notices: BTreeMap::new(),
            told: 0,
            opened_here: 0,
            absent_here: 0,
        };
        world.perform();
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Change(change) => self.cell.plan(change),
            Step::Open { path, writes } => {
                let uses = Some(wire::Uses { read: true, write: writes, change_acl: false });
                let open = wire::Open { path: path.clone(), caching: true, uses, ..wire::Open::default() };
                self.call(Some(path), Operation::Open(Box::new(open)));
            }
            Step::Read { which, kind } => {
                if let Some((HandleId(handle), path)) = self.pick(which) {
                    self.call(None, read(handle, &path, kind));
                }
            }
            Step::Close { which } => {
                if let Some((id, _)) = self.pick(which) {
                    self.handles.retain(|(open, _)| *open != id);
                    self.call(None, Operation::Close(wire::Close { handle: id.0 }));
                }
            }
            Step::Forget => {
                let token = Token(self.calls);
                if self.open_calls.remove(&token).is_some() {
                    self.input(Input::CancelCall { token });
                }
            }
            Step::ToCell => self.deliver_to_cell(),
            Step::ToClient => self.deliver_to_client(),
            Step::Break { fail_over } => self.break_stream(fail_over),
            Step::Wait { ms } => {
                self.now += Duration::from_millis(ms);
                self.cell.pass(self.now);
                self.input(Input::TimePassed);
            }
        }
        self.check_slots();
    }

    fn pick(&self, which: usize) -> Option<(HandleId, String)> {
        self.handles.get(which.checked_rem(self.handles.len())?).cloned()
    }

    fn call(&mut self, path: Option<String>, operation: Operation) {
        self.calls += 1;
        let token = Token(self.calls);
        self.open_calls.insert(token, path);
        self.calling = Some(token);
        self.input(Input::Call { token, operation });
        self.calling = None;
    }

    fn input(&mut self, input: Input) {
        self.session.handle(self.now, input);
        self.perform();
    }

    fn perform(&mut self) {
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Connect { stream, .. } => self.connecting = Some(stream),
                Output::Disconnect { stream, .. } => {
                    if self.stream == Some(stream) {
                        self.lose_stream(false);
                    }
                    self.connecting.take_if(|connecting| *connecting == stream);
                }
                Output::Send { frame, .. } => {
                    self.check_acknowledgement(frame.notices_through);
                    self.to_cell.push_back(frame);
                }
                Output::Complete { token, result } => self.complete(token, result),
                Output::StateChanged(_)
                | Output::Event(_)
                | Output::Flushed { .. }
                | Output::FailedOver { .. } => {}
            }
        }
    }

    fn complete(&mut self, token: Token, result: Result<Completion, CallError>) {
        let path = self.open_calls.remove(&token).expect("each call ends once");
        match (path, result) {
            (Some(path), Ok(completion)) => {
                if completion.from_cache {
                    self.opened_here += 1;
                    assert!(self.exists(&path), "{path} was opened without a message, and is not there");
                }
                self.handles.push((completion.handle, path.clone()));
                self.slots.extend(completion.slot.map(|slot| (path, slot)));
            }
            (Some(path), Err(CallError::Refused(_))) if self.calling == Some(token) => {
                self.absent_here += 1;
                assert!(!self.exists(&path), "{path} was found absent without a message, and is there");
            }
            _ => {}
        }
    }

    fn exists(&self, path: &str) -> bool {
        path == DIRECTORY || self.cell.files.contains_key(path)
    }

    fn deliver_to_cell(&mut self) {
        if let Some(stream) = self.connecting.take() {
            self.stream = Some(stream);
            self.input(Input::Connected { stream });
        } else if let Some(frame) = self.to_cell.pop_front() {
            self.cell.handle(self.now, frame);
        }
    }

    fn deliver_to_client(&mut self) {
        let Some(stream) = self.stream.filter(|_| !self.cell.out.is_empty()) else { return };
        let frame = self.cell.out.remove(0);
        for notice in &frame.notices {
            self.notices.insert(notice.number, notice.invalidations.clone());
        }
        self.input(Input::Frame { stream, frame });
    }

    fn break_stream(&mut self, fail_over: bool) {
        if let Some(stream) = self.stream {
            self.lose_stream(fail_over);
            self.input(Input::Disconnected { stream, problem: Problem::unserved("broken") });
        }
    }

    fn lose_stream(&mut self, fail_over: bool) {
        self.stream = None;
        self.to_cell.clear();
        self.notices.clear();
        self.cell.broken(fail_over);
    }

    /// What is acknowledged is gone.
    fn check_acknowledgement(&self, through: u64) {
        let void = self.notices.range(..=through).flat_map(|(_, invalidations)| invalidations);
        for invalidation in void {
            // Where the change is made, newer values may have come in: `check_slots` looks at those.
            let barred = self.cell.is_about_to_change(&invalidation.path, through);
            for (_, slot) in self.slots.iter().filter(|(path, _)| barred && *path == invalidation.path) {
                let clock = || Time::ZERO;
                assert!(
                    slot.contents(clock).is_none()
                        && slot.stat(clock).is_none()
                        && slot.children(clock).is_none(),
                    "{} is acknowledged, and to be read",
                    invalidation.path
                );
            }
        }
    }

    /// Everything that can be read is so at this moment.
    fn check_slots(&mut self) {
        let now = self.now;
        for (path, slot) in &self.slots {
            let written = self.cell.files.get(path).map(|(_, written)| *written);
            if let Some(contents) = slot.contents(|| now) {
                let told = String::from_utf8_lossy(&contents.contents).into_owned();
                assert_eq!(Some(told), written.map(|written| written.to_string()), "{path} is stale");
                self.told += 1;
            }
            if let Some(stat) = slot.stat(|| now) {
                let present = if path == DIRECTORY { Some(self.cell.directory) } else { written };
                assert_eq!(Some(stat.content_generation.max(stat.children_generation)), present);
                self.told += 1;
            }
            if let Some(children) = slot.children(|| now) {
                let told = children.entries.iter().map(|entry| {
                    (entry.name.clone(), entry.stat.as_ref().map_or(0, |stat| stat.content_generation))
                });
                let present = self.cell.files.iter().map(|(path, (_, written))| (path.clone(), *written));
                assert!(told.eq(present), "the list of children is stale");
                self.told += 1;
            }
        }
        assert!(!self.cell.ended || self.session.valid_until() <= now, "believed in, and over at the cell");
    }
}

fn read(handle: u64, path: &str, kind: u8) -> Operation {
    match kind {
        0 => Operation::GetStat(wire::GetStat { handle }),
        _ if path == DIRECTORY => Operation::ReadDir(wire::ReadDir { handle, ..wire::ReadDir::default() }),
        _ => Operation::GetContents(wire::GetContents { handle }),
    }
}

fn step() -> impl Strategy<Value = Step> {
    let change = (0..3_u8, 0..3_u8).prop_map(|(kind, index)| {
        Step::Change(match kind {
            0 => Change::Write(index),
            1 => Change::Create(index),
            _ => Change::Delete(index),
        })
    });
    let path = prop_oneof![1 => Just(DIRECTORY.to_owned()), 3 => (0..4_u8).prop_map(file)];
    prop_oneof![
        30 => Just(Step::ToCell),
        30 => Just(Step::ToClient),
        8 => change,
        12 => (path, any::<bool>()).prop_map(|(path, writes)| Step::Open { path, writes }),
        14 => (0..8_usize, 0..3_u8).prop_map(|(which, kind)| Step::Read { which, kind }),
        6 => (0..8_usize).prop_map(|which| Step::Close { which }),
        1 => Just(Step::Forget),
        1 => any::<bool>().prop_map(|fail_over| Step::Break { fail_over }),
        8 => prop_oneof![9 => 0..60_u64, 1 => 0..900_u64].prop_map(|ms| Step::Wait { ms }),
    ]
}

fn run(steps: Vec<Step>) -> World {
    let mut world = World::new();
    // The session is open, and so is the directory.
    let begin = [Step::ToCell, Step::ToCell, Step::ToClient];
    let open = Step::Open { path: DIRECTORY.to_owned(), writes: false };
    for step in begin.into_iter().chain([open, Step::ToCell, Step::ToCell, Step::ToClient]).chain(steps) {
        world.step(step);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    #[test]
    fn what_can_be_read_is_so_at_that_moment(steps in proptest::collection::vec(step(), 1..250)) {
        run(steps);
    }
}

/// The test above proves nothing of a cache that is always empty.
#[test]
fn the_cache_is_used() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut told, mut opened, mut absent, mut safe) = (0, 0, 0, 0);
    for _ in 0..200 {
        let steps = proptest::collection::vec(step(), 250).new_tree(&mut runner).expect("steps").current();
        let world = run(steps);
        (told, opened, absent) = (told + world.told, opened + world.opened_here, absent + world.absent_here);
        safe += u32::from(*world.session.state() == State::Safe);
    }
    assert!(told > 10_000, "slots told something {told} times");
    assert!(opened > 300, "{opened} nodes were opened without a message");
    assert!(absent > 100, "{absent} names were found absent without a message");
    assert!(safe > 50, "{safe} of 200 sessions lived through it");
}
