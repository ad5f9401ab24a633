//! What holds for a session whatever happens to it, in any order, and whatever a master says.

use holdfast_proto::client::v1 as wire;
use holdfast_proto::client::v1::{client_frame, event, outcome, server_frame};
use holdfast_session::{
    CacheConfig, Config, Input, Known, Operation, Output, Problem, Session, State, StreamId, Token,
};
use holdfast_types::{Duration, HandleId, Time};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Leases in these tests are believed so much shorter.
const DRIFT_PER_MILLE: u32 = 10;

/// Ids and numbers that only the session knows have this bit.
const LOCAL: u64 = 1 << 63;

/// Something that happens. Streams and tokens are given relative to the newest, so that they mostly mean something.
#[derive(Clone, Debug)]
enum Step {
    Wait { ms: u64 },
    Connected { back: u64 },
    Broken { back: u64 },
    Frame { back: u64, frame: wire::ServerFrame },
    Call(Operation),
    Cancel { back: u64 },
    Limit { back: u64, ms: u64 },
    Flush,
    KeepLocks { handle: u64 },
    Close,
}

/// A session, its driver, and what must be true of both.
struct World {
    now: Time,
    session: Session,
    streams: u64,
    calls: u64,
    cancelled: BTreeSet<Token>,
    completed: BTreeSet<Token>,
    /// When each KeepAlive was sent, and on which stream.
    sent: BTreeMap<u64, (StreamId, Time)>,
    /// When the hello of each stream was sent.
    hellos: BTreeMap<StreamId, Time>,
    /// The latest moment until which any grant, counted from its stamp, lets the session be believed in.
    bound: Time,
    last_belief: Time,
    /// The application has closed the session: it is not believed in from then on.
    closed: bool,
    /// By number: what was sent under it, which must never change.
    requests: BTreeMap<u64, Operation>,
}

impl World {
    fn new() -> Self {
        let config = Config {
            addresses: vec!["a:1".to_owned(), "b:1".to_owned()],
            known: Known::default(),
            cell: "dev".to_owned(),
            client: "client".to_owned(),
            secret: [7; 32],
            lease: Duration::from_secs(1),
            grace: Duration::from_secs(5),
            open_timeout: Duration::from_secs(5),
            ends_when_idle: true,
            drift_per_mille: DRIFT_PER_MILLE,
            seed: 7,
            cache: CacheConfig::default(),
        };
        Self {
            now: Time::ZERO,
            session: Session::new(Time::ZERO, config),
            streams: 0,
            calls: 0,
            cancelled: BTreeSet::new(),
            completed: BTreeSet::new(),
            sent: BTreeMap::new(),
            hellos: BTreeMap::new(),
            bound: Time::ZERO,
            last_belief: Time::ZERO,
            closed: false,
            requests: BTreeMap::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wait { ms } => {
                self.now += Duration::from_millis(ms);
                self.input(Input::TimePassed);
            }
            Step::Connected { back } => self.input(Input::Connected { stream: self.stream(back) }),
            Step::Broken { back } => {
                self.input(Input::Disconnected {
                    stream: self.stream(back),
                    problem: Problem::unserved("broken"),
                });
            }
            Step::Frame { back, frame } => {
                let stream = self.stream(back);
                self.raise_bound(stream, &frame);
                self.input(Input::Frame { stream, frame });
            }
            Step::Call(operation) => {
                self.calls += 1;
                self.input(Input::Call { token: Token(self.calls), operation });
            }
            Step::Cancel { back } => {
                let token = Token(self.calls.saturating_sub(back));
                if !self.completed.contains(&token) {
                    self.cancelled.insert(token);
                }
                self.input(Input::CancelCall { token });
            }
            Step::Limit { back, ms } => {
                let token = Token(self.calls.saturating_sub(back));
                self.input(Input::LimitCall { token, within: Duration::from_millis(ms) });
            }
            Step::Flush => self.input(Input::Flush { token: Token(u64::MAX) }),
            Step::KeepLocks { handle } => self.input(Input::KeepLocks { handle: HandleId(handle) }),
            Step::Close => {
                self.closed = true;
                self.input(Input::Close);
            }
        }
    }

    fn stream(&self, back: u64) -> StreamId {
        StreamId(self.streams.saturating_sub(back))
    }

