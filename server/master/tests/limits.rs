//! What one client can make a master do in one turn, and what it is told when things cross each other.

use holdfast_master::{CallId, CallRequest, Config, Input, Master, Output};
use holdfast_proto::client::v1::{
    self as client, RefusalCode, client_frame, outcome, request::Operation, server_frame,
};
use holdfast_proto::log::v1::{Command, command::Kind};
use holdfast_state::{Genesis, State, settings};
use holdfast_types::ledger::{Ledger, LedgerLimits};
use holdfast_types::{ConnectionId, Duration, Principal, SocketId, Term, Time};
use prost::Message as _;

/// A master and the state under it. Time stands still.
struct Cell {
    state: State,
    master: Master,
    proposed: Vec<Command>,
    frames: Vec<(ConnectionId, client::ServerFrame)>,
    answered: Vec<CallId>,
}

impl Cell {
    fn new() -> Self {
        let settings = settings::defaults();
        let state = State::genesis(Genesis { cell: "dev".into(), cell_id: 7, members: Vec::new(), settings });
        let master = Master::new(Time::ZERO, Term(1), Config::default(), &state);
        Self { state, master, proposed: Vec::new(), frames: Vec::new(), answered: Vec::new() }
    }

    /// Turn by turn until nothing is left to do.
    fn settle(&mut self) {
        loop {
            self.turn();
            if self.master.poll_timeout().is_none_or(|timeout| timeout > Time::ZERO) {
                break;
            }
        }
    }

    /// One turn: performs outputs; rounds are confirmed at once, commands kept.
    fn turn(&mut self) {
        self.master.handle(Time::ZERO, &self.state, Input::TurnBegins);
        self.master.handle(Time::ZERO, &self.state, Input::Work { log_bytes: 0 });
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.master.poll_output() {
            match output {
                Output::Propose(command) => self.proposed.push(command),
                Output::Confirm(round) => {
                    self.master.handle(Time::ZERO, &self.state, Input::Confirmed(round));
                    self.master.handle(Time::ZERO, &self.state, Input::Work { log_bytes: 0 });
                }
                Output::Frame { connection, frame } => self.frames.push((connection, frame)),
                Output::Answer { call, .. } => self.answered.push(call),
                Output::Disconnect { .. } | Output::List { .. } => {}
            }
        }
    }

    /// Applies all that is proposed as one batch: the master hears of it when the state has all of it.
    fn commit(&mut self) {
        self.apply();
        self.settle();
    }

    fn apply(&mut self) {
        let mut effects = Vec::new();
        for command in std::mem::take(&mut self.proposed) {
            self.state.apply(command, &mut effects).expect("no fault");
        }
        for effect in effects {
            self.master.handle(Time::ZERO, &self.state, Input::Applied(effect));
        }
    }

    fn frame(&mut self, connection: u64, frame: client::ClientFrame) {
        self.hand_in(connection, frame);
        self.settle();
    }

    /// A frame comes, and the turn goes on.
    fn hand_in(&mut self, connection: u64, frame: client::ClientFrame) {
        let (connection, principal) = (ConnectionId(connection), Principal::anonymous());
        let charge = Ledger::new(LedgerLimits::NONE).account(&principal).charge_anyway(0);
        self.master.handle(Time::ZERO, &self.state, Input::Frame { connection, principal, frame, charge });
    }

    /// Why a stream was refused, if it was.
    fn refused(&self, connection: u64) -> Option<RefusalCode> {
        self.frames.iter().find_map(|(to, frame)| match &frame.hello {
            Some(server_frame::Hello::Refused(refused)) if *to == ConnectionId(connection) => {
                refused.refusal.as_ref().map(client::Refusal::code)
            }
            _ => None,
        })
    }
}

fn hello() -> client::ClientFrame {
    let open = client::OpenSession { secret: vec![7; 16].into(), ..client::OpenSession::default() };
    client::ClientFrame { hello: Some(client_frame::Hello::Open(open)), ..client::ClientFrame::default() }
}

fn requests(operations: impl Iterator<Item = (u64, Operation)>) -> client::ClientFrame {
    let request = |(number, operation)| client::Request { number, operation: Some(operation) };
    client::ClientFrame { requests: operations.map(request).collect(), ..client::ClientFrame::default() }
}

