//! What somebody else chose commands no terminal, whichever command shows it.

use std::path::Path;

use crate::harness::{Ran, TestCell};

/// Clears the screen, renames the window, turns what follows around.
const EVIL: &str = "e\u{1b}[2J\u{1b}]0;x\u{7}\u{202e}live";

fn assert_harmless(what: &str, ran: &Ran) {
    for said in [&String::from_utf8_lossy(&ran.stdout), ran.stderr.as_str()] {
        let evil =
            said.chars().find(|character| matches!(character, '\u{1b}' | '\u{7}' | '\u{202e}' | '\u{9b}'));
        assert_eq!(evil, None, "{what}: {said:?}");
    }
}

#[test]
fn no_command_shows_what_a_terminal_would_obey() {
    let cell = TestCell::start();
    let path = format!("/{EVIL}");
    // What the cell, or the program itself, has to say of such a name.
    for arguments in [
        &["ls", &path][..],
        &["stat", &path],
        &["cat", &path],
        &["watch", &path, "--count", "1"],
        &["put", &path, "x"],
        &["mkdir", &path],
        &["rm", &path],
        &["handles", &path],
        &["acl", "get", &path],
        &["acl", "set", &path, "--read", EVIL],
        &["acl", "show", EVIL],
        &["lock", &path, "--try", "--", "true"],
        &["check-sequencer", EVIL],
        &["settings", &format!("bootstrap_principal={EVIL}")],
        &["--cell", EVIL, "status"],
        &["--addresses", EVIL, "ls"],
    ] {
        let ran = cell.run(arguments);
        assert_ne!(ran.status, 0, "{arguments:?}");
        assert_harmless(&format!("{arguments:?}"), &ran);
        let json: Vec<&str> = ["--json"].into_iter().chain(arguments.iter().copied()).collect();
        assert_harmless(&format!("{json:?}"), &cell.run(&json));
    }
}

#[test]
fn names_and_contents_of_others_are_shown_by_number_and_programs_get_them_as_they_are() {
    let cell = TestCell::start();
    let contents = format!("one\n{EVIL}\ttwo");
    cell.run_with_input(&["put", "/f"], contents.as_bytes()).assert_done();
    assert_eq!(cell.run(&["cat", "/f"]).text(), contents, "piped, byte for byte");
    let json = cell.run(&["--json", "cat", "/f"]);
    assert_harmless("cat --json", &json);
    assert_eq!(serde_json::from_str::<serde_json::Value>(json.text()).unwrap()["text"], contents);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = holdfast::Cell::connect([&cell.addresses]).unwrap();
    let session = runtime.block_on(async {
        let session = client.session().client_name(EVIL).open().await.ok()?;
        let handle = session.open("/f", holdfast::OpenOptions::new()).await.unwrap();
        let lock = handle.acquire(holdfast::Mode::Exclusive).await.unwrap();
        Some((session, handle, lock))
    });
    // From state version 2 on the cell does not take such a name in the first place.
    if session.is_none() {
        return;
    }
    for arguments in
        [&["session", "ls"][..], &["handles"], &["stat", "/f"], &["lock", "/f", "--try", "--", "true"]]
    {
        let ran = cell.run(arguments);
        assert_harmless(&format!("{arguments:?}"), &ran);
        let json: Vec<&str> = ["--json"].into_iter().chain(arguments.iter().copied()).collect();
        assert_harmless(&format!("{json:?}"), &cell.run(&json));
    }
    let shown = cell.run(&["session", "ls"]);
    assert!(shown.text().contains("e<U+001B>[2J<U+001B>]0;x<U+0007><U+202E>live"), "{}", shown.text());
    assert_eq!(cell.json(&["stat", "/f"])["lock"]["holders"][0]["client"], EVIL);
}

/// All commands hand what they have to say to `output`, which escapes it.
#[test]
fn no_command_writes_past_the_escaping() {
    fn look_into(directory: &Path, looked: &mut usize) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                look_into(&path, looked);
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            *looked += 1;
            for word in ["println!", "print!(", "writeln!", "write_all", "io::stdout()", "output::raw"] {
                assert!(!source.contains(word), "{}: {word}", path.display());
            }
        }
    }
    let mut looked = 0;
    look_into(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands"), &mut looked);
    assert!(looked > 20, "only {looked} files");
}
