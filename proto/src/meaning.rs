//! What each refusal code means to a client, in one table without a wildcard arm.
//!
//! The replica's front takes the gRPC status from it, the client library whether to try again, and the comment at
//! `RefusalCode` in `operation.proto` repeats it for implementers of other languages; a test compares the two. Invariant:
//! `changed_nothing` is true only of codes with which the cell vouches for that, whoever sent them and however often the
//! request was sent.

use crate::client::v1::RefusalCode;

/// gRPC's status codes, by their numbers, for crates that know no gRPC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are gRPC's")]
pub enum GrpcStatus {
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    Unavailable = 14,
}

/// What a refusal code means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalMeaning {
    /// The gRPC status of a unary call that is refused, and of a stream that ends with `StreamRefused`.
    pub status: GrpcStatus,
    /// The reply to a request of a session can carry it.
    pub in_reply: bool,
    /// `StreamRefused` can carry it. Of the requests on that stream it then says nothing.
    pub ends_stream: bool,
    /// In a reply: the request changed nothing, at no attempt. As a unary call's status: this attempt changed nothing.
    pub changed_nothing: bool,
    /// The same request, as it is, may well succeed later or elsewhere.
    pub retry: bool,
}

/// Where a code can occur.
#[derive(Clone, Copy)]
enum In {
    Reply,
    Stream,
    Both,
    /// In unary calls only.
    Calls,
}

impl RefusalMeaning {
    /// The meaning of a code.
    #[must_use]
    pub fn of(code: RefusalCode) -> Self {
        use GrpcStatus as G;
        use RefusalCode as R;
        let row = |status, place: In| Self {
            status,
            in_reply: matches!(place, In::Reply | In::Both),
            ends_stream: matches!(place, In::Stream | In::Both),
            changed_nothing: true,
            retry: false,
        };
        match code {
            R::BadPath | R::BadSequencer | R::BadAcl => row(G::InvalidArgument, In::Reply),
            R::ForeignCell | R::Invalid | R::Protocol => row(G::InvalidArgument, In::Both),
            R::NotFound | R::NoParent | R::UnknownHandle | R::NodeGone => row(G::NotFound, In::Reply),
            R::AlreadyExists => row(G::AlreadyExists, In::Reply),
            R::WrongKind
            | R::NotEmpty
            | R::IsRoot
            | R::AlreadyLocked
            | R::NotLocked
            | R::WrongUse
            | R::WouldLockOut
            | R::SequencerInvalid => row(G::FailedPrecondition, In::Reply),
            R::Membership => row(G::FailedPrecondition, In::Calls),
            R::Locked => Self { retry: true, ..row(G::FailedPrecondition, In::Reply) },
            R::LockConflict => Self { retry: true, ..row(G::Aborted, In::Reply) },
            R::GenerationMismatch => row(G::Aborted, In::Reply),
            R::Superseded => row(G::Aborted, In::Stream),
            R::Limit => row(G::ResourceExhausted, In::Both),
            R::Overloaded => Self { retry: true, ..row(G::ResourceExhausted, In::Both) },
            R::Cancelled => row(G::Cancelled, In::Reply),
            R::PermissionDenied => row(G::PermissionDenied, In::Both),
            R::WrongSecret => row(G::PermissionDenied, In::Stream),
            R::NotMaster => Self { retry: true, ..row(G::Unavailable, In::Stream) },
            // The request may have been decided before: its outcome is forgotten, or went with the session.
            R::Acknowledged => Self { changed_nothing: false, ..row(G::FailedPrecondition, In::Reply) },
            R::UnknownSession => Self { changed_nothing: false, ..row(G::NotFound, In::Both) },
            R::OutcomeUnknown | R::Unspecified => {
                Self { changed_nothing: false, ..row(G::Unknown, In::Calls) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code that there is.
    fn codes() -> impl Iterator<Item = RefusalCode> {
        (0..=i32::from(u8::MAX)).filter_map(|number| RefusalCode::try_from(number).ok())
    }

    /// The code's row as the comment in the proto has it.
    fn documented(code: RefusalCode) -> String {
        let RefusalMeaning { status, in_reply, ends_stream, changed_nothing, retry } =
            RefusalMeaning::of(code);
        let status = format!("{status:?}");
        let mut upper = String::new();
        for letter in status.chars() {
            if letter.is_uppercase() && !upper.is_empty() {
                upper.push('_');
            }
            upper.extend(letter.to_uppercase());
        }
        let name = code.as_str_name().trim_start_matches("REFUSAL_CODE_");
        let mark = |is, yes| if is { yes } else { "-" };
        let place = match (in_reply, ends_stream) {
            (true, true) => "reply, stream",
            (true, false) => "reply",
            (false, true) => "stream",
            (false, false) => "-",
        };
        let row = format!(
            "//   {name:<20} {upper:<20} {place:<14} {:<8} {}",
            mark(changed_nothing, "nothing"),
            mark(retry, "retry")
        );
        row
    }

    #[test]
    fn the_proto_documents_each_code_as_it_is() {
        let proto = include_str!("../proto/holdfast/client/v1/operation.proto");
        let lines: Vec<&str> = proto.lines().map(str::trim).collect();
        for code in codes().filter(|code| *code != RefusalCode::Unspecified) {
            let row = documented(code);
            assert!(lines.contains(&row.trim()), "operation.proto lacks the line\n{row}");
        }
    }

    #[test]
    fn only_what_another_replica_can_cure_is_unavailable() {
        let unavailable: Vec<_> =
            codes().filter(|code| RefusalMeaning::of(*code).status == GrpcStatus::Unavailable).collect();
        assert_eq!(unavailable, [RefusalCode::NotMaster], "gRPC clients retry that by themselves");
    }

    #[test]
    fn what_is_worth_a_retry_changed_nothing() {
        for meaning in codes().map(RefusalMeaning::of) {
            assert!(meaning.changed_nothing || !meaning.retry);
        }
    }
}
