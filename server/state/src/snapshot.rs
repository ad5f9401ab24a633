//! Snapshots: the whole state as a stream of records, out and in.
//!
//! The stream is length-delimited `SnapshotRecord`s: a header, all nodes, all sessions, each followed by its
//! handles, and an end with what must add up. Files, checksums of files and the wire are the daemon's. Invariant:
//! equal states give equal bytes, whatever happened before, so that a hash of the bytes is a hash of the state.

mod reader;
mod writer;

pub use reader::{SnapshotError, SnapshotReader};
pub use writer::SnapshotWriter;

use holdfast_proto::client::v1::LockMode;
use holdfast_types::Mode;

/// A lock mode out of a record.
fn recorded_mode(mode: i32) -> Option<Mode> {
    match LockMode::try_from(mode) {
        Ok(LockMode::Exclusive) => Some(Mode::Exclusive),
        Ok(LockMode::Shared) => Some(Mode::Shared),
        _ => None,
    }
}
