//! What a client's session is sent by a master, or by somebody who pretends to be one.

use std::collections::BTreeSet;

use holdfast_proto::client::v1::ServerFrame;
use holdfast_session::{CacheConfig, Config, Input, Known, Output, Problem, Session, StreamId, Token};
use holdfast_types::{Duration, HandleId, Time};
use prost::Message;

use crate::{Source, messages};

/// One input leads to no more outputs than this.
const OUTPUTS_MAX: usize = 10_000;

/// A session, and what it owes.
struct Client {
    session: Session,
    now: Time,
    stream: u64,
    calls: u64,
    completed: BTreeSet<Token>,
}

impl Client {
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
            ends_when_idle: false,
            drift_per_mille: 10,
            seed: 7,
            cache: CacheConfig::default(),
        };
        let session = Session::new(Time::ZERO, config);
        let mut client = Self { session, now: Time::ZERO, stream: 0, calls: 0, completed: BTreeSet::new() };
        client.settle();
        client
    }

    fn input(&mut self, input: Input) {
        self.session.handle(self.now, input);
        self.settle();
    }

    fn settle(&mut self) {
        for _ in 0..OUTPUTS_MAX {
            match self.session.poll_output() {
                None => return,
                Some(Output::Connect { stream, .. }) => self.stream = stream.0,
                Some(Output::Complete { token, .. }) => {
                    assert!(self.completed.insert(token), "{token:?} completes twice");
                }
                Some(_) => {}
            }
        }
        panic!("there is no end to what the session wants done");
    }

    fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        while let Some(next) = self.session.poll_timeout().filter(|next| *next <= until) {
            // However often it wants to be woken, time goes on.
            self.now = self.now.max(next) + Duration::from_micros(100);
            self.input(Input::TimePassed);
        }
        self.now = self.now.max(until);
    }

    fn step(&mut self, source: &mut Source<'_>) {
        let stream = StreamId(self.stream.saturating_sub(u64::from(source.one_in(8))));
        match source.byte() % 16 {
            0 | 1 => self.input(Input::Connected { stream }),
            2 => self.input(Input::Disconnected { stream, problem: Problem::unserved("broken") }),
            3 => self.pass(Duration::from_millis(source.pick(&[0, 10, 400, 2_000]))),
            4 | 5 => {
                self.calls += 1;
                let token = Token(self.calls);
                self.input(Input::Call { token, operation: messages::client::operation(source) });
                // Without a byte of their own: what lies in the corpus is to mean what it meant.
                if self.calls.is_multiple_of(3) {
                    self.input(Input::LimitCall {
                        token,
                        within: Duration::from_millis(self.calls % 7 * 300),
                    });
                }
                if self.calls.is_multiple_of(5) {
                    self.input(Input::Flush { token: Token(u64::MAX - self.calls) });
                }
            }
            6 => {
                let token = Token(self.calls.saturating_sub(source.number()));
                self.completed.insert(token);
                self.input(Input::CancelCall { token });
            }
            7 => self.input(Input::KeepLocks { handle: HandleId(source.number()) }),
            8 => {
                let length = usize::from(source.byte());
                // What does not decode does not get here.
                if let Ok(frame) = ServerFrame::decode(source.slice(length)) {
                    self.input(Input::Frame { stream, frame });
                }
            }
            9 if source.one_in(20) => self.input(Input::Close),
            _ => {
                let frame = messages::server::frame(source);
                self.input(Input::Frame { stream, frame });
            }
        }
    }
}

/// Frames of a server, and what an application may do between them. However wrong they are: every call completes once,
/// and the session is believed in for no longer than a moment after the end of time.
///
/// # Panics
///
/// If not.
pub fn server_frames(data: &[u8]) {
    let source = &mut Source::new(data);
    let mut client = Client::new();
    while !source.is_empty() {
        client.step(source);
    }
    client.input(Input::Close);
    client.pass(Duration::from_secs(60));
}
