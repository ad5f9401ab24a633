//! Asks for more than its share: floods of small reads and of lists, many writes at once, many handles that are closed behind
//! a write which has to wait, many calls by name to a node that is cached; or it reads through a cache, and never
//! acknowledges that it has dropped what it was told to.
//!
//! None of it is against the protocol. What must not come of it is that others wait for long (I10), or lose their
//! sessions.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, outcome};
use holdfast_replica::CallRequest;
use holdfast_session::Token;

use super::{Action, App, CallResult};
use crate::rng::Rng;

/// Where everybody has a copy of the one file.
const HOT: &str = "/hot";
const FILE: &str = "/hot/file";

/// What it asks too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Appetite {
    /// Metadata, by many requests in a frame.
    Reads,
    /// The list of a directory, likewise.
    Lists,
    /// Writes.
    Writes,
    /// Handles, which are closed behind a write of theirs.
    Closes,
    /// Calls by name.
    Calls,
    /// Nothing, but it acknowledges nothing either.
    Deaf,
}

/// The workload.
#[derive(Debug)]
pub struct Greedy {
    appetite: Appetite,
    /// So many at once.
    times: u32,
    pause_ms_max: u64,
    handle: u64,
    /// The file's instance: who calls by name and is told nothing may have written none the less.
    instance: Option<u64>,
    /// Handles that are to be closed together.
    handles: Vec<u64>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    OpeningDirectory(Token),
    Opening(Token),
    Idle,
    /// Many handles are being opened.
    Gathering,
    /// Until this call has ended.
    Using(Token),
    /// Before the start, and after all.
    Rest,
}

impl Greedy {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        use Appetite::{Calls, Closes, Deaf, Lists, Reads, Writes};
        let appetite = [Reads, Lists, Writes, Closes, Calls, Deaf, Deaf][rng.index(7)];
        let times = match appetite {
            Reads | Lists => [50, 300, 1_500][rng.index(3)],
            Writes | Closes => [20, 60, 150][rng.index(3)],
            Calls => [5, 20, 50][rng.index(3)],
            Deaf => 1,
        };
        let pause_ms_max = if appetite == Deaf { [5, 100][rng.index(2)] } else { [200, 1_000][rng.index(2)] };
        Self {
            appetite,
            times,
            pause_ms_max,
            handle: 0,
            instance: None,
            handles: Vec::new(),
            stage: Stage::Rest,
        }
    }

    pub(super) fn start(&mut self, app: &mut App<'_>) {
        if self.appetite == Appetite::Deaf {
            app.act(Action::Deafen);
        }
        self.stage = Stage::OpeningDirectory(app.open_directory(HOT));
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        if self.stage != Stage::Idle {
            return;
        }
        if app.draining {
            self.stage = Stage::Rest;
            return;
        }
        let (handle, times) = (self.handle, self.times);
        match self.appetite {
            Appetite::Reads | Appetite::Lists => {
                app.act(Action::Flood { handle, times, lists: self.appetite == Appetite::Lists });
                self.stage = Stage::Using(app.stat(handle));
            }
            Appetite::Writes => {
                for _ in 1..times {
                    app.write(handle, 0, None);
                }
                self.stage = Stage::Using(app.write(handle, 0, None));
            }
            Appetite::Closes => {
                self.stage = Stage::Gathering;
                for _ in 0..times {
                    app.open_file(FILE, 0);
                }
            }
            Appetite::Calls => {
                for _ in 0..times {
                    call(app, self.instance);
                }
                app.wake_within(0, self.pause_ms_max);
            }
            Appetite::Deaf => self.stage = Stage::Using(app.read(handle)),
        }
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        match (self.stage, result) {
            (Stage::OpeningDirectory(awaited), Ok(completion)) if awaited == token => {
                if self.appetite == Appetite::Lists {
                    return self.idle(app, completion.handle.0);
                }
                let caching = self.appetite == Appetite::Deaf;
                let open = wire::Open { caching, ..app.file(FILE, 0) };
                self.stage = Stage::Opening(app.call(Operation::Open(Box::new(open))));
            }
            (Stage::Opening(awaited), Ok(completion)) if awaited == token => {
                if let outcome::Result::Opened(opened) = &completion.result {
                    self.instance = opened.stat.as_ref().map(|stat| stat.instance);
                }
                self.idle(app, completion.handle.0);
            }
            (Stage::Gathering, Ok(completion)) => self.gather(app, completion.handle.0),
            // Something was refused: what is open by now is closed.
            (Stage::Gathering, Err(_)) => self.gather(app, 0),
            (Stage::Using(awaited), _) if awaited == token => self.idle(app, self.handle),
            _ => {}
        }
    }

    /// Once there are enough handles, one is written through and all are closed behind that.
    fn gather(&mut self, app: &mut App<'_>, handle: u64) {
        self.handles.push(handle);
        if self.handles.len() < self.times as usize {
            return;
        }
        let handles: Vec<u64> = self.handles.drain(..).filter(|handle| *handle > 0).collect();
        let Some(first) = handles.first() else { return self.idle(app, self.handle) };
        let mut last = app.write(*first, 0, None);
        for handle in handles {
            last = app.close_handle(handle);
        }
        self.stage = Stage::Using(last);
    }

    fn idle(&mut self, app: &mut App<'_>, handle: u64) {
        self.handle = handle;
        self.stage = if app.draining { Stage::Rest } else { Stage::Idle };
        app.wake_within(0, self.pause_ms_max);
    }
}

/// Writes by name what others have in their caches.
fn call(app: &mut App<'_>, instance: Option<u64>) {
    let (path, contents) = (FILE.to_owned(), app.contents(0));
    let token = app.token();
    let write = wire::SetContentsRequest { path, contents, ..Default::default() };
    app.act(Action::CallByName { token, instance, request: Box::new(CallRequest::SetContents(write)) });
}
