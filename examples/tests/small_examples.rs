//! Runs the smaller examples as a user would, and reads what they print.

use std::process::Command;

/// Runs a program, and looks for these lines in this order.
fn play(program: &str, lines: &[&str]) {
    let output = Command::new(program).output().expect("the example can be started");
    let printed = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}\n{complaints}");
    let mut rest = &*printed;
    for line in lines {
        let Some(place) = rest.find(line) else {
            panic!("{line:?} is missing or out of order in:\n{printed}")
        };
        rest = &rest[place + line.len()..];
    }
    assert!(!printed.contains("FAILED"), "{printed}");
}

#[test]
fn a_configuration_is_fresh_at_every_read_and_costs_nothing() {
    let lines = [
        "ok  what the service reads is what the operator has just written",
        "allows 250 requests",
        "allows 40 requests",
        "looked at its configuration 100000 times, and served 40 requests",
        "ok  that took no message to the cell",
        "All claims hold.",
    ];
    play(env!("CARGO_BIN_EXE_config-watch"), &lines);
}

#[test]
fn servers_that_die_or_stop_are_forgotten() {
    let lines = [
        r#"knows of ["ada", "bob", "cy"]"#,
        "bob dies",
        r#"knows of ["ada", "cy"]"#,
        "ada stops in good order",
        r#"knows of ["cy"]"#,
        "All claims hold.",
    ];
    play(env!("CARGO_BIN_EXE_service-registry"), &lines);
}
