//! What a session's client has acknowledged, as its frames say it.
//!
//! The log hears of it with the session's next command, which may come late; the master goes by what it has heard at once.
//! Nothing here decides a request. Invariant: whatever is untold was heard.

use holdfast_proto::client::v1 as client;
use holdfast_state::Acknowledgements;

/// The request numbers of one session that its client has the outcomes of.
#[derive(Debug, Default)]
pub(crate) struct Acknowledged {
    /// All that this master has heard of. The log has the rest, from before its term.
    heard: Acknowledgements,
    /// What came since the last command that told the log.
    untold: Acknowledgements,
}

impl Acknowledged {
    /// A frame acknowledges these.
    ///
    /// # Errors
    ///
    /// They are malformed, or more ranges than `ranges_max` in all: then nothing changes.
    pub(crate) fn hear(
        &mut self,
        news: &client::Acknowledged,
        ranges_max: u32,
    ) -> Result<(), client::Refusal> {
        Acknowledgements::check(news)?;
        self.heard.merge(news, ranges_max)?;
        if self.untold.merge(news, ranges_max).is_err() {
            // Gaps that the log knows to be closed. What was heard has fewer.
            self.untold = self.heard.clone();
        }
        Ok(())
    }

    /// Whether the client will not send this request again.
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.heard.contains(number)
    }

    /// What the next command tells the log; `None` if nothing is new.
    pub(crate) fn take_untold(&mut self) -> Option<client::Acknowledged> {
        let untold = std::mem::take(&mut self.untold);
        (!untold.is_empty()).then(|| untold.to_wire())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn news(through: u64, ranges: &[(u64, u64)]) -> client::Acknowledged {
        let ranges = ranges.iter().map(|&(first, last)| client::NumberRange { first, last }).collect();
        client::Acknowledged { through, ranges }
    }

    #[test]
    fn the_log_is_told_all_that_was_heard_since_and_once() {
        let mut acknowledged = Acknowledged::default();
        acknowledged.hear(&news(1, &[(3, 3)]), 8).unwrap();
        acknowledged.hear(&news(1, &[(5, 6)]), 8).unwrap();
        assert_eq!(
            acknowledged.take_untold(),
            Some(news(1, &[(3, 3), (5, 6)])),
            "an earlier frame's are not lost"
        );
        assert_eq!(acknowledged.take_untold(), None);
        acknowledged.hear(&news(2, &[]), 8).unwrap();
        assert_eq!(acknowledged.take_untold(), Some(news(2, &[])));
        assert!(acknowledged.contains(6) && !acknowledged.contains(4));
    }

    #[test]
    fn what_is_malformed_or_too_much_changes_nothing() {
        let mut acknowledged = Acknowledged::default();
        acknowledged.hear(&news(0, &[(3, 2)]), 8).unwrap_err();
        acknowledged.hear(&news(0, &[(2, 2), (4, 4), (6, 6)]), 2).unwrap_err();
        assert!(!acknowledged.contains(2) && acknowledged.take_untold().is_none());
    }

    #[test]
    fn closing_more_gaps_one_by_one_than_may_be_open_is_right() {
        let mut acknowledged = Acknowledged::default();
        acknowledged.hear(&news(0, &[(1, 1), (3, 3), (5, 5)]), 3).unwrap();
        acknowledged.take_untold();
        for number in [2, 4, 6] {
            acknowledged.hear(&news(0, &[(number, number)]), 3).unwrap();
        }
        acknowledged.hear(&news(0, &[(8, 8)]), 3).unwrap();
        assert_eq!(acknowledged.take_untold(), Some(news(6, &[(8, 8)])));
    }
}
