//! How long this replica's disk takes for a sync, what is said of it, and a master whose disk is the only slow one.
//!
//! A sync lasts from the moment when the disk has something to write and nothing else to do until the replica hears that it is
//! durable. Slow ones are said in the log. A master with a slow disk makes every write slow, because it applies only what its
//! own disk has; so it hands over where the cell would be faster without it (docs/adr/0020-slow-disks.md):
//!
//! - *Behind* is a master whose disk has worked on something for longer than [`BEHIND_TIMES`] what a quorum of the other voters
//!   took to acknowledge the same, and for longer than a slow sync. With two slow disks of three nobody is behind: whoever leads
//!   then has one of them in its quorum.
//! - The time behind is added up, and a quarter of the other time subtracted: one hiccup changes nothing.
//! - A master that has taken office leads for [`OFFICE_MIN`] at least, so that mastership does not go round.
//!
//! Never here: whether anything is durable. Invariant: a disk is compared only on what it was really given.

use std::collections::VecDeque;

use holdfast_types::{Duration, ReplicaId, Time};
use raft::StateRole;
use slog::{info, warn};

use crate::{Persist, Replica};

/// A sync that takes so long is slow; half an election time-out, where that is less.
const SLOW_MAX: Duration = Duration::from_millis(500);
/// Slow syncs are said so often at most.
const SAY_PAUSE: Duration = Duration::from_secs(10);
/// A disk is behind if it takes so many times as long as the others'.
const BEHIND_TIMES: u32 = 3;
/// Having been behind for so long in all, a master hands over.
const BEHIND_MAX: Duration = Duration::from_secs(2);
/// Time in which a master is not behind makes up for this part of the time in which it was.
const FORGIVEN_PART: u32 = 4;
/// No master hands over for its disk's sake sooner after it took office, or tried to hand over.
const OFFICE_MIN: Duration = Duration::from_secs(10);
/// Whoever hears nothing from its driver for so many ticks stood still, and so, as far as it can tell, did its disk.
const STANDSTILL_TICKS: u32 = 5;

/// What the disk does.
#[derive(Debug, Default)]
pub(crate) struct DiskWatch {
    /// What it was given and has not made durable, oldest first.
    writing: VecDeque<Writing>,
    /// Since when it works on the oldest of these.
    busy_since: Time,
    /// How long a quorum of the other voters took for the oldest of these, once they have it.
    others_took: Option<Duration>,
    /// The time for which this master's disk has been behind.
    behind: Duration,
    /// No handing over before this.
    not_before: Time,
    /// So often a master has handed over here.
    handovers: u64,
    /// What is said of it.
    said: Said,
}

/// Something that the disk was given.
#[derive(Debug)]
struct Writing {
    number: u64,
    /// The last entry in it; 0 if it has none.
    last: u64,
    /// It brings a snapshot, which takes as long as it takes.
    snapshot: bool,
}

/// What was said of slow syncs.
#[derive(Debug, Default)]
struct Said {
    /// When something was last said.
    at: Option<Time>,
    /// So many slow ones since, and how long the slowest took.
    unsaid: (u64, Duration),
    /// For how long a sync had been under way when that was last said; each time, it must have doubled.
    under_way: Duration,
}

impl DiskWatch {
    /// The disk is given something to sync.
    pub(crate) fn begins(&mut self, now: Time, persist: &Persist) {
        if self.writing.is_empty() {
            self.turn_to_next(now);
        }
        let last = persist.entries.last().map_or(0, |entry| entry.index);
        let snapshot = persist.snapshot.is_some();
        self.writing.push_back(Writing { number: persist.number, last, snapshot });
    }

    /// Everything up to `number` is durable. Gives how long that took, if the disk was at work on it.
    fn ends(&mut self, now: Time, number: u64) -> Option<Duration> {
        let mut snapshot = false;
        let mut ended = false;
        while let Some(writing) = self.writing.front().filter(|writing| writing.number <= number) {
            (snapshot, ended) = (snapshot || writing.snapshot, true);
            self.writing.pop_front();
        }
        let took = now.since(self.busy_since);
        if ended {
            self.turn_to_next(now);
        }
        (ended && !snapshot).then_some(took)
    }

    fn turn_to_next(&mut self, now: Time) {
        (self.busy_since, self.others_took, self.said.under_way) = (now, None, Duration::ZERO);
    }

    /// For how long the disk has been at work, if it is, on something that it should be quick with.
    fn busy(&self, now: Time) -> Option<Duration> {
        self.writing.front().filter(|writing| !writing.snapshot).map(|_| now.since(self.busy_since))
    }

    /// The process has not run for so long.
    pub(crate) fn stood_still(&mut self, span: Duration) {
        self.busy_since += span;
    }

