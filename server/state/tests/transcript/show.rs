//! Outcomes and effects, as a line each.

use holdfast_proto::client::v1::{
    AclNames, Contents, Directory, EventKind, Granted, HandleEvent, HandleInfo, ListHandlesResponse,
    ListUsageResponse, LockGrant, LockMode, NodeKind, Outcome, Refusal, SessionInfo, Stat, Uses, outcome,
};
use holdfast_state::{Effect, LockDelay, Opens, Touched};
use holdfast_types::{HandleId, SessionId};

use super::Cell;

impl Cell {
    pub(super) fn name(&self, session: SessionId) -> String {
        let named = self.sessions.iter().find(|(_, id)| **id == session);
        named.map_or_else(|| session.to_string(), |(name, _)| name.clone())
    }

    pub(super) fn effect(&self, effect: &Effect) -> String {
        match effect {
            Effect::Replied { number, outcome: result, .. } => format!("{number} {}", outcome(result)),
            Effect::Decided { outcome: result, .. } => outcome(result),
            Effect::SessionOpened { session, repeated, .. } => {
                format!("opened {session}{}", if *repeated { ", again" } else { "" })
            }
            Effect::OpenRefused { refusal: why, .. } => refusal(why),
            Effect::SessionEnded { session, reason, .. } => {
                format!("{} ended: {}", self.name(*session), reason.as_str_name())
            }
            Effect::SessionKept { session } => format!("{} goes on: it is not idle", self.name(*session)),
            Effect::Notify { news, .. } => {
                let told = |(session, handle): (SessionId, HandleId)| {
                    let what = HandleEvent { handle: handle.0, ..news.event.clone() };
                    format!("-> {} is told: {}", self.name(session), event(&what))
                };
                news.handles().into_iter().map(told).collect::<Vec<_>>().join("\n")
            }
            Effect::Reaped { tag } => format!("-> reaped, tag {tag}"),
            Effect::LockGranted { session, grant: granted } => {
                format!("-> {} is granted {}", self.name(*session), grant(granted))
            }
            Effect::DelayStarted(started) => format!("-> lock-delay begins: {}", delay(started)),
            Effect::DelayEnded { path, loss } => format!("lock-delay of {path} from {loss} is over"),
            Effect::Orphaned { path, instance } => format!("-> orphaned: {path} {instance}"),
        }
    }
}

pub(super) fn lines(lines: impl Iterator<Item = String>) -> String {
    let lines: Vec<_> = lines.collect();
    if lines.is_empty() { "none".to_owned() } else { lines.join("\n") }
}

pub(super) fn delay(delay: &LockDelay) -> String {
    format!("{} from {} for {} ms", delay.path, delay.loss, delay.delay_ms)
}

pub(super) fn grant(grant: &LockGrant) -> String {
    let of = grant.granted.as_ref().map_or_else(String::new, granted);
    format!("h{} by #{}: {of}", grant.handle, grant.number)
}

pub(super) fn refusal(refusal: &Refusal) -> String {
    let name = refusal.code().as_str_name().trim_start_matches("REFUSAL_CODE_");
    format!("refused {name}: {}", refusal.message)
}

pub(super) fn outcome(outcome: &Outcome) -> String {
    let result = match &outcome.result {
        None => "done".to_owned(),
        Some(outcome::Result::Refusal(why)) => refusal(why),
        Some(outcome::Result::Opened(opened)) => {
            let how = if opened.created { "opened, created:" } else { "opened:" };
            format!("{how} {}", opened.stat.as_ref().map_or_else(String::new, stat))
        }
        Some(outcome::Result::Closed(_)) => "closed".to_owned(),
        Some(outcome::Result::Contents(file)) => contents(file),
        Some(outcome::Result::Stat(of)) => stat(of),
        Some(outcome::Result::Directory(of)) => directory(of),
        Some(outcome::Result::Written(written)) => {
            let created = if written.created { ", created" } else { "" };
            format!("written{created}, content generation {}", written.content_generation)
        }
        Some(outcome::Result::Deleted(_)) => "deleted".to_owned(),
        Some(outcome::Result::Granted(of)) => format!("granted {}", granted(of)),
        Some(outcome::Result::Queued(queued)) => format!("queued behind {}", queued.ahead),
        Some(outcome::Result::Released(_)) => "released".to_owned(),
        Some(outcome::Result::Cancelled(_)) => "cancelled".to_owned(),
        Some(outcome::Result::AclSet(set)) => format!("lists set, ACL generation {}", set.acl_generation),
        Some(outcome::Result::SequencerSet(_)) => "sequencer set".to_owned(),
        Some(outcome::Result::Sequencer(of)) => of.sequencer.clone(),
        Some(outcome::Result::SequencerChecked(checked)) if checked.valid => "valid".to_owned(),
        Some(outcome::Result::SequencerChecked(checked)) => format!("invalid: {}", checked.reason),
    };
    format!("r{}: {result}", outcome.revision)
}

fn granted(granted: &Granted) -> String {
    let mode = mode(granted.mode());
    format!("{mode}, generation {} of instance {}", granted.lock_generation, granted.instance)
}

fn mode(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Unspecified => "free",
        LockMode::Exclusive => "exclusive",
        LockMode::Shared => "shared",
    }
}

pub(super) fn contents(file: &Contents) -> String {
    let text = String::from_utf8_lossy(&file.contents);
    format!("{text:?}, {}", file.stat.as_ref().map_or_else(String::new, stat))
}

pub(super) fn directory(directory: &Directory) -> String {
    let mut line = String::new();
    for entry in &directory.entries {
        let of = entry.stat.as_ref().expect("an entry has a stat");
        let slash = if of.kind() == NodeKind::Directory { "/" } else { "" };
        line.push_str(&format!("{}{slash} ", entry.name));
    }
    line.push_str(if directory.more { "and more" } else { "and no more" });
    line
}

