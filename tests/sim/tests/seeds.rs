//! A fixed set of seeds passes, and the runs are worth something: what they are meant to bring about happens.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use holdfast_sim::{Options, Report, Verdict, run, sum};

/// The seeds of every test run. Whoever wants others runs the program.
const SEEDS: std::ops::Range<u64> = 0..36;

fn run_all() -> Vec<Report> {
    let next = AtomicU64::new(SEEDS.start);
    let reports = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS.end {
                        break;
                    }
                    let report = run(seed, &Options { seconds: 15, ..Options::default() });
                    reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
                }
            });
        }
    });
    reports.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn every_seed_passes_and_every_fault_happens() {
    let reports = run_all();
    assert_eq!(reports.len() as u64, SEEDS.end - SEEDS.start);
    for report in &reports {
        assert_eq!(
            report.verdict,
            Verdict::Passed,
            "seed {0}; replay: cargo run --release -p holdfast-sim -- --seed {0} --seconds 15 --log",
            report.seed
        );
    }
    let stats = sum(&reports);
    assert_eq!(stats.missing(), Vec::<&str>::new(), "{stats}");
}
