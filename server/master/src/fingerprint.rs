//! What a request asks for, in eight bytes, so that another request under the same number is told from a repetition.
//!
//! Kept while a request is under way, when its command has gone where it cannot be looked at any more. Invariant: a request
//! that comes again as it came first has the same fingerprint.

use holdfast_proto::client::v1::{self as client, request::Operation};
use prost::Message as _;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// A hash of an operation and its arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fingerprint(u64);

impl Fingerprint {
    pub(crate) fn of(operation: &Operation) -> Self {
        let mut operation = operation.clone();
        // Contents are hashed where they are: to encode them would copy them.
        let contents = match &mut operation {
            Operation::SetContents(write) => std::mem::take(&mut write.contents),
            Operation::Open(open) => std::mem::take(&mut open.contents),
            _ => bytes::Bytes::new(),
        };
        let rest = client::Request { number: 0, operation: Some(operation) }.encode_to_vec();
        Self(xxh3_64_with_seed(&rest, xxh3_64(&contents)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_proto::client::v1::{Acquire, Open, SetContents};

    #[test]
    fn what_asks_for_something_else_has_another_fingerprint() {
        let write = |handle, contents: &'static str| {
            Operation::SetContents(SetContents {
                handle,
                contents: contents.into(),
                ..SetContents::default()
            })
        };
        let open = |path: &str, contents: &'static str| {
            let open = Open { path: path.into(), contents: contents.into(), ..Open::default() };
            Operation::Open(Box::new(open))
        };
        let acquire = |try_only| Operation::Acquire(Acquire { handle: 1, try_only, ..Acquire::default() });
        let operations = [
            write(1, "x"),
            write(1, "y"),
            write(2, "x"),
            write(1, ""),
            open("/a", ""),
            open("/a", "x"),
            open("/b", ""),
            acquire(false),
            acquire(true),
        ];
        for (first, at) in operations.iter().zip(0..) {
            assert_eq!(Fingerprint::of(first), Fingerprint::of(&first.clone()));
            for (second, _) in operations.iter().zip(0..).filter(|(_, other)| *other != at) {
                assert_ne!(Fingerprint::of(first), Fingerprint::of(second), "{first:?} {second:?}");
            }
        }
    }
}
