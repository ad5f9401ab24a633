//! Raft's messages out of bytes: the only place that hands bytes to the parser that raft-rs uses.
//!
//! That parser is of protobuf's 2.x line, whose releases ended before RUSTSEC-2024-0437 (recursion without end) was mended.
//! Version 2.28 stops at a group within a group, and at a hundred levels of messages; Holdfast does not rest on either. This
//! module walks over what peers and files bring before the parser does: by the shape of the message that is expected, and
//! with no recursion beyond that shape, which is four levels deep. It refuses groups, the one thing that can nest in any
//! message without being part of its shape: no message of raft's ever had one. Invariant: the walk is at least as strict
//! as the parser, so that the parser meets nothing that was not walked over.

use protobuf::Message;
use raft::eraftpb;

/// A message that raft-rs knows, by what it is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// No message within: an entry, a hard state, a membership change, a configuration.
    Flat,
    /// `Message`.
    Message,
    /// `Snapshot`.
    Snapshot,
    /// `SnapshotMetadata`.
    SnapshotMetadata,
}

impl Shape {
    /// What a field of this number is, if it is a message.
    fn within(self, field: u64) -> Option<Self> {
        match (self, field) {
            (Self::Message, 7) | (Self::SnapshotMetadata, 1) => Some(Self::Flat),
            (Self::Message, 9) => Some(Self::Snapshot),
            (Self::Snapshot, 2) => Some(Self::SnapshotMetadata),
            (Self::Flat | Self::Message | Self::Snapshot | Self::SnapshotMetadata, _) => None,
        }
    }
}

/// A message of raft's that can be parsed here.
pub trait RaftMessage: Message {
    /// What it is made of.
    const SHAPE: Shape;
}

impl RaftMessage for eraftpb::Message {
    const SHAPE: Shape = Shape::Message;
}

impl RaftMessage for eraftpb::Entry {
    const SHAPE: Shape = Shape::Flat;
}

impl RaftMessage for eraftpb::HardState {
    const SHAPE: Shape = Shape::Flat;
}

impl RaftMessage for eraftpb::ConfChange {
    const SHAPE: Shape = Shape::Flat;
}

/// Why bytes are no message of raft's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RaftBytesError {
    /// They nest in a way in which none of raft's messages does.
    #[error("byte {at} begins a group, and no message of raft's has one")]
    Group {
        /// Where.
        at: usize,
    },
    /// They are no protobuf message at all.
    #[error("byte {at} begins nothing that a message can have")]
    Malformed {
        /// Where.
        at: usize,
    },
    /// The parser's own reason.
    #[error("{0}")]
    Parser(String),
}

/// A message out of bytes that came from a peer or a file.
///
/// # Errors
///
/// What is wrong with them.
pub fn parse<M: RaftMessage>(bytes: &[u8]) -> Result<M, RaftBytesError> {
    check(bytes, M::SHAPE)?;
    M::parse_from_bytes(bytes).map_err(|error| RaftBytesError::Parser(error.to_string()))
}

/// Whether bytes nest no deeper than a message of this shape does.
///
/// # Errors
///
/// What is wrong with them.
pub fn check(bytes: &[u8], shape: Shape) -> Result<(), RaftBytesError> {
    let mut walk = Walk { bytes, at: 0 };
    while walk.at < bytes.len() {
        let at = walk.at;
        let malformed = RaftBytesError::Malformed { at };
        let tag = walk.varint().filter(|tag| *tag <= u64::from(u32::MAX)).ok_or(malformed.clone())?;
        let (field, wire_type) = (tag >> 3, tag & 7);
        let passed = match wire_type {
            0 => walk.varint().map(drop),
            1 => walk.take(8).map(drop),
            5 => walk.take(4).map(drop),
            2 => {
                let length = walk.varint().and_then(|length| usize::try_from(length).ok());
                let inner = length.and_then(|length| walk.take(length)).ok_or(malformed.clone())?;
                if let Some(shape) = shape.within(field) {
                    check(inner, shape)?;
                }
                Some(())
            }
            3 | 4 => return Err(RaftBytesError::Group { at }),
            6.. => None,
        };
        passed.filter(|()| field > 0).ok_or(malformed)?;
    }
    Ok(())
}

/// The bytes of a message, and how far they were read.
struct Walk<'b> {
    /// All of them.
    bytes: &'b [u8],
    /// Never beyond their end.
    at: usize,
}

impl<'b> Walk<'b> {
    /// The next `length` bytes; `None` if there are fewer.
    fn take(&mut self, length: usize) -> Option<&'b [u8]> {
        let taken = self.bytes[self.at..].get(..length)?;
        self.at += length;
        Some(taken)
    }

    /// The next number; `None` if it does not end, or has more than 64 bits.
    fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for place in 0..10 {
            let byte = *self.take(1)?.first()?;
            let bits = u64::from(byte & 0x7f);
            if place == 9 && bits > 1 {
                return None;
            }
            number |= bits << (7 * place);
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }
}
