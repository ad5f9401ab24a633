//! The shared resource that only the primary may give orders to, and the fence around it.
//!
//! It knows nothing of cells and sessions. It keeps the greatest lock generation that it has seen, and refuses
//! orders with a smaller one: that alone makes a former primary harmless (P§2.4), however late its orders come.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::orders::{DONE, Order};

/// What came to the resource, in order.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// Everything that came.
    pub(crate) visits: Vec<Visit>,
    /// The fence.
    generation_max: u64,
}

/// An order that came.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    /// When.
    pub(crate) at: Instant,
    /// What.
    pub(crate) order: Order,
    /// Whether it was carried out.
    pub(crate) accepted: bool,
}

/// The resource, serving.
#[derive(Debug)]
pub(crate) struct Resource {
    /// Where it serves.
    pub(crate) address: SocketAddr,
    /// What has come so far.
    pub(crate) history: watch::Receiver<History>,
}

impl Resource {
    /// Starts to serve, in tasks of its own that end with the runtime.
    pub(crate) async fn serve() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port for the resource")?;
        let address = listener.local_addr()?;
        let (history, receiver) = watch::channel(History::default());
        let history = Arc::new(history);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A candidate that was killed leaves a broken connection, which ends its task.
                tokio::spawn(attend(stream, Arc::clone(&history)));
            }
        });
        Ok(Self { address, history: receiver })
    }
}

impl History {
    /// Carries an order out, or refuses it.
    fn take(&mut self, order: Order) -> bool {
        let accepted = order.sequencer.generation >= self.generation_max;
        self.generation_max = self.generation_max.max(order.sequencer.generation);
        self.visits.push(Visit { at: Instant::now(), order, accepted });
        accepted
    }

    /// The last order that was carried out.
    pub(crate) fn last_accepted(&self) -> Option<&Visit> {
        self.visits.iter().rfind(|visit| visit.accepted)
    }

    /// Whether orders were only ever carried out for one primary after the other.
    pub(crate) fn is_orderly(&self) -> bool {
        let accepted: Vec<&Order> =
            self.visits.iter().filter(|visit| visit.accepted).map(|visit| &visit.order).collect();
        accepted.windows(2).all(|pair| {
            let (earlier, later) = (pair[0].sequencer.generation, pair[1].sequencer.generation);
            earlier < later || earlier == later && pair[0].from == pair[1].from
        })
    }
}

/// Takes the orders of one connection.
async fn attend(stream: TcpStream, history: Arc<watch::Sender<History>>) -> Result<()> {
    let (orders, mut answers) = stream.into_split();
    let mut orders = BufReader::new(orders).lines();
    while let Some(line) = orders.next_line().await? {
        let order = Order::parse(&line)?;
        let generation = order.sequencer.generation;
        let mut answer = String::new();
        history.send_modify(|history| {
            answer = if history.take(order) {
                format!("{DONE}\n")
            } else {
                format!(
                    "refused: generation {generation} is over, {} has been seen\n",
                    history.generation_max
                )
            };
        });
        answers.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(from: &str, generation: u64) -> Order {
        let sequencer = format!("holdfast:1:exclusive:{generation}:1:/ls/dev/leader").parse().unwrap();
        Order { from: from.to_owned(), held_until: Instant::now(), sequencer }
    }

    #[test]
    fn an_order_of_an_earlier_generation_is_refused_for_ever() {
        let mut history = History::default();
        assert!(history.take(order("ada", 5)));
        assert!(history.take(order("bob", 9)));
        assert!(!history.take(order("ada", 5)));
        assert!(history.take(order("bob", 9)));
        assert!(history.is_orderly());
        assert_eq!(history.last_accepted().unwrap().order.from, "bob");
    }

    #[test]
    fn two_primaries_in_one_generation_are_seen() {
        let mut history = History::default();
        history.take(order("ada", 5));
        history.take(order("bob", 5));
        assert!(!history.is_orderly());
    }
}