/// A cell with a session whose handle 1 is a file of 256 KiB.
fn cell_with_large_file() -> Cell {
    let mut cell = Cell::new();
    cell.frame(1, hello());
    cell.commit();
    let open = client::Open {
        path: "/large".to_owned(),
        creation: client::Creation::Must.into(),
        contents: vec![7; 256 << 10].into(),
        ..client::Open::default()
    };
    cell.frame(1, requests([(1, Operation::Open(Box::new(open)))].into_iter()));
    cell.commit();
    cell.frames.clear();
    cell
}

#[test]
fn a_turn_makes_answers_up_to_its_budget_and_one_more_and_the_next_turns_the_others() {
    let mut cell = cell_with_large_file();
    cell.hand_in(1, requests((2..102).map(|number| (number, read(1)))));
    let (mut answers, mut turns) = (0, 0);
    while answers < 100 {
        cell.turn();
        let bytes: usize = cell.frames.iter().map(|(_, frame)| frame.encoded_len()).sum();
        assert!(bytes < 2 * (257 << 10), "{bytes} bytes in one turn");
        answers += cell.frames.drain(..).map(|(_, frame)| frame.replies.len()).sum::<usize>();
        turns += 1;
        assert!(turns < 110, "each turn answers some");
    }
    assert!(turns > 50, "{turns} turns");
}

#[test]
fn small_reads_are_worked_off_in_turns_too() {
    let mut cell = Cell::new();
    cell.frame(1, hello());
    cell.commit();
    for session in 2_u8..12 {
        let open = client::OpenSession { secret: vec![session; 16].into(), ..client::OpenSession::default() };
        let hello = Some(client_frame::Hello::Open(open));
        cell.frame(session.into(), client::ClientFrame { hello, ..client::ClientFrame::default() });
    }
    cell.commit();
    cell.frames.clear();
    for session in 2_u8..12 {
        cell.hand_in(session.into(), requests((1..4_000).map(|number| (number, read(1)))));
    }
    let (mut turns, mut answers) = (0, 0);
    while answers < 10 * 3_999 {
        cell.turn();
        let said: usize = cell.frames.drain(..).map(|(_, frame)| frame.replies.len()).sum();
        assert!(said < 1_500, "{said} answers in one turn");
        (turns, answers) = (turns + 1, answers + said);
    }
    assert!((27..400).contains(&turns), "{turns} turns");
}

#[test]
fn calls_of_one_connection_do_not_stand_before_those_of_another_where_everybody_is_anonymous() {
    let mut cell = cell_with_large_file();
    let call = |cell: &mut Cell, call: u64, socket: u64| {
        let request = CallRequest::GetContents(client::GetContentsRequest { path: "/large".to_owned() });
        let (principal, socket) = (Principal::anonymous(), SocketId(socket));
        let call = Input::Call { call: CallId(call), principal, socket, request };
        cell.master.handle(Time::ZERO, &cell.state, call);
    };
    for number in 0..100 {
        call(&mut cell, number, 1);
    }
    call(&mut cell, 100, 2);
    cell.settle();
    assert_eq!(cell.answered.len(), 101);
    let place = cell.answered.iter().position(|call| call.0 == 100);
    assert!(place.is_some_and(|place| place < 10), "{:?}", cell.answered);
}

#[test]
fn reads_and_changes_count_together_as_requests_in_flight() {
    let mut cell = cell_with_large_file();
    let in_flight_max = u64::from(settings::defaults().requests_in_flight_max);
    cell.hand_in(1, requests((2..in_flight_max).map(|number| (number, read(1)))));
    cell.hand_in(1, requests((0..4).map(|number| (10_000 + number, open("/a", false)))));
    cell.hand_in(
        1,
        requests(
            [(20_000, Operation::Close(client::Close { handle: 1 })), (1, open("/large", false))].into_iter(),
        ),
    );
    cell.drain();
    let refused: Vec<_> = cell.frames.drain(..).flat_map(|(_, frame)| frame.replies).collect();
    let numbers: Vec<_> = refused.iter().map(|reply| reply.number).collect();
    assert_eq!(numbers, [10_002, 10_003], "neither what gives back nor what is recorded");
}

