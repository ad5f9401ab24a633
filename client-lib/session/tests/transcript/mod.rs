//! The commands of the transcripts.

mod reply;
mod show;

use goldenscript::{ArgumentConsumer, Command, Context};
use holdfast_proto::client::v1::{self as wire, event, server_frame};
use holdfast_session::{
    CacheConfig, Config, Input, Known, Operation, Output, Problem, Session, Slot, StreamId, Token,
};
use holdfast_types::{Duration, HandleId, Time};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::sync::Arc;

type Fallible<T> = Result<T, Box<dyn Error>>;

/// A session, and the time it believes it is.
#[derive(Default)]
pub(crate) struct Runner {
    now: Time,
    session: Option<Session>,
    /// The stream that was asked for last: what `latest` means.
    latest: u64,
    /// What each handle's node is cached in.
    slots: BTreeMap<HandleId, Arc<Slot>>,
}

impl goldenscript::Runner for Runner {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Fallible<String> {
        let mut line = command.consume_args();
        let hold = line.take_key("hold").is_some();
        let mut text = String::new();
        match command.name.as_str() {
            "session" => self.session = Some(Session::new(self.now, config(&mut line)?)),
            "time" => text = self.pass(Time::from_millis(number(next(&mut line)?)?)),
            "skip" => self.now = Time::from_millis(number(next(&mut line)?)?),
            "slot" => {
                let id = handle(next(&mut line)?)?;
                let slot = self.slots.get(&HandleId(id)).ok_or("the handle has no slot")?;
                return Ok(format!("{}\n", show::slot(slot, self.now)));
            }
            "stats" => return Ok(format!("{:?}\n", self.session()?.cache_counters().snapshot())),
            "lease-until" => return Ok(format!("{}\n", self.session()?.valid_until())),
            name => {
                let input = input(name, &mut line, self.latest)?;
                let now = self.now;
                self.session()?.handle(now, input);
            }
        }
        line.reject_next()?;
        Ok(if hold { text } else { text + &self.drain() })
    }
}

impl Runner {
    fn session(&mut self) -> Fallible<&mut Session> {
        self.session.as_mut().ok_or_else(|| "no session yet".into())
    }

    /// Everything that the session wants done, a line each.
    fn drain(&mut self) -> String {
        let mut text = String::new();
        while let Some(output) = self.session.as_mut().and_then(Session::poll_output) {
            if let Output::Connect { stream, .. } = &output {
                self.latest = stream.0;
            }
            if let Output::Complete { result: Ok(completion), .. } = &output
                && let Some(slot) = &completion.slot
            {
                self.slots.insert(completion.handle, Arc::clone(slot));
            }
            writeln!(text, "{}", show::output(&output)).expect("strings take everything");
        }
        text
    }

    /// Lets time pass as a driver would: in the steps that the session asks for.
    fn pass(&mut self, until: Time) -> String {
        let mut text = String::new();
        while let Some(next) =
            self.session.as_ref().and_then(Session::poll_timeout).filter(|next| *next <= until)
        {
            self.now = self.now.max(next);
            if let Some(session) = &mut self.session {
                session.handle(self.now, Input::TimePassed);
            }
            let said = self.drain();
            if !said.is_empty() {
                write!(text, "at {}:\n{said}", self.now).expect("strings take everything");
            }
        }
        self.now = until;
        text
    }
}

