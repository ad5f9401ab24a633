//! The shared resource that only the primary may give orders to, and the fence around it.
//!
//! It knows nothing of cells and sessions. Its fence keeps the greatest lock generation that it has seen, and refuses
//! orders with a smaller one: that alone makes a former primary harmless (P§2.4), however late its orders come. The
//! fence is stored before the first order of a generation is carried out, so that it holds through a restart of the
//! resource too.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use holdfast::Fence;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::orders::{DONE, Order};

/// What came to the resource, in order.
#[derive(Debug)]
pub(crate) struct History {
    /// Everything that came.
    pub(crate) visits: Vec<Visit>,
    fence: Fence,
    /// Where the fence is stored.
    fence_file: PathBuf,
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
    /// What must survive a restart is kept in `dir`.
    pub(crate) async fn serve(dir: &Path) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no port for the resource")?;
        let address = listener.local_addr()?;
        let (history, receiver) = watch::channel(History::open(dir.join("fence"))?);
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
    /// Nothing has come yet; but a fence may be left from an earlier life of the resource.
    fn open(fence_file: PathBuf) -> Result<Self> {
        let fence = match fs::read_to_string(&fence_file) {
            Ok(text) => text.parse()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Fence::new(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { visits: Vec::new(), fence, fence_file })
    }

    /// Carries an order out, or says why not.
    fn take(&mut self, order: Order) -> Result<()> {
        let passed = self.pass_fence(&order);
        self.visits.push(Visit { at: Instant::now(), order, accepted: passed.is_ok() });
        passed
    }

    fn pass_fence(&mut self, order: &Order) -> Result<()> {
        let admitted = self.fence.admit(&order.sequencer)?;
        if admitted.must_store() {
            store(&self.fence_file, &self.fence.to_string()).context("the fence could not be stored")?;
            self.fence.stored(admitted);
        }
        Ok(())
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
        let mut answer = String::new();
        history.send_modify(|history| {
            answer = match history.take(order) {
                Ok(()) => format!("{DONE}\n"),
                Err(reason) => format!("refused: {reason:#}\n"),
            };
        });
        answers.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// Writes a small file so that it is there after a crash, whole.
fn store(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut file = File::create(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
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
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fence");
        let mut history = History::open(file.clone()).unwrap();
        history.take(order("ada", 5)).unwrap();
        history.take(order("bob", 9)).unwrap();
        let refusal = history.take(order("ada", 5)).unwrap_err().to_string();
        assert_eq!(refusal, "the lock generation 5 is over: 9 has been seen");
        // Also by a resource that has crashed meanwhile.
        assert!(History::open(file).unwrap().take(order("ada", 5)).is_err());
        history.take(order("bob", 9)).unwrap();
        assert!(history.is_orderly());
        assert_eq!(history.last_accepted().unwrap().order.from, "bob");
    }

    #[test]
    fn two_primaries_in_one_generation_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let mut history = History::open(dir.path().join("fence")).unwrap();
        history.take(order("ada", 5)).unwrap();
        history.take(order("bob", 5)).unwrap();
        assert!(!history.is_orderly());
    }
}
