//! TCP that gets over lost packets soon: how connections are made, and how they are set up.
//!
//! TCP's own patience is made for bulk: a lost SYN is sent again after a second, and a packet that is lost over and
//! over after 0.2, 0.4, 0.8, 1.6 s and so on. Elections and leases cannot wait for that. Never decides where to connect.

use std::io;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::net::TcpStream;

/// An attempt to connect that has come to nothing after this gets another one beside it: longer than the way around
/// the world, shorter than TCP waits before it sends a SYN again.
const HEDGE_AFTER: Duration = Duration::from_millis(300);
/// At most so many attempts run side by side.
const ATTEMPTS_MAX: usize = 6;

/// A connection on which what was sent has found no way for so long is broken by the system. On a line that loses
/// packets, TCP waits twice as long each time that it sends something again, up to minutes, while a new connection gets
/// through: so whatever hangs on this one had better begin anew.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(6);

/// The system takes so much more than it can send at once.
#[cfg(target_os = "linux")]
const UNSENT_BYTES_MAX: u32 = 256 << 10;

/// Connects to `host:port`. Dropping the future gives all attempts up.
///
/// # Errors
///
/// What the first attempt that ended was told.
pub async fn connect(address: &str) -> io::Result<TcpStream> {
    let mut attempts = FuturesUnordered::new();
    attempts.push(TcpStream::connect(address));
    let stream = loop {
        tokio::select! {
            // What one attempt was refused, the others would be.
            Some(attempt) = attempts.next() => break attempt?,
            () = tokio::time::sleep(HEDGE_AFTER), if attempts.len() < ATTEMPTS_MAX => {
                attempts.push(TcpStream::connect(address));
            }
        }
    };
    set_up(&stream);
    Ok(stream)
}

/// Sets a connection up. One that died since is noticed soon enough, and a system that does not know an option does
/// without.
pub fn set_up(stream: &TcpStream) {
    let _ = stream.set_nodelay(true);
    // A stream with little on its way is sent again after the same time each time, and not after twice the last. It is
    // the other end's to do the same.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_thin_linear_timeouts(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(UNACKNOWLEDGED_MAX));
    // What HTTP/2 still has, it can put in order: a ping, or a short frame of another stream, goes before a long one.
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_BYTES_MAX);
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_connection_is_set_up_for_packets_that_are_lost() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(&listener.local_addr().unwrap().to_string()).await.unwrap();
        assert!(stream.nodelay().unwrap());
        #[cfg(target_os = "linux")]
        {
            let socket = socket2::SockRef::from(&stream);
            assert!(socket.tcp_thin_linear_timeouts().unwrap());
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(UNACKNOWLEDGED_MAX));
        }
    }

    #[tokio::test]
    async fn a_refusal_is_told_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        assert_eq!(connect(&address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}
