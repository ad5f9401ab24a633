//! How strong the simulator is: every fault that can be planted, and how soon it is found, as a table in Markdown.
//!
//! A fault that no seed of the range finds is tried with the seeds after it, up to [`SEEDS_MAX`] in all. What came of
//! each is told as it comes, and the table follows.

use std::collections::BTreeMap;
use std::ops::Range;

use holdfast_sim::{Invariant, Options};
use holdfast_types::Planted;

use crate::many::Batch;
use crate::tally::Tally;

/// A fault that so many seeds do not find means that a workload, a fault or a checker is missing.
const SEEDS_MAX: u64 = 10_000;

/// How one fault was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    fault: Planted,
    /// How many seeds it took, and as what it was found then; `None` if none of [`SEEDS_MAX`] did.
    first: Option<(u64, Invariant)>,
    /// So many of the range found it, by what was broken.
    by: BTreeMap<Invariant, u64>,
}

/// Plants each fault in turn and tells how it was found. `batch` has the seeds.
pub(crate) fn measure(faults: &[Planted], batch: &Batch) -> Vec<Found> {
    let one = |(place, fault): (usize, &Planted)| {
        let found = measure_one(*fault, batch);
        let (place, name) = (place + 1, fault.name());
        println!("{place} of {}, {name}: {}; seeds needed: {}", faults.len(), found.told(), found.needed());
        found
    };
    faults.iter().enumerate().map(one).collect()
}

/// The table, and how many faults were not found.
pub(crate) fn table(all: &[Found], seeds: &Range<u64>) -> (String, usize) {
    let count = seeds.end - seeds.start;
    let mut table = format!(
        "| `--planted` | what it does | from | of {count} seeds found as | seeds needed |\n|---|---|---|---|---|\n"
    );
    for found in all {
        let (name, what, origin) = (found.fault.name(), found.fault.what(), found.fault.origin());
        table += &format!("| `{name}` | {what} | {origin} | {} | {} |\n", found.told(), found.needed());
    }
    (table, all.iter().filter(|found| found.first.is_none()).count())
}

impl Found {
    fn needed(&self) -> String {
        match self.first {
            Some((needed, invariant)) if self.by.is_empty() => format!("{needed}, as {}", invariant.code()),
            Some((needed, _)) => needed.to_string(),
            None => format!("not found in {SEEDS_MAX}"),
        }
    }

    /// As what it was found, the most frequent first.
    fn told(&self) -> String {
        let mut by: Vec<_> = self.by.iter().collect();
        by.sort_by_key(|(_, seeds)| std::cmp::Reverse(**seeds));
        let told: Vec<String> =
            by.into_iter().map(|(invariant, seeds)| format!("{}: {seeds}", invariant.code())).collect();
        if told.is_empty() { "none".to_owned() } else { told.join(", ") }
    }
}

fn measure_one(fault: Planted, batch: &Batch) -> Found {
    let options = Options { planted: Some(fault), ..batch.options.clone() };
    let run = |seeds: Range<u64>, failures_max: u64| -> Tally {
        Batch { seeds, options: options.clone(), failures_max, ..batch.clone() }.run(|| false, |_| {})
    };
    let Range { start, end } = batch.seeds;
    let tally = run(start..end, u64::MAX);
    let mut first = tally.first_failure();
    if first.is_none() && end - start < SEEDS_MAX {
        first = run(end..start + SEEDS_MAX, 1).first_failure();
    }
    let first = first.map(|(seed, invariant)| (seed - start + 1, invariant));
    Found { fault, first, by: tally.by_invariant().clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_tells_of_each_fault_how_it_was_found() {
        let by = BTreeMap::from([(Invariant::MutualExclusion, 2), (Invariant::LeaseSafety, 20)]);
        let found = |fault, first, by| Found { fault, first, by };
        let late = Some((4_000, Invariant::Durability));
        let all = [
            found(Planted::LeaseFromReply, Some((4, Invariant::LeaseSafety)), by),
            found(Planted::ForgottenSync, late, BTreeMap::new()),
            found(Planted::SharedBar, None, BTreeMap::new()),
        ];
        let (table, missing) = table(&all, &(0..300));
        let rows: Vec<&str> = table.lines().collect();
        assert_eq!((rows.len(), missing), (5, 1), "{table}");
        assert!(rows[2].starts_with("| `lease-from-reply` | The client counts"), "{table}");
        assert!(rows[2].ends_with("| issue | I3: 20, I1: 2 | 4 |"), "{table}");
        assert!(rows[3].ends_with("| none | 4000, as I7 |"), "{table}");
        assert!(rows[4].ends_with("| none | not found in 10000 |"), "{table}");
    }
}
