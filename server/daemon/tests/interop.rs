//! What an implementer in another language relies on: `tests/interop/interop.py` against a cell.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use holdfast_server::dev::{DevCell, DevOptions};
use slog::{Discard, Logger, o};
use tokio::process::Command;

/// Beyond what the program allows itself.
const LIMIT: Duration = Duration::from_secs(300);

/// The root of the source tree.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A Python whose grpcio works here: that can make stubs, and whose own client and server can talk to each other.
async fn python() -> Option<PathBuf> {
    let chosen = std::env::var_os("HOLDFAST_INTEROP_PYTHON").map(PathBuf::from);
    let candidates = chosen.into_iter().chain([root().join("target/interop/bin/python"), "python3".into()]);
    for python in candidates {
        let has_stubs = run(&python, ["-c", "import grpc_tools.protoc"]).await;
        if !has_stubs.is_ok_and(|output| output.status.success()) {
            continue;
        }
        match run(&python, [root().join("tests/interop/probe.py")]).await {
            Ok(output) if output.status.success() => return Some(python),
            Ok(output) => println!("{python:?}: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => println!("{python:?}: {error}"),
        }
    }
    None
}

/// Runs a Python program to its end. The programs limit themselves, and say where they were stuck; a limit stands here for a
/// Python that does not even do that.
async fn run(
    python: &Path,
    arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
) -> std::io::Result<Output> {
    let running = Command::new(python).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    tokio::time::timeout(LIMIT, running).await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_made_from_the_protos_alone_finds_what_they_promise() {
    let Some(python) = python().await else {
        println!(
            "skipped: no python3 with grpcio and grpcio-tools that work here (tests/interop/README.md says how to get \
             them)"
        );
        return;
    };
    let logger = Logger::root(Discard, o!());
    let cell = DevCell::start(DevOptions { replicas: 1, ..DevOptions::default() }, logger).await.unwrap();
    let arguments =
        ["tests/interop/interop.py", "proto/proto"].map(|path| root().join(path).into_os_string());
    let output = run(&python, arguments.into_iter().chain([cell.addresses()[0].clone().into()])).await;
    let output = output.expect("the program ends in time");
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{said}{wrong}");
    assert!(said.contains("checks passed"), "{said}");
    cell.stop().await.unwrap();
}
