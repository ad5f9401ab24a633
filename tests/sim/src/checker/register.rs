//! What a file promises by itself: a register whose every value has a generation, written whole, read whole, and
//! compared and set by generation.
//!
//! Sequential: it says what may come after what, and nothing of what overlaps; that is the search's part (`linear`).
//! Invariant: generations only rise.

use bytes::Bytes;

/// What a file may hold, as far as it is known from what was done to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Register {
    /// Whatever it began with: the first that is read of it says.
    Beginning,
    /// These contents.
    Holds {
        /// The contents.
        contents: Bytes,
        /// Their generation.
        generation: Generation,
    },
}

/// What is known of a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// It is this one.
    Is(u64),
    /// Nobody was told; it is greater than this one.
    Above(u64),
}

/// Something that was done to a file, and what the doer was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// It was read, and held this.
    Read {
        /// The contents.
        contents: Bytes,
        /// Their generation.
        generation: u64,
    },
    /// It was written.
    Write {
        /// The contents.
        contents: Bytes,
        /// The generation that it had to have for that.
        if_generation: Option<u64>,
        /// The generation that it got, if the writer was told.
        generation: Option<u64>,
    },
}

impl Op {
    /// The generation that the file has after it, if that is known.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        match self {
            Self::Read { generation, .. } => Some(*generation),
            Self::Write { generation, .. } => *generation,
        }
    }
}

impl Register {
    /// What the file holds after `op`; `None` if `op` cannot be what happens next.
    #[must_use]
    pub fn after(&self, op: &Op) -> Option<Self> {
        match op {
            Op::Read { contents, generation } => {
                let holds =
                    Self::Holds { contents: contents.clone(), generation: Generation::Is(*generation) };
                match self {
                    Self::Beginning => Some(holds),
                    Self::Holds { contents: held, generation: known } => {
                        (held == contents && known.may_be(*generation)).then_some(holds)
                    }
                }
            }
            Op::Write { contents, if_generation, generation } => {
                let least = match self {
                    Self::Beginning => if_generation.unwrap_or(0),
                    Self::Holds { generation: known, .. } => match if_generation {
                        Some(wanted) => known.may_be(*wanted).then_some(*wanted)?,
                        None => known.least(),
                    },
                };
                let generation = match generation {
                    Some(given) if *given <= least => return None,
                    Some(given) => Generation::Is(*given),
                    None => Generation::Above(least),
                };
                Some(Self::Holds { contents: contents.clone(), generation })
            }
        }
    }
}

impl Generation {
    fn may_be(self, generation: u64) -> bool {
        match self {
            Self::Is(known) => known == generation,
            Self::Above(least) => generation > least,
        }
    }

    /// No later one is as small as this.
    fn least(self) -> u64 {
        match self {
            Self::Is(known) => known,
            Self::Above(least) => least,
        }
    }
}

#[cfg(test)]
pub(super) fn read(contents: &'static str, generation: u64) -> Op {
    Op::Read { contents: Bytes::from_static(contents.as_bytes()), generation }
}

#[cfg(test)]
pub(super) fn write(contents: &'static str, generation: impl Into<Option<u64>>) -> Op {
    let contents = Bytes::from_static(contents.as_bytes());
    Op::Write { contents, if_generation: None, generation: generation.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(ops: &[Op]) -> Option<Register> {
        ops.iter().try_fold(Register::Beginning, |register, op| register.after(op))
    }

    fn write_if(contents: &'static str, if_generation: u64, generation: u64) -> Op {
        let contents = Bytes::from_static(contents.as_bytes());
        Op::Write { contents, if_generation: Some(if_generation), generation: Some(generation) }
    }

    #[test]
    fn a_read_gives_what_was_written_last() {
        assert!(after(&[read("x", 3), write("a", 5), read("a", 5), read("a", 5)]).is_some());
        assert!(after(&[write("a", 5), read("b", 5)]).is_none(), "other contents");
        assert!(after(&[write("a", 5), read("a", 6)]).is_none(), "another generation");
        assert!(after(&[read("x", 3), read("y", 4)]).is_none(), "the beginning is one");
    }

    #[test]
    fn generations_rise() {
        assert!(after(&[write("a", 5), write("b", 6)]).is_some());
        assert!(after(&[write("a", 5), write("b", 5)]).is_none());
        assert!(after(&[write("a", 5), write("b", None), write("c", 4)]).is_none());
    }

    #[test]
    fn a_write_that_nobody_was_told_of_has_any_later_generation() {
        assert!(after(&[write("a", 5), write("b", None), read("b", 9), write("c", 10)]).is_some());
        assert!(after(&[write("a", 5), write("b", None), read("b", 5)]).is_none());
        assert!(
            after(&[write("b", None), read("b", 9), read("b", 8)]).is_none(),
            "the first read says which"
        );
    }

    #[test]
    fn compare_and_set_needs_the_generation() {
        assert!(after(&[write("a", 5), write_if("b", 5, 6)]).is_some());
        assert!(after(&[write("a", 5), write("c", 6), write_if("b", 5, 7)]).is_none());
        assert!(after(&[write("a", 5), write("c", None), write_if("b", 5, 7)]).is_none());
        assert!(after(&[write("a", 5), write("c", None), write_if("b", 6, 7)]).is_some());
    }
}
