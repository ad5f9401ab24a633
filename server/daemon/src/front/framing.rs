//! Where in the bytes of a stream its messages end, as gRPC frames them.
//!
//! Never judges a message. Invariant: the pieces in which the bytes come make no difference.

use super::MESSAGE_BYTES_MAX;

/// How many times what has come of a message counts of what is still to come.
const ANNOUNCED_TIMES: usize = 8;
/// Before each message stand a flag and its length.
pub(super) const PREFIX_BYTES: usize = 5;

/// Where in the bytes of a stream its messages end.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Framing {
    /// The prefix of the next message, as far as it has come.
    prefix: [u8; PREFIX_BYTES],
    /// So many bytes of the prefix have come.
    prefixed: usize,
    /// So many bytes of the message are still to come.
    left: usize,
    /// So many bytes have come of the message that is not whole, with its prefix.
    pub(super) partial: usize,
    /// So many messages are whole.
    pub(super) whole: u64,
}

impl Framing {
    /// Of the message that has begun, once its prefix is there.
    fn length(&self) -> usize {
        let [_, length @ ..] = self.prefix;
        u32::from_be_bytes(length) as usize
    }

    /// So many of the bytes of the message that has begun, and are still to come, count already: up to eight times as many as have
    /// come, so that a few bytes do not take the room of megabytes. None of a message that is too long, which the decoder
    /// refuses at its prefix.
    pub(super) fn announced(&self) -> usize {
        if self.length() <= MESSAGE_BYTES_MAX { self.left.min(ANNOUNCED_TIMES * self.partial) } else { 0 }
    }

    /// Follows bytes that come next.
    pub(super) fn take(&mut self, mut data: &[u8]) {
        while !data.is_empty() {
            let missing = PREFIX_BYTES - self.prefixed;
            let part = if missing > 0 { missing } else { self.left };
            let (now, later) = data.split_at(part.min(data.len()));
            data = later;
            self.partial += now.len();
            if missing == 0 {
                self.left -= now.len();
            } else {
                for (place, byte) in self.prefix.iter_mut().skip(self.prefixed).zip(now) {
                    *place = *byte;
                }
                self.prefixed += now.len();
                if self.prefixed == PREFIX_BYTES {
                    self.left = self.length();
                }
            }
            if self.prefixed == PREFIX_BYTES && self.left == 0 {
                self.prefixed = 0;
                self.partial = 0;
                self.whole += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Vec<u8> {
        let length = u32::try_from(bytes).unwrap().to_be_bytes();
        [&[0][..], &length[..], &vec![7; bytes][..]].concat()
    }

    #[test]
    fn a_message_is_announced_by_its_prefix_in_pieces_too_and_one_that_is_too_long_is_not() {
        let mut framing = Framing::default();
        let bytes = [message(9_000), message(0), message(70)].concat();
        let mut announced = Vec::new();
        for piece in [&bytes[..3], &bytes[3..7], &bytes[7..9_005], &bytes[9_005..9_012], &bytes[9_012..]] {
            framing.take(piece);
            announced.push(framing.announced());
        }
        assert_eq!(announced, [0, 8 * 7, 0, 0, 0]);
        assert_eq!((framing.whole, framing.partial), (3, 0));
        let (begun, more) = (message(9_000), [7; 1_500]);
        framing.take(&begun[..15]);
        assert_eq!(framing.announced(), 8 * 15);
        framing.take(&more);
        assert_eq!(framing.announced(), 9_005 - 1_515, "all of the rest");
        framing.take(&begun[1_515..]);
        framing.take(&message(MESSAGE_BYTES_MAX + 1)[..9]);
        assert_eq!((framing.announced(), framing.partial), (0, 9));
    }
}
