//! I1, I2 and I4, from what clients believed of their locks and what reached the resource.

use std::collections::BTreeMap;

use holdfast_proto::client::v1::LockMode;
use holdfast_sim::checker::beliefs::{self, Belief};
use holdfast_sim::checker::resource::{self, Order};
use holdfast_sim::{Invariant, Violation};

use super::Evidence;
use crate::torture::client::LOCK_DELAY;
use crate::torture::clock::nanos;
use crate::torture::history::{Event, History, Record};

/// A belief, and whether it ended because the client let go or the lease was all there was to it.
struct Ended {
    belief: Belief,
    let_go: bool,
    /// Until when its session was alive at least, and so the lock not lost.
    alive_until: u64,
}

pub(super) fn exclude_each_other(evidence: &Evidence) -> Result<(), Violation> {
    let beliefs: Vec<Belief> = all(evidence).map(|ended| ended.belief).collect();
    beliefs::check(&beliefs)
}

/// A lock that its holder did not let go was lost when his lease was over, at the earliest.
pub(super) fn are_delayed_when_lost(evidence: &Evidence) -> Result<(), Violation> {
    let mut last: BTreeMap<(String, String, u64), Ended> = BTreeMap::new();
    for ended in all(evidence) {
        let Belief { client, path, generation, .. } = &ended.belief;
        last.insert((client.clone(), path.clone(), *generation), ended);
    }
    for ended in last.values().filter(|ended| !ended.let_go) {
        let (lost, earliest) = (&ended.belief, ended.alive_until.saturating_add(nanos(LOCK_DELAY)));
        let conflicts = |other: &Belief| {
            other.path == lost.path
                && other.generation > lost.generation
                && other.from < earliest
                && (other.mode == LockMode::Exclusive || lost.mode == LockMode::Exclusive)
        };
        if let Some(other) = last.values().map(|ended| &ended.belief).find(|other| conflicts(other)) {
            let what = format!("{other:?} came within {LOCK_DELAY:?} of the loss of {lost:?}");
            return Err(Violation::new(Invariant::LockDelay, what));
        }
    }
    Ok(())
}

pub(super) fn protect_the_resource(evidence: &Evidence) -> Result<(), Violation> {
    let beliefs: Vec<Belief> = all(evidence).map(|ended| ended.belief).collect();
    let mut by_path: BTreeMap<&str, Vec<(Order, bool)>> = BTreeMap::new();
    for arrival in &evidence.arrivals {
        let believed = beliefs.iter().any(|belief| {
            belief.client == arrival.holder
                && belief.path == arrival.path
                && belief.generation == arrival.generation
                && (belief.from..belief.until).contains(&arrival.at)
        });
        let order = Order { holder: arrival.holder.clone(), generation: arrival.generation, believed };
        by_path.entry(&arrival.path).or_default().push((order, arrival.done));
    }
    by_path.values().try_for_each(|orders| resource::check(orders))
}

/// While its holder believes in a lock, and asks, its sequencer is valid.
pub(super) fn have_valid_sequencers(evidence: &Evidence) -> Result<(), Violation> {
    for history in &evidence.histories {
        let believed = of_client(history);
        for Record { at, event } in &history.records {
            let Event::Checked { path, generation, began, valid: false } = event else { continue };
            // It believed before it asked, and does so still. A belief that begins later is the same grant's.
            let same = |belief: &&Belief| belief.path == *path && belief.generation == *generation;
            let beliefs = || believed.iter().map(|ended| &ended.belief).filter(same);
            if beliefs().any(|belief| belief.from <= *began) && beliefs().any(|belief| belief.until > *at) {
                let what = format!(
                    "{} holds {path} at {generation} from before {began} until after {at}, and was told between that its \
                     sequencer is not valid",
                    history.client
                );
                return Err(Violation::new(Invariant::Fencing, what));
            }
        }
    }
    Ok(())
}

fn all(evidence: &Evidence) -> impl Iterator<Item = Ended> {
    evidence.histories.iter().flat_map(of_client)
}

/// The beliefs of one client. Each goes on until the client lets go, its session is over, or its lease is.
fn of_client(history: &History) -> Vec<Ended> {
    // Read backwards: what comes later is known when a belief is met.
    let mut let_go: BTreeMap<(&str, u64), u64> = BTreeMap::new();
    let (mut over, mut alive) = (u64::MAX, 0);
    let mut found = Vec::new();
    for Record { at, event } in history.records.iter().rev() {
        match event {
            Event::Over { .. } => (over, alive) = (*at, 0),
            Event::Alive { until } => alive = alive.max(*until),
            Event::LetsGo { path, generation } => {
                let_go.insert((path, *generation), *at);
            }
            Event::Believes { path, generation, shared, until } => {
                let ends = let_go.get(&(path.as_str(), *generation)).copied();
                let belief = Belief {
                    client: history.client.clone(),
                    path: path.clone(),
                    mode: if *shared { LockMode::Shared } else { LockMode::Exclusive },
                    generation: *generation,
                    from: *at,
                    until: (*until).min(over).min(ends.unwrap_or(u64::MAX)),
                };
                let alive_until = alive.min(over).max(belief.until);
                found.push(Ended { belief, let_go: ends.is_some(), alive_until });
            }
            _ => {}
        }
    }
    found.reverse();
    found
}
