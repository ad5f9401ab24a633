//! Runs every target: over the inputs in `corpus/`, and over inputs that proptest makes and changes.
//!
//! Each target gets a few seconds, or HOLDFAST_FUZZ_SECONDS of them, and then other inputs at every run. An input that
//! fails is made as small as can be, and is left in the corpus, where the next run begins.

mod memory;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use holdfast_fuzz::{TARGETS, Target};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

/// What each target gets, unless the environment says otherwise.
const SECONDS: u64 = 3;
/// So many inputs between two looks at the clock.
const CASES: u32 = 50;

fn corpus(target: &Target) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target.name)
}

fn seeds(target: &Target) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(corpus(target)).expect("every target has a corpus");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("the corpus can be read").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).expect("the corpus can be read")).collect()
}

/// Runs a target, and looks at the memory that it took.
fn run(target: &Target, input: &[u8]) {
    let (most, limit) = (memory::most_during(|| (target.run)(input)), target.bytes_max(input.len()));
    assert!(
        most <= limit,
        "{} took {most} bytes for {} of input, and may take {limit}",
        target.name,
        input.len()
    );
}

/// Bytes of every kind: few, many, and those of a seed with some of them changed.
fn inputs(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let change = (any::<prop::sample::Index>(), any::<u8>(), 0..4_u8);
    let changed = (prop::sample::select(seeds), prop::collection::vec(change, 0..6));
    let changed = changed.prop_map(|(mut input, changes)| {
        for (place, byte, kind) in changes {
            let place = place.index(input.len() + 1);
            match kind {
                0 => input.insert(place, byte),
                1 => input.truncate(place),
                _ if place < input.len() => input[place] = byte,
                _ => input.push(byte),
            }
        }
        input
    });
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..64),
        3 => prop::collection::vec(any::<u8>(), 64..900),
        2 => changed,
    ]
}

fn replay(name: &str) -> Target {
    let target = *TARGETS.iter().find(|target| target.name == name).expect("the target is in the list");
    for seed in seeds(&target) {
        run(&target, &seed);
    }
    target
}

fn attack(name: &str) {
    let target = replay(name);
    let given = std::env::var("HOLDFAST_FUZZ_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    let until = Instant::now() + Duration::from_secs(given.unwrap_or(SECONDS));
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = match given {
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
        Some(_) => TestRunner::new(config),
    };
    let strategy = inputs(seeds(&target));
    let mut cases = 0;
    while Instant::now() < until {
        let ran = runner.run(&strategy, |input| {
            run(&target, &input);
            Ok(())
        });
        cases += CASES;
        if let Err(TestError::Fail(reason, input)) = ran {
            let path = corpus(&target).join(format!("found-{}", input.len()));
            fs::write(&path, &input).expect("the corpus can be written");
            panic!(
                "{} failed after {cases} inputs: {reason}; the input is in {}",
                target.name,
                path.display()
            );
        }
    }
    println!("{}: {cases} inputs", target.name);
}

/// One test for each target, so that they run side by side.
macro_rules! attacks {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                attack(stringify!($name));
            }
        )*

        #[test]
        fn every_target_is_attacked() {
            assert_eq!(TARGETS.map(|target| target.name), [$(stringify!($name)),*]);
        }
    };
}

attacks! {
    paths sequencers client_frames calls server_frames log_entries boots snapshot_files state_records configurations
    peer_messages
}
