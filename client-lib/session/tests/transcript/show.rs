//! Outputs as text: short enough to be read, complete enough to be believed.

use holdfast_proto::client::v1::{self as wire, client_frame, outcome};
use holdfast_session::{CallError, Operation, Output, State};

pub(super) fn output(output: &Output) -> String {
    match output {
        Output::Connect { stream, address } => format!("connect {} to {address}", stream.0),
        Output::Disconnect { stream, silent } => {
            format!("disconnect {}{}", stream.0, if *silent { " (silent)" } else { "" })
        }
        Output::Send { stream, frame } => format!("{} <- {}", stream.0, client_frame(frame)),
        Output::Complete { token, result: Ok(completion) } => {
            let (number, handle) = (completion.number.0, completion.handle.0);
            format!("call {} done: {number} h{handle} {}", token.0, result(&completion.result))
        }
        Output::Complete { token, result: Err(error) } => {
            let sent = match error {
                CallError::Ended { maybe_applied: true, .. } => " (maybe applied)",
                _ => "",
            };
            format!("call {} failed: {error}{sent}", token.0)
        }
        Output::StateChanged(State::Ended(ended)) => format!("ENDED: {ended}"),
        Output::StateChanged(state) => format!("{state:?}").to_uppercase(),
    }
}

fn client_frame(frame: &wire::ClientFrame) -> String {
    let mut parts = Vec::new();
    match &frame.hello {
        Some(client_frame::Hello::Open(open)) => {
            parts.push(format!("open {} lease={} attachment={}", open.cell, open.lease_ms, open.attachment));
        }
        Some(client_frame::Hello::Attach(attach)) => {
            parts.push(format!(
                "attach {} session={} attachment={}",
                attach.cell, attach.session, attach.attachment
            ));
        }
        None => {}
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
        Operation::Open(open) => format!("open {}", open.path),
        Operation::Close(close) => format!("close h{}", close.handle),
        Operation::Acquire(acquire) => format!("acquire h{}", acquire.handle),
        Operation::Release(release) => format!("release h{}", release.handle),
        Operation::SetContents(set) => format!("write h{}", set.handle),
        Operation::GetContents(get) => format!("read h{}", get.handle),
        Operation::Cancel(cancel) => format!("cancel #{} h{}", cancel.number, cancel.handle),
        other => format!("{other:?}"),
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