    fn raise_bound(&mut self, stream: StreamId, frame: &wire::ServerFrame) {
        let believed =
            |ms: u32| Duration::from_nanos(u64::from(ms) * u64::from(1000 - DRIFT_PER_MILLE) * 1000);
        if let Some(server_frame::Hello::Opened(opened)) = &frame.hello
            && let Some(stamp) = self.hellos.get(&stream)
        {
            self.bound = self.bound.max(*stamp + believed(opened.lease_ms));
        }
        if let Some(lease) = &frame.lease
            && let Some((on, stamp)) = self.sent.get(&lease.number)
            && *on == stream
        {
            self.bound = self.bound.max(*stamp + believed(lease.lease_ms));
        }
    }

    fn input(&mut self, input: Input) {
        self.session.handle(self.now, input);
        while let Some(output) = self.session.poll_output() {
            self.check(output);
        }
        let belief = self.session.valid_until();
        assert!(belief <= self.bound, "believed until {belief}, granted until {}", self.bound);
        let over = matches!(self.session.state(), State::Ended(_));
        if over || self.closed {
            assert_eq!(belief, Time::ZERO, "a session that is over, or closing, is believed in");
        } else {
            assert!(belief >= self.last_belief, "the lease moved back");
            assert!(*self.session.state() != State::Safe || self.now < belief, "safe without a lease");
        }
        assert!(
            over || self.session.poll_timeout().is_some(),
            "a session that lives has something to wait for"
        );
        self.last_belief = belief;
    }

    fn check(&mut self, output: Output) {
        match output {
            Output::Connect { stream, .. } => {
                assert_eq!(stream.0, self.streams + 1);
                self.streams = stream.0;
            }
            Output::Complete { token, .. } => {
                assert!(!self.cancelled.contains(&token), "{token:?} was cancelled, and completes");
                assert!(self.completed.insert(token), "{token:?} completes twice");
            }
            Output::Send { stream, frame } => {
                assert_eq!(stream.0, self.streams, "nothing is sent on an old stream");
                self.check_frame(stream, &frame);
            }
            Output::Disconnect { .. }
            | Output::StateChanged(_)
            | Output::Event(_)
            | Output::Flushed { .. }
            | Output::FailedOver { .. } => {}
        }
    }

    fn check_frame(&mut self, stream: StreamId, frame: &wire::ClientFrame) {
        if let Some(client_frame::Hello::Open(_) | client_frame::Hello::Attach(_)) = &frame.hello {
            assert!(self.hellos.insert(stream, self.now).is_none(), "two hellos on one stream");
        }
        if let Some(keep_alive) = &frame.keep_alive {
            let earlier = self.sent.insert(keep_alive.number, (stream, self.now));
            assert!(earlier.is_none(), "a KeepAlive's number is used twice");
        }
        let acknowledged = frame.acknowledged.clone().unwrap_or_default();
        for request in &frame.requests {
            let number = request.number;
            assert!(number > acknowledged.through, "#{number} is sent, and acknowledged at once");
            assert!(acknowledged.ranges.iter().all(|range| number < range.first || number > range.last));
            let operation = request.operation.clone().expect("a request asks for something");
            let said = format!("{operation:?}");
            let local = (1..100).map(|local| (local | LOCAL).to_string()).find(|local| said.contains(local));
            assert_eq!(local, None, "the cell is told what only the session knows: {said}");
            let first = self.requests.entry(number).or_insert_with(|| operation.clone());
            assert_eq!(*first, operation, "#{number} is used for two requests");
        }
    }

    /// Lets the session end, and checks that nobody waits any more.
    fn end(mut self) {
        self.now += Duration::from_secs(1_000_000_000);
        self.input(Input::TimePassed);
        self.now += Duration::from_secs(1_000_000_000);
        self.input(Input::TimePassed);
        assert!(matches!(self.session.state(), State::Ended(_)), "the grace period is over");
        for call in 1..=self.calls {
            let token = Token(call);
            let completed = self.completed.contains(&token);
            assert!(
                completed != self.cancelled.contains(&token),
                "{token:?} completes once, or is cancelled"
            );
        }
    }
}

fn granted() -> impl Strategy<Value = wire::Granted> {
    (0..3_i32, any::<u64>()).prop_map(|(mode, lock_generation)| wire::Granted {
        mode,
        lock_generation,
        instance: 1,
    })
}

