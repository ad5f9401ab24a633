//! A server outside the cell, one for each lock, that is fenced by sequencers: it remembers the greatest generation that
//! it has seen, refuses orders that come with a smaller one, and keeps a record of all.
//!
//! An order is a line, `PATH GENERATION HOLDER`; the answer is a line, `done` or `refused`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::clock;
use super::net::{HUB, Net};

/// The port where it listens.
pub const PORT: u16 = 7100;

/// An order that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// When.
    pub at: u64,
    /// Of which lock.
    pub path: String,
    /// Which client.
    pub holder: String,
    /// The generation of its sequencer.
    pub generation: u64,
    /// Whether it was carried out.
    pub done: bool,
}

/// The server; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Resource(Arc<Mutex<Orders>>);

#[derive(Debug, Default)]
struct Orders {
    /// All that arrived.
    arrivals: Vec<Arrival>,
    /// The greatest generation that was seen of each lock.
    greatest: BTreeMap<String, u64>,
}

impl Resource {
    /// Starts the server in the hub, and says where it is.
    ///
    /// # Errors
    ///
    /// If it cannot listen.
    pub async fn start(net: &Net) -> anyhow::Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind((net.address(HUB), PORT)).await?;
        let address = listener.local_addr()?;
        let resource = Self::default();
        let served = resource.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, served.clone()));
            }
        });
        Ok((resource, address))
    }

    /// All orders so far, as they arrived.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).arrivals.clone()
    }

    /// An order arrives. Whether it is carried out; `None` if it is none.
    fn order(&self, line: &str) -> Option<bool> {
        let mut words = line.split(' ');
        let (path, generation, holder) = (words.next()?, words.next()?, words.next()?);
        let generation: u64 = generation.parse().ok()?;
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let greatest = orders.greatest.entry(path.to_owned()).or_default();
        let done = generation >= *greatest;
        *greatest = generation.max(*greatest);
        let (path, holder) = (path.to_owned(), holder.to_owned());
        orders.arrivals.push(Arrival { at: clock::now(), path, holder, generation, done });
        Some(done)
    }
}

async fn serve(stream: TcpStream, resource: Resource) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Some(done) = resource.order(&line) else { return };
        if write.write_all(if done { b"done\n" } else { b"refused\n" }).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_at_a_smaller_generation_is_refused_and_recorded() {
        let resource = Resource::default();
        assert_eq!(resource.order("/a 5 c1"), Some(true));
        assert_eq!(resource.order("/a 4 c2"), Some(false));
        assert_eq!(resource.order("/b 4 c2"), Some(true), "another lock");
        assert_eq!(resource.order("nonsense"), None);
        let done: Vec<bool> = resource.arrivals().iter().map(|arrival| arrival.done).collect();
        assert_eq!(done, [true, false, true]);
    }
}