#[test]
fn a_session_whose_requests_all_give_something_back_loses_its_stream_and_not_more() {
    let mut cell = cell_with_large_file();
    let release = |number| (number, Operation::Release(client::Release { handle: 1 }));
    for frame in 0..4 {
        cell.hand_in(1, requests((0..4_096).map(|number| release(2 + 4_096 * frame + number))));
    }
    cell.drain();
    assert_eq!(cell.refused(1), Some(RefusalCode::Overloaded));
    assert!(cell.frames.iter().all(|(_, frame)| frame.replies.is_empty()), "none of them is refused");
}

#[test]
fn a_frame_of_more_requests_than_are_taken_at_once_ends_its_stream() {
    let mut cell = cell_with_large_file();
    cell.frame(1, requests((2..2 + 4_096).map(|number| (number, read(9)))));
    assert_eq!(cell.refused(1), None);
    cell.frame(1, requests((5_000..5_000 + 4_097).map(|number| (number, read(9)))));
    assert_eq!(cell.refused(1), Some(RefusalCode::Limit));
}

#[test]
fn a_first_frame_of_too_many_requests_is_refused_too() {
    let mut cell = Cell::new();
    let read = (1..=4_097).map(|number| (number, read(1)));
    cell.frame(1, client::ClientFrame { hello: hello().hello, ..requests(read) });
    assert_eq!(cell.refused(1), Some(RefusalCode::Limit));
    assert!(cell.proposed.is_empty(), "no session is opened");
}

/// A cell in which so many sessions watch a file, each with so many handles.
fn cell_with_watchers(sessions: u8, handles: u64) -> Cell {
    let mut cell = Cell::new();
    let watch = || {
        let kinds = [client::EventKind::ContentsModified.into()].to_vec();
        let creation = client::Creation::May.into();
        Operation::Open(Box::new(client::Open {
            path: "/watched".to_owned(),
            creation,
            events: kinds,
            ..client::Open::default()
        }))
    };
    for session in 1..=sessions {
        let open = client::OpenSession { secret: vec![session; 16].into(), ..client::OpenSession::default() };
        let hello = Some(client_frame::Hello::Open(open));
        cell.frame(session.into(), client::ClientFrame { hello, ..client::ClientFrame::default() });
        cell.commit();
        cell.frame(session.into(), requests((1..=handles).map(|number| (number, watch()))));
        cell.commit();
    }
    cell
}

/// Writes so many bytes to the file that everybody watches.
fn write_watched(bytes: usize) -> Operation {
    let contents = vec![7; bytes].into();
    Operation::SetContents(client::SetContents { handle: 1, contents, ..client::SetContents::default() })
}

#[test]
fn very_many_watchers_are_told_in_turns_and_each_of_them_is() {
    const HANDLES: u64 = 4_000;
    const SESSIONS: u8 = 5;
    let mut cell = cell_with_watchers(SESSIONS, HANDLES);
    cell.frame(1, requests([(HANDLES + 1, write_watched(0))].into_iter()));
    cell.frames.clear();
    cell.apply();
    let (mut turns, mut told, mut replied_in) = (0, std::collections::BTreeSet::new(), None);
    while told.len() < HANDLES as usize * usize::from(SESSIONS) {
        cell.turn();
        let frames: Vec<_> = cell.frames.drain(..).collect();
        let bytes: usize = frames.iter().map(|(_, frame)| frame.encoded_len()).sum();
        assert!(bytes < 512 << 10, "{bytes} bytes in one turn");
        for (connection, frame) in &frames {
            for notice in &frame.notices {
                told.extend(notice.events.iter().map(|event| (*connection, event.handle)));
                let notices_through = notice.number;
                let acknowledged = client::ClientFrame { notices_through, ..client::ClientFrame::default() };
                cell.hand_in(connection.0, acknowledged);
            }
        }
        if frames.iter().any(|(_, frame)| !frame.replies.is_empty()) {
            replied_in.get_or_insert(turns);
        }
        turns += 1;
        assert!(turns < 100, "{} are told", told.len());
    }
    assert_eq!(replied_in, Some(0), "the writer does not wait for that");
}