    /// A new term of office begins.
    pub(crate) fn takes_office(&mut self, now: Time) {
        self.behind = Duration::ZERO;
        self.not_before = now + OFFICE_MIN;
    }

    /// Another `span` has passed in office. `others` have acknowledged, a quorum of them, everything up to this entry.
    /// Tells whether to hand over: how long the disk and those of the others took.
    fn compare(
        &mut self,
        now: Time,
        span: Duration,
        slow: Duration,
        others: u64,
    ) -> Option<(Duration, Duration)> {
        let at_work = self.busy(now).filter(|_| self.writing.front().is_some_and(|writing| writing.last > 0));
        let compared = at_work.and_then(|busy| {
            let last = self.writing.front().map_or(0, |writing| writing.last);
            if self.others_took.is_none() && others >= last {
                self.others_took = Some(busy);
            }
            self.others_took.map(|others| (busy, others))
        });
        let behind = compared.filter(|(own, others)| *own >= slow.max(*others * BEHIND_TIMES));
        match behind {
            Some(_) => self.behind += span,
            None => self.behind = self.behind.saturating_sub(span / FORGIVEN_PART),
        }
        behind.filter(|_| self.behind >= BEHIND_MAX && now >= self.not_before)
    }
}

impl Replica {
    /// How often it has handed over, as a master, because only its own disk was slow.
    #[must_use]
    pub fn handovers_for_disk(&self) -> u64 {
        self.disk.handovers
    }

    /// From which length on a sync is slow.
    fn slow_sync(&self) -> Duration {
        let election = Duration::from_millis(self.config.tick_ms * self.config.election_ticks as u64);
        SLOW_MAX.min(election / 2)
    }

    /// Time has passed since something last happened to this replica; or, if it is long, the process stood still.
    pub(crate) fn notice_standstill(&mut self, now: Time) {
        let gap = now.since(self.now);
        if gap > Duration::from_millis(self.config.tick_ms) * STANDSTILL_TICKS {
            self.disk.stood_still(gap);
        }
    }

    /// Everything up to `number` is durable.
    pub(crate) fn sync_ended(&mut self, number: u64) {
        let (now, slow) = (self.now, self.slow_sync());
        let Some(took) = self.disk.ends(now, number).filter(|took| *took >= slow) else { return };
        let said = &mut self.disk.said;
        let (count, slowest) = said.unsaid;
        let (count, slowest) = (count + 1, slowest.max(took));
        if said.at.is_some_and(|at| now.since(at) < SAY_PAUSE) {
            said.unsaid = (count, slowest);
            return;
        }
        (said.at, said.unsaid) = (Some(now), (0, Duration::ZERO));
        warn!(
            self.logger,
            "the disk is slow: it took {} ms for a sync", slowest.as_millis(); "slow_syncs" => count
        );
    }

    /// A tick has passed: says so if the disk has been at work for long, and hands over if only this master's disk is slow.
    pub(crate) fn watch_disk(&mut self) {
        let (now, slow) = (self.now, self.slow_sync());
        if let Some(busy) = self.disk.busy(now)
            && busy >= (slow * 2).max(self.disk.said.under_way * 2)
            && self.disk.said.at.is_none_or(|at| now.since(at) >= SAY_PAUSE)
        {
            (self.disk.said.at, self.disk.said.under_way) = (Some(now), busy);
            warn!(self.logger, "the disk is slow: a sync has been under way for {} ms", busy.as_millis());
        }
        if self.raw.raft.state != StateRole::Leader {
            return;
        }
        let tick = Duration::from_millis(self.config.tick_ms);
        let others = self.quorum_of_others();
        let Some((own, others_took)) = self.disk.compare(now, tick, slow, others) else { return };
        let Some(heir) = self.fast_heir() else { return };
        self.disk.takes_office(now);
        self.disk.handovers += 1;
        info!(
            self.logger,
            "only this master's disk is slow: it has been busy for {} ms with what the others' had done after {} ms; \
            handing over", own.as_millis(), others_took.as_millis(); "to" => heir.0
        );
        self.raw.transfer_leader(heir.0);
    }

    /// Up to which entry as many of the other voters as make a quorum of all have everything durable; 0 where there are not as
    /// many.
    fn quorum_of_others(&self) -> u64 {
        let voters = self.raw.store().conf_state().get_voters();
        let others = voters.iter().filter(|id| **id != self.config.id.0);
        let mut matched: Vec<u64> = others.map(|id| self.matched(*id)).collect();
        matched.sort_unstable_by(|a, b| b.cmp(a));
        matched.get(voters.len() / 2).copied().unwrap_or(0)
    }

