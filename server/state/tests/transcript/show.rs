//! Outcomes and effects, as a line each.

use holdfast_proto::client::v1::{
    Contents, Directory, Granted, LockGrant, LockMode, NodeKind, Outcome, Refusal, Stat, outcome,
};
use holdfast_state::{Effect, LockDelay};
use holdfast_types::SessionId;

use super::Cell;

impl Cell {
    fn name(&self, session: SessionId) -> String {
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
            Effect::SessionEnded { session, reason } => {
                format!("{} ended: {}", self.name(*session), reason.as_str_name())
            }
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
    let lock = stat.lock.as_ref().expect("a stat has a lock");
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
    line
}
