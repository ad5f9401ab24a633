//! The runner of the golden transcripts: turns lines into commands, and outcomes and effects into lines.

mod show;

use std::collections::BTreeMap;
use std::error::Error;

use goldenscript::{ArgumentConsumer, Context};
use holdfast_proto::client::v1::request::Operation;
use holdfast_proto::client::v1::{
    Acknowledged, Acquire, Cancel, Close, Creation, Delete, DeleteRequest, EndReason, GetContents, GetStat,
    LockMode, NodeKind, NumberRange, Open, ReadDir, Release, Request, SetContents, SetContentsRequest,
    Settings,
};
use holdfast_proto::log::v1::command::Kind;
use holdfast_proto::log::v1::{
    Batch, Command, EndLockDelay, EndSession, OpenSession, RaiseVersion, ReapNode, SessionRequest,
};
use holdfast_state::{Genesis, SnapshotReader, State, settings};
use holdfast_types::{SessionId, Term};
use prost::Message;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The term of the master whose entries these are.
const TERM: u64 = 7;

/// A cell with one replica and no raft.
pub(crate) struct Cell {
    state: State,
    /// Names of sessions, and their ids.
    sessions: BTreeMap<String, SessionId>,
}

impl Cell {
    pub(crate) fn new() -> Self {
        let genesis = Genesis {
            cell: "dev".to_owned(),
            cell_id: 1,
            members: Vec::new(),
            settings: settings::defaults(),
        };
        Self { state: State::genesis(genesis), sessions: BTreeMap::new() }
    }