fn config(line: &mut ArgumentConsumer<'_>) -> Fallible<Config> {
    let mut millis = |key: &str, default: u64| -> Fallible<Duration> {
        Ok(Duration::from_millis(line.take_key(key).map_or(Ok(default), number)?))
    };
    let (lease, grace) = (millis("lease", 12_000)?, millis("grace", 45_000)?);
    let idle_handle_time = millis("idle-time", 30_000)?;
    let open_timeout = match line.take_key("open-timeout") {
        Some(time) => Duration::from_millis(number(time)?),
        None => grace,
    };
    let ends_when_idle = line.take_key("keep").is_none();
    let cache = CacheConfig {
        on: line.take_key("cache") != Some("off"),
        bytes_max: line.take_key("cache-bytes").map_or(Ok(64 << 20), number)?,
        idle_handles_max: line.take_key("idle-max").map_or(Ok(256), number)?.try_into()?,
        idle_handle_time,
    };
    let drift_per_mille = line.take_key("drift").map_or(Ok(10), number)?.try_into()?;
    let addresses = line.take_key("addresses").unwrap_or("a:1,b:1,c:1");
    Ok(Config {
        addresses: addresses.split(',').filter(|text| !text.is_empty()).map(str::to_owned).collect(),
        known: Known::default(),
        cell: "dev".to_owned(),
        client: "client".to_owned(),
        secret: [7; 32],
        lease,
        grace,
        open_timeout,
        ends_when_idle,
        drift_per_mille,
        // With this seed the first address is the first of the list.
        seed: line.take_key("seed").map_or(Ok(3), number)?,
        cache,
    })
}

fn input(name: &str, line: &mut ArgumentConsumer<'_>, latest: u64) -> Fallible<Input> {
    Ok(match name {
        "call" => {
            let token = Token(number(next(line)?)?);
            Input::Call { token, operation: operation(line)? }
        }
        "limit" => {
            let token = Token(number(next(line)?)?);
            Input::LimitCall { token, within: Duration::from_millis(number(next(line)?)?) }
        }
        "flush" => Input::Flush { token: Token(number(next(line)?)?) },
        "cancel" => Input::CancelCall { token: Token(number(next(line)?)?) },
        "close" => Input::Close,
        "abandoned" => Input::Abandoned,
        "keep-locks" => Input::KeepLocks { handle: HandleId(handle(next(line)?)?) },
        "tick" => Input::TimePassed,
        "connected" => Input::Connected { stream: stream(line, latest)? },
        "broken" => Input::Disconnected {
            stream: stream(line, latest)?,
            problem: Problem::unserved("connection reset"),
        },
        "frame" => {
            let stream = stream(line, latest)?;
            let mut frame = wire::ServerFrame::default();
            while let Some(part) = line.next_pos() {
                fill(&mut frame, part, line)?;
            }
            Input::Frame { stream, frame }
        }
        other => return Err(format!("there is no command {other}").into()),
    })
}

/// One part of a frame: `opened`, `attached`, `refused:CODE`, `lease:MS`, `ended:WHY`, `grant:h1#2@3`, or a reply,
/// such as `#4:queued`.
fn fill(frame: &mut wire::ServerFrame, part: &str, line: &mut ArgumentConsumer<'_>) -> Fallible<()> {
    let (kind, rest) = part.split_once(':').unwrap_or((part, ""));
    match kind {
        "opened" => {
            let session = line.take_key("session").map_or(Ok(9), number)?;
            let lease_ms = number(line.take_key("lease").unwrap_or("12000"))?.try_into()?;
            let opened = wire::SessionOpened {
                session,
                lease_ms,
                cell: Some(cell(line)?),
                ..wire::SessionOpened::default()
            };
            frame.hello = Some(server_frame::Hello::Opened(opened));
        }
        "attached" => {
            let attachment = number(rest)?;
            let locks = line
                .take_key("locks")
                .map_or(Ok(Vec::new()), |locks| locks.split(',').map(grant).collect::<Fallible<Vec<_>>>())?;
            let attached = wire::SessionAttached { attachment, locks, cell: Some(cell(line)?) };
            frame.hello = Some(server_frame::Hello::Attached(attached));
        }
        "refused" => {
            let master_address = line.take_key("master").unwrap_or_default().to_owned();
            let refused = wire::StreamRefused { refusal: Some(refusal(rest)?), master_address };
            frame.hello = Some(server_frame::Hello::Refused(refused));
        }
        "lease" => {
            let (number_text, ms) = rest.split_once('/').ok_or("lease:NUMBER/MS")?;
            let lease =
                wire::LeaseGranted { number: number(number_text)?, lease_ms: number(ms)?.try_into()? };
            frame.lease = Some(lease);
        }
        "ended" => {
            let reason = match rest {
                "closed" => wire::EndReason::Closed,
                "killed" => wire::EndReason::Killed,
                "idle" => wire::EndReason::Idle,
                _ => wire::EndReason::Expired,
            };
            frame.ended = Some(wire::SessionEnded { reason: reason.into() });
        }
        "ending" => {
            let reason = match rest {
                "idle" => wire::EndReason::Idle,
                "expired" => wire::EndReason::Expired,
                _ => wire::EndReason::Killed,
            };
            frame.ending = Some(wire::SessionEnding { reason: reason.into() });
        }
        "void" => {
            let (notice, voids) = rest.split_once(':').ok_or("void:NOTICE:PATH,PATH!")?;
            let invalidations = voids.split(',').map(reply::invalidation);
            notice_of(frame, notice)?.invalidations.extend(invalidations);
        }
        "event" => {
            let (notice, event) = rest.split_once(':').ok_or("event:NOTICE:hID:KIND@GENERATION")?;
            let event = reply::event(event)?;
            notice_of(frame, notice)?.events.push(event);
        }
        "grant" => frame.events.push(wire::Event { event: Some(event::Event::LockGranted(grant(rest)?)) }),
        answer => {
            let cacheable = answer.ends_with('*');
            let number = number(answer.trim_start_matches('#').trim_end_matches('*'))?;
            let outcome = wire::Outcome { revision: 100 + number, result: Some(reply::result(rest)?) };
            frame.replies.push(wire::Reply { number, outcome: Some(outcome), cacheable });
        }
    }
    Ok(())
}

