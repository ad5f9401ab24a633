//! How a refusal looks to a unary caller: the one place where refusal codes meet gRPC's status codes.
//!
//! `Unavailable` is kept for what a retry elsewhere, or a little later, can cure; nothing that is the caller's
//! own fault maps to it, since gRPC clients retry it by themselves.

use holdfast_proto::client::v1::{Refusal, RefusalCode};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};
use tonic::{Code, Status};

/// The metadata key of the refusal code's name, such as `NOT_FOUND`.
pub(crate) const REFUSAL_KEY: &str = "holdfast-refusal";
/// The metadata key of the master's client address.
pub(crate) const MASTER_KEY: &str = "holdfast-master";

/// The status for a refusal. `master_address` is empty where nobody is known or asked for.
pub(crate) fn status_of(refusal: &Refusal, master_address: &str) -> Status {
    let code = refusal.code();
    let mut metadata = MetadataMap::new();
    let name = code.as_str_name().trim_start_matches("REFUSAL_CODE_");
    metadata.insert(REFUSAL_KEY, AsciiMetadataValue::from_static(name));
    if !master_address.is_empty()
        && let Ok(address) = AsciiMetadataValue::try_from(master_address)
    {
        metadata.insert(MASTER_KEY, address);
    }
    Status::with_metadata(grpc_code(code), refusal.message.clone(), metadata)
}

/// A refusal that the front makes itself.
pub(crate) fn refused(code: RefusalCode, message: impl Into<String>) -> Status {
    status_of(&Refusal { code: code.into(), message: message.into() }, "")
}

/// Exhaustive, so that a new refusal code is placed on purpose.
fn grpc_code(code: RefusalCode) -> Code {
    use RefusalCode as R;
    match code {
        R::BadPath | R::ForeignCell | R::Invalid | R::BadSequencer | R::BadAcl | R::Protocol => {
            Code::InvalidArgument
        }
        R::NotFound | R::NoParent | R::UnknownHandle | R::UnknownSession | R::NodeGone => Code::NotFound,
        R::AlreadyExists => Code::AlreadyExists,
        R::WrongKind
        | R::NotEmpty
        | R::IsRoot
        | R::Locked
        | R::AlreadyLocked
        | R::NotLocked
        | R::Acknowledged
        | R::WrongUse
        | R::SequencerInvalid
        | R::Membership => Code::FailedPrecondition,
        R::GenerationMismatch | R::LockConflict | R::Superseded => Code::Aborted,
        R::Limit => Code::OutOfRange,
        R::Cancelled => Code::Cancelled,
        R::WrongSecret | R::PermissionDenied => Code::PermissionDenied,
        R::NotMaster => Code::Unavailable,
        R::Overloaded => Code::ResourceExhausted,
        R::OutcomeUnknown | R::Unspecified => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_learns_the_code_the_message_and_the_master() {
        let refusal =
            Refusal { code: RefusalCode::NotMaster.into(), message: "replica 2 is not the master".into() };
        let status = status_of(&refusal, "127.0.0.1:7401");
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "replica 2 is not the master");
        assert_eq!(status.metadata().get(REFUSAL_KEY).unwrap(), "NOT_MASTER");
        assert_eq!(status.metadata().get(MASTER_KEY).unwrap(), "127.0.0.1:7401");
    }

    #[test]
    fn only_what_another_replica_can_cure_is_unavailable() {
        let unavailable: Vec<_> = (0..=i32::from(u8::MAX))
            .filter_map(|number| RefusalCode::try_from(number).ok())
            .filter(|code| grpc_code(*code) == Code::Unavailable)
            .collect();
        assert_eq!(unavailable, [RefusalCode::NotMaster]);
    }

    #[test]
    fn an_address_that_cannot_be_metadata_is_left_out() {
        let refusal = Refusal { code: RefusalCode::NotMaster.into(), message: "no".into() };
        assert!(status_of(&refusal, "bad\naddress").metadata().get(MASTER_KEY).is_none());
    }
}
