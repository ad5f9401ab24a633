//! Replicas that are set up wrongly refuse to run, each with a reason that says what would be right, and the cell
//! that they would have harmed goes on.

use std::time::Duration;

use holdfast::{Cell, OpenOptions, WriteOptions};
use holdfast_e2e::{Cluster, Replica, eventually};

use crate::PROGRAMS;

/// Starts a replica that must not run: it ends with this exit status, and its last words hold all of `parts`.
async fn refuses(mut replica: Replica, code: i32, parts: &[&str]) {
    replica.start();
    let status = replica.end().await;
    let words = replica.last_words();
    assert_eq!(status.code(), Some(code), "{words}");
    for part in parts {
        assert!(words.contains(part), "{part:?} in {words}");
    }
}

/// The members of the cluster, with the addresses of `intruder` for replica `id`.
fn members_with(cluster: &Cluster, id: u64, intruder: &Replica) -> String {
    let member = |of: u64| {
        let replica = if of == id { intruder } else { &cluster[of] };
        format!("{of}={}/{}", replica.peer_address(), replica.client_address())
    };
    (1..=3).map(member).collect::<Vec<_>>().join(",")
}

/// A replica with addresses of its own that takes itself for the cluster's replica `id`.
fn impostor(cluster: &Cluster, id: u64) -> Replica {
    let mut replica = cluster.describe(4);
    replica.set("replica", id.to_string());
    let members = members_with(cluster, id, &replica);
    replica.set("members", members);
    replica
}

/// Writes through the cell, and checks that all three replicas are as they were.
async fn goes_on(cluster: &mut Cluster, cell: &Cell) {
    cell.set_contents("/file", "all is well", WriteOptions::new()).await.unwrap();
    for id in 1..=3 {
        assert!(cluster[id].is_running(), "replica {id} has been dragged along");
        cluster.caught_up(id).await;
    }
}

#[tokio::test]
async fn an_intruder_refuses_to_run_and_says_why_and_the_cell_goes_on() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    cell.set_contents("/file", "begun", WriteOptions::new().create()).await.unwrap();

    let mut same_port = impostor(&cluster, 2);
    same_port.set("client-listen", cluster[1].client_address());
    same_port.set("client-advertise", same_port.client_address().to_owned());
    refuses(same_port, 1, &["client_listen", cluster[1].client_address(), "another process has the port"])
        .await;

    let mut same_dir = impostor(&cluster, 1);
    same_dir.set("data-dir", cluster[1].data_dir().display().to_string());
    refuses(same_dir, 1, &["in use by another process", "a data_dir of its own"]).await;

    // An empty directory under an id that the cell knows: whether the other runs or not, only one can be right.
    refuses(impostor(&cluster, 2), 3, &["replica 2", "holdfast member add"]).await;

    let mut stranger = cluster.describe(5);
    let own = format!("5={}/{}", stranger.peer_address(), stranger.client_address());
    stranger.set("members", format!("1={}/{},{own}", cluster[1].peer_address(), cluster[1].client_address()));
    refuses(stranger, 1, &["configured otherwise", "[1, 2, 3]", "[1, 5]"]).await;
    goes_on(&mut cluster, &cell).await;
}

#[tokio::test]
async fn a_data_directory_serves_nobody_but_its_own_replica() {
    let mut cluster = Cluster::start(PROGRAMS).await;
    let cell = cluster.cell();
    cell.set_contents("/file", "begun", WriteOptions::new().create()).await.unwrap();
    let idle = cluster.follower().await;
    cluster[idle].kill().await;
    let data_dir = cluster[idle].data_dir().display().to_string();

    let other = idle % 3 + 1;
    let mut of_another_replica = impostor(&cluster, other);
    of_another_replica.set("data-dir", data_dir.clone());
    let belongs = format!("belongs to replica {idle}");
    refuses(of_another_replica, 1, &[&belongs, &format!("configured as replica {other}")]).await;

    let mut of_another_cell = impostor(&cluster, idle);
    of_another_cell.set("data-dir", data_dir.clone());
    of_another_cell.set("cell", "other");
    refuses(of_another_cell, 1, &["belongs to the cell \"e2e\"", "\"other\""]).await;

    let mut without_identity = impostor(&cluster, idle);
    without_identity.set("data-dir", cluster.dir().display().to_string());
    refuses(without_identity, 1, &["is not empty", "holdfast member add"]).await;

    // None of them has harmed what was there.
    cluster[idle].start();
    goes_on(&mut cluster, &cell).await;
}

