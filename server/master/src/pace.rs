//! When those who send much through the log pause for those who send little (ADR 0012).
//!
//! While large changes fill their room in the log, a small change waits for those that are under way. If the next large ones
//! followed at once, each small change would find the log full, and the processors busy with copying to all replicas. So
//! a *bulk* party, one that has sent much within the last second, pauses for as long as its changes have filled their
//! room, if a party that is none has had a change proposed meanwhile. Alone, bulk parties do not pause. Decides by what
//! was proposed and by the time alone. Invariant: no pause is longer than [`PAUSE_MAX`].

use std::collections::BTreeMap;

use holdfast_types::{Duration, Time};

use crate::work::Party;

/// A party that has so many bytes of changes proposed within a [`WINDOW`] is a bulk party: one of the largest files a second.
const BULK_BYTES: u64 = 256 << 10;
/// What was sent in this time and in the one before counts.
const WINDOW: Duration = Duration::from_secs(1);
/// The pause is so many times as long as large changes have filled their room.
const PAUSE_TIMES: u32 = 1;
/// However slow the disks are, no pause is longer.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Who sends much, and until when it pauses.
#[derive(Debug)]
pub(crate) struct Pace {
    /// What parties have had proposed in this window, and in the one before.
    sent: [BTreeMap<Party, u64>; 2],
    /// When this window began.
    window_began: Time,
    /// Since when the log has had no room for large changes.
    full_since: Option<Time>,
    /// A party that is no bulk party has had a change proposed since the last pause began.
    is_shared: bool,
    /// No bulk party has a large change proposed before this.
    resumes: Time,
}

impl Pace {
    /// Nobody has sent anything.
    pub(crate) fn new(now: Time) -> Self {
        Self { sent: Default::default(), window_began: now, full_since: None, is_shared: false, resumes: now }
    }

    /// Whether the party has to pause now.
    pub(crate) fn pauses(&self, now: Time, party: &Party) -> bool {
        now < self.resumes && self.is_bulk(party)
    }

    /// When the pause is over, if there is one.
    pub(crate) fn resumes(&self, now: Time) -> Option<Time> {
        (now < self.resumes).then_some(self.resumes)
    }

    /// A turn begins, in which large changes find room in the log, or none.
    pub(crate) fn turn(&mut self, now: Time, has_room: bool) {
        if !has_room {
            self.full_since.get_or_insert(now);
        } else if let Some(since) = self.full_since.take()
            && std::mem::take(&mut self.is_shared)
        {
            self.resumes = now + (now.since(since) * PAUSE_TIMES).min(PAUSE_MAX);
        }
    }

    /// So many bytes of a party's changes were proposed.
    pub(crate) fn proposed(&mut self, now: Time, party: &Party, bytes: u64) {
        if now.since(self.window_began) >= WINDOW {
            let is_next = now.since(self.window_began) < 2 * WINDOW;
            self.sent.swap(0, 1);
            self.sent[0].clear();
            if !is_next {
                self.sent[1].clear();
            }
            self.window_began = now;
        }
        *self.sent[0].entry(party.clone()).or_default() += bytes;
        self.is_shared |= !self.is_bulk(party);
    }

    fn is_bulk(&self, party: &Party) -> bool {
        self.sent.iter().any(|sent| sent.get(party).is_some_and(|bytes| *bytes >= BULK_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use holdfast_types::SessionId;

    use super::*;

    const BULK: Party = Party::Session(SessionId(1));
    const SMALL: Party = Party::Session(SessionId(2));

    fn at(ms: u64) -> Time {
        Time::ZERO + Duration::from_millis(ms)
    }

    /// The log fills at 0 ms and has room again after so many.
    fn filled(pace: &mut Pace, begins_ms: u64, ends_ms: u64) {
        pace.proposed(at(begins_ms), &BULK, BULK_BYTES);
        pace.turn(at(begins_ms), false);
        pace.turn(at(ends_ms), true);
    }

    #[test]
    fn who_sends_much_pauses_as_long_as_it_filled_the_log_if_others_send_too() {
        let mut pace = Pace::new(at(0));
        pace.proposed(at(0), &SMALL, 100);
        filled(&mut pace, 0, 7);
        assert!(pace.pauses(at(13), &BULK) && !pace.pauses(at(13), &SMALL) && !pace.pauses(at(14), &BULK));
        assert_eq!((pace.resumes(at(13)), pace.resumes(at(14))), (Some(at(14)), None));
    }

    #[test]
    fn who_sends_much_does_not_pause_alone_nor_for_others_who_do() {
        let mut pace = Pace::new(at(0));
        filled(&mut pace, 0, 7);
        assert!(!pace.pauses(at(8), &BULK), "its first changes were small in all");
        pace.proposed(at(8), &SMALL, BULK_BYTES);
        filled(&mut pace, 9, 12);
        filled(&mut pace, 13, 20);
        assert!(!pace.pauses(at(21), &BULK) && !pace.pauses(at(21), &SMALL));
    }

    #[test]
    fn a_pause_is_bounded_and_who_sends_little_for_two_seconds_is_forgiven() {
        let mut pace = Pace::new(at(0));
        pace.proposed(at(0), &SMALL, 100);
        filled(&mut pace, 0, 5_000);
        assert_eq!(pace.resumes(at(5_000)), Some(at(5_100)));
        assert!(pace.pauses(at(5_050), &BULK), "it has sent much, as far as is known");
        pace.proposed(at(5_050), &SMALL, 100);
        assert!(!pace.pauses(at(5_060), &BULK), "that was long ago");
    }
}
