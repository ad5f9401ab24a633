//! The runner of the golden transcripts: turns lines into commands, and outcomes and effects into lines.

mod asks;
mod show;

use std::collections::BTreeMap;
use std::error::Error;

use goldenscript::{ArgumentConsumer, Context};
use holdfast_proto::client::v1::{
    DeleteRequest, EndReason, Outcome, Request, SetAclRequest, SetContentsRequest, outcome,
};
use holdfast_proto::log::v1::command::Kind;
use holdfast_proto::log::v1::{
    Batch, Command, EndLockDelay, EndSession, LowerLeasePromise, OpenSession, RaiseVersion, ReapNode,
    SessionRequest,
};
use holdfast_state::{Effect, Genesis, Recorded, Settings, SnapshotReader, State, settings};
use holdfast_types::{HandleId, NodePath, RequestNumber, SessionId, Term};
use prost::Message;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The term of the master whose entries these are.
const TERM: u64 = 7;
/// The tag of every command.
const TAG: u64 = 5;

/// A cell with one replica and no raft.
pub(crate) struct Cell {
    state: State,
    /// Names of sessions, and their ids.
    sessions: BTreeMap<String, SessionId>,
}

impl Cell {
    /// A cell that began at the state version `version`.
    pub(crate) fn at(version: u32) -> Self {
        let genesis = Genesis {
            cell: "dev".to_owned(),
            cell_id: 1,
            members: Vec::new(),
            settings: settings::complete_at(version, Settings::default()).unwrap(),
        };
        Self { state: State::genesis_at(version, genesis), sessions: BTreeMap::new() }
    }

    /// Applies a command as the one of its batch, and shows what came of it.
    fn apply(&mut self, kind: Kind, principal: String, context: &Context) -> Result<String> {
        self.apply_as(kind, principal, false, context)
    }

    fn apply_as(&mut self, kind: Kind, principal: String, force: bool, context: &Context) -> Result<String> {
        if context.tags.contains("touched") || context.tags.contains("barred") {
            let barred = context.tags.contains("barred");
            return Ok(show::touched(&self.state.touched(&kind, &|_| barred)));
        }
        let term = if context.tags.contains("deposed") { TERM - 1 } else { TERM };
        let reaps = usize::from(matches!(kind, Kind::ReapNode(_)) && term == TERM);
        let batch = Batch { term, commands: vec![Command { tag: TAG, kind: Some(kind), principal, force }] };
        let mut effects = Vec::new();
        let before = self.state.revision();
        self.state.apply_batch(Term(TERM), batch.encode_to_vec().into(), &mut effects)?;
        let commands = effects.len();
        effects.retain(|effect| *effect != Effect::Reaped { tag: TAG });
        assert_eq!(commands - effects.len(), reaps, "the master is told of each reaping, void or not");
        if effects.is_empty() {
            let unchanged = before == self.state.revision();
            return Ok(if unchanged { "void".to_owned() } else { format!("{}", self.state.revision()) });
        }
        let lines: Vec<_> = effects.iter().map(|effect| self.effect(effect)).collect();
        Ok(lines.join("\n"))
    }

    fn session_id(&self, name: &str) -> Result<SessionId> {
        // Numbers name sessions that there are not.
        let unknown = || name.parse().map(SessionId).map_err(|_| format!("no session called {name}"));
        Ok(self.sessions.get(name).copied().map_or_else(unknown, Ok)?)
    }

    fn session_command(&mut self, line: &goldenscript::Command, context: &Context) -> Result<String> {
        let mut args = line.consume_args();
        let name: String = next(&mut args)?;
        let kind = if line.name == "session" {
            let default = format!("the secret key of {name}");
            Kind::OpenSession(OpenSession {
                secret: key(&mut args, "secret", default)?.into_bytes().into(),
                lease_ms: key(&mut args, "lease_ms", 12_000)?,
                client: key(&mut args, "client", name.clone())?,
                principal: key(&mut args, "principal", String::new())?,
            })
        } else {
            let reason: String = key(&mut args, "reason", "closed".to_owned())?;
            let reason = match reason.as_str() {
                "expired" => EndReason::Expired.into(),
                "closed" => EndReason::Closed.into(),
                "idle" => EndReason::Idle.into(),
                "killed" => EndReason::Killed.into(),
                number => number.parse()?,
            };
            Kind::EndSession(EndSession { session: self.session_id(&name)?.0, reason })
        };
        args.reject_next()?;
        let secret = match &kind {
            Kind::OpenSession(open) => Some(open.secret.clone()),
            _ => None,
        };
        let shown = self.apply(kind, String::new(), context)?;
        if let Some(session) = secret.and_then(|secret| self.state.session_by_secret(&secret)) {
            self.sessions.insert(name, session);
        }
        Ok(shown)
    }

