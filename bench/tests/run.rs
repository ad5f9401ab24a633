//! The program as its users start it.

use std::process::Command;

use serde_json::Value;

/// Every work, briefly, on a cell of the bench's own.
#[test]
fn each_work_prints_its_line_and_nothing_is_left_behind() {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_holdfast-bench"))
        .args(["run", "--json", "--seconds", "0.5", "--clients", "4", "--trials", "1"])
        .env("TMPDIR", dir.path())
        .output()
        .unwrap();
    let (text, errors) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{errors}");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let works: Vec<_> = lines.iter().map(|line| line["work"].as_str().unwrap()).collect();
    let all = [
        "lock-pairs",
        "handoff",
        "write",
        "read",
        "cached-read",
        "cached-open",
        "failover-gap",
        "dead-cacher",
    ];
    assert_eq!(works, all);
    for line in &lines {
        assert_eq!(line["clients"], 4);
        let is_gap = line["gap_max_ms"].is_number();
        let is_dead = line["work"] == "dead-cacher";
        assert_eq!(is_gap, is_dead || line["work"] == "failover-gap", "{line}");
        assert_eq!(line["gap_ms"].as_f64().is_some_and(|gap| gap > 0.0), is_gap, "{line}");
        // The write waited for the dead client's lease, and nobody else did.
        let (gap, blocked) = (line["gap_max_ms"].as_f64(), line["blocked_ms"].as_f64());
        assert_eq!(blocked.is_some_and(|blocked| gap < Some(blocked)), is_dead, "{line}");
        assert_eq!(line["ops_per_s"].as_f64().is_some_and(|rate| rate > 0.0), !is_gap, "{line}");
        let (p50, p99) = (line["p50_us"].as_f64(), line["p99_us"].as_f64());
        assert!(is_gap || (p50 > Some(0.0) && p99 >= p50), "{line}");
    }
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// What was measured before is of no use with a cell that cannot be reached.
#[test]
fn a_run_that_cannot_measure_fails_and_says_why() {
    let output = Command::new(env!("CARGO_BIN_EXE_holdfast-bench"))
        .args(["run", "--work", "failover-gap", "--addresses", "127.0.0.1:1"])
        .output()
        .unwrap();
    assert!(!output.status.success());
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("--addresses"), "{errors}");
}
