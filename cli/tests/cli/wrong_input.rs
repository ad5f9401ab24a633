//! What is wrong is refused with a status of its own, and a sentence that says what would be right.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt as _;

use serde_json::Value;

use crate::harness::{Ran, TestCell, holdfast};

fn run(arguments: &[&str]) -> Ran {
    Ran::of(holdfast(arguments).output().unwrap())
}

#[test]
fn a_wrong_command_line_is_a_usage_error_and_asks_no_cell() {
    for (arguments, said) in [
        (&["frobnicate"][..], "unrecognized subcommand"),
        (&["cat"], "required"),
        (&["cat", "relative"], "does not begin with '/'"),
        (&["cat", "/a//b"], "empty component"),
        (&["cat", "/a/.."], "'..'"),
        (&["put", "/f", "x", "--if-generation", "-1"], "-1"),
        (&["put", "/f", "x", "--if-generation", "new"], "generations and instances are whole numbers"),
        (&["rm", "/f", "--if-instance", "x"], "generations and instances are whole numbers"),
        (&["member", "add", "4", "--peer", "here", "--client", "a:2"], "no port"),
        (&["member", "add", "4", "--peer", "a:1", "--client", "b:port"], "its port is not a number"),
        (&["member", "add", "4", "--peer", "a:1,b:2", "--client", "a:2"], "the one address of the replica"),
        (&["member", "add", "4", "--peer", "a:1", "--client", ""], "the one address of the replica"),
        (
            &["member", "add", "4", "--peer", "http://a:1", "--client", "a:2"],
            "the one address of the replica",
        ),
        (&["--addresses", "https://h:7101", "ls"], "--ca or HOLDFAST_CA"),
        (&["member", "promote", "x"], "an id is a number from 1 on"),
        (&["put", "/f", "x", "--file", "y"], "cannot be used with"),
        (&["lock", "/l"], "required"),
        (&["lock", "/l", "--try", "--wait", "1", "--", "true"], "cannot be used with"),
        (&["lock", "/l", "--lock-delay", "61", "--", "true"], "0 to 60 s"),
        (&["lock", "/l", "--lease", "99ms", "--", "true"], "100 ms"),
        (&["lock", "/l", "--wait", "soon", "--", "true"], "ms, s, m or h"),
        (&["lock", "--hold-until-asked"], "required"),
        (&["watch", "/a", "--events", "sound"], "contents, children, added"),
        (&["watch", "/a", "--count", "0"], "a whole number from 1 on"),
        (&["acl", "set", "/a"], "--read"),
        (&["acl", "set", "/a", "--read", "/acl/team"], "without the directory"),
        (&["acl", "show", ".."], "without the directory"),
        (&["put", "/a", "x", "--acl-read", "team", "--if-generation", "0"], "cannot be used with"),
        (&["session", "kill", "me"], "an id is a number from 1 on"),
        (&["session", "kill", "0"], "an id is a number from 1 on"),
        (&["handles", "--session", "x"], "an id is a number from 1 on"),
        (&["--timeout", "abc", "ls"], "a span of time is a number of seconds"),
        (&["--timeout", "5x", "ls"], "no unit of time"),
        (&["lock", "/l", "true"], "put '--' before the command"),
        (&["ls", "-l"], "without an option"),
        (&["check-sequencer", "nonsense"], "a sequencer reads"),
        (&[], "Usage: holdfast"),
        (&["handles", "a"], "does not begin with '/'"),
        (&["settings", "speed=9"], "there are contents_bytes_max"),
        (&["member", "promote", "0"], "an id is a number from 1 on"),
    ] {
        run(arguments).assert_failed(2, said);
    }
}

#[test]
fn a_variable_that_is_set_to_nothing_is_not_set() {
    let cell = TestCell::start();
    for variable in ["CA", "CERT", "KEY", "SERVER_NAME", "CELL"] {
        let output = cell.holdfast(&["ls"]).env(format!("HOLDFAST_{variable}"), "").output().unwrap();
        Ran::of(output).assert_done();
    }
    let nowhere = holdfast(&["--timeout", "300ms", "ls"]).env("HOLDFAST_ADDRESSES", "").output().unwrap();
    // At the default addresses, where a cell may or may not be.
    assert_ne!(Ran::of(nowhere).status, 2);
    let named = |name: &str| Ran::of(cell.holdfast(&["ls"]).env("HOLDFAST_CELL", name).output().unwrap());
    named("dev").assert_done();
    named("prod").assert_failed(1, "\"dev\"");
}

/// Whether the help names the variables, also those that are set to nothing.
fn assert_names_variables(help: &str) {
    for variable in ["HOLDFAST_ADDRESSES", "HOLDFAST_CELL", "HOLDFAST_CA", "HOLDFAST_SERVER_NAME"] {
        assert!(help.contains(variable), "{variable}: {help}");
    }
    assert!(!help.contains("which is empty"), "{help}");
}

#[test]
fn who_gives_nothing_is_shown_the_help_whatever_the_environment_says() {
    for arguments in
        [&[][..], &["--json"], &["--timeout", "1"], &["member"], &["session"], &["member", "--json"]]
    {
        let output = holdfast(arguments).env("HOLDFAST_ADDRESSES", "127.0.0.1:1").output().unwrap();
        let ran = Ran::of(output);
        ran.assert_failed(2, "Commands:");
        assert!(!ran.stderr.contains("error:") && !ran.stderr.contains("guard"), "{}", ran.stderr);
        assert_names_variables(&ran.stderr);
    }
    let output = holdfast(&["--help"]).env("HOLDFAST_CELL", "").output().unwrap();
    assert_names_variables(Ran::of(output).text());
}

