//! `holdfast lock`, and what becomes of its command.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{LIMIT, Running, TestCell, process, wait_until};

/// A command that says that it runs, and stays.
const STAY: &str = "echo running; exec sleep 60";

#[test]
fn the_command_runs_under_the_lock_with_a_valid_sequencer_and_its_exit_status_is_ours() {
    let cell = TestCell::start();
    let check = format!(
        "echo $HOLDFAST_SEQUENCER; {holdfast} check-sequencer $HOLDFAST_SEQUENCER && exit 42",
        holdfast = env!("CARGO_BIN_EXE_holdfast")
    );
    let ran = cell.run(&["lock", "/l", "--", "sh", "-c", &check]);
    assert_eq!(ran.status, 42, "{}", ran.stderr);
    let sequencer = ran.text().lines().next().unwrap();
    assert!(
        sequencer.starts_with("holdfast:1:exclusive:") && sequencer.ends_with(":/ls/dev/l"),
        "{sequencer}"
    );
    assert_eq!(ran.text().lines().nth(1), Some("valid"));
    // It was released, without a lock-delay.
    let stat = cell.json(&["stat", "/l"]);
    assert!(stat["lock"]["mode"].is_null() && stat["lock"]["delayed"] == 0, "{stat}");
    let checked = cell.run(&["check-sequencer", sequencer]);
    assert_eq!(checked.status, 7);
    assert!(checked.text().starts_with("not valid: "), "{}", checked.text());
}

#[test]
fn a_command_that_cannot_run_and_one_that_is_killed_are_told_as_a_shell_does() {
    let cell = TestCell::start();
    cell.run(&["lock", "/l", "--", "no-such-command"]).assert_failed(127, "no-such-command");
    cell.run(&["lock", "/l", "--", "/"]).assert_failed(126, "Permission denied");
    cell.run(&["lock", "/l", "--", "sh", "-c", "kill -KILL $$"]).assert_failed(137, "");
    cell.run(&["lock", "/no/parent", "--", "true"]).assert_failed(113, "/no does not exist");
}

#[test]
fn a_signal_reaches_the_command_and_what_it_started() {
    let cell = TestCell::start();
    let signals = [
        (Signal::SIGTERM, 21),
        (Signal::SIGINT, 22),
        (Signal::SIGHUP, 23),
        (Signal::SIGQUIT, 24),
        (Signal::SIGUSR1, 25),
        (Signal::SIGUSR2, 26),
        (Signal::SIGALRM, 27),
        (Signal::SIGXCPU, 28),
    ];
    for (signal, status) in signals {
        // The outer shell runs its trap once the inner one has ended, which it does only if the signal reaches it.
        let name = signal.as_str().trim_start_matches("SIG");
        let traps = format!("trap 'exit {status}' {name}");
        let script = format!("{traps}; sh -c '{STAY}'; exit 1");
        let running = cell.start_and_hear(&["lock", "/l", "--", "sh", "-c", &script]);
        assert_eq!(running.heard, "running");
        running.signal(signal);
        assert_eq!(running.end().status, status);
    }
}

#[test]
fn what_ends_of_a_signal_a_little_after_the_command_is_waited_for_and_not_told_of() {
    let cell = TestCell::start();
    let worker = "trap 'sleep 0.1; echo ended; exit' TERM; echo running; while :; do sleep 0.02; done";
    let script = format!("sh -c \"{worker}\" & wait");
    let running = cell.start_and_hear(&["lock", "/l", "--", "sh", "-c", &script]);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.line(), "ended");
    let ran = running.end();
    assert_eq!(ran.status, 143);
    // A shell may say how its own command has ended.
    assert!(!ran.stderr.contains("holdfast:"), "{}", ran.stderr);
}

