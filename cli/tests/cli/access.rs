//! Access control lists: shown, changed, and in force.
//!
//! Everybody is `anonymous` here, which is also the bootstrap principal: that passes the checks for changing lists,
//! and no others.

use serde_json::json;

use crate::harness::TestCell;

/// A list that lets nobody in who is here.
fn lock_everybody_out(cell: &TestCell, path: &str, flag: &str) {
    cell.run(&["put", "/acl/strangers", "somebody-else\n"]).assert_done();
    cell.run(&["acl", "set", path, flag, "strangers"]).assert_done();
}

#[test]
fn the_names_of_a_nodes_lists_are_shown_and_changed_one_by_one() {
    let cell = TestCell::start();
    cell.run(&["put", "/f", "x"]).assert_done();
    let before = cell.json(&["acl", "get", "/f"]);
    assert_eq!(
        (&before["read"], &before["write"], &before["change"]),
        (&"*".into(), &"*".into(), &"admin".into()),
        "{before}"
    );
    let generation = before["acl_generation"].to_string();
    let set = ["acl", "set", "/f", "--write", "team", "--if-generation", &generation];
    let changed = cell.json(&set);
    assert!(changed["acl_generation"].as_u64() > before["acl_generation"].as_u64(), "{changed}");
    cell.run(&set).assert_failed(4, "generation");
    assert_eq!(
        cell.json(&["acl", "get", "/f"]),
        json!({
            "path": "/f", "read": "*", "write": "team", "change": "admin",
            "acl_generation": changed["acl_generation"],
        })
    );
    let text = cell.run(&["acl", "get", "/f"]);
    assert!(text.text().starts_with("read            *\nwrite           team\n"), "{}", text.text());
    let stat = cell.json(&["stat", "/f"]);
    assert_eq!(stat["acl"], json!({ "read": "*", "write": "team", "change": "admin" }));
    let text = cell.run(&["stat", "/f"]);
    assert!(text.text().contains("read *, write team, change admin"), "{}", text.text());
    cell.run(&["acl", "get", "/none"]).assert_failed(3, "/none");
    cell.run(&["acl", "set", "/none", "--read", "team"]).assert_failed(3, "/none");
}

#[test]
fn who_is_not_on_the_list_is_denied_with_a_status_of_its_own() {
    let cell = TestCell::start();
    cell.run(&["put", "/f", "x"]).assert_done();
    lock_everybody_out(&cell, "/f", "--write");
    cell.run(&["put", "/f", "y"]).assert_failed(8, "anonymous");
    cell.run(&["rm", "/f"]).assert_failed(8, "anonymous");
    cell.run(&["lock", "/f", "--", "true"]).assert_failed(119, "anonymous");
    assert_eq!(cell.run(&["cat", "/f"]).text(), "x");
    lock_everybody_out(&cell, "/f", "--read");
    for arguments in [&["cat", "/f"][..], &["stat", "/f"], &["acl", "get", "/f"], &["watch", "/f"]] {
        cell.run(arguments).assert_failed(8, "/f");
    }
    let ran = cell.run(&["--json", "cat", "/f"]);
    let document: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(
        (&document["error"]["kind"], &document["error"]["exit_status"]),
        (&"denied".into(), &8.into())
    );
    // A change of the list lets them in again, at once.
    cell.run(&["put", "/acl/strangers", "anonymous\n"]).assert_done();
    assert_eq!(cell.run(&["cat", "/f"]).text(), "x");
    cell.run(&["lock", "/f", "--", "true"]).assert_done();
}

#[test]
fn a_list_is_shown_with_everybody_behind_it() {
    let cell = TestCell::start();
    cell.run(&["put", "/acl/ops", "bob\ncarol\n@gone\n"]).assert_done();
    cell.run(&["put", "/acl/team", "# the team\nalice\nbob\n@ops\n"]).assert_done();
    assert_eq!(
        cell.json(&["acl", "show", "team"]),
        json!({
            "name": "team",
            "everyone": false,
            "entries": ["alice", "bob", "@ops"],
            "principals": [
                { "principal": "alice", "lists": ["team"] },
                { "principal": "bob", "lists": ["ops", "team"] },
                { "principal": "carol", "lists": ["ops"] },
            ],
            "missing": ["gone"],
        })
    );
    let text = cell.run(&["acl", "show", "team"]);
    assert!(text.text().contains("bob        ops, team\n"), "{}", text.text());
    assert!(text.text().ends_with("groups that do not exist: gone\n"), "{}", text.text());
    cell.run(&["put", "/acl/all", "@team\n*\n"]).assert_done();
    assert_eq!(cell.json(&["acl", "show", "all"])["everyone"], true);
    assert_eq!(cell.run(&["acl", "show", "*"]).text(), "lets everyone in\n");
    cell.run(&["put", "/acl/none", "# nobody yet\n"]).assert_done();
    assert_eq!(cell.run(&["acl", "show", "none"]).text(), "lets nobody in\n");
    cell.run(&["acl", "show", "nosuch"]).assert_failed(3, "/acl/nosuch");
}

