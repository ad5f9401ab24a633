//! Which of its requests a client has the outcomes of: a floor, and ranges above it (design.md §3, I6).
//!
//! The state keeps them with each session, and a master those that it has heard and the log has not. Nothing here forgets an
//! outcome. Invariant: the ranges rise, with a gap below each; a number that was acknowledged stays so.

use holdfast_proto::client::v1::{Acknowledged, NumberRange, Refusal};

use crate::refusal;

/// Acknowledged request numbers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Acknowledgements {
    /// All numbers up to here are acknowledged.
    through: u64,
    /// So are these: rising, with a gap below each.
    ranges: Vec<NumberRange>,
}

impl Acknowledgements {
    /// Checks what a client sends in one frame: the ranges are above `through`, rise, and do not overlap.
    ///
    /// # Errors
    ///
    /// A refusal that says which range is wrong.
    pub fn check(news: &Acknowledged) -> Result<(), Refusal> {
        let mut below = news.through;
        for NumberRange { first, last } in &news.ranges {
            if first > last {
                return Err(backwards(*first, *last));
            }
            if *first <= below {
                return Err(refusal::protocol(format!(
                    "an acknowledged range begins at #{first}, and all up to #{below} came before it: ranges are above \
                     `through`, rise, and do not overlap"
                )));
            }
            below = *last;
        }
        Ok(())
    }

    /// Whether a number is among them. The number 0, which no request has, is.
    #[must_use]
    pub fn contains(&self, number: u64) -> bool {
        let after = self.ranges.partition_point(|range| range.first <= number);
        number <= self.through || (after > 0 && number <= self.ranges[after - 1].last)
    }

    /// All numbers up to this one are among them.
    #[must_use]
    pub fn through(&self) -> u64 {
        self.through
    }

    /// As they travel.
    #[must_use]
    pub fn to_wire(&self) -> Acknowledged {
        Acknowledged { through: self.through, ranges: self.ranges.clone() }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.through == 0 && self.ranges.is_empty()
    }

    /// Unites these with what a client sends, and raises the floor over ranges that touch it. They add up: an old
    /// acknowledgement takes nothing back.
    ///
    /// # Errors
    ///
    /// A range is backwards, or there would be more than `ranges_max` of them: then nothing changes. Honest clients leave
    /// at most as many gaps as they have requests in flight.
    pub fn merge(&mut self, news: &Acknowledged, ranges_max: u32) -> Result<(), Refusal> {
        if news.ranges.is_empty() && self.ranges.is_empty() {
            self.through = self.through.max(news.through);
            return Ok(());
        }
        if let Some(NumberRange { first, last }) = news.ranges.iter().find(|range| range.first > range.last) {
            return Err(backwards(*first, *last));
        }
        let mut through = self.through.max(news.through);
        let mut ranges: Vec<NumberRange> = self.ranges.iter().chain(&news.ranges).copied().collect();
        ranges.sort_unstable_by_key(|range| (range.first, range.last));
        let mut united: Vec<NumberRange> = Vec::with_capacity(ranges.len());
        for range in ranges {
            if range.first <= through.saturating_add(1) {
                through = through.max(range.last);
                continue;
            }
            match united.last_mut() {
                Some(last) if range.first <= last.last.saturating_add(1) => {
                    last.last = last.last.max(range.last)
                }
                _ => united.push(range),
            }
        }
        if united.len() > ranges_max as usize {
            let (what, count) = ("gaps between acknowledged requests", united.len() as u64);
            return Err(refusal::limit(what, count, "requests_in_flight_max", ranges_max.into()));
        }
        (self.through, self.ranges) = (through, united);
        Ok(())
    }
}

fn backwards(first: u64, last: u64) -> Refusal {
    refusal::protocol(format!("an acknowledged range begins at #{first} and ends before that, at #{last}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(through: u64, ranges: &[(u64, u64)]) -> Acknowledged {
        let ranges = ranges.iter().map(|&(first, last)| NumberRange { first, last }).collect();
        Acknowledged { through, ranges }
    }

    #[test]
    fn what_a_client_sends_is_above_the_floor_rises_and_does_not_overlap() {
        for right in [news(0, &[]), news(2, &[(3, 3), (4, 9)]), news(0, &[(1, u64::MAX)])] {
            Acknowledgements::check(&right).unwrap();
        }
        for wrong in [
            news(0, &[(8, 7)]),
            news(4, &[(4, 5)]),
            news(0, &[(0, 5)]),
            news(0, &[(2, 5), (5, 6)]),
            news(0, &[(7, 8), (2, 3)]),
            news(0, &[(7, u64::MAX), (9, 9)]),
        ] {
            let refusal = Acknowledgements::check(&wrong).unwrap_err();
            assert_eq!(refusal.code(), holdfast_proto::client::v1::RefusalCode::Protocol, "{wrong:?}");
        }
    }
}
