//! What the kinds of requests have in common: the handle they name, their size, and what they leave behind.
//!
//! Owns nothing and decides nothing. The invariant: every operation is named here, so that a new one does not compile
//! until somebody has thought of it.

use holdfast_proto::client::v1::{ClientFrame, Creation, Request, request::Operation};

/// A request whose answer has come.
pub(crate) struct Asked<'r> {
    pub(crate) operation: &'r Operation,
    /// Somebody waits for it.
    pub(crate) wanted: bool,
    /// It was sent on an earlier attachment too: the answer may be what was recorded then, and old.
    pub(crate) resent: bool,
}

/// The handle that a request names; `None` if it names none. Of an `Open`: the directory.
pub(crate) fn handle_mut(operation: &mut Operation) -> Option<&mut u64> {
    let handle = match operation {
        Operation::Open(open) => &mut open.directory,
        Operation::Close(close) => &mut close.handle,
        Operation::GetContents(get) => &mut get.handle,
        Operation::GetStat(get) => &mut get.handle,
        Operation::ReadDir(read) => &mut read.handle,
        Operation::SetContents(set) => &mut set.handle,
        Operation::Delete(delete) => &mut delete.handle,
        Operation::Acquire(acquire) => &mut acquire.handle,
        Operation::Release(release) => &mut release.handle,
        Operation::Cancel(cancel) => &mut cancel.handle,
        Operation::SetAcl(set) => &mut set.handle,
        Operation::SetSequencer(set) => &mut set.handle,
        Operation::GetSequencer(get) => &mut get.handle,
        Operation::CheckSequencer(_) => return None,
    };
    (*handle != 0).then_some(handle)
}

/// The handle that a request opens or names; 0 if it names none.
pub(crate) fn handle_of(number: u64, operation: &mut Operation) -> u64 {
    match operation {
        Operation::Open(_) => number,
        other => handle_mut(other).copied().unwrap_or(0),
    }
}

/// The handle to name when this request is withdrawn; `None` if there is nothing to take back.
pub(crate) fn leaves_behind(operation: &Operation) -> Option<u64> {
    match operation {
        Operation::Open(_) => Some(0),
        Operation::Acquire(acquire) => Some(acquire.handle),
        _ => None,
    }
}

/// Whether the request gives back what the session has.
pub(crate) fn gives_back(operation: &Operation) -> bool {
    matches!(operation, Operation::Close(_) | Operation::Release(_) | Operation::Cancel(_))
}

/// Whether what the request did is still there when its session is over.
pub(crate) fn outlives_session(operation: &Operation) -> bool {
    matches!(
        operation,
        Operation::Open(_) | Operation::SetContents(_) | Operation::Delete(_) | Operation::SetAcl(_)
    )
}

/// Whether the request may have done something that stays, although its caller waits for it no more. What an Acquire or an
/// Open was granted is given back, and a node that an Open created stays.
pub(crate) fn may_have_happened(operation: &Operation) -> bool {
    match operation {
        Operation::Open(open) => open.creation() != Creation::Unspecified,
        Operation::SetContents(_)
        | Operation::Delete(_)
        | Operation::SetAcl(_)
        | Operation::SetSequencer(_)
        | Operation::Release(_)
        | Operation::Close(_)
        | Operation::Cancel(_) => true,
        Operation::Acquire(_)
        | Operation::GetContents(_)
        | Operation::GetStat(_)
        | Operation::ReadDir(_)
        | Operation::GetSequencer(_)
        | Operation::CheckSequencer(_) => false,
    }
}

/// Adds a request to a frame, and tells about how many bytes it takes.
pub(crate) fn push(frame: &mut ClientFrame, number: u64, operation: Operation) -> usize {
    let bytes = bytes_of(&operation);
    frame.requests.push(Request { number, operation: Some(operation) });
    bytes
}

/// About how many bytes a request takes.
pub(crate) fn bytes_of(operation: &Operation) -> usize {
    /// Number, handle, generation and framing.
    const OVERHEAD_BYTES: usize = 32;
    let bytes = match operation {
        Operation::Open(open) => open.path.len() + open.contents.len(),
        Operation::SetContents(set) => set.contents.len(),
        Operation::ReadDir(read) => read.after.len(),
        Operation::SetSequencer(set) => set.sequencer.len(),
        Operation::CheckSequencer(check) => check.sequencer.len(),
        _ => 0,
    };
    bytes + OVERHEAD_BYTES
}

/// The most bytes that a request may be answered, if a file has `contents_bytes_max` at the most; 0 if that is little.
pub(crate) fn answer_bytes_max(operation: &Operation, contents_bytes_max: u64) -> u64 {
    /// A page of a directory ends after the child that brings it over 1 MiB.
    const PAGE_BYTES_MAX: u64 = (1 << 20) + (32 << 10);
    match operation {
        Operation::GetContents(_) => contents_bytes_max,
        Operation::ReadDir(_) => PAGE_BYTES_MAX,
        _ => 0,
    }
}
