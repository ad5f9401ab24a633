//! Nothing of a cell is left when it is gone. A test program of its own, because it counts what the process has.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;

use futures::future::try_join_all;
use holdfast_testkit::TestCell;

fn count(what: &str) -> usize {
    fs::read_dir(format!("/proc/self/{what}")).expect("Linux").count()
}

/// Breaks a cell in every way, and gives what it had.
async fn break_a_cell() -> (Vec<String>, PathBuf) {
    let cell = TestCell::start().await.unwrap();
    let client = cell.client_named("a").unwrap();
    let session = client.session().open().await.unwrap();
    let old = cell.kill_master().await.unwrap();
    let new = cell.wait_for_new_master(old).await.unwrap();
    cell.restart(old).await.unwrap();
    cell.pause(new).await.unwrap();
    let _cut = cell.partition_client("a").unwrap();
    drop(session);
    (cell.addresses(), cell.data_dir())
}

/// Several cells at a time, all of which are dropped while something is broken in them.
#[test]
fn cells_leave_no_threads_no_descriptors_no_ports_and_no_files() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    // What is made once for the whole process is made.
    runtime().block_on(break_a_cell());
    let before = (count("task"), count("fd"));
    let several = runtime();
    let left = several.block_on(try_join_all((0..3).map(|_| several.spawn(break_a_cell())))).unwrap();
    drop(several);
    for (addresses, dir) in left {
        assert!(!dir.exists(), "{} is still there", dir.display());
        for address in addresses {
            assert!(TcpStream::connect(&address).is_err(), "somebody listens at {address}");
        }
    }
    let after = (count("task"), count("fd"));
    assert!(
        after <= before && after.1 <= before.1,
        "threads and descriptors: {before:?} before, {after:?} after"
    );
}
