//! Golden transcripts of a master: frames and time in, decisions and frames out.
//!
//! The runner stands in for the replica: `commit` applies what the master has proposed, `confirm` confirms the
//! rounds it has asked for, `time` moves the clock. Each command prints everything that the master then wants
//! done. `UPDATE_GOLDENFILES=1 cargo test -p holdfast-master` writes the outputs anew, to be read before they
//! are believed.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt::Write as _;

use goldenscript::{ArgumentConsumer, Command as Line, Context};
use holdfast_master::{CallId, CallRequest, Config, Input, Master, Output, RoundId};
use holdfast_proto::client::v1::{self as client, client_frame, outcome, request::Operation, server_frame};
use holdfast_proto::log::v1::{Command, Member, command::Kind};
use holdfast_state::{Genesis, State};
use holdfast_types::{ConnectionId, Principal, Term, Time};

/// A master, the state under it, and what it waits for.
struct Runner {
    now: Time,
    term: u64,
    state: State,
    master: Master,
    proposed: VecDeque<Command>,
    rounds: VecDeque<RoundId>,
}

impl Runner {
    fn new() -> Self {
        let member = |id| Member {
            id,
            data_id: id,
            peer_address: format!("p{id}:1"),
            client_address: format!("c{id}:1"),
            learner: false,
        };
        let state = State::genesis(Genesis {
            cell: "dev".into(),
            cell_id: 7,
            members: (1..=3).map(member).collect(),
            settings: holdfast_state::settings::defaults(),
        });
        let master = Master::new(Time::ZERO, Term(1), Config::default(), &state);
        let (proposed, rounds) = (VecDeque::new(), VecDeque::new());
        Self { now: Time::ZERO, term: 1, state, master, proposed, rounds }
    }

    fn input(&mut self, input: Input) {
        self.master.handle(self.now, &self.state, input);
    }

    /// Everything that the master wants done, one line each.
    fn drain(&mut self) -> String {
        let mut text = String::new();
        while let Some(output) = self.master.poll_output() {
            match output {
                Output::Propose(command) => {
                    writeln!(text, "propose {}", show_command(&command)).unwrap();
                    self.proposed.push_back(command);
                }
                Output::Confirm(round) => {
                    writeln!(text, "round {} begins", round.0).unwrap();
                    self.rounds.push_back(round);
                }
                Output::Frame { connection, frame } => show_frame(&mut text, connection, &frame),
                Output::Disconnect { connection } => writeln!(text, "{connection} <- end of stream").unwrap(),
                Output::Answer { call, answer: Ok(answer) } => {
                    writeln!(text, "call {} <- {answer:?}", call.0).unwrap();
                }
                Output::Answer { call, answer: Err(refusal) } => {
                    writeln!(text, "call {} <- {}", call.0, show_refusal(&refusal)).unwrap();
                }
            }
        }
        text
    }

    /// Applies what is proposed, or only the first `count` commands.
    fn commit(&mut self, count: usize) -> Result<(), Box<dyn Error>> {
        for _ in 0..count.min(self.proposed.len()) {
            let command = self.proposed.pop_front().expect("counted");
            let mut effects = Vec::new();
            self.state.apply(command, &mut effects)?;
            for effect in effects {
                self.input(Input::Applied(effect));
            }
        }
        Ok(())
    }

    /// Lets time pass as a driver would, in steps that the master asks for.
    fn pass(&mut self, until: Time) -> String {
        let mut text = String::new();
        while let Some(next) = self.master.poll_timeout().filter(|next| *next <= until) {
            self.now = next.max(self.now);
            self.input(Input::TimePassed);
            let said = self.drain();
            if !said.is_empty() {
                write!(text, "at {}ms:\n{said}", self.now.as_millis()).unwrap();
            }
        }
        self.now = until;
        self.input(Input::TimePassed);
        text + &self.drain()
    }

    /// The replica leaves office; a new master takes over the state, with what was proposed lost.
    fn fail_over(&mut self, line: &mut ArgumentConsumer<'_>) -> Result<String, Box<dyn Error>> {
        if line.take_key("proposed") == Some("committed") {
            let commands: Vec<_> = self.proposed.drain(..).collect();
            for command in commands {
                self.state.apply(command, &mut Vec::new())?;
            }
        }
        self.proposed.clear();
        self.rounds.clear();
        self.term += 1;
        let next = Master::new(self.now, Term(self.term), Config::default(), &self.state);
        let abandoned = std::mem::replace(&mut self.master, next).abandon();
        Ok(format!("abandoned: {abandoned:?}\n{}", self.drain()))
    }