#[test]
fn a_signal_reaches_what_the_command_has_left_to_end_a_little_later() {
    let cell = TestCell::start();
    let worker = "trap : TERM; trap 'echo told; exit' USR1; echo $$; while :; do sleep 0.02; done";
    let script = format!("sh -c \"{}\" & wait", worker.replace('$', "\\$"));
    // The rest of the group has a second only. Where the machine is so busy that this is over, the worker is never told.
    let is_told = |_| {
        let mut running = cell.start_and_hear(&["lock", "/l", "--", "sh", "-c", &script]);
        let worker: i32 = running.heard.parse().unwrap();
        let (_, leader) = process(worker).unwrap();
        running.signal(Signal::SIGTERM);
        wait_until("the command has ended", || process(leader).is_none());
        running.signal(Signal::SIGUSR1);
        wait_until("the lock is let go", || running.has_ended());
        if process(worker).is_some_and(|(_, group)| group == leader) {
            kill(Pid::from_raw(worker), Signal::SIGKILL).unwrap();
        }
        let was_told = running.rest().contains(&"told".to_owned());
        assert_eq!(running.end().status, 143);
        was_told
    };
    assert!((0..5).any(is_told));
}

/// The processes of a group that still run.
fn group_of(leader: &str) -> Vec<i32> {
    let leader: i32 = leader.parse().unwrap();
    let pids = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| process(*pid).is_some_and(|(state, group)| group == leader && state != 'Z')).collect()
}

#[test]
fn a_window_that_changes_its_size_is_told_to_the_command_and_ends_nothing() {
    let cell = TestCell::start();
    let script = "trap 'echo resized; exit 5' WINCH; echo running; while :; do sleep 0.02; done";
    let running = cell.start_and_hear(&["lock", "/l", "--", "sh", "-c", script]);
    running.signal(Signal::SIGWINCH);
    assert_eq!(running.line(), "resized");
    assert_eq!(running.end().status, 5);
}

#[test]
fn a_command_that_is_stopped_notices_that_it_is_to_end() {
    let cell = TestCell::start();
    let running =
        cell.start_and_hear(&["lock", "/l", "--", "sh", "-c", "echo running; kill -STOP $$; echo on"]);
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().status, 143);
    cell.run(&["lock", "/l", "--try", "--", "true"]).assert_done();
}

#[test]
fn a_signal_that_was_ignored_from_the_start_stays_ignored() {
    let cell = TestCell::start();
    let holdfast = env!("CARGO_BIN_EXE_holdfast");
    let mut shell = std::process::Command::new("sh");
    let script = format!("trap '' HUP; exec {holdfast} lock /l -- sh -c '{STAY}'");
    shell.args(["-c", &script]).env("HOLDFAST_ADDRESSES", &cell.addresses);
    let running = Running::start(shell);
    running.signal(Signal::SIGHUP);
    let sessions = cell.json(&["stat", "/l"]);
    assert_eq!(sessions["lock"]["mode"], "exclusive", "it lives on");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.end().status, 143);
}

#[test]
fn a_command_that_does_not_exist_is_missed_before_anybody_waits() {
    let cell = TestCell::start();
    let holder = cell.start_and_hear(&["lock", "/l", "--", "sh", "-c", STAY]);
    cell.run(&["lock", "/l", "--", "no-such-command"]).assert_failed(127, "no-such-command");
    cell.run(&["lock", "/l", "--", "/etc/passwd"]).assert_failed(126, "/etc/passwd");
    drop(holder);
}

#[test]
fn who_leaves_the_group_behind_is_told_of() {
    let cell = TestCell::start();
    // The shell in between ends at once, and what it has started comes to us.
    let script = "sh -c 'setsid sleep 60 >/dev/null 2>&1 & echo $!'";
    let ran = cell.run(&["lock", "/l", "--", "sh", "-c", script]);
    ran.assert_done();
    let left = ran.text().trim();
    let told = ran.stderr.contains(&format!("process {left} was started by the command"));
    kill(Pid::from_raw(left.parse().unwrap()), Signal::SIGKILL).unwrap();
    assert!(told, "{}", ran.stderr);
}

