//! What commands and frames look like in a transcript.

use std::fmt::Write as _;

use holdfast_proto::client::v1::{self as client, outcome, request::Operation, server_frame};
use holdfast_proto::log::v1::{Command, command::Kind};
use holdfast_types::ConnectionId;

pub(super) fn show_command(command: &Command) -> String {
    match &command.kind {
        Some(Kind::OpenSession(open)) => format!("open session, lease {}ms", open.lease_ms),
        Some(Kind::EndSession(end)) => format!("end s{}: {:?}", end.session, end.reason()),
        Some(Kind::Request(request)) => {
            let acked = request.acknowledged.as_ref().map(|acked| format!(", acked {}", acked.through));
            let number = request.request.as_ref().map_or(0, |request| request.number);
            let what = request.request.as_ref().and_then(|request| request.operation.as_ref());
            let what = what.map_or("nothing", show_operation);
            format!("s{} #{number} {what}{}", request.session, acked.unwrap_or_default())
        }
        Some(Kind::EndLockDelay(end)) => format!("end lock-delay {} of r{}", end.path, end.loss),
        Some(Kind::ReapNode(reap)) => format!("reap {} of r{}", reap.path, reap.instance),
        Some(Kind::SetContents(write)) => format!("write {}", write.path),
        Some(Kind::Delete(delete)) => format!("delete {}", delete.path),
        Some(Kind::SetAcl(change)) => {
            format!("change the ACL names of {} as {}", change.path, command.principal)
        }
        Some(Kind::LowerLeasePromise(lower)) => format!("lower the longest lease to {}ms", lower.lease_ms),
        Some(Kind::ChangeSettings(_)) => "change settings".to_owned(),
        other => format!("{other:?}"),
    }
}

fn show_operation(operation: &Operation) -> &'static str {
    match operation {
        Operation::Open(_) => "open",
        Operation::Close(_) => "close",
        Operation::SetContents(_) => "write",
        Operation::Delete(_) => "delete",
        Operation::Acquire(_) => "acquire",
        Operation::Release(_) => "release",
        Operation::Cancel(_) => "cancel",
        Operation::SetAcl(_) => "acl",
        Operation::SetSequencer(_) => "depend",
        _ => "a read, which is never proposed",
    }
}

pub(super) fn show_frame(text: &mut String, connection: ConnectionId, frame: &client::ServerFrame) {
    let mut say = |what: String| writeln!(text, "{connection} <- {what}").unwrap();
    match &frame.hello {
        Some(server_frame::Hello::Opened(opened)) => {
            say(format!(
                "opened s{}, lease {}ms of {}",
                opened.session, opened.lease_ms, opened.lease_length_ms
            ));
        }
        Some(server_frame::Hello::Attached(attached)) => {
            let locks = attached.locks.iter().map(|lock| format!(" h{} by #{}", lock.handle, lock.number));
            say(format!("attached {}, locks:{}", attached.attachment, locks.collect::<String>()));
        }
        Some(server_frame::Hello::Refused(refused)) => {
            say(show_refusal(refused.refusal.as_ref().expect("a refused stream has a refusal")));
        }
        None => {}
    }
    for reply in &frame.replies {
        let result = reply.outcome.as_ref().and_then(|outcome| outcome.result.as_ref());
        let keep = if reply.cacheable { " (may be kept)" } else { "" };
        say(format!("#{}: {}{keep}", reply.number, result.map_or_else(|| "nothing".into(), show_result)));
    }
    if let Some(lease) = &frame.lease {
        say(format!("lease {}ms for KeepAlive {}", lease.lease_ms, lease.number));
    }
    for event in &frame.events {
        say(format!("{:?}", event.event.as_ref().expect("an event is one")));
    }
    for notice in &frame.notices {
        say(format!("notice {}:{}", notice.number, show_notice(notice)));
    }
    if let Some(ending) = &frame.ending {
        say(format!("session is to end: {:?}", ending.reason()));
    }
    if let Some(ended) = &frame.ended {
        say(format!("session ended: {:?}", ended.reason()));
    }
}

fn show_notice(notice: &client::Notice) -> String {
    let mut text = String::new();
    for invalidation in &notice.invalidations {
        let what = match (invalidation.path.as_str(), invalidation.opens) {
            ("", _) => "all opens".to_owned(),
            (path, true) => format!("{path} and opens of it"),
            (path, false) => path.to_owned(),
        };
        write!(text, " drop {what};").unwrap();
    }
    for event in &notice.events {
        let kinds: Vec<_> = event.kinds().map(|kind| format!("{kind:?}")).collect();
        write!(text, " h{} {}", event.handle, kinds.join(" and ")).unwrap();
        write!(text, " (contents r{}, children r{})", event.content_generation, event.children_generation)
            .unwrap();
        for child in &event.children {
            write!(text, " {}: {:?}", child.name, child.kind()).unwrap();
        }
        text.push_str(if event.more_children { " and more;" } else { ";" });
    }
    text
}

fn show_result(result: &outcome::Result) -> String {
    match result {
        outcome::Result::Refusal(refusal) => show_refusal(refusal),
        outcome::Result::Opened(opened) => format!("opened, created={}", opened.created),
        outcome::Result::Stat(stat) => {
            format!("stat, waiting={}", stat.lock.as_ref().map_or(0, |l| l.waiting))
        }
        outcome::Result::Contents(contents) => {
            let text = String::from_utf8_lossy(&contents.contents);
            let generation = contents.stat.as_ref().map_or(0, |stat| stat.content_generation);
            format!("contents {text:?} of r{generation}")
        }
        outcome::Result::Directory(directory) => {
            let names: Vec<_> = directory.entries.iter().map(|entry| entry.name.as_str()).collect();
            format!("children {names:?}")
        }
        other => format!("{other:?}"),
    }
}

pub(super) fn show_refusal(refusal: &client::Refusal) -> String {
    format!("{}: {}", refusal.code().as_str_name().trim_start_matches("REFUSAL_CODE_"), refusal.message)
}
