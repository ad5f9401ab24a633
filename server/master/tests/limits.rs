//! What one client can make a master do in one turn, and what it is told when things cross each other.

use holdfast_master::{Config, Input, Master, Output};
use holdfast_proto::client::v1::{
    self as client, RefusalCode, client_frame, request::Operation, server_frame,
};
use holdfast_proto::log::v1::Command;
use holdfast_state::{Genesis, State, settings};
use holdfast_types::{ConnectionId, Principal, Term, Time};
use prost::Message as _;

/// A master and the state under it. Time stands still.
struct Cell {
    state: State,
    master: Master,
    proposed: Vec<Command>,
    frames: Vec<(ConnectionId, client::ServerFrame)>,
}

impl Cell {
    fn new() -> Self {
        let settings = settings::defaults();
        let state = State::genesis(Genesis { cell: "dev".into(), cell_id: 7, members: Vec::new(), settings });
        let master = Master::new(Time::ZERO, Term(1), Config::default(), &state);
        Self { state, master, proposed: Vec::new(), frames: Vec::new() }
    }

    /// Performs outputs; rounds are confirmed at once, commands kept.
    fn settle(&mut self) {
        while let Some(output) = self.master.poll_output() {
            match output {
                Output::Propose(command) => self.proposed.push(command),
                Output::Confirm(round) => {
                    self.master.handle(Time::ZERO, &self.state, Input::Confirmed(round));
                }
                Output::Frame { connection, frame } => self.frames.push((connection, frame)),
                Output::Disconnect { .. } | Output::Answer { .. } => {}
            }
        }
    }

    /// Applies all that is proposed as one batch: the master hears of it when the state has all of it.
    fn commit(&mut self) {
        let mut effects = Vec::new();
        for command in std::mem::take(&mut self.proposed) {
            self.state.apply(command, &mut effects).expect("no fault");
        }
        for effect in effects {
            self.master.handle(Time::ZERO, &self.state, Input::Applied(effect));
        }
        self.settle();
    }

    fn frame(&mut self, connection: u64, frame: client::ClientFrame) {
        let connection = ConnectionId(connection);
        self.master.handle(
            Time::ZERO,
            &self.state,
            Input::Frame { connection, principal: Principal::anonymous(), frame },
        );
        self.settle();
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

#[test]
fn a_frame_of_reads_does_not_make_more_answers_than_can_wait_for_the_client() {
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
    let read = |number| (number, Operation::GetContents(client::GetContents { handle: 1 }));
    cell.frame(1, requests((2..200).map(read)));
    assert_eq!(cell.refused(1), None, "what fits is answered");
    assert_eq!(cell.frames.iter().map(|(_, frame)| frame.replies.len()).sum::<usize>(), 199);
    cell.frames.clear();
    cell.frame(1, requests((200..10_200).map(read)));
    assert_eq!(cell.refused(1), Some(RefusalCode::Overloaded));
    let bytes: usize = cell.frames.iter().map(|(_, frame)| frame.encoded_len()).sum();
    assert!(bytes < 65 << 20, "{bytes} bytes");
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
        let (connection, principal) = (ConnectionId(1), Principal::anonymous());
        let input = Input::Frame { connection, principal, frame: keep_alive(number) };
        cell.master.handle(Time::ZERO, &cell.state, input);
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
    cell.frame(1, requests((0..=in_flight_max).map(|number| (2 + number, read(1)))));
    let refused: Vec<_> = cell.frames.drain(..).flat_map(|(_, frame)| frame.replies).collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].number, in_flight_max + 2);
    cell.commit();
    let answers: usize = cell.frames.iter().map(|(_, frame)| frame.replies.len()).sum();
    assert_eq!(answers as u64, 1 + in_flight_max);
}

#[test]
fn writes_that_wait_for_a_silent_client_are_held_up_to_a_limit_and_others_go_on() {
    let mut cell = Cell::new();
    cell.frame(1, hello());
    let other = client::OpenSession { secret: vec![8; 16].into(), ..client::OpenSession::default() };
    let hello = Some(client_frame::Hello::Open(other));
    cell.frame(2, client::ClientFrame { hello, ..client::ClientFrame::default() });
    cell.commit();
    cell.frame(1, requests([(1, open("/a", true))].into_iter()));
    cell.frame(2, requests([(1, open("/a", false)), (2, open("/b", false))].into_iter()));
    cell.commit();
    cell.frame(1, requests([(2, read(1))].into_iter()));
    cell.frames.clear();
    let contents = bytes::Bytes::from(vec![7; 256 << 10]);
    let write = |handle| {
        let contents = contents.clone();
        Operation::SetContents(client::SetContents { handle, contents, if_generation: None })
    };
    cell.frame(2, requests((3..1_100).map(|number| (number, write(1)))));
    let refused: Vec<_> = cell.frames.drain(..).flat_map(|(_, frame)| frame.replies).collect();
    assert!((50..100).contains(&refused.len()), "{} of 1,097 were refused", refused.len());
    cell.frame(
        2,
        requests([(1_100, write(2)), (1_101, Operation::Close(client::Close { handle: 1 }))].into_iter()),
    );
    assert_eq!(cell.proposed.len(), 1, "nobody caches the other file");
    cell.frame(1, client::ClientFrame { notices_through: 1, ..client::ClientFrame::default() });
    assert_eq!(cell.proposed.len(), 2 + 1_097 - refused.len(), "what was held, and the close after it");
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