#[test]
fn a_file_that_is_written_without_a_pause_and_widely_watched_keeps_no_other_from_being_told() {
    const HANDLES: u64 = 4_000;
    let mut cell = cell_with_watchers(5, HANDLES);
    let watch = client::Open {
        path: "/other".to_owned(),
        creation: client::Creation::May.into(),
        events: vec![client::EventKind::ContentsModified.into()],
        ..client::Open::default()
    };
    let opening = client::OpenSession { secret: vec![9; 16].into(), ..client::OpenSession::default() };
    let hello = Some(client_frame::Hello::Open(opening));
    cell.frame(9, client::ClientFrame { hello, ..client::ClientFrame::default() });
    cell.commit();
    cell.frame(9, requests([(1, Operation::Open(Box::new(watch)))].into_iter()));
    cell.commit();
    cell.frames.clear();
    let is_told = |(to, frame): &(ConnectionId, client::ServerFrame)| {
        let events = frame.notices.iter().flat_map(|notice| &notice.events);
        *to == ConnectionId(9) && events.into_iter().next().is_some()
    };
    for turn in 0_u64.. {
        assert!(turn < 90, "nobody is told of the other file");
        cell.hand_in(1, requests([(HANDLES + 1 + turn, write_watched(0))].into_iter()));
        if turn == 20 {
            cell.hand_in(9, requests([(2, write_watched(0))].into_iter()));
        }
        cell.turn();
        cell.apply();
        if cell.frames.drain(..).any(|frame| is_told(&frame)) {
            break;
        }
    }
}

#[test]
fn of_long_lists_a_turn_makes_one() {
    const CHILDREN: u64 = 1_000;
    const LISTS: u64 = 20;
    let mut cell = Cell::new();
    cell.frame(1, hello());
    cell.commit();
    let kind = client::NodeKind::Directory.into();
    let creation = client::Creation::May.into();
    let directory = client::Open { path: "/d".to_owned(), kind, creation, ..client::Open::default() };
    let children = (0..CHILDREN).map(|child| (2 + child, open(&format!("/d/{child}"), false)));
    let made = [(1, Operation::Open(Box::new(directory)))].into_iter().chain(children);
    for frame in made.collect::<Vec<_>>().chunks(500) {
        cell.frame(1, requests(frame.iter().cloned()));
        cell.commit();
    }
    cell.frames.clear();
    let list = || Operation::ReadDir(client::ReadDir { handle: 1, ..client::ReadDir::default() });
    let first = 2 + CHILDREN;
    cell.hand_in(1, requests((first..first + LISTS).map(|number| (number, list()))));
    let (mut turns, mut lists) = (0, 0);
    while lists < LISTS {
        cell.turn();
        turns += 1;
        assert!(turns <= LISTS + 1, "{lists} lists are made");
        let replies: Vec<_> = cell.frames.drain(..).flat_map(|(_, frame)| frame.replies).collect();
        assert!(replies.len() <= 1, "{} lists in one turn", replies.len());
        for reply in replies {
            let result = reply.outcome.and_then(|outcome| outcome.result);
            let Some(outcome::Result::Directory(list)) = result else { panic!("{result:?} is no list") };
            assert_eq!(list.entries.len() as u64, CHILDREN);
            lists += 1;
        }
    }
}

