//! The loop around a session's machine: it carries inputs in and outputs out, and decides nothing.
//!
//! One task owns the machine. It takes everything that is queued off its queue, then reads the clock, then hands
//! all of it to the machine, and only then performs the outputs: so calls that come together travel together,
//! and no input is judged by a time at which it had not been taken yet (design.md §4).

use crate::call::{Board, Command, Reply, SessionState, Shared};
use crate::channels::Channels;
use crate::clock;
use crate::error::Error;
use futures::FutureExt;
use futures::future::BoxFuture;
use holdfast_proto::client::v1::{ClientFrame, RefusalCode, ServerFrame};
use holdfast_session::{
    CallError, Completion, Config, Ended, Input, Operation, Output, State, StreamId, Token,
};
use holdfast_types::Time;
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep};
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Status, Streaming};

/// At most so many commands, and so many frames, are taken in one turn, so that a lease is never kept waiting.
const COMMANDS_PER_TURN: usize = 4096;
const FRAMES_PER_TURN: usize = 64;
/// Tokens of the driver's own calls have this bit; the application's count up from 0.
const BACKGROUND: u64 = 1 << 63;

/// Opens a session: spawns its task, and waits until the cell has granted it.
pub(crate) async fn open(config: Config, channels: Channels) -> Result<Shared, Error> {
    let grace = config.grace;
    let (commands, command_queue) = mpsc::unbounded_channel();
    // `Jeopardy` until the first grant; nobody sees it before.
    let (state, state_seen) = watch::channel(SessionState::Jeopardy);
    let board = Arc::new(Board::new());
    let driver = Driver {
        machine: holdfast_session::Session::new(clock::now(), config),
        commands: command_queue,
        waiters: HashMap::new(),
        link: None,
        channels,
        board: Arc::clone(&board),
        state,
        background: BACKGROUND,
    };
    tokio::spawn(driver.run());
    // If this future is dropped, so is the command queue's sender, and the task closes what was opened.
    let shared = Shared::new(commands, board, state_seen.clone());
    let mut opening = state_seen;
    let opened = opening.wait_for(|state| *state != SessionState::Jeopardy).await;
    match opened.as_deref() {
        Ok(SessionState::Ended(ended)) => Err(not_opened(ended, grace)),
        Ok(_) => Ok(shared),
        Err(_) => Err(Error::Unavailable { waited: Duration::ZERO, last: "the runtime stopped".to_owned() }),
    }
}

fn not_opened(ended: &Ended, grace: Duration) -> Error {
    match ended {
        Ended::Refused { code, message } => Error::Refused {
            code: RefusalCode::try_from(*code).unwrap_or(RefusalCode::Unspecified),
            message: message.clone(),
        },
        Ended::Unreachable { last, .. } => Error::Unavailable { waited: grace, last: last.clone() },
        other => Error::SessionEnded { ended: other.clone(), maybe_applied: false },
    }
}

/// The one stream that the machine wants at present.
struct Link {
    stream: StreamId,
    address: String,
    /// Bounded by the protocol: the machine never has more requests in flight than the cell allows, and one
    /// KeepAlive.
    frames: mpsc::UnboundedSender<ClientFrame>,
    inbound: Inbound,
}

enum Inbound {
    /// The call is under way. Frames can be queued meanwhile.
    Opening(BoxFuture<'static, Result<Streaming<ServerFrame>, Status>>),
    Open(Box<Streaming<ServerFrame>>),
    /// Broken, and the machine has been told.
    Over,
}

impl Link {
    /// Waits for the next frame; an error means that the stream is over. Nothing is lost if it is dropped.
    async fn next(&mut self) -> Result<ServerFrame, String> {
        loop {
            match &mut self.inbound {
                Inbound::Opening(call) => match call.await {
                    Ok(stream) => self.inbound = Inbound::Open(Box::new(stream)),
                    Err(status) => return Err(self.over(&status)),
                },
                Inbound::Open(stream) => match stream.message().await {
                    Ok(Some(frame)) => return Ok(frame),
                    Ok(None) => return Err(self.over(&Status::unavailable("the replica ended the stream"))),
                    Err(status) => return Err(self.over(&status)),
                },
                Inbound::Over => std::future::pending().await,
            }
        }
    }