/// The kind, then what is not 0.
pub(super) fn stat(stat: &Stat) -> String {
    let kind = if stat.kind() == NodeKind::Directory { "directory" } else { "file" };
    let mut line = format!("{}{kind}", if stat.ephemeral { "ephemeral " } else { "" });
    // Who may not read is not told.
    let (Some(lock), Some(acl)) = (&stat.lock, &stat.acl) else {
        assert_eq!(stat.lock.is_some(), stat.acl.is_some(), "who may read is told all");
        return format!(
            "{line} instance={} lock={}, and no more is told",
            stat.instance, stat.lock_generation
        );
    };
    let numbers = [
        ("instance", stat.instance),
        ("content", stat.content_generation),
        ("lock", stat.lock_generation),
        ("acl", stat.acl_generation),
        ("children generation", stat.children_generation),
        ("length", stat.length),
        ("children", stat.children),
        ("handles", stat.open_handles),
        ("holders", lock.holder_count),
        ("waiting", lock.waiting),
        ("delayed", lock.delayed),
    ];
    for (name, number) in numbers {
        if number > 0 {
            line.push_str(&format!(" {name}={number}"));
        }
    }
    if lock.holder_count > 0 {
        let holders: Vec<_> = lock.holders.iter().map(|holder| holder.client.as_str()).collect();
        line.push_str(&format!(", held {} by {}", mode(lock.mode()), holders.join(" ")));
    }
    let AclNames { read, write, change } = acl;
    if [read, write, change] != ["*", "*", "admin"] {
        line.push_str(&format!(", lists read={read} write={write} change={change}"));
    }
    line
}

/// What was told, and the generations that are not 0.
pub(super) fn event(event: &HandleEvent) -> String {
    let kinds: Vec<_> = event.kinds().map(kind).collect();
    let mut line = format!("h{} {}", event.handle, kinds.join(" "));
    let generations = [
        ("content", event.content_generation),
        ("children", event.children_generation),
        ("acl", event.acl_generation),
        ("lock", event.lock_generation),
    ];
    for (name, generation) in generations.into_iter().filter(|(_, generation)| *generation > 0) {
        line.push_str(&format!(" {name}={generation}"));
    }
    for child in &event.children {
        line.push_str(&format!(", {} {}", child.name, kind(child.kind())));
    }
    if event.more_children {
        line.push_str(", and other children");
    }
    line
}

fn kind(kind: EventKind) -> String {
    kind.as_str_name().trim_start_matches("EVENT_KIND_").to_lowercase().replace('_', "-")
}

pub(super) fn touched(touched: &Touched) -> String {
    match touched {
        Touched::Unknown(handle) => format!("unknown: {handle}"),
        Touched::Nodes(touched) => {
            let mut words: Vec<_> = touched.nodes.iter().map(ToString::to_string).collect();
            match &touched.opens {
                Opens::None => {}
                Opens::Node(path) => words.push(format!("and opens of {path}")),
                Opens::List(list) => words.push(format!("and opens that rest on the list {list}")),
                Opens::All => words.push("and all opens".to_owned()),
            }
            if words.is_empty() { "nothing".to_owned() } else { words.join(" ") }
        }
    }
}

pub(super) fn info(info: Option<SessionInfo>) -> String {
    let Some(info) = info else { return "none".to_owned() };
    let SessionInfo { session, client, principal, lease_ms, handles, locks_held, locks_waited_for, .. } =
        info;
    format!(
        "s{session} {client} of {principal}, lease {lease_ms} ms, handles={handles} held={locks_held} \
         waited for={locks_waited_for}"
    )
}

pub(super) fn handles(list: &ListHandlesResponse) -> String {
    let more = if list.more { "and more" } else { "and no more" };
    lines(list.handles.iter().map(handle).chain([more.to_owned()]))
}

fn handle(handle: &HandleInfo) -> String {
    let mut line = format!("{} h{} on {} {}", handle.client, handle.handle, handle.path, handle.instance);
    let Uses { read, write, change_acl } = handle.uses.expect("a handle has uses");
    for (used, name) in [(read, "read"), (write, "write"), (change_acl, "acl")] {
        line.push_str(&if used { format!(" {name}") } else { String::new() });
    }
    let events: Vec<_> = handle.events().map(kind).collect();
    let notes = [
        (handle.gone, "gone".to_owned()),
        (!events.is_empty(), format!("told of {}", events.join(" "))),
        (handle.caching, "caching".to_owned()),
        (handle.lock_delay_ms > 0, format!("delay {} ms", handle.lock_delay_ms)),
        (handle.holds() != LockMode::Unspecified, format!("holds {}", mode(handle.holds()))),
        (handle.waits() != LockMode::Unspecified, format!("waits {}", mode(handle.waits()))),
        (!handle.sequencer.is_empty(), format!("depends on {}", handle.sequencer)),
    ];
    for (_, note) in notes.into_iter().filter(|(is, _)| *is) {
        line.push_str(&format!(", {note}"));
    }
    line
}

/// What principals have.
pub(super) fn usage(usage: &ListUsageResponse) -> String {
    let share = |name: &str, sessions: u64, nodes: u64, bytes: u64| {
        format!("{name}: {sessions} sessions, {nodes} nodes, {bytes} bytes")
    };
    let principals = usage.principals.iter();
    let mut shares: Vec<_> =
        principals.map(|of| share(&of.principal, of.sessions, of.nodes, of.bytes)).collect();
    shares.push(share("(all)", usage.sessions, usage.nodes, usage.bytes));
    if usage.more {
        shares.push("and more".to_owned());
    }
    lines(shares.into_iter())
}