fn grant() -> impl Strategy<Value = wire::LockGrant> {
    (0..6_u64, 0..12_u64, proptest::option::of(granted()))
        .prop_map(|(handle, number, granted)| wire::LockGrant { handle, number, granted })
}

fn result() -> impl Strategy<Value = Option<outcome::Result>> {
    prop_oneof![
        Just(None),
        (0..3_i32).prop_map(|kind| {
            let stat = Some(wire::Stat { kind, ..wire::Stat::default() });
            Some(outcome::Result::Opened(Box::new(wire::Opened { created: false, stat })))
        }),
        Just(Some(outcome::Result::Contents(Box::default()))),
        Just(Some(outcome::Result::Directory(Box::default()))),
        Just(Some(outcome::Result::Closed(wire::Closed {}))),
        Just(Some(outcome::Result::Written(wire::Written::default()))),
        Just(Some(outcome::Result::Released(wire::Released {}))),
        Just(Some(outcome::Result::Cancelled(wire::Cancelled {}))),
        (0..4_u64).prop_map(|ahead| Some(outcome::Result::Queued(wire::Queued { ahead }))),
        granted().prop_map(|granted| Some(outcome::Result::Granted(granted))),
        // 20, an unknown session, ends everything: rarely.
        prop_oneof![40 => 0..19_i32, 1 => 0..40_i32].prop_map(|code| Some(outcome::Result::Refusal(
            wire::Refusal { code, message: String::new(), ..Default::default() }
        ))),
    ]
}

fn reply() -> impl Strategy<Value = wire::Reply> {
    (0..12_u64, proptest::option::weighted(0.95, result()), any::<bool>()).prop_map(
        |(number, result, cacheable)| {
            let outcome = result.map(|result| wire::Outcome { revision: 1, result });
            wire::Reply { number, outcome, cacheable }
        },
    )
}

fn cell() -> impl Strategy<Value = Option<wire::CellInfo>> {
    let cell = (0..5_u32, proptest::collection::vec("[a-d]:[0-9]", 0..4)).prop_map(|(window, addresses)| {
        wire::CellInfo { cell_id: 1, addresses, requests_in_flight_max: window, ..wire::CellInfo::default() }
    });
    proptest::option::weighted(0.95, cell)
}

fn hello() -> impl Strategy<Value = server_frame::Hello> {
    let opened = (0..2_000_u32, cell()).prop_map(|(lease_ms, cell)| {
        server_frame::Hello::Opened(wire::SessionOpened {
            session: 9,
            lease_ms,
            lease_length_ms: lease_ms,
            cell,
            principal: String::new(),
        })
    });
    let attached =
        (0..8_u64, proptest::collection::vec(grant(), 0..3), cell()).prop_map(|(attachment, locks, cell)| {
            server_frame::Hello::Attached(wire::SessionAttached { attachment, locks, cell })
        });
    let refused =
        (prop_oneof![9 => Just(22), 1 => 0..40_i32], "[a-d]?").prop_map(|(code, master_address)| {
            let refusal = Some(wire::Refusal { code, message: String::new(), ..Default::default() });
            server_frame::Hello::Refused(wire::StreamRefused { refusal, master_address })
        });
    prop_oneof![4 => opened, 4 => attached, 1 => refused]
}

fn notice() -> impl Strategy<Value = wire::Notice> {
    let invalidation =
        ("(/[0-5])?", any::<bool>()).prop_map(|(path, opens)| wire::Invalidation { path, opens });
    let event = (0..8_u64, proptest::collection::vec(0..9_i32, 0..3), 0..9_u64).prop_map(
        |(handle, kinds, content_generation)| wire::HandleEvent {
            handle,
            kinds,
            content_generation,
            ..wire::HandleEvent::default()
        },
    );
    (0..9_u64, proptest::collection::vec(invalidation, 0..3), proptest::collection::vec(event, 0..3))
        .prop_map(|(number, invalidations, events)| wire::Notice { number, invalidations, events })
}

fn ending() -> impl Strategy<Value = wire::SessionEnding> {
    (0..5_i32).prop_map(|reason| wire::SessionEnding { reason })
}

