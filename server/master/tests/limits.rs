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
    cell.frame(1, requests([(1, Operation::Open(open))].into_iter()));
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