#[tokio::test]
async fn a_configuration_that_cannot_be_is_refused_before_anything_is_opened() {
    let cluster = Cluster::configure(PROGRAMS, &[]);
    let file = cluster.dir().join("replica.toml");
    std::fs::write(&file, "cell = \"e2e\"\nclient_listn = \"127.0.0.1:7101\"\n").unwrap();
    let mut misspelt = impostor(&cluster, 1);
    misspelt.set("config", file.display().to_string());
    let data_dir = misspelt.data_dir().to_owned();
    refuses(misspelt, 2, &["client_listn", "the nearest one is client_listen"]).await;

    let mut twice = impostor(&cluster, 1);
    let member = format!("1={}/{}", twice.peer_address(), twice.client_address());
    twice.set("members", format!("{member},{member}"));
    refuses(twice, 2, &["two members have the id 1"]).await;

    let mut homeless = impostor(&cluster, 1);
    homeless.unset("members");
    refuses(homeless, 2, &["--members", "--join"]).await;
    assert!(!data_dir.exists());
}

#[tokio::test]
async fn variables_that_an_orchestrator_sets_for_a_service_stop_nobody_and_misspelt_ones_are_warned_of() {
    let mut cluster = Cluster::configure(PROGRAMS, &[]);
    for replica in cluster.replicas_mut() {
        replica.set_variable("HOLDFAST_PORT", "tcp://10.96.4.7:7101");
        replica.set_variable("HOLDFAST_SERVICE_HOST", "10.96.4.7");
        replica.set_variable("HOLDFAST_PORT_7101_TCP_ADDR", "10.96.4.7");
        replica.set_variable("HOLDFAST_TIK_MS", "1");
        replica.start();
    }
    cluster.serving().await;
    let said = cluster[1].log();
    let passed_over = "HOLDFAST_PORT, HOLDFAST_PORT_7101_TCP_ADDR, HOLDFAST_SERVICE_HOST";
    for part in [passed_over, "HOLDFAST_TIK_MS sets nothing", "the nearest one is HOLDFAST_TICK_MS"] {
        assert!(said.contains(part), "{part:?} in {said}");
    }
}

#[tokio::test]
async fn a_founder_that_is_not_where_its_members_say_notices_it_itself() {
    let mut cluster = Cluster::configure(PROGRAMS, &[]);
    // Where it listens is free for nobody else; where `members` says that it is, nobody listens.
    let elsewhere = cluster.describe(4).peer_address().to_owned();
    let own = cluster[1].peer_address().to_owned();
    cluster[1].set("peer-listen", elsewhere.clone());
    cluster[1].set("peer-advertise", own.clone());
    cluster[1].start();
    eventually("it says that it does not reach itself", async || {
        let said = cluster[1].log();
        let parts = ["this replica does not reach itself", &own, &elsewhere];
        parts.iter().all(|part| said.contains(part)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_means_another_cell_is_told_so() {
    let cluster = Cluster::start(PROGRAMS).await;
    let other = Cell::builder().addresses(cluster.cell().addresses()).name("other").connect().unwrap();
    let error = other.session().open().await.unwrap_err();
    assert_eq!(error.refusal(), Some(holdfast::RefusalCode::ForeignCell), "{error}");
    assert!(error.to_string().contains("\"other\"") && error.to_string().contains("\"e2e\""), "{error}");
    let right = Cell::builder().addresses(cluster.cell().addresses()).name("e2e").connect().unwrap();
    let session = right.session().open().await.unwrap();
    let error = session.open("/ls/other/file", OpenOptions::new().create()).await.unwrap_err();
    assert_eq!(error.refusal(), Some(holdfast::RefusalCode::ForeignCell), "{error}");
    assert!(session.open("/ls/e2e/file", OpenOptions::new().create()).await.unwrap().created());
}

#[tokio::test]
async fn a_cell_that_is_not_founded_yet_says_whom_it_waits_for_and_writes_nothing() {
    let mut cluster = Cluster::configure(PROGRAMS, &[]);
    let first = [cluster[1].client_address()];
    let hasty = Cell::builder().addresses(first).timeout(Duration::from_millis(300)).connect().unwrap();
    cluster[1].start();
    let waits_for = format!("replica 2 ({})", cluster[2].peer_address());
    let error = eventually("the replica says what it waits for", async || {
        let error = hasty.set_contents("/file", "early", WriteOptions::new().create()).await.unwrap_err();
        error.to_string().contains(&waits_for).then_some(error)
    })
    .await;
    assert!(error.is_retryable() && !error.is_outcome_unknown(), "it had no effect, for certain: {error}");

    cluster[2].start();
    cluster[3].start();
    cluster.serving().await;
    let written =
        cluster.cell().set_contents("/file", "in time", WriteOptions::new().if_generation(0)).await.unwrap();
    assert!(written.created, "nothing was there before");
}
