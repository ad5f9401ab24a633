//! The core is pure (design.md §2): the crates that decide depend on no runtime, no transport, no clock and no
//! chance, and name none of them in their sources.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The pure crates and where they are.
const PURE: [(&str, &str); 5] = [
    ("holdfast-types", "proto/types"),
    ("holdfast-state", "server/state"),
    ("holdfast-master", "server/master"),
    ("holdfast-replica", "server/replica"),
    ("holdfast-session", "client-lib/session"),
];

/// Runtimes, transports, clocks and sources of chance.
const BANNED: [&str; 22] = [
    "async-std",
    "chrono",
    "coarsetime",
    "crossbeam-channel",
    "fastrand",
    "futures-timer",
    "h2",
    "hyper",
    "instant",
    "jiff",
    "mio",
    "nix",
    "quanta",
    "rustix",
    "slog-async",
    "smol",
    "socket2",
    "time",
    "tokio",
    "tokio-stream",
    "tonic",
    "tracing",
];

/// Only raft-rs may bring these in: its one use of chance is overridden from the seed (design.md §9).
const RAFT_ONLY: [&str; 3] = ["getrandom", "rand", "slog"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace's root")
}

/// Every crate that `package` is built from, at run time.
fn dependencies(package: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--edges", "normal", "--prefix", "none", "--package", package])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).expect("cargo prints text");
    let names = tree.lines().filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

#[test]
fn the_pure_crates_depend_on_no_runtime_transport_clock_or_chance() {
    for (package, _) in PURE {
        let found = dependencies(package);
        assert!(found.contains(package), "{package} is in its own tree: {found:?}");
        for banned in BANNED {
            assert!(!found.contains(banned), "{package} has come to depend on {banned}");
        }
        for banned in RAFT_ONLY {
            assert!(
                package == "holdfast-replica" || !found.contains(banned),
                "{package} depends on {banned}"
            );
        }
    }
}

#[test]
fn the_ban_would_notice_a_dependency() {
    let found = dependencies("holdfast-server");
    assert!(found.contains("tokio") && found.contains("tonic"), "{found:?}");
}

#[test]
fn the_pure_crates_ban_clocks_threads_and_seeded_maps_by_lint() {
    for (package, directory) in PURE {
        let path = root().join(directory).join("clippy.toml");
        let lints = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{package}: {error}"));
        for banned in [
            "std::time::Instant::now",
            "std::time::SystemTime::now",
            "std::collections::HashMap",
            "std::thread::spawn",
        ] {
            assert!(lints.contains(banned), "{package}'s clippy.toml does not ban {banned}");
        }
        let manifest =
            std::fs::read_to_string(root().join(directory).join("Cargo.toml")).expect("a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{package} goes by the workspace's lints");
    }
}

#[test]
fn the_pure_crates_name_no_file_socket_thread_or_clock() {
    const WORDS: [&str; 7] =
        ["std::fs", "std::net", "std::thread", "std::env", "Instant::now", "SystemTime::now", "thread_rng"];
    for (package, directory) in PURE {
        for file in sources(&root().join(directory).join("src")) {
            let text = std::fs::read_to_string(&file).expect("a source is text");
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for (number, line) in code.enumerate() {
                for word in WORDS {
                    assert!(!line.contains(word), "{package}: {} near line {number}: {word}", file.display());
                }
            }
        }
    }
}

/// Refusals are recorded by every replica, and what a name may be is decided by every replica: neither may hang on the
/// standard library's tables of characters or on its wording, which change from release to release (I9).
#[test]
fn what_replicas_record_and_decide_hangs_on_no_table_of_the_standard_library() {
    const WORDS: [&str; 9] = [
        ":?}",
        "Utf8Error",
        "is_whitespace",
        "is_alphanumeric",
        "is_alphabetic",
        "is_numeric",
        ".trim()",
        "to_lowercase",
        "to_uppercase",
    ];
    /// Where they stand all the same, and how often: what state version 1 said, and what only stops a process.
    const ALLOWED: [(&str, usize); 4] = [
        ("server/state/src/invariants.rs", 1),
        ("server/state/src/lock.rs", 2),
        ("server/state/src/refusal.rs", 2),
        ("server/state/src/snapshot/reader.rs", 2),
    ];
    let mut found = Vec::new();
    let directories = ["server/state/src", "proto/types/src"];
    for file in directories.iter().flat_map(|directory| sources(&root().join(directory))) {
        let text = std::fs::read_to_string(&file).expect("a source is text");
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let code = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        let count = code.filter(|line| WORDS.iter().any(|word| line.contains(word))).count();
        let name = file.strip_prefix(root()).expect("a file of ours").display().to_string();
        // Fences are for the servers that take orders; the simulator's faults are in no release.
        if count > 0 && !name.ends_with("/fence.rs") && !name.contains("/planted") {
            found.push((name, count));
        }
    }
    found.sort();
    assert_eq!(found, ALLOWED.map(|(name, count)| (name.to_owned(), count)));
}

fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// Elsewhere than in tests: raft's parser is not trusted with what was not walked over.
#[test]
fn only_one_place_hands_bytes_to_rafts_parser() {
    const PLACE: &str = "server/replica/src/raft_bytes.rs";
    const WORDS: [&str; 4] = ["parse_from_bytes", "merge_from_bytes", "parse_from_reader", "get_message"];
    let mut found = Vec::new();
    for directory in ["server", "proto", "client-lib", "tests/sim/src"] {
        for file in sources(&root().join(directory)) {
            let text = std::fs::read_to_string(&file).expect("a source is text");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            let name = file.strip_prefix(root()).expect("a file of ours").display().to_string();
            if !name.contains("/tests/") && WORDS.iter().any(|word| code.contains(word)) {
                found.push(name);
            }
        }
    }
    assert_eq!(found, [PLACE]);
}
