//! Outputs as text: short enough to be read, complete enough to be believed.

use holdfast_proto::client::v1::{self as wire, client_frame, outcome};
use holdfast_session::{CallError, Operation, Output, Slot, State};
use holdfast_types::Time;

/// Ids and numbers that only the session knows, and no cell, have this bit.
const LOCAL: u64 = 1 << 63;

/// A handle's id or a request's number; `L1` is the first that only the session knows.
fn id(id: u64) -> String {
    if id & LOCAL == 0 { id.to_string() } else { format!("L{}", id ^ LOCAL) }
}

pub(super) fn parse_id(text: &str) -> Result<u64, Box<dyn std::error::Error>> {
    match text.strip_prefix('L') {
        Some(local) => Ok(local.parse::<u64>()? | LOCAL),
        None => Ok(text.parse()?),
    }
}

/// What is to be read from a slot at this moment.
pub(super) fn slot(slot: &Slot, now: Time) -> String {
    let contents = slot.contents(|| now).map(|contents| {
        assert!(contents.stat.as_ref().is_some_and(|stat| stat.lock.is_none()), "the lock is cached");
        String::from_utf8_lossy(&contents.contents).into_owned()
    });
    let stat = slot.stat(|| now).map(|stat| {
        assert!(stat.lock.is_none() && stat.lock_generation == 0, "the lock is cached");
        stat_generation(&stat).to_string()
    });
    let children = slot.children(|| now).map(|directory| {
        let names: Vec<_> = directory.entries.iter().map(|entry| entry.name.as_str()).collect();
        names.join(",")
    });
    let or_nothing = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    format!("contents {}, stat {}, children {}", or_nothing(contents), or_nothing(stat), or_nothing(children))
}

fn stat_generation(stat: &wire::Stat) -> u64 {
    stat.content_generation.max(stat.children_generation)
}

pub(super) fn output(output: &Output) -> String {
    match output {
        Output::Connect { stream, address } => format!("connect {} to {address}", stream.0),
        Output::Disconnect { stream, silent } => {
            format!("disconnect {}{}", stream.0, if *silent { " (silent)" } else { "" })
        }
        Output::Send { stream, frame } => format!("{} <- {}", stream.0, client_frame(frame)),
        Output::Complete { token, result: Ok(completion) } => {
            let (number, handle) = (id(completion.number.0), id(completion.handle.0));
            let here = match &completion.result {
                _ if !completion.from_cache => String::new(),
                outcome::Result::Opened(opened) => {
                    format!(" @{} (no message)", opened.stat.as_ref().map_or(0, stat_generation))
                }
                _ => " (no message)".to_owned(),
            };
            format!("call {} done: {number} h{handle} {}{here}", token.0, result(&completion.result))
        }
        Output::Complete { token, result: Err(error) } => {
            let sent = match error {
                CallError::Ended { maybe_applied: true, .. }
                | CallError::TimedOut { maybe_applied: true, .. } => " (maybe applied)",
                _ => "",
            };
            format!("call {} failed: {error}{sent}", token.0)
        }
        Output::StateChanged(State::Ended(ended)) => format!("ENDED: {ended}"),
        Output::StateChanged(state) => format!("{state:?}").to_uppercase(),
        Output::Event(event) => format!("EVENT h{} {}", event.handle, kinds(event)),
        Output::Flushed { token } => format!("FLUSHED {}", token.0),
        Output::FailedOver { term } => format!("FAILED OVER to {term}"),
    }
}

fn kinds(event: &wire::HandleEvent) -> String {
    let kinds = event.kinds().map(|kind| kind.as_str_name().trim_start_matches("EVENT_KIND_").to_owned());
    format!("{} @{}", kinds.collect::<Vec<_>>().join("+"), event.content_generation)
}

fn client_frame(frame: &wire::ClientFrame) -> String {
    let mut parts = Vec::new();
    match &frame.hello {
        Some(client_frame::Hello::Open(open)) => {
            let keep = if open.keep_when_idle { " keep" } else { "" };
            let wire::OpenSession { cell, lease_ms, attachment, .. } = open;
            parts.push(format!("open {cell} lease={lease_ms} attachment={attachment}{keep}"));
        }
        Some(client_frame::Hello::Attach(attach)) => {
            let keep = if attach.keep_when_idle { " keep" } else { "" };
            let wire::AttachSession { cell, session, attachment, .. } = attach;
            parts.push(format!("attach {cell} session={session} attachment={attachment}{keep}"));
            // Always that of the cell that opened the session.
            if attach.cell_id != 77 {
                parts.push(format!("cell_id={}", attach.cell_id));
            }
            for seen in &attach.seen {
                let wire::Seen { handle, content_generation, children_generation, .. } = seen;
                parts.push(format!("seen h{handle} @{}", content_generation.max(children_generation)));
            }
        }
        None => {}
    }
    if frame.notices_through > 0 {
        parts.push(format!("notices 1-{}", frame.notices_through));
    }
    if let Some(keep_alive) = &frame.keep_alive {
        parts.push(format!("keepalive {}", keep_alive.number));
    }
    for request in &frame.requests {
        let operation = request.operation.as_ref().map_or_else(|| "nothing".to_owned(), operation);
        parts.push(format!("#{} {operation}", request.number));
    }
    if let Some(acknowledged) = &frame.acknowledged {
        let ranges = acknowledged.ranges.iter().map(|range| format!(" {}-{}", range.first, range.last));
        parts.push(format!("acked 1-{}{}", acknowledged.through, ranges.collect::<String>()));
    }
    if frame.close.is_some() {
        parts.push("close".to_owned());
    }
    parts.join(" | ")
}

fn operation(operation: &Operation) -> String {
    match operation {
        Operation::Open(open) => {
            let directory = if open.directory == 0 { String::new() } else { format!("h{}/", open.directory) };
            let caching = if open.caching { " caching" } else { "" };
            format!("open {directory}{}{caching}", open.path)
        }
        Operation::Close(close) => format!("close h{}", close.handle),
        Operation::Acquire(acquire) => format!("acquire h{}", acquire.handle),
        Operation::Release(release) => format!("release h{}", release.handle),
        Operation::SetContents(set) => format!("write h{}", set.handle),
        Operation::GetContents(get) => format!("read h{}", get.handle),
        Operation::GetStat(get) => format!("stat h{}", get.handle),
        Operation::ReadDir(read) => format!("list h{}", read.handle),
        Operation::SetAcl(set) => format!("set-acl h{}", set.handle),
        Operation::SetSequencer(set) => format!("set-sequencer h{} {}", set.handle, set.sequencer),
        Operation::GetSequencer(get) => format!("get-sequencer h{}", get.handle),
        Operation::CheckSequencer(check) => format!("check-sequencer {}", check.sequencer),
        Operation::Cancel(cancel) => format!("cancel #{} h{}", cancel.number, cancel.handle),
        Operation::Delete(delete) => format!("delete h{}", delete.handle),
    }
}

fn result(result: &outcome::Result) -> String {
    match result {
        outcome::Result::Granted(granted) => format!("granted at {}", granted.lock_generation),
        other => {
            let text = format!("{other:?}");
            text.split('(').next().unwrap_or_default().to_lowercase()
        }
    }
}
