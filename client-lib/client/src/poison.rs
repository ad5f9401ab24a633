//! What poisoning a handle means for each kind of call (P§2.6).
//!
//! Owns nothing and decides nothing. The invariant: every operation is named here, so that a new one does not compile
//! until somebody has thought of it.

use holdfast_proto::client::v1::Creation;
use holdfast_session::Operation;

/// The handle that a call goes through and fails with; 0 if there is none, or if the call gives something back, which
/// a poisoned handle may still do.
pub(crate) fn poisonable(operation: &Operation) -> u64 {
    match operation {
        Operation::Open(open) => open.directory,
        Operation::GetContents(get) => get.handle,
        Operation::GetStat(get) => get.handle,
        Operation::ReadDir(read) => read.handle,
        Operation::SetContents(set) => set.handle,
        Operation::Delete(delete) => delete.handle,
        Operation::Acquire(acquire) => acquire.handle,
        Operation::SetAcl(set) => set.handle,
        Operation::SetSequencer(set) => set.handle,
        Operation::GetSequencer(get) => get.handle,
        Operation::Close(_) | Operation::Release(_) | Operation::Cancel(_) | Operation::CheckSequencer(_) => {
            0
        }
    }
}

/// Whether a call may leave something behind although nobody waits for it any more. What an Acquire or an Open was
/// granted is given back.
pub(crate) fn changes_nodes(operation: &Operation) -> bool {
    match operation {
        // The node that it creates stays.
        Operation::Open(open) => open.creation() != Creation::Unspecified,
        Operation::SetContents(_)
        | Operation::Delete(_)
        | Operation::SetAcl(_)
        | Operation::SetSequencer(_) => true,
        _ => false,
    }
}
