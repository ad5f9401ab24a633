//! How many things a frame has, counted in its bytes as they arrive.
//!
//! An empty entry of a list is two bytes of a frame, and half a hundred of memory and as many nanoseconds of the core's
//! thread once it is decoded: a frame of 4 MiB stopped the replica for a quarter of a second. So a frame of very many
//! fields is refused before it is decoded. Counted are the frame's own fields, and those of its hello and its
//! acknowledgement, in which lists are; what is in a request is bounded by its bytes. Never judges whether a frame is well
//! formed: the decoder does. Invariant: no frame whose bytes have all passed here has more than [`FIELDS_MAX`] of these.

/// The most fields of a frame. A client that attaches sends one for each handle: this is eight times as many as a session
/// may have by default.
pub(super) const FIELDS_MAX: usize = 128 << 10;
/// Before each frame stand a flag and its length.
const PREFIX_BYTES: usize = 5;
/// The fields `open`, `attach` and `acknowledged` of a frame: what is in them is counted too.
const COUNTED_INSIDE: [u64; 3] = [1, 2, 4];

/// What the next byte belongs to.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// The prefix of a frame; so many bytes of it have come, and the length so far.
    Prefix(usize, u32),
    /// A field's number and type, as far as it has come.
    Tag(Varint),
    /// A number that is not looked at.
    Number,
    /// How many bytes the field with this number has.
    Length(u64, Varint),
    /// So many bytes that are not looked at.
    Skip(u64),
}

/// A number in groups of seven bits.
#[derive(Clone, Copy, Debug, Default)]
struct Varint {
    value: u64,
    shift: u32,
}

/// Follows the bytes of a stream.
#[derive(Debug)]
pub(super) struct Fields {
    place: Place,
    /// So many bytes of the frame are still to come.
    left: u64,
    /// And so many of the part of it in which fields are counted too.
    left_inside: u64,
    /// The fields of the frame so far.
    count: usize,
}

/// A frame has too many fields.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMany;

impl Default for Fields {
    fn default() -> Self {
        Self { place: Place::Prefix(0, 0), left: 0, left_inside: 0, count: 0 }
    }
}

impl Fields {
    /// Counts what has arrived.
    pub(super) fn take(&mut self, mut data: &[u8]) -> Result<(), TooMany> {
        while let Some((byte, rest)) = data.split_first() {
            if let Place::Prefix(come, length) = self.place {
                self.take_prefix(come, length, *byte);
                data = rest;
                continue;
            }
            let some = if let Place::Skip(bytes) = self.place { bytes.min(self.left) } else { 1 };
            let (now, rest) = data.split_at(usize::try_from(some).unwrap_or(data.len()).min(data.len()));
            data = rest;
            self.left -= now.len() as u64;
            self.left_inside = self.left_inside.saturating_sub(now.len() as u64);
            self.place = self.after(*byte, now.len() as u64);
            if self.count > FIELDS_MAX {
                return Err(TooMany);
            }
            if self.left == 0 {
                *self = Self::default();
            }
        }
        Ok(())
    }

    fn take_prefix(&mut self, come: usize, length: u32, byte: u8) {
        // The first byte is the flag, which is pushed out by the four of the length.
        let length = length << 8 | u32::from(byte);
        self.place = Place::Prefix(come + 1, length);
        if come + 1 == PREFIX_BYTES {
            self.left = length.into();
            self.place = if length == 0 { Place::Prefix(0, 0) } else { Place::Tag(Varint::default()) };
        }
    }

    /// Where the next byte belongs, after this one, or after so many that were skipped.
    fn after(&mut self, byte: u8, bytes: u64) -> Place {
        match self.place {
            Place::Tag(tag) => match tag.with(byte) {
                Ok(tag) => self.field(tag),
                Err(more) => Place::Tag(more),
            },
            Place::Number if byte < 0x80 => Place::Tag(Varint::default()),
            Place::Number => Place::Number,
            Place::Length(field, length) => match length.with(byte) {
                Ok(length) => self.contents(field, length),
                Err(more) => Place::Length(field, more),
            },
            Place::Skip(left) if left <= bytes => Place::Tag(Varint::default()),
            Place::Skip(left) => Place::Skip(left - bytes),
            Place::Prefix(..) => unreachable!("prefixes are taken elsewhere"),
        }
    }

    /// A field begins.
    fn field(&mut self, tag: u64) -> Place {
        self.count += 1;
        match tag & 7 {
            0 => Place::Number,
            1 => Place::Skip(8),
            2 => Place::Length(tag >> 3, Varint::default()),
            5 => Place::Skip(4),
            // The decoder refuses the frame for that.
            _ => Place::Skip(self.left),
        }
    }

