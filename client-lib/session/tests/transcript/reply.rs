//! What the cell says, from text.

use super::{Fallible, granted, number, refusal};
use holdfast_proto::client::v1::{self as wire, outcome};

/// An outcome's result, such as `contents:some text`, `opened:file`, `granted:7` or `refused:NOT_FOUND`.
pub(super) fn result(text: &str) -> Fallible<outcome::Result> {
    let (kind, rest) = text.split_once(':').unwrap_or((text, ""));
    Ok(match kind {
        "opened" => {
            outcome::Result::Opened(Box::new(wire::Opened { created: false, stat: Some(stat(rest)?) }))
        }
        "closed" => outcome::Result::Closed(wire::Closed {}),
        "contents" => {
            let contents = rest.as_bytes().to_vec().into();
            outcome::Result::Contents(Box::new(wire::Contents { stat: Some(stat("file")?), contents }))
        }
        "stat" => outcome::Result::Stat(Box::new(stat(rest)?)),
        "directory" => outcome::Result::Directory(Box::new(directory(rest, false)?)),
        "page" => outcome::Result::Directory(Box::new(directory(rest, true)?)),
        "deleted" => outcome::Result::Deleted(wire::Deleted {}),
        "written" => outcome::Result::Written(wire::Written::default()),
        "granted" => outcome::Result::Granted(granted(rest)?),
        "granted-shared" => {
            let mode = wire::LockMode::Shared.into();
            outcome::Result::Granted(wire::Granted { mode, ..granted(rest)? })
        }
        "queued" => outcome::Result::Queued(wire::Queued { ahead: 1 }),
        "released" => outcome::Result::Released(wire::Released {}),
        "cancelled" => outcome::Result::Cancelled(wire::Cancelled {}),
        "acl-set" => outcome::Result::AclSet(wire::AclSet { acl_generation: 9 }),
        "sequencer-set" => outcome::Result::SequencerSet(wire::SequencerSet {}),
        "sequencer" => outcome::Result::Sequencer(wire::SequencerText { sequencer: rest.to_owned() }),
        "checked" => outcome::Result::SequencerChecked(wire::SequencerChecked::default()),
        "refused" => outcome::Result::Refusal(refusal(rest)?),
        other => return Err(format!("there is no result {other}").into()),
    })
}

/// `file`, `dir` or `ephemeral`, then `/INSTANCE` and `@GENERATION` of the contents or children, 5 if not said. All has a lock, which
/// must not be found in any cache.
fn stat(text: &str) -> Fallible<wire::Stat> {
    let (what, generation) = text.split_once('@').unwrap_or((text, "5"));
    let (what, instance) = what.split_once('/').unwrap_or((what, "5"));
    let generation = number(generation)?;
    let directory = what == "dir";
    let kind = if directory { wire::NodeKind::Directory } else { wire::NodeKind::File };
    Ok(wire::Stat {
        kind: kind.into(),
        ephemeral: what == "ephemeral",
        instance: number(instance)?,
        content_generation: if directory { 0 } else { generation },
        children_generation: if directory { generation } else { 0 },
        lock_generation: 3,
        open_handles: 2,
        lock: Some(wire::LockStat { holder_count: 1, ..wire::LockStat::default() }),
        ..wire::Stat::default()
    })
}

fn directory(names: &str, more: bool) -> Fallible<wire::Directory> {
    let names = names.split(',').filter(|name| !name.is_empty());
    let entries =
        names.map(|name| Ok(wire::DirectoryEntry { name: name.to_owned(), stat: Some(stat("file")?) }));
    Ok(wire::Directory { stat: Some(stat("dir")?), entries: entries.collect::<Fallible<_>>()?, more })
}

/// `/a`; `/a!` if it can perhaps not be opened any more; `!` if that is so for all nodes.
pub(super) fn invalidation(text: &str) -> wire::Invalidation {
    let path = text.trim_end_matches('!');
    wire::Invalidation { path: path.to_owned(), opens: path != text }
}

/// `h1:CONTENTS_MODIFIED+CHILD_ADDED@7`: of handle 1, with all generations 7.
pub(super) fn event(text: &str) -> Fallible<wire::HandleEvent> {
    let (handle, rest) = text.split_once(':').ok_or("an event reads h1:KIND@GENERATION")?;
    let (kinds, generation) = rest.split_once('@').ok_or("an event reads h1:KIND@GENERATION")?;
    let generation = number(generation)?;
    Ok(wire::HandleEvent {
        handle: number(handle.trim_start_matches('h'))?,
        kinds: kinds.split('+').map(|name| Ok(kind(name)?.into())).collect::<Fallible<_>>()?,
        content_generation: generation,
        children_generation: generation,
        acl_generation: generation,
        lock_generation: generation,
        ..wire::HandleEvent::default()
    })
}

pub(super) fn kind(name: &str) -> Fallible<wire::EventKind> {
    let name = format!("EVENT_KIND_{name}");
    Ok(wire::EventKind::from_str_name(&name).ok_or("there is no such event")?)
}
