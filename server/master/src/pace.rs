//! When those who send much through the log pause for those who send little (ADR 0012).
//!
//! While large changes fill their room in the log, a small change waits for those that are under way. If the next large ones
//! followed at once, each small change would find the log full, and the processors busy with copying to all replicas. So
//! a *bulk* party, one that has sent much within the last second or two, pauses for as long as its changes have filled their
//! room, if a party that is none has had a change proposed meanwhile. Alone, bulk parties do not pause. Decides by what
//! was proposed and by the time alone. Invariant: no pause is longer than [`PAUSE_MAX`].

use std::collections::BTreeMap;

use holdfast_types::{Duration, Time};

use crate::work::Party;

/// A party that has so many bytes of changes proposed within a [`WINDOW`] is a bulk party: one of the largest files a second.
const BULK_BYTES: u64 = 256 << 10;
/// What was sent in this time and in the one before counts.
const WINDOW: Duration = Duration::from_secs(1);
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
    /// Who has had the largest change proposed since the log had room, and how large that was.
    largest: (u64, Option<Party>),
    /// While the log had no room another party, which is no bulk party, has had a change proposed.
    is_shared: bool,
    /// A bulk party has had a change proposed since the last pause began. Pauses do not follow each other without that.
    bulk_served: bool,
    /// No bulk party has a large change proposed before this.
    resumes: Time,
}

impl Pace {
    /// No party has sent anything.
    pub(crate) fn new(now: Time) -> Self {
        Self {
            sent: Default::default(),
            window_began: now,
            full_since: None,
            largest: (0, None),
            is_shared: false,
            bulk_served: false,
            resumes: now,
        }
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
            return;
        }
        self.largest = (0, None);
        let is_shared = std::mem::take(&mut self.is_shared);
        if let Some(since) = self.full_since.take()
            && is_shared
            && self.bulk_served
        {
            self.bulk_served = false;
            self.resumes = now + now.since(since).min(PAUSE_MAX);
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
        if bytes > self.largest.0 {
            self.largest = (bytes, Some(party.clone()));
        }
        if self.is_bulk(party) {
            self.bulk_served = true;
        } else if self.full_since.is_some() && self.largest.1.as_ref() != Some(party) {
            self.is_shared = true;
        }
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

    /// The log fills, is filled while these parties have small changes proposed, and has room again.
    fn filled(pace: &mut Pace, begins_ms: u64, ends_ms: u64, by: &Party, others: &[&Party]) {
        pace.proposed(at(begins_ms), by, BULK_BYTES);
        pace.turn(at(begins_ms), false);
        others.iter().for_each(|other| pace.proposed(at(begins_ms), other, 100));
        pace.turn(at(ends_ms), true);
    }

    #[test]
    fn who_sends_much_pauses_as_long_as_it_filled_the_log_if_others_send_too() {
        let mut pace = Pace::new(at(0));
        filled(&mut pace, 0, 7, &BULK, &[&SMALL]);
        assert!(pace.pauses(at(13), &BULK) && !pace.pauses(at(13), &SMALL) && !pace.pauses(at(14), &BULK));
        assert_eq!((pace.resumes(at(13)), pace.resumes(at(14))), (Some(at(14)), None));
    }

    #[test]
    fn who_sends_much_does_not_pause_alone_nor_for_others_who_do_nor_for_what_was_before() {
        let mut pace = Pace::new(at(0));
        pace.proposed(at(0), &SMALL, 100);
        for ms in 0..10 {
            pace.proposed(at(ms), &BULK, BULK_BYTES / 10 + 1);
            pace.turn(at(ms), false);
            pace.proposed(at(ms), &BULK, 100);
            pace.turn(at(ms + 1), true);
            assert!(!pace.pauses(at(ms + 1), &BULK), "its first changes were small in all");
        }
        filled(&mut pace, 20, 30, &SMALL, &[&BULK]);
        filled(&mut pace, 30, 40, &BULK, &[&SMALL]);
        assert!(!pace.pauses(at(41), &BULK) && !pace.pauses(at(41), &SMALL), "both send much");
    }

    #[test]
    fn no_pause_follows_another_before_who_pauses_has_had_its_turn() {
        let mut pace = Pace::new(at(0));
        filled(&mut pace, 0, 10, &BULK, &[&SMALL]);
        assert!(pace.pauses(at(19), &BULK));
        // Many parties that each send little fill the log, again and again.
        for other in 10..100 {
            let ms = 10 * other;
            pace.proposed(at(ms), &Party::Session(SessionId(other)), BULK_BYTES - 1);
            pace.turn(at(ms), false);
            pace.proposed(at(ms), &SMALL, 100);
            pace.turn(at(ms + 9), true);
            assert!(!pace.pauses(at(ms + 9), &BULK));
        }
    }

    #[test]
    fn a_pause_is_bounded_and_who_sends_little_for_two_seconds_is_forgiven() {
        let mut pace = Pace::new(at(0));
        filled(&mut pace, 0, 5_000, &BULK, &[&SMALL]);
        assert_eq!(pace.resumes(at(5_000)), Some(at(5_100)));
        assert!(pace.pauses(at(5_050), &BULK), "it has sent much, as far as is known");
        pace.proposed(at(5_050), &SMALL, 100);
        assert!(!pace.pauses(at(5_060), &BULK), "that was long ago");
    }
}
