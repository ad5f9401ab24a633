//! What an implementer in another language relies on: `tests/interop/interop.py` against a cell.

use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_server::dev::{DevCell, DevOptions};
use slog::{Discard, Logger, o};

/// The root of the source tree.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A Python that can make stubs and use them.
fn python() -> Option<PathBuf> {
    let chosen = std::env::var_os("HOLDFAST_INTEROP_PYTHON").map(PathBuf::from);
    let candidates = chosen.into_iter().chain([root().join("target/interop/bin/python"), "python3".into()]);
    candidates.into_iter().find(|python| {
        let imports = Command::new(python).args(["-c", "import grpc, grpc_tools.protoc"]).output();
        imports.is_ok_and(|output| output.status.success())
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_made_from_the_protos_alone_finds_what_they_promise() {
    let Some(python) = python() else {
        println!(
            "skipped: no python3 with grpcio and grpcio-tools (tests/interop/README.md says how to get them)"
        );
        return;
    };
    let logger = Logger::root(Discard, o!());
    let cell = DevCell::start(DevOptions { replicas: 1, ..DevOptions::default() }, logger).await.unwrap();
    let mut client = Command::new(python);
    client
        .arg(root().join("tests/interop/interop.py"))
        .arg(root().join("proto/proto"))
        .arg(&cell.addresses()[0]);
    let output = tokio::task::spawn_blocking(move || client.output()).await.unwrap().unwrap();
    let (said, wrong) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    assert!(output.status.success(), "{said}{wrong}");
    assert!(said.contains("checks passed"), "{said}");
    cell.stop().await.unwrap();
}
