//! What a client must not send: numbers that are none, that it has used before, or has said that it will not use again.
//!
//! The master answers each with a refusal, and records and proposes none of them. Nothing here looks at what a request is to
//! do. Invariant: a request that comes again as it came first, and is not acknowledged, is never refused here.

use holdfast_proto::client::v1::{self as client, Refusal, RefusalCode, outcome, request::Operation};
use holdfast_state::Recorded;
use holdfast_types::planted;

use crate::fingerprint::Fingerprint;
use crate::refusal;
use crate::sessions::Session;

/// Why a request cannot be taken up under its number. `recorded` is what the state knows of that.
pub(crate) fn misuse(entry: &Session, recorded: Recorded<'_>, request: &client::Request) -> Option<Refusal> {
    let number = request.number;
    if number == 0 {
        return Some(refusal(RefusalCode::Invalid, "a request has the number 0: numbers begin with 1"));
    }
    if entry.acknowledged.contains(number) && !planted!(FloorForgotten) {
        let message = format!("request {number} was acknowledged: its outcome is no longer kept");
        return Some(refusal(RefusalCode::Acknowledged, message));
    }
    let Some(operation) = &request.operation else {
        let message = format!("request {number} has no operation that this cell knows");
        return Some(refusal(RefusalCode::Protocol, message));
    };
    let is_other = match (entry.fingerprint_under_way(number), recorded) {
        (Some(fingerprint), _) => fingerprint != Fingerprint::of(operation),
        (None, Recorded::Outcome(client::Outcome { result: Some(result), .. })) => {
            !can_come_of(result, operation)
        }
        (None, Recorded::Outcome(_) | Recorded::Acknowledged | Recorded::New) => false,
    };
    is_other.then(|| {
        let message = format!("the number {number} was used for another operation: each request has its own");
        refusal(RefusalCode::Protocol, message)
    })
}

/// Whether a recorded outcome can be that of such an operation.
fn can_come_of(result: &outcome::Result, operation: &Operation) -> bool {
    use outcome::Result as R;
    match result {
        // It does not say what was refused.
        R::Refusal(_) => true,
        R::Opened(_) => matches!(operation, Operation::Open(_)),
        R::Closed(_) => matches!(operation, Operation::Close(_)),
        R::Written(_) => matches!(operation, Operation::SetContents(_)),
        R::Deleted(_) => matches!(operation, Operation::Delete(_)),
        R::Granted(_) | R::Queued(_) => matches!(operation, Operation::Acquire(_)),
        R::Released(_) => matches!(operation, Operation::Release(_)),
        R::Cancelled(_) => matches!(operation, Operation::Cancel(_)),
        R::AclSet(_) => matches!(operation, Operation::SetAcl(_)),
        R::SequencerSet(_) => matches!(operation, Operation::SetSequencer(_)),
        // Reads are not recorded.
        R::Contents(_) | R::Stat(_) | R::Directory(_) | R::Sequencer(_) | R::SequencerChecked(_) => true,
    }
}
