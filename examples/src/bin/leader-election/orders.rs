//! Orders on their way from a primary to the resource.
//!
//! An order takes a while, as on a real network: [`LATENCY`] lies between the moment it is given and the moment
//! it leaves. That is what makes a paused primary dangerous: when it goes on, its orders do too, before it has had
//! any occasion to notice that it is no longer primary.
//!
//! An order is one line: who gives it, until when the giver was sure of the lock (for this program's own checks
//! only), and the sequencer. The answer is one line: `done`, or why not.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use holdfast::{Lock, Sequencer};
use nix::time::{ClockId, clock_gettime};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::sync::mpsc;
use tokio::time::sleep_until;

/// What the resource answers to an order that it has carried out.
pub(crate) const DONE: &str = "done";

const LATENCY: Duration = Duration::from_millis(60);
const UNDER_WAY_MAX: usize = 64;

/// The giver's end.
#[derive(Debug)]
pub(crate) struct Orders {
    name: String,
    /// To the task that sends them.
    under_way: mpsc::Sender<(Instant, String)>,
}

/// An order, as the resource reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Who gives it.
    pub(crate) from: String,
    /// Until when the giver was sure of the lock as it gave the order.
    pub(crate) held_until: Instant,
    /// The proof that it is primary, or once was.
    pub(crate) sequencer: Sequencer,
}

impl Orders {
    /// Connects to the resource.
    pub(crate) async fn connect(name: &str, resource: SocketAddr) -> Result<Self> {
        let (answers, mut stream) = TcpStream::connect(resource).await.context("no resource")?.into_split();
        tokio::spawn(report_refusals(answers));
        let (under_way, mut departing) = mpsc::channel::<(Instant, String)>(UNDER_WAY_MAX);
        tokio::spawn(async move {
            while let Some((departure, order)) = departing.recv().await {
                sleep_until(departure.into()).await;
                if stream.write_all(order.as_bytes()).await.is_err() {
                    break;
                }
            }
        });
        Ok(Self { name: name.to_owned(), under_way })
    }

    /// Gives an order under `lock`. When this returns, it is on its way and cannot be called back.
    pub(crate) async fn give(&self, lock: &Lock) -> Result<()> {
        let (from, sequencer) = (self.name.clone(), lock.sequencer().clone());
        let order = Order { from, held_until: lock.valid_until(), sequencer };
        let sent = self.under_way.send((Instant::now() + LATENCY, order.line()?)).await;
        sent.context("the resource is gone")
    }
}

impl Order {
    /// The line for it.
    pub(crate) fn line(&self) -> Result<String> {
        let held_until = monotonic()? + self.held_until.saturating_duration_since(Instant::now());
        Ok(format!("{} {} {}\n", self.from, held_until.as_nanos(), self.sequencer))
    }

    /// Reads a line.
    pub(crate) fn parse(line: &str) -> Result<Self> {
        let mut fields = line.splitn(3, ' ');
        let mut field = || fields.next().with_context(|| format!("an order with too few fields: {line:?}"));
        let from = field()?.to_owned();
        let held_until = Duration::from_nanos(field()?.parse()?);
        let (now, monotonic) = (Instant::now(), monotonic()?);
        let held_until = match held_until.checked_sub(monotonic) {
            Some(ahead) => now + ahead,
            None => now - (monotonic - held_until),
        };
        Ok(Self { from, held_until, sequencer: field()?.parse()? })
    }
}

/// Says what the resource refuses.
async fn report_refusals(answers: OwnedReadHalf) {
    let mut answers = BufReader::new(answers).lines();
    while let Ok(Some(answer)) = answers.next_line().await {
        if answer != DONE {
            println!("hears from the resource: {answer}");
        }
    }
}

/// The clock behind [`Instant`], which all processes of a machine share.
fn monotonic() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC).context("no monotonic clock")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_goes_out_and_in() {
        let sequencer: Sequencer = "holdfast:1:exclusive:42:17:/ls/dev/a name with blanks".parse().unwrap();
        let held_until = Instant::now() + Duration::from_secs(2);
        let order = Order { from: "ada".to_owned(), held_until, sequencer };
        let read = Order::parse(order.line().unwrap().trim_end()).unwrap();
        assert_eq!((&read.from, &read.sequencer), (&order.from, &order.sequencer));
        let error = read.held_until.max(held_until) - read.held_until.min(held_until);
        assert!(error < Duration::from_millis(100), "{error:?}");
    }

    #[test]
    fn what_is_no_order_is_an_error() {
        for line in ["", "ada", "ada 5", "ada five holdfast:1:shared:1:1:/ls/a/b", "ada 5 holdfast"] {
            assert!(Order::parse(line).is_err(), "{line}");
        }
    }
}
