//! Runs the example as a user would, and reads its timeline.

use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The whole show must be shorter.
const SHOW_MAX: Duration = Duration::from_secs(60);

fn run() -> Output {
    Command::new(env!("CARGO_BIN_EXE_leader-election")).output().expect("the example can be started")
}

#[test]
fn every_claim_of_the_show_holds_and_it_takes_less_than_a_minute() {
    let beginning = Instant::now();
    let output = run();
    let timeline = String::from_utf8_lossy(&output.stdout);
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{timeline}\n{complaints}");
    assert!(beginning.elapsed() < SHOW_MAX, "{timeline}");
    let mut rest = &*timeline;
    // In this order.
    for line in [
        "Act 1: an election",
        "is primary at 127.0.0.1:",
        "who asks there hears",
        "Act 2: the primary dies",
        "is killed (SIGKILL)",
        "took over after",
        "Act 3: the master replica dies",
        "the lock is held as before",
        "is still primary, in the same session",
        "is started again, and has caught up",
        "Act 4: the primary stands still",
        "is stopped (SIGSTOP)",
        "took over after",
        "goes on (SIGCONT)",
        "the resource refuses the late order",
        "one primary after the other",
        "All claims hold.",
    ] {
        let Some(place) = rest.find(line) else {
            panic!("{line:?} is missing or out of order in:\n{timeline}")
        };
        rest = &rest[place + line.len()..];
    }
    assert!(!timeline.contains("FAILED"), "{timeline}");
}

#[test]
fn the_hidden_roles_refuse_to_run_without_the_show() {
    let program = env!("CARGO_BIN_EXE_leader-election");
    // Nobody's child has the process 1 as a parent and this test as its real one.
    let arguments =
        ["candidate", "--parent=1", "--name=x", "--addresses=127.0.0.1:1", "--resource=127.0.0.1:1"];
    let output = Command::new(program).args(arguments).output().expect("the example can be started");
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("the parent is gone"));
}