    fn request(&mut self, session: &str, line: &goldenscript::Command, context: &Context) -> Result<String> {
        let mut args = line.consume_args();
        let session = self.session_id(session)?;
        if let Some(operation) = asks::read(&line.name, &mut args)? {
            args.reject_next()?;
            return Ok(show::outcome(&self.state.read(session, &operation)));
        }
        let number = next(&mut args)?;
        let acknowledged = asks::acknowledged(&mut args)?;
        let operation = asks::operation(&line.name, &mut args)?;
        args.reject_next()?;
        let request = Some(Request { number, operation });
        let kind = Kind::Request(SessionRequest { session: session.0, request, acknowledged });
        self.apply(kind, String::new(), context)
    }

    fn command(&mut self, line: &goldenscript::Command, context: &Context) -> Result<String> {
        let mut args = line.consume_args();
        let force = key(&mut args, "force", false)?;
        let kind = match line.name.as_str() {
            "put" => Kind::SetContents(SetContentsRequest {
                path: next(&mut args)?,
                contents: args.next_pos().unwrap_or_default().as_bytes().to_vec().into(),
                if_generation: args.take_key("if").map(str::parse).transpose()?,
                create: key(&mut args, "create", false)?,
                kind: asks::kind(&mut args)?,
                force,
            }),
            "rm" => Kind::Delete(DeleteRequest {
                path: next(&mut args)?,
                if_instance: args.take_key("if").map(str::parse).transpose()?,
                force,
            }),
            "set-acl" => Kind::SetAcl(SetAclRequest {
                path: next(&mut args)?,
                acl: asks::acl(&mut args),
                if_generation: args.take_key("if").map(str::parse).transpose()?,
                force,
            }),
            "end-delay" => {
                Kind::EndLockDelay(EndLockDelay { path: next(&mut args)?, loss: next(&mut args)? })
            }
            "reap" => Kind::ReapNode(ReapNode { path: next(&mut args)?, instance: next(&mut args)? }),
            "settings" => Kind::ChangeSettings(asks::settings(&mut args)?),
            "version" => Kind::RaiseVersion(RaiseVersion { version: next(&mut args)? }),
            "lower-promise" => Kind::LowerLeasePromise(LowerLeasePromise { lease_ms: next(&mut args)? }),
            name => return Err(format!("no command is called {name}").into()),
        };
        let by = key(&mut args, "by", String::new())?;
        args.reject_next()?;
        self.apply_as(kind, by, force, context)
    }

    /// What looks at the state, and applies nothing.
    fn look(&mut self, line: &goldenscript::Command) -> Result<Option<String>> {
        let mut args = line.consume_args();
        let state = &self.state;
        let shown = match line.name.as_str() {
            "cat" => {
                let by = asks::principal(&mut args)?;
                state.read_contents(&by, &next::<String>(&mut args)?).map(|file| show::contents(&file))
            }
            "stat" => {
                let by = asks::principal(&mut args)?;
                state.read_stat(&by, &next::<String>(&mut args)?).map(|stat| show::stat(&stat))
            }
            "ls" => {
                let (by, path) = (asks::principal(&mut args)?, next::<String>(&mut args)?);
                let (after, limit) = (key(&mut args, "after", String::new())?, key(&mut args, "limit", 0)?);
                state.read_dir(&by, &path, &after, limit).map(|directory| show::directory(&directory))
            }
            "check" => {
                let by = asks::principal(&mut args)?;
                state.check_sequencer(&by, &next::<String>(&mut args)?).map(|valid| match valid {
                    Ok(()) => "valid".to_owned(),
                    Err(reason) => format!("invalid: {reason}"),
                })
            }
            "usage" => {
                let after = key(&mut args, "after", String::new())?;
                Ok(show::usage(&state.list_usage(&after, key(&mut args, "limit", 0)?)))
            }
            "state-version" => Ok(format!("state version {}", state.version())),
            "held" => {
                let session = self.session_id(&next::<String>(&mut args)?)?;
                Ok(show::lines(state.locks_of(session).iter().map(show::grant)))
            }
            "orphans" => {
                Ok(show::lines(state.orphans().map(|(path, instance)| format!("{path} {instance}"))))
            }
            "delays" => Ok(show::lines(state.delays().map(|delay| show::delay(&delay)))),
            "administers" => {
                let by = asks::principal(&mut args)?;
                state.may_administer(&by).map(|()| format!("{by} may administer the cell"))
            }
            "promised" => Ok(format!("{} ms", state.lease_promised_ms())),
            "info" => Ok(show::info(state.session_info(self.session_id(&next::<String>(&mut args)?)?))),
            "handles" => {
                let list = asks::list(&mut args, |name| self.session_id(name))?;
                state.list_handles(&list).map(|handles| show::handles(&handles))
            }
            _ => return self.look_at_caches(line),
        };
        args.reject_next()?;
        Ok(Some(shown.unwrap_or_else(|refusal| show::refusal(&refusal))))
    }

