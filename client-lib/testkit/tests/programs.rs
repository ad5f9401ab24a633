//! What programs leave behind that hold locks: by their end, and by locks of names that are made for a job.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::{leader, session, soon};
use holdfast::{Cell, Mode, OpenOptions, RefusalCode, Session};
use holdfast_testkit::TestCell;

/// The most that a cell allows.
const LOCK_DELAY_MAX: Duration = Duration::from_secs(60);

/// A program whose `main` takes a lock and fails, with a runtime that ends with `main`. `last` is what it awaits before.
fn fail_under_a_lock(cell: Cell, last: impl AsyncFnOnce(&Session) + Send) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let session = session(&cell).await;
        let handle = leader(&session).await;
        let lock = handle.acquire(Mode::Exclusive).await.unwrap();
        drop((lock, handle));
        last(&session).await;
    });
}

#[tokio::test]
async fn a_program_that_flushes_or_closes_its_session_before_it_ends_leaves_no_lock_behind() {
    let cell = TestCell::start().await.unwrap();
    let next = session(&cell.client()).await;
    let handle = leader(&next).await;
    for flushes in [true, false] {
        let client = cell.client();
        let program = tokio::task::spawn_blocking(move || {
            fail_under_a_lock(client, async |session| {
                if flushes {
                    session.flush().await.unwrap();
                } else {
                    session.close().await;
                }
            });
        });
        soon("the program's end", program).await.unwrap();
        // Its lease would last for longer than this test.
        let lock = soon("an answer", handle.try_acquire(Mode::Exclusive)).await.unwrap();
        soon("the release", lock.expect("the lock is free").release()).await.unwrap();
    }
}

#[tokio::test]
async fn locks_of_ephemeral_files_exclude_each_other_and_a_file_goes_with_its_last_user() {
    let cell = TestCell::start().await.unwrap();
    let client = cell.client();
    let first = session(&client).await;
    let jobs = first.open("/jobs", OpenOptions::new().create().directory()).await.unwrap();
    let busy = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (client, busy) = (client.clone(), Arc::clone(&busy));
            tokio::spawn(async move {
                let session = session(&client).await;
                let mut created = 0;
                for _ in 0..25 {
                    let handle =
                        session.open("/jobs/nightly", OpenOptions::new().create().ephemeral()).await.unwrap();
                    created += u32::from(handle.created());
                    let lock = handle.acquire(Mode::Exclusive).await.unwrap();
                    assert!(!busy.swap(true, Ordering::SeqCst), "two have the lock");
                    tokio::task::yield_now().await;
                    busy.store(false, Ordering::SeqCst);
                    lock.release().await.unwrap();
                    handle.close().await;
                }
                created
            })
        })
        .collect();
    let mut created = 0;
    for worker in workers {
        created += soon("a worker's end", worker).await.unwrap();
    }
    assert!(created > 0);
    assert!(jobs.read_dir().await.unwrap().is_empty());
}

#[tokio::test]
async fn the_lock_delay_of_a_lost_lock_holds_on_an_ephemeral_file_too() {
    let cell = TestCell::start().await.unwrap();
    let (lost, next) = (session(&cell.client()).await, session(&cell.client()).await);
    let options = || OpenOptions::new().create().ephemeral().lock_delay(LOCK_DELAY_MAX);
    let handle = lost.open("/nightly", options()).await.unwrap();
    let _lock = handle.acquire(Mode::Exclusive).await.unwrap();
    cell.expire_session(lost.id()).await.unwrap();
    // Nobody has the file open now; if it went, its lock could be taken under its name.
    let handle = soon("a handle", next.open("/nightly", options())).await.unwrap();
    assert!(!handle.created(), "it is the same file");
    assert!(soon("an answer", handle.try_acquire(Mode::Exclusive)).await.unwrap().is_none());
    handle.close().await;

    // One that was released goes at once.
    let handle = next.open("/weekly", options()).await.unwrap();
    handle.acquire(Mode::Exclusive).await.unwrap().release().await.unwrap();
    handle.close().await;
    let error = cell.client().stat("/weekly").await.unwrap_err();
    assert_eq!(error.refusal(), Some(RefusalCode::NotFound), "{error}");
}