#[test]
fn who_does_not_want_to_wait_or_not_so_long_goes_without() {
    let cell = TestCell::start();
    let holder = cell.start_and_hear(&["lock", "/l", "--", "sh", "-c", STAY]);
    cell.run(&["lock", "/l", "--try", "--", "true"]).assert_failed(117, "/l is taken");
    cell.run(&["lock", "/l", "--wait", "200ms", "--", "true"]).assert_failed(117, "200 ms");
    cell.run(&["lock", "/l", "--wait", "0", "--", "true"]).assert_failed(117, "/l is taken");
    wait_until("who gave up has left the queue", || cell.json(&["stat", "/l"])["lock"]["waiting"] == 0);
    cell.run(&["rm", "/l"]).assert_failed(4, "held");
    holder.signal(Signal::SIGTERM);
    assert_eq!(holder.end().status, 143);
    assert_eq!(cell.run(&["lock", "/l", "--try", "--", "true"]).status, 0);
    assert_eq!(cell.run(&["lock", "/l", "--wait", "0", "--", "true"]).status, 0);
}

#[test]
fn shared_holders_hold_together_and_keep_writers_out() {
    let cell = TestCell::start();
    let one = cell.start_and_hear(&["lock", "/l", "--shared", "--", "sh", "-c", STAY]);
    let two = cell.start_and_hear(&["lock", "/l", "--shared", "--", "sh", "-c", STAY]);
    let stat = cell.json(&["stat", "/l"]);
    assert_eq!((&stat["lock"]["mode"], &stat["lock"]["holder_count"]), (&"shared".into(), &2.into()));
    cell.run(&["lock", "/l", "--try", "--", "true"]).assert_failed(117, "taken");
    for holder in [one, two] {
        holder.signal(Signal::SIGTERM);
        assert_eq!(holder.end().status, 143);
    }
}