fn frame() -> impl Strategy<Value = wire::ServerFrame> {
    let lease = (0..20_u64, prop_oneof![9 => 0..3_000_u32, 1 => any::<u32>()])
        .prop_map(|(number, lease_ms)| wire::LeaseGranted { number, lease_ms });
    let event = proptest::option::weighted(0.9, grant().prop_map(event::Event::LockGranted))
        .prop_map(|event| wire::Event { event });
    let ended = (0..4_i32).prop_map(|reason| wire::SessionEnded { reason });
    (
        proptest::option::weighted(0.4, hello()),
        proptest::collection::vec(reply(), 0..4),
        proptest::option::weighted(0.6, lease),
        proptest::collection::vec(event, 0..2),
        proptest::option::weighted(0.01, ended),
        proptest::collection::vec(notice(), 0..2),
        proptest::option::weighted(0.02, ending()),
    )
        .prop_map(|(hello, replies, lease, events, ended, notices, ending)| wire::ServerFrame {
            hello,
            replies,
            lease,
            events,
            ended,
            notices,
            ending,
        })
}

fn open() -> impl Strategy<Value = Operation> {
    (0..6_u64, any::<bool>(), any::<bool>(), 0..3_u64, any::<bool>()).prop_map(
        |(name, caching, reads, directory, watched)| {
            let uses = reads.then_some(wire::Uses { read: true, ..wire::Uses::default() });
            let events = if watched { vec![wire::EventKind::ConflictingRequest.into()] } else { Vec::new() };
            let path = if directory == 0 { format!("/{name}") } else { name.to_string() };
            Operation::Open(Box::new(wire::Open {
                path,
                caching,
                uses,
                directory,
                events,
                ..wire::Open::default()
            }))
        },
    )
}

/// Handles and numbers of the cell, and those that only the session knows.
fn named() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0..6_u64, 1 => (1..8_u64).prop_map(|local| local | LOCAL)]
}

fn operation() -> impl Strategy<Value = Operation> {
    let other = (0..9_u64, named(), named()).prop_map(|(kind, handle, number)| match kind {
        0 => Operation::Close(wire::Close { handle }),
        1 => Operation::Release(wire::Release { handle }),
        2 => Operation::GetContents(wire::GetContents { handle }),
        3 => Operation::SetContents(wire::SetContents { handle, ..wire::SetContents::default() }),
        4 => Operation::Cancel(wire::Cancel { number, handle }),
        5 => Operation::ReadDir(wire::ReadDir { handle, ..wire::ReadDir::default() }),
        6 => Operation::SetSequencer(wire::SetSequencer { handle, ..wire::SetSequencer::default() }),
        _ => Operation::Acquire(wire::Acquire { handle, mode: 1, try_only: false }),
    });
    prop_oneof![1 => open(), 4 => other]
}

fn step() -> impl Strategy<Value = Step> {
    let back = || prop_oneof![9 => Just(0_u64), 1 => 0..4_u64];
    prop_oneof![
        20 => prop_oneof![9 => 0..400_u64, 1 => 0..4_000_u64].prop_map(|ms| Step::Wait { ms }),
        15 => back().prop_map(|back| Step::Connected { back }),
        5 => back().prop_map(|back| Step::Broken { back }),
        30 => (back(), frame()).prop_map(|(back, frame)| Step::Frame { back, frame }),
        20 => operation().prop_map(Step::Call),
        8 => (0..6_u64).prop_map(|back| Step::Cancel { back }),
        8 => (0..6_u64, 0..2_000_u64).prop_map(|(back, ms)| Step::Limit { back, ms }),
        2 => Just(Step::Flush),
        3 => (0..6_u64).prop_map(|handle| Step::KeepLocks { handle }),
        1 => Just(Step::Close),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_happens_each_call_ends_once_and_no_lease_is_believed_too_long(
        steps in proptest::collection::vec(step(), 1..80)
    ) {
        let mut world = World::new();
        world.input(Input::TimePassed);
        for step in steps {
            world.step(step);
        }
        world.end();
    }

    #[test]
    fn the_same_inputs_give_the_same_outputs(steps in proptest::collection::vec(step(), 1..40)) {
        let run = |steps: Vec<Step>| {
            let mut world = World::new();
            world.input(Input::TimePassed);
            for step in steps {
                world.step(step);
            }
            format!("{:?} {:?}", world.session, world.requests)
        };
        prop_assert_eq!(run(steps.clone()), run(steps));
    }
}
