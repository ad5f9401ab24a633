//! Where a client looks for the cell: it learns of replicas that nobody told it of, and says soon where there is none.

use std::time::Duration;

use holdfast::{Cell, Error, Mode, OpenOptions, WriteOptions};
use holdfast_testkit::{TestCell, eventually};
use tokio::net::TcpListener;

const LIMIT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_cell_that_was_made_with_one_address_goes_on_when_that_replica_is_gone() {
    let cell = TestCell::start().await.unwrap();
    let (replicas, addresses) = (cell.replicas(), cell.addresses());
    for by_session in [false, true] {
        let client = Cell::connect([&addresses[0]]).unwrap();
        if by_session {
            let session = client.session().open().await.unwrap();
            session.close().await;
        } else {
            client.stat("/").await.unwrap();
        }
        eventually("it knows all replicas", LIMIT, async || {
            (client.known_addresses().len() == addresses.len()).then_some(())
        })
        .await;
        assert_eq!(client.addresses(), addresses[..1]);

        cell.kill(replicas[0]).await.unwrap();
        cell.master().await.unwrap();
        client.stat("/").await.unwrap();
        client.set_contents("/one", "1", WriteOptions::new().create()).await.unwrap();
        let session = client.session().open().await.unwrap();
        let handle = session.open("/one", OpenOptions::new()).await.unwrap();
        let lock = handle.acquire(Mode::Exclusive).await.unwrap();
        lock.release().await.unwrap();
        session.close().await;
        cell.restart(replicas[0]).await.unwrap();
    }
}

#[tokio::test]
async fn addresses_are_not_learned_from_the_master_of_another_cell() {
    let mine = TestCell::builder().name("mine").start().await.unwrap();
    let other = TestCell::builder().name("other").start().await.unwrap();
    let master = other.master().await.unwrap();
    let place = other.replicas().iter().position(|replica| *replica == master).unwrap();
    let foreign = &other.addresses()[place];
    let builder = || Cell::builder().name("mine").timeout(LIMIT);
    let client = builder().addresses([foreign]).connect().unwrap();
    let write = || WriteOptions::new().create();
    let errors = [
        client.set_contents("/one", "1", write()).await.unwrap_err(),
        client.session().open_timeout(LIMIT).open().await.map(drop).unwrap_err(),
    ];
    for error in errors {
        assert!(error.to_string().contains("\"other\""), "{error}");
    }
    // A status is what a replica says of itself, whichever cell it belongs to.
    assert_eq!(client.status().await.unwrap().cell, "other");
    assert_eq!(client.known_addresses(), std::slice::from_ref(foreign));

    let client = builder().addresses([foreign, &mine.addresses()[0]]).connect().unwrap();
    client.set_contents("/one", "1", write()).await.unwrap();
    let expected = [vec![foreign.clone()], mine.addresses()].concat();
    eventually("it knows its own cell's replicas, and no other", LIMIT, async || {
        (client.known_addresses() == expected).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_replica_that_hangs_does_not_keep_a_call_nor_a_session_from_the_master() {
    let cell = TestCell::start().await.unwrap();
    let master = cell.master().await.unwrap();
    let hung = cell.replicas().into_iter().find(|replica| *replica != master).unwrap();
    let place = cell.replicas().iter().position(|replica| *replica == hung).unwrap();
    let mut addresses = cell.addresses();
    addresses.swap(0, place);
    cell.pause(hung).await.unwrap();
    // As many as would find out of chance alone.
    for _ in 0..4 {
        let client = Cell::builder().addresses(&addresses).timeout(LIMIT).connect().unwrap();
        client.set_contents("/one", "1", WriteOptions::new().create()).await.unwrap();
        let client = Cell::connect(&addresses).unwrap();
        let session = client.session().open().await.unwrap();
        session.close().await;
    }
    cell.resume(hung).unwrap();
}

#[tokio::test]
async fn where_nothing_listens_and_nothing_ever_did_it_is_given_up_long_before_the_time_is_over() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let hour = Duration::from_secs(3_600);
    let client = Cell::builder().addresses([&address]).timeout(hour).grace(hour).connect().unwrap();
    let mut errors = Vec::new();
    tokio::time::timeout(LIMIT, async {
        errors.push(client.stat("/").await.unwrap_err());
        errors.push(client.delete("/one").await.unwrap_err());
        errors.push(client.status().await.unwrap_err());
        errors.push(client.session().open().await.unwrap_err());
    })
    .await
    .expect("nobody waits an hour");
    for error in errors {
        assert!(matches!(error, Error::Unavailable { absent: true, .. }), "{error:?}");
        assert!(error.is_retryable());
        let said = format!("no replica of the cell was found ({address}: connection refused)");
        assert_eq!(error.to_string(), said);
    }
}

#[tokio::test]
async fn a_cell_that_was_there_is_waited_for() {
    let cell = TestCell::start().await.unwrap();
    let client = Cell::builder().addresses(cell.addresses()).timeout(LIMIT).connect().unwrap();
    client.stat("/").await.unwrap();
    cell.kill_all().await.unwrap();
    let (asked, restarted) = tokio::join!(client.stat("/"), cell.restart_all());
    asked.unwrap();
    restarted.unwrap();
}
