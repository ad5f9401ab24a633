//! Calls by name, as a script makes them that has no session: reads, conditional writes, creations, deletions, lists,
//! changes of access control, and questions whether a sequencer is valid.

use holdfast_proto::client::v1 as wire;
use holdfast_replica::{CallAnswer, CallRequest};
use holdfast_session::Token;

use super::{Action, App, NamedResult};
use crate::rng::Rng;

/// So few that callers meet.
const NAMES: u64 = 3;
const DIRECTORY: &str = "/named";

/// The workload.
#[derive(Debug)]
pub struct ByName {
    pause_ms_max: u64,
    /// The last file that was read.
    known: Option<Known>,
    /// The call that has not ended.
    awaited: Option<(Token, String)>,
}

/// A file as it was read.
#[derive(Clone, Debug)]
struct Known {
    path: String,
    instance: u64,
    generation: u64,
}

impl ByName {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        Self { pause_ms_max: [5, 50, 500][rng.index(3)], known: None, awaited: None }
    }

    pub(super) fn start(&mut self, app: &mut App<'_>) {
        let kind = wire::NodeKind::Directory.into();
        let (path, if_generation) = (DIRECTORY.to_owned(), Some(0));
        let make = wire::SetContentsRequest { path, kind, create: true, if_generation, ..Default::default() };
        self.ask(app, DIRECTORY, None, CallRequest::SetContents(make));
    }

    pub(super) fn wake(&mut self, app: &mut App<'_>) {
        if app.draining || self.awaited.is_some() {
            return;
        }
        let path = format!("{DIRECTORY}/{}", app.rng.below(NAMES));
        match (app.rng.below(12), self.known.clone()) {
            (0..=2, Some(known)) => {
                let (path, contents, if_generation) =
                    (known.path.clone(), app.contents(0), Some(known.generation));
                let write = wire::SetContentsRequest { path, contents, if_generation, ..Default::default() };
                self.ask(app, &known.path, Some(known.instance), CallRequest::SetContents(write));
            }
            (3, Some(known)) => {
                let (path, if_instance) = (known.path.clone(), Some(known.instance));
                let delete =
                    CallRequest::Delete(wire::DeleteRequest { path, if_instance, ..Default::default() });
                self.ask(app, &known.path, Some(known.instance), delete);
            }
            (4, _) => {
                let (contents, if_generation, create) = (app.contents(0), Some(0), true);
                let make = wire::SetContentsRequest {
                    path: path.clone(),
                    contents,
                    if_generation,
                    create,
                    ..Default::default()
                };
                self.ask(app, &path, None, CallRequest::SetContents(make));
            }
            (5, _) => {
                let read = wire::GetStatRequest { path: path.clone() };
                self.ask(app, &path, None, CallRequest::GetStat(read));
            }
            (6, _) => {
                let read = wire::ReadDirRequest { path: DIRECTORY.to_owned(), ..Default::default() };
                self.ask(app, DIRECTORY, None, CallRequest::ReadDir(read));
            }
            (7, _) if !app.sequencer.is_empty() => {
                let sequencer = app.sequencer.to_string();
                let check = CallRequest::CheckSequencer(wire::CheckSequencerRequest { sequencer });
                self.ask(app, &path, None, check);
            }
            (8, _) if app.rng.per_mille(500) => {
                // Not who may read: the checkers' onlooker must be named in whatever list it is.
                let change = ["*", "admin"][app.rng.index(2)].to_owned();
                let acl = Some(wire::AclNames { change, ..Default::default() });
                let change = wire::SetAclRequest {
                    path: path.clone(),
                    acl,
                    if_generation: None,
                    ..Default::default()
                };
                self.ask(app, &path, None, CallRequest::SetAcl(change));
            }
            (9, _) if app.rng.per_mille(300) => {
                let list = wire::ListSessionsRequest::default();
                self.ask(app, DIRECTORY, None, CallRequest::ListSessions(list));
            }
            _ => {
                let read = wire::GetContentsRequest { path: path.clone() };
                self.ask(app, &path, None, CallRequest::GetContents(read));
            }
        }
    }

    /// A call by name ended.
    pub(super) fn answered(&mut self, app: &mut App<'_>, token: Token, result: &NamedResult) {
        let Some((_, path)) = self.awaited.take_if(|(awaited, _)| *awaited == token) else { return };
        if let Ok(CallAnswer::GetContents(read)) = result
            && let Some(stat) = read.contents.as_ref().and_then(|contents| contents.stat.as_ref())
        {
            let (instance, generation) = (stat.instance, stat.content_generation);
            self.known = Some(Known { path, instance, generation });
        }
        app.wake_within(0, self.pause_ms_max);
    }

    fn ask(&mut self, app: &mut App<'_>, path: &str, instance: Option<u64>, request: CallRequest) {
        let token = app.token();
        self.awaited = Some((token, path.to_owned()));
        app.act(Action::CallByName { token, instance, request: Box::new(request) });
    }
}
