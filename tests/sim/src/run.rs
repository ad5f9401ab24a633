//! One run from its seed to its verdict. A panic in a machine is caught here and becomes a verdict too.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};

use holdfast_types::plant;

use crate::plan::Options;
use crate::stats::Stats;
use crate::verdict::{Invariant, Report, Verdict, Violation};
use crate::world::World;

thread_local! {
    /// Where and why this thread panicked last.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Makes panics on a thread that runs a simulation silent: they are told by the run's verdict. To be called once.
pub fn catch_panics() {
    panic::set_hook(Box::new(|info| {
        PANIC.with(|panic| *panic.borrow_mut() = Some(info.to_string().replace('\n', " ")));
    }));
}

/// Runs a seed.
///
/// # Panics
///
/// If a fault is to be planted and this build cannot do that.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Report {
    assert!(plant(options.planted), "this build cannot plant faults");
    let mut world = match World::new(seed, options) {
        Ok(world) => world,
        Err(violation) => return refused(seed, violation),
    };
    if options.log {
        println!("seed {seed}: {}", world.plan());
    }
    let verdict = match panic::catch_unwind(AssertUnwindSafe(|| world.run())) {
        Ok(Ok(())) => Verdict::Passed,
        Ok(Err(violation)) => Verdict::of(violation),
        Err(payload) => Verdict::of(Violation::new(Invariant::Survival, panic_message(payload.as_ref()))),
    };
    Report {
        seed,
        verdict,
        ended: world.now(),
        faults: world.faults(),
        trace_hash: world.trace_hash(),
        stats: world.stats(),
        coverage: world.coverage(),
        plan: world.plan().to_string(),
    }
}

/// A run that could not even begin.
fn refused(seed: u64, violation: Violation) -> Report {
    let (ended, faults, trace_hash, stats, coverage, plan) = Default::default();
    Report { seed, verdict: Verdict::of(violation), ended, faults, trace_hash, stats, coverage, plan }
}

fn panic_message(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(message) = PANIC.with(|panic| panic.borrow_mut().take()) {
        return message;
    }
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message").to_owned()
}

/// Adds up the counts of many runs.
#[must_use]
pub fn sum<'r>(reports: impl IntoIterator<Item = &'r Report>) -> Stats {
    let mut total = Stats::default();
    for report in reports {
        total += &report.stats;
    }
    total
}
