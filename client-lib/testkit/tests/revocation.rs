//! How long it takes until a right that is taken away is gone for everybody (docs/security.md has the figures that this
//! prints: `cargo test --release -p holdfast-testkit --test revocation -- --nocapture`).

use std::time::{Duration, Instant};

use holdfast::{AclNames, Cell, Error, OpenOptions, RefusalCode, Session, WriteOptions};
use holdfast_testkit::{TestCell, eventually};

/// The longest lease with which a session caches.
const LEASE: Duration = Duration::from_secs(12);
/// Nothing that is waited for takes so long.
const LIMIT: Duration = Duration::from_secs(60);
/// So many clients have an open that rests on the list.
const SESSIONS: usize = 50;
/// So often the right is taken.
const ROUNDS: usize = 20;

/// Writes the list, again if nobody knows what came of that.
async fn write_list(cell: &Cell, text: &'static str) {
    eventually("the list is written", LIMIT, async || {
        let written = cell.set_contents("/acl/team", text, WriteOptions::new().create()).await;
        written.ok()
    })
    .await;
}

async fn open(session: &Session) -> Result<(), Error> {
    session.open("/file", OpenOptions::new().read_only()).await.map(drop)
}

/// Opens the file until that costs no message.
async fn open_from_cache(session: &Session) {
    eventually("the open handle is used again", LIMIT, async || {
        let before = session.cache_stats().misses;
        open(session).await.ok()?;
        (session.cache_stats().misses == before).then_some(())
    })
    .await;
}

async fn assert_denied(session: &Session) {
    let refused = open(session).await.unwrap_err();
    assert_eq!(refused.refusal(), Some(RefusalCode::PermissionDenied), "{refused}");
}

#[tokio::test]
async fn a_right_that_is_taken_is_gone_when_the_write_is_answered_also_for_who_cannot_be_asked() {
    let cell = TestCell::start().await.unwrap();
    let admin = cell.client();
    write_list(&admin, "anonymous").await;
    admin.set_contents("/file", "text", WriteOptions::new().create()).await.unwrap();
    admin.set_acl("/file", AclNames::new().read("team")).await.unwrap();
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(admin.session().lease(LEASE).open().await.unwrap());
    }
    let mut taken = Vec::new();
    for _ in 0..ROUNDS {
        for session in &sessions {
            open_from_cache(session).await;
        }
        let began = Instant::now();
        write_list(&admin, "nobody").await;
        taken.push(began.elapsed());
        for session in &sessions {
            assert_denied(session).await;
        }
        write_list(&admin, "anonymous").await;
    }
    taken.sort();
    println!("{SESSIONS} clients: median {:?}, longest {:?}", taken[ROUNDS / 2], taken[ROUNDS - 1]);

    // One of them cannot be asked: its lease is waited for.
    let far = cell.client_named("far").unwrap().session().lease(LEASE).open().await.unwrap();
    open_from_cache(&far).await;
    let cut = cell.partition_client("far").unwrap();
    let began = Instant::now();
    write_list(&admin, "nobody").await;
    println!("one client that is cut off: {:?}", began.elapsed());
    assert!(open(&sessions[0]).await.is_err());
    cut.heal();
}
