//! One in five packets is lost, on every way between replicas and clients.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

use super::cell::Cluster;
use super::crowds::{Crowds, Sum};
use super::{BROKEN, HELD, Place, length, network, say};
use crate::torture::net::Net;
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

/// No longer may it take from one write by name that the cell has taken to the next. The large writes take all that TCP
/// carries when so much is lost, and a small one waits for those before it in the log: for minutes the cell is slow, and
/// beyond this it is stuck.
const SILENCE_MAX: Duration = Duration::from_secs(300);

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
    let mut crowds = gather(&mut net, &cluster, place.dir())?;
    let opened = crowds.wait("every session is open", OPENING_MAX, |sum| sum.is_safe()).await?;
    say(&format!("{} sessions of 12 s, and now {LOSS_PERCENT}% of all packets are lost", opened.sessions));
    net.lose_everywhere(LOSS_PERCENT);
    net.apply()?;
    let mut writes = Writes::new(Instant::now());
    endure(length(options), &cluster, &mut crowds, &mut writes).await?;
    net.heal();
    net.apply()?;
    let last = writes.begun + 1;
    cluster.write(1, last).await?;
    writes.ended(true, Instant::now());
    let healed = crowds.wait("all are safe and have seen the last change", OPENING_MAX, |sum| {
        sum.wrong().is_some() || sum.is_safe() && sum.seen_min >= last
    });
    let sum = healed.await?;
    drop(crowds);
    Ok(place.leave(verdict(&sum, &writes)))
}

/// Starts all sessions.
fn gather(net: &mut Net, cluster: &Cluster, dir: &Path) -> anyhow::Result<Crowds> {
    let mut crowds = Crowds::default();
    let flags = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let alone = format!("--sessions {ALONE} --cells {ALONE} --group 1 --ask-every-ms 1000");
    let host = net.add_host()?;
    crowds.start(net, host, cluster, dir, &flags(&alone))?;
    let sharing = format!("--sessions {SHARING} --group 3 --ask-every-ms 1000");
    let host = net.add_host()?;
    crowds.start(net, host, cluster, dir, &flags(&sharing))?;
    let host = net.add_host()?;
    for _ in 0..BULK {
        let bulk = "--sessions 1 --group 1 --ask-every-ms 1000 --bulk 1";
        crowds.start(net, host, cluster, dir, &flags(bulk))?;
    }
    Ok(crowds)
}

/// Lets the time pass, writes now and then, and says how things are going.
async fn endure(
    length: Duration,
    cluster: &Cluster,
    crowds: &mut Crowds,
    writes: &mut Writes,
) -> anyhow::Result<()> {
    let began = Instant::now();
    while began.elapsed() < length {
        tokio::time::sleep(SAY_EVERY.min(length)).await;
        // Next to the large writes it may take longer than a call waits. That is no session's end.
        let written = cluster.write(1, writes.begun + 1).await;
        writes.ended(written.is_ok(), Instant::now());
        if let Err(error) = written {
            say(&format!("a write by name had no answer: {error:#}"));
        }
        let Some(sum) = crowds.look()? else { continue };
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
    Ok(())
}

/// Says what has come of it.
fn verdict(sum: &Sum, writes: &Writes) -> u8 {
    let wrong: Vec<String> = sum.wrong().into_iter().chain(writes.wrong()).collect();
    if !wrong.is_empty() {
        say(&format!("BROKEN: {}; {writes}", wrong.join("; ")));
        return BROKEN;
    }
    say(&format!(
        "held: no session ended; {} came into jeopardy, for {} ms at the longest; {writes}",
        sum.jeopardies, sum.jeopardy_max_ms
    ));
    HELD
}

/// How the writes by name fare that the rig makes itself.
struct Writes {
    /// The number of the last one. The first was made before anything was lost.
    begun: u64,
    unanswered: u64,
    /// When the cell had taken the last one that it took, or when packets began to be lost.
    taken_at: Instant,
    /// The longest time from one that was taken to the next.
    silence_max: Duration,
}

impl Writes {
    fn new(now: Instant) -> Self {
        Self { begun: 1, unanswered: 0, taken_at: now, silence_max: Duration::ZERO }
    }

    /// One has been taken, or has had no answer in time.
    fn ended(&mut self, taken: bool, now: Instant) {
        self.begun += 1;
        self.silence_max = self.silence_max.max(now - self.taken_at);
        if taken {
            self.taken_at = now;
        } else {
            self.unanswered += 1;
        }
    }

    /// What is wrong, if none was taken for too long.
    fn wrong(&self) -> Option<String> {
        let seconds = self.silence_max.as_secs();
        (self.silence_max > SILENCE_MAX).then(|| format!("nothing was committed by name for {seconds} s"))
    }
}

impl fmt::Display for Writes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { begun, unanswered, silence_max, .. } = self;
        let seconds = silence_max.as_secs_f64();
        write!(f, "{unanswered} of {} writes by name had no answer, ", begun - 1)?;
        write!(f, "and it took {seconds:.1} s at the longest from one that was taken to the next")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes that ended so many seconds after the beginning, taken or not.
    fn writes(ended: &[(u64, bool)]) -> Writes {
        let now = Instant::now();
        let mut writes = Writes::new(now);
        ended.iter().for_each(|(at, taken)| writes.ended(*taken, now + Duration::from_secs(*at)));
        writes
    }

    #[test]
    fn writes_without_an_answer_are_counted_and_forgiven_for_five_minutes() {
        let some = writes(&[(10, true), (80, false), (310, true), (320, true)]);
        assert_eq!(some.wrong(), None);
        let told = some.to_string();
        assert!(told.starts_with("1 of 4 writes") && told.contains("300.0 s at the longest"), "{told}");
    }

    #[test]
    fn a_cell_that_takes_no_write_for_longer_is_broken_though_all_sessions_live() {
        let none = writes(&[(170, false), (300, false), (301, true)]);
        assert_eq!(none.wrong().as_deref(), Some("nothing was committed by name for 301 s"));
        assert_eq!(verdict(&Sum::default(), &none), BROKEN);
        assert_eq!(verdict(&Sum::default(), &writes(&[(10, true)])), HELD);
    }
}
