//! Faults are numbered, and one can be left out without moving the others.

use std::process::Command;

/// What the timeline says of the faults of a run: when, and which.
fn faults(more: &[&str]) -> Vec<(String, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-sim"));
    let output = command.args(["--seed", "1", "--seconds", "20", "--log"]).args(more).output();
    let text = String::from_utf8(output.expect("the program runs").stdout).expect("it prints text");
    let line = |line: &str| {
        let (at, fault) = line.split_once("!!! fault ")?;
        Some((at.trim().to_owned(), fault.split(':').next()?.to_owned()))
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn faults_that_are_left_out_do_not_move_the_others() {
    let all = faults(&[]);
    let numbers: Vec<String> = (1..=all.len()).map(|number| number.to_string()).collect();
    assert!(all.len() >= 4, "{all:?}");
    assert_eq!(all.iter().map(|(_, number)| number.clone()).collect::<Vec<_>>(), numbers);
    assert_eq!(faults(&["--only", "2,4"]), [all[1].clone(), all[3].clone()]);
    assert_eq!(faults(&["--only", "none"]), []);
}