    fn over(&mut self, status: &Status) -> String {
        self.inbound = Inbound::Over;
        format!("{}: {}", self.address, crate::unary::cause(status))
    }
}

struct Driver {
    machine: holdfast_session::Session,
    commands: mpsc::UnboundedReceiver<Command>,
    /// Who waits for which call.
    waiters: HashMap<Token, Reply>,
    link: Option<Link>,
    channels: Channels,
    board: Arc<Board>,
    state: watch::Sender<SessionState>,
    /// The next token of a call that nobody waits for.
    background: u64,
}

impl Driver {
    async fn run(mut self) {
        let mut commands = Vec::new();
        let mut arrivals = Vec::new();
        let mut abandoned = false;
        let mut timer = Timer::new();
        self.perform();
        while !self.is_over() {
            timer.set(self.machine.poll_timeout());
            tokio::select! {
                taken = self.commands.recv_many(&mut commands, COMMANDS_PER_TURN), if !abandoned => {
                    abandoned = taken == 0;
                    if abandoned {
                        commands.push(Command::Close);
                    }
                }
                arrival = next_arrival(&mut self.link) => arrivals.push(arrival),
                () = timer.wait() => {}
            }
            self.take_more(&mut commands, &mut arrivals);
            let now = clock::now();
            self.handle_arrivals(now, &mut arrivals);
            self.handle_commands(now, &mut commands);
            self.machine.handle(now, Input::TimePassed);
            self.perform();
        }
        self.refuse_the_rest().await;
    }

    /// What else has come in the meantime.
    fn take_more(&mut self, commands: &mut Vec<Command>, arrivals: &mut Vec<Arrival>) {
        while commands.len() < COMMANDS_PER_TURN {
            let Ok(command) = self.commands.try_recv() else { break };
            commands.push(command);
        }
        while arrivals.len() < FRAMES_PER_TURN {
            let Some(arrival) = next_arrival(&mut self.link).now_or_never() else { break };
            arrivals.push(arrival);
        }
    }

    fn handle_arrivals(&mut self, now: Time, arrivals: &mut Vec<Arrival>) {
        for (stream, arrival) in arrivals.drain(..) {
            let input = match arrival {
                Ok(frame) => Input::Frame { stream, frame },
                Err(reason) => {
                    tracing::debug!(%reason, "the session's stream broke");
                    Input::Disconnected { stream, reason }
                }
            };
            self.machine.handle(now, input);
        }
    }

    fn handle_commands(&mut self, now: Time, commands: &mut Vec<Command>) {
        for command in commands.drain(..) {
            let input = match command {
                Command::Call { token, operation, reply } => {
                    self.waiters.insert(token, reply);
                    Input::Call { token, operation }
                }
                Command::Cancel(token) => {
                    self.waiters.remove(&token);
                    Input::CancelCall { token }
                }
                Command::Background(operation) => self.background_call(operation),
                Command::Close => Input::Close,
            };
            self.machine.handle(now, input);
        }
    }

    fn background_call(&mut self, operation: Operation) -> Input {
        let token = Token(self.background);
        self.background += 1;
        Input::Call { token, operation }
    }

    /// Performs what the machine wants, and shows what it believes.
    fn perform(&mut self) {
        // Before any completion is delivered: a new lock must find its lease.
        self.publish();
        let mut learned = false;
        while let Some(output) = self.machine.poll_output() {
            match output {
                Output::Connect { stream, address } => self.connect(stream, address),
                Output::Disconnect { silent, .. } => self.disconnect(silent),
                Output::Send { stream, frame } => self.send(stream, frame),
                Output::Complete { token, result } => self.complete(token, result),
                Output::StateChanged(state) => {
                    learned |= state == State::Safe;
                    self.announce(state);
                }
                Output::Event(event) => tracing::debug!(?event, "an event"),
                Output::FailedOver { term } => tracing::debug!(%term, "another master serves the session"),
            }
        }
        if learned {
            self.channels.warm(&self.machine.addresses());
        }
    }

