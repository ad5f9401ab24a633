//! Choices out of bytes: what a fuzzer changes in its input changes one choice, and little else.
//!
//! Invariant: every choice takes at least one byte while there are any, and lists are empty when there are none, so that
//! whatever is made of a source ends with it.

use bytes::Bytes;

/// Bytes that are used up from the front.
#[derive(Clone, Debug)]
pub struct Source<'d>(&'d [u8]);

impl<'d> Source<'d> {
    /// All of `data`.
    #[must_use]
    pub fn new(data: &'d [u8]) -> Self {
        Self(data)
    }

    /// Whether all is used up.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is left, all of it.
    #[must_use]
    pub fn rest(&mut self) -> &'d [u8] {
        std::mem::take(&mut self.0)
    }

    /// The next byte; 0 when there are none left.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// As many of the next bytes as there are, up to `length_max`.
    pub fn slice(&mut self, length_max: usize) -> &'d [u8] {
        let (taken, rest) = self.0.split_at(length_max.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// One of two.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// True once in so many.
    pub fn one_in(&mut self, times: u8) -> bool {
        self.byte() % times == times - 1
    }

    /// Small numbers mostly, so that they meet; some from the ends of the type.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => u64::from(small) % 12,
            200..=229 => u64::from(self.byte()),
            230..=234 => u64::MAX - u64::from(self.byte() % 4),
            235..=237 => (u64::MAX / 2).wrapping_add(u64::from(self.byte() % 4)),
            238..=240 => u64::from(u32::MAX) + u64::from(self.byte() % 4),
            _ => {
                let mut bytes = [0; 8];
                let taken = self.slice(8);
                bytes[..taken.len()].copy_from_slice(taken);
                u64::from_le_bytes(bytes)
            }
        }
    }

    /// Like [`Source::number`], for narrower fields.
    #[expect(clippy::cast_possible_truncation, reason = "any number will do")]
    pub fn small(&mut self) -> u32 {
        match self.byte() {
            lease @ 0..=19 => 100 + 3_000 * u32::from(lease),
            _ => self.number() as u32,
        }
    }

    /// The number of an enumeration's value, or of none.
    #[expect(clippy::cast_possible_wrap, reason = "any number will do")]
    pub fn enumeration(&mut self) -> i32 {
        match self.byte() {
            value @ 0..=239 => i32::from(value) % 10,
            240..=244 => -1,
            _ => self.small() as i32,
        }
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, values: &[T]) -> T {
        values[usize::from(self.byte()) % values.len()].clone()
    }

    /// Some bytes, a few mostly.
    pub fn bytes(&mut self) -> Bytes {
        let length = match self.byte() {
            few @ 0..=239 => usize::from(few) % 70,
            many => 1_000 * usize::from(many - 239),
        };
        Bytes::copy_from_slice(self.slice(length))
    }

    /// Text out of the next bytes, whatever they are.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// There, or not.
    pub fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (!self.byte().is_multiple_of(4)).then(|| make(self))
    }

    /// Up to `length_max` of them.
    pub fn list<T>(&mut self, length_max: u8, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        let length = self.byte() % (length_max + 1);
        (0..length).map_while(|_| (!self.is_empty()).then(|| make(self))).collect()
    }
}
