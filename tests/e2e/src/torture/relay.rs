//! A relay between a replica and all that connect to it, clients and replicas: it can delay, stall, half-close and
//! break what goes through it.
//!
//! Lives on the replica's own host, so that the rules of the network see who really sent something. Invariant: what
//! goes through comes out unchanged and in order, or not at all.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::net::{Host, Net};

/// So many chunks are on their way through a connection in each direction; the rest waits at the sender.
const CHUNKS: usize = 64;
/// The length of a chunk.
const CHUNK: usize = 16 << 10;

/// What a relay does with what goes through it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Manner {
    delay: Duration,
    /// In addition, for what the replica says.
    answers_delay: Duration,
    stalled: bool,
    /// Rises whenever the connections that exist are to be half-closed.
    half_closes: u64,
}

/// The relay. It and all its connections end when it is dropped.
#[derive(Debug)]
pub struct Relay {
    manner: watch::Sender<Manner>,
    task: JoinHandle<()>,
}

impl Relay {
    /// Passes connections to `listen` on to `target`, both on one host.
    ///
    /// # Errors
    ///
    /// If it cannot listen there.
    pub fn start(net: &Net, host: Host, listen: SocketAddr, target: SocketAddr) -> anyhow::Result<Self> {
        let door = net.door(host);
        let listener = door.on(|| std::net::TcpListener::bind(listen))??;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let (manner, watched) = watch::channel(Manner::default());
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        let Ok((outside, _)) = accepted else { continue };
                        // A socket is where it was made, wherever it is used.
                        let Ok(Ok(socket)) = door.on(TcpSocket::new_v4) else { continue };
                        connections.spawn(connect(outside, socket, target, watched.clone()));
                    }
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { manner, task })
    }

    /// From now on, everything comes so much later.
    pub fn delay(&self, delay: Duration) {
        self.manner.send_modify(|manner| manner.delay = delay);
    }

    /// From now on, what the replica says comes so much later, and what is said to it does not.
    pub fn delay_answers(&self, delay: Duration) {
        self.manner.send_modify(|manner| manner.answers_delay = delay);
    }

    /// From now on, nothing comes through, and everything stays connected.
    pub fn stall(&self) {
        self.manner.send_modify(|manner| manner.stalled = true);
    }

    /// Closes, of each connection that exists, the direction from the replica to the others, and reads nothing more
    /// from the replica; the other direction stays.
    pub fn half_close(&self) {
        self.manner.send_modify(|manner| manner.half_closes += 1);
    }

    /// From now on, everything comes through at once. What was half-closed stays so.
    pub fn heal(&self) {
        self.manner
            .send_modify(|manner| *manner = Manner { half_closes: manner.half_closes, ..Manner::default() });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection, to its end.
async fn connect(outside: TcpStream, socket: TcpSocket, target: SocketAddr, manner: watch::Receiver<Manner>) {
    // If the replica is not there, the connection closes.
    let Ok(inside) = socket.connect(target).await else { return };
    // What is said in small pieces is not to wait for more, and this cannot fail on a connection that lives.
    let _ = (outside.set_nodelay(true), inside.set_nodelay(true));
    let (from_outside, to_outside) = outside.into_split();
    let (from_inside, to_inside) = inside.into_split();
    let inwards = pass(from_outside, to_inside, manner.clone(), |manner| manner.delay);
    let outwards = async {
        let mut closes = manner.clone();
        let before = closes.borrow_and_update().half_closes;
        tokio::select! {
            () = pass(from_inside, to_outside, manner, |manner| manner.delay + manner.answers_delay) => {}
            // Both halves are dropped here, which closes the one that writes, and keeps the connection.
            _ = closes.wait_for(|manner| manner.half_closes > before) => {}
        }
    };
    tokio::join!(inwards, outwards);
}

/// Passes on what one side says until it says no more; then the other side is told.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut manner: watch::Receiver<Manner>,
    delay: impl Fn(&Manner) -> Duration,
) {
    let (chunks, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(CHUNKS);
    let delays = manner.clone();
    let read = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let at = Instant::now() + delay(&delays.borrow());
            if chunks.send((at, buffer[..length].to_vec())).await.is_err() {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, chunk)) = due.recv().await {
            sleep_until(at).await;
            // It fails when the relay ends.
            let _ = manner.wait_for(|manner| !manner.stalled).await.is_ok();
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(read, write);
}

#[cfg(test)]
mod tests {
    use super::super::net::HUB;
    use super::*;
    use crate::wait::within;

    /// A relay on the loopback device, and a connection through it: what the client has, and what the replica has.
    async fn connected() -> (Relay, TcpStream, TcpStream) {
        let replica = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let relay = Relay::start(&Net::loopback(), HUB, free, replica.local_addr().unwrap()).unwrap();
        let client = TcpStream::connect(free).await.unwrap();
        let (accepted, _) = within("the relay connects", replica.accept()).await.unwrap();
        (relay, client, accepted)
    }

    async fn hear(stream: &mut TcpStream) -> String {
        let mut buffer = [0; 100];
        let length = within("something comes", stream.read(&mut buffer)).await.unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    #[tokio::test]
    async fn what_goes_through_comes_out_in_both_directions_later_if_it_is_delayed() {
        let (relay, mut client, mut replica) = connected().await;
        client.write_all(b"ask").await.unwrap();
        assert_eq!(hear(&mut replica).await, "ask");
        let delay = Duration::from_millis(100);
        relay.delay(delay);
        let began = Instant::now();
        replica.write_all(b"answer").await.unwrap();
        assert_eq!(hear(&mut client).await, "answer");
        assert!(began.elapsed() >= delay);
        drop(client);
        assert_eq!(hear(&mut replica).await, "", "that the client has gone comes through too");
    }

    #[tokio::test]
    async fn answers_can_be_late_that_are_asked_for_at_once() {
        let (relay, mut client, mut replica) = connected().await;
        let delay = Duration::from_secs(1);
        relay.delay_answers(delay);
        let began = Instant::now();
        client.write_all(b"ask").await.unwrap();
        assert_eq!(hear(&mut replica).await, "ask");
        let asked = Instant::now();
        replica.write_all(b"answer").await.unwrap();
        assert_eq!(hear(&mut client).await, "answer");
        assert!(asked - began < delay && asked.elapsed() >= delay);
    }

    #[tokio::test]
    async fn what_is_stalled_comes_when_it_is_healed() {
        let (relay, mut client, mut replica) = connected().await;
        relay.stall();
        client.write_all(b"ask").await.unwrap();
        let early = tokio::time::timeout(Duration::from_millis(100), hear(&mut replica)).await;
        assert!(early.is_err(), "{early:?}");
        relay.heal();
        assert_eq!(hear(&mut replica).await, "ask");
    }

    #[tokio::test]
    async fn what_is_half_closed_goes_one_way_only() {
        let (relay, mut client, mut replica) = connected().await;
        client.write_all(b"ask").await.unwrap();
        assert_eq!(hear(&mut replica).await, "ask");
        relay.half_close();
        assert_eq!(hear(&mut client).await, "", "the replica will say no more, it seems");
        replica.write_all(b"unheard").await.unwrap();
        client.write_all(b"ask again").await.unwrap();
        assert_eq!(hear(&mut replica).await, "ask again");
    }
}
