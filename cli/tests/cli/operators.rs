//! What operators look at and change.

use serde_json::Value;

use crate::harness::{TestCell, wait_until};

#[test]
fn status_shows_every_replica_the_stopped_one_and_the_misspelt_address_too() {
    let mut cell = TestCell::start();
    wait_until("all is well", || {
        let status = cell.run(&["status"]);
        status.status == 0 && status.text().matches(" ok").count() == 3
    });
    let all = cell.json(&["status"]);
    assert_eq!(all["state_version"], 2);
    assert!(all["replicas"].as_array().unwrap().iter().all(|replica| replica["state_version"] == 2), "{all}");
    let text = cell.run(&["status"]);
    assert!(text.text().contains("\nstate     version 2\n"), "{}", text.text());
    let master = all["master"].as_u64().unwrap();
    let stopped = master % 3 + 1;
    cell.stop_replica(stopped);
    let first_two: Vec<&str> = cell.addresses.split(',').take(2).collect();
    let addresses = format!("{},127.0.0.1:1", first_two.join(","));
    let document = cell.json(&["--addresses", &addresses, "status"]);
    let replicas = document["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 3);
    for replica in replicas {
        let is_stopped = replica["id"] == stopped;
        assert_eq!(replica["answers"], !is_stopped, "{replica}");
        assert_eq!(replica["problem"].is_null(), !is_stopped, "{replica}");
        assert_eq!(replica["state_version"].is_null(), is_stopped, "{replica}");
    }
    assert_eq!(document["silent"][0]["address"], "127.0.0.1:1");
    assert!(document["strangers"].as_array().unwrap().is_empty(), "a replica of the cell may be there");
    let text = cell.run(&["--addresses", &addresses, "status"]);
    assert!(text.text().contains("does not answer"), "{}", text.text());
    assert!(text.text().contains("127.0.0.1:1: "), "{}", text.text());
}

#[test]
fn replicas_that_have_applied_the_same_show_the_same_hash_of_their_states() {
    let cell = TestCell::start();
    let settled_hash = || {
        let mut hash = None;
        wait_until("all replicas have applied the same", || {
            let document = cell.json(&["status", "--state-hash"]);
            let replicas = document["replicas"].as_array().unwrap();
            let applied = |replica: &Value| replica["applied"].as_u64();
            if !replicas
                .iter()
                .all(|replica| applied(replica).is_some_and(|at| Some(at) == applied(&replicas[0])))
            {
                return false;
            }
            let hashes: Vec<&str> =
                replicas.iter().filter_map(|replica| replica["state_hash"].as_str()).collect();
            assert_eq!(hashes, [hashes[0]; 3]);
            hash = Some(hashes[0].to_owned());
            true
        });
        hash.unwrap()
    };
    let before = settled_hash();
    cell.run_with_input(&["put", "/f"], b"contents").assert_done();
    let after = settled_hash();
    assert!(before != after && after.len() == 16, "{before} {after}");
    let text = cell.run(&["status", "--state-hash"]);
    assert!(text.text().contains("STATE HASH"), "{}", text.text());
    assert!(cell.json(&["status"])["replicas"][0]["state_hash"].is_null(), "it was not asked for");
}

#[test]
fn status_of_a_cell_without_a_master_is_told_and_fails() {
    let mut cell = TestCell::start();
    let master = cell.json(&["status"])["master"].as_u64().unwrap();
    let survivor = master % 3 + 1;
    for id in (1..=3).filter(|id| *id != survivor) {
        cell.stop_replica(id);
    }
    // The survivor believes in the last master until its election time-out.
    wait_until("nobody claims to be master", || cell.run(&["--timeout", "1", "status"]).status == 5);
    let status = cell.run(&["--timeout", "1", "status"]);
    assert!(status.text().contains("none that answers"), "{}", status.text());
    assert!(status.stderr.contains("no replica that answers is master"), "{}", status.stderr);
    cell.run(&["--timeout", "1", "ls"]).assert_failed(5, "no master");
}

#[test]
fn members_are_listed_and_impossible_changes_refused() {
    let cell = TestCell::start();
    wait_until("the master has heard from all three", || {
        let document = cell.json(&["member", "ls"]);
        let members = document["members"].as_array().unwrap();
        let is_well = |member: &Value| member["voter"] == true && member["reachable"] == true;
        members.len() == 3 && members.iter().all(is_well)
    });
    let text = cell.run(&["member", "ls"]);
    assert_eq!(text.text().matches("master").count(), 1, "{}", text.text());
    cell.run(&["member", "promote", "9"]).assert_failed(1, "no member");
    cell.run(&["member", "promote", "1"]).assert_failed(1, "votes already");
    cell.run(&["member", "remove", "9"]).assert_failed(1, "no member");
    let add = ["member", "add", "4", "--peer", "127.0.0.1:1", "--client", "127.0.0.1:2"];
    cell.run(&add).assert_failed(1, "must be running");
    let add = ["member", "add", "4", "--peer", "nowhere", "--client", "127.0.0.1:2"];
    cell.run(&add).assert_failed(2, "no port");
}

#[test]
fn settings_are_shown_and_changed_and_hold() {
    let cell = TestCell::start();
    assert_eq!(cell.json(&["settings"])["contents_bytes_max"], 262_144);
    let changed = cell.json(&["settings", "contents_bytes_max=1KiB", "sessions_max=7"]);
    assert_eq!((&changed["contents_bytes_max"], &changed["sessions_max"]), (&1024.into(), &7.into()));
    assert_eq!(changed["nodes_max"], 4_000_000);
    cell.run_with_input(&["put", "/f"], &[0; 1025]).assert_failed(1, "1024");
    let text = cell.run(&["settings"]);
    assert!(text.text().contains("contents_bytes_max") && text.text().contains("1 KiB"), "{}", text.text());
}

#[test]
fn usage_shows_what_there_is_in_all_and_what_each_principal_has() {
    let cell = TestCell::start();
    let empty = cell.json(&["usage"]);
    assert_eq!((&empty["sessions"], &empty["nodes"]), (&0.into(), &2.into()), "the root and /acl");
    assert_eq!(empty["principals"], serde_json::json!([]));
    let bytes = |usage: &Value| usage["bytes"].as_u64().unwrap();
    cell.run_with_input(&["put", "/f"], &[0; 2000]).assert_done();
    cell.run(&["mkdir", "/d"]).assert_done();
    let _holder = cell.start_and_hear(&["lock", "/l", "--", "sh", "-c", "echo running; exec sleep 60"]);
    let usage = cell.json(&["usage"]);
    assert_eq!((&usage["sessions"], &usage["nodes"]), (&1.into(), &5.into()));
    let shares = usage["principals"].as_array().unwrap();
    assert_eq!(shares.len(), 1);
    let share = &shares[0];
    assert_eq!(share["principal"], "anonymous");
    assert_eq!((&share["sessions"], &share["nodes"]), (&1.into(), &3.into()));
    assert_eq!(bytes(share), bytes(&usage) - bytes(&empty), "nobody created what a new cell has");
    assert!(bytes(share) >= 2000 + 6, "the contents and three paths: {share}");

    let text = cell.run(&["usage"]);
    let lines: Vec<Vec<&str>> = text.text().lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines.len(), 3, "{}", text.text());
    assert_eq!(lines[0], ["PRINCIPAL", "SESSIONS", "NODES", "BYTES"]);
    assert_eq!(lines[1][..3], ["anonymous", "1", "3"]);
    assert_eq!(lines[2][..3], ["(all)", "1", "5"]);

    cell.run(&["rm", "/f"]).assert_done();
    let after = cell.json(&["usage"]);
    assert_eq!((&after["nodes"], &after["principals"][0]["nodes"]), (&4.into(), &2.into()));
    assert!(bytes(&after) <= bytes(&usage) - 2002, "{after}");
}