    /// What a master asks about clients that watch and cache.
    fn look_at_caches(&mut self, line: &goldenscript::Command) -> Result<Option<String>> {
        let mut args = line.consume_args();
        let state = &self.state;
        let shown = match line.name.as_str() {
            "caching" => match args.next_pos() {
                Some(path) => {
                    let path = state.parse_path(path).map_err(|refusal| refusal.message)?;
                    show::lines(state.caching_sessions(&path).map(|session| self.name(session)))
                }
                None => show::lines(state.sessions_that_cache().map(|session| self.name(session))),
            },
            "cacheable" => {
                let (session, handle) = (next::<String>(&mut args)?, HandleId(next(&mut args)?));
                show::lines(
                    state.cacheable(self.session_id(&session)?, handle).iter().map(NodePath::to_string),
                )
            }
            "absence" => {
                let (session, path) = (next::<String>(&mut args)?, next::<String>(&mut args)?);
                let path = state.parse_path(&path).map_err(|refusal| refusal.message)?;
                let under = state.caches_parent(self.session_id(&session)?, &path);
                show::lines(under.iter().map(|parent| format!("under {parent}")))
            }
            "changes" => {
                let session = self.session_id(&next::<String>(&mut args)?)?;
                let seen = asks::seen(&mut args)?;
                show::lines(state.changes_since(session, &seen).iter().map(show::event))
            }
            "since-open" => {
                let (session, number) = (self.session_id(&next::<String>(&mut args)?)?, next(&mut args)?);
                let recorded = state.session(session).map(|session| session.recorded(RequestNumber(number)));
                let Some(Recorded::Outcome(Outcome {
                    result: Some(outcome::Result::Opened(opened)), ..
                })) = recorded
                else {
                    return Err("that request opened nothing".into());
                };
                let stat = opened.stat.as_ref().ok_or("an open gives a stat")?;
                let event = state.change_since_open(session, HandleId(number), stat);
                show::lines(event.iter().map(show::event))
            }
            _ => return Ok(None),
        };
        args.reject_next()?;
        Ok(Some(shown))
    }
}

impl goldenscript::Runner for Cell {
    type Command = goldenscript::Command;

    fn run(&mut self, line: &goldenscript::Command, context: &Context) -> Result<String> {
        if let Some(session) = &context.prefix {
            return self.request(session, line, context);
        }
        if let Some(shown) = self.look(line)? {
            return Ok(shown);
        }
        match line.name.as_str() {
            "session" | "end" => self.session_command(line, context),
            _ => self.command(line, context),
        }
    }

    fn end_block(&mut self, _block: &goldenscript::Block) -> Result<String> {
        self.state.check_invariants();
        let mut reader = SnapshotReader::new();
        for chunk in self.state.snapshot_records() {
            reader.push(&chunk)?;
        }
        let restored = reader.finish()?;
        assert_eq!(restored, self.state, "a snapshot gives the same state");
        assert_eq!(restored.hash(), self.state.hash());
        self.state = restored;
        Ok(String::new())
    }
}

fn next<T: std::str::FromStr>(args: &mut ArgumentConsumer<'_>) -> Result<T>
where
    T::Err: Error + 'static,
{
    Ok(args.next_pos().ok_or("an argument is missing")?.parse()?)
}

fn key<T: std::str::FromStr>(args: &mut ArgumentConsumer<'_>, name: &str, default: T) -> Result<T>
where
    T::Err: Error + 'static,
{
    Ok(args.take_key(name).map(str::parse).transpose()?.unwrap_or(default))
}
