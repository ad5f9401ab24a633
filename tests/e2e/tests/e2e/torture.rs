//! The torture rig itself, in short runs: it comes to a verdict, and leaves nothing behind.

use std::process::{Command, Output};

/// Runs the rig to its end.
fn torture(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-torture"));
    command.args(arguments).output().expect("the program was built with the tests")
}

/// A run of some seconds, in which nothing may be wrong. What it said.
fn pass(arguments: &[&str]) -> String {
    let output = torture(arguments);
    let said =
        [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert_eq!(output.status.code(), Some(0), "{said}");
    for part in ["done: ", "all replicas agree", "writes acknowledged", "passed"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
    said
}

#[test]
fn a_short_run_of_the_rig_finds_nothing_wrong() {
    // Where namespaces are not permitted, it says so, and does without.
    println!("{}", pass(&["--minutes", "0.17", "--seed", "11", "--clients", "3"]));
}

#[test]
fn without_namespaces_the_faults_that_need_none_are_done() {
    let said = pass(&["--minutes", "0.1", "--seed", "3", "--clients", "2", "--no-namespaces"]);
    assert!(!said.contains("isolated") && !said.contains("packet loss"), "{said}");
}

#[test]
fn a_wrong_command_line_is_told_apart_from_a_verdict() {
    for wrong in [["--minutes", "0"], ["--minutes", "soon"], ["--replicas", "2"], ["--scenario", "rest"]] {
        let output = torture(&wrong);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(wrong[0]), "it says what is wrong");
    }
}

#[test]
fn sessions_live_through_kills_of_the_master_with_their_locks_and_watches() {
    let output = torture(&["--scenario", "soak", "--sessions", "100", "--minutes", "0.01"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("held: nothing was lost in 1 kills"), "{output:?}");
}

#[test]
fn sessions_live_through_lost_packets() {
    let output = torture(&["--scenario", "loss", "--minutes", "0.2"]);
    if String::from_utf8_lossy(&output.stderr).contains("needs network namespaces") {
        return println!("no namespaces here, so nothing is tested");
    }
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("held: no session ended"), "{output:?}");
}