    fn contents(&mut self, field: u64, length: u64) -> Place {
        if length == 0 {
            return Place::Tag(Varint::default());
        }
        if self.left_inside == 0 && COUNTED_INSIDE.contains(&field) {
            self.left_inside = length;
            return Place::Tag(Varint::default());
        }
        Place::Skip(length)
    }
}

impl Varint {
    /// The number, or what it is so far.
    fn with(self, byte: u8) -> Result<u64, Self> {
        let value = self.value | u64::from(byte & 0x7f).checked_shl(self.shift).unwrap_or(0);
        if byte < 0x80 { Ok(value) } else { Err(Self { value, shift: self.shift + 7 }) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use holdfast_proto::client::v1::{
        Acknowledged, AttachSession, ClientFrame, KeepAlive, NumberRange, Request, Seen, SetContents,
        client_frame::Hello, request::Operation,
    };
    use prost::Message as _;

    use super::*;

    fn bytes_of(frame: &ClientFrame) -> Vec<u8> {
        let message = frame.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0][..], &length[..], &message].concat()
    }

    fn attaching(entries: usize) -> ClientFrame {
        let seen = vec![Seen { handle: 300, content_generation: 1 << 40, ..Seen::default() }; entries];
        let attach =
            AttachSession { session: 7, secret: Bytes::from_static(&[0xff; 32]), seen, ..Default::default() };
        ClientFrame { hello: Some(Hello::Attach(attach)), ..ClientFrame::default() }
    }

    fn requests(count: u64) -> ClientFrame {
        let contents = Bytes::from_static(&[0x12; 300]);
        let operation = Operation::SetContents(SetContents { handle: 1, contents, if_generation: None });
        let requests =
            (1..=count).map(|number| Request { number, operation: Some(operation.clone()) }).collect();
        let keep_alive = Some(KeepAlive { number: 1 << 50 });
        ClientFrame { requests, keep_alive, notices_through: 9, ..ClientFrame::default() }
    }

    fn acknowledging(ranges: usize) -> ClientFrame {
        let ranges = vec![NumberRange::default(); ranges];
        let acknowledged = Some(Acknowledged { through: 5, ranges });
        ClientFrame { acknowledged, ..ClientFrame::default() }
    }

    /// How many fields are counted before the last byte of the frame, which comes in pieces of this size.
    fn counted(frame: &ClientFrame, piece: usize) -> Result<usize, TooMany> {
        let (mut fields, bytes) = (Fields::default(), bytes_of(frame));
        bytes[..bytes.len() - 1].chunks(piece).try_for_each(|piece| fields.take(piece))?;
        Ok(fields.count)
    }

    #[test]
    fn the_fields_of_a_frame_its_hello_and_its_acknowledgement_are_counted_and_no_others() {
        for piece in [1, 3, 4_096] {
            // The hello, its session, its secret, and the entries.
            assert_eq!(counted(&attaching(5), piece), Ok(3 + 5));
            // The requests and what else the frame says: nothing of what is in them.
            assert_eq!(counted(&requests(40), piece), Ok(40 + 2));
            assert_eq!(counted(&acknowledging(6), piece), Ok(2 + 6));
        }
    }

    #[test]
    fn each_frame_of_a_stream_is_counted_by_itself() {
        let frames = [requests(40), attaching(5), ClientFrame::default(), acknowledging(6), requests(1)];
        let bytes: Vec<u8> = frames.iter().flat_map(bytes_of).collect();
        for piece in [1, 7, 1 << 20] {
            let mut fields = Fields::default();
            for bytes in bytes.chunks(piece) {
                assert_eq!(fields.take(bytes), Ok(()));
            }
            assert_eq!((fields.count, fields.left), (0, 0));
        }
    }

    #[test]
    fn a_frame_of_too_many_is_found_before_its_end_however_it_comes() {
        for frame in [attaching(FIELDS_MAX), acknowledging(FIELDS_MAX)] {
            assert_eq!((counted(&frame, 1), counted(&frame, 16 << 10)), (Err(TooMany), Err(TooMany)));
        }
        assert!(counted(&attaching(FIELDS_MAX - 3), 16 << 10).is_ok());
    }

    #[test]
    fn whatever_comes_is_followed_to_the_end_of_its_frame() {
        for byte in 0..=u8::MAX {
            let mut fields = Fields::default();
            let mut bytes = vec![0, 0, 0, 1, 0];
            bytes.extend([byte; 256]);
            let whole = fields.take(&[bytes, bytes_of(&requests(3))].concat());
            assert_eq!((whole, fields.left), (Ok(()), 0), "{byte:#x}");
        }
    }
}
