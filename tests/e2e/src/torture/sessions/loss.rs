//! One in five packets is lost, on every way between replicas and clients.

use std::time::Duration;

use tokio::time::Instant;

use super::cell::Cluster;
use super::crowds::Crowds;
use super::{BROKEN, HELD, Place, length, network, say};
use crate::torture::scenario::Options;

/// So many in a hundred packets are lost on their way.
const LOSS_PERCENT: u8 = 20;
/// Sessions with a connection of their own each, as most programs have it.
const ALONE: usize = 40;
/// Sessions that share one.
const SHARING: usize = 60;
/// Sessions that write large files all the while, one a process.
const BULK: usize = 4;
/// How often it is said how things are going.
const SAY_EVERY: Duration = Duration::from_secs(10);
/// Opening the sessions takes no longer.
const OPENING_MAX: Duration = Duration::from_secs(60);

/// Runs it.
///
/// # Errors
///
/// If it cannot be run.
pub(in crate::torture) async fn loss(options: &Options) -> anyhow::Result<u8> {
    let mut net = network(options, true)?;
    let place = Place::new(options)?;
    let cluster = Cluster::start(&mut net, options.replicas, place.dir()).await?;
    cluster.write(1, 1).await?;
    let mut crowds = Crowds::default();
    let host = net.add_host()?;
    let flags = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let alone = format!("--sessions {ALONE} --cells {ALONE} --group 1 --ask-every-ms 1000");
    crowds.start(&net, host, &cluster, place.dir(), &flags(&alone))?;
    let host = net.add_host()?;
    let sharing = format!("--sessions {SHARING} --group 3 --ask-every-ms 1000");
    crowds.start(&net, host, &cluster, place.dir(), &flags(&sharing))?;
    let host = net.add_host()?;
    for _ in 0..BULK {
        let bulk = "--sessions 1 --group 1 --ask-every-ms 1000 --bulk 1";
        crowds.start(&net, host, &cluster, place.dir(), &flags(bulk))?;
    }
    let opened = crowds.wait("every session is open", OPENING_MAX, |sum| sum.is_safe()).await?;
    say(&format!("{} sessions of 12 s, and now {LOSS_PERCENT}% of all packets are lost", opened.sessions));
    net.lose_everywhere(LOSS_PERCENT);
    net.apply()?;
    let began = Instant::now();
    let mut number = 1;
    let mut sum = opened;
    while began.elapsed() < length(options) {
        tokio::time::sleep(SAY_EVERY.min(length(options))).await;
        number += 1;
        // Next to the large writes it may take longer than a call waits. That is no session's end.
        if cluster.write(1, number).await.is_err() {
            say("a write by name had no answer");
        }
        sum = crowds.look()?.unwrap_or(sum);
        say(&format!(
            "{:4} s  safe {}/{}  jeopardies {} (longest {} ms)  least left of a lease {:?} ms  longest answer {} ms  \
            masters {}  bulk writes {}{}",
            began.elapsed().as_secs(),
            sum.safe,
            sum.sessions,
            sum.jeopardies,
            sum.jeopardy_max_ms,
            crowds.lease_left_min_ms.unwrap_or(0),
            crowds.answer_max_ms,
            sum.terms.len() + 1,
            sum.bulk_writes,
            sum.wrong().map(|wrong| format!("  WRONG: {wrong}")).unwrap_or_default(),
        ));
    }
    net.heal();
    net.apply()?;
    number += 1;
    cluster.write(1, number).await?;
    let healed = crowds.wait("all are safe and have seen the last change", OPENING_MAX, |sum| {
        sum.wrong().is_some() || sum.is_safe() && sum.seen_min >= number
    });
    sum = healed.await?;
    let verdict = match sum.wrong() {
        Some(wrong) => {
            say(&format!("BROKEN: {wrong}"));
            BROKEN
        }
        None => {
            say(&format!(
                "held: no session ended; {} came into jeopardy, for {} ms at the longest",
                sum.jeopardies, sum.jeopardy_max_ms
            ));
            HELD
        }
    };
    drop(crowds);
    Ok(place.leave(verdict))
}
