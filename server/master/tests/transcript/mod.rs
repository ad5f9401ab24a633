//! The runner of the transcripts: a master, the state under it, and a clock that is set by hand.

mod parse;
mod show;

use std::collections::VecDeque;
use std::error::Error;
use std::fmt::Write as _;

use goldenscript::{ArgumentConsumer, Command as Line, Context};
use holdfast_master::{CallId, Config, Input, Master, Output, RoundId, frame_bytes};
use holdfast_proto::client::v1::{self as client, client_frame};
use holdfast_proto::log::v1::{Command, Member};
use holdfast_state::{Genesis, State};
use holdfast_types::ledger::{Ledger, LedgerLimits};
use holdfast_types::{ConnectionId, Principal, SocketId, Term, Time};

use parse::{number, parse_acknowledged, parse_attach, parse_call, parse_open, parse_request};
use show::{show_command, show_frame, show_refusal};

/// A master, the state under it, and what it waits for.
pub(crate) struct Runner {
    now: Time,
    term: u64,
    config: Config,
    state: State,
    master: Master,
    proposed: VecDeque<Command>,
    rounds: VecDeque<RoundId>,
    /// What the master is told of the log.
    log_bytes: u64,
    /// What the frames count in.
    ledger: Ledger,
}

impl Runner {
    /// A cell in which sessions with leases of any length may cache: most scripts are not about that.
    pub(crate) fn new() -> Self {
        Self::with(60_000)
    }

    fn with(caching_lease_ms_max: u32) -> Self {
        let member = |id| Member {
            id,
            data_id: id,
            peer_address: format!("p{id}:1"),
            client_address: format!("c{id}:1"),
            learner: false,
        };
        let defaults = holdfast_state::settings::defaults();
        let state = State::genesis(Genesis {
            cell: "dev".into(),
            cell_id: 7,
            members: (1..=3).map(member).collect(),
            settings: client::Settings { caching_lease_ms_max, ..defaults },
        });
        let config = Config::default();
        let master = Master::new(Time::ZERO, Term(1), config.clone(), &state);
        let (proposed, rounds) = (VecDeque::new(), VecDeque::new());
        let ledger = Ledger::new(LedgerLimits::NONE);
        Self { now: Time::ZERO, term: 1, config, state, master, proposed, rounds, log_bytes: 0, ledger }
    }

    fn input(&mut self, input: Input) {
        self.master.handle(self.now, &self.state, input);
    }

    /// The turn ends: what is queued is worked off, and everything that the master wants done is a line each.
    fn drain(&mut self) -> String {
        let mut text = String::new();
        let log_bytes = self.log_bytes;
        self.input(Input::Work { log_bytes });
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
                Output::List { call, list } => match list.answer() {
                    Ok(page) => writeln!(text, "call {} <- {page:?}", call.0).unwrap(),
                    Err(refusal) => writeln!(text, "call {} <- {}", call.0, show_refusal(&refusal)).unwrap(),
                },
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

    /// Applies what is proposed, or only the first `count` commands, as one batch: the master hears of it when the
    /// state has all of it.
    fn commit(&mut self, count: usize) -> Result<(), Box<dyn Error>> {
        let mut effects = Vec::new();
        for command in self.proposed.drain(..count.min(self.proposed.len())) {
            self.state.apply(command, &mut effects)?;
        }
        for effect in effects {
            self.input(Input::Applied(effect));
        }
        Ok(())
    }

    /// Lets time pass as a driver would, in steps that the master asks for.
    fn pass(&mut self, until: Time) -> String {
        let mut text = String::new();
        while let Some(next) = self.master.poll_timeout().filter(|next| *next <= until) {
            self.now = next.max(self.now);
            self.input(Input::TurnBegins);
            self.input(Input::TimePassed);
            let said = self.drain();
            if !said.is_empty() {
                write!(text, "at {}ms:\n{said}", self.now.as_millis()).unwrap();
            }
        }
        self.now = until;
        self.input(Input::TurnBegins);
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
        if let Some(work) = line.take_key("work") {
            self.config.turn_work = number(work)?;
        }
        if let Some(count) = line.take_key("keepalives") {
            self.config.keep_alives_per_s = u32::try_from(number(count)?)?;
        }
        self.proposed.clear();
        self.rounds.clear();
        self.term += 1;
        let next = Master::new(self.now, Term(self.term), self.config.clone(), &self.state);
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
            frame.acknowledged = Some(parse_acknowledged(value)?);
        }
        if let Some(value) = line.take_key("noticed") {
            frame.notices_through = number(value)?;
        }
        let principal = principal(line)?;
        let charge = self.ledger.account(&principal).charge_anyway(frame_bytes(&frame));
        self.input(Input::Frame { connection, principal, frame, charge });
        Ok(())
    }

    fn call(&mut self, line: &mut ArgumentConsumer<'_>) -> Result<(), Box<dyn Error>> {
        let call = CallId(number(line.next_pos().unwrap_or_default())?);
        let kind = line.next_pos().unwrap_or_default();
        let argument = line.next_pos().unwrap_or_default();
        let request = parse_call(kind, argument)?;
        let principal = principal(line)?;
        self.input(Input::Call { call, principal, socket: SocketId(1), request });
        Ok(())
    }
}

impl goldenscript::Runner for Runner {
    type Command = Line;

    fn run(&mut self, command: &Line, _: &Context) -> Result<String, Box<dyn Error>> {
        let mut line = command.consume_args();
        let mut text = String::new();
        self.input(Input::TurnBegins);
        match command.name.as_str() {
            "frame" => self.frame(&mut line)?,
            "call" => self.call(&mut line)?,
            "withdraw" => {
                let call = CallId(number(line.next_pos().unwrap_or_default())?);
                self.input(Input::Withdraw(call));
            }
            "gone" => {
                let connection = ConnectionId(number(line.next_pos().unwrap_or_default())?);
                self.input(Input::Disconnected { connection });
            }
            "commit" => {
                let count = line.next_pos().map_or(Ok(u64::MAX), number)?;
                self.commit(usize::try_from(count)?)?;
            }
            "confirm" => {
                let all = line.next_pos() == Some("all");
                let rounds = self.rounds.len().min(if all { usize::MAX } else { 1 });
                let round = self.rounds.drain(..rounds).next_back().ok_or("no round is under way")?;
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
            // A new cell, in which sessions cache whose leases are no longer than that.
            "cell" => *self = Self::with(u32::try_from(number(line.next_pos().unwrap_or_default())?)?),
            // The next turn: what the last one left is gone on with.
            "turn" => {}
            // A turn in which frames that came since then are not all handed in.
            "unheard" => {
                let since = Time::from_millis(number(line.next_pos().unwrap_or_default())?);
                self.now = Time::from_millis(number(line.next_pos().unwrap_or_default())?);
                self.input(Input::Unheard { since });
                self.input(Input::TimePassed);
            }
            // So many bytes of commands are on their way through the log.
            "log" => self.log_bytes = number(line.next_pos().unwrap_or_default())?,
            "failover" => text = self.fail_over(&mut line)?,
            other => return Err(format!("unknown command {other:?}").into()),
        }
        line.reject_next()?;
        Ok(text + &self.drain())
    }
}

/// Who sends: `as=<name>`.
fn principal(line: &mut ArgumentConsumer<'_>) -> Result<Principal, Box<dyn Error>> {
    Ok(line.take_key("as").map_or_else(|| Ok(Principal::anonymous()), Principal::parse)?)
}
