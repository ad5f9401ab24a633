//! TLS: whose certificate is wrong, and how, in one line.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::harness::{Ran, TestCell, holdfast};

/// A certificate that nobody but itself has signed, and its key, as files.
struct SelfSigned {
    dir: TempDir,
}

impl SelfSigned {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(dir.path().join("cert.pem"), signed.cert.pem()).unwrap();
        std::fs::write(dir.path().join("key.pem"), signed.signing_key.serialize_pem()).unwrap();
        std::fs::write(dir.path().join("empty.pem"), "").unwrap();
        Self { dir }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn what_is_wrong_with_ones_own_files_is_told_and_nothing_is_sent() {
    let (one, other) = (SelfSigned::new(), SelfSigned::new());
    let (cert, key, other_key) = (one.file("cert.pem"), one.file("key.pem"), other.file("key.pem"));
    let (cert, key, other_key) = (text(&cert), text(&key), text(&other_key));
    let empty = one.file("empty.pem");
    let empty = text(&empty);
    for (arguments, said) in [
        (&["--ca", "/no/such/ca.pem"][..], "the CA certificate cannot be read from /no/such/ca.pem"),
        (&["--ca", empty], "no PEM certificate"),
        (&["--ca", cert, "--cert", "/no/such.pem", "--key", key], "the client certificate cannot be read"),
        (&["--ca", cert, "--cert", cert, "--key", "/no/such.key"], "the client key cannot be read"),
        (&["--ca", cert, "--cert", empty, "--key", key], "the client certificate"),
        (&["--ca", cert, "--cert", cert, "--key", cert], "no PEM private key"),
        (&["--ca", cert, "--cert", cert, "--key", other_key], "the client key"),
        (&["--ca", cert, "--cert", cert], "add --key (HOLDFAST_KEY)"),
        (&["--ca", cert, "--key", key], "add --cert (HOLDFAST_CERT)"),
        (&["--cert", cert, "--key", key], "add --ca (HOLDFAST_CA)"),
        (&["--server-name", "localhost"], "add --ca (HOLDFAST_CA)"),
        (&["--ca", cert, "--server-name", "no host"], "--server-name"),
        (&["--addresses", "https://127.0.0.1:1"], "no TLS is configured"),
        (&["--ca", cert, "--addresses", "http://127.0.0.1:1"], "https://"),
    ] {
        let mut all = arguments.to_vec();
        all.push("ls");
        let ran = Ran::of(holdfast(&all).output().unwrap());
        ran.assert_failed(1, said);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    }
}

#[test]
fn the_environment_says_it_as_well_as_options_do() {
    let ran = holdfast(&["ls"]).env("HOLDFAST_CA", "/no/such/ca.pem").output().unwrap();
    Ran::of(ran).assert_failed(1, "/no/such/ca.pem");
    let ran = holdfast(&["ls"]).env("HOLDFAST_KEY", "/no/such.key").output().unwrap();
    Ran::of(ran).assert_failed(1, "add --cert (HOLDFAST_CERT)");
}

#[test]
fn a_cell_that_talks_plain_text_is_told_apart_from_one_that_is_not_there() {
    let cell = TestCell::start();
    let signed = SelfSigned::new();
    let ca = signed.file("cert.pem");
    let tls = ["--ca", text(&ca), "--timeout", "1"];
    // What changes something, too: nothing was sent, so nothing is unknown.
    for arguments in [&["ls"][..], &["status"], &["put", "/f", "x"], &["watch", "/"]] {
        cell.run(&[&tls, arguments].concat()).assert_failed(5, "the replica speaks plain text");
    }
    cell.run(&[&tls[..], &["lock", "/l", "--", "true"]].concat()).assert_failed(115, "plain text");
    let ran = cell.run(&[&["--json"], &tls[..], &["ls"]].concat());
    let document: serde_json::Value = serde_json::from_str(&ran.stderr).unwrap();
    assert_eq!(document["error"]["kind"], "unreachable");
    cell.run(&["cat", "/f"]).assert_failed(3, "/f");
}
