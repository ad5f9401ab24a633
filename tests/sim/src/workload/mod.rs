//! What applications do with their sessions: one small state machine a file, in one closed enum.
//!
//! A workload sees what a program sees: the completions of its calls and its own timer. It acts through [`App`],
//! which collects what it wants done; the client's host does it. Once a run is to end it starts nothing new and
//! gives back what it holds.

mod access;
mod by_name;
mod churn;
mod contested;
mod counter;
mod election;
mod fenced;
mod greedy;
mod hot;
mod idler;
mod locks;
mod queue;
mod reader;
mod registry;
mod stage;
mod theme;
mod tree;
mod watcher;
mod writer;

use std::rc::Rc;

use bytes::Bytes;
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, Creation, HandleEvent, LockMode, NodeKind, Refusal};
use holdfast_replica::{CallAnswer, CallRequest};
use holdfast_session::{CallError, Completion, Token};

use crate::rng::Rng;

pub(crate) use counter::{COUNTER, number_in};
pub(crate) use election::OFFICE;
pub use theme::Theme;

/// What came of a call.
pub type CallResult = Result<Completion, CallError>;

/// What came of a call by name; without a refusal if that is not known.
pub type NamedResult = Result<CallAnswer, Option<Refusal>>;

/// What an application wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Make a call.
    Call(Token, Operation),
    /// Nobody waits for a call any more.
    Cancel(Token),
    /// A handle keeps its lock until somebody asks for it.
    KeepLocks(u64),
    /// From now on the application acts as the holder of a lock.
    Guard {
        /// The lock's node.
        path: String,
        /// How it is held.
        mode: LockMode,
        /// The generation it is held at.
        generation: u64,
    },
    /// It no longer does.
    Unguard,
    /// It is done with its session.
    Close,
    /// Make a call by name.
    CallByName {
        /// Finds the caller again.
        token: Token,
        /// The instance of the node, if the caller knows it.
        instance: Option<u64>,
        /// The call.
        request: Box<CallRequest>,
    },
    /// Send an order to the resource that the office protects.
    Order {
        /// The generation that it carries.
        generation: u64,
        /// How long it takes.
        nanos: u64,
    },
    /// Many reads more go out with the next frame, past the library: by a client that keeps to no limit.
    Flood {
        /// Of the node that this handle has open.
        handle: u64,
        /// So many.
        times: u32,
        /// Of its list, and not of its metadata.
        lists: bool,
    },
    /// From now on no notice is acknowledged.
    Deafen,
    /// The process dies.
    Die,
    /// The application keeps its process so busy that the library gets nothing done, for so many nanoseconds.
    Busy(u64),
    /// Wake it after so many nanoseconds. The last such wish counts.
    Wake(u64),
}

/// What a workload acts through.
#[derive(Debug)]
pub struct App<'a> {
    /// The client's own chance.
    pub rng: &'a mut Rng,
    /// The run is to end: start nothing new.
    pub draining: bool,
    /// The client is the one who may write access control lists.
    pub is_keeper: bool,
    /// A sequencer that somebody was given; empty if there is none yet.
    pub sequencer: Rc<str>,
    /// How long the present master has known the session, in milliseconds: that is what an idle session's minute is
    /// counted from.
    pub age_ms: u64,
    /// The lease that the session asked for, in milliseconds.
    pub lease_ms: u64,
    /// The last token given in this session.
    last_token: &'a mut u64,
    /// Begins every content that this session writes, so that no two writes of a run are alike.
    name: &'a str,
    actions: Vec<Action>,
}

impl<'a> App<'a> {
    /// For a session whose writes begin with `name`.
    pub fn new(rng: &'a mut Rng, draining: bool, last_token: &'a mut u64, name: &'a str) -> Self {
        let (sequencer, actions) = (Rc::from(""), Vec::new());
        Self { rng, draining, is_keeper: false, sequencer, age_ms: 0, lease_ms: 0, last_token, name, actions }
    }

    /// What is wanted, in order.
    #[must_use]
    pub fn into_actions(self) -> Vec<Action> {
        self.actions
    }

    fn token(&mut self) -> Token {
        *self.last_token += 1;
        Token(*self.last_token)
    }

