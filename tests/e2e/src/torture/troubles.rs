//! What has gone wrong in a run, and whom it disturbed when: what a lost session is explained by.
//!
//! Invariant: an explanation covers what a fault can do to an honest cell, and no more. A single replica that dies,
//! stops or is cut off costs a fail-over when it goes and perhaps one when it comes back, and nothing in between.

use std::collections::BTreeMap;
use std::time::Duration;

use super::clock::nanos;
use super::run::LEASE;
use super::schedule::Kind;

/// How long after a change of the cell a fail-over may take on a machine with much to do.
const SETTLES: Duration = Duration::from_secs(3);

/// A fault that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What.
    pub kind: Kind,
    /// To whom.
    pub whom: String,
    /// When.
    pub from: u64,
    /// Until when; `None` as long as it goes on.
    pub until: Option<u64>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Troubles(Vec<Trouble>);

impl Troubles {
    /// A fault begins. Returns its place.
    pub fn begin(&mut self, kind: Kind, whom: impl Into<String>, from: u64) -> usize {
        self.0.push(Trouble { kind, whom: whom.into(), from, until: None });
        self.0.len() - 1
    }

    /// A fault is over.
    pub fn end(&mut self, place: usize, at: u64) {
        if let Some(trouble) = self.0.get_mut(place) {
            trouble.until = Some(at);
        }
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Trouble> {
        self.0.iter()
    }

    /// How often there was each kind.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Kind, u64> {
        let mut counts = BTreeMap::new();
        self.0.iter().for_each(|trouble| *counts.entry(trouble.kind).or_default() += 1);
        counts
    }

    /// The longest time without a break between two moments in which this client may have been unable to reach a
    /// master.
    #[must_use]
    pub fn longest(&self, client: &str, from: u64, until: u64) -> Duration {
        let mut spans: Vec<(u64, u64)> = self
            .0
            .iter()
            .flat_map(|trouble| trouble.disturbs(client, until))
            .map(|(begins, ends)| (begins.max(from), ends.min(until)))
            .filter(|(begins, ends)| begins < ends)
            .collect();
        spans.sort_unstable();
        let (mut longest, mut current) = (0, (0, 0));
        for (begins, ends) in spans {
            current = if begins <= current.1 { (current.0, ends.max(current.1)) } else { (begins, ends) };
            longest = longest.max(current.1 - current.0);
        }
        Duration::from_nanos(longest)
    }
}

impl Trouble {
    /// When it may keep a client from reaching a master.
    fn disturbs(&self, client: &str, now: u64) -> Vec<(u64, u64)> {
        let until = self.until.unwrap_or(now);
        let settles = nanos(SETTLES);
        match self.kind {
            Kind::KillClient | Kind::PauseClient | Kind::CutClient | Kind::LateAnswers
                if self.whom != client =>
            {
                Vec::new()
            }
            // Late answers come in time. They are late for a lease at least, and only then there are none.
            Kind::LateAnswers => vec![(self.from + nanos(LEASE), until + settles)],
            // Whoever connects again is heard.
            Kind::HalfClose => vec![(self.from, self.from + settles)],
            Kind::SplitMaster | Kind::SleepingMaster if self.whom.split(' ').any(|name| name == client) => {
                vec![(self.from, until + settles)]
            }
            Kind::Kill
            | Kind::KillMaster
            | Kind::Pause
            | Kind::PauseMaster
            | Kind::Isolate
            | Kind::IsolateMaster
            | Kind::SplitMaster
            | Kind::SleepingMaster
            | Kind::KillHolder
            | Kind::FullDisk
            | Kind::Wipe => vec![(self.from, self.from + settles), (until, until + settles)],
            _ => vec![(self.from, until + settles)],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn troubles(of: &[(Kind, &str, u64, u64)]) -> Troubles {
        let mut troubles = Troubles::default();
        for (kind, whom, from, until) in of {
            let place = troubles.begin(*kind, *whom, from * SECOND);
            troubles.end(place, until * SECOND);
        }
        troubles
    }

    fn longest(of: &[(Kind, &str, u64, u64)]) -> u64 {
        troubles(of).longest("c1", 0, 100 * SECOND).as_secs()
    }

    #[test]
    fn one_replica_that_is_away_for_long_disturbs_for_two_fail_overs() {
        assert_eq!(longest(&[(Kind::KillMaster, "replica 1", 10, 30)]), 3);
        assert_eq!(longest(&[(Kind::KillMaster, "replica 1", 10, 12)]), 5, "they may follow each other");
    }

    #[test]
    fn connections_that_are_closed_once_disturb_until_others_are_made() {
        assert_eq!(longest(&[(Kind::HalfClose, "replica 1", 10, 12)]), 3);
    }

    #[test]
    fn what_hits_the_cell_disturbs_everybody_and_what_hits_a_client_only_that() {
        assert_eq!(longest(&[(Kind::Ring, "all", 10, 20)]), 13);
        assert_eq!(longest(&[(Kind::PauseClient, "c1", 10, 20)]), 13);
        assert_eq!(longest(&[(Kind::PauseClient, "c2", 10, 20)]), 0);
        assert_eq!(longest(&[(Kind::LateAnswers, "c2", 10, 24)]), 0, "only one client is isolated at last");
        assert_eq!(longest(&[(Kind::LateAnswers, "c1", 10, 24)]), 13, "late answers alone are in time");
        assert_eq!(longest(&[(Kind::SplitMaster, "replica 1 with c1 c3", 10, 20)]), 13);
        assert_eq!(longest(&[(Kind::SplitMaster, "replica 1 with c2 c10", 10, 20)]), 3, "a fail-over");
    }

    #[test]
    fn troubles_that_overlap_make_one_and_others_do_not() {
        assert_eq!(longest(&[(Kind::Ring, "all", 10, 20), (Kind::Loss, "all", 22, 30)]), 23);
        assert_eq!(longest(&[(Kind::Ring, "all", 10, 20), (Kind::Loss, "all", 24, 30)]), 13);
    }
}
