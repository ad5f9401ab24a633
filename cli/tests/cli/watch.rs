//! `holdfast watch`: every change is a line, whatever happens in between.

use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::harness::{TestCell, wait_until};

#[test]
fn a_directory_tells_of_its_children_its_lists_and_its_end() {
    let cell = TestCell::start();
    cell.run(&["mkdir", "/d"]).assert_done();
    cell.run(&["put", "/d/old", "1"]).assert_done();
    let watch = cell.start_and_hear(&["--json", "watch", "/d", "--initial"]);
    let initial: serde_json::Value = serde_json::from_str(&watch.heard).unwrap();
    assert_eq!((&initial["event"], &initial["children"]), (&"initial".into(), &1.into()));
    let child = watch.json_line();
    assert_eq!((&child["event"], &child["child"]), (&"child".into(), &"old".into()));
    // Each line is waited for before the next change: otherwise two may come as one.
    assert_eq!(initial["generation"], initial["children_generation"]);
    let mut generation = initial["children_generation"].as_u64().unwrap();
    for (event, change) in [
        ("added", &["put", "/d/new", "1"][..]),
        ("modified", &["put", "/d/new", "2"]),
        ("removed", &["rm", "/d/new"]),
    ] {
        cell.run(change).assert_done();
        let line = watch.json_line();
        assert_eq!(
            (&line["event"], &line["path"], &line["child"]),
            (&event.into(), &"/d".into(), &"new".into()),
            "{line}"
        );
        assert!(line["generation"].as_u64().unwrap() > generation, "{line}");
        generation = line["generation"].as_u64().unwrap();
    }
    let acl_generation = cell.json(&["acl", "set", "/d", "--change", "*"])["acl_generation"].clone();
    let line = watch.json_line();
    assert_eq!((&line["event"], &line["generation"]), (&"acl".into(), &acl_generation));
    cell.run(&["rm", "/d/old"]).assert_done();
    assert_eq!(watch.json_line()["event"], "removed");
    cell.run(&["rm", "/d"]).assert_done();
    assert_eq!(watch.json_line(), serde_json::json!({ "event": "deleted", "path": "/d" }));
    let ran = watch.end();
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("/d was deleted"), "{}", ran.stderr);
}

#[test]
fn a_file_tells_of_its_contents_and_its_lock_in_lines_for_people() {
    let cell = TestCell::start();
    let first = cell.json(&["put", "/f", "12345"])["content_generation"].clone();
    let watch = cell.start_and_hear(&["watch", "/f", "--initial", "--count", "2"]);
    assert_eq!(watch.heard, format!("initial   file, 5 B  generation {first}"));
    let written = cell.json(&["put", "/f", "x"])["content_generation"].clone();
    assert_eq!(watch.line(), format!("contents  generation {written}"));
    cell.run(&["lock", "/f", "--", "true"]).assert_done();
    let lock_generation = cell.json(&["stat", "/f"])["lock_generation"].clone();
    assert_eq!(watch.line(), format!("lock      generation {lock_generation}"));
    // That were two.
    watch.end().assert_done();
}

#[test]
fn what_was_not_asked_for_is_not_told_except_the_end() {
    let cell = TestCell::start();
    cell.run(&["put", "/f", "1"]).assert_done();
    let watch = cell.start_and_hear(&["watch", "/f", "--initial", "--events", "lock,acl"]);
    cell.run(&["put", "/f", "2"]).assert_done();
    cell.run(&["lock", "/f", "--", "true"]).assert_done();
    assert!(watch.line().starts_with("lock "));
    cell.run(&["rm", "/f"]).assert_done();
    assert_eq!(watch.line(), "deleted");
    assert_eq!(watch.end().status, 3);
    cell.run(&["watch", "/f"]).assert_failed(3, "/f");
}

#[test]
fn a_watch_survives_fail_overs_and_misses_no_change() {
    let mut cell = TestCell::start();
    cell.run(&["put", "/f", "1"]).assert_done();
    let watch = cell.start_and_hear(&["--json", "watch", "/f", "--initial"]);
    cell.stop_master();
    let written = cell.json(&["put", "/f", "2"])["content_generation"].clone();
    let (mut has_failed_over, mut is_told) = (false, false);
    while !(has_failed_over && is_told) {
        let line = watch.json_line();
        has_failed_over |=
            line["event"] == "failed_over" && line["term"].as_u64().is_some_and(|term| term > 0);
        is_told |= line["event"] == "contents" && line["generation"] == written;
    }
    let written = cell.json(&["put", "/f", "3"])["content_generation"].clone();
    assert_eq!(watch.json_event("contents")["generation"], written);
}

#[test]
fn a_signal_ends_a_watch_and_its_session() {
    let cell = TestCell::start();
    for (signal, status) in [(Signal::SIGINT, 130), (Signal::SIGTERM, 143)] {
        let watch = cell.start_and_hear(&["watch", "/", "--initial"]);
        watch.signal(signal);
        let ran = watch.end();
        assert_eq!((ran.status, ran.stderr.as_str()), (status, ""));
        let sessions = cell.json(&["session", "ls"]);
        assert_eq!(sessions["sessions"].as_array().unwrap().len(), 0, "{sessions}");
    }
}

#[test]
fn a_watch_that_nobody_reads_any_more_ends() {
    let cell = TestCell::start();
    cell.run(&["put", "/f", "1"]).assert_done();
    let mut watch = cell.holdfast(&["watch", "/f"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(watch.stdout.take());
    wait_until("it watches", || {
        let handles = cell.json(&["handles", "/f"]);
        handles["handles"].as_array().unwrap().len() == 1
    });
    cell.run(&["put", "/f", "2"]).assert_done();
    assert!(watch.wait().unwrap().success());
}

#[test]
fn a_watch_whose_session_is_killed_says_so() {
    let cell = TestCell::start();
    let watch = cell.start_and_hear(&["watch", "/", "--initial"]);
    let session = cell.json(&["session", "ls"])["sessions"][0]["session"].to_string();
    cell.run(&["session", "kill", &session]).assert_done();
    let ran = watch.end();
    assert_eq!(ran.status, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("an operator ended the session"), "{}", ran.stderr);
}
