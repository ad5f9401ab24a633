//! How much memory it takes to keep what clients send: what is charged for it in the ledger.
//!
//! Far more than its length on the wire, where that is a list of things that are empty. Owns the sizes alone. Invariant: a
//! frame's bytes are those of its requests and of its rest, so that its charge can be split among them.

use holdfast_proto::client::v1::{
    self as client, NumberRange, Request, Seen, client_frame::Hello, request::Operation,
};
use prost::Message as _;

/// What a decoded frame takes.
#[must_use]
pub fn frame_bytes(frame: &client::ClientFrame) -> usize {
    let ranges = frame.acknowledged.as_ref().map_or(0, |acknowledged| acknowledged.ranges.len());
    let hello = match &frame.hello {
        Some(Hello::Attach(attach)) => attach.encoded_len() + attach.seen.len() * size_of::<Seen>(),
        Some(Hello::Open(open)) => open.encoded_len(),
        None => 0,
    };
    let requests: usize = frame.requests.iter().map(request_bytes).sum();
    size_of::<client::ClientFrame>() + hello + ranges * size_of::<NumberRange>() + requests
}

/// What a decoded request takes.
#[must_use]
pub fn request_bytes(request: &Request) -> usize {
    let beside = match &request.operation {
        Some(Operation::SetContents(write)) => write.contents.len(),
        Some(Operation::Open(open)) => size_of::<client::Open>() + open.encoded_len(),
        Some(Operation::SetAcl(change)) => change.encoded_len(),
        Some(Operation::SetSequencer(set)) => set.sequencer.len(),
        Some(Operation::CheckSequencer(check)) => check.sequencer.len(),
        Some(Operation::ReadDir(read)) => read.after.len(),
        Some(
            Operation::Close(_)
            | Operation::GetContents(_)
            | Operation::GetStat(_)
            | Operation::Delete(_)
            | Operation::Acquire(_)
            | Operation::Release(_)
            | Operation::Cancel(_)
            | Operation::GetSequencer(_),
        )
        | None => 0,
    };
    size_of::<Request>() + beside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_that_are_empty_count_for_what_they_take() {
        let requests = vec![Request::default(); 1_000];
        let frame = client::ClientFrame { requests, ..client::ClientFrame::default() };
        assert!(frame.encoded_len() < 3_000 && frame_bytes(&frame) >= 1_000 * size_of::<Request>());
        let open = Some(Operation::Open(Box::default()));
        let requests = vec![Request { number: 1, operation: open }; 1_000];
        let opens = client::ClientFrame { requests, ..client::ClientFrame::default() };
        assert!(frame_bytes(&opens) >= 1_000 * (size_of::<Request>() + size_of::<client::Open>()));
        let attach = client::AttachSession { seen: vec![Seen::default(); 1_000], ..Default::default() };
        let hello = client::ClientFrame { hello: Some(Hello::Attach(attach)), ..Default::default() };
        assert!(frame_bytes(&hello) >= 1_000 * size_of::<Seen>());
    }
}
