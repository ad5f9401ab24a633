//! A replica that has lost its data is replaced while clients work on.

use holdfast::{Cell, OpenOptions, RefusalCode};
use holdfast_e2e::{Cluster, eventually, within};

use crate::PROGRAMS;

/// Writes a file until told to stop, and says how often.
async fn work(cell: Cell, stop: tokio::sync::watch::Receiver<bool>) -> u64 {
    let session = cell.session().open().await.unwrap();
    let file = session.open("/work", OpenOptions::new().create()).await.unwrap();
    let mut writes = 0;
    while !*stop.borrow() {
        writes += 1;
        within("a write", file.set_contents(writes.to_string())).await.unwrap();
    }
    writes
}

#[tokio::test]
async fn a_wiped_replica_refuses_to_start_and_is_replaced_under_a_new_id_while_clients_work_on() {
    let mut cluster = Cluster::start_with(PROGRAMS, &[("snapshot-every-bytes", "32KiB")]).await;
    let cell = cluster.cell();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let worker = tokio::spawn(work(cell.clone(), stopped));
    eventually("the worker works", async || cell.contents("/work").await.ok()).await;

    let wiped = cluster.follower().await;
    cluster[wiped].kill().await;
    std::fs::remove_dir_all(cluster[wiped].data_dir()).unwrap();
    cluster[wiped].start();
    let status = cluster[wiped].end().await;
    let words = cluster[wiped].last_words();
    assert_eq!(status.code(), Some(3), "it must not come back: {words}");
    for part in [
        format!("the data of replica {wiped} are gone"),
        "--join".to_owned(),
        "holdfast member add".to_owned(),
    ] {
        assert!(words.contains(&part), "{part:?} in {words}");
    }

    let again = cell.add_member(wiped, cluster[wiped].peer_address(), cluster[wiped].client_address()).await;
    assert_eq!(again.unwrap_err().refusal(), Some(RefusalCode::Membership), "its id is taken");
    let mut newcomer = cluster.describe(4);
    newcomer.set("join", "true");
    newcomer.start();
    cluster.insert(newcomer);
    let (peer, client) = (cluster[4].peer_address(), cluster[4].client_address());
    eventually("the newcomer is added", async || cell.add_member(4, peer, client).await.ok()).await;
    cluster.caught_up(4).await;
    eventually("the newcomer has caught up and votes", async || cell.promote_member(4).await.ok()).await;
    cell.remove_member(wiped).await.unwrap();
    drop(cluster.take(wiped));
    let members = cell.status().await.unwrap().members;
    assert!(members.iter().all(|member| member.id != wiped && !member.learner), "{members:?}");
    assert_eq!(members.len(), 3);

    // With the master dead, the newcomer is half of the majority.
    let master = cluster.master().await;
    cluster[master].kill().await;
    let before =
        eventually("the cell goes on", async || cell.stat("/work").await.ok()).await.stat.content_generation;
    eventually("the worker goes on", async || {
        cell.stat("/work").await.ok().filter(|node| node.stat.content_generation > before)
    })
    .await;
    stop.send_replace(true);
    let writes = within("the worker ends", worker).await.unwrap();
    assert_eq!(cell.contents("/work").await.unwrap().bytes, writes.to_string());
}

#[tokio::test]
async fn a_master_that_is_removed_hands_over_and_ends_and_does_not_come_back() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let session = cell.session().open().await.unwrap();
    let file = session.open("/file", OpenOptions::new().create()).await.unwrap();
    let removed = cluster.master().await;
    eventually("the master is removed", async || match cell.remove_member(removed).await {
        Ok(()) => Some(()),
        // An earlier attempt may have done it.
        Err(_) => {
            let members = cell.status().await.ok()?.members;
            members.iter().all(|member| member.id != removed).then_some(())
        }
    })
    .await;
    let status = cluster[removed].end().await;
    assert_eq!(status.code(), Some(3), "{}", cluster[removed].last_words());
    assert!(cluster[removed].last_words().contains("was removed"), "{}", cluster[removed].last_words());
    within("a write", file.set_contents("without it")).await.unwrap();

    cluster[removed].start();
    assert_eq!(cluster[removed].end().await.code(), Some(3));
    let words = cluster[removed].last_words();
    assert!(words.contains("was removed") && words.contains("never used again"), "{words}");
    assert_eq!(cell.status().await.unwrap().members.len(), 2);
}

#[tokio::test]
async fn a_newcomer_that_is_elsewhere_than_it_is_said_to_be_is_not_added() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    let mut newcomer = cluster.describe(4);
    newcomer.set("join", "true");
    newcomer.start();
    cluster.insert(newcomer);
    let (peer, client) = (cluster[4].peer_address(), cluster[4].client_address());
    let mistyped = eventually("the newcomer is asked", async || {
        let error = cell.add_member(4, peer, "127.0.0.1:1").await.unwrap_err().to_string();
        // It may not listen yet.
        (!error.contains("does not answer")).then_some(error)
    })
    .await;
    for part in [client, "--client says 127.0.0.1:1", "set client_advertise"] {
        assert!(mistyped.contains(part), "{part:?} in {mistyped}");
    }
    assert_eq!(cell.status().await.unwrap().members.len(), 3);
    cell.add_member(4, peer, client).await.unwrap();
}
