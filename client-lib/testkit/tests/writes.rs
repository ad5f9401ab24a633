//! Writes by name that have to wait for a client that is gone with a copy.

use std::time::Duration;

use holdfast::{Cell, Error, OpenOptions, WriteOptions};
use holdfast_testkit::{TestCell, eventually};

const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_write_that_only_waits_when_its_caller_gives_up_has_no_effect_then_and_none_later() {
    let cell = TestCell::start().await.unwrap();
    let reader = cell.client_named("reader").unwrap();
    let session = reader.session().lease(Duration::from_secs(4)).open().await.unwrap();
    let handle = session.open("/config", OpenOptions::new().create()).await.unwrap();
    let before = handle.contents().await.unwrap();
    let cut = cell.partition_client("reader").unwrap();
    let id = session.id();

    let writer = cell.client();
    let hasty =
        Cell::builder().addresses(cell.addresses()).timeout(Duration::from_secs(1)).connect().unwrap();
    let error = hasty.set_contents("/config", "too late", WriteOptions::new()).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    // Once nobody can have a copy any more.
    eventually("the reader's session is over", LIMIT, async || {
        let sessions = writer.list_sessions().await.ok()?;
        sessions.iter().all(|info| info.session != id).then_some(())
    })
    .await;
    let now = writer.contents("/config").await.unwrap();
    assert_eq!(now.stat.content_generation, before.stat.content_generation);
    writer.set_contents("/config", "in time", WriteOptions::new()).await.unwrap();
    drop(cut);
}
