//! What the program says, and when, while the cell stands still.

use std::process::Output;
use std::time::Duration;

use holdfast_testkit::TestCell;
use tokio::process::Command;

use crate::harness::{LIMIT, Ran, holdfast};

/// The program, for a cell of the test kit.
fn command(cell: &TestCell, arguments: &[&str]) -> Command {
    let mut command = holdfast(arguments);
    command.env("HOLDFAST_ADDRESSES", cell.addresses().join(","));
    Command::from(command)
}

async fn run(cell: &TestCell, arguments: &[&str]) -> Ran {
    let output: Output =
        tokio::time::timeout(LIMIT, command(cell, arguments).output()).await.unwrap().unwrap();
    Ran::of(output)
}

#[tokio::test]
async fn nobody_waits_longer_than_he_said_for_a_cell_that_stands_still() {
    let cell = TestCell::start().await.unwrap();
    let session = cell.client().session().open().await.unwrap();
    let held = session.open("/l", holdfast::OpenOptions::new().create()).await.unwrap();
    let _lock = held.acquire(holdfast::Mode::Exclusive).await.unwrap();
    let waiter = tokio::spawn({
        let waiting = command(&cell, &["lock", "/l", "--wait", "5", "--timeout", "1", "--", "true"]).output();
        async move { Ran::of(tokio::time::timeout(LIMIT, waiting).await.unwrap().unwrap()) }
    });
    holdfast_testkit::eventually("it waits", LIMIT, async || {
        cell.client().stat("/l").await.ok().filter(|stat| stat.lock.waiting == 1)
    })
    .await;
    for replica in cell.replicas() {
        cell.pause(replica).await.unwrap();
    }
    // Somebody had the lock when the cell was last heard of; now nobody says anything.
    waiter.await.unwrap().assert_failed(115, "in 5 s (--wait), and no master answers now");
    run(&cell, &["lock", "/l", "--try", "--timeout", "1", "--", "true"])
        .await
        .assert_failed(115, "no master");
    for replica in cell.replicas() {
        cell.resume(replica).unwrap();
    }
    let patience = Duration::from_secs(15).as_secs().to_string();
    run(&cell, &["lock", "/free", "--wait", &patience, "--timeout", &patience, "--", "true"])
        .await
        .assert_done();
}
