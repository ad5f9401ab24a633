//! How a refusal looks as a gRPC status: to a unary caller, and at the end of a refused stream.
//!
//! Which status a refusal code has stands in `holdfast_proto`'s one table (`RefusalMeaning`); this file writes the metadata.
//! `Unavailable` is kept for what a retry elsewhere, or a little later, can cure; nothing that is the caller's own fault
//! maps to it, since gRPC clients retry it by themselves.

use holdfast_proto::client::v1::{Refusal, RefusalCode};
use holdfast_proto::client::{MASTER_KEY, REFUSAL_BIN_KEY, REFUSAL_KEY, RefusalMeaning};
use prost::Message as _;
use tokio::time::{Duration, Instant};
use tonic::body::Body;
use tonic::codegen::http::Response;
use tonic::metadata::{AsciiMetadataValue, BinaryMetadataValue, MetadataMap};
use tonic::{Code, Status};

/// The status for a refusal. `master_address` is empty where nobody is known or asked for.
pub(crate) fn status_of(refusal: &Refusal, master_address: &str) -> Status {
    let code = refusal.code();
    let mut metadata = MetadataMap::new();
    let name = code.as_str_name().trim_start_matches("REFUSAL_CODE_");
    metadata.insert(REFUSAL_KEY, AsciiMetadataValue::from_static(name));
    // The message is the status's: a name in it may have kilobytes, and headers are not to have that twice.
    let encoded = Refusal { message: String::new(), ..refusal.clone() }.encode_to_vec();
    metadata.insert_bin(REFUSAL_BIN_KEY, BinaryMetadataValue::from_bytes(&encoded));
    if !master_address.is_empty()
        && let Ok(address) = AsciiMetadataValue::try_from(master_address)
    {
        metadata.insert(MASTER_KEY, address);
    }
    Status::with_metadata(grpc_code(code), refusal.message.clone(), metadata)
}

/// A refusal that the front makes itself.
pub(crate) fn refused(code: RefusalCode, message: impl Into<String>) -> Status {
    status_of(&Refusal { code: code.into(), message: message.into(), ..Refusal::default() }, "")
}

/// A caller for whom there is no room is told so after this time.
const OVERLOADED_AFTER: Duration = Duration::from_millis(250);

/// Holds the answer to a unary call back for a while if it is that there is no room. A client that calls again at once would
/// otherwise keep the replica busy with what it refuses.
///
/// `until`: the caller's own deadline is near then, and it must hear before that: it has waited long enough.
pub(super) async fn told_late(answer: Response<Body>, until: Option<Instant>) -> Response<Body> {
    if answer.headers().get(REFUSAL_KEY).is_some_and(|name| name == "OVERLOADED") {
        let after = Instant::now() + OVERLOADED_AFTER;
        tokio::time::sleep_until(until.map_or(after, |until| after.min(until))).await;
    }
    answer
}

fn grpc_code(code: RefusalCode) -> Code {
    Code::from_i32(RefusalMeaning::of(code).status as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::client::v1::{GenerationMismatch, refusal::Facts};

    #[test]
    fn a_caller_learns_the_code_the_message_and_the_master() {
        let refusal = Refusal {
            code: RefusalCode::NotMaster.into(),
            message: "replica 2 is not the master".into(),
            ..Refusal::default()
        };
        let status = status_of(&refusal, "127.0.0.1:7401");
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(status.message(), "replica 2 is not the master");
        assert_eq!(status.metadata().get(REFUSAL_KEY).unwrap(), "NOT_MASTER");
        assert_eq!(status.metadata().get(MASTER_KEY).unwrap(), "127.0.0.1:7401");
    }

    #[test]
    fn a_caller_learns_the_facts_of_a_refusal() {
        let mismatch = GenerationMismatch { kind: 1, wanted: 7, present: 9 };
        let facts = Some(Facts::GenerationMismatch(Box::new(mismatch)));
        let code = RefusalCode::GenerationMismatch.into();
        let status = status_of(&Refusal { code, message: "it is 9".into(), facts: facts.clone() }, "");
        let encoded = status.metadata().get_bin(REFUSAL_BIN_KEY).unwrap().to_bytes().unwrap();
        let refusal = Refusal::decode(encoded).unwrap();
        assert_eq!(refusal, Refusal { code, message: String::new(), facts });
    }

    #[test]
    fn every_code_has_the_status_of_the_table() {
        for code in (0..=i32::from(u8::MAX)).filter_map(|number| RefusalCode::try_from(number).ok()) {
            let status = refused(code, "no");
            assert_eq!(status.code() as i32, RefusalMeaning::of(code).status as i32, "{code:?}");
            assert!(![Code::Ok, Code::OutOfRange].contains(&status.code()), "{code:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_finds_no_room_is_told_so_after_a_while_and_others_at_once() {
        let begun = Instant::now();
        told_late(refused(RefusalCode::Limit, "too long").into_http(), None).await;
        told_late(Response::new(Body::empty()), None).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let full = || refused(RefusalCode::Overloaded, "no room").into_http();
        // Whoever has waited until his deadline is near must hear before that.
        told_late(full(), Some(begun)).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let answer = told_late(full(), Some(begun + 2 * OVERLOADED_AFTER)).await;
        assert_eq!(begun.elapsed(), OVERLOADED_AFTER);
        assert_eq!(answer.headers().get(REFUSAL_KEY).unwrap(), "OVERLOADED", "it is the same answer");
    }

    #[test]
    fn an_address_that_cannot_be_metadata_is_left_out() {
        let refusal = Refusal { code: RefusalCode::NotMaster.into(), ..Refusal::default() };
        assert!(status_of(&refusal, "bad\naddress").metadata().get(MASTER_KEY).is_none());
    }
}
