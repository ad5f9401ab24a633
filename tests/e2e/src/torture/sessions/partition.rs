//! The master is cut off for ten seconds, once a minute, and some of the clients with it.
//!
//! Ten seconds are less than a lease of twelve, so nobody's session need expire: those who stay with the majority come
//! to the new master within the same second, and those who are cut off with the old one within what is left.

use std::time::Duration;

use tokio::time::Instant;

use super::cell::Cluster;
use super::crowds::Crowds;
use super::{BROKEN, HELD, Place, length, network, say};
use crate::torture::net::{Host, Net};
use crate::torture::scenario::Options;

const CUT_FOR: Duration = Duration::from_secs(10);
/// From one cut to the next.
const ROUND: Duration = Duration::from_secs(40);
/// Sessions of each of the two client processes.
const SESSIONS: usize = 100;
/// Opening the sessions takes no longer, and coming back when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs it.
///
/// # Errors
///
/// If it cannot be run.
pub(in crate::torture) async fn partition(options: &Options) -> anyhow::Result<u8> {
    let mut net = network(options, true)?;
    let place = Place::new(options)?;
    let cluster = Cluster::start(&mut net, options.replicas, place.dir()).await?;
    cluster.write(1, 1).await?;
    let mut crowds = Crowds::default();
    let clients = [net.add_host()?, net.add_host()?];
    let flags = ["--sessions".to_owned(), SESSIONS.to_string(), "--cells".to_owned(), "10".to_owned()];
    for host in clients {
        crowds.start(&net, host, &cluster, place.dir(), &flags)?;
    }
    let opened = crowds.wait("every session is open", PATIENCE, |sum| sum.is_safe()).await?;
    say(&format!("{} sessions of 12 s; the master is cut off for 10 s with half of them", opened.sessions));
    let began = Instant::now();
    let mut number = 1;
    let sum = loop {
        let round = Instant::now();
        let (master, term) = cluster.master().await?;
        cut(&mut net, &cluster, cluster.host(master)?, clients)?;
        tokio::time::sleep(CUT_FOR).await;
        let jeopardy = crowds.look()?.map_or(0, |sum| sum.sessions - sum.safe);
        net.heal();
        net.apply()?;
        let healed = Instant::now();
        number += 1;
        cluster.write(1, number).await?;
        let back = crowds.wait("all are safe and have seen the last change", PATIENCE, |sum| {
            sum.wrong().is_some() || sum.is_safe() && sum.seen_min >= number
        });
        let sum = back.await?;
        say(&format!(
            "{:4} s  replica {master} was cut off in term {term}: {jeopardy} of {} sessions in jeopardy when it healed, \
            all safe again after {} ms; jeopardies {} (longest {} ms){}",
            began.elapsed().as_secs(),
            sum.sessions,
            healed.elapsed().as_millis(),
            sum.jeopardies,
            sum.jeopardy_max_ms,
            sum.wrong().map(|wrong| format!("  WRONG: {wrong}")).unwrap_or_default(),
        ));
        if sum.wrong().is_some() || began.elapsed() + ROUND > length(options) {
            break sum;
        }
        tokio::time::sleep(ROUND.saturating_sub(round.elapsed())).await;
    };
    let verdict = match sum.wrong() {
        Some(wrong) => {
            say(&format!("BROKEN: {wrong}"));
            BROKEN
        }
        None => {
            say("held: no session ended");
            HELD
        }
    };
    drop(crowds);
    Ok(place.leave(verdict))
}

/// The old master and the first of the clients hear nothing of all others.
fn cut(net: &mut Net, cluster: &Cluster, master: Host, clients: [Host; 2]) -> anyhow::Result<()> {
    let [with_master, with_majority] = clients;
    let majority = cluster.hosts().into_iter().filter(|host| *host != master).chain([with_majority]);
    for other in majority.collect::<Vec<_>>() {
        net.cut(master, other);
        net.cut(with_master, other);
    }
    net.apply()
}