#[test]
fn a_list_that_is_none_is_refused_when_it_is_written() {
    let cell = TestCell::start();
    cell.run(&["put", "/acl/bad", "alice\nbob builder\n"]).assert_failed(1, "line 2");
    cell.run(&["put", "/acl/one", "@two\n"]).assert_done();
    cell.run(&["put", "/acl/two", "@one\n"]).assert_failed(1, "one");
    cell.run(&["acl", "show", "bad"]).assert_failed(3, "bad");
}

#[test]
fn lists_that_do_not_exist_are_warned_of_wherever_they_are_named() {
    let cell = TestCell::start();
    let warns_of = |arguments: &[&str], names: &[&str]| {
        let ran = cell.run(arguments);
        ran.assert_done();
        assert_eq!(ran.stderr.matches("warning: ").count(), names.len(), "{arguments:?}: {}", ran.stderr);
        for name in names {
            let warning = format!("there is no list \"{name}\" (no file /acl/{name})");
            assert!(ran.stderr.contains(&warning), "{arguments:?}: {}", ran.stderr);
        }
    };
    warns_of(&["put", "/acl/ops", "bob\n"], &[]);
    warns_of(&["put", "/acl/team", "alice\n@ops\n@gone\n# @comment\n@away\n@gone\n"], &["away", "gone"]);
    warns_of(&["put", "/ls/dev/acl/team", "@ops\n@gone\n"], &["gone"]);
    warns_of(&["put", "/f", "@gone\n"], &[]);
    warns_of(&["acl", "set", "/f", "--read", "nolist"], &["nolist"]);
    warns_of(&["put", "/g", "x", "--acl-read", "nolist", "--acl-change", "team"], &["nolist"]);
    warns_of(&["mkdir", "/d", "--acl-change", "nolist"], &["nolist"]);
    for arguments in [
        &["put", "/acl/team", "@ops\n@gone\n"][..],
        &["mkdir", "/e", "--acl-read", "gone"],
        &["acl", "set", "/f", "--read", "gone"],
    ] {
        assert_eq!(cell.json(arguments)["missing"], json!(["gone"]), "{arguments:?}");
    }
}

#[test]
fn a_node_can_be_born_with_lists_of_its_own() {
    let cell = TestCell::start();
    cell.run(&["put", "/acl/team", "anonymous\n"]).assert_done();
    let put = ["put", "/f", "x", "--acl-read", "team", "--acl-write", "team"];
    assert_eq!(cell.json(&put)["created"], true);
    assert_eq!(
        cell.json(&["stat", "/f"])["acl"],
        json!({ "read": "team", "write": "team", "change": "admin" })
    );
    assert_eq!(cell.run(&["cat", "/f"]).text(), "x");
    cell.run(&put).assert_failed(4, "already");
    cell.run(&["mkdir", "/d", "--acl-change", "*"]).assert_done();
    // What is below takes over.
    cell.run(&["put", "/d/f", "y"]).assert_done();
    assert_eq!(cell.json(&["acl", "get", "/d/f"])["change"], "*");
    cell.run(&["put", "/acl/strangers", "somebody-else\n"]).assert_done();
    cell.run(&["mkdir", "/e", "--acl-write", "strangers"]).assert_failed(8, "anonymous");
    assert_eq!(cell.json(&["session", "ls"])["sessions"], json!([]), "no session is left behind");
}

#[test]
fn who_may_not_look_after_the_cell_is_told_so() {
    let cell = TestCell::start();
    cell.run(&["settings", "bootstrap_principal=ops", "--force"]).assert_done();
    for arguments in [
        &["settings"][..],
        &["usage"],
        &["settings", "nodes_max=9"],
        &["session", "ls"],
        &["session", "kill", "1"],
        &["handles"],
        &["member", "remove", "3"],
        &["put", "/acl/admin", "anonymous\n"],
        &["acl", "set", "/", "--read", "admin"],
    ] {
        cell.run(arguments).assert_failed(8, "anonymous");
    }
}