/// The notice of this number, new if it is not the frame's last.
fn notice_of<'f>(frame: &'f mut wire::ServerFrame, text: &str) -> Fallible<&'f mut wire::Notice> {
    let number = number(text)?;
    if frame.notices.last().is_none_or(|last| last.number != number) {
        frame.notices.push(wire::Notice { number, ..wire::Notice::default() });
    }
    Ok(frame.notices.last_mut().ok_or("a notice was just added")?)
}

fn cell(line: &mut ArgumentConsumer<'_>) -> Fallible<wire::CellInfo> {
    let addresses = line.take_key("learned").unwrap_or_default();
    Ok(wire::CellInfo {
        name: "dev".to_owned(),
        cell_id: line.take_key("cell").map_or(Ok(77), number)?,
        term: line.take_key("term").map_or(Ok(1), number)?,
        addresses: addresses.split(',').map(str::to_owned).collect(),
        requests_in_flight_max: line.take_key("window").map_or(Ok(4096), number)?.try_into()?,
        contents_bytes_max: line.take_key("contents").map_or(Ok(262_144), number)?,
        reattach_spread_ms: line.take_key("spread").map_or(Ok(0), number)?.try_into()?,
    })
}

fn operation(line: &mut ArgumentConsumer<'_>) -> Fallible<Operation> {
    let name = next(line)?;
    if name == "open" {
        return Ok(Operation::Open(Box::new(open(line)?)));
    }
    if name == "check-sequencer" {
        let sequencer = next(line)?.to_owned();
        return Ok(Operation::CheckSequencer(wire::CheckSequencer { sequencer }));
    }
    let handle = handle(next(line)?)?;
    let mode = wire::LockMode::Exclusive.into();
    Ok(match name {
        "acquire" => Operation::Acquire(wire::Acquire { handle, mode, try_only: false }),
        "acquire-shared" => {
            let mode = wire::LockMode::Shared.into();
            Operation::Acquire(wire::Acquire { handle, mode, try_only: false })
        }
        "release" => Operation::Release(wire::Release { handle }),
        "close" => Operation::Close(wire::Close { handle }),
        "delete" => Operation::Delete(wire::Delete { handle }),
        "write" => {
            let bytes = line.take_key("bytes").map_or(Ok(0), number)?;
            let contents = vec![0; usize::try_from(bytes)?].into();
            Operation::SetContents(wire::SetContents { handle, contents, ..wire::SetContents::default() })
        }
        "read" => Operation::GetContents(wire::GetContents { handle }),
        "stat" => Operation::GetStat(wire::GetStat { handle }),
        "list" => Operation::ReadDir(wire::ReadDir { handle, ..wire::ReadDir::default() }),
        "withdraw" => Operation::Cancel(wire::Cancel {
            number: show::parse_id(next(line)?.trim_start_matches('#'))?,
            handle,
        }),
        "set-acl" => Operation::SetAcl(Box::new(wire::SetAcl { handle, ..wire::SetAcl::default() })),
        "get-sequencer" => Operation::GetSequencer(wire::GetSequencer { handle }),
        "set-sequencer" => {
            Operation::SetSequencer(wire::SetSequencer { handle, sequencer: next(line)?.to_owned() })
        }
        other => return Err(format!("there is no operation {other}").into()),
    })
}

