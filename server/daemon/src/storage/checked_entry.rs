//! A raft entry as raft-engine reads it back: walked over before raft's parser sees it.
//!
//! raft-engine hands the bytes of its files to the entry's own parser. This type stands in for it, and hands on only what
//! [`raft_bytes`] finds to be no deeper than an entry. Invariant: it is used for reading alone; entries are written as
//! they are.

use std::any::Any;
use std::io::{self, ErrorKind, Read as _};
use std::sync::OnceLock;

use holdfast_replica::{raft_bytes, raftpb};
use protobuf::reflect::MessageDescriptor;
use protobuf::{
    Clear, CodedInputStream, CodedOutputStream, Message, ProtobufError, ProtobufResult, UnknownFields,
};
use raft_engine::MessageExt;

/// An entry that was walked over.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct CheckedEntry(raftpb::Entry);

impl CheckedEntry {
    /// The entry.
    pub(super) fn into_inner(self) -> raftpb::Entry {
        self.0
    }
}

/// Tells raft-engine what an entry is that it reads.
pub(super) struct CheckedEntries;

impl MessageExt for CheckedEntries {
    type Entry = CheckedEntry;

    fn index(entry: &CheckedEntry) -> u64 {
        entry.0.index
    }
}

impl Clear for CheckedEntry {
    fn clear(&mut self) {
        self.0.clear();
    }
}

impl Message for CheckedEntry {
    fn merge_from(&mut self, stream: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        let parsed = raft_bytes::parse(&bytes);
        self.0 = parsed.map_err(|error| {
            ProtobufError::IoError(io::Error::new(ErrorKind::InvalidData, error.to_string()))
        })?;
        Ok(())
    }

    fn descriptor(&self) -> &'static MessageDescriptor {
        self.0.descriptor()
    }

    fn is_initialized(&self) -> bool {
        self.0.is_initialized()
    }

    fn write_to_with_cached_sizes(&self, stream: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        self.0.write_to_with_cached_sizes(stream)
    }

    fn compute_size(&self) -> u32 {
        self.0.compute_size()
    }

    fn get_cached_size(&self) -> u32 {
        self.0.get_cached_size()
    }

    fn get_unknown_fields(&self) -> &UnknownFields {
        self.0.get_unknown_fields()
    }

    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        self.0.mut_unknown_fields()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn new() -> Self {
        Self::default()
    }

    fn default_instance() -> &'static Self {
        static INSTANCE: OnceLock<CheckedEntry> = OnceLock::new();
        INSTANCE.get_or_init(Self::default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written_and_one_with_groups_is_refused() {
        let entry = raftpb::Entry { index: 7, term: 3, data: vec![0x7b; 500].into(), ..Default::default() };
        let bytes = entry.write_to_bytes().unwrap();
        assert_eq!(CheckedEntry::parse_from_bytes(&bytes).unwrap().into_inner(), entry);
        let nested = vec![0x7b; 1 << 20];
        let refused = move || CheckedEntry::parse_from_bytes(&nested).unwrap_err().to_string();
        let refused =
            std::thread::Builder::new().stack_size(64 << 10).spawn(refused).unwrap().join().unwrap();
        assert!(refused.contains("group"), "{refused}");
    }
}
