//! A run follows from its seed alone: everything else that the simulator shows rests on that.

use std::process::Command;

use holdfast_sim::{Options, Report, run};

const SECONDS: u64 = 8;

fn run_briefly(seed: u64) -> Report {
    run(seed, &Options { seconds: SECONDS, ..Options::default() })
}

#[test]
fn the_same_seed_twice_in_one_process_gives_the_same_trace() {
    for seed in [1, 2, 3] {
        let (first, second) = (run_briefly(seed), run_briefly(seed));
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!(first.stats, second.stats, "seed {seed}");
        assert!(first.stats.events > 1_000, "seed {seed} did next to nothing: {}", first.stats);
    }
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(run_briefly(1).trace_hash, run_briefly(2).trace_hash);
}

#[test]
fn the_same_seed_in_two_processes_gives_the_same_trace() {
    let told = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-sim"));
        let output = command.args(["--seed", "4", "--seconds", &SECONDS.to_string()]).output();
        let output = output.expect("the program runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let text = String::from_utf8(output.stdout).expect("it prints text");
        text.lines().find(|line| line.starts_with("trace hash")).expect("it prints the hash").to_owned()
    };
    let first = told();
    assert_eq!(first, told());
    assert_eq!(
        first,
        format!("trace hash {:016x}", run_briefly(4).trace_hash),
        "nor does the timeline change it"
    );
}

#[test]
fn the_timeline_does_not_change_the_run() {
    let output = Command::new(env!("CARGO_BIN_EXE_holdfast-sim"))
        .args(["--seed", "5", "--log", "--seconds", &SECONDS.to_string()])
        .output()
        .expect("the program runs");
    let text = String::from_utf8(output.stdout).expect("it prints text");
    assert!(text.contains("takes office"), "a timeline tells who is master");
    assert!(text.contains(&format!("trace hash {:016x}", run_briefly(5).trace_hash)));
}

#[test]
fn an_ordinary_build_says_how_to_plant_a_fault() {
    let output = Command::new(env!("CARGO_BIN_EXE_holdfast-sim"))
        .args(["--seed", "1", "--seconds", "1", "--planted", "lease-from-reply"])
        .output()
        .expect("the program runs");
    if holdfast_types::Planted::POSSIBLE {
        assert_ne!(output.status.code(), Some(2), "a build that can plant faults takes it");
    } else {
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("--cfg holdfast_planted"));
    }
}