    fn publish(&self) {
        if let (Some(id), Some(cell)) = (self.machine.id(), self.machine.cell()) {
            self.board.publish_identity(id, &cell.name);
        }
        self.board.publish_validity(self.machine.valid_until());
    }

    fn announce(&self, state: State) {
        let state = match state {
            State::Opening => return,
            State::Safe => SessionState::Safe,
            State::Jeopardy => SessionState::Jeopardy,
            State::Ended(ended) => SessionState::Ended(ended),
        };
        let (id, _) = self.board.identity();
        match &state {
            SessionState::Safe => tracing::debug!(%id, "the session is safe"),
            SessionState::Jeopardy => {
                tracing::warn!(%id, "the session is in jeopardy: its lease ran out here")
            }
            SessionState::Ended(ended) => tracing::info!(%id, %ended, "the session is over"),
        }
        self.state.send_replace(state);
    }

    fn connect(&mut self, stream: StreamId, address: String) {
        let (frames, outbound) = mpsc::unbounded_channel();
        let client = self.channels.cell_client(&address);
        let call = async move {
            let mut client = client.map_err(|error| Status::unavailable(error.to_string()))?;
            let opened = client.session(UnboundedReceiverStream::new(outbound)).await?;
            Ok(opened.into_inner())
        };
        self.link = Some(Link { stream, address, frames, inbound: Inbound::Opening(call.boxed()) });
        // Frames may be queued from now on: a replica need not answer before it has read the first.
        self.machine.handle(clock::now(), Input::Connected { stream });
    }

    fn disconnect(&mut self, silent: bool) {
        if let Some(link) = self.link.take()
            && silent
        {
            self.channels.forget(&link.address);
        }
    }

    fn send(&mut self, stream: StreamId, frame: ClientFrame) {
        if let Some(link) = self.link.as_ref().filter(|link| link.stream == stream) {
            // It fails if the stream is broken, which `Link::next` reports.
            let _ = link.frames.send(frame);
        }
    }

    fn complete(&mut self, token: Token, result: Result<Completion, CallError>) {
        let Some(reply) = self.waiters.remove(&token) else {
            if let Err(error) = result {
                tracing::debug!(%error, "a release, close or withdrawal in the background failed");
            }
            return;
        };
        // Nobody takes it: the future was dropped, and the word of that is still on its way.
        if let Err(Ok(completion)) = reply.send(result)
            && let Some(undo) = completion.undo()
        {
            let input = self.background_call(undo);
            self.machine.handle(clock::now(), input);
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.machine.state(), State::Ended(_))
    }

    /// Answers later calls until the last clone of the session is dropped, so that each fails in the same way.
    async fn refuse_the_rest(mut self) {
        self.link = None;
        while let Some(command) = self.commands.recv().await {
            self.handle_commands(clock::now(), &mut vec![command]);
            self.perform();
        }
    }
}

/// A frame, or the end of the stream and why.
type Arrival = (StreamId, Result<ServerFrame, String>);

/// Waits for the next arrival; for ever if there is no stream.
async fn next_arrival(link: &mut Option<Link>) -> Arrival {
    match link {
        Some(link) => (link.stream, link.next().await),
        None => std::future::pending().await,
    }
}

/// A timer that is set again only when it has to be.
struct Timer {
    at: Option<Time>,
    sleep: Pin<Box<Sleep>>,
}

impl Timer {
    fn new() -> Self {
        Self { at: None, sleep: Box::pin(tokio::time::sleep(Duration::ZERO)) }
    }

    fn set(&mut self, at: Option<Time>) {
        // A timer that fired is set again too: the lease clock may be behind the runtime's by a little.
        if self.at != at || self.sleep.is_elapsed() {
            self.at = at;
            if let Some(at) = at {
                self.sleep.as_mut().reset(Instant::now() + at.since(clock::now()));
            }
        }
    }

    async fn wait(&mut self) {
        if self.at.is_some() {
            self.sleep.as_mut().await;
        } else {
            std::future::pending::<()>().await;
        }
    }
}