    fn frame(&mut self, line: &mut ArgumentConsumer<'_>) -> Result<(), Box<dyn Error>> {
        let connection = ConnectionId(number(line.next_pos().unwrap_or_default())?);
        let mut frame = client::ClientFrame::default();
        while let Some(part) = line.next_pos() {
            match part {
                "open" => frame.hello = Some(client_frame::Hello::Open(parse_open(line)?)),
                "attach" => frame.hello = Some(client_frame::Hello::Attach(parse_attach(line)?)),
                "close" => frame.close = Some(client::CloseSession {}),
                request => frame.requests.push(parse_request(request)?),
            }
        }
        if let Some(value) = line.take_key("keepalive") {
            frame.keep_alive = Some(client::KeepAlive { number: number(value)? });
        }
        if let Some(value) = line.take_key("acked") {
            let acknowledged = client::Acknowledged { through: number(value)?, ranges: Vec::new() };
            frame.acknowledged = Some(acknowledged);
        }
        self.input(Input::Frame { connection, principal: Principal::anonymous(), frame });
        Ok(())
    }

    fn call(&mut self, line: &mut ArgumentConsumer<'_>) -> Result<(), Box<dyn Error>> {
        let call = CallId(number(line.next_pos().unwrap_or_default())?);
        let kind = line.next_pos().unwrap_or_default();
        let path = line.next_pos().unwrap_or_default().to_owned();
        let request = match kind {
            "get" => CallRequest::GetContents(client::GetContentsRequest { path }),
            "put" => CallRequest::SetContents(client::SetContentsRequest {
                path,
                contents: "x".into(),
                create: true,
                ..client::SetContentsRequest::default()
            }),
            "rm" => CallRequest::Delete(client::DeleteRequest { path, if_instance: None }),
            "check" => CallRequest::CheckSequencer(client::CheckSequencerRequest { sequencer: path }),
            other => return Err(format!("unknown call {other:?}").into()),
        };
        self.input(Input::Call { call, principal: Principal::anonymous(), request });
        Ok(())
    }
}

impl goldenscript::Runner for Runner {
    type Command = Line;

    fn run(&mut self, command: &Line, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut line = command.consume_args();
        let mut text = String::new();
        match command.name.as_str() {
            "frame" => self.frame(&mut line)?,
            "call" => self.call(&mut line)?,
            "gone" => {
                let connection = ConnectionId(number(line.next_pos().unwrap_or_default())?);
                self.input(Input::Disconnected { connection });
            }
            "commit" => {
                let count = line.next_pos().map_or(Ok(u64::MAX), number)?;
                self.commit(usize::try_from(count)?)?;
            }
            "confirm" => {
                let round = self.rounds.pop_front().ok_or("no round is under way")?;
                self.input(Input::Confirmed(round));
            }
            "time" => {
                let until = Time::from_millis(number(line.next_pos().unwrap_or_default())?);
                text = self.pass(until);
            }
            // The process was not scheduled: the clock jumps, and nobody called.
            "sleep" => {
                self.now = Time::from_millis(number(line.next_pos().unwrap_or_default())?);
                self.input(Input::TimePassed);
            }
            "failover" => text = self.fail_over(&mut line)?,
            other => return Err(format!("unknown command {other:?}").into()),
        }
        line.reject_next()?;
        Ok(text + &self.drain())
    }
}

fn number(text: &str) -> Result<u64, Box<dyn Error>> {
    text.trim_start_matches(['c', 's']).parse().map_err(|_| format!("{text:?} is no number").into())
}

fn parse_open(line: &mut ArgumentConsumer<'_>) -> Result<client::OpenSession, Box<dyn Error>> {
    Ok(client::OpenSession {
        cell: line.take_key("cell").unwrap_or_default().to_owned(),
        secret: secret(line.take_key("secret").unwrap_or("a")),
        lease_ms: u32::try_from(number(line.take_key("lease").unwrap_or("0"))?)?,
        client: "test".to_owned(),
        attachment: number(line.take_key("attachment").unwrap_or("1"))?,
    })
}

fn parse_attach(line: &mut ArgumentConsumer<'_>) -> Result<client::AttachSession, Box<dyn Error>> {
    Ok(client::AttachSession {
        cell: line.take_key("cell").unwrap_or_default().to_owned(),
        session: number(line.take_key("session").unwrap_or("s2"))?,
        secret: secret(line.take_key("secret").unwrap_or("a")),
        attachment: number(line.take_key("attachment").unwrap_or("2"))?,
        seen: Vec::new(),
    })
}

/// A secret of sixteen bytes from one letter.
fn secret(letter: &str) -> bytes::Bytes {
    letter.repeat(16).into()
}

