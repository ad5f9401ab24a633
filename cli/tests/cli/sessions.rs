//! Sessions and handles, as operators see and end them.

use crate::harness::{TestCell, wait_until};

/// A command that says that it runs, and stays.
const STAY: &str = "echo running; exec sleep 60";

#[test]
fn who_is_connected_is_listed_with_what_it_holds_and_waits_for() {
    let cell = TestCell::start();
    assert_eq!(cell.run(&["session", "ls"]).text().lines().count(), 1, "only the heading");
    let _holder = cell.start_and_hear(&["lock", "/l", "--lease", "10", "--", "sh", "-c", STAY]);
    let mut waiter = cell.holdfast(&["lock", "/l", "--", "true"]).spawn().unwrap();
    wait_until("it waits", || cell.json(&["stat", "/l"])["lock"]["waiting"] == 1);
    let document = cell.json(&["session", "ls"]);
    let sessions = document["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    let (holder, waiting) = (&sessions[0], &sessions[1]);
    assert_eq!((&holder["locks_held"], &holder["locks_waited_for"]), (&1.into(), &0.into()), "{holder}");
    assert_eq!((&waiting["locks_held"], &waiting["locks_waited_for"]), (&0.into(), &1.into()), "{waiting}");
    assert_eq!((&holder["lease_ms"], &holder["attached"]), (&10_000.into(), &true.into()));
    assert_eq!((&holder["principal"], &holder["handles"]), (&"anonymous".into(), &1.into()));
    let left = holder["lease_left_ms"].as_u64().unwrap();
    assert!((1..=10_200).contains(&left), "{left}");
    let text = cell.run(&["session", "ls"]);
    assert!(text.text().starts_with("SESSION  CLIENT"), "{}", text.text());
    assert!(text.text().contains("anonymous") && text.text().contains("10 s"), "{}", text.text());
    waiter.kill().unwrap();
    waiter.wait().unwrap();
}

#[test]
fn open_handles_are_listed_by_node_and_by_session() {
    let cell = TestCell::start();
    cell.run(&["put", "/f", "x"]).assert_done();
    let _watch = cell.start_and_hear(&["watch", "/f", "--initial", "--events", "contents,lock"]);
    let _holder =
        cell.start_and_hear(&["lock", "/l", "--shared", "--lock-delay", "2", "--", "sh", "-c", STAY]);
    let all = cell.json(&["handles"]);
    assert_eq!(all["handles"].as_array().unwrap().len(), 2);
    let of_node = cell.json(&["handles", "/f"]);
    let handles = of_node["handles"].as_array().unwrap();
    assert_eq!(handles.len(), 1);
    let watch = &handles[0];
    assert_eq!((&watch["path"], &watch["gone"]), (&"/f".into(), &false.into()));
    assert_eq!(watch["uses"], serde_json::json!(["read"]));
    for event in ["contents", "lock", "deleted"] {
        assert!(watch["events"].as_array().unwrap().contains(&event.into()), "{watch}");
    }
    assert!(watch["holds"].is_null() && watch["waits"].is_null() && watch["sequencer"].is_null(), "{watch}");
    let session = cell.json(&["stat", "/l"])["lock"]["holders"][0]["session"].to_string();
    let of_session = cell.json(&["handles", "--session", &session]);
    let handles = of_session["handles"].as_array().unwrap();
    assert_eq!(handles.len(), 1);
    assert_eq!((&handles[0]["path"], &handles[0]["holds"]), (&"/l".into(), &"shared".into()));
    assert_eq!(
        (&handles[0]["uses"], &handles[0]["lock_delay_ms"]),
        (&serde_json::json!(["write"]), &2000.into())
    );
    let text = cell.run(&["handles", "/l"]);
    assert!(text.text().contains("/l") && text.text().contains("shared"), "{}", text.text());
    cell.run(&["handles", "/none"]).assert_failed(3, "no node /none");
    assert_eq!(cell.json(&["handles", "/acl"])["handles"], serde_json::json!([]), "nobody has it open");
}

#[test]
fn a_session_that_is_killed_loses_its_locks_and_its_command_is_stopped() {
    let cell = TestCell::start();
    let options = ["lock", "/l", "--lock-delay", "300ms", "--kill-after", "200ms"];
    let holder = cell.start_and_hear(&[&options[..], &["--", "sh", "-c", STAY]].concat());
    let session = cell.json(&["stat", "/l"])["lock"]["holders"][0]["session"].to_string();
    let killed = cell.json(&["session", "kill", &session]);
    assert_eq!((&killed["session"].to_string(), &killed["killed"]), (&session, &true.into()));
    holder.end().assert_failed(118, "an operator ended the session");
    assert_eq!(cell.run(&["lock", "/l", "--", "true"]).status, 0);
    cell.run(&["session", "kill", &session]).assert_failed(3, &session);
}

#[test]
fn who_does_not_want_to_wait_for_the_end_of_a_session_is_told_that_it_is_open() {
    let cell = TestCell::start();
    let holder = cell.start_and_hear(&["lock", "/l", "--lease", "5", "--", "sh", "-c", STAY]);
    let session = cell.json(&["stat", "/l"])["lock"]["holders"][0]["session"].to_string();
    // It cannot agree.
    holder.signal(nix::sys::signal::Signal::SIGSTOP);
    cell.run(&["session", "kill", &session, "--wait", "300ms"]).assert_failed(6, "is ending");
    cell.run(&["session", "kill", &session]).assert_done();
}