    /// Applies a command as the one of its batch, and shows what came of it.
    fn apply(&mut self, kind: Kind, context: &Context) -> Result<String> {
        let term = if context.tags.contains("deposed") { TERM - 1 } else { TERM };
        let batch = Batch { term, commands: vec![Command { tag: 0, kind: Some(kind), ..Command::default() }] };
        let mut effects = Vec::new();
        let before = self.state.revision();
        self.state.apply_batch(Term(TERM), batch.encode_to_vec().into(), &mut effects)?;
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
            })
        } else {
            let reason: String = key(&mut args, "reason", "closed".to_owned())?;
            let reason = match reason.as_str() {
                "expired" => EndReason::Expired.into(),
                "closed" => EndReason::Closed.into(),
                number => number.parse()?,
            };
            Kind::EndSession(EndSession { session: self.session_id(&name)?.0, reason })
        };
        args.reject_next()?;
        let secret = match &kind {
            Kind::OpenSession(open) => Some(open.secret.clone()),
            _ => None,
        };
        let shown = self.apply(kind, context)?;
        if let Some(session) = secret.and_then(|secret| self.state.session_by_secret(&secret)) {
            self.sessions.insert(name, session);
        }
        Ok(shown)
    }

    fn request(&mut self, session: &str, line: &goldenscript::Command, context: &Context) -> Result<String> {
        let mut args = line.consume_args();
        let session = self.session_id(session)?;
        if let Some(operation) = read_operation(&line.name, &mut args)? {
            args.reject_next()?;
            return Ok(show::outcome(&self.state.read(session, &operation)));
        }
        let number = next(&mut args)?;
        let acknowledged = acknowledged(&mut args)?;
        let operation = operation(&line.name, &mut args)?;
        args.reject_next()?;
        let request = Some(Request { number, operation });
        self.apply(Kind::Request(SessionRequest { session: session.0, request, acknowledged }), context)
    }

    fn command(&mut self, line: &goldenscript::Command, context: &Context) -> Result<String> {
        let mut args = line.consume_args();
        let kind = match line.name.as_str() {
            "put" => Kind::SetContents(SetContentsRequest {
                path: next(&mut args)?,
                contents: args.next_pos().unwrap_or_default().as_bytes().to_vec().into(),
                if_generation: args.take_key("if").map(str::parse).transpose()?,
                create: key(&mut args, "create", false)?,
                kind: kind(&mut args)?,
            }),
            "rm" => Kind::Delete(DeleteRequest {
                path: next(&mut args)?,
                if_instance: args.take_key("if").map(str::parse).transpose()?,
            }),
            "end-delay" => {
                Kind::EndLockDelay(EndLockDelay { path: next(&mut args)?, loss: next(&mut args)? })
            }
            "reap" => Kind::ReapNode(ReapNode { path: next(&mut args)?, instance: next(&mut args)? }),
            "settings" => Kind::ChangeSettings(change(&mut args)?),
            "version" => Kind::RaiseVersion(RaiseVersion { version: next(&mut args)? }),
            name => return Err(format!("no command is called {name}").into()),
        };
        args.reject_next()?;
        self.apply(kind, context)
    }

    /// What looks at the state, and applies nothing.
    fn look(&mut self, line: &goldenscript::Command) -> Result<Option<String>> {
        let mut args = line.consume_args();
        let shown = match line.name.as_str() {
            "cat" => self.state.read_contents(&next::<String>(&mut args)?).map(|file| show::contents(&file)),
            "stat" => self.state.read_stat(&next::<String>(&mut args)?).map(|stat| show::stat(&stat)),
            "ls" => {
                let path: String = next(&mut args)?;
                let (after, limit) = (key(&mut args, "after", String::new())?, key(&mut args, "limit", 0)?);
                self.state.read_dir(&path, &after, limit).map(|directory| show::directory(&directory))
            }
            "check" => self.state.check_sequencer(&next::<String>(&mut args)?).map(|valid| match valid {
                Ok(()) => "valid".to_owned(),
                Err(reason) => format!("invalid: {reason}"),
            }),
            "held" => {
                let session = self.session_id(&next::<String>(&mut args)?)?;
                Ok(show::lines(self.state.locks_of(session).iter().map(show::grant)))
            }
            "orphans" => {
                Ok(show::lines(self.state.orphans().map(|(path, instance)| format!("{path} {instance}"))))
            }
            "delays" => Ok(show::lines(self.state.delays().map(|delay| show::delay(&delay)))),
            _ => return Ok(None),
        };
        args.reject_next()?;
        Ok(Some(shown.unwrap_or_else(|refusal| show::refusal(&refusal))))
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

fn kind(args: &mut ArgumentConsumer<'_>) -> Result<i32> {
    Ok(match args.take_key("kind") {
        None => NodeKind::Unspecified.into(),
        Some("file") => NodeKind::File.into(),
        Some("directory") => NodeKind::Directory.into(),
        Some(number) => number.parse()?,
    })
}

/// `through=3 ranges=5-6,8-8`
fn acknowledged(args: &mut ArgumentConsumer<'_>) -> Result<Option<Acknowledged>> {
    let through = args.take_key("through");
    let ranges = args.take_key("ranges");
    if through.is_none() && ranges.is_none() {
        return Ok(None);
    }
    let mut acknowledged = Acknowledged { through: through.unwrap_or("0").parse()?, ranges: Vec::new() };
    for range in ranges.into_iter().flat_map(|ranges| ranges.split(',')) {
        let (first, last) = range.split_once('-').ok_or("a range is written 5-6")?;
        acknowledged.ranges.push(NumberRange { first: first.parse()?, last: last.parse()? });
    }
    Ok(Some(acknowledged))
}

fn read_operation(name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Option<Operation>> {
    Ok(Some(match name {
        "cat" => Operation::GetContents(GetContents { handle: next(args)? }),
        "stat" => Operation::GetStat(GetStat { handle: next(args)? }),
        "ls" => Operation::ReadDir(ReadDir { handle: next(args)?, ..ReadDir::default() }),
        _ => return Ok(None),
    }))
}

fn operation(name: &str, args: &mut ArgumentConsumer<'_>) -> Result<Option<Operation>> {
    Ok(Some(match name {
        "open" => Operation::Open(Open {
            path: next(args)?,
            creation: match args.take_key("create") {
                None => Creation::Unspecified.into(),
                Some("may") => Creation::May.into(),
                Some("must") => Creation::Must.into(),
                Some(number) => number.parse()?,
            },
            kind: kind(args)?,
            ephemeral: key(args, "ephemeral", false)?,
            contents: key(args, "contents", String::new())?.into_bytes().into(),
            lock_delay_ms: key(args, "delay_ms", 0)?,
        }),
        "close" => Operation::Close(Close { handle: next(args)? }),
        "write" => Operation::SetContents(SetContents {
            handle: next(args)?,
            contents: next::<String>(args)?.into_bytes().into(),
            if_generation: args.take_key("if").map(str::parse).transpose()?,
        }),
        "delete" => Operation::Delete(Delete { handle: next(args)? }),
        "acquire" => Operation::Acquire(Acquire {
            handle: next(args)?,
            mode: match args.next_pos() {
                None | Some("exclusive") => LockMode::Exclusive.into(),
                Some("shared") => LockMode::Shared.into(),
                Some(number) => number.parse()?,
            },
            try_only: key(args, "try", false)?,
        }),
        "release" => Operation::Release(Release { handle: next(args)? }),
        "cancel" => Operation::Cancel(Cancel { number: next(args)?, handle: key(args, "handle", 0)? }),
        "logged-read" => Operation::GetStat(GetStat { handle: next(args)? }),
        "nothing" => return Ok(None),
        name => return Err(format!("no request is called {name}").into()),
    }))
}

fn change(args: &mut ArgumentConsumer<'_>) -> Result<Settings> {
    Ok(Settings {
        contents_bytes_max: key(args, "contents_bytes_max", 0)?,
        name_bytes_max: key(args, "name_bytes_max", 0)?,
        path_bytes_max: key(args, "path_bytes_max", 0)?,
        sessions_max: key(args, "sessions_max", 0)?,
        handles_per_session_max: key(args, "handles_per_session_max", 0)?,
        nodes_max: key(args, "nodes_max", 0)?,
        requests_in_flight_max: key(args, "requests_in_flight_max", 0)?,
    })
}
