//! Changes who may open a file, and opens it: whoever is told that he may, or may not, is told what was so at a moment
//! since he asked, from the cache too.
//!
//! One client's principal may write access control lists; it is the keeper. The others are guests.

use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{self as wire, AclNames, Creation, NodeKind, Uses};
use holdfast_session::Token;

use super::{App, CallResult};
use crate::checker::ONLOOKER;

/// The list of those who may read.
const LIST: &str = "guests";

/// The workload.
#[derive(Debug, Default)]
pub struct Access {
    /// The keeper's handles: of the list, and of the file.
    list: Option<u64>,
    guarded: Option<u64>,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    OpeningList(Token),
    OpeningDirectory(Token),
    OpeningGuarded(Token),
    Keeping,
    Visiting(Token),
    Reading(u64, Token),
    Leaving(Token),
    Outside,
    /// Before the start, and after all.
    #[default]
    Rest,
}

impl Access {
    pub(super) fn start(&mut self, app: &mut App<'_>) {
        if app.is_keeper {
            let contents = self.guests(app).into();
            let path = format!("/acl/{LIST}");
            let file = wire::Open { contents, ..app.file(&path, 0) };
            self.stage = Stage::OpeningList(app.call(Operation::Open(Box::new(file))));
        } else {
            self.stage = Stage::Outside;
            app.wake_within(0, 500);
        }
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        match self.stage {
            Stage::Keeping | Stage::Outside if app.draining => self.stage = Stage::Rest,
            Stage::Keeping => {
                self.keep(app);
                app.wake_within(0, 800);
            }
            Stage::Outside => {
                let uses = Some(Uses { read: true, ..Uses::default() });
                let path = ["/guarded/0", "/guarded"][app.rng.index(2)].to_owned();
                let caching = app.rng.per_mille(800);
                let open = wire::Open { path, uses, caching, ..wire::Open::default() };
                self.stage = Stage::Visiting(app.call(Operation::Open(Box::new(open))));
            }
            _ => {}
        }
    }

    pub(super) fn completed(&mut self, app: &mut App<'_>, token: Token, result: &CallResult) {
        let handle = result.as_ref().map(|completion| completion.handle.0).ok();
        match (self.stage, handle) {
            (Stage::OpeningList(awaited), Some(handle)) if awaited == token => {
                self.list = Some(handle);
                let directory = wire::Open { acl: Self::acl(LIST), ..App::directory("/guarded") };
                self.stage = Stage::OpeningDirectory(app.call(Operation::Open(Box::new(directory))));
            }
            (Stage::OpeningDirectory(awaited), Some(_)) if awaited == token => {
                let uses = Some(Uses { read: true, write: true, change_acl: true });
                let (creation, kind) = (Creation::May.into(), NodeKind::File.into());
                let open = wire::Open { creation, kind, uses, ..app.file("/guarded/0", 0) };
                self.stage = Stage::OpeningGuarded(app.call(Operation::Open(Box::new(open))));
            }
            (Stage::OpeningGuarded(awaited), Some(handle)) if awaited == token => {
                self.guarded = Some(handle);
                self.stage = Stage::Keeping;
                app.wake_within(0, 500);
            }
            (Stage::Visiting(awaited), Some(handle)) if awaited == token => {
                self.stage = Stage::Reading(handle, app.stat(handle));
            }
            (Stage::Reading(handle, awaited), _) if awaited == token => {
                self.stage = Stage::Leaving(app.close_handle(handle));
            }
            (Stage::Visiting(awaited) | Stage::Leaving(awaited), _) if awaited == token => {
                self.stage = if app.draining { Stage::Rest } else { Stage::Outside };
                app.wake_within(0, 60);
            }
            _ => {}
        }
    }

    /// Lets other guests in, or changes whether a list counts at all.
    fn keep(&mut self, app: &mut App<'_>) {
        let (Some(list), Some(guarded)) = (self.list, self.guarded) else { return };
        if app.rng.per_mille(700) {
            let contents = self.guests(app).into();
            app.call(Operation::SetContents(wire::SetContents {
                handle: list,
                contents,
                if_generation: None,
            }));
        } else {
            let acl = Self::acl(["*", LIST][app.rng.index(2)]);
            app.call(Operation::SetAcl(Box::new(wire::SetAcl { handle: guarded, acl, if_generation: None })));
        }
    }

    fn acl(read: &str) -> Option<AclNames> {
        Some(AclNames { read: read.to_owned(), ..AclNames::default() })
    }

    /// A list of some of the clients. A comment keeps it apart from all others.
    fn guests(&self, app: &mut App<'_>) -> String {
        let mut list = format!("# {}\n{ONLOOKER}\nclient-1\n", String::from_utf8_lossy(&app.contents(0)));
        for client in 2..=8 {
            if app.rng.per_mille(500) {
                list += &format!("client-{client}\n");
            }
        }
        list
    }
}