#[test]
fn who_writes_what_many_watch_pays_for_each_of_them() {
    const HANDLES: u64 = 4_000;
    const WRITES: u64 = 200;
    let proposed_of = |has_written: bool| {
        let mut cell = cell_with_watchers(2, HANDLES);
        // The second session writes to a file of its own, which nobody watches.
        let own = client::Open {
            path: "/own".to_owned(),
            creation: client::Creation::May.into(),
            ..client::Open::default()
        };
        cell.frame(2, requests([(HANDLES + 1, Operation::Open(Box::new(own)))].into_iter()));
        cell.commit();
        if has_written {
            cell.frame(1, requests([(HANDLES + 1, write_watched(1))].into_iter()));
        }
        let own = || {
            let contents = vec![7; 1 << 10].into();
            let handle = HANDLES + 1;
            Operation::SetContents(client::SetContents { handle, contents, ..client::SetContents::default() })
        };
        let numbers = HANDLES + 2..HANDLES + 2 + WRITES;
        cell.hand_in(1, requests(numbers.clone().map(|number| (number, write_watched(1 << 10)))));
        cell.hand_in(2, requests(numbers.map(|number| (number, own()))));
        // Both wait by now. How many watch is known when the write is applied.
        cell.apply();
        cell.turn();
        let of_session = |secret: u8| {
            let (session, _) =
                cell.state.sessions().find(|(_, open)| open.secret()[0] == secret).expect("open");
            let is_of = |command: &&Command| match &command.kind {
                Some(Kind::Request(request)) => request.session == session.0,
                _ => false,
            };
            cell.proposed.iter().filter(is_of).count()
        };
        (of_session(1), of_session(2))
    };
    let (one, two) = proposed_of(false);
    assert!(one.abs_diff(two) < 20, "each has its share: {one} and {two}");
    let (one, two) = proposed_of(true);
    assert!(
        two > 140 && one == 0,
        "a part of a turn is for telling, and the rest for the second: {one} and {two}"
    );
}

#[test]
fn an_opening_that_is_repeated_while_the_session_ends_is_answered() {
    let mut cell = Cell::new();
    cell.frame(1, hello());
    cell.commit();
    cell.frame(2, hello());
    let close =
        client::ClientFrame { close: Some(client::CloseSession {}), ..client::ClientFrame::default() };
    cell.frame(1, close);
    cell.commit();
    assert_eq!(cell.refused(2), Some(RefusalCode::Overloaded), "it can try again");
}

fn open(path: &str, caching: bool) -> Operation {
    let creation = client::Creation::May.into();
    Operation::Open(Box::new(client::Open {
        path: path.to_owned(),
        creation,
        caching,
        ..client::Open::default()
    }))
}

fn read(handle: u64) -> Operation {
    Operation::GetContents(client::GetContents { handle })
}

#[test]
fn refused_keepalives_do_not_repeat_more_notices_than_can_wait_for_the_client() {
    const FILES: u64 = 1_000;
    let mut cell = Cell::new();
    cell.frame(1, hello());
    cell.commit();
    let long = |number: u64| format!("/{number}-{}", "x".repeat(200));
    cell.frame(1, requests((1..=FILES).map(|number| (number, open(&long(number), true)))));
    cell.commit();
    cell.frame(1, requests((1..=FILES).map(|number| (FILES + number, read(number)))));
    let keep_alive = |number| client::ClientFrame {
        keep_alive: Some(client::KeepAlive { number }),
        ..client::ClientFrame::default()
    };
    let write =
        |handle| Operation::SetContents(client::SetContents { handle, ..client::SetContents::default() });
    cell.frame(1, requests((1..=FILES).map(|handle| (2 * FILES + handle, write(handle)))));
    cell.frame(1, keep_alive(1));
    cell.frames.clear();
    for number in 2..2_000 {
        cell.hand_in(1, keep_alive(number));
    }
    cell.settle();
    let bytes: usize = cell.frames.iter().map(|(_, frame)| frame.encoded_len()).sum();
    assert!(bytes > 8 << 20, "{bytes} bytes: they are repeated");
    assert!(bytes < 65 << 20, "{bytes} bytes");
    assert_eq!(cell.refused(1), Some(RefusalCode::Overloaded));
}

#[test]
fn a_client_that_acknowledges_nothing_is_not_told_without_end_that_its_opens_are_void() {
    let mut cell = Cell::new();
    cell.frame(1, hello());
    cell.commit();
    cell.frame(1, requests([(1, open("/a", true))].into_iter()));
    cell.commit();
    for _ in 0..100_000 {
        cell.frames.clear();
        cell.frame(1, requests([(1, open("/a", true))].into_iter()));
        if cell.refused(1).is_some() {
            break;
        }
    }
    assert_eq!(cell.refused(1), Some(RefusalCode::Overloaded));
}

