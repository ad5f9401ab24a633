//! A relay: takes connections at one end of a way, makes one for each at the other, and carries bytes between the two.
//!
//! Invariant: nothing that the one end does, be it that it dies, is noticed at the other while the line between them is
//! cut in that direction.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{Listening, Port};

/// So much is carried at a time.
const BUFFER_BYTES: usize = 16 << 10;
/// How long to wait when no connection can be accepted.
const ACCEPT_RETRY: Duration = Duration::from_millis(20);

/// A way from one end to a replica.
pub(super) struct Relay {
    /// Where the way begins.
    pub(super) listener: TcpListener,
    /// Which service it leads to.
    pub(super) port: Port,
    /// Where the replica is.
    pub(super) target: watch::Receiver<Option<Listening>>,
    /// The line to the replica: whether it is cut.
    pub(super) forth: watch::Receiver<bool>,
    /// The line from it.
    pub(super) back: watch::Receiver<bool>,
}

impl Relay {
    /// Carries until it is dropped.
    pub(super) async fn run(self) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => drop(connections.spawn(self.connect(stream))),
                    // For want of file descriptors, as a rule.
                    Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
                },
                Some(_) = connections.join_next() => {}
            }
        }
    }

    /// What becomes of one connection.
    fn connect(&self, near: TcpStream) -> impl Future<Output = ()> + use<> {
        let (port, target) = (self.port, self.target.clone());
        let (mut forth, mut back) = (self.forth.clone(), self.back.clone());
        async move {
            // A handshake takes both directions.
            until_whole(&mut forth).await;
            until_whole(&mut back).await;
            let listening = *target.borrow();
            // Nobody listens: the connection is closed, which is what comes nearest to refusing it.
            let Some(listening) = listening else { return };
            let address = match port {
                Port::Peers => listening.peers,
                Port::Clients => listening.clients,
            };
            let Ok(far) = TcpStream::connect(address).await else { return };
            // If one of them is gone already, it will be noticed soon enough.
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::join!(carry(near_in, far_out, forth), carry(far_in, near_out, back));
        }
    }
}

/// Carries bytes, and the end, from one socket to another by `line`. Ends early if the receiver is gone: its own line
/// tells the sender, when it can.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut line: watch::Receiver<bool>) {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        until_whole(&mut line).await;
        // A connection that was reset has ended too.
        let length = from.read(&mut buffer).await.unwrap_or(0);
        let mut rest = &buffer[..length];
        // What was read is still on its way: the line may have been cut meanwhile.
        until_whole(&mut line).await;
        if rest.is_empty() {
            // Whoever is gone need not be told.
            let _ = to.shutdown().await;
            return;
        }
        while !rest.is_empty() {
            tokio::select! {
                biased;
                () = until_cut(&mut line) => until_whole(&mut line).await,
                written = to.write(rest) => match written {
                    Ok(length) => rest = &rest[length..],
                    Err(_) => return,
                }
            }
        }
    }
}

/// Waits until the line carries.
async fn until_whole(line: &mut watch::Receiver<bool>) {
    // The network outlives its relays.
    let _ = line.wait_for(|is_cut| !*is_cut).await;
}

/// Waits until it does not.
async fn until_cut(line: &mut watch::Receiver<bool>) {
    if line.wait_for(|is_cut| *is_cut).await.is_err() {
        std::future::pending().await
    }
}
