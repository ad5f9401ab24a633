//! The work `fairness` as its users start it, beside the kinds of greedy clients that cost the least.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> (Output, Vec<Value>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast-bench"));
    let output = command.arg("run").args(arguments).output().expect("the program was built with the tests");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("a line is an object")).collect();
    (output, lines)
}

#[test]
fn each_kind_prints_a_line_with_what_it_did_to_an_honest_client() {
    let kinds = "--greedy=get-stat-batches,large-writes";
    let (output, lines) = bench(&["--work=fairness", kinds, "--greedy-percent=2", "--seconds=1", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let names: Vec<_> = lines.iter().map(|line| line["greedy"].as_str().unwrap()).collect();
    assert_eq!(names, ["get-stat-batches", "large-writes"]);
    for line in &lines {
        assert_eq!(line["work"], "fairness");
        for field in ["p99_ratio", "memory_mib", "greedy_cpu", "lost_lock_ms", "lost_lock_quiet_ms"] {
            assert!(line[field].is_number(), "{field} of {line}");
        }
        for field in ["jeopardies", "masters_changed", "admin_answered", "admin_failed"] {
            assert!(line[field].is_u64(), "{field} of {line}");
        }
        for phase in ["beside", "quiet"] {
            let all = &line[phase]["all"];
            let figure = |name: &str| all[name].as_f64().unwrap();
            assert!(figure("p50_ms") > 0.0 && figure("p99_ms") >= figure("p50_ms"), "{phase} of {line}");
        }
        assert!(line["got"]["done"].as_u64() > Some(0), "the greedy client got nothing: {line}");
        // The lock was lost by a death, and so nobody had it before the lease was over.
        assert!(line["lost_lock_ms"].as_f64() > Some(1_000.0), "{line}");
    }
}

#[test]
fn a_cell_of_others_is_not_attacked() {
    let (output, lines) = bench(&["--work", "fairness", "--addresses", "127.0.0.1:1"]);
    assert!(!output.status.success() && lines.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--addresses"), "{output:?}");
}
