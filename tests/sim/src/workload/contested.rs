//! Changes that become possible only by a change that is under way: a directory is deleted while its last child is, and a
//! file by its name while it is made; beside readers who cache the list that both show in.
//!
//! A master that judged the second change by the node as it is would hold it for refused, and would ask nobody to drop what he
//! reads between the two.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, Creation, NodeKind, outcome};
use holdfast_replica::CallRequest;
use holdfast_session::{Completion, Token};

use super::{Action, App, CallResult};
use crate::rng::Rng;

const DIRECTORY: &str = "/contested";
/// So few that clients meet.
const NAMES: u64 = 2;

/// The workload.
#[derive(Debug)]
pub struct Contested {
    role: Role,
    /// How long after the first change the second is made, at the most, in milliseconds.
    between_ms_max: u64,
    /// How long it pauses at the most, in milliseconds.
    pause_ms_max: u64,
    /// The directory that everything is in.
    directory: u64,
    stage: Stage,
}

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// It reads the list.
    Reads,
    /// It makes a directory with one child, and deletes both, the child first.
    Razes,
    /// It makes a file, and deletes it by its name.
    Unmakes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    OpeningDirectory(Token),
    Idle,
    /// Until this read has ended.
    Reading(Token),
    /// The directory with one child is being made.
    MakingParent(Token),
    /// And the child, in the directory with this handle.
    MakingChild(u64, Token),
    /// The first change of two is under way; when it is woken, it makes the second: on the directory with this handle, or the
    /// node of this name.
    Between(Second),
    /// The second change is under way: until this call has ended.
    Second(Token, Option<u64>),
    /// Before the start, and after all.
    Rest,
}

/// The second change of two.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Second {
    DeleteDirectory(u64),
    DeleteByName(String),
}

impl Contested {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let role = [Role::Reads, Role::Reads, Role::Razes, Role::Razes, Role::Unmakes][rng.index(5)];
        Self {
            role,
            between_ms_max: [1, 4, 20][rng.index(3)],
            pause_ms_max: if role == Role::Reads { [1, 5][rng.index(2)] } else { [50, 200][rng.index(2)] },
            directory: 0,
            stage: Stage::Rest,
        }
    }

    pub(super) fn start(&mut self, app: &mut App<'_>) {
        let open = wire::Open { caching: self.role == Role::Reads, ..App::directory(DIRECTORY) };
        self.stage = Stage::OpeningDirectory(app.call(Operation::Open(Box::new(open))));
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        match &self.stage {
            Stage::Idle if app.draining => self.stage = Stage::Rest,
            Stage::Idle => self.begin(app),
            Stage::Between(second) => {
                let second = second.clone();
                self.make_second(app, second);
            }
            _ => {}
        }
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        match (&self.stage, result) {
            (Stage::OpeningDirectory(awaited), Ok(completion)) if *awaited == token => {
                self.directory = completion.handle.0;
                self.idle(app);
            }
            (Stage::MakingParent(awaited), Ok(completion)) if *awaited == token => {
                let parent = completion.handle.0;
                let file = wire::Open { path: "child".to_owned(), directory: parent, ..app.file("", 0) };
                self.stage = Stage::MakingChild(parent, app.call(Operation::Open(Box::new(file))));
            }
            (Stage::MakingChild(parent, awaited), Ok(completion)) if *awaited == token => {
                let parent = *parent;
                app.call(Operation::Delete(wire::Delete { handle: completion.handle.0 }));
                app.close_handle(completion.handle.0);
                self.wait_between(app, Second::DeleteDirectory(parent));
            }
            (Stage::MakingChild(parent, awaited), Err(_)) if *awaited == token => {
                app.close_handle(*parent);
                self.idle(app);
            }
            (Stage::Second(awaited, handle), _) if *awaited == token => {
                if let Some(handle) = *handle {
                    app.close_handle(handle);
                }
                self.idle(app);
            }
            (Stage::MakingParent(awaited) | Stage::Reading(awaited), _) if *awaited == token => {
                self.idle(app);
            }
            // The file that it made, or that was there, is no longer of use: it is deleted by its name.
            (_, Ok(Completion { handle, result: outcome::Result::Opened(_), .. })) => {
                app.close_handle(handle.0);
            }
            _ => {}
        }
    }

    /// A call by name ended.
    pub(super) fn answered(&mut self, app: &mut App<'_>, token: Token) {
        if matches!(self.stage, Stage::Second(awaited, _) if awaited == token) {
            self.idle(app);
        }
    }

    fn begin(&mut self, app: &mut App<'_>) {
        let name = app.rng.below(NAMES);
        match self.role {
            Role::Reads => {
                let read = wire::ReadDir { handle: self.directory, ..wire::ReadDir::default() };
                self.stage = Stage::Reading(app.call(Operation::ReadDir(read)));
            }
            Role::Razes => {
                let parent = App::directory(&format!("{DIRECTORY}/d{name}"));
                self.stage = Stage::MakingParent(app.call(Operation::Open(Box::new(parent))));
            }
            Role::Unmakes => {
                let path = format!("{DIRECTORY}/f{name}");
                let file = wire::Open {
                    path: path.clone(),
                    creation: Creation::Must.into(),
                    kind: NodeKind::File.into(),
                    contents: app.contents(0),
                    ..wire::Open::default()
                };
                app.call(Operation::Open(Box::new(file)));
                self.wait_between(app, Second::DeleteByName(path));
            }
        }
    }

    fn wait_between(&mut self, app: &mut App<'_>, second: Second) {
        self.stage = Stage::Between(second);
        app.wake_within(0, self.between_ms_max);
    }

    fn make_second(&mut self, app: &mut App<'_>, second: Second) {
        self.stage = match second {
            Second::DeleteDirectory(handle) => {
                Stage::Second(app.call(Operation::Delete(wire::Delete { handle })), Some(handle))
            }
            Second::DeleteByName(path) => {
                let token = app.token();
                let delete = CallRequest::Delete(wire::DeleteRequest { path, ..Default::default() });
                app.act(Action::CallByName { token, instance: None, request: Box::new(delete) });
                Stage::Second(token, None)
            }
        };
    }

    fn idle(&mut self, app: &mut App<'_>) {
        self.stage = if app.draining { Stage::Rest } else { Stage::Idle };
        app.wake_within(0, self.pause_ms_max);
    }
}