#[test]
fn reads_of_a_handle_that_is_being_opened_are_held_up_to_a_limit() {
    let mut cell = Cell::new();
    cell.frame(1, hello());
    cell.commit();
    cell.frame(1, requests([(1, open("/a", false))].into_iter()));
    let in_flight_max = u64::from(settings::defaults().requests_in_flight_max);
    cell.frame(1, requests((0..in_flight_max).map(|number| (2 + number, read(1)))));
    let refused: Vec<_> = cell.frames.drain(..).flat_map(|(_, frame)| frame.replies).collect();
    let numbers: Vec<_> = refused.iter().map(|reply| reply.number).collect();
    assert_eq!(numbers, [in_flight_max + 1], "the opening counts too");
    cell.commit();
    let answers: usize = cell.frames.iter().map(|(_, frame)| frame.replies.len()).sum();
    assert_eq!(answers as u64, in_flight_max);
}

#[test]
fn a_client_that_closes_its_session_again_and_again_is_taken_at_its_word_once() {
    let mut cell = Cell::new();
    cell.frame(1, hello());
    let other = client::OpenSession { secret: vec![8; 16].into(), ..client::OpenSession::default() };
    let hello = Some(client_frame::Hello::Open(other));
    cell.frame(2, client::ClientFrame { hello, ..client::ClientFrame::default() });
    cell.commit();
    cell.frame(1, requests([(1, open("/a", true))].into_iter()));
    cell.frame(2, requests([(1, open("/a", false))].into_iter()));
    cell.commit();
    cell.frame(1, requests([(2, read(1))].into_iter()));
    let write = Operation::SetContents(client::SetContents { handle: 1, ..client::SetContents::default() });
    cell.frame(2, requests([(2, write)].into_iter()));
    let close = client::ClientFrame { close: Some(client::CloseSession {}), ..Default::default() };
    for _ in 0..10_000 {
        cell.frame(2, close.clone());
    }
    assert_eq!(cell.proposed, [], "the write is held, and the end behind it");
    cell.frame(1, client::ClientFrame { notices_through: 1, ..client::ClientFrame::default() });
    assert_eq!(cell.proposed.len(), 2, "the write and one end: {:?}", cell.proposed);
    cell.commit();
    assert!(cell.proposed.is_empty());
}

/// A turn at a time, with so many bytes of changes in the log; gives how many commands it has proposed.
fn turn_at(cell: &mut Cell, ms: u64, log_bytes: u64) -> usize {
    let now = Time::ZERO + Duration::from_millis(ms);
    cell.master.handle(now, &cell.state, Input::TurnBegins);
    cell.master.handle(now, &cell.state, Input::Work { log_bytes });
    let mut proposed = 0;
    while let Some(output) = cell.master.poll_output() {
        proposed += usize::from(matches!(output, Output::Propose(_)));
    }
    proposed
}

#[test]
fn who_writes_large_files_without_a_pause_pauses_while_others_write_and_comes_back_in_time() {
    const LARGE: u64 = 256 << 10;
    let large_write = |number| {
        let write =
            client::SetContents { handle: 1, contents: vec![8; 256 << 10].into(), if_generation: None };
        (number, Operation::SetContents(write))
    };
    let mut cell = cell_with_large_file();
    let open = client::OpenSession { secret: vec![9; 16].into(), ..client::OpenSession::default() };
    let hello = Some(client_frame::Hello::Open(open));
    cell.frame(2, client::ClientFrame { hello, ..client::ClientFrame::default() });
    cell.commit();
    cell.hand_in(1, requests([large_write(2), large_write(3), large_write(4)].into_iter()));
    assert_eq!(turn_at(&mut cell, 0, 0), 1, "one large change at a time");
    // Alone, the next follows as soon as there is room.
    assert_eq!((turn_at(&mut cell, 1, LARGE), turn_at(&mut cell, 8, 0)), (0, 1));
    cell.hand_in(2, requests([(1, self::open("/small", false))].into_iter()));
    assert_eq!(turn_at(&mut cell, 9, LARGE), 1, "the small change finds room beside it");
    assert_eq!(turn_at(&mut cell, 20, 0), 0, "the large one lets others go first");
    assert_eq!(cell.master.poll_timeout(), Some(Time::ZERO + Duration::from_millis(31)));
    assert_eq!((turn_at(&mut cell, 30, 0), turn_at(&mut cell, 31, 0)), (0, 1));
}