#[test]
fn who_waits_and_is_told_to_stop_leaves_the_queue() {
    let cell = TestCell::start();
    let holder = cell.start_and_hear(&["lock", "/l", "--", "sh", "-c", STAY]);
    let mut waiter = cell.holdfast(&["lock", "/l", "--", "true"]).spawn().unwrap();
    wait_until("it waits", || cell.json(&["stat", "/l"])["lock"]["waiting"] == 1);
    let pid = Pid::from_raw(waiter.id().try_into().unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(waiter.wait().unwrap().code(), Some(143));
    assert_eq!(cell.json(&["stat", "/l"])["lock"]["waiting"], 0);
    drop(holder);
}

#[test]
fn a_holder_that_stands_still_past_its_lease_loses_the_lock_and_stops_its_command() {
    let cell = TestCell::start();
    let options = ["lock", "/l", "--lease", "500ms", "--lock-delay", "500ms", "--kill-after", "1"];
    let command = ["--", "sh", "-c", STAY];
    let holder = cell.start_and_hear(&[&options[..], &command].concat());
    holder.signal(Signal::SIGSTOP);
    let stopped_at = Instant::now();
    assert_eq!(cell.run(&["lock", "/l", "--wait", "15", "--", "true"]).status, 0);
    // A lease is extended at the latest when two thirds of it are left.
    assert!(stopped_at.elapsed() > Duration::from_millis(333 + 500), "not before lease and lock-delay");
    holder.signal(Signal::SIGCONT);
    let ran = holder.end();
    ran.assert_failed(118, "the command was stopped");
}

#[test]
fn when_the_cell_falls_silent_the_command_is_dead_before_the_lock_delay_is_over() {
    let mut cell = TestCell::start();
    let options = ["lock", "/l", "--lease", "1", "--lock-delay", "3", "--kill-after", "1", "--timeout", "1"];
    // It does not heed TERM, so it takes KILL. It gives signs of life until then.
    let command = ["--", "sh", "-c", "trap '' TERM; while echo alive; do sleep 0.02; done"];
    let mut holder = cell.start_and_hear(&[&options[..], &command].concat());
    cell.fall_silent();
    let silent_since = Instant::now();
    let lived = holder.last_line_at() - silent_since;
    holder.end().assert_failed(118, "the lock is in doubt");
    // The lease and the lock-delay.
    assert!(lived < Duration::from_secs(1 + 3), "{lived:?}");
    assert!(lived > Duration::from_secs(2), "it is not stopped while there is time: {lived:?}");
}

#[test]
fn a_command_is_stopped_in_time_although_its_holder_stands_still() {
    let cell = TestCell::start();
    let options = ["lock", "/l", "--lease", "500ms", "--lock-delay", "2", "--kill-after", "500ms"];
    // Neither of the two heeds TERM.
    let script = "trap '' TERM; echo $$; sh -c 'while :; do sleep 0.05; done'; true";
    let holder = cell.start_and_hear(&[&options[..], &["--", "sh", "-c", script]].concat());
    holder.signal(Signal::SIGSTOP);
    cell.run(&["lock", "/l", "--wait", "15", "--", "true"]).assert_done();
    let running = group_of(&holder.heard);
    assert!(running.is_empty(), "beside the next holder: {running:?}");
    holder.signal(Signal::SIGCONT);
    holder.end().assert_ended(118);
}

#[test]
fn the_command_and_what_it_started_do_not_outlive_a_holder_that_is_killed() {
    let cell = TestCell::start();
    let mut holder = cell.start_and_hear(&["lock", "/l", "--", "sh", "-c", &format!("sh -c '{STAY}'; true")]);
    let killed_at = Instant::now();
    holder.signal(Signal::SIGKILL);
    // Comes back when both are gone, which would stay for a minute.
    holder.last_line_at();
    assert!(killed_at.elapsed() < LIMIT);
}

#[test]
fn a_lock_that_is_held_until_asked_goes_to_the_next_who_asks() {
    let cell = TestCell::start();
    let holder = cell.start_and_hear(&["lock", "--hold-until-asked", "/l"]);
    let sequencer = holder.heard.strip_prefix("held ").unwrap();
    assert_eq!(cell.run(&["check-sequencer", sequencer]).text(), "valid\n");
    cell.run(&["lock", "/l", "--wait", "15", "--", "true"]).assert_done();
    assert_eq!((holder.line().as_str(), holder.line().as_str()), ("asked", "released"));
    holder.end().assert_done();
}

#[test]
fn who_only_tries_asks_too_and_who_shares_does_not() {
    let cell = TestCell::start();
    let holder = cell.start_and_hear(&["--json", "lock", "--hold-until-asked", "/l", "--shared"]);
    let held: Value = serde_json::from_str(&holder.heard).unwrap();
    assert_eq!((&held["event"], &held["path"]), (&"held".into(), &"/l".into()));
    assert!(held["sequencer"].as_str().unwrap().starts_with("holdfast:1:shared:"), "{held}");
    cell.run(&["lock", "/l", "--shared", "--", "true"]).assert_done();
    let stat = cell.json(&["stat", "/l"]);
    assert_eq!(stat["lock"]["holder_count"], 1, "another reader is no reason to let go");
    cell.run(&["lock", "/l", "--try", "--", "true"]).assert_failed(117, "taken");
    assert_eq!(holder.json_line(), serde_json::json!({ "event": "asked", "path": "/l" }));
    assert_eq!(holder.json_line()["event"], "released");
    holder.end().assert_done();
}

#[test]
fn a_command_that_still_runs_when_somebody_asks_is_told_to_end_and_may_take_its_time() {
    let cell = TestCell::start();
    let script = "trap 'echo tidied; exit 7' TERM; echo running; while :; do sleep 0.02; done";
    let command = ["lock", "--hold-until-asked", "/l", "--", "sh", "-c", script];
    let holder = cell.start_and_hear(&command);
    // It gets the lock only when the command has ended.
    let asker = cell.start_and_hear(&["lock", "/l", "--", "echo", "mine"]);
    assert_eq!(holder.line(), "tidied");
    asker.end().assert_done();
    let ran = holder.end();
    assert_eq!(ran.status, 7);
    assert!(ran.stderr.contains("somebody asks for the lock of /l"), "{}", ran.stderr);
}

#[test]
fn a_command_that_has_done_its_work_leaves_the_lock_held_until_somebody_asks() {
    let cell = TestCell::start();
    let holder = cell.start_and_hear(&["lock", "--hold-until-asked", "/l", "--", "sh", "-c", "echo $$"]);
    let command = Pid::from_raw(holder.heard.parse().unwrap());
    wait_until("the command is gone, and the lock is not", || {
        let is_held = cell.json(&["stat", "/l"])["lock"]["mode"] == "exclusive";
        assert!(is_held, "nobody has asked");
        kill(command, None).is_err()
    });
    cell.run(&["lock", "/l", "--wait", "15", "--", "true"]).assert_done();
    let ran = holder.end();
    ran.assert_done();
    assert!(ran.stderr.contains("kept until somebody asks"), "{}", ran.stderr);
}

#[test]
fn a_command_that_fails_does_not_leave_its_lock_behind() {
    let cell = TestCell::start();
    cell.run(&["lock", "--hold-until-asked", "/l", "--", "sh", "-c", "exit 3"]).assert_failed(3, "");
    assert!(cell.json(&["stat", "/l"])["lock"]["mode"].is_null());
}

#[test]
fn a_signal_ends_a_hold_and_releases() {
    let cell = TestCell::start();
    let holder = cell.start_and_hear(&["lock", "--hold-until-asked", "/l"]);
    holder.signal(Signal::SIGTERM);
    assert_eq!(holder.line(), "released");
    assert_eq!(holder.end().status, 143);
    assert!(cell.json(&["stat", "/l"])["lock"]["mode"].is_null());
}

#[test]
fn a_hold_that_is_lost_ends_with_a_status_of_its_own() {
    let mut cell = TestCell::start();
    let options = ["--lease", "1", "--lock-delay", "1", "--timeout", "1"];
    let holder = cell.start_and_hear(&[&["lock", "--hold-until-asked", "/l"][..], &options].concat());
    cell.fall_silent();
    holder.end().assert_failed(118, "the lock is in doubt");
}

/// The names in a directory.
fn names(cell: &TestCell, directory: &str) -> Vec<String> {
    let listed = cell.json(&["ls", directory]);
    let entries = listed["entries"].as_array().unwrap().iter();
    entries.map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_ephemeral_lock_file_goes_with_its_last_user_and_one_that_was_there_stays() {
    let cell = TestCell::start();
    cell.run(&["mkdir", "/jobs"]).assert_done();
    cell.run(&["put", "/jobs/kept", ""]).assert_done();
    let nightly = |script| ["lock", "--ephemeral", "/jobs/nightly", "--", "sh", "-c", script];
    let holder = cell.start_and_hear(&nightly("echo runs; exec sleep 60"));
    let mut waiter = cell.holdfast(&nightly("echo waited; exec sleep 60"));
    // It says so when it has the lock.
    let waiter = std::thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            waiter.stdin(std::process::Stdio::null());
            Running::start(waiter)
        });
        wait_until("the other waits", || cell.json(&["stat", "/jobs/nightly"])["lock"]["waiting"] == 1);
        holder.signal(Signal::SIGTERM);
        holder.end().assert_ended(143);
        waiting.join().unwrap()
    });
    assert_eq!(waiter.heard, "waited");
    assert_eq!(names(&cell, "/jobs"), ["kept", "nightly"]);
    waiter.signal(Signal::SIGTERM);
    waiter.end().assert_ended(143);
    // Its close is answered when the file is gone.
    assert_eq!(names(&cell, "/jobs"), ["kept"]);
    cell.run(&["lock", "--ephemeral", "/jobs/kept", "--", "true"]).assert_done();
    cell.run(&["lock", "--ephemeral", "/jobs/weekly", "--", "true"]).assert_done();
    assert_eq!(names(&cell, "/jobs"), ["kept"]);
}
