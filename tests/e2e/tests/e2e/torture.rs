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
fn options_that_would_have_no_effect_are_refused_and_say_why() {
    let given = [
        ("soak", ["--seed", "7"]),
        ("loss", ["--seed", "7"]),
        ("partition", ["--clients", "3"]),
        ("loss", ["--faults", "kill-master"]),
        ("torture", ["--sessions", "10"]),
        ("soak", ["--greedy", "read-dir"]),
        ("greedy", ["--seed", "7"]),
        ("torture", ["--greedy-percent", "5"]),
    ];
    for (scenario, option) in given {
        let output = torture(&[&["--scenario", scenario], &option[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{option:?} of {scenario}");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(&format!("{}: ", option[0])), "{said}");
    }
}

#[test]
fn an_ordinary_build_plants_nothing_and_says_so() {
    if holdfast_types::Planted::POSSIBLE {
        return;
    }
    for (name, said) in [("lease-without-round", "--cfg holdfast_planted"), ("nonsense", "no fault")] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-torture"));
        let output =
            command.env("HOLDFAST_PLANTED", name).output().expect("the program was built with the tests");
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains(said));
    }
    // And a replica does not know the variable at all: it says so, before it fails for want of a directory.
    let mut command = Command::new(env!("CARGO_BIN_EXE_e2e-replica"));
    let output = command
        .env("HOLDFAST_PLANTED", "lease-without-round")
        .args(["run", "--cell", "e2e", "--replica", "1", "--data-dir", "/dev/null/none"])
        .args(["--peer-listen", "127.0.0.1:1", "--client-listen", "127.0.0.1:2"])
        .args(["--members", "1=127.0.0.1:1/127.0.0.1:2"])
        .output()
        .unwrap();
    assert!(!output.status.success(), "{output:?}");
    let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    assert!(String::from_utf8_lossy(&said).contains("HOLDFAST_PLANTED sets nothing"), "{output:?}");
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

#[test]
fn greedy_clients_harm_nobody_and_each_kind_is_told_of() {
    let kinds = ["get-stat-batches", "large-writes", "held-calls"];
    let output = torture(&[
        "--scenario",
        "greedy",
        "--greedy",
        &kinds.join(","),
        "--greedy-percent",
        "2",
        "--minutes",
        "0.05",
    ]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("held: nobody was harmed by any of 3 kinds"),
        "{output:?}"
    );
    for kind in kinds {
        let line = said.lines().find(|line| line.starts_with(kind)).unwrap_or_default();
        assert!(line.contains(" writes, ") && line.contains("jeopardies 0"), "{said}");
    }
}
