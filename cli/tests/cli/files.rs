//! Files and directories.

use crate::harness::TestCell;

#[test]
fn contents_go_in_and_out_byte_for_byte() {
    let cell = TestCell::start();
    let bytes: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    assert_eq!(cell.run_with_input(&["put", "/blob", "-"], &bytes).status, 0);
    assert_eq!(cell.run(&["cat", "/blob"]).stdout, bytes);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"from a file\n").unwrap();
    assert_eq!(cell.run(&["put", "/blob", "--file", file.path().to_str().unwrap()]).status, 0);
    assert_eq!(cell.run(&["cat", "/ls/local/blob"]).text(), "from a file\n");
    // What looks like an option is contents, too, and so is nothing.
    assert_eq!(cell.run(&["put", "/blob", "--", "-x"]).status, 0);
    assert_eq!(cell.run(&["cat", "/ls/dev/blob"]).text(), "-x");
    assert_eq!(cell.run(&["put", "/blob", ""]).status, 0);
    let document = cell.json(&["cat", "/blob"]);
    assert_eq!(
        (&document["text"], &document["base64"], &document["length"]),
        (&"".into(), &"".into(), &0.into())
    );
    cell.run_with_input(&["put", "/blob"], b"\xff\x00").assert_done();
    let document = cell.json(&["cat", "/blob"]);
    assert!(document["text"].is_null());
    assert_eq!(document["base64"], "/wA=");
}

#[test]
fn a_write_at_another_generation_is_a_conflict_and_changes_nothing() {
    let cell = TestCell::start();
    let first = cell.json(&["put", "/f", "one", "--if-generation", "0"]);
    assert_eq!(first["created"], true);
    cell.run(&["put", "/f", "two", "--if-generation", "0"]).assert_failed(4, "already");
    let generation = first["content_generation"].to_string();
    let second = cell.json(&["put", "/f", "two", "--if-generation", &generation]);
    assert_eq!(second["created"], false);
    cell.run(&["put", "/f", "three", "--if-generation", &generation]).assert_failed(4, "generation");
    let refused = cell.run(&["--json", "put", "/f", "three", "--if-generation", &generation]);
    let error: serde_json::Value = serde_json::from_str(&refused.stderr).unwrap();
    assert_eq!(error["error"]["refusal"], "GENERATION_MISMATCH");
    let facts = &error["error"]["facts"];
    assert_eq!((&facts["generation"], &facts["wanted"]), (&"content".into(), &first["content_generation"]));
    assert_eq!(facts["present"], second["content_generation"]);
    assert_eq!(cell.run(&["cat", "/f"]).text(), "two");
    cell.run(&["put", "/absent", "x", "--if-generation", "1"]).assert_failed(3, "/absent");
    let stat = cell.json(&["stat", "/f"]);
    assert_eq!(stat["content_generation"], second["content_generation"]);
    assert_eq!(stat["instance"], first["content_generation"]);
}

#[test]
fn directories_are_made_listed_and_removed_when_empty() {
    let cell = TestCell::start();
    cell.run(&["mkdir", "/d"]).assert_done();
    cell.run(&["mkdir", "/d"]).assert_failed(4, "already");
    cell.run(&["mkdir", "/x/y"]).assert_failed(3, "/x does not exist");
    cell.run(&["put", "/d/f", "12345"]).assert_done();
    cell.run(&["mkdir", "/d/sub"]).assert_done();
    let text = cell.run(&["ls", "/d"]);
    let lines: Vec<&str> = text.text().lines().collect();
    assert!(lines[0].starts_with("NAME"), "{lines:?}");
    assert!(lines[1].starts_with("f ") && lines[1].contains("5 B"), "{lines:?}");
    assert!(lines[2].starts_with("sub/") && lines[2].contains("0 children"), "{lines:?}");
    let document = cell.json(&["ls", "/d"]);
    assert_eq!(document["entries"][0]["name"], "f");
    assert_eq!(document["entries"][0]["length"], 5);
    assert_eq!(document["entries"][1]["kind"], "directory");
    cell.run(&["rm", "/d"]).assert_failed(4, "children");
    cell.run(&["rm", "/d/f", "--if-instance", "1"]).assert_failed(4, "instance");
    for path in ["/d/f", "/d/sub", "/d"] {
        cell.run(&["rm", path]).assert_done();
    }
    cell.run(&["ls", "/d"]).assert_failed(3, "/d");
    cell.run(&["rm", "/"]).assert_failed(1, "root");
    cell.run(&["mkdir", "/empty"]).assert_done();
    assert_eq!(cell.run(&["ls", "/empty"]).text(), "");
}

#[test]
fn more_children_than_one_answer_holds_are_all_listed() {
    let cell = TestCell::start();
    cell.run(&["mkdir", "/d"]).assert_done();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let cell = holdfast::Cell::connect([&cell.addresses]).unwrap();
        let session = cell.session().open().await.unwrap();
        let names: Vec<String> = (0..1100).map(|n| format!("/d/n{n:04}")).collect();
        let options = || holdfast::OpenOptions::new().create_new();
        let opening = futures::future::try_join_all(names.iter().map(|name| session.open(name, options())));
        assert_eq!(opening.await.unwrap().len(), names.len());
        session.close().await;
    });
    let document = cell.json(&["ls", "/d"]);
    let entries = document["entries"].as_array().unwrap();
    assert_eq!(entries.len(), 1100);
    assert_eq!(entries[1099]["name"], "n1099");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let cell = TestCell::start();
    cell.run_with_input(&["put", "/large"], &vec![b'x'; 262_144]).assert_done();
    let mut child = cell.holdfast(&["cat", "/large"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    // Closes the pipe, which holds less than the file.
    drop(child.stdout.take());
    assert!(child.wait().unwrap().success());
}

#[test]
fn commands_go_by_the_names_that_others_give_them_too() {
    let cell = TestCell::start();
    cell.run_with_input(&["set", "/f", "--file", "-"], b"one").assert_done();
    assert_eq!(cell.run(&["get", "/f"]).text(), "one");
    cell.run(&["del", "/f"]).assert_done();
    cell.run(&["handles", "/f"]).assert_failed(3, "no node /f");
    cell.run(&["delete", "/f"]).assert_failed(3, "/f");
}
