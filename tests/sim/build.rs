//! Tells the program which commit it is built from, so that a failure can name it.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::Command;

/// What a run follows from, as seen from here. In a package of this crate alone most of it is not there.
const SOURCES: [&str; 5] = ["src", "../../proto", "../../server", "../../client-lib", "../../Cargo.lock"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=HOLDFAST_COMMIT={}", commit().unwrap_or_else(|| "unknown".to_owned()));
}

/// The commit, with "-dirty" if what is built is not what it holds. Nothing outside of a checkout of this project,
/// which a package unpacked inside of another project is.
fn commit() -> Option<String> {
    if git(&["rev-parse", "--show-prefix"])? != "tests/sim/" {
        return None;
    }
    // The files that change when another commit is checked out, or made. In a worktree the first is its own.
    let (own, common) = (git(&["rev-parse", "--git-dir"])?, git(&["rev-parse", "--git-common-dir"])?);
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]).unwrap_or_default();
    let heads = [format!("{own}/HEAD"), format!("{common}/{branch}"), format!("{common}/packed-refs")];
    for path in heads.iter().map(String::as_str).chain(SOURCES) {
        // What is not there would make every build run this again.
        if Path::new(path).exists() && !path.ends_with('/') {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    let head = git(&["rev-parse", "--short", "HEAD"])?;
    let mut status = vec!["status", "--porcelain", "--"];
    status.extend(SOURCES);
    let dirty = if git(&status)?.is_empty() { "" } else { "-dirty" };
    Some(format!("{head}{dirty}"))
}

/// What git answers, if there is a git, and something that it can say of this directory.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
