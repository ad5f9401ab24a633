//! A network between a client and a replica, which can swallow what the replica says, and can be cut.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Forwards connections to one address until it is cut.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    deaf: Arc<AtomicBool>,
    /// Owns the listener and every connection.
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts to forward connections to `target`.
    ///
    /// # Panics
    ///
    /// If there is no port.
    pub async fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let deaf = Arc::<AtomicBool>::default();
        let (target, swallows) = (target.to_owned(), Arc::clone(&deaf));
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let Ok(replica) = TcpStream::connect(&target).await else { continue };
                let (from_client, to_client) = client.into_split();
                let (from_replica, to_replica) = replica.into_split();
                connections.spawn(forward(from_client, to_replica, Arc::default()));
                connections.spawn(forward(from_replica, to_client, Arc::clone(&swallows)));
            }
        });
        Self { address, deaf, task }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on, nothing that the replica says comes through. What the client says does.
    pub fn deafen(&self) {
        self.deaf.store(true, Ordering::SeqCst);
    }

    /// Breaks all connections, and takes no new ones.
    pub fn cut(&self) {
        self.task.abort();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
    }
}

async fn forward(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, swallows: Arc<AtomicBool>) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if !swallows.load(Ordering::SeqCst) && to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
