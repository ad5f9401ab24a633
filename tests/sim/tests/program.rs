//! The program tells how a run ended by its exit status, and a failure by all that it takes to see it again.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use holdfast_sim::COMMIT;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn program(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-sim"));
    command.args(arguments.split(' '));
    command
}

fn run(arguments: &str) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = program(arguments).output().expect("the program runs");
    (status.code(), String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr))
}

#[test]
fn exit_statuses_tell_crash_safety_and_liveness_apart() {
    for (invariant, status, told) in
        [("I10", 3, "LIVENESS FAILURE"), ("survival", 4, "CRASH"), ("I7", 5, "SAFETY FAILURE")]
    {
        for which in ["--seed 3", "--seeds 3..5"] {
            let (code, text) = run(&format!("{which} --seconds 1 --pretend {invariant}"));
            assert_eq!(code, Some(status), "{text}");
            assert!(text.contains(told), "{text}");
        }
    }
    let (code, text) = run("--seeds 3..5 --seconds 1");
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn a_failure_names_seed_and_commit_and_the_command_that_replays_it() {
    let (_, text) = run("--seeds 3..4 --seconds 1 --clients 4 --pretend I7");
    assert!(text.contains("seed 3: SAFETY FAILURE, I7 durability: pretended"), "{text}");
    let replay = "cargo run --release -p holdfast-sim -- --seed 3 --clients 4 --seconds 1 --pretend I7";
    assert!(text.contains(&format!("at commit {COMMIT}; replay: {replay}\n")), "{text}");
    assert!(!COMMIT.is_empty());
}

#[test]
fn wrong_command_lines_are_refused_with_what_would_be_right() {
    for (arguments, told) in [
        ("--seeds 9", "write A..B"),
        ("--seeds 9..9", "holds no seed"),
        ("--log", "--seed <SEED>"),
        ("--seed 1 --failures 3", "cannot be used with"),
        ("--seed 1 --seeds 1..2", "cannot be used with"),
        ("--seed 1 --forever", "cannot be used with"),
        ("--seeds 1..2 --shrink", "cannot be used with"),
        ("--seeds 1..2 --only 3", "cannot be used with"),
        ("--seed 1 --only x", "write numbers"),
        ("--seed 1 --calm wind", "no such condition: loss"),
        ("--seed 1 --pretend I11", "no such invariant: I1"),
        ("--seed 1 --replicas 0", "0 is not in 1..=9"),
        ("--seed 1 --seconds 0", "0 is not in"),
        ("--forever --until-found", "cannot be used with"),
        ("--seed 1 --planted x", "no such fault"),
    ] {
        let (code, text) = run(arguments);
        assert_eq!(code, Some(2), "{arguments}: {text}");
        assert!(text.contains(told), "{arguments}: {text}");
    }
}

#[test]
fn a_failure_is_shrunk_to_what_it_takes() {
    let (code, text) = run("--seed 3 --seconds 9 --pretend I10 --shrink");
    assert_eq!(code, Some(3), "the failure's status: {text}");
    let replay = "-- --seed 3 --clients 1 --seconds 1 --only none --calm loss,doubles,late,flights,syncs --pretend I10";
    assert!(text.contains(replay), "{text}");
    assert!(text.contains("the smallest that fails has 0 of "), "{text}");
}

#[test]
fn what_does_not_fail_is_not_shrunk() {
    let (code, text) = run("--seed 3 --seconds 1 --shrink");
    assert_eq!(code, Some(0), "{text}");
    assert!(text.ends_with("passed\n"), "{text}");
}

#[test]
fn a_run_without_end_stops_when_enough_seeds_have_failed() {
    let (code, text) = run("--forever 5 --failures 2 --jobs 1 --seconds 1 --pretend I1");
    assert_eq!(code, Some(5), "{text}");
    assert!(text.contains("2 seeds: 0 passed, 2 unsafe, 0 stuck, 0 crashed"), "{text}");
}

#[test]
fn an_interrupted_run_without_end_sums_up_what_it_did() {
    let mut child =
        program("--forever --jobs 1 --seconds 1").stdout(Stdio::piped()).spawn().expect("the program runs");
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines().map(Result::unwrap);
    let first = lines.next().expect("a line");
    assert!(first.starts_with("from seed ") && first.ends_with(COMMIT), "{first}");
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).expect("it is there");
    let text: Vec<String> = lines.collect();
    assert_eq!(child.wait().expect("it ends").code(), Some(0), "{text:?}");
    assert!(text.iter().any(|line| line.contains("0 unsafe, 0 stuck, 0 crashed")), "{text:?}");
}