/// `open PATH`, with `caching=yes`, `create=may|must`, `uses=r`, `events=CONTENTS_MODIFIED,...`, `dir=h1`, `kind=dir`,
/// `ephemeral=yes`, `delay=MS`.
fn open(line: &mut ArgumentConsumer<'_>) -> Fallible<wire::Open> {
    let creation = match line.take_key("create") {
        None => wire::Creation::Unspecified,
        Some("may") => wire::Creation::May,
        Some(_) => wire::Creation::Must,
    };
    let kind = match line.take_key("kind") {
        None => wire::NodeKind::Unspecified,
        Some("dir") => wire::NodeKind::Directory,
        Some(_) => wire::NodeKind::File,
    };
    let uses = line.take_key("uses").map(|uses| wire::Uses {
        read: uses.contains('r'),
        write: uses.contains('w'),
        change_acl: uses.contains('a'),
    });
    let events = line.take_key("events").map_or(Ok(Vec::new()), |kinds| {
        kinds.split(',').map(|kind| Ok(reply::kind(kind)?.into())).collect::<Fallible<Vec<i32>>>()
    })?;
    Ok(wire::Open {
        creation: creation.into(),
        kind: kind.into(),
        uses,
        events,
        caching: line.take_key("caching").is_some(),
        ephemeral: line.take_key("ephemeral").is_some(),
        lock_delay_ms: line.take_key("delay").map_or(Ok(0), number)?.try_into()?,
        directory: line.take_key("dir").map_or(Ok(0), handle)?,
        path: next(line)?.to_owned(),
        ..wire::Open::default()
    })
}

/// `h1#2@3`: handle 1, granted to its request 2, at generation 3.
fn grant(text: &str) -> Fallible<wire::LockGrant> {
    let (handle, rest) = text.trim_start_matches('h').split_once('#').ok_or("a grant reads h1#2@3")?;
    let (acquire, generation) = rest.split_once('@').ok_or("a grant reads h1#2@3")?;
    Ok(wire::LockGrant {
        handle: number(handle)?,
        number: number(acquire)?,
        granted: Some(granted(generation)?),
    })
}

fn granted(generation: &str) -> Fallible<wire::Granted> {
    let mode = wire::LockMode::Exclusive.into();
    Ok(wire::Granted { mode, lock_generation: number(generation)?, instance: 5 })
}

fn refusal(code: &str) -> Fallible<wire::Refusal> {
    let name = format!("REFUSAL_CODE_{code}");
    let code = wire::RefusalCode::from_str_name(&name).ok_or("there is no such refusal")?;
    Ok(wire::Refusal {
        code: code.into(),
        message: format!("the cell says {}", code.as_str_name()),
        ..Default::default()
    })
}

fn stream(line: &mut ArgumentConsumer<'_>, latest: u64) -> Fallible<StreamId> {
    match next(line)? {
        "latest" => Ok(StreamId(latest)),
        text => Ok(StreamId(number(text)?)),
    }
}

fn next<'a>(line: &mut ArgumentConsumer<'a>) -> Fallible<&'a str> {
    Ok(line.next_pos().ok_or("an argument is missing")?)
}

/// `h1`, or `L1` for an id that only the session knows.
fn handle(text: &str) -> Fallible<u64> {
    show::parse_id(text.trim_start_matches('h'))
}

fn number(text: &str) -> Fallible<u64> {
    Ok(text.parse()?)
}