    fn call(&mut self, operation: Operation) -> Token {
        let token = self.token();
        self.actions.push(Action::Call(token, operation));
        token
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    fn wake_within(&mut self, first_ms: u64, last_ms: u64) {
        let nanos = self.rng.between(first_ms * 1_000, last_ms * 1_000) * 1_000;
        self.actions.push(Action::Wake(nanos));
    }

    /// Contents that nobody else writes.
    fn contents(&self, number: u64) -> Bytes {
        format!("{number}:{}:{}", self.name, *self.last_token + 1).into()
    }

    fn open_directory(&mut self, path: &str) -> Token {
        self.call(Operation::Open(Box::new(Self::directory(path))))
    }

    /// Opens a directory, which is made if there is none.
    fn directory(path: &str) -> wire::Open {
        let (creation, kind) = (Creation::May.into(), NodeKind::Directory.into());
        wire::Open { path: path.to_owned(), creation, kind, ..wire::Open::default() }
    }

    fn open_file(&mut self, path: &str, lock_delay_ms: u32) -> Token {
        self.call(Operation::Open(Box::new(self.file(path, lock_delay_ms))))
    }

    /// Opens a file, which is made if there is none.
    fn file(&self, path: &str, lock_delay_ms: u32) -> wire::Open {
        let (creation, kind, contents) = (Creation::May.into(), NodeKind::File.into(), self.contents(0));
        wire::Open { path: path.to_owned(), creation, kind, contents, lock_delay_ms, ..wire::Open::default() }
    }

    fn write(&mut self, handle: u64, number: u64, if_generation: Option<u64>) -> Token {
        let contents = self.contents(number);
        self.call(Operation::SetContents(wire::SetContents { handle, contents, if_generation }))
    }

    fn read(&mut self, handle: u64) -> Token {
        self.call(Operation::GetContents(wire::GetContents { handle }))
    }

    fn stat(&mut self, handle: u64) -> Token {
        self.call(Operation::GetStat(wire::GetStat { handle }))
    }

    fn close_handle(&mut self, handle: u64) -> Token {
        self.call(Operation::Close(wire::Close { handle }))
    }
}

/// What one session is used for.
#[derive(Debug)]
pub enum Workload {
    /// Takes locks, holds them, gives them back.
    Locks(locks::Locks),
    /// Counts, by compare and set.
    Counter(counter::Counter),
    /// Writes and reads files, several calls at a time.
    Writer(writer::Writer),
    /// Makes and removes nodes.
    Tree(tree::Tree),
    /// Reads through caches.
    Reader(reader::Reader),
    /// Watches, and reads what it hears of.
    Watcher(watcher::Watcher),
    /// Changes who may open what, and opens it.
    Access(access::Access),
    /// Writes under a lock's sequencer.
    Fenced(fenced::Fenced),
    /// Does nothing.
    Idler(idler::Idler),
    /// Waits for a lock with many others.
    Queue(queue::Queue),
    /// Reads and writes one file with everybody else.
    Hot(hot::Hot),
    /// Wants to be elected.
    Election(election::Election),
    /// Registers itself, or watches who does.
    Registry(registry::Registry),
    /// Is soon over.
    Churn(churn::Churn),
    /// Calls by name.
    ByName(by_name::ByName),
    /// Asks for more than its share.
    Greedy(greedy::Greedy),
    /// Makes changes that others make possible.
    Contested(contested::Contested),
}

impl Workload {
    /// One of chance. Many of them take locks.
    pub fn draw(rng: &mut Rng) -> Self {
        match rng.below(58) / 2 {
            0..=5 => Self::Locks(locks::Locks::draw(rng)),
            6 => Self::Counter(counter::Counter::default()),
            7..=9 => Self::Writer(writer::Writer::draw(rng)),
            10 | 11 => Self::Tree(tree::Tree::draw(rng)),
            12 | 13 | 21 | 22 => Self::Reader(reader::Reader::draw(rng)),
            14 | 15 => Self::Watcher(watcher::Watcher::draw(rng)),
            16 | 17 => Self::Access(access::Access::default()),
            18 | 19 => Self::Fenced(fenced::Fenced::draw(rng)),
            23 => Self::Queue(queue::Queue::draw(rng)),
            24 => Self::Hot(hot::Hot::draw(rng)),
            25 => Self::Election(election::Election::draw(rng)),
            26 => Self::Registry(registry::Registry::draw(rng)),
            27 => Self::Churn(churn::Churn::draw(rng)),
            28 => Self::ByName(by_name::ByName::draw(rng)),
            _ => Self::Idler(idler::Idler::default()),
        }
    }