#[test]
fn a_variable_that_sets_nothing_is_warned_of() {
    let cell = TestCell::start();
    let run = |arguments: &[&str]| {
        let mut command = cell.holdfast(arguments);
        command.env("HOLDFAST_ADRESSES", "a:1").env("HOLDFAST_SERVICE_HOST", "10.96.4.7");
        Ran::of(command.output().unwrap())
    };
    let ran = run(&["ls"]);
    ran.assert_done();
    let said = "the variable HOLDFAST_ADRESSES sets nothing: there is no such option; the nearest one is HOLDFAST_ADDRESSES";
    assert_eq!(ran.stderr, format!("holdfast: warning: {said}\n"));
    assert_eq!(run(&["--json", "ls"]).stderr, "");
    // The command that the lock is held for is no business of ours.
    assert_eq!(run(&["lock", "/l", "--", "true"]).stderr, ran.stderr);
}

#[test]
fn who_reads_no_more_ends_the_output_quietly() {
    for arguments in ["--help", "lock --help", "--version", "nonsense"] {
        let script = format!("{} {arguments} 2>&1 | true", env!("CARGO_BIN_EXE_holdfast"));
        let ran = Ran::of(std::process::Command::new("sh").args(["-c", &script]).output().unwrap());
        assert_eq!((ran.status, ran.stderr.as_str()), (0, ""), "{arguments}");
    }
}

#[test]
fn a_path_that_is_not_utf_8_says_so() {
    let arguments = [OsString::from("cat"), OsString::from_vec(b"/a/\xff".to_vec())];
    let ran = Ran::of(holdfast(&arguments).output().unwrap());
    ran.assert_failed(2, "not UTF-8");
}

#[test]
fn a_malformed_address_is_told_apart_from_one_where_nobody_is() {
    run(&["--addresses", "db1", "ls"]).assert_failed(2, "no port");
    run(&["--addresses", "", "ls"]).assert_failed(2, "no address");
    run(&["--addresses", "a:1 b:2", "ls"]).assert_failed(2, "put commas between addresses");
    run(&["--ca", "ca.pem", "--cert", "c.pem", "ls"]).assert_failed(2, "without its key");
    // Nothing can listen at port 1 without being root, and nothing does.
    run(&["--addresses", "127.0.0.1:1", "--timeout", "300ms", "ls"]).assert_failed(5, "127.0.0.1:1");
    run(&["--addresses", "127.0.0.1:1", "--timeout", "300ms", "status"]).assert_failed(5, "127.0.0.1:1");
    let arguments = ["--addresses", "127.0.0.1:1", "--timeout", "300ms", "lock", "/l", "--", "true"];
    run(&arguments).assert_failed(115, "127.0.0.1:1");
}

#[test]
fn programs_get_the_kind_of_a_failure() {
    let ran = run(&["--addresses", "127.0.0.1:1", "--timeout", "300ms", "--json", "ls"]);
    assert_eq!(ran.status, 5);
    let document: Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(document["error"]["kind"], "unreachable");
    assert_eq!(document["error"]["exit_status"], 5);
}

#[test]
fn another_cell_than_the_one_that_was_meant_refuses() {
    let cell = TestCell::start();
    cell.run(&["ls", "/ls/prod/x"]).assert_failed(1, "\"prod\"");
    for arguments in [&["ls"][..], &["status"], &["settings"], &["member", "ls"]] {
        let mut all = vec!["--cell", "prod"];
        all.extend(arguments);
        cell.run(&all).assert_failed(1, "\"dev\"");
    }
    cell.run(&["--cell", "prod", "lock", "/l", "--", "true"]).assert_failed(111, "\"dev\"");
    cell.run(&["--cell", "dev", "ls"]).assert_done();
}

#[test]
fn what_the_cell_refuses_comes_with_its_reason() {
    let cell = TestCell::start();
    cell.run_with_input(&["put", "/f"], &vec![0; 262_145]).assert_failed(1, "contents_bytes_max");
    cell.run_with_input(&["put", "/f"], &vec![0; (1 << 20) + 1]).assert_failed(1, "1 MiB");
    cell.run(&["put", &format!("/{}", "n".repeat(256)), "x"]).assert_failed(1, "256");
    cell.run(&["put", "/", "x"]).assert_failed(1, "directory");
    cell.run(&["cat", "/"]).assert_failed(1, "directory");
    cell.run(&["put", "/f", "--file", "/no/such/file"]).assert_failed(1, "/no/such/file");
    cell.run(&["settings", "name_bytes_max=5000"]).assert_failed(1, "1024");
    let entries = cell.json(&["ls"])["entries"].clone();
    assert_eq!(entries.as_array().unwrap().len(), 1, "nothing was created by what was refused: {entries}");
    assert_eq!(entries[0]["name"], "acl");
}

#[test]
fn a_contents_argument_need_not_be_utf_8() {
    let cell = TestCell::start();
    let contents = OsString::from_vec(b"\xff\xfe".to_vec());
    let ran = cell.run(&[OsStr::new("put"), OsStr::new("/f"), &contents]);
    ran.assert_done();
    assert_eq!(cell.run(&["cat", "/f"]).stdout, b"\xff\xfe");
}