    /// Who has what this replica's disk is still writing, and was heard lately.
    fn fast_heir(&self) -> Option<ReplicaId> {
        if self.handing_over.is_some()
            || self.raw.raft.lead_transferee.is_some()
            || self.is_changing_members()
        {
            return None;
        }
        let last = self.disk.writing.front()?.last;
        let voters = self.raw.store().conf_state().get_voters().iter().copied();
        let fast =
            voters.filter(|id| *id != self.config.id.0 && self.reachable(*id) && self.matched(*id) >= last);
        fast.max_by_key(|id| (self.matched(*id), std::cmp::Reverse(*id))).map(ReplicaId)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::raftpb::Entry;

    const SLOW: Duration = Duration::from_millis(500);
    const TICK: Duration = Duration::from_millis(50);

    fn at(millis: u64) -> Time {
        Time::from_millis(millis)
    }

    fn entry(number: u64) -> Persist {
        let entries = vec![Entry { index: number, ..Entry::default() }];
        Persist { number, snapshot: None, hard_state: None, entries, sync: true, compact_to: None }
    }

    /// A master that has been in office for long, whose disk takes so long for a write each, while the others take
    /// `others`. Gives when it would hand over, within a minute.
    fn hands_over(own: u64, pause: u64, others: u64) -> Option<u64> {
        let mut disk = DiskWatch::default();
        let mut number = 0;
        let mut begun = None;
        let mut next = 0;
        for now in (0..60_000).step_by(50) {
            if let Some(began) = begun
                && now >= began + own
            {
                assert_eq!(disk.ends(at(now), number), Some(Duration::from_millis(now - began)));
                (begun, next) = (None, now + pause);
            }
            if begun.is_none() && now >= next {
                number += 1;
                disk.begins(at(now), &entry(number));
                begun = Some(now);
            }
            let acknowledged = begun.is_none_or(|began| now >= began + others);
            let matched = if acknowledged { number } else { number - 1 };
            if disk.compare(at(now), TICK, SLOW, matched).is_some() {
                return Some(now);
            }
        }
        None
    }

    #[test]
    fn a_disk_that_is_much_slower_than_the_others_has_its_master_hand_over() {
        let soon = hands_over(3_000, 0, 50).expect("it is slow");
        assert!((2_000..3_000).contains(&soon), "{soon}");
        assert!(hands_over(800, 0, 50).is_some(), "each sync is slow");
        assert!(hands_over(3_000, 5_000, 50).is_some(), "few writes, and each is slow");
    }

    #[test]
    fn a_disk_that_is_as_slow_as_the_others_or_hiccups_now_and_then_does_not() {
        assert_eq!(hands_over(3_000, 0, 1_500), None, "another master would be no better off");
        assert_eq!(hands_over(3_000, 0, 3_000), None);
        assert_eq!(hands_over(450, 0, 50), None, "not slow");
        assert_eq!(hands_over(1_000, 4_000, 50), None, "now and then");
    }

    #[test]
    fn a_new_master_leads_for_a_while() {
        let mut disk = DiskWatch::default();
        disk.takes_office(at(0));
        disk.begins(at(0), &entry(1));
        let mut handed_over =
            (0..60_000).step_by(50).filter(|now| disk.compare(at(*now), TICK, SLOW, 1).is_some());
        assert_eq!(handed_over.next(), Some(10_000));
    }

    #[test]
    fn a_sync_is_counted_from_when_the_disk_turns_to_it_and_a_snapshot_is_not_counted() {
        let mut disk = DiskWatch::default();
        disk.begins(at(0), &entry(1));
        disk.begins(at(100), &entry(2));
        disk.begins(at(900), &entry(3));
        assert_eq!(disk.ends(at(1_000), 1), Some(Duration::from_secs(1)));
        assert_eq!(disk.busy(at(1_200)), Some(Duration::from_millis(200)));
        disk.stood_still(Duration::from_millis(150));
        assert_eq!(disk.ends(at(1_200), 3), Some(Duration::from_millis(50)), "two, in one sync");
        assert_eq!(disk.ends(at(1_300), 3), None);
        let state = crate::StateAt {
            index: 4,
            term: holdfast_types::Term(1),
            voters: Vec::new(),
            learners: Vec::new(),
            state: holdfast_state::State::genesis(holdfast_state::Genesis {
                cell: "dev".to_owned(),
                cell_id: 7,
                members: Vec::new(),
                settings: holdfast_state::settings::defaults(),
            }),
        };
        disk.begins(at(2_000), &Persist { snapshot: Some(Box::new(state)), ..entry(4) });
        assert_eq!(disk.busy(at(9_000)), None);
        assert_eq!(disk.ends(at(9_000), 4), None);
    }
}