/// `3 acquire 1` is request 3, an Acquire on handle 1.
fn parse_request(text: &str) -> Result<client::Request, Box<dyn Error>> {
    let mut fields = text.split(' ');
    let request_number = number(fields.next().unwrap_or_default())?;
    let kind = fields.next().unwrap_or_default();
    let argument = fields.next().unwrap_or_default();
    let handle = || number(argument);
    let operation = match kind {
        "open" => Operation::Open(client::Open {
            path: argument.to_owned(),
            creation: client::Creation::May.into(),
            lock_delay_ms: 1000,
            ephemeral: fields.next() == Some("ephemeral"),
            ..client::Open::default()
        }),
        "acquire" => Operation::Acquire(client::Acquire {
            handle: handle()?,
            mode: client::LockMode::Exclusive.into(),
            try_only: false,
        }),
        "release" => Operation::Release(client::Release { handle: handle()? }),
        "stat" => Operation::GetStat(client::GetStat { handle: handle()? }),
        "read" => Operation::GetContents(client::GetContents { handle: handle()? }),
        "close" => Operation::Close(client::Close { handle: handle()? }),
        other => return Err(format!("unknown operation {other:?}").into()),
    };
    Ok(client::Request { number: request_number, operation: Some(operation) })
}

fn show_command(command: &Command) -> String {
    match &command.kind {
        Some(Kind::OpenSession(open)) => format!("open session, lease {}ms", open.lease_ms),
        Some(Kind::EndSession(end)) => format!("end s{}: {:?}", end.session, end.reason()),
        Some(Kind::Request(request)) => {
            let acked = request.acknowledged.as_ref().map(|acked| format!(", acked {}", acked.through));
            let number = request.request.as_ref().map_or(0, |request| request.number);
            format!("s{} #{number}{}", request.session, acked.unwrap_or_default())
        }
        Some(Kind::EndLockDelay(end)) => format!("end lock-delay {} of r{}", end.path, end.loss),
        Some(Kind::ReapNode(reap)) => format!("reap {} of r{}", reap.path, reap.instance),
        Some(Kind::SetContents(write)) => format!("write {}", write.path),
        Some(Kind::Delete(delete)) => format!("delete {}", delete.path),
        other => format!("{other:?}"),
    }
}

fn show_frame(text: &mut String, connection: ConnectionId, frame: &client::ServerFrame) {
    let mut say = |what: String| writeln!(text, "{connection} <- {what}").unwrap();
    match &frame.hello {
        Some(server_frame::Hello::Opened(opened)) => {
            say(format!(
                "opened s{}, lease {}ms of {}",
                opened.session, opened.lease_ms, opened.lease_length_ms
            ));
        }
        Some(server_frame::Hello::Attached(attached)) => {
            let locks = attached.locks.iter().map(|lock| format!(" h{} by #{}", lock.handle, lock.number));
            say(format!("attached {}, locks:{}", attached.attachment, locks.collect::<String>()));
        }
        Some(server_frame::Hello::Refused(refused)) => {
            say(show_refusal(refused.refusal.as_ref().expect("a refused stream has a refusal")));
        }
        None => {}
    }
    for reply in &frame.replies {
        let result = reply.outcome.as_ref().and_then(|outcome| outcome.result.as_ref());
        say(format!("#{}: {}", reply.number, result.map_or_else(|| "nothing".into(), show_result)));
    }
    if let Some(lease) = &frame.lease {
        say(format!("lease {}ms for KeepAlive {}", lease.lease_ms, lease.number));
    }
    for event in &frame.events {
        say(format!("{:?}", event.event.as_ref().expect("an event is one")));
    }
    if let Some(ended) = &frame.ended {
        say(format!("session ended: {:?}", ended.reason()));
    }
}

fn show_result(result: &outcome::Result) -> String {
    match result {
        outcome::Result::Refusal(refusal) => show_refusal(refusal),
        outcome::Result::Opened(opened) => format!("opened, created={}", opened.created),
        outcome::Result::Stat(stat) => {
            format!("stat, waiting={}", stat.lock.as_ref().map_or(0, |l| l.waiting))
        }
        other => format!("{other:?}"),
    }
}

fn show_refusal(refusal: &client::Refusal) -> String {
    format!("{}: {}", refusal.code().as_str_name().trim_start_matches("REFUSAL_CODE_"), refusal.message)
}

macro_rules! scripts {
    ($($name:ident),* $(,)?) => {$(
        #[test]
        fn $name() {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scripts/", stringify!($name));
            goldenscript::run(&mut Runner::new(), path).expect("the transcript runs");
        }
    )*};
}

scripts!(leases, attachments, rounds, requests, timers, fail_over, calls);
