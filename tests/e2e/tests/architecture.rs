//! docs/ARCHITECTURE.md and README.md name only what exists.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace's root")
}

/// The parts of a document between back-quotes that look like paths of the repository.
fn named_paths(document: &str) -> Vec<String> {
    const TOPS: [&str; 9] =
        ["proto/", "server/", "client-lib/", "cli/", "examples/", "tests/", "bench/", "docs/", ".ci/"];
    let quoted = document.split('`').skip(1).step_by(2);
    let paths = quoted.filter(|text| TOPS.iter().any(|top| text.starts_with(top)) && !text.contains(' '));
    paths.map(str::to_owned).collect()
}

#[test]
fn every_path_that_the_documents_name_exists() {
    for (document, paths_min) in [("docs/ARCHITECTURE.md", 30), ("README.md", 3)] {
        let text = std::fs::read_to_string(root().join(document)).expect("the document exists");
        let paths = named_paths(&text);
        assert!(paths.len() >= paths_min, "{document} names {} paths: is the test reading it?", paths.len());
        for path in paths {
            assert!(root().join(&path).exists(), "{document} names {path}, which does not exist");
        }
    }
}