    /// Whether others must not suffer from it.
    #[must_use]
    pub fn is_greedy(&self) -> bool {
        matches!(self, Self::Greedy(_))
    }

    /// Whether the library may hold a lock for an application that has come to rest.
    #[must_use]
    pub fn may_keep_lock(&self) -> bool {
        matches!(self, Self::Locks(locks) if locks.may_keep_lock())
    }

    /// The session is there.
    pub fn start(&mut self, app: &mut App<'_>) {
        match self {
            Self::Locks(locks) => locks.start(app),
            Self::Counter(counter) => counter.start(app),
            Self::Writer(writer) => writer.start(app),
            Self::Tree(tree) => tree.start(app),
            Self::Reader(reader) => reader.start(app),
            Self::Watcher(watcher) => watcher.start(app),
            Self::Access(access) => access.start(app),
            Self::Fenced(fenced) => fenced.start(app),
            Self::Idler(idler) => idler.start(app),
            Self::Queue(queue) => queue.start(app),
            Self::Hot(hot) => hot.start(app),
            Self::Election(election) => election.start(app),
            Self::Registry(registry) => registry.start(app),
            Self::Churn(churn) => churn.start(app),
            Self::ByName(caller) => caller.start(app),
            Self::Greedy(greedy) => greedy.start(app),
            Self::Contested(contested) => contested.start(app),
        }
    }

    /// The time that it asked for has come, or the run is to end.
    pub fn wake(&mut self, app: &mut App<'_>) {
        match self {
            Self::Locks(locks) => locks.wake(app),
            Self::Counter(counter) => counter.wake(app),
            Self::Writer(writer) => writer.wake(app),
            Self::Tree(tree) => tree.wake(app),
            Self::Reader(reader) => reader.wake(app),
            Self::Watcher(watcher) => watcher.wake(app),
            Self::Access(access) => access.wake(app),
            Self::Fenced(fenced) => fenced.wake(app),
            Self::Idler(idler) => idler.wake(app),
            Self::Queue(queue) => queue.wake(app),
            Self::Hot(hot) => hot.wake(app),
            Self::Election(election) => election.wake(app),
            Self::Registry(registry) => registry.wake(app),
            Self::Churn(churn) => churn.wake(app),
            Self::ByName(caller) => caller.wake(app),
            Self::Greedy(greedy) => greedy.wake(app),
            Self::Contested(contested) => contested.wake(app),
        }
    }

    /// Something happened to a node that the application watches.
    pub fn hear(&mut self, app: &mut App<'_>, event: &HandleEvent) {
        match self {
            Self::Watcher(watcher) => watcher.hear(app, event),
            Self::Locks(locks) => locks.hear(app, event),
            Self::Registry(registry) => registry.hear(app, event),
            _ => {}
        }
    }

    /// A call ended.
    pub fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        match self {
            Self::Locks(locks) => locks.completed(app, token, result),
            Self::Counter(counter) => counter.completed(app, token, result),
            Self::Writer(writer) => writer.completed(app, token, result),
            Self::Tree(tree) => tree.completed(app, token, result),
            Self::Reader(reader) => reader.completed(app, token, result),
            Self::Watcher(watcher) => watcher.completed(app, token, result),
            Self::Access(access) => access.completed(app, token, result),
            Self::Fenced(fenced) => fenced.completed(app, token, result),
            Self::Queue(queue) => queue.completed(app, token, result),
            Self::Hot(hot) => hot.completed(app, token, result),
            Self::Election(election) => election.completed(app, token, result),
            Self::Registry(registry) => registry.completed(app, token, result),
            Self::Churn(churn) => churn.completed(app, token, result),
            Self::Greedy(greedy) => greedy.completed(app, token, result),
            Self::Contested(contested) => contested.completed(app, token, result),
            Self::Idler(_) | Self::ByName(_) => {}
        }
    }

    /// A call by name ended.
    pub fn answered(&mut self, app: &mut App<'_>, token: Token, result: &NamedResult) {
        match self {
            Self::ByName(caller) => caller.answered(app, token, result),
            Self::Contested(contested) => contested.answered(app, token),
            _ => {}
        }
    }
}
