//! I5 to I8, from what clients read, wrote and were told of files.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use holdfast_sim::checker::changes::Changes;
use holdfast_sim::checker::counters::Counters;
use holdfast_sim::checker::histories::Histories;
use holdfast_sim::checker::linear::Call;
use holdfast_sim::checker::register::Op;
use holdfast_sim::{Invariant, Violation};

use super::{Evidence, RIG};
use crate::torture::client::number;
use crate::torture::history::{Event, History, Record};

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Wrote {
        at: u64,
        generation: u64,
    },
    Refused,
    /// Nobody was told.
    Unknown,
}

/// A write.
struct Write<'h> {
    client: &'h str,
    path: &'h str,
    instance: u64,
    contents: &'h str,
    if_generation: Option<u64>,
    began: u64,
    outcome: Outcome,
}

/// Everything that is known of a file has one order: it is written, and read by clients and by the rig at the end, so
/// that what was acknowledged and is gone is found, too.
pub(super) fn are_linearizable(evidence: &Evidence) -> Result<(), Violation> {
    let mut histories = Histories::default();
    for history in &evidence.histories {
        for Record { at, event } in &history.records {
            if let Event::Read { path, instance, began, contents, generation, .. } = event {
                let contents = Bytes::copy_from_slice(contents.as_bytes());
                let op = Op::Read { contents, generation: *generation };
                histories.record(path, *instance, Call { op, began: *began, ended: Some(*at) });
            }
        }
        for write in writes(history) {
            let (generation, ended) = match write.outcome {
                Outcome::Wrote { at, generation } => (Some(generation), Some(at)),
                Outcome::Unknown => (None, None),
                Outcome::Refused => continue,
            };
            let contents = Bytes::copy_from_slice(write.contents.as_bytes());
            let op = Op::Write { contents, if_generation: write.if_generation, generation };
            histories.record(write.path, write.instance, Call { op, began: write.began, ended });
        }
    }
    histories.check().map(drop)
}

/// What was refused never happened, and counters are where those who counted have brought them.
pub(super) fn are_counted_once(evidence: &Evidence) -> Result<(), Violation> {
    let mut counters = Counters::default();
    let mut refused = BTreeSet::new();
    for write in evidence.histories.iter().flat_map(writes) {
        let counts = write.path.contains("/counter-");
        match write.outcome {
            Outcome::Refused => {
                refused.insert((write.path, write.contents));
            }
            Outcome::Wrote { .. } if counts => {
                counters.counted(write.path, write.client, number(write.contents))?;
            }
            Outcome::Unknown if counts => counters.unknown(write.path),
            _ => {}
        }
    }
    for history in &evidence.histories {
        for Record { event, .. } in &history.records {
            let Event::Read { path, contents, .. } = event else { continue };
            if refused.contains(&(path.as_str(), contents.as_str())) {
                let what = format!("{} read {contents:?} of {path}, which was refused", history.client);
                return Err(Violation::new(Invariant::ExactlyOnce, what));
            }
            if history.client == RIG && path.contains("/counter-") {
                counters.check(path, number(contents))?;
            }
        }
    }
    Ok(())
}

/// Whoever watched to the end was told of the last change.
pub(super) fn are_watched_without_a_gap(evidence: &Evidence) -> Result<(), Violation> {
    // Who was killed watches no more.
    are_told(&evidence.histories, |history| {
        history.records.iter().any(|record| record.event == Event::Stopped)
    })
}

/// Whoever is still there has been told of the last change of what it watches: of those that these histories know, and
/// of what the rig found at the end.
pub(super) fn are_told(histories: &[History], is_there: impl Fn(&History) -> bool) -> Result<(), Violation> {
    let mut changes = Changes::default();
    for write in histories.iter().flat_map(writes) {
        match write.outcome {
            Outcome::Wrote { generation, .. } => changes.changed(write.path, generation),
            Outcome::Unknown => changes.unknown(write.path),
            Outcome::Refused => {}
        }
    }
    for Record { event, .. } in
        histories.iter().filter(|history| history.client == RIG).flat_map(|rig| &rig.records)
    {
        // Also by a write that nobody was told of.
        if let Event::Read { path, generation, .. } | Event::Changed { path, generation } = event {
            changes.changed(path, *generation);
        }
    }
    for history in histories {
        let mut watches = BTreeMap::new();
        for Record { event, .. } in &history.records {
            match event {
                Event::Watches { path, generation } => {
                    let watch = changes.watch(&history.client, path, *generation);
                    watches.insert(path, watch);
                }
                Event::Told { path, generation } => {
                    watches.get(path).into_iter().for_each(|watch| changes.told(*watch, *generation));
                }
                Event::Over { closed: false, .. } => {
                    std::mem::take(&mut watches).into_values().for_each(|watch| changes.end(watch));
                }
                _ => {}
            }
        }
        if !is_there(history) {
            watches.into_values().for_each(|watch| changes.end(watch));
        }
    }
    changes.check()
}

/// All writes of a client, in the order in which they began.
fn writes(history: &History) -> Vec<Write<'_>> {
    let mut writes: BTreeMap<u64, Write<'_>> = BTreeMap::new();
    for Record { at, event } in &history.records {
        match event {
            Event::Writing { call, path, instance, contents, if_generation } => {
                let (client, outcome) = (history.client.as_str(), Outcome::Unknown);
                let (instance, if_generation, began) = (*instance, *if_generation, *at);
                writes
                    .insert(*call, Write { client, path, instance, contents, if_generation, began, outcome });
            }
            Event::Wrote { call, generation } => {
                if let Some(write) = writes.get_mut(call) {
                    write.outcome = Outcome::Wrote { at: *at, generation: *generation };
                }
            }
            Event::Refused { call } => {
                if let Some(write) = writes.get_mut(call) {
                    write.outcome = Outcome::Refused;
                }
            }
            _ => {}
        }
    }
    writes.into_values().collect()
}
